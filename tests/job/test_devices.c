/* Workers on devices that are full or get lost: the real engine and queue over fake devices. Run
 * from the repository root. */
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
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "../support/fake_device.h"
#include "../support/jobs_bench.h"
#include "../support/scratch.h"

#define PROFILE                                                                                    \
    "[mini]\nomni_model_id = omni-mini\nmodality = image\nprecision = fp32\ndefault_size = "       \
    "32x32\nsteps = 2\n"
/* The same model once more, as far as warm models are told apart. */
#define OTHER                                                                                      \
    "[other]\nomni_model_id = omni-mini\nmodality = image\nprecision = bf16\ndefault_size = "      \
    "32x32\nsteps = 2\n"
#define DEVICES(list) PROFILE OTHER "[devices]\nbatch = 2\nthreads = 1\nuse = " list "\n"

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" is not in \"%s\"", part, text);
}

/* Different steps keep jobs out of each other's batch. */
static void submit(struct jobs_bench *b, int folder, const char *profile, int steps)
{
    char text[128];
    snprintf(text, sizeof text, "prompt = picture %d\nseed = %d\nprofile = %s\nsteps = %d\n",
             folder, folder, profile, steps);
    assert_int_equal(bench_submit(b, folder, 0, MODALITY_IMAGE, text), SUBMIT_ACCEPTED);
}

static void expect_done_once(struct jobs_bench *b, int folder, const char *device)
{
    char part[48];
    struct job_view v = bench_wait(b, folder);
    if (v.state != JOB_DONE)
        fail_msg("%s: %s", job_state_names[v.state], v.error);
    struct published p = bench_published(b, folder);
    assert_int_equal(p.times, 1);
    assert_string_equal(p.names, "image.png metadata.json");
    snprintf(part, sizeof part, "\"device\": \"%s\"", device);
    assert_contains(p.metadata, part);
}

static void expect_report(struct jobs_bench *b, const char *name, const char *part)
{
    AUTO_STR struct str text = {0};
    assert_int_equal(jobs_report(b->jobs, name, 0, &text), 0);
    assert_contains(text.data, part);
}

static void expect_log(struct jobs_bench *b, int folder, const char *part)
{
    AUTO_STR struct str text = {0};
    assert_int_equal(jobs_log(b->jobs, folder, &text), 0);
    assert_contains(text.data, part);
}

/* Until device `i` has begun a product: it holds it. */
static void wait_held(int i, int products)
{
    for (double end = clock_seconds() + 120; clock_seconds() < end; bench_pause(2))
        if (fake_devices[i].held > products)
            return;
    fail_msg("device %d holds nothing", i);
}

static void wait_either_done(struct jobs_bench *b, int first, int second)
{
    struct job_view v = {.state = JOB_QUEUED};
    for (double end = clock_seconds() + 120; clock_seconds() < end; bench_pause(1))
        if ((!jobs_view(b->jobs, first, &v) && v.state > JOB_RUNNING) ||
            (!jobs_view(b->jobs, second, &v) && v.state > JOB_RUNNING))
            return;
    fail_msg("neither %d nor %d is done", first, second);
}

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
        submit(&b, i, "mini", 1 + i % 4);
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
    submit(&b, 1, "mini", 1);
    struct job_view v = bench_wait(&b, 1);
    assert_int_equal(v.state, JOB_FAILED);
    assert_contains(v.error, "loading the model needs ");
    assert_contains(v.error, "950 KB are available");
    expect_report(&b, "limits", "memory 950 KB\n");
    bench_stop(&b);
}

