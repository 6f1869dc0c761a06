#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "job/audit.h"
#include "job/jobs_internal.h"

/* ---- small things that all files need ---- */

struct registry *jobs_registry(struct jobs *j)
{
    pthread_mutex_lock(&j->lock);
    struct registry *r = registry_ref(j->registry);
    pthread_mutex_unlock(&j->lock);
    return r;
}

void jobs_work_path(const struct jobs *j, const char *id, const char *part,
                    char path[JOB_PATH_SIZE])
{
    snprintf(path, JOB_PATH_SIZE, "%s/work/%s%s%s", j->store, id, part ? "/" : "",
             part ? part : "");
}

int jobs_work_folder(const struct jobs *j, const char *id, const char *part)
{
    char path[JOB_PATH_SIZE];
    struct err e = {0};
    jobs_work_path(j, id, part, path);
    if (file_mkdirs(path, &e))
        return e.code;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

void jobs_wake_workers(struct jobs *j)
{
    pthread_mutex_lock(&j->lock);
    j->wakes++;
    pthread_cond_broadcast(&j->work);
    pthread_mutex_unlock(&j->lock);
}

void jobs_wake_janitor(struct jobs *j)
{
    pthread_mutex_lock(&j->lock);
    j->chores = true;
    pthread_cond_signal(&j->chore);
    pthread_mutex_unlock(&j->lock);
}

void jobs_changed(struct jobs *j, int64_t folder)
{
    if (j->face.changed)
        j->face.changed(j->face.ctx, folder);
}

void jobs_note(struct jobs *j, const char *id, const char *fmt, ...)
{
    struct err text;
    va_list ap;
    va_start(ap, fmt);
    err_setv(&text, -1, fmt, ap); /* for its care with hostile text */
    va_end(ap);
    queue_event(j->db, id, text.text);
    log_write(LOG_LEVEL_DEBUG, id, "%s", text.text);
}

void jobs_prompt_name(const char *folder_name, char *out, size_t size)
{
    snprintf(out, size, "%s/prompt.ini", folder_name);
}

/* ---- opening and closing ---- */

static int open_store(struct jobs *j, const char *store, struct err *e)
{
    char path[JOB_PATH_SIZE];
    if (strlen(store) >= sizeof j->store)
        return err_set(e, -ENAMETOOLONG, "%s: the store's path is over %zu bytes", store,
                       sizeof j->store - 1);
    strcpy(j->store, store);
    snprintf(path, sizeof path, "%s/work", store);
    int code = file_mkdirs(path, e);
    if (!code)
        code = audit_open(store, &j->audit, e);
    if (!code)
        code = queue_open(j->db, e);
    if (!code)
        code = queue_recover(j->db, JOB_ATTEMPTS,
                             "omnifs ended three times while this job was running, so it is not "
                             "tried again; ask for less, and tell the operator");
    return code && !e->code ? err_set(e, code, "the queue cannot be read: %s", strerror(-code))
                            : code;
}

static int start_threads(struct jobs *j, struct err *e)
{
    int code = 0;
    for (int i = 0; i < j->worker_count && !code; i++)
        code = worker_start(&j->workers[i]);
    if (!code) {
        code = pthread_create(&j->janitor, NULL, janitor_main, j);
        j->janitor_started = !code;
    }
    return code ? err_set(e, -code, "a thread cannot be started: %s", strerror(code)) : 0;
}

static int set_up(struct jobs *j, const struct jobs_options *o, struct err *e)
{
    int code = open_store(j, o->store, e);
    if (!code)
        code = registry_load(o->registry_path, &j->registry, e);
    if (!code)
        j->registry_seen = registry_stamp(j);
    if (!code && !(j->metrics = metrics_new()))
        code = err_nomem(e);
    if (!code)
        code = devices_make_workers(j, e);
    j->chores = true; /* what a crash left in work/ */
    return code ? code : start_threads(j, e);
}

int jobs_open(struct db *d, const struct jobs_options *o, struct jobs **out, struct err *e)
{
    struct jobs *j = calloc(1, sizeof *j);
    if (!j)
        return err_nomem(e);
    j->db = d;
    j->face = o->face;
    j->generator = o->generator ? *o->generator : generator_omni;
    j->started_ms = clock_wall_ms();
    if (o->registry_path)
        snprintf(j->registry_path, sizeof j->registry_path, "%s", o->registry_path);
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->work, NULL);
    pthread_cond_init(&j->chore, NULL);
    pthread_cond_init(&j->idle, NULL);
    pthread_rwlock_init(&j->preparing, NULL);
    struct err local = {0};
    int code = set_up(j, o, &local);
    if (code) {
        jobs_close(j, 0);
        return err_set(e, code, "%s", local.text);
    }
    *out = j;
    return 0;
}

void jobs_stop(struct jobs *j, double seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)seconds;
    until.tv_nsec += (long)((seconds - (double)(time_t)seconds) * 1e9);
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&j->lock);
    j->stopping = true;
    pthread_cond_broadcast(&j->work);
    while (j->busy && pthread_cond_timedwait(&j->idle, &j->lock, &until) != ETIMEDOUT)
        ;
    j->abandon = true;
    pthread_mutex_unlock(&j->lock);
    /* a worker that is added meanwhile is added before the one that it follows has ended */
    for (int i = 0; i < j->worker_count; i++)
        if (j->workers[i].started) {
            pthread_join(j->workers[i].thread, NULL);
            j->workers[i].started = false;
        }
}

