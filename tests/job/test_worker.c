/* Workers and submission, with a generator that follows a script: from a prompt to what a face
 * would publish. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "media/media.h"
#include "../support/jobs_bench.h"
#include "../support/scratch.h"

#define A_PICTURE "prompt = a cat\nseed = 1\n"

static void a_prompt_becomes_a_picture_and_its_record(void **state)
{
    (void)state;
    struct jobs_bench b;
    bench_start(&b, "");
    assert_int_equal(bench_submit(&b, 1, 0, MODALITY_IMAGE, A_PICTURE), SUBMIT_ACCEPTED);
    struct job_view v = bench_wait(&b, 1);
    assert_int_equal(v.state, JOB_DONE);
    assert_string_equal(v.profile, "image_default");
    assert_true(v.created_ms > 0 && v.started_ms >= v.created_ms && v.finished_ms >= v.started_ms);
    struct published p = bench_published(&b, 1);
    assert_string_equal(p.names, "image.png metadata.json");
    assert_string_equal(p.stale, "preview.png error.txt");
    assert_contains(p.metadata, "\"status\": \"done\"");
    expect_log(&b, 1, " submitted by user 1000\n");
    expect_log(&b, 1, " diffuse\n");
    expect_log(&b, 1, " done\n");
    bench_stop(&b);
}

static void saving_the_same_text_again_does_nothing(void **state)
{
    (void)state;
    struct jobs_bench b;
    bench_start(&b, "");
    assert_int_equal(bench_submit(&b, 1, 0, MODALITY_IMAGE, " \n\t\r\n"), SUBMIT_EMPTY);
    assert_int_equal(bench_submit(&b, 1, 0, MODALITY_IMAGE, A_PICTURE), SUBMIT_ACCEPTED);
    assert_int_equal(bench_submit(&b, 1, 0, MODALITY_IMAGE, A_PICTURE), SUBMIT_UNCHANGED);
    bench_wait(&b, 1);
    assert_int_equal(bench_submit(&b, 1, 0, MODALITY_IMAGE, A_PICTURE), SUBMIT_UNCHANGED);
    bench_restart(&b, 10);
    assert_int_equal(bench_submit(&b, 1, 0, MODALITY_IMAGE, A_PICTURE), SUBMIT_UNCHANGED);
    assert_int_equal(bench_submit(&b, 1, 0, MODALITY_IMAGE, A_PICTURE "# again\n"),
                     SUBMIT_ACCEPTED);
    bench_wait(&b, 1);
    assert_int_equal(bench_published(&b, 1).times, 2);
    assert_int_equal(b.script.generates, 2);
    bench_stop(&b);
}

static void a_mistake_fails_at_once_with_its_files(void **state)
{
    (void)state;
    struct jobs_bench b;
    bench_start(&b, "");
    bench_submit(&b, 1, 0, MODALITY_IMAGE, "prompt = a\nwidht = 3\n");
    struct job_view v = bench_wait(&b, 1);
    assert_int_equal(v.state, JOB_FAILED);
    assert_string_equal(v.error,
                        "f1/prompt.ini:2: the key \"widht\" is unknown; did you mean width?");
    struct published p = bench_published(&b, 1);
    assert_string_equal(p.names, "error.txt metadata.json");
    assert_memory_equal(p.error, "failed: f1/prompt.ini:2: the key", 32);
    assert_contains(p.metadata, "\"status\": \"failed\"");
    assert_int_equal(b.script.generates, 0);
    bench_stop(&b);
}

static void blocked_prompts_are_not_drawn(void **state)
{
    (void)state;
    struct jobs_bench b;
    bench_start(&b, "");
    bench_submit(&b, 1, 0, MODALITY_IMAGE, "prompt = a porn film\n");
    struct job_view v = bench_wait(&b, 1);
    assert_int_equal(v.state, JOB_BLOCKED);
    assert_contains(v.error, "the prompt is not allowed at safety_level standard (rule "
                             "explicit-sexual)");
    struct published p = bench_published(&b, 1);
    assert_string_equal(p.names, "error.txt metadata.json");
    assert_contains(p.metadata, "\"verdict\": \"block\"");
    assert_int_equal(b.script.loads, 0);
    bench_stop(&b);
}

static void equal_requests_of_several_users_are_one_batch(void **state)
{
    (void)state;
    struct jobs_bench b;
    bench_start(&b, "[devices]\nbatch = 4\nmemory = 1G\n");
    b.script.block = 1;
    bench_submit(&b, 1, 0, MODALITY_IMAGE, A_PICTURE);
    bench_wait_running(&b, 1);
    for (int i = 2; i <= 5; i++) {
        char text[64];
        snprintf(text, sizeof text, "prompt = picture %d\n", i);
        bench_submit(&b, i, (uid_t)i, MODALITY_IMAGE, text);
    }
    bench_submit(&b, 6, 9, MODALITY_IMAGE, "prompt = other\nsteps = 9\n");
    b.script.block = 0;
    for (int i = 1; i <= 6; i++)
        assert_int_equal(bench_wait(&b, i).state, JOB_DONE);
    assert_int_equal(b.script.largest_batch, 4);
    assert_int_equal(b.script.generates, 3);
    assert_int_equal(b.script.pictures, 6);
    bench_stop(&b);
}

static void several_pictures_of_a_request_have_several_seeds(void **state)
{
    (void)state;
    struct jobs_bench b;
    bench_start(&b, "[devices]\nbatch = 2\nmemory = 1G\n");
    bench_submit(&b, 1, 0, MODALITY_IMAGE, "prompt = a\ncount = 3\nseed = 5\nreturn_format = jpg");
    assert_int_equal(bench_wait(&b, 1).state, JOB_DONE);
    struct published p = bench_published(&b, 1);
    assert_string_equal(p.names, "image-1.jpg image-2.jpg image-3.jpg metadata.json");
    assert_int_equal(b.script.largest_batch, 2); /* in two parts */
    /* a run with fewer files says which ones are to go */
    bench_submit(&b, 1, 0, MODALITY_IMAGE, "prompt = a\nseed = 5\nreturn_format = jpg");
    bench_wait(&b, 1);
    p = bench_published(&b, 1);
    assert_string_equal(p.stale, "image-1.jpg image-2.jpg image-3.jpg preview.png error.txt");
    bench_stop(&b);
}

