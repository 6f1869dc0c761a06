/* Nothing hangs and nothing is lost: folders removed and renamed under a job, the mount taken away,
 * the daemon ended or killed at any moment. A watchdog aborts the connection where a hang would
 * otherwise stay for ever. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../support/mounted.h"

#define OPTIONS  "debounce=30,timeout=1"
#define DEADLINE 60 /* seconds until a watchdog calls it a hang */

static struct mounted m;

static int setup(void **state)
{
    (void)state;
    memset(&m, 0, sizeof m);
    return mounted_start(&m, OPTIONS);
}

static int teardown(void **state)
{
    (void)state;
    mounted_free(&m);
    return 0;
}

static void restart(void)
{
    assert_int_equal(mounted_start(&m, OPTIONS), 0);
}

/* The result is there, once, and complete. */
static void assert_delivered(const char *folder)
{
    assert_string_equal(wait_for(&m, folder), "done");
    assert_true(exists(mounted_path(&m, "%s/image.png", folder)));
    assert_true(exists(mounted_path(&m, "%s/metadata.json", folder)));
}

static void rm_r_of_a_running_job_returns_at_once_and_cancels(void **state)
{
    (void)state;
    assert_int_equal(mounted_submit(&m, "image/rm", "prompt = rm sleep=300000\n"), 0);
    assert_true(runs(&m, "image/rm"));
    struct watchdog *w = watchdog_begin(&m, DEADLINE);
    assert_int_equal(shell(&m, "rm -r image/rm"), 0); /* long before the job would end */
    /* The worker is free for the next job. */
    assert_int_equal(mounted_submit(&m, "image/next", "prompt = next\n"), 0);
    assert_delivered("image/next");
    assert_true(watchdog_end(w));
    assert_false(exists(mounted_path(&m, "image/rm")));
}

static void rm_r_while_results_appear_never_hangs(void **state)
{
    (void)state;
    struct watchdog *w = watchdog_begin(&m, 5 * DEADLINE);
    for (int i = 0; i < 40; i++) {
        char folder[32];
        snprintf(folder, sizeof folder, "image/race%d", i);
        assert_int_equal(mounted_submit(&m, folder, "prompt = race\ncount = 4\n"), 0);
        sleep_ms(30 + i * 2);
        /* `rm -r` may meet files that appear between its listing and its rmdir. */
        while (exists(mounted_path(&m, "%s", folder)))
            shell(&m, "rm -r %s 2>/dev/null", folder);
    }
    assert_int_equal(mounted_submit(&m, "image/after", "prompt = after\n"), 0);
    assert_delivered("image/after");
    assert_true(watchdog_end(w));
}

static void renames_while_results_appear_lose_nothing(void **state)
{
    (void)state;
    struct watchdog *w = watchdog_begin(&m, 5 * DEADLINE);
    for (int i = 0; i < 20; i++) {
        char folder[32], other[32];
        snprintf(folder, sizeof folder, "image/a%d", i);
        snprintf(other, sizeof other, "image/b%d", i);
        assert_int_equal(mounted_submit(&m, folder, "prompt = ren sleep=30\ncount = 4\n"), 0);
        sleep_ms(40);
        for (int k = 0; k < 50; k++) {
            assert_int_equal(rename(mounted_path(&m, "%s", folder), mounted_path(&m, "%s", other)),
                             0);
            assert_int_equal(rename(mounted_path(&m, "%s", other), mounted_path(&m, "%s", folder)),
                             0);
        }
        assert_string_equal(wait_for(&m, folder), "done");
        assert_true(exists(mounted_path(&m, "%s/image-4.png", folder)));
        assert_false(exists(mounted_path(&m, "%s", other)));
    }
    assert_true(watchdog_end(w));
}

static void saving_again_while_running_supersedes(void **state)
{
    (void)state;
    assert_int_equal(mounted_submit(&m, "image/super", "prompt = one sleep=300000\n"), 0);
    assert_true(runs(&m, "image/super"));
    assert_int_equal(mounted_submit(&m, "image/super", "prompt = two\n"), 0);
    assert_delivered("image/super");
    assert_non_null(strstr(read_file(mounted_path(&m, "image/super/metadata.json")), "two"));
}

