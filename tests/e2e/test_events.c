/* What a watcher of a job folder sees: exact lists of inotify events. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../support/mounted.h"

#define SAVED(name) "CREATE " name ", OPEN " name ", MODIFY " name ", CLOSE_WRITE " name
#define MADE(name)  "CREATE " name ", OPEN " name ", CLOSE_WRITE " name
#define QUIET       400 /* ms without events after the last one */

static struct mounted m;

static int setup(void **state)
{
    (void)state;
    return mounted_start(&m, "debounce=30");
}

static int teardown(void **state)
{
    (void)state;
    int r = mounted_end(&m, SIGTERM);
    mounted_free(&m);
    return r;
}

static void watch(struct events *e, const char *folder)
{
    assert_int_equal(events_begin(e, mounted_path(&m, "%s", folder)), 0);
}

/* Waits for the job, then for the end of events. */
static const char *seen(struct events *e, const char *folder, const char *outcome)
{
    assert_memory_equal(wait_for(&m, folder), outcome, strlen(outcome));
    return events_end(e, "CLOSE_WRITE metadata.json", QUIET);
}

static void a_new_job_shows_complete_files_and_metadata_last(void **state)
{
    (void)state;
    struct events e;
    assert_int_equal(mkdir(mounted_path(&m, "image/new"), 0755), 0);
    watch(&e, "image/new");
    assert_int_equal(mounted_submit(&m, "image/new", "prompt = new\n"), 0);
    assert_string_equal(seen(&e, "image/new", "done"),
                        SAVED("prompt.ini") ", " MADE("image.png") ", " MADE("metadata.json"));
}

static void several_pictures_come_in_order(void **state)
{
    (void)state;
    struct events e;
    assert_int_equal(mkdir(mounted_path(&m, "image/two"), 0755), 0);
    watch(&e, "image/two");
    assert_int_equal(mounted_submit(&m, "image/two", "prompt = two\ncount = 2\n"), 0);
    assert_string_equal(seen(&e, "image/two", "done"),
                        SAVED("prompt.ini") ", " MADE("image-1.png") ", " MADE(
                            "image-2.png") ", " MADE("metadata.json"));
}

static void a_second_run_replaces_without_a_gap(void **state)
{
    (void)state;
    struct events e;
    assert_int_equal(mounted_submit(&m, "image/again", "prompt = one\nseed = 1\n"), 0);
    assert_string_equal(wait_for(&m, "image/again"), "done");
    struct stat before, after;
    assert_int_equal(stat(mounted_path(&m, "image/again/image.png"), &before), 0);
    watch(&e, "image/again");
    assert_int_equal(mounted_submit(&m, "image/again", "prompt = two\nseed = 2\n"), 0);
    const char *list = seen(&e, "image/again", "done");
    /* No DELETE: there is a picture at every moment. A new node, so that readers of the old one
     * keep what they have. */
    assert_null(strstr(list, "DELETE"));
    assert_non_null(strstr(list, MADE("image.png") ", " MADE("metadata.json")));
    assert_int_equal(stat(mounted_path(&m, "image/again/image.png"), &after), 0);
    assert_true(before.st_ino != after.st_ino);
}

static void a_failed_job_shows_its_error_and_the_next_run_removes_it(void **state)
{
    (void)state;
    struct events e;
    assert_int_equal(mkdir(mounted_path(&m, "image/bad"), 0755), 0);
    watch(&e, "image/bad");
    assert_int_equal(mounted_submit(&m, "image/bad", "prompt = bad\nstep = 3\n"), 0);
    assert_string_equal(seen(&e, "image/bad", "failed: "),
                        SAVED("prompt.ini") ", " MADE("error.txt") ", " MADE("metadata.json"));
    assert_non_null(strstr(read_file(mounted_path(&m, "image/bad/error.txt")), "steps"));
    watch(&e, "image/bad");
    assert_int_equal(mounted_submit(&m, "image/bad", "prompt = good\nsteps = 3\n"), 0);
    assert_non_null(strstr(seen(&e, "image/bad", "done"),
                           MADE("image.png") ", DELETE error.txt, " MADE("metadata.json")));
}