void jobs_close(struct jobs *j, double seconds)
{
    if (!j)
        return;
    jobs_stop(j, seconds);
    pthread_mutex_lock(&j->lock);
    j->closing = true;
    pthread_cond_signal(&j->chore);
    pthread_mutex_unlock(&j->lock);
    if (j->janitor_started)
        pthread_join(j->janitor, NULL);
    for (int i = 0; i < j->worker_count; i++)
        models_free(j->workers[i].models);
    registry_unref(j->registry);
    metrics_free(j->metrics);
    audit_close(j->audit);
    free(j->handed);
    pthread_rwlock_destroy(&j->preparing);
    pthread_cond_destroy(&j->work);
    pthread_cond_destroy(&j->chore);
    pthread_cond_destroy(&j->idle);
    pthread_mutex_destroy(&j->lock);
    free(j);
}

int jobs_reload(struct jobs *j, struct err *e)
{
    struct registry *fresh = NULL;
    int64_t stamp = registry_stamp(j); /* before it is read: a later change is seen as one */
    int code = registry_load(*j->registry_path ? j->registry_path : NULL, &fresh, e);
    uint64_t store_bytes = code ? 0 : fresh->limits.store_bytes;
    pthread_mutex_lock(&j->lock);
    struct registry *old = code ? NULL : j->registry;
    j->registry_seen = stamp;
    if (!code)
        j->registry = fresh;
    pthread_mutex_unlock(&j->lock);
    if (code)
        return code;
    registry_unref(old);
    if (j->face.limits)
        j->face.limits(j->face.ctx, store_bytes);
    for (int i = 0; i < j->worker_count; i++)
        models_retry(j->workers[i].models);
    log_info("registry.ini was read again");
    return 0;
}

/* ---- cancelling ---- */

void jobs_cancel(struct jobs *j, int64_t folder)
{
    struct queue_job q;
    db_lock(j->db);
    bool waiting = !queue_latest(j->db, folder, &q) && q.state == JOB_QUEUED &&
                   !queue_refuse(j->db, q.id, JOB_CANCELLED, "");
    if (!waiting)
        live_cancel(j, folder);
    db_unlock(j->db);
    if (waiting)
        jobs_wake_janitor(j);
    jobs_changed(j, folder);
}

void jobs_forget(struct jobs *j, int64_t folder)
{
    db_lock(j->db);
    queue_forget(j->db, folder);
    live_cancel(j, folder);
    db_unlock(j->db);
    jobs_wake_janitor(j);
}

/* ---- views ---- */

int jobs_view(struct jobs *j, int64_t folder, struct job_view *out)
{
    struct queue_job q;
    int code = queue_latest(j->db, folder, &q);
    if (code)
        return code;
    *out = (struct job_view){.folder = q.folder,
                             .uid = q.uid,
                             .modality = q.modality,
                             .state = q.state,
                             .eta = -1,
                             .created_ms = q.created_ms,
                             .started_ms = q.started_ms,
                             .finished_ms = q.finished_ms,
                             .changed_ms = q.changed_ms};
    memcpy(out->id, q.id, sizeof out->id);
    memcpy(out->profile, q.profile, sizeof out->profile);
    if (q.state > JOB_PUBLISHING)
        memcpy(out->error, q.error, sizeof out->error);
    struct live l;
    if (q.state == JOB_QUEUED)
        queue_position(j->db, &q, &out->position);
    else if (q.state == JOB_RUNNING && live_find(j, q.id, &l)) {
        out->stage = l.stage;
        out->done = l.done;
        out->total = l.total;
        out->eta = l.eta;
        out->changed_ms = l.changed_ms;
    }
    return 0;
}

static void add_event(void *ctx, int64_t at_ms, const char *text)
{
    char stamp[CLOCK_RFC3339_SIZE];
    str_addf(ctx, "%s %s\n", clock_rfc3339(at_ms, stamp), text);
}

int jobs_log(struct jobs *j, int64_t folder, struct str *out)
{
    struct queue_job q;
    int code = queue_latest(j->db, folder, &q);
    if (!code)
        code = queue_events(j->db, q.id, add_event, out);
    return out->failed ? -ENOMEM : code;
}

/* ---- limits ---- */

int jobs_may_add(struct jobs *j, uid_t uid)
{
    int all, user;
    struct registry *r = jobs_registry(j);
    int code = queue_active(j->db, 0, uid, &all, &user);
    if (!code)
        code = user >= r->limits.jobs_per_user ? -EDQUOT : all >= r->limits.queue ? -ENOSPC : 0;
    registry_unref(r);
    return code;
}

uint64_t jobs_limit_store_bytes(struct jobs *j)
{
    struct registry *r = jobs_registry(j);
    uint64_t v = r->limits.store_bytes;
    registry_unref(r);
    return v;
}

uint64_t jobs_limit_request_bytes(struct jobs *j)
{
    struct registry *r = jobs_registry(j);
    uint64_t v = r->limits.request_bytes;
    registry_unref(r);
    return v;
}
