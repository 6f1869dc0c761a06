/* A worker: one thread bound to one device. It claims a batch, runs it, hands the results on. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "job/jobs_internal.h"

#define PREVIEWS 6 /* about so many a run */

/* A claimed job while it runs. */
struct task {
    struct worker *worker;
    struct queue_job job;
    struct run run;
    struct live *live;
    struct run_hooks hooks;
    int previews;
};

/* ---- what the stages ask and tell ---- */

static bool abandoned(struct jobs *j)
{
    pthread_mutex_lock(&j->lock);
    bool yes = j->abandon;
    pthread_mutex_unlock(&j->lock);
    return yes;
}

static bool on_cancelled(void *ctx, struct run *r)
{
    (void)r;
    struct task *t = ctx;
    return t->live->cancel || abandoned(t->worker->jobs);
}

static void on_progress(void *ctx, struct run *r, enum job_stage stage, int done, int total,
                        double eta)
{
    (void)r;
    struct task *t = ctx;
    struct jobs *j = t->worker->jobs;
    pthread_mutex_lock(&j->lock);
    bool new_stage = t->live->stage != stage;
    t->live->stage = stage;
    t->live->done = done;
    t->live->total = total;
    t->live->eta = eta;
    t->live->changed_ms = clock_wall_ms();
    pthread_mutex_unlock(&j->lock);
    if (new_stage)
        jobs_note(j, t->job.id, "%s", job_stage_names[stage]);
    jobs_changed(j, t->job.folder);
}

static void on_preview(void *ctx, struct run *r, const struct picture *p)
{
    struct task *t = ctx;
    struct jobs *j = t->worker->jobs;
    char name[32], path[JOB_PATH_SIZE];
    AUTO_FD int fd = jobs_work_folder(j, r->id, NULL);
    struct media_options o;
    struct err e;
    media_options_init(&o, MEDIA_PNG);
    snprintf(name, sizeof name, "preview-%d.png",
             t->previews++);                        /* each its own: the face may be */
    if (fd < 0 || media_write(fd, name, p, &o, &e)) /* slower than we are */
        return;
    jobs_work_path(j, r->id, name, path);
    j->face.preview(j->face.ctx, t->job.folder, r->id, path);
}

static void on_note(void *ctx, struct run *r, const char *sentence)
{
    (void)r;
    struct task *t = ctx;
    jobs_note(t->worker->jobs, t->job.id, "note: %s", sentence);
}

/* ---- one batch ---- */

static int begin_task(struct task *t, struct worker *w, struct registry *registry)
{
    struct run *r = &t->run;
    struct jobs *j = w->jobs;
    char where[300];
    struct err e = {0};
    jobs_prompt_name(t->job.folder_name, where, sizeof where);
    run_init(r, t->job.id, where, t->job.modality);
    t->worker = w;
    t->hooks = (struct run_hooks){.ctx = t,
                                  .progress = on_progress,
                                  .cancelled = on_cancelled,
                                  .preview = j->face.preview ? on_preview : NULL,
                                  .note = on_note,
                                  .preview_every = PREVIEWS};
    r->text = t->job.text;
    r->size = t->job.size;
    r->registry = registry;
    r->models = w->models;
    r->hooks = &t->hooks;
    r->created_ms = t->job.created_ms;
    memcpy(r->lost, t->job.lost, sizeof r->lost);
    int code = finish_open_folders(j, r, &e);
    if (code) {
        r->state = JOB_FAILED;
        r->error = e;
    }
    const char *device = models_device(w->models);
    jobs_note(j, t->job.id, "started%s%s, attempt %d", *device ? " on " : "", device,
              t->job.attempts + (*t->job.lost != '\0'));
    jobs_changed(j, t->job.folder);
    return code;
}

static void pause_for_disk(void)
{
    struct timespec pause = {0, 500000000};
    nanosleep(&pause, NULL);
}

/* Records the outcome. While the disk is full there is nothing better to do than to try again;
 * when the daemon ends meanwhile, the next start runs the job anew. */
static int record_end(struct jobs *j, const struct run *r, const char *error,
                      const char (*names)[64], int count)
{
    for (bool first = true;; first = false) {
        int code = queue_finish(j->db, r->id, r->state, error, names, count);
        if (!code || code == -ENOENT || abandoned(j))
            return code;
        if (first)
            log_write(LOG_LEVEL_ERROR, r->id, "the result cannot be recorded yet: %s",
                      strerror(-code));
        pause_for_disk();
    }
}

static void settle(struct task *t)
{
    struct jobs *j = t->worker->jobs;
    struct run *r = &t->run;
    char(*names)[64] = NULL;
    int count = 0, code = finish_files(r, &names, &count);
    if (code) { /* files that may not last are not delivered */
        count = 0;
        r->state = JOB_FAILED;
        err_set(&r->error, code, "the result could not be kept: %s", strerror(-code));
    }
    finish_record(j, &t->job, r); /* before anyone can see the end */
    bool told = r->state == JOB_FAILED || r->state == JOB_BLOCKED;
    if (record_end(j, r, told ? r->error.text : "", (const char(*)[64])names, count))
        jobs_wake_janitor(j); /* superseded or forgotten: its work folder is to be swept */
    free(names);
}

