/* The limit on the store's bytes: told when writing, in df, and given back when files go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "../support/posix.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "../support/scratch.h"

#define MIB (1 << 20)

static char registry[64];

/* The tests' registry with a limit of 4 MiB. */
static int write_registry(void)
{
    int fd = mkstemp(scratch_name(registry, "omnifs-quota-XXXXXX"));
    if (fd < 0)
        return -1;
    close(fd);
    AUTO_STR struct str s = {0};
    str_add(&s, read_file("tests/e2e/registry.ini"));
    str_add(&s, "\nstore_bytes = 4M\n");
    return s.failed ? -1 : write_file(registry, s.data);
}

static int setup(void **state)
{
    struct mounted *m = calloc(1, sizeof *m);
    char options[128];
    *state = m;
    if (!m || mounted_impossible() || write_registry())
        return -1;
    snprintf(options, sizeof options, "registry=%s", registry);
    return mounted_start(m, options);
}

static int teardown(void **state)
{
    unlink(registry);
    return posix_teardown(state);
}

static int fill(int fd, int mib)
{
    static char zero[MIB];
    for (int i = 0; i < mib; i++)
        if (pwrite(fd, zero, MIB, (off_t)i * MIB) != MIB)
            return errno;
    return 0;
}

static uint64_t left(const struct mounted *m)
{
    struct statvfs st;
    assert_int_equal(statvfs(m->dir, &st), 0);
    assert_true(st.f_blocks * st.f_frsize <= 4 * MIB);
    return st.f_bavail * st.f_frsize;
}

static bool comes_back(const struct mounted *m, uint64_t bytes)
{
    for (int i = 0; i < 6000 && left(m) < bytes; i++)
        sleep_ms(10); /* RELEASE and FORGET come after the system call */
    return left(m) >= bytes;
}

static void growth_beyond_the_limit_is_refused_however_it_is_done(void **state)
{
    struct mounted *m = *state;
    const char *path = mounted_path(m, "image/.big");
    AUTO_FD int fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_int_equal(fill(fd, 3), 0);
    assert_int_equal(left(m), MIB);
    assert_int_equal(ERR((int)pwrite(fd, "x", 1, 4 * MIB)), EDQUOT);
    assert_int_equal(ERR(ftruncate(fd, 5 * MIB)), EDQUOT);
    assert_int_equal(ERR(truncate(path, 5 * MIB)), EDQUOT);
    assert_int_equal(ERR(fallocate(fd, 0, 0, 5 * MIB)), EDQUOT);
    assert_int_equal(ERR((int)copy_file_range(fd, &(off_t){0}, fd, &(off_t){3 * MIB}, 2 * MIB, 0)),
                     EDQUOT);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, 3 * MIB);
    assert_int_equal(fill(fd, 4), 0); /* writing over what is there costs nothing */
    assert_int_equal(left(m), 0);
    assert_int_equal(unlink(path), 0);
}

static void space_comes_back(void **state)
{
    struct mounted *m = *state;
    const char *path = mounted_path(m, "image/.big");
    assert_true(comes_back(m, 4 * MIB));
    for (int way = 0; way < 4; way++) {
        int fd = open(path, O_RDWR | O_CREAT, 0600);
        assert_int_equal(fill(fd, 4), 0);
        assert_int_equal(ERR((int)pwrite(fd, "x", 1, 4 * MIB)), EDQUOT);
        int r = way == 0   ? ftruncate(fd, 0)
                : way == 1 ? truncate(path, 0)
                : way == 2 ? close(open(path, O_WRONLY | O_TRUNC))
                           : unlink(path);
        assert_int_equal(r, 0);
        close(fd);
        if (!comes_back(m, 4 * MIB))
            fail_msg("way %d: %llu bytes left", way, (unsigned long long)left(m));
    }
}

static void the_count_survives_kill_9(void **state)
{
    struct mounted *m = *state;
    char options[128];
    snprintf(options, sizeof options, "registry=%s", registry);
    int fd = open(mounted_path(m, "image/.kept"), O_RDWR | O_CREAT, 0600);
    assert_int_equal(fill(fd, 1), 0);
    int lost = open(mounted_path(m, "image/.lost"), O_RDWR | O_CREAT, 0600);
    assert_int_equal(fill(lost, 2), 0);
    assert_int_equal(unlink(mounted_path(m, "image/.lost")), 0);
    mounted_kill(m);
    close(fd);
    close(lost);
    assert_int_equal(mounted_start(m, options), 0);
    assert_int_equal(left(m), 3 * MIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(growth_beyond_the_limit_is_refused_however_it_is_done),
        cmocka_unit_test(space_comes_back),
        cmocka_unit_test(the_count_survives_kill_9),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