static void one_failure_in_a_batch_is_the_culprits_own(void **state)
{
    (void)state;
    struct jobs_bench b;
    bench_start(&b, "[devices]\nbatch = 4\nmemory = 1G\n");
    b.script.block = 1;
    bench_submit(&b, 1, 0, MODALITY_IMAGE, A_PICTURE);
    bench_wait_running(&b, 1);
    bench_submit(&b, 2, 0, MODALITY_IMAGE, "prompt = good\n");
    bench_submit(&b, 3, 1, MODALITY_IMAGE, "prompt = fail\n");
    bench_submit(&b, 4, 2, MODALITY_IMAGE, "prompt = fine\n");
    b.script.block = 0;
    assert_int_equal(bench_wait(&b, 2).state, JOB_DONE);
    struct job_view v = bench_wait(&b, 3);
    assert_int_equal(v.state, JOB_FAILED);
    assert_string_equal(v.error, "the script says that \"fail\" fails");
    assert_int_equal(bench_wait(&b, 4).state, JOB_DONE);
    bench_stop(&b);
}

static void running_and_waiting_jobs_can_be_cancelled(void **state)
{
    (void)state;
    struct jobs_bench b;
    bench_start(&b, "");
    b.script.block = 1;
    bench_submit(&b, 1, 0, MODALITY_IMAGE, A_PICTURE);
    bench_wait_running(&b, 1);
    bench_submit(&b, 2, 0, MODALITY_IMAGE, "prompt = waits\nsteps = 7\n");
    jobs_cancel(b.jobs, 2);
    assert_int_equal(bench_wait(&b, 2).state, JOB_CANCELLED); /* while the other one runs */
    jobs_cancel(b.jobs, 1);
    assert_int_equal(bench_wait(&b, 1).state, JOB_CANCELLED);
    for (int i = 1; i <= 2; i++) {
        struct published p = bench_published(&b, i);
        assert_string_equal(p.names, "metadata.json");
        assert_contains(p.metadata, "\"status\": \"cancelled\"");
        assert_contains(p.metadata, "\"error\": null");
    }
    jobs_cancel(b.jobs, 1); /* it is over: nothing happens */
    assert_int_equal(bench_wait(&b, 1).state, JOB_CANCELLED);
    assert_int_equal(bench_submit(&b, 1, 0, MODALITY_IMAGE, A_PICTURE), SUBMIT_UNCHANGED);
    bench_stop(&b);
}

static void cancelling_one_of_a_batch_spares_the_others(void **state)
{
    (void)state;
    struct jobs_bench b;
    bench_start(&b, "[devices]\nbatch = 4\nmemory = 1G\n");
    b.script.block = 1;
    bench_submit(&b, 1, 0, MODALITY_IMAGE, A_PICTURE);
    bench_wait_running(&b, 1);
    bench_submit(&b, 2, 0, MODALITY_IMAGE, "prompt = two\n");
    bench_submit(&b, 3, 1, MODALITY_IMAGE, "prompt = three\n");
    b.script.hold_step = 1;
    b.script.block = 0;
    bench_wait_step(&b, 1, 1);
    b.script.hold_step = 2; /* the first one goes on, the two are held */
    bench_wait_step(&b, 1, 2);
    b.script.hold_step = 1;
    bench_wait_step(&b, 2, 1);
    jobs_cancel(b.jobs, 2);
    b.script.hold_step = 0;
    assert_int_equal(bench_wait(&b, 2).state, JOB_CANCELLED);
    assert_int_equal(bench_wait(&b, 3).state, JOB_DONE);
    bench_stop(&b);
}

static void a_new_prompt_ends_the_old_run_without_a_trace(void **state)
{
    (void)state;
    struct jobs_bench b;
    bench_start(&b, "");
    b.script.block = 1;
    bench_submit(&b, 1, 0, MODALITY_IMAGE, A_PICTURE);
    bench_wait_running(&b, 1);
    bench_submit(&b, 1, 0, MODALITY_IMAGE, "prompt = a dog\nseed = 2\n");
    b.script.block = 0;
    assert_int_equal(bench_wait(&b, 1).state, JOB_DONE);
    struct published p = bench_published(&b, 1);
    assert_int_equal(p.times, 1);
    assert_contains(p.metadata, "\"prompt\": \"a dog\"");
    bench_stop(&b);
}

