/* Workers whose devices get lost: every job ends once. Run from the repository root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "../support/device_bench.h"
#include "../support/scratch.h"

static void wait_either_done(struct jobs_bench *b, int first, int second)
{
    struct job_view v = {.state = JOB_QUEUED};
    for (double end = clock_seconds() + 120; clock_seconds() < end; bench_pause(1))
        if ((!jobs_view(b->jobs, first, &v) && v.state > JOB_RUNNING) ||
            (!jobs_view(b->jobs, second, &v) && v.state > JOB_RUNNING))
            return;
    fail_msg("neither %d nor %d is done", first, second);
}

/* ---- loss ---- */

static void a_lost_device_hands_its_job_to_the_cpu(void **state)
{
    (void)state;
    struct jobs_bench b;
    fake_devices_use(1);
    fake_devices[0].lose_at = 40;
    bench_start_omni(&b, DEVICES("cuda:0"));
    device_submit(&b, 1, "mini", 2);
    expect_done_once(&b, 1, "cpu");
    static const char why[] = "the device cuda:0 was lost: cuda:0 fell off the bus";
    assert_contains(bench_published(&b, 1).metadata,
                    "\"requeued\": \"the device cuda:0 was lost: cuda:0 fell off the bus\"");
    expect_log(&b, 1, " started on cuda:0, attempt 1\n");
    expect_log(&b, 1, why);
    expect_log(&b, 1, "; waits for another device\n");
    expect_log(&b, 1, " started on cpu, attempt 2\n");
    expect_report(&b, "stats", "device cuda:0: lost, 1 jobs queued again (the device cuda:0 was");
    expect_report(&b, "stats", "device cpu: models ");
    expect_report(&b, "metrics", "omnifs_device_up{device=\"cuda:0\"} 0\n");
    expect_report(&b, "metrics", "omnifs_device_up{device=\"cpu\"} 1\n");
    expect_report(&b, "metrics", "omnifs_device_requeued_jobs_total{device=\"cuda:0\"} 1\n");
    device_submit(&b, 2, "mini", 1); /* and so do those that come later */
    expect_done_once(&b, 2, "cpu");
    assert_null(strstr(bench_published(&b, 2).metadata, "requeued"));
    assert_int_equal(fake_devices[0].opened, 0); /* nothing of it is kept */
    bench_stop(&b);
}

static void a_lost_device_hands_a_whole_batch_to_the_other_one(void **state)
{
    (void)state;
    struct jobs_bench b;
    fake_devices_use(2);
    fake_devices[0].hold = fake_devices[1].hold = true;
    bench_start_omni(&b, DEVICES("cuda:0, cuda:1"));
    device_submit(&b, 1, "mini", 1);
    device_submit(&b, 2, "mini", 2);
    wait_held(0, 0);
    wait_held(1, 0);
    device_submit(&b, 3, "mini", 8); /* a batch for the one that is let go first */
    device_submit(&b, 4, "mini", 8);
    int held = fake_devices[0].held;
    fake_devices[0].hold = false;
    wait_either_done(&b, 1, 2);
    fake_devices[0].hold = true;
    wait_held(0, held);
    fake_devices[0].lose_at = 1;
    fake_devices[0].hold = fake_devices[1].hold = false;
    for (int i = 1; i <= 4; i++)
        assert_int_equal(bench_wait(&b, i).state, JOB_DONE);
    for (int i = 3; i <= 4; i++) {
        expect_done_once(&b, i, "cuda:1");
        assert_contains(bench_published(&b, i).metadata, "\"requeued\": ");
    }
    expect_report(&b, "metrics", "omnifs_device_requeued_jobs_total{device=\"cuda:0\"} 2\n");
    AUTO_STR struct str text = {0};
    jobs_report(b.jobs, "stats", 0, &text);
    assert_null(strstr(text.data, "device cpu")); /* the other one is enough */
    bench_stop(&b);
}