static void sigterm_gives_back_what_runs_and_the_next_start_finishes_it(void **state)
{
    (void)state;
    assert_int_equal(mounted_submit(&m, "image/back", "prompt = back sleep=5000\n"), 0);
    assert_int_equal(mounted_submit(&m, "image/queued", "prompt = queued\nsteps = 2\n"), 0);
    assert_true(runs(&m, "image/back"));
    struct watchdog *w = watchdog_begin(&m, DEADLINE);
    assert_int_equal(mounted_end(&m, SIGTERM), 0);
    assert_true(watchdog_end(w));
    assert_false(exists(mounted_path(&m, "image"))); /* unmounted */
    restart();
    assert_delivered("image/back");
    assert_delivered("image/queued");
}

static void sigterm_while_results_appear_never_hangs(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++) {
        for (int k = 0; k < 10; k++) {
            char folder[32];
            snprintf(folder, sizeof folder, "image/t%d-%d", i, k);
            assert_int_equal(mounted_submit(&m, folder, "prompt = term\ncount = 4\n"), 0);
        }
        sleep_ms(30 + 15 * i);
        struct watchdog *w = watchdog_begin(&m, DEADLINE);
        assert_int_equal(mounted_end(&m, SIGTERM), 0);
        assert_true(watchdog_end(w));
        restart();
    }
    for (int i = 0; i < 8; i++)
        for (int k = 0; k < 10; k++) {
            char folder[32];
            snprintf(folder, sizeof folder, "image/t%d-%d", i, k);
            assert_string_equal(wait_for(&m, folder), "done");
            assert_true(exists(mounted_path(&m, "%s/image-4.png", folder)));
        }
}

static void a_reader_of_wait_does_not_keep_the_daemon_from_ending(void **state)
{
    (void)state;
    assert_int_equal(mounted_submit(&m, "image/held", "prompt = held sleep=300000\n"), 0);
    pid_t child = fork();
    if (child == 0) {
        wait_for(&m, "image/held");
        _exit(0);
    }
    assert_true(runs(&m, "image/held"));
    sleep_ms(300); /* the reader has begun to wait */
    assert_int_equal(mounted_end(&m, SIGTERM), 0);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    restart();
    assert_int_equal(shell(&m, "echo >image/held/cancel"), 0);
}

static void umount_of_a_busy_store_requeues(void **state)
{
    (void)state;
    assert_int_equal(mounted_submit(&m, "image/um", "prompt = um sleep=5000\n"), 0);
    assert_true(runs(&m, "image/um"));
    struct watchdog *w = watchdog_begin(&m, DEADLINE);
    assert_int_equal(umount2(m.dir, 0), 0);
    int status;
    assert_int_equal(waitpid(m.daemon, &status, 0), m.daemon); /* it ends by itself */
    m.daemon = 0;
    assert_int_equal(status, 0);
    watchdog_end(w);
    restart();
    assert_delivered("image/um");
}

static void umount_while_results_appear_never_hangs(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        char folder[32];
        snprintf(folder, sizeof folder, "image/u%d", i);
        assert_int_equal(mounted_submit(&m, folder, "prompt = u\ncount = 8\n"), 0);
        sleep_ms(35 + 3 * i);
        struct watchdog *w = watchdog_begin(&m, DEADLINE);
        int r;
        while ((r = umount2(m.dir, i % 2 ? MNT_DETACH : 0)) && errno == EBUSY)
            sleep_ms(1);
        assert_int_equal(r, 0);
        int status;
        assert_int_equal(waitpid(m.daemon, &status, 0), m.daemon);
        m.daemon = 0;
        assert_int_equal(status, 0);
        watchdog_end(w);
        /* Nothing was written where the mount had been. */
        assert_int_equal(rmdir(m.dir), 0);
        assert_int_equal(mkdir(m.dir, 0755), 0);
        restart();
        assert_string_equal(wait_for(&m, folder), "done");
        assert_true(exists(mounted_path(&m, "%s/image-8.png", folder)));
    }
}