static void a_removed_folder_is_forgotten(void **state)
{
    (void)state;
    struct jobs_bench b;
    struct job_view v;
    bench_start(&b, "");
    b.script.block = 1;
    bench_submit(&b, 1, 0, MODALITY_IMAGE, A_PICTURE);
    bench_wait_running(&b, 1);
    jobs_forget(b.jobs, 1);
    assert_int_equal(jobs_view(b.jobs, 1, &v), -ENOENT);
    bench_submit(&b, 2, 0, MODALITY_IMAGE, "prompt = next\n");
    b.script.block = 0;
    assert_int_equal(bench_wait(&b, 2).state, JOB_DONE);
    assert_int_equal(bench_published(&b, 1).times, 0);
    bench_stop(&b);
}

static void a_run_over_its_time_fails(void **state)
{
    (void)state;
    struct jobs_bench b;
    bench_start(&b, "[image_quick]\nomni_model_id = alpha\nmodality = image\ntimeout = 4\n"
                    "default_size = 32x32\n");
    b.script.block = 1;
    bench_submit(&b, 1, 0, MODALITY_IMAGE, "prompt = a\nprofile = image_quick\n");
    struct job_view v = bench_wait(&b, 1);
    assert_int_equal(v.state, JOB_FAILED);
    assert_contains(v.error, "longer than the 4 seconds that image_quick allows");
    b.script.block = 0;
    bench_submit(&b, 2, 0, MODALITY_IMAGE, "prompt = a\nprofile = image_quick\n");
    assert_int_equal(bench_wait(&b, 2).state, JOB_DONE);
    bench_stop(&b);
}

static void limits_refuse_and_never_clamp(void **state)
{
    (void)state;
    struct jobs_bench b;
    bench_start(&b, "[limits]\njobs_per_user = 2\nqueue = 3\nrequest_bytes = 2K\n");
    b.script.block = 1;
    assert_int_equal(jobs_may_add(b.jobs, 1000), 0);
    bench_submit(&b, 1, 0, MODALITY_IMAGE, A_PICTURE);
    bench_wait_running(&b, 1);
    bench_submit(&b, 2, 0, MODALITY_IMAGE, "prompt = two\n");
    assert_int_equal(jobs_may_add(b.jobs, 1000), -EDQUOT);
    bench_submit(&b, 3, 0, MODALITY_IMAGE, "prompt = three\n");
    assert_contains(bench_wait(&b, 3).error, "you have 2 jobs waiting or running, and "
                                             "jobs_per_user in registry.ini allows 2");
    bench_submit(&b, 4, 1, MODALITY_IMAGE, "prompt = four\n");
    bench_submit(&b, 5, 2, MODALITY_IMAGE, "prompt = five\n");
    assert_contains(bench_wait(&b, 5).error, "3 jobs are waiting or running, and queue");
    assert_int_equal(jobs_may_add(b.jobs, 1009), -ENOSPC);
    AUTO_STR struct str large = {0};
    str_add(&large, "prompt = ");
    for (int i = 0; i < 3000; i++)
        str_addc(&large, 'a');
    bench_submit(&b, 6, 5, MODALITY_IMAGE, large.data);
    assert_contains(bench_wait(&b, 6).error, "request_bytes in registry.ini allows");
    assert_int_equal(bench_submit(&b, 6, 5, MODALITY_IMAGE, large.data), SUBMIT_UNCHANGED);
    assert_contains(bench_published(&b, 5).error, "Save prompt.ini again later");
    b.script.block = 0;
    bench_wait(&b, 1);
    bench_wait(&b, 2);
    bench_wait(&b, 4);
    /* what was only too much at that moment runs when it is saved again as it is */
    assert_int_equal(bench_submit(&b, 5, 2, MODALITY_IMAGE, "prompt = five\n"), SUBMIT_ACCEPTED);
    assert_int_equal(bench_wait(&b, 5).state, JOB_DONE);
    bench_stop(&b);
}

/* ---- models and memory ---- */

static void short_memory_unloads_the_least_recently_used_model(void **state)
{
    (void)state;
    struct jobs_bench b;
    bench_start(&b, "[devices]\nmemory = 20000\n");
    b.script.weight_bytes = 12000;
    bench_submit(&b, 1, 0, MODALITY_IMAGE, "prompt = a\n");
    bench_wait(&b, 1);
    bench_submit(&b, 2, 0, MODALITY_IMAGE, "prompt = b\n");
    bench_wait(&b, 2);
    assert_int_equal(b.script.loads, 1); /* warm */
    bench_submit(&b, 3, 0, MODALITY_IMAGE, "prompt = a\nprofile = image_beta\n");
    assert_int_equal(bench_wait(&b, 3).state, JOB_DONE);
    assert_int_equal(b.script.loads, 2);
    assert_int_equal(b.script.frees, 1);
    bench_submit(&b, 4, 0, MODALITY_IMAGE, "prompt = d\n");
    assert_int_equal(bench_wait(&b, 4).state, JOB_DONE);
    assert_int_equal(b.script.loads, 3);
    bench_stop(&b);
    assert_int_equal(b.script.frees, b.script.loads);
}

