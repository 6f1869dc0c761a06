#include "jobs_bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "scratch.h"

#define WAIT 120 /* seconds */

static const char profiles[] = "[image_default]\nomni_model_id = alpha\nmodality = image\n"
                               "default_size = 32x32\nmax_resolution = 512x512\nsteps = 4\n"
                               "timeout = 60\n"
                               "[image_beta]\nomni_model_id = beta\nmodality = image\n"
                               "default_size = 32x32\nsteps = 4\n"
                               "[video_default]\nomni_model_id = alpha\nmodality = video\n"
                               "default_size = 32x32\nsteps = 2\nframes = 3\nmax_frames = 10\n";

void bench_registry(struct jobs_bench *b, const char *registry)
{
    char text[4096], temporary[96];
    snprintf(text, sizeof text, "%s%s", profiles, registry);
    snprintf(temporary, sizeof temporary, "%s.new", b->registry_path);
    scratch_write(temporary, text);
    rename(temporary, b->registry_path);
}

static void copy_file(const char *path, char *out, size_t size)
{
    AUTO_FD int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, out, size - 1);
    out[n > 0 ? n : 0] = '\0';
}

static void note_publication(struct jobs_bench *b, const struct publication *p)
{
    pthread_mutex_lock(&b->lock);
    struct published *row = NULL;
    for (int i = 0; i < b->published_count; i++)
        if (b->published[i].folder == p->folder)
            row = &b->published[i];
    if (!row)
        row = &b->published[b->published_count++];
    *row = (struct published){.folder = p->folder, .times = row->times + 1};
    for (int i = 0; i < p->count; i++) {
        snprintf(row->names + strlen(row->names), sizeof row->names - strlen(row->names), "%s%s",
                 i ? " " : "", p->files[i].name);
        if (!strcmp(p->files[i].name, "metadata.json"))
            copy_file(p->files[i].path, row->metadata, sizeof row->metadata);
        if (!strcmp(p->files[i].name, "error.txt"))
            copy_file(p->files[i].path, row->error, sizeof row->error);
    }
    for (int i = 0; i < p->stale_count; i++)
        snprintf(row->stale + strlen(row->stale), sizeof row->stale - strlen(row->stale), "%s%s",
                 i ? " " : "", p->stale[i]);
    pthread_mutex_unlock(&b->lock);
}

void bench_publish(struct jobs_bench *b)
{
    struct publication p;
    while (jobs_next_publication(b->jobs, &p)) {
        note_publication(b, &p);
        jobs_published(b->jobs, p.id, 0);
        publication_free(&p);
    }
}

static void on_changed(void *ctx, int64_t folder)
{
    struct jobs_bench *b = ctx;
    (void)folder;
    b->changes++;
}

static void on_preview(void *ctx, int64_t folder, const char *id, const char *path)
{
    struct jobs_bench *b = ctx;
    (void)folder;
    (void)id;
    if (!unlink(path))
        b->previews++;
}

static void on_limits(void *ctx, uint64_t store_bytes)
{
    struct jobs_bench *b = ctx;
    b->told_limit = store_bytes;
    b->reloads++;
}

static void make_model(struct jobs_bench *b, const char *name)
{
    char path[160];
    snprintf(path, sizeof path, "%s/models", b->store);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/models/%s", b->store, name);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/models/%s/model.safetensors", b->store, name);
    scratch_write(path, "x");
    if (truncate(path, 1000))
        perror(path);
}

static void open_jobs(struct jobs_bench *b)
{
    struct err e;
    struct jobs_options o = {
        .store = b->store,
        .registry_path = b->registry_path,
        .generator = &b->generator,
        .face = {b, on_changed, NULL, on_preview, on_limits},
    };
    if (db_open(b->store, &b->db, &e) || jobs_open(b->db, &o, &b->jobs, &e))
        fail_msg("%s", e.text);
}

static void start(struct jobs_bench *b, const char *store, const char *registry,
                  const struct generator *g)
{
    char models[96];
    memset(b, 0, sizeof *b);
    pthread_mutex_init(&b->lock, NULL);
    snprintf(b->store, sizeof b->store, "%s", store);
    snprintf(b->registry_path, sizeof b->registry_path, "%s/registry.ini", b->store);
    bench_registry(b, registry);
    make_model(b, "alpha");
    make_model(b, "beta");
    snprintf(models, sizeof models, "%s/models", b->store);
    setenv("OMNIFS_MODELS", models, 1);
    script_init(&b->script);
    b->generator = g ? *g : script_generator(&b->script);
    open_jobs(b);
}

void bench_start_at(struct jobs_bench *b, const char *store, const char *registry)
{
    start(b, store, registry, NULL);
}