static void a_watcher_that_reads_on_create_gets_every_byte(void **state)
{
    (void)state;
    assert_int_equal(mkdir(mounted_path(&m, "image/eager"), 0755), 0);
    int fd = inotify_init1(IN_CLOEXEC);
    assert_true(inotify_add_watch(fd, mounted_path(&m, "image/eager"), IN_CREATE) >= 0);
    assert_int_equal(mounted_submit(&m, "image/eager", "prompt = eager\n"), 0);
    static char early[1 << 16], late[1 << 16];
    ssize_t got = -1;
    char buf[4096] __attribute__((aligned(8)));
    for (bool found = false; !found;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, 60000), 1);
        ssize_t n = read(fd, buf, sizeof buf);
        for (char *at = buf; at < buf + n;) {
            const struct inotify_event *event = (const struct inotify_event *)(void *)at;
            if (!strcmp(event->name, "image.png")) {
                int file = open(mounted_path(&m, "image/eager/image.png"), O_RDONLY);
                got = read(file, early, sizeof early);
                close(file);
                found = true;
            }
            at += sizeof *event + event->len;
        }
    }
    close(fd);
    assert_string_equal(wait_for(&m, "image/eager"), "done");
    int file = open(mounted_path(&m, "image/eager/image.png"), O_RDONLY);
    ssize_t all = read(file, late, sizeof late);
    close(file);
    assert_true(all > 0);
    assert_int_equal(got, all);
    assert_memory_equal(early, late, all);
}

static void a_job_that_is_renamed_delivers_into_the_new_name(void **state)
{
    (void)state;
    struct events e;
    assert_int_equal(mounted_submit(&m, "image/old", "prompt = move sleep=3000\n"), 0);
    watch(&e, "image/old");
    assert_true(runs(&m, "image/old"));
    assert_int_equal(rename(mounted_path(&m, "image/old"), mounted_path(&m, "image/moved")), 0);
    assert_non_null(
        strstr(seen(&e, "image/moved", "done"), MADE("image.png") ", " MADE("metadata.json")));
    assert_int_equal(times_drawn(&m, "move sleep"), 1);
    assert_false(exists(mounted_path(&m, "image/old")));
}

static void a_users_file_with_an_artifacts_name_is_kept(void **state)
{
    (void)state;
    assert_int_equal(mkdir(mounted_path(&m, "image/own"), 0755), 0);
    assert_int_equal(write_file(mounted_path(&m, "image/own/image.png"), "mine"), 0);
    assert_int_equal(mounted_submit(&m, "image/own", "prompt = own\n"), 0);
    assert_string_equal(wait_for(&m, "image/own"), "done");
    assert_string_equal(read_file(mounted_path(&m, "image/own/image.png~")), "mine");
    assert_memory_equal(read_file(mounted_path(&m, "image/own/image.png")), "\x89PNG", 4);
}

static void artifacts_are_read_only_but_may_be_renamed_and_removed(void **state)
{
    (void)state;
    assert_int_equal(mounted_submit(&m, "image/ro", "prompt = ro\n"), 0);
    assert_string_equal(wait_for(&m, "image/ro"), "done");
    const char *png = mounted_path(&m, "image/ro/image.png");
    assert_int_equal(open(png, O_WRONLY), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(rename(png, mounted_path(&m, "image/ro/keep.png")), 0);
    assert_int_equal(unlink(mounted_path(&m, "image/ro/metadata.json")), 0);
    assert_true(exists(mounted_path(&m, "image/ro/keep.png")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_job_shows_complete_files_and_metadata_last),
        cmocka_unit_test(several_pictures_come_in_order),
        cmocka_unit_test(a_second_run_replaces_without_a_gap),
        cmocka_unit_test(a_failed_job_shows_its_error_and_the_next_run_removes_it),
        cmocka_unit_test(a_watcher_that_reads_on_create_gets_every_byte),
        cmocka_unit_test(a_job_that_is_renamed_delivers_into_the_new_name),
        cmocka_unit_test(a_users_file_with_an_artifacts_name_is_kept),
        cmocka_unit_test(artifacts_are_read_only_but_may_be_renamed_and_removed),
    };
    const char *why = mounted_impossible();
    if (why) {
        printf("ok 1 - # SKIP %s\n", why);
        return 0;
    }
    return cmocka_run_group_tests(tests, setup, teardown);
}