static void a_request_that_does_not_fit_is_refused_with_the_bytes(void **state)
{
    (void)state;
    struct jobs_bench b;
    bench_start(&b, "[devices]\nmemory = 60000\nbatch = 4\n");
    b.script.picture_bytes = 30000;
    bench_submit(&b, 1, 0, MODALITY_IMAGE, "prompt = a\ncount = 4\n");
    assert_int_equal(bench_wait(&b, 1).state, JOB_DONE);
    assert_int_equal(b.script.largest_batch, 1); /* four would not fit at once */
    assert_int_equal(b.script.pictures, 4);
    b.script.picture_bytes = 500000;
    bench_submit(&b, 2, 0, MODALITY_IMAGE, "prompt = b\n");
    struct job_view v = bench_wait(&b, 2);
    assert_int_equal(v.state, JOB_FAILED);
    assert_contains(
        v.error, "this request needs 501 KB of memory, 1.0 KB of them for the model's weights, ");
    bench_submit(&b, 3, 0, MODALITY_IMAGE, "prompt = c\nsize = 512x512\n");
    assert_contains(bench_wait(&b, 3).error, "the result needs 787 KB of memory");
    bench_stop(&b);
}

static void an_unusable_model_is_told_and_tried_again_when_its_files_change(void **state)
{
    (void)state;
    struct jobs_bench b;
    char path[160];
    bench_start(&b, "");
    b.script.load_error = -EINVAL;
    bench_submit(&b, 1, 0, MODALITY_IMAGE, "prompt = a\n");
    struct job_view v = bench_wait(&b, 1);
    assert_int_equal(v.state, JOB_FAILED);
    assert_contains(v.error, "the model alpha cannot be used: ");
    bench_submit(&b, 2, 0, MODALITY_IMAGE, "prompt = b\n");
    bench_wait(&b, 2);
    assert_int_equal(b.script.loads, 1); /* not tried again in vain */
    expect_report(&b, "profiles", "unavailable: the model alpha cannot be used");
    b.script.load_error = 0;
    snprintf(path, sizeof path, "%s/models/alpha/config.json", b.store);
    scratch_write(path, "{}");
    bench_submit(&b, 3, 0, MODALITY_IMAGE, "prompt = c\n");
    assert_int_equal(bench_wait(&b, 3).state, JOB_DONE);
    bench_stop(&b);
}

static void what_the_model_cannot_do_is_its_own_sentence(void **state)
{
    (void)state;
    struct jobs_bench b;
    bench_start(&b, "");
    b.script.max_frames = 0;
    bench_submit(&b, 1, 0, MODALITY_VIDEO, "prompt = a\n");
    assert_string_equal(bench_wait(&b, 1).error, "the model draws no clips of 3 frames");
    bench_stop(&b);
}

/* ---- references ---- */

static void references_are_copied_when_submitted(void **state)
{
    (void)state;
    struct jobs_bench b;
    char path[160];
    struct picture p;
    struct err e;
    struct media_options o;
    bench_start(&b, "");
    static const char text[] = "prompt = a\nimage = photo.png\n";
    assert_int_equal(bench_submit(&b, 1, 0, MODALITY_IMAGE, text), SUBMIT_WAIT);
    snprintf(path, sizeof path, "%s/photo.png", b.store);
    assert_int_equal(picture_new(&p, 40, 30, 1), 0);
    media_options_init(&o, MEDIA_PNG);
    assert_int_equal(media_write(AT_FDCWD, path, &p, &o, &e), 0);
    b.script.block = 1;
    bench_submit(&b, 2, 0, MODALITY_IMAGE, A_PICTURE);
    bench_wait_running(&b, 2);
    assert_int_equal(bench_submit(&b, 1, 0, MODALITY_IMAGE, text), SUBMIT_ACCEPTED);
    assert_int_equal(bench_submit(&b, 1, 0, MODALITY_IMAGE, text), SUBMIT_UNCHANGED);
    unlink(path); /* the job has its own */
    b.script.block = 0;
    assert_int_equal(bench_wait(&b, 1).state, JOB_DONE);
    p.rgb[0] = 9; /* another reference, the same prompt: a new job */
    assert_int_equal(media_write(AT_FDCWD, path, &p, &o, &e), 0);
    assert_int_equal(bench_submit(&b, 1, 0, MODALITY_IMAGE, text), SUBMIT_ACCEPTED);
    bench_wait(&b, 1);
    picture_free(&p);
    bench_stop(&b);
}

static void a_missing_reference_fails_when_it_is_final(void **state)
{
    (void)state;
    struct jobs_bench b;
    enum submit_result result;
    struct err e;
    bench_start(&b, "");
    static const char text[] = "prompt = a\nimage = photo.png\n";
    struct job_submission s = {
        .folder = 1, .folder_name = "cat", .text = text, .size = strlen(text), .final = true};
    assert_int_equal(jobs_submit(b.jobs, &s, &result, &e), 0);
    assert_int_equal(result, SUBMIT_ACCEPTED);
    assert_string_equal(bench_wait(&b, 1).error,
                        "cat/prompt.ini:2: the file photo.png is not in the job folder");
    bench_stop(&b);
}

static void a_reference_that_is_no_file_is_told(void **state)
{
    (void)state;
    struct jobs_bench b;
    bench_start(&b, "");
    bench_submit(&b, 1, 0, MODALITY_IMAGE, "prompt = a\nimage = models\n"); /* a folder there */
    assert_string_equal(bench_wait(&b, 1).error,
                        "f1/prompt.ini:2: models is a link, a folder or a pipe; put the file "
                        "itself into the job folder");
    bench_stop(&b);
}

