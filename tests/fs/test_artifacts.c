/* Artifacts: read-only, replaced in one step, readable by many at once, with and without the
 * kernel's passthrough. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../support/posix.h"
#include "base/cleanup.h"
#include "base/file.h"

static int passthrough_setup(void **state)
{
    struct mounted *m = calloc(1, sizeof *m);
    *state = m;
    return !m || mounted_impossible() ? -1 : mounted_start(m, "debounce=20");
}
static int spliced_setup(void **state)
{
    struct mounted *m = calloc(1, sizeof *m);
    *state = m;
    return !m || mounted_impossible() ? -1 : mounted_start(m, "debounce=20,nopassthrough");
}

/* Runs a job in image/NAME and waits for its end. */
static void draw(const struct mounted *m, const char *name, const char *prompt)
{
    char folder[64];
    snprintf(folder, sizeof folder, "image/%s", name);
    assert_int_equal(mounted_submit(m, folder, prompt), 0);
    for (int i = 0; i < 500; i++) {
        const char *line = wait_for(m, folder);
        if (!strncmp(line, "done", 4))
            return;
        if (!strncmp(line, "failed", 6))
            fail_msg("%s", line);
        sleep_ms(20);
    }
    fail_msg("the job does not end");
}

static const char *artifact(const struct mounted *m, const char *name)
{
    return mounted_path(m, "image/%s/image.png", name);
}

static void hash_of(const char *path, char out[SHA256_HEX_SIZE])
{
    AUTO_FD int fd = open(path, O_RDONLY);
    if (fd < 0 || sha256_file_hex(fd, out))
        fail_msg("%s: %s", path, strerror(errno));
}

static void nobody_can_change_an_artifact(void **state)
{
    struct mounted *m = *state;
    draw(m, "ro", "prompt = a stone\n");
    const char *path = artifact(m, "ro");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode, S_IFREG | 0444);
    assert_int_equal(ERR(open(path, O_WRONLY)), EPERM); /* root, too */
    assert_int_equal(ERR(open(path, O_RDWR)), EPERM);
    assert_int_equal(ERR(open(path, O_RDONLY | O_TRUNC)), EPERM);
    assert_int_equal(ERR(truncate(path, 0)), EPERM);
    assert_int_equal(ERR(chmod(path, 0600)), 0);
    assert_int_equal(ERR(open(path, O_WRONLY)), EPERM);
    struct stat same;
    assert_int_equal(stat(path, &same), 0);
    assert_int_equal(same.st_size, st.st_size);
    assert_true(same.st_size > 0);
}

static void artifacts_can_be_moved_and_removed(void **state)
{
    struct mounted *m = *state;
    draw(m, "mv", "prompt = a bird\n");
    char before[SHA256_HEX_SIZE], after[SHA256_HEX_SIZE];
    hash_of(artifact(m, "mv"), before);
    char *kept = strdup(mounted_path(m, "image/mv/kept.png"));
    assert_int_equal(ERR(rename(artifact(m, "mv"), kept)), 0);
    hash_of(kept, after);
    assert_string_equal(before, after);
    assert_int_equal(ERR(open(kept, O_WRONLY)), EPERM);
    assert_int_equal(ERR(unlink(kept)), 0);
    free(kept);
    assert_int_equal(shell(m, "rm -r image/mv"), 0);
}