static void a_second_loss_fails_the_job(void **state)
{
    (void)state;
    struct jobs_bench b;
    fake_devices_use(2);
    fake_devices[0].hold = fake_devices[1].hold = true;
    bench_start_omni(&b, DEVICES("cuda:0, cuda:1"));
    device_submit(&b, 1, "mini", 2);
    bench_wait_state(&b, 1, JOB_RUNNING);
    fake_devices[0].lose_at = fake_devices[1].lose_at = 1;
    fake_devices[0].hold = fake_devices[1].hold = false;
    struct job_view v = bench_wait(&b, 1);
    assert_int_equal(v.state, JOB_FAILED);
    assert_contains(v.error, " was lost: cuda:");
    assert_contains(v.error, "; before, the device cuda:");
    assert_contains(v.error, "; so it is not tried a third time, tell the operator");
    struct published p = bench_published(&b, 1);
    assert_int_equal(p.times, 1);
    assert_string_equal(p.names, "error.txt metadata.json");
    assert_contains(p.error, v.error);
    device_submit(&b, 2, "mini", 1); /* there is always the CPU */
    expect_done_once(&b, 2, "cpu");
    bench_stop(&b);
}

static void a_device_that_is_gone_before_its_first_model_is_lost_too(void **state)
{
    (void)state;
    struct jobs_bench b;
    fake_devices_use(1);
    bench_start_omni(&b, DEVICES("cuda:0"));
    fake_devices[0].lost = true;
    device_submit(&b, 1, "mini", 1);
    expect_done_once(&b, 1, "cpu");
    bench_stop(&b);
}

static void a_cancelled_job_is_not_drawn_again_after_a_loss(void **state)
{
    (void)state;
    struct jobs_bench b;
    fake_devices_use(1);
    fake_devices[0].hold = true;
    bench_start_omni(&b, DEVICES("cuda:0"));
    device_submit(&b, 1, "mini", 1);
    bench_wait_state(&b, 1, JOB_RUNNING);
    wait_held(0, 0);
    fake_devices[0].deaf = true; /* the kernel does not hear of it */
    jobs_cancel(b.jobs, 1);
    fake_devices[0].lose_at = 1;
    fake_devices[0].hold = false;
    assert_int_equal(bench_wait(&b, 1).state, JOB_CANCELLED);
    assert_string_equal(bench_published(&b, 1).names, "metadata.json");
    bench_stop(&b);
}

/* Killed while a job that lost its device waits: the loss is not forgotten. */
static void daemon_to_be_killed(const char *store)
{
    struct jobs_bench b;
    fake_devices_use(2);
    fake_devices[0].hold = fake_devices[1].hold = true;
    bench_start_omni_at(&b, store, DEVICES("cuda:0, cuda:1"));
    device_submit(&b, 1, "mini", 2);
    for (int i = 0; !fake_devices[i].held; i = !i)
        bench_pause(1);
    int at = fake_devices[1].held > 0;
    fake_devices[at].lose_at = 1;
    fake_devices[at].hold = false;
    wait_held(!at, 0); /* the other device has the job now */
    raise(SIGKILL);
}

static void a_loss_outlives_kill_9(void **state)
{
    (void)state;
    char store[SCRATCH_SIZE];
    struct jobs_bench b;
    bench_killed(daemon_to_be_killed, store);
    fake_devices_use(1);
    fake_devices[0].lose_at = 1;
    bench_start_omni_at(&b, store, DEVICES("cuda:0"));
    struct job_view v = bench_wait(&b, 1);
    assert_int_equal(v.state, JOB_FAILED);
    assert_contains(v.error, "; before, the device cuda:");
    assert_int_equal(bench_published(&b, 1).times, 1);
    bench_stop(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lost_device_hands_its_job_to_the_cpu),
        cmocka_unit_test(a_lost_device_hands_a_whole_batch_to_the_other_one),
        cmocka_unit_test(a_second_loss_fails_the_job),
        cmocka_unit_test(a_device_that_is_gone_before_its_first_model_is_lost_too),
        cmocka_unit_test(a_cancelled_job_is_not_drawn_again_after_a_loss),
        cmocka_unit_test(a_loss_outlives_kill_9),
    };
    unsetenv("OMNIFS_DEVICE");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
