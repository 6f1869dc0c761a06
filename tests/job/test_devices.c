/* Workers on several devices, and on full ones: the real engine and queue over fake devices. Run
 * from the repository root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "../support/device_bench.h"
#include "../support/scratch.h"

/* ---- several devices ---- */

static void two_devices_share_a_queue_and_every_job_ends_once(void **state)
{
    (void)state;
    enum { JOBS = 10 };
    struct jobs_bench b;
    int on[2] = {0, 0};
    fake_devices_use(2);
    fake_devices[0].hold = fake_devices[1].hold = true;
    bench_start_omni(&b, DEVICES("cuda:0, cuda:1"));
    for (int i = 1; i <= JOBS; i++)
        device_submit(&b, i, "mini", 1 + i % 4);
    wait_held(0, 0);
    wait_held(1, 0); /* both work at the same time */
    fake_devices[0].hold = fake_devices[1].hold = false;
    for (int i = 1; i <= JOBS; i++) {
        assert_int_equal(bench_wait(&b, i).state, JOB_DONE);
        struct published p = bench_published(&b, i);
        assert_int_equal(p.times, 1);
        on[strstr(p.metadata, "\"device\": \"cuda:1\"") != NULL]++;
        assert_null(strstr(p.metadata, "requeued"));
    }
    assert_true(on[0] > 0 && on[1] > 0);
    expect_report(&b, "stats", "device cuda:0: models ");
    expect_report(&b, "metrics", "omnifs_device_up{device=\"cuda:1\"} 1\n");
    bench_stop(&b);
    assert_int_equal(fake_devices[0].opened + fake_devices[1].opened, 0);
}

static void auto_takes_every_device(void **state)
{
    (void)state;
    struct jobs_bench b;
    fake_devices_use(3);
    bench_start_omni(&b, DEVICES("auto"));
    for (int i = 0; i < 3; i++) {
        char part[32];
        snprintf(part, sizeof part, "device cuda:%d: ", i);
        expect_report(&b, "stats", part);
    }
    bench_stop(&b);
}

static void a_device_that_is_named_and_missing_ends_the_start(void **state)
{
    (void)state;
    char store[SCRATCH_SIZE], path[SCRATCH_SIZE + 16];
    struct db *db;
    struct jobs *jobs;
    struct err e;
    fake_devices_use(1);
    assert_non_null(mkdtemp(scratch_name(store, "omnifs-test-XXXXXX")));
    snprintf(path, sizeof path, "%s/registry.ini", store);
    scratch_write(path, DEVICES("cuda:0, cuda:1"));
    struct jobs_options o = {.store = store, .registry_path = path};
    assert_int_equal(db_open(store, &db, &e), 0);
    assert_int_equal(jobs_open(db, &o, &jobs, &e), -ENODEV);
    assert_contains(e.text, "there is no device cuda:1, only 1");
    db_close(db);
    file_remove_tree(AT_FDCWD, store);
}

/* ---- memory ---- */

static void the_devices_own_memory_is_the_budget(void **state)
{
    (void)state;
    struct jobs_bench b;
    fake_devices_use(1);
    fake_devices[0].memory_free = 1000000; /* less than the model */
    bench_start_omni(&b, DEVICES("cuda:0"));
    device_submit(&b, 1, "mini", 1);
    struct job_view v = bench_wait(&b, 1);
    assert_int_equal(v.state, JOB_FAILED);
    assert_contains(v.error, "this request needs ");
    assert_contains(v.error, "omnifs may use 950 KB");
    expect_report(&b, "limits", "memory 950 KB\n");
    bench_stop(&b);
}

static void a_full_device_is_tried_once_more_without_its_other_models(void **state)
{
    (void)state;
    struct jobs_bench b;
    fake_devices_use(1);
    bench_start_omni(&b, DEVICES("cuda:0"));
    device_submit(&b, 1, "other", 1);
    expect_done_once(&b, 1, "cuda:0");
    device_submit(&b, 2, "mini", 1);
    expect_done_once(&b, 2, "cuda:0");
    assert_int_equal(fake_devices[0].opened, 2); /* one a model */
    fake_devices[0].refuse_arenas = 1;
    device_submit(&b, 3, "mini", 1);
    expect_done_once(&b, 3, "cuda:0");
    assert_int_equal(fake_devices[0].opened, 1);
    expect_report(&b, "stats", "out of memory 1 times\n");
    expect_report(&b, "metrics", "omnifs_device_out_of_memory_total{device=\"cuda:0\"} 1\n");
    expect_report(&b, "metrics", "omnifs_out_of_memory_total 0\n"); /* no job was refused */
    bench_stop(&b);
}

static void a_device_that_stays_full_fails_the_job_with_the_bytes(void **state)
{
    (void)state;
    struct jobs_bench b;
    fake_devices_use(1);
    bench_start_omni(&b, DEVICES("cuda:0"));
    device_submit(&b, 1, "mini", 1);
    expect_done_once(&b, 1, "cuda:0");
    fake_devices[0].memory_free = 5000000;
    fake_devices[0].refuse_arenas = 100;
    device_submit(&b, 2, "mini", 1);
    struct job_view v = bench_wait(&b, 2);
    assert_int_equal(v.state, JOB_FAILED);
    assert_contains(v.error, "this request needs ");
    assert_contains(v.error, " of memory and cuda:0 has 5.0 MB free, also at a second try");
    assert_int_equal(fake_devices[0].refuse_arenas, 98); /* exactly one more try */
    expect_report(&b, "metrics", "omnifs_device_out_of_memory_total{device=\"cuda:0\"} 2\n");
    expect_report(&b, "metrics", "omnifs_out_of_memory_total 1\n");
    fake_devices[0].refuse_arenas = 0;
    device_submit(&b, 3, "mini", 1); /* the device works on */
    expect_done_once(&b, 3, "cuda:0");
    bench_stop(&b);
}

static void weights_are_tried_once_more_too_and_their_failure_is_not_remembered(void **state)
{
    (void)state;
    struct jobs_bench b;
    fake_devices_use(1);
    bench_start_omni(&b, DEVICES("cuda:0"));
    device_submit(&b, 1, "other", 1);
    expect_done_once(&b, 1, "cuda:0");
    fake_devices[0].refuse_weights = 1;
    device_submit(&b, 2, "mini", 1);
    expect_done_once(&b, 2, "cuda:0");
    assert_int_equal(fake_devices[0].opened, 1); /* the other one was unloaded */
    fake_devices[0].refuse_weights = 2;
    device_submit(&b, 3, "other", 1);
    struct job_view v = bench_wait(&b, 3);
    assert_int_equal(v.state, JOB_FAILED);
    assert_contains(v.error, "this request needs ");
    assert_contains(v.error, " and cuda:0 has ");
    device_submit(&b, 4, "other", 1);
    expect_done_once(&b, 4, "cuda:0");
    bench_stop(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_devices_share_a_queue_and_every_job_ends_once),
        cmocka_unit_test(auto_takes_every_device),
        cmocka_unit_test(a_device_that_is_named_and_missing_ends_the_start),
        cmocka_unit_test(the_devices_own_memory_is_the_budget),
        cmocka_unit_test(a_full_device_is_tried_once_more_without_its_other_models),
        cmocka_unit_test(a_device_that_stays_full_fails_the_job_with_the_bytes),
        cmocka_unit_test(weights_are_tried_once_more_too_and_their_failure_is_not_remembered),
    };
    unsetenv("OMNIFS_DEVICE");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
