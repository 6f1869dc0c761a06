/* Many small jobs: every metadata.json is announced by CLOSE_WRITE, none is lost, none comes twice.
 * $OMNIFS_TEST_JOBS sets how many (1000). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../support/mounted.h"

#define BATCH 500 /* folders watched at a time: inotify instances are a shared resource */

static struct mounted m;

static int jobs(void)
{
    const char *n = getenv("OMNIFS_TEST_JOBS");
    return n ? atoi(n) : 1000;
}

static int setup(void **state)
{
    (void)state;
    return mounted_start(&m, "debounce=20");
}

static int teardown(void **state)
{
    (void)state;
    int r = mounted_end(&m, SIGTERM);
    mounted_free(&m);
    return r;
}

/* Events of metadata.json by watch descriptor, until `want` came or nothing for a minute. */
static int collect(int fd, int *announced, int limit, int want)
{
    static char buf[65536] __attribute__((aligned(8)));
    int got = 0;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (got < want && poll(&p, 1, 60000) > 0) {
        ssize_t n = read(fd, buf, sizeof buf);
        for (char *at = buf; at < buf + n;) {
            const struct inotify_event *event = (const struct inotify_event *)(void *)at;
            if (event->len && !strcmp(event->name, "metadata.json") && event->wd < limit) {
                announced[event->wd]++;
                got++;
            }
            at += sizeof *event + event->len;
        }
    }
    return got;
}

static void every_result_is_announced_exactly_once(void **state)
{
    (void)state;
    static int announced[BATCH + 2];
    double begun = now();
    int total = jobs();
    for (int first = 0; first < total; first += BATCH) {
        int count = total - first < BATCH ? total - first : BATCH;
        int fd = inotify_init1(IN_CLOEXEC);
        assert_true(fd >= 0);
        memset(announced, 0, sizeof announced);
        char folder[32];
        for (int i = 0; i < count; i++) {
            snprintf(folder, sizeof folder, "image/%05d", first + i);
            assert_int_equal(mkdir(mounted_path(&m, "%s", folder), 0755), 0);
            assert_int_equal(inotify_add_watch(fd, mounted_path(&m, "%s", folder), IN_CLOSE_WRITE),
                             i + 1);
            assert_int_equal(mounted_submit(&m, folder, "prompt = many\n"), 0);
        }
        assert_int_equal(collect(fd, announced, BATCH + 2, count), count);
        close(fd);
        for (int i = 0; i < count; i++) {
            assert_int_equal(announced[i + 1], 1);
            snprintf(folder, sizeof folder, "image/%05d", first + i);
            assert_string_equal(wait_for(&m, folder), "done");
            assert_true(exists(mounted_path(&m, "%s/image.png", folder)));
        }
    }
    assert_int_equal(times_drawn(&m, "many"), total);
    print_message("%d jobs in %.1f s\n", total, now() - begun);
}

static void *submitter(void *arg)
{
    int which = *(int *)arg;
    char folder[32];
    for (int i = 0; i < 50; i++) {
        snprintf(folder, sizeof folder, "image/p%d-%d", which, i);
        if (mounted_submit(&m, folder, "prompt = side\n") || strcmp(wait_for(&m, folder), "done"))
            return (void *)1;
    }
    return NULL;
}

static void users_side_by_side_all_get_theirs(void **state)
{
    (void)state;
    pthread_t threads[8];
    int which[8];
    for (int i = 0; i < 8; i++) {
        which[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, submitter, &which[i]), 0);
    }
    for (int i = 0; i < 8; i++) {
        void *wrong = NULL;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
    assert_int_equal(times_drawn(&m, "side"), 400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_result_is_announced_exactly_once),
        cmocka_unit_test(users_side_by_side_all_get_theirs),
    };
    const char *why = mounted_impossible();
    if (why) {
        printf("ok 1 - # SKIP %s\n", why);
        return 0;
    }
    return cmocka_run_group_tests(tests, setup, teardown);
}