static void write_text(const struct jobs_bench *b, const char *name, const char *text)
{
    char path[160];
    struct err e;
    snprintf(path, sizeof path, "%s/%s", b->store, name);
    assert_int_equal(file_write_atomic(AT_FDCWD, path, text, strlen(text), &e), 0);
}

static void lora_of_the_job_folder_is_waited_for_and_copied(void **state)
{
    (void)state;
    struct jobs_bench b;
    char path[160];
    bench_start(&b, "");
    static const char text[] = "prompt = a\nlora = mine.safetensors:0.5\n";
    assert_int_equal(bench_submit(&b, 1, 0, MODALITY_IMAGE, text), SUBMIT_WAIT);
    write_text(&b, "mine.safetensors", "one");
    b.script.block = 1;
    bench_submit(&b, 2, 0, MODALITY_IMAGE, A_PICTURE);
    bench_wait_running(&b, 2);
    assert_int_equal(bench_submit(&b, 1, 0, MODALITY_IMAGE, text), SUBMIT_ACCEPTED);
    assert_int_equal(bench_submit(&b, 1, 0, MODALITY_IMAGE, text), SUBMIT_UNCHANGED);
    snprintf(path, sizeof path, "%s/mine.safetensors", b.store);
    unlink(path); /* the job has its own */
    b.script.block = 0;
    assert_int_equal(bench_wait(&b, 1).state, JOB_DONE);
    write_text(&b, "mine.safetensors", "two"); /* the same prompt with another file */
    assert_int_equal(bench_submit(&b, 1, 0, MODALITY_IMAGE, text), SUBMIT_ACCEPTED);
    assert_int_equal(bench_wait(&b, 1).state, JOB_DONE);
    bench_stop(&b);
}

static void a_missing_lora_fails_when_it_is_final(void **state)
{
    (void)state;
    struct jobs_bench b;
    enum submit_result result;
    struct err e;
    bench_start(&b, "");
    static const char text[] = "prompt = a\nlora = mine.safetensors\n";
    struct job_submission s = {
        .folder = 1, .folder_name = "cat", .text = text, .size = strlen(text), .final = true};
    assert_int_equal(jobs_submit(b.jobs, &s, &result, &e), 0);
    assert_int_equal(result, SUBMIT_ACCEPTED);
    assert_non_null(strstr(bench_wait(&b, 1).error,
                           "cat/prompt.ini:2: the LoRA mine.safetensors is neither in the job "
                           "folder nor, with or without .safetensors, in "));
    bench_stop(&b);
}

/* ---- restarts ---- */

static void a_stop_gives_running_jobs_back(void **state)
{
    (void)state;
    struct jobs_bench b;
    bench_start(&b, "");
    b.script.block = 1;
    bench_submit(&b, 1, 0, MODALITY_IMAGE, A_PICTURE);
    bench_submit(&b, 2, 0, MODALITY_IMAGE, "prompt = b\nsteps = 9\n");
    bench_wait_running(&b, 1);
    bench_restart(&b, 0.05);
    b.script.block = 0;
    assert_int_equal(bench_wait(&b, 1).state, JOB_DONE);
    assert_int_equal(bench_wait(&b, 2).state, JOB_DONE);
    assert_int_equal(bench_published(&b, 1).times, 1);
    AUTO_STR struct str log = {0};
    jobs_log(b.jobs, 1, &log);
    assert_contains(log.data, "attempt 1\n");
    assert_null(strstr(log.data, "attempt 2"));
    bench_stop(&b);
}

static void a_stop_waits_for_what_is_nearly_done(void **state)
{
    (void)state;
    struct jobs_bench b;
    bench_start(&b, "");
    b.script.step_ms = 30;
    b.script.block = 1;
    bench_submit(&b, 1, 0, MODALITY_IMAGE, A_PICTURE);
    bench_wait_running(&b, 1);
    b.script.block = 0;
    jobs_stop(b.jobs, 60);
    bench_publish(&b); /* the face still delivers */
    struct job_view v;
    assert_int_equal(jobs_view(b.jobs, 1, &v), 0);
    assert_int_equal(v.state, JOB_DONE);
    bench_stop(&b);
}

/* A daemon with a job that runs, one that waits and one that is finished, killed at that point. */
static void daemon_to_be_killed(const char *store)
{
    struct jobs_bench b;
    bench_start_at(&b, store, "");
    b.hold_publications = true;
    bench_submit(&b, 1, 0, MODALITY_IMAGE, "prompt = finished\n");
    bench_wait_state(&b, 1, JOB_PUBLISHING);
    b.script.block = 1;
    bench_submit(&b, 2, 0, MODALITY_IMAGE, "prompt = running\n");
    bench_wait_running(&b, 2); /* another user's would go first */
    bench_submit(&b, 3, 1, MODALITY_IMAGE, "prompt = waiting\nsteps = 9\n");
    raise(SIGKILL);
}