/* Readers of the old artifact keep it, whatever takes its name. */
static void a_reader_is_not_disturbed_by_the_next_run(void **state)
{
    struct mounted *m = *state;
    draw(m, "again", "prompt = one\nseed = 1\n");
    char old[SHA256_HEX_SIZE], now_there[SHA256_HEX_SIZE], still[SHA256_HEX_SIZE];
    hash_of(artifact(m, "again"), old);
    AUTO_FD int fd = open(artifact(m, "again"), O_RDONLY);
    struct stat before, after;
    assert_int_equal(fstat(fd, &before), 0);
    char *map = mmap(NULL, (size_t)before.st_size, PROT_READ, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(map, MAP_FAILED);
    draw(m, "again", "prompt = two\nseed = 2\n");
    for (int i = 0; i < 3000; i++) { /* `wait` may have spoken of the first run */
        assert_int_equal(stat(artifact(m, "again"), &after), 0);
        if (after.st_ino != before.st_ino)
            break;
        sleep_ms(20);
    }
    assert_int_not_equal(after.st_ino, before.st_ino);
    hash_of(artifact(m, "again"), now_there);
    assert_string_not_equal(now_there, old);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    assert_int_equal(sha256_file_hex(fd, still), 0);
    assert_string_equal(still, old);
    sha256_hex(map, (size_t)before.st_size, still);
    assert_string_equal(still, old);
    munmap(map, (size_t)before.st_size);
}

struct reader {
    const char *path, *hash;
    pthread_t thread;
};

static void *read_often(void *arg)
{
    struct reader *r = arg;
    for (int i = 0; i < 200; i++) {
        char hash[SHA256_HEX_SIZE];
        AUTO_FD int fd = open(r->path, O_RDONLY);
        if (fd < 0 || sha256_file_hex(fd, hash))
            return strerror(errno);
        if (strcmp(hash, r->hash))
            return "other bytes";
        struct stat st;
        if (i % 3 == 0 && !fstat(fd, &st)) {
            char *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
            if (map == MAP_FAILED)
                return "mmap";
            sha256_hex(map, (size_t)st.st_size, hash);
            munmap(map, (size_t)st.st_size);
            if (strcmp(hash, r->hash))
                return "other bytes in the map";
        }
    }
    return NULL;
}

static void many_may_read_at_once(void **state)
{
    struct mounted *m = *state;
    draw(m, "many", "prompt = a crowd\n");
    char *path = strdup(artifact(m, "many")), hash[SHA256_HEX_SIZE];
    hash_of(path, hash);
    struct reader readers[6];
    for (size_t i = 0; i < ARRAY_LEN(readers); i++) {
        readers[i] = (struct reader){.path = path, .hash = hash};
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_often, &readers[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(readers); i++) {
        void *problem;
        pthread_join(readers[i].thread, &problem);
        if (problem)
            fail_msg("%s", (char *)problem);
    }
    free(path);
}

static void an_unlinked_artifact_can_still_be_read(void **state)
{
    struct mounted *m = *state;
    draw(m, "gone", "prompt = smoke\n");
    char before[SHA256_HEX_SIZE], after[SHA256_HEX_SIZE];
    hash_of(artifact(m, "gone"), before);
    AUTO_FD int fd = open(artifact(m, "gone"), O_RDONLY);
    assert_int_equal(shell(m, "rm -r image/gone"), 0);
    assert_int_equal(sha256_file_hex(fd, after), 0);
    assert_string_equal(before, after);
}

/* Jobs end at any moment of `rm -r`, which must not find the folder full again. */
static void removing_a_folder_wins_over_publishing_into_it(void **state)
{
    struct mounted *m = *state;
    for (int i = 0; i < 60; i++) {
        assert_int_equal(mounted_submit(m, "image/race", "prompt = a hare\n"), 0);
        sleep_ms(20 + i % 30);
        if (shell(m, "rm -r image/race"))
            fail_msg("round %d", i);
    }
}

/* … but rmdir alone never takes results with it. */
static void rmdir_keeps_a_folder_with_results(void **state)
{
    struct mounted *m = *state;
    draw(m, "kept", "prompt = a well\n");
    assert_int_equal(ERR(rmdir(mounted_path(m, "image/kept"))), ENOTEMPTY);
    assert_int_equal(ERR(access(artifact(m, "kept"), F_OK)), 0);
    assert_int_equal(ERR(unlink(mounted_path(m, "image/kept/prompt.ini"))), 0);
    sleep_ms(3100);
    assert_int_equal(ERR(rmdir(mounted_path(m, "image/kept"))), ENOTEMPTY);
    assert_int_equal(ERR(access(artifact(m, "kept"), F_OK)), 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(nobody_can_change_an_artifact),
    cmocka_unit_test(artifacts_can_be_moved_and_removed),
    cmocka_unit_test(a_reader_is_not_disturbed_by_the_next_run),
    cmocka_unit_test(many_may_read_at_once),
    cmocka_unit_test(an_unlinked_artifact_can_still_be_read),
    cmocka_unit_test(removing_a_folder_wins_over_publishing_into_it),
    cmocka_unit_test(rmdir_keeps_a_folder_with_results),
};

int main(void)
{
    int failed =
        cmocka_run_group_tests_name("passthrough", tests, passthrough_setup, posix_teardown);
    return failed + cmocka_run_group_tests_name("spliced", tests, spliced_setup, posix_teardown);
}