/* Back to the queue; a wish to cancel that came meanwhile meets it there. */
static int give_up(struct task *t)
{
    struct jobs *j = t->worker->jobs;
    db_lock(j->db);
    int code = queue_requeue(j->db, t->job.id, t->run.error.text);
    if (!code && t->live->cancel && !queue_refuse(j->db, t->job.id, JOB_CANCELLED, ""))
        code = -ECANCELED;
    db_unlock(j->db);
    return code;
}

/* A job whose device was lost waits for another one, where that is its first loss. */
static bool requeued(struct task *t)
{
    struct jobs *j = t->worker->jobs;
    const struct run *r = &t->run;
    if (r->state != JOB_FAILED || r->error.code != -ENODEV || *r->lost ||
        !models_lost(t->worker->models, NULL))
        return false;
    int code;
    while ((code = give_up(t)) && code != -ENOENT && code != -ECANCELED && !abandoned(j))
        pause_for_disk(); /* as in record_end */
    if (code == -ENOENT || code == -ECANCELED)
        jobs_wake_janitor(j); /* its folder is to be swept, or its record to be written */
    if (code)
        return true;
    t->worker->requeued++;
    jobs_note(j, r->id, "%s; waits for another device", r->error.text);
    log_write(LOG_LEVEL_WARN, r->id, "%s: %s; it is queued again", r->where, r->error.text);
    return true;
}

static void end_task(struct task *t)
{
    struct jobs *j = t->worker->jobs;
    bool given_back = t->run.state == JOB_CANCELLED && !t->live->cancel && abandoned(j);
    if (given_back)
        queue_release(j->db, t->job.id);
    else if (!requeued(t))
        settle(t);
    finish_close_folders(&t->run);
    live_remove(j, t->live);
    jobs_changed(j, t->job.folder);
    run_free(&t->run);
    queue_job_free(&t->job);
}

static void run_tasks(struct worker *w, struct task *tasks, int count)
{
    struct jobs *j = w->jobs;
    struct registry *registry = jobs_registry(j);
    struct run *runs[MAX_BATCH];
    int ready = 0;
    for (int i = 0; i < count; i++)
        if (!begin_task(&tasks[i], w, registry))
            runs[ready++] = &tasks[i].run;
    metrics_batch(j->metrics, count);
    if (ready)
        run_batch(runs, ready);
    for (int i = 0; i < count; i++)
        end_task(&tasks[i]);
    registry_unref(registry);
    if (j->face.publication)
        j->face.publication(j->face.ctx);
}

/* Claims a batch and makes it known as running in one step: whoever looks at the database then
 * finds the job either waiting or among the live ones. */
static int claim(struct worker *w, struct task *tasks, int pictures)
{
    struct jobs *j = w->jobs;
    struct queue_job *claimed = calloc(MAX_BATCH, sizeof *claimed);
    if (!claimed)
        return 0;
    db_lock(j->db);
    int count = queue_claim(j->db, pictures, claimed, MAX_BATCH), kept = 0;
    for (int i = 0; i < count; i++) {
        tasks[kept] = (struct task){.job = claimed[i]};
        tasks[kept].live = live_add(j, &claimed[i]);
        if (tasks[kept].live)
            kept++;
        else { /* no memory: another time */
            queue_release(j->db, claimed[i].id);
            queue_job_free(&claimed[i]);
        }
    }
    db_unlock(j->db);
    free(claimed);
    return kept;
}

/* Waits unless somebody woke the workers since `wakes`, before the claim that found nothing. */
static void wait_for_work(struct jobs *j, unsigned wakes)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 5; /* the database may have had an error */
    while (!j->stopping && j->wakes == wakes)
        if (pthread_cond_timedwait(&j->work, &j->lock, &until))
            return;
}

void *worker_main(void *ctx)
{
    struct worker *w = ctx;
    struct jobs *j = w->jobs;
    struct task *tasks = calloc(MAX_BATCH, sizeof *tasks);
    pthread_mutex_lock(&j->lock);
    while (!j->stopping && !w->lost && tasks) {
        int pictures = j->registry->devices.batch;
        unsigned wakes = j->wakes;
        j->busy++; /* before the claim: jobs_stop must not overlook it */
        pthread_mutex_unlock(&j->lock);
        int count = claim(w, tasks, pictures);
        if (count)
            run_tasks(w, tasks, count);
        if (models_lost(w->models, NULL))
            devices_fail_over(w);
        pthread_mutex_lock(&j->lock);
        j->busy--;
        pthread_cond_broadcast(&j->idle);
        if (!count)
            wait_for_work(j, wakes);
    }
    pthread_mutex_unlock(&j->lock);
    free(tasks);
    return NULL;
}

int worker_start(struct worker *w)
{
    int code = pthread_create(&w->thread, NULL, worker_main, w);
    w->started = !code;
    return code;
}