static void after_kill_9_every_job_has_exactly_one_result(void **state)
{
    (void)state;
    char store[SCRATCH_SIZE];
    struct jobs_bench b;
    bench_killed(daemon_to_be_killed, store);
    bench_start_at(&b, store, "");
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(bench_wait(&b, i).state, JOB_DONE);
        assert_int_equal(bench_published(&b, i).times, 1);
        assert_string_equal(bench_published(&b, i).names, "image.png metadata.json");
    }
    assert_int_equal(b.script.pictures, 2); /* the finished one was not drawn again */
    expect_log(&b, 2, "started, attempt 2\n");
    bench_stop(&b);
}

static void what_was_finished_is_published_after_a_restart_once(void **state)
{
    (void)state;
    struct jobs_bench b;
    struct publication p;
    bench_start(&b, "");
    b.hold_publications = true;
    bench_submit(&b, 1, 0, MODALITY_IMAGE, A_PICTURE);
    bench_wait_state(&b, 1, JOB_PUBLISHING);
    bench_restart(&b, 10);
    assert_true(jobs_next_publication(b.jobs, &p));
    assert_int_equal(p.count, 2);
    for (int i = 0; i < p.count; i++)
        assert_int_equal(access(p.files[i].path, R_OK), 0);
    struct publication again;
    assert_false(jobs_next_publication(b.jobs, &again)); /* handed out once */
    jobs_published(b.jobs, p.id, -EIO);                  /* kept for the next start */
    assert_false(jobs_next_publication(b.jobs, &again));
    publication_free(&p);
    bench_restart(&b, 10);
    assert_true(jobs_next_publication(b.jobs, &p));
    jobs_published(b.jobs, p.id, 0);
    publication_free(&p);
    bench_restart(&b, 10);
    assert_false(jobs_next_publication(b.jobs, &p));
    assert_int_equal(bench_wait(&b, 1).state, JOB_DONE);
    bench_stop(&b);
}

/* ---- a full disk ---- */