static void a_second_signal_ends_at_once(void **state)
{
    (void)state;
    mounted_free(&m);
    memset(&m, 0, sizeof m);
    assert_int_equal(mounted_start(&m, "debounce=30,timeout=600"), 0);
    assert_int_equal(mounted_submit(&m, "image/two", "prompt = two sleep=600000\n"), 0);
    assert_true(runs(&m, "image/two"));
    kill(m.daemon, SIGTERM);
    sleep_ms(2000);                                /* two that wait at the same time are one */
    assert_int_equal(mounted_end(&m, SIGTERM), 1); /* long before the ten minutes */
}

static void requests_closed_before_kill_9_run_after_the_restart(void **state)
{
    (void)state;
    enum { ROUNDS = 10, JOBS = 12 };
    char folder[32], text[64];
    srand(1);
    for (int i = 0; i < ROUNDS; i++) {
        for (int k = 0; k < JOBS; k++) {
            snprintf(folder, sizeof folder, "image/k%d-%d", i, k);
            snprintf(text, sizeof text, "prompt = kill sleep=%d\n", k % 3 * 10);
            assert_int_equal(mounted_submit(&m, folder, text), 0);
        }
        /* Anywhere from before the quiet time to among the results. */
        sleep_ms(rand() % 250);
        mounted_kill(&m);
        restart();
        for (int k = 0; k < JOBS; k++) {
            snprintf(folder, sizeof folder, "image/k%d-%d", i, k);
            assert_true(appears(mounted_path(&m, "%s/metadata.json", folder)));
            assert_delivered(folder);
        }
    }
    /* A restart with nothing to do does nothing. */
    int drawn = times_drawn(&m, "kill");
    assert_int_equal(mounted_end(&m, SIGTERM), 0);
    restart();
    sleep_ms(500);
    assert_int_equal(times_drawn(&m, "kill"), drawn);
    assert_true(drawn >= ROUNDS * JOBS);
}

/* The daemon's own calls on its mount must not keep a dying daemon alive: nobody would answer them,
 * and the mount would hang instead of failing. */
static void a_daemon_that_dies_while_it_publishes_is_gone_at_once(void **state)
{
    (void)state;
    static const int signals[] = {SIGKILL, SIGSEGV, SIGABRT};
    char folder[64];
    srand(2);
    for (int i = 0; i < 60; i++) {
        for (int k = 0; k < 4; k++) {
            snprintf(folder, sizeof folder, "image/d%d-%d", i, k);
            assert_int_equal(mounted_submit(&m, folder, "prompt = die\ncount = 8\n"), 0);
        }
        /* Among the results. */
        snprintf(folder, sizeof folder, "image/d%d-0/image-1.png", i);
        assert_true(appears(mounted_path(&m, "%s", folder)));
        sleep_ms(rand() % 12);
        if (!mounted_crash(&m, signals[i % 3]))
            fail_msg("the daemon is still there long after signal %d", signals[i % 3]);
        assert_int_equal(open(mounted_path(&m, ".omnifs/pid"), O_RDONLY), -1);
        assert_int_equal(errno, ENOTCONN);
        restart(); /* takes the dead mount away */
    }
}

static void a_store_is_served_by_one_daemon_only(void **state)
{
    (void)state;
    struct mounted second = m;
    snprintf(second.dir, sizeof second.dir, "%s/second", m.scratch);
    assert_int_equal(mkdir(second.dir, 0755), 0);
    second.daemon = 0;
    assert_int_equal(mounted_start(&second, OPTIONS), -1);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(rm_r_of_a_running_job_returns_at_once_and_cancels),
        TEST(rm_r_while_results_appear_never_hangs),
        TEST(renames_while_results_appear_lose_nothing),
        TEST(saving_again_while_running_supersedes),
        TEST(sigterm_gives_back_what_runs_and_the_next_start_finishes_it),
        TEST(sigterm_while_results_appear_never_hangs),
        TEST(a_reader_of_wait_does_not_keep_the_daemon_from_ending),
        TEST(umount_of_a_busy_store_requeues),
        TEST(umount_while_results_appear_never_hangs),
        TEST(a_second_signal_ends_at_once),
        TEST(requests_closed_before_kill_9_run_after_the_restart),
        TEST(a_daemon_that_dies_while_it_publishes_is_gone_at_once),
        TEST(a_store_is_served_by_one_daemon_only),
    };
    const char *why = mounted_impossible();
    if (why) {
        printf("ok 1 - # SKIP %s\n", why);
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
