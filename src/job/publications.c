/* Finished jobs on their way to the face: handed out once each, in order of submission. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "job/jobs_internal.h"

static bool was_handed_out(struct jobs *j, const char *id)
{
    for (int i = 0; i < j->handed_count; i++)
        if (!strcmp(j->handed[i], id))
            return true;
    return false;
}

/* Remembers that a job is with the face; false: it already was (or no memory). */
static bool hand_out(struct jobs *j, const char *id)
{
    pthread_mutex_lock(&j->lock);
    bool fresh = !was_handed_out(j, id);
    char(*more)[ID_SIZE] = NULL;
    if (fresh)
        more = realloc(j->handed, (size_t)(j->handed_count + 1) * sizeof *more);
    if (more) {
        j->handed = more;
        memcpy(more[j->handed_count++], id, ID_SIZE);
    }
    pthread_mutex_unlock(&j->lock);
    return more != NULL;
}

static void take_back(struct jobs *j, const char *id)
{
    pthread_mutex_lock(&j->lock);
    for (int i = 0; i < j->handed_count; i++)
        if (!strcmp(j->handed[i], id)) {
            memmove(j->handed[i], j->handed[--j->handed_count], ID_SIZE);
            break;
        }
    pthread_mutex_unlock(&j->lock);
}

static void add_stale(struct publication *p, const char *name)
{
    for (int i = 0; i < p->stale_count; i++)
        if (!strcmp(p->stale[i], name))
            return;
    for (int i = 0; i < p->count; i++)
        if (!strcmp(p->files[i].name, name))
            return;
    char(*more)[64] = realloc(p->stale, (size_t)(p->stale_count + 1) * sizeof *more);
    if (!more)
        return;
    p->stale = more;
    snprintf(more[p->stale_count++], 64, "%s", name);
}

static int fill(struct jobs *j, const struct queue_job *q, struct publication *p)
{
    char(*names)[64] = NULL;
    *p = (struct publication){.folder = q->folder, .uid = q->uid, .gid = q->gid};
    memcpy(p->id, q->id, sizeof p->id);
    int code = queue_files(j->db, q, &names, &p->count, &p->stale, &p->stale_count);
    if (code)
        return code;
    p->files = calloc((size_t)p->count + 1, sizeof *p->files);
    for (int i = 0; p->files && i < p->count; i++) {
        char part[80];
        snprintf(part, sizeof part, "out/%s", names[i]);
        memcpy(p->files[i].name, names[i], 64);
        jobs_work_path(j, q->id, part, p->files[i].path);
    }
    free(names);
    if (!p->files)
        return -ENOMEM;
    add_stale(p, "preview.png");
    add_stale(p, "error.txt");
    return 0;
}

bool jobs_next_publication(struct jobs *j, struct publication *out)
{
    struct queue_job q = {.seq = 0};
    while (!queue_publishable(j->db, q.seq, &q)) {
        if (!hand_out(j, q.id))
            continue;
        int code = fill(j, &q, out);
        if (!code)
            return true;
        log_write(LOG_LEVEL_ERROR, q.id, "its files cannot be listed: %s", strerror(-code));
        publication_free(out);
        take_back(j, q.id);
    }
    return false;
}

void publication_free(struct publication *p)
{
    free(p->files);
    free(p->stale);
    *p = (struct publication){0};
}

void jobs_published(struct jobs *j, const char *id, int result)
{
    struct queue_job q;
    int code = queue_get(j->db, id, &q);
    if (result && result != -ENOENT) { /* stays handed out: again after the next start */
        log_write(LOG_LEVEL_ERROR, id, "its files could not be published: %s", strerror(-result));
        return;
    }
    if (!code)
        code = result ? queue_delete(j->db, id) : queue_published(j->db, id);
    if (code && code != -ENOENT)
        log_write(LOG_LEVEL_ERROR, id, "its end could not be recorded: %s", strerror(-code));
    take_back(j, id);
    jobs_wake_janitor(j); /* its work folder */
    if (!code)
        jobs_changed(j, q.folder);
}