static bool write_control(const char *path, const char *text)
{
    AUTO_FD int fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

/* A small file system at `folder`; false where that is not allowed. Users other than root get it in
 * a namespace of their own. */
static bool small_disk(const char *folder)
{
    char users[64], groups[64];
    snprintf(users, sizeof users, "0 %u 1", (unsigned)getuid());
    snprintf(groups, sizeof groups, "0 %u 1", (unsigned)getgid());
    bool ours = geteuid() == 0 || (!unshare(CLONE_NEWUSER | CLONE_NEWNS) &&
                                   write_control("/proc/self/uid_map", users) &&
                                   write_control("/proc/self/setgroups", "deny") &&
                                   write_control("/proc/self/gid_map", groups) &&
                                   !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
    return ours && !mount("tmpfs", folder, "tmpfs", 0, "size=6M,mode=1777");
}

/* Fills the file system but for `left` bytes. */
static void fill_disk(const char *path, off_t left)
{
    AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    static const char block[65536];
    off_t size = 0;
    for (ssize_t n; (n = write(fd, block, sizeof block)) > 0;)
        size += n;
    assert_int_equal(ftruncate(fd, size > left ? size - left : 0), 0);
}

static void live_through_a_full_disk(void **state)
{
    struct jobs_bench b;
    char store[SCRATCH_SIZE + 8], filler[SCRATCH_SIZE + 8];
    snprintf(store, sizeof store, "%s/store", (const char *)*state);
    snprintf(filler, sizeof filler, "%s/filler", (const char *)*state);
    assert_int_equal(mkdir(store, 0700), 0);
    bench_start_at(&b, store, "");
    bench_submit(&b, 1, 0, MODALITY_IMAGE, A_PICTURE);
    assert_int_equal(bench_wait(&b, 1).state, JOB_DONE);
    fill_disk(filler, 400000);
    bench_submit(&b, 2, 0, MODALITY_IMAGE, "prompt = noise\nsize = 512x512\n");
    struct job_view v = bench_wait(&b, 2);
    assert_int_equal(v.state, JOB_FAILED);
    assert_contains(v.error, "No space left on device");
    assert_string_equal(bench_published(&b, 2).names, "error.txt metadata.json");
    unlink(filler);
    bench_submit(&b, 3, 0, MODALITY_IMAGE, "prompt = noise\nsize = 512x512\n");
    assert_int_equal(bench_wait(&b, 3).state, JOB_DONE);
    bench_stop(&b);
}

static void a_full_disk_fails_the_job_and_not_the_daemon(void **state)
{
    (void)state;
    enum { DONE, FAILED, NOT_ALLOWED };
    char folder[SCRATCH_SIZE];
    assert_non_null(mkdtemp(scratch_name(folder, "omnifs-full-XXXXXX")));
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        if (!small_disk(folder))
            _exit(NOT_ALLOWED);
        dup2(STDERR_FILENO, STDOUT_FILENO); /* its report is no part of ours */
        const struct CMUnitTest inner[] = {
            cmocka_unit_test_prestate(live_through_a_full_disk, folder),
        };
        _exit(cmocka_run_group_tests(inner, NULL, NULL) ? FAILED : DONE);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    umount2(folder, MNT_DETACH);
    rmdir(folder);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == NOT_ALLOWED)
        skip(); /* mounts are not allowed here */
    assert_int_equal(WEXITSTATUS(status), DONE);
}

/* ---- everything else a face asks ---- */

static void progress_previews_and_positions_are_seen(void **state)
{
    (void)state;
    struct jobs_bench b;
    struct job_view v;
    AUTO_STR struct str line = {0}, json = {0}, queue = {0};
    bench_start(&b, "");
    b.script.block = 1;
    bench_submit(&b, 1, 0, MODALITY_IMAGE, "prompt = a\nsteps = 12\n");
    bench_wait_running(&b, 1);
    bench_submit(&b, 2, 1, MODALITY_IMAGE, "prompt = b\nsteps = 3\n");
    bench_submit(&b, 3, 1, MODALITY_IMAGE, "prompt = c\nsteps = 3\n");
    assert_int_equal(jobs_view(b.jobs, 3, &v), 0);
    job_status_line(&v, &line);
    assert_string_equal(line.data, "queued 2");
    job_status_json(&v, &json);
    assert_contains(json.data, "\"position\": 2");
    assert_int_equal(jobs_report(b.jobs, "queue", 1001, &queue), 0);
    assert_contains(queue.data, "image/f3 queued 2\n");
    assert_contains(queue.data, "1 job of other users\n");
    assert_null(strstr(queue.data, "image/f1")); /* an id may hold "f1" */
    b.script.step_ms = 20;
    b.script.hold_step = 6;
    b.script.block = 0;
    v = bench_wait_step(&b, 1, 6);
    assert_int_equal(v.done, 6);
    assert_int_equal(v.total, 12);
    assert_true(v.eta >= 0.1 && v.eta < 120); /* as long as it took so far, and this was held */
    b.script.hold_step = 0;
    for (int i = 1; i <= 3; i++)
        bench_wait(&b, i);
    assert_true(b.previews >= 2);
    assert_true(b.changes > 20);
    bench_stop(&b);
}

static void status_lines_say_what_the_contract_says(void **state)
{
    (void)state;
    static const struct {
        struct job_view view;
        const char *line;
    } cases[] = {
        {{.state = JOB_QUEUED, .position = 3}, "queued 3"},
        {{.state = JOB_RUNNING, .stage = STAGE_DIFFUSE, .done = 12, .total = 24, .eta = 8.2},
         "running diffuse 12/24 50% eta 8s"},
        {{.state = JOB_RUNNING, .stage = STAGE_ROUTE, .eta = -1}, "running route"},
        {{.state = JOB_PUBLISHING}, "publishing"},
        {{.state = JOB_DONE}, "done"},
        {{.state = JOB_FAILED, .error = "it broke"}, "failed: it broke"},
        {{.state = JOB_CANCELLED}, "cancelled"},
        {{.state = JOB_BLOCKED, .error = "no"}, "blocked: no"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_STR struct str line = {0};
        job_status_line(&cases[i].view, &line);
        assert_string_equal(line.data, cases[i].line);
    }
}

static void reports_tell_what_happened(void **state)
{
    (void)state;
    struct jobs_bench b;
    bench_start(&b, "");
    bench_submit(&b, 1, 0, MODALITY_IMAGE, A_PICTURE);
    bench_wait(&b, 1);
    bench_submit(&b, 2, 0, MODALITY_IMAGE, "prompt = fail\n");
    bench_wait(&b, 2);
    for (int i = 0; jobs_report_names[i]; i++) {
        AUTO_STR struct str text = {0};
        assert_int_equal(jobs_report(b.jobs, jobs_report_names[i], 1000, &text), 0);
        if (strcmp(jobs_report_names[i], "queue"))
            assert_true(text.len > 0 && text.data[text.len - 1] == '\n');
    }
    AUTO_STR struct str metrics = {0}, none = {0};
    expect_report(&b, "metrics", "# TYPE omnifs_jobs_total counter\n");
    expect_report(&b, "metrics", "omnifs_jobs_total{modality=\"image\",state=\"done\"} 1\n");
    expect_report(&b, "metrics", "omnifs_jobs_total{modality=\"image\",state=\"failed\"} 1\n");
    expect_report(&b, "metrics", "# TYPE omnifs_stage_seconds histogram\n");
    expect_report(&b, "metrics", "omnifs_stage_seconds_bucket{stage=\"diffuse\",le=\"+Inf\"} 2\n");
    expect_report(&b, "metrics", "omnifs_stage_seconds_count{stage=\"diffuse\"} 2\n");
    expect_report(&b, "metrics", "omnifs_models_loaded 1\n");
    expect_report(&b, "metrics", "omnifs_gpu_memory_used_bytes{gpu=\"0\"} 12884901888\n");
    expect_report(&b, "metrics", "omnifs_gpu_busy_ratio{gpu=\"0\"} 0.37\n");
    assert_int_equal(jobs_report(b.jobs, "metrics", 1000, &metrics), 0);
    assert_null(strstr(metrics.data, "omnifs_gpu_busy_ratio{gpu=\"1\"}")); /* it does not say */
    expect_report(&b, "stats", "gpu 0: NVIDIA H200, 12.9 GB of 150 GB used, 37 % busy, driver 580");
    assert_int_equal(jobs_report(b.jobs, "secrets", 0, &none), -ENOENT);
    bench_stop(&b);
}

static void every_request_is_in_the_audit(void **state)
{
    (void)state;
    struct jobs_bench b;
    char path[96];
    bench_start(&b, "");
    bench_submit(&b, 1, 0, MODALITY_IMAGE, A_PICTURE);
    bench_wait(&b, 1);
    bench_submit(&b, 2, 7, MODALITY_IMAGE, "prompt = hentai\n");
    bench_wait(&b, 2);
    bench_submit(&b, 3, 0, MODALITY_IMAGE, "nonsense\n");
    bench_wait(&b, 3);
    snprintf(path, sizeof path, "%s/audit.jsonl", b.store);
    AUTO_FREE char *text = NULL;
    struct err e;
    assert_int_equal(file_read(AT_FDCWD, path, 100000, &text, NULL, &e), 0);
    int lines = 0;
    for (const char *c = text; *c; c++)
        lines += *c == '\n';
    assert_int_equal(lines, 3);
    assert_contains(text, "\"uid\":1007");
    assert_contains(text, "\"prompt_verdict\":\"explicit-sexual\"");
    assert_contains(text, "\"file\":\"image.png\",\"sha256\":\"");
    assert_null(strstr(text, "a cat")); /* prompts are recorded as their digest */
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    bench_stop(&b);
}

static void a_changed_registry_is_taken_over_and_a_bad_one_is_not(void **state)
{
    (void)state;
    struct jobs_bench b;
    struct err e = {0};
    bench_start(&b, "[limits]\nstore_bytes = 1M\n");
    assert_true(jobs_limit_store_bytes(b.jobs) == 1 << 20);
    bench_registry(&b, "[limits]\nstore_bytes = lots\n");
    assert_int_equal(jobs_reload(b.jobs, &e), -EINVAL);
    assert_contains(e.text, "store_bytes \"lots\" is not a size");
    assert_true(jobs_limit_store_bytes(b.jobs) == 1 << 20);
    bench_registry(&b, "[limits]\nstore_bytes = 2M\n");
    for (int i = 0; i < 4000 && jobs_limit_store_bytes(b.jobs) != 2 << 20; i++)
        bench_pause(25); /* noticed by itself */
    assert_true(jobs_limit_store_bytes(b.jobs) == 2 << 20);
    assert_true(b.told_limit == 2 << 20); /* the face enforces it */
    assert_int_equal(b.reloads, 1);
    bench_stop(&b);
}

static void work_folders_do_not_pile_up(void **state)
{
    (void)state;
    struct jobs_bench b;
    char path[96];
    bench_start(&b, "");
    for (int i = 1; i <= 5; i++) {
        bench_submit(&b, i, 0, MODALITY_IMAGE, A_PICTURE);
        bench_wait(&b, i);
    }
    bench_restart(&b, 10);
    snprintf(path, sizeof path, "%s/work", b.store);
    for (int i = 0; i < 4000 && rmdir(path); i++) /* it goes when it is empty */
        bench_pause(25);
    assert_int_equal(access(path, F_OK), -1);
    bench_stop(&b);
}

int main(void)
{
    setenv("OMNIFS_NVML", FAKE_NVML_LIBRARY, 1); /* opened once a process */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_becomes_a_picture_and_its_record),
        cmocka_unit_test(saving_the_same_text_again_does_nothing),
        cmocka_unit_test(a_mistake_fails_at_once_with_its_files),
        cmocka_unit_test(blocked_prompts_are_not_drawn),
        cmocka_unit_test(equal_requests_of_several_users_are_one_batch),
        cmocka_unit_test(several_pictures_of_a_request_have_several_seeds),
        cmocka_unit_test(one_failure_in_a_batch_is_the_culprits_own),
        cmocka_unit_test(running_and_waiting_jobs_can_be_cancelled),
        cmocka_unit_test(cancelling_one_of_a_batch_spares_the_others),
        cmocka_unit_test(a_new_prompt_ends_the_old_run_without_a_trace),
        cmocka_unit_test(a_removed_folder_is_forgotten),
        cmocka_unit_test(a_run_over_its_time_fails),
        cmocka_unit_test(limits_refuse_and_never_clamp),
        cmocka_unit_test(short_memory_unloads_the_least_recently_used_model),
        cmocka_unit_test(a_request_that_does_not_fit_is_refused_with_the_bytes),
        cmocka_unit_test(an_unusable_model_is_told_and_tried_again_when_its_files_change),
        cmocka_unit_test(what_the_model_cannot_do_is_its_own_sentence),
        cmocka_unit_test(references_are_copied_when_submitted),
        cmocka_unit_test(a_missing_reference_fails_when_it_is_final),
        cmocka_unit_test(a_reference_that_is_no_file_is_told),
        cmocka_unit_test(lora_of_the_job_folder_is_waited_for_and_copied),
        cmocka_unit_test(a_missing_lora_fails_when_it_is_final),
        cmocka_unit_test(a_stop_gives_running_jobs_back),
        cmocka_unit_test(a_stop_waits_for_what_is_nearly_done),
        cmocka_unit_test(after_kill_9_every_job_has_exactly_one_result),
        cmocka_unit_test(what_was_finished_is_published_after_a_restart_once),
        cmocka_unit_test(a_full_disk_fails_the_job_and_not_the_daemon),
        cmocka_unit_test(progress_previews_and_positions_are_seen),
        cmocka_unit_test(status_lines_say_what_the_contract_says),
        cmocka_unit_test(reports_tell_what_happened),
        cmocka_unit_test(every_request_is_in_the_audit),
        cmocka_unit_test(a_changed_registry_is_taken_over_and_a_bad_one_is_not),
        cmocka_unit_test(work_folders_do_not_pile_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