static void a_full_device_is_tried_once_more_without_its_other_models(void **state)
{
    (void)state;
    struct jobs_bench b;
    fake_devices_use(1);
    bench_start_omni(&b, DEVICES("cuda:0"));
    submit(&b, 1, "other", 1);
    expect_done_once(&b, 1, "cuda:0");
    submit(&b, 2, "mini", 1);
    expect_done_once(&b, 2, "cuda:0");
    assert_int_equal(fake_devices[0].opened, 2); /* one a model */
    fake_devices[0].refuse_arenas = 1;
    submit(&b, 3, "mini", 1);
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
    submit(&b, 1, "mini", 1);
    expect_done_once(&b, 1, "cuda:0");
    fake_devices[0].memory_free = 5000000;
    fake_devices[0].refuse_arenas = 100;
    submit(&b, 2, "mini", 1);
    struct job_view v = bench_wait(&b, 2);
    assert_int_equal(v.state, JOB_FAILED);
    assert_contains(v.error, "this request needs ");
    assert_contains(v.error, " of memory and cuda:0 has 5.0 MB free, also at a second try");
    assert_int_equal(fake_devices[0].refuse_arenas, 98); /* exactly one more try */
    expect_report(&b, "metrics", "omnifs_device_out_of_memory_total{device=\"cuda:0\"} 2\n");
    expect_report(&b, "metrics", "omnifs_out_of_memory_total 1\n");
    fake_devices[0].refuse_arenas = 0;
    submit(&b, 3, "mini", 1); /* the device works on */
    expect_done_once(&b, 3, "cuda:0");
    bench_stop(&b);
}

static void loading_is_tried_once_more_too_and_its_failure_not_remembered(void **state)
{
    (void)state;
    struct jobs_bench b;
    fake_devices_use(1);
    bench_start_omni(&b, DEVICES("cuda:0"));
    submit(&b, 1, "other", 1);
    expect_done_once(&b, 1, "cuda:0");
    fake_devices[0].refuse_weights = 1;
    submit(&b, 2, "mini", 1);
    expect_done_once(&b, 2, "cuda:0");
    assert_int_equal(fake_devices[0].opened, 1); /* the other one was unloaded */
    fake_devices[0].refuse_weights = 2;
    submit(&b, 3, "other", 1);
    struct job_view v = bench_wait(&b, 3);
    assert_int_equal(v.state, JOB_FAILED);
    assert_contains(v.error, "the model omni-mini cannot be used: loading the model needs ");
    assert_contains(v.error, " and cuda:0 has ");
    submit(&b, 4, "other", 1);
    expect_done_once(&b, 4, "cuda:0");
    bench_stop(&b);
}

/* ---- loss ---- */

static void a_lost_device_hands_its_job_to_the_cpu(void **state)
{
    (void)state;
    struct jobs_bench b;
    fake_devices_use(1);
    fake_devices[0].lose_at = 40;
    bench_start_omni(&b, DEVICES("cuda:0"));
    submit(&b, 1, "mini", 2);
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
    submit(&b, 2, "mini", 1); /* and so do those that come later */
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
    submit(&b, 1, "mini", 1);
    submit(&b, 2, "mini", 2);
    wait_held(0, 0);
    wait_held(1, 0);
    submit(&b, 3, "mini", 8); /* a batch for the one that is let go first */
    submit(&b, 4, "mini", 8);
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
    submit(&b, 1, "mini", 2);
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
    submit(&b, 2, "mini", 1); /* there is always the CPU */
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
    submit(&b, 1, "mini", 1);
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
    submit(&b, 1, "mini", 1);
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
    submit(&b, 1, "mini", 2);
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
    assert_non_null(mkdtemp(scratch_name(store, "omnifs-test-XXXXXX")));
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        daemon_to_be_killed(store);
        _exit(1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
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
        cmocka_unit_test(two_devices_share_a_queue_and_every_job_ends_once),
        cmocka_unit_test(auto_takes_every_device),
        cmocka_unit_test(a_device_that_is_named_and_missing_ends_the_start),
        cmocka_unit_test(the_devices_own_memory_is_the_budget),
        cmocka_unit_test(a_full_device_is_tried_once_more_without_its_other_models),
        cmocka_unit_test(a_device_that_stays_full_fails_the_job_with_the_bytes),
        cmocka_unit_test(loading_is_tried_once_more_too_and_its_failure_not_remembered),
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
