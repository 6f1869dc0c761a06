/* The janitor: one thread for what no one should wait for. Writes the files of jobs that never ran
 * (refused, cancelled in the queue), sweeps work/, and notices when registry.ini changes. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "job/jobs_internal.h"

#define LOOK_SECONDS 2

/* ---- jobs that never ran ---- */

static int write_refusal(struct jobs *j, const struct queue_job *q)
{
    struct run r;
    struct err why = {0}, e = {0};
    char where[300];
    jobs_prompt_name(q->folder_name, where, sizeof where);
    run_init(&r, q->id, where, q->modality);
    if (*q->error)
        err_set(&why, *q->digest ? -EINVAL : -EAGAIN, "%s", q->error);
    r.text = q->text;
    r.size = q->size;
    r.created_ms = q->created_ms;
    struct registry *registry = jobs_registry(j);
    r.registry = registry;
    int code = finish_open_folders(j, &r, &e);
    if (!code)
        code = run_refuse(&r, q->outcome, *q->error ? &why : NULL);
    char(*names)[64] = NULL;
    int count = 0;
    if (!code)
        code = finish_files(&r, &names, &count);
    finish_close_folders(&r);
    if (!code) {
        finish_record(j, q, &r);
        code = queue_set_ready(j->db, q->id, (const char(*)[64])names, count);
    }
    free(names);
    run_free(&r);
    registry_unref(registry);
    return code;
}

static void write_refusals(struct jobs *j)
{
    struct queue_job q;
    bool any = false;
    while (!queue_unready(j->db, &q)) {
        int code = write_refusal(j, &q);
        queue_job_free(&q);
        if (code) {
            log_write(LOG_LEVEL_ERROR, q.id, "its files cannot be written: %s", strerror(-code));
            if (code == -ENOSPC || code == -EDQUOT)
                break; /* at the next look */
            if (queue_set_ready(j->db, q.id, NULL, 0))
                break; /* else it ends without files: others wait behind it */
        }
        any = true;
    }
    if (any && j->face.publication)
        j->face.publication(j->face.ctx);
}

/* ---- work/ ---- */

static void sweep(struct jobs *j)
{
    char path[JOB_PATH_SIZE];
    snprintf(path, sizeof path, "%s/work", j->store);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        if (fd >= 0)
            close(fd);
        return;
    }
    pthread_rwlock_wrlock(&j->preparing);
    for (struct dirent *entry; (entry = readdir(d));)
        if (entry->d_name[0] != '.') {
            struct queue_job q;
            int code = queue_get(j->db, entry->d_name, &q);
            if (code == -ENOENT || (!code && job_state_final(q.state)))
                file_remove_tree(fd, entry->d_name);
        }
    pthread_rwlock_unlock(&j->preparing);
    closedir(d);
}

/* ---- registry.ini ---- */

int64_t registry_stamp(struct jobs *j)
{
    struct registry *r = jobs_registry(j);
    struct stat st;
    int64_t stamp = 0;
    if (!stat(r->path, &st))
        stamp = (int64_t)st.st_mtim.tv_sec * 1000003 + st.st_mtim.tv_nsec +
                (int64_t)st.st_ino * 31 + st.st_size;
    registry_unref(r);
    return stamp;
}

static void watch_registry(struct jobs *j)
{
    int64_t now = registry_stamp(j);
    struct err e = {0};
    pthread_mutex_lock(&j->lock);
    bool same = now == j->registry_seen;
    pthread_mutex_unlock(&j->lock);
    if (same || !now) /* gone for a moment while an editor replaces it */
        return;
    if (jobs_reload(j, &e))
        log_error("the registry was not reloaded, the old one stays in force: %s", e.text);
}

void *janitor_main(void *ctx)
{
    struct jobs *j = ctx;
    pthread_mutex_lock(&j->lock);
    while (!j->closing) {
        bool asked = j->chores;
        j->chores = false;
        pthread_mutex_unlock(&j->lock);
        write_refusals(j);
        if (asked)
            sweep(j);
        watch_registry(j);
        pthread_mutex_lock(&j->lock);
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += LOOK_SECONDS;
        if (!j->chores && !j->closing)
            pthread_cond_timedwait(&j->chore, &j->lock, &until);
    }
    pthread_mutex_unlock(&j->lock);
    return NULL;
}