void bench_start_omni_at(struct jobs_bench *b, const char *store, const char *registry)
{
    start(b, store, registry, &generator_omni);
}

static void make_store(char store[SCRATCH_SIZE])
{
    if (!mkdtemp(scratch_name(store, "omnifs-test-XXXXXX")))
        fail_msg("no scratch folder");
}

void bench_start(struct jobs_bench *b, const char *registry)
{
    char store[SCRATCH_SIZE];
    make_store(store);
    bench_start_at(b, store, registry);
}

void bench_start_omni(struct jobs_bench *b, const char *registry)
{
    char store[SCRATCH_SIZE];
    make_store(store);
    bench_start_omni_at(b, store, registry);
}

static void close_jobs(struct jobs_bench *b, double seconds)
{
    jobs_close(b->jobs, seconds);
    db_close(b->db);
}

void bench_restart(struct jobs_bench *b, double seconds)
{
    close_jobs(b, seconds);
    open_jobs(b);
}

void bench_stop(struct jobs_bench *b)
{
    close_jobs(b, 10);
    file_remove_tree(AT_FDCWD, b->store);
    pthread_mutex_destroy(&b->lock);
}

static int open_reference(void *ctx, const char *name)
{
    const struct jobs_bench *b = ctx;
    char path[512];
    snprintf(path, sizeof path, "%s/%s", b->store, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

enum submit_result bench_submit(struct jobs_bench *b, int64_t folder, uid_t uid, enum modality m,
                                const char *text)
{
    enum submit_result result;
    struct err e;
    struct job_submission s = {.folder = folder,
                               .modality = m,
                               .uid = 1000 + uid,
                               .text = text,
                               .size = strlen(text),
                               .open_file = open_reference,
                               .ctx = b};
    snprintf(s.folder_name, sizeof s.folder_name, "f%d", (int)folder);
    if (jobs_submit(b->jobs, &s, &result, &e))
        fail_msg("%s", e.text);
    return result;
}

void bench_pause(int ms)
{
    struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

struct job_view bench_wait(struct jobs_bench *b, int64_t folder)
{
    struct job_view v = {.state = JOB_QUEUED};
    for (double end = clock_seconds() + WAIT; clock_seconds() < end; bench_pause(2)) {
        if (!b->hold_publications)
            bench_publish(b);
        if (!jobs_view(b->jobs, folder, &v) && job_state_final(v.state))
            return v;
    }
    fail_msg("folder %d is still %s", (int)folder, job_state_names[v.state]);
    return v;
}

struct job_view bench_wait_step(struct jobs_bench *b, int64_t folder, int step)
{
    struct job_view v = {.state = JOB_QUEUED};
    for (double end = clock_seconds() + WAIT; clock_seconds() < end; bench_pause(2))
        if (!jobs_view(b->jobs, folder, &v) && v.state == JOB_RUNNING && v.stage == STAGE_DIFFUSE &&
            v.done >= step)
            return v;
    fail_msg("folder %d is %s and does not come to step %d", (int)folder, job_state_names[v.state],
             step);
    return v;
}

void bench_wait_running(struct jobs_bench *b, int64_t folder)
{
    bench_wait_step(b, folder, 0);
}

void bench_wait_state(struct jobs_bench *b, int64_t folder, enum job_state state)
{
    struct job_view v = {.state = JOB_QUEUED};
    for (double end = clock_seconds() + WAIT; clock_seconds() < end; bench_pause(2))
        if (!jobs_view(b->jobs, folder, &v) && v.state == state)
            return;
    fail_msg("folder %d is %s and not %s", (int)folder, job_state_names[v.state],
             job_state_names[state]);
}

struct published bench_published(struct jobs_bench *b, int64_t folder)
{
    struct published copy = {0};
    pthread_mutex_lock(&b->lock);
    for (int i = 0; i < b->published_count; i++)
        if (b->published[i].folder == folder)
            copy = b->published[i];
    pthread_mutex_unlock(&b->lock);
    return copy;
}

void bench_killed(void (*daemon)(const char *store), char *out)
{
    int status;
    make_store(out);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        daemon(out);
        _exit(1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* ---- what is said ---- */

void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" is not in \"%s\"", part, text);
}

void expect_report(struct jobs_bench *b, const char *name, const char *part)
{
    AUTO_STR struct str text = {0};
    assert_int_equal(jobs_report(b->jobs, name, 1000, &text), 0);
    assert_contains(text.data, part);
}

void expect_log(struct jobs_bench *b, int64_t folder, const char *part)
{
    AUTO_STR struct str text = {0};
    assert_int_equal(jobs_log(b->jobs, folder, &text), 0);
    assert_contains(text.data, part);
}
