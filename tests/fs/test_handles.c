/* File handles, as an NFS server keeps them: good when the kernel has forgotten the node, when the
 * file was renamed, when the daemon was restarted or killed; stale when the file is gone. */
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
#include <unistd.h>

#include "../support/posix.h"
#include "base/cleanup.h"

struct handle {
    struct file_handle head;
    unsigned char bytes[MAX_HANDLE_SZ];
};

static struct handle handle_of(const char *path)
{
    struct handle h = {.head = {.handle_bytes = MAX_HANDLE_SZ}};
    int mount;
    if (name_to_handle_at(AT_FDCWD, path, &h.head, &mount, 0))
        fail_msg("%s: no handle: %s", path, strerror(errno));
    return h;
}

/* A descriptor of the file, or minus the errno. */
static int by_handle(const struct mounted *m, struct handle *h, int flags)
{
    AUTO_FD int root = open(m->dir, O_RDONLY | O_DIRECTORY);
    int fd = open_by_handle_at(root, &h->head, flags);
    return fd < 0 ? -errno : fd;
}

static void forget_everything(void)
{
    sync();
    AUTO_FD int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
    if (fd < 0 || write(fd, "2", 1) != 1)
        fail_msg("drop_caches: %s", strerror(errno));
}

static void expect_text(const struct mounted *m, struct handle *h, const char *text)
{
    char got[64] = "";
    AUTO_FD int fd = by_handle(m, h, O_RDONLY);
    if (fd < 0)
        fail_msg("the handle does not open: %s", strerror(-fd));
    assert_true(read(fd, got, sizeof got - 1) >= 0);
    assert_string_equal(got, text);
}

static void restart(struct mounted *m, bool killed)
{
    assert_int_equal(posix_go_home(), 0);
    if (killed)
        mounted_kill(m);
    else
        assert_int_equal(mounted_end(m, SIGTERM), 0);
    assert_int_equal(mounted_start(m, "allow_other,debounce=50"), 0);
    assert_int_equal(chdir(mounted_path(m, "image/.test")), 0);
}

static void a_handle_outlives_what_the_kernel_remembers(void **state)
{
    struct mounted *m = *state;
    mkdir("d", 0755);
    write_file("d/f", "text");
    struct handle f = handle_of("d/f"), d = handle_of("d");
    expect_text(m, &f, "text");
    forget_everything();
    expect_text(m, &f, "text");
    AUTO_FD int fd = by_handle(m, &d, O_RDONLY | O_DIRECTORY);
    assert_true(fd >= 0);
    assert_int_equal(ERR(faccessat(fd, "f", F_OK, 0)), 0);
    assert_int_equal(ERR(faccessat(fd, "../../../video", F_OK, 0)), 0);
}

static void a_handle_follows_its_file(void **state)
{
    struct mounted *m = *state;
    mkdir("to", 0755);
    write_file("f", "text");
    struct handle h = handle_of("f");
    assert_int_equal(ERR(rename("f", "to/g")), 0);
    expect_text(m, &h, "text");
    forget_everything();
    expect_text(m, &h, "text");
}

static void handles_are_good_after_a_restart(void **state)
{
    struct mounted *m = *state;
    for (int killed = 0; killed < 2; killed++) {
        write_file("f", "before");
        mkdir("d", 0755);
        struct handle f = handle_of("f"), d = handle_of("d"), gone = {0};
        touch("gone");
        gone = handle_of("gone");
        unlink("gone");
        restart(m, killed);
        expect_text(m, &f, "before");
        touch("new"); /* must not get the id of the one that is gone */
        assert_int_equal(by_handle(m, &gone, O_RDONLY), -ESTALE);
        AUTO_FD int fd = by_handle(m, &d, O_RDONLY | O_DIRECTORY);
        assert_true(fd >= 0);
        assert_int_equal(ERR(mkdirat(fd, "in", 0755)), 0);
        assert_int_equal(ERR(access("d/in", F_OK)), 0);
        AUTO_FD int w = by_handle(m, &f, O_WRONLY | O_TRUNC);
        assert_int_equal(write(w, "after", 5), 5);
        assert_string_equal(read_file("f"), "after");
        rmdir("d/in");
    }
}

static void a_handle_of_a_removed_file_is_stale(void **state)
{
    struct mounted *m = *state;
    write_file("f", "text");
    mkdir("d", 0755);
    struct handle f = handle_of("f"), d = handle_of("d");
    unlink("f");
    rmdir("d");
    assert_int_equal(by_handle(m, &f, O_RDONLY), -ESTALE);
    assert_int_equal(by_handle(m, &d, O_RDONLY), -ESTALE);
    forget_everything();
    assert_int_equal(by_handle(m, &f, O_RDONLY), -ESTALE);
    touch("f");
    assert_int_equal(by_handle(m, &f, O_RDONLY), -ESTALE);
}

static void handles_of_virtual_files_work_too(void **state)
{
    struct mounted *m = *state;
    struct handle readme = handle_of("../../README.txt"), dir = handle_of("../../.omnifs");
    forget_everything();
    AUTO_FD int fd = by_handle(m, &readme, O_RDONLY);
    char c;
    assert_true(fd >= 0 && read(fd, &c, 1) == 1);
    AUTO_FD int d = by_handle(m, &dir, O_RDONLY | O_DIRECTORY);
    assert_true(d >= 0);
    assert_int_equal(ERR(faccessat(d, "version", F_OK, 0)), 0);
    assert_int_equal(ERR(faccessat(d, "../image", F_OK, 0)), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        POSIX_TEST(a_handle_outlives_what_the_kernel_remembers),
        POSIX_TEST(a_handle_follows_its_file),
        POSIX_TEST(handles_are_good_after_a_restart),
        POSIX_TEST(a_handle_of_a_removed_file_is_stale),
        POSIX_TEST(handles_of_virtual_files_work_too),
    };
    return cmocka_run_group_tests(tests, posix_setup, posix_teardown);
}
