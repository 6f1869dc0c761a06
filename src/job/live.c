/* The jobs that run now, in memory: progress and the wish to end. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "job/jobs_internal.h"

struct live *live_add(struct jobs *j, const struct queue_job *q)
{
    struct live *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    memcpy(l->id, q->id, sizeof l->id);
    l->folder = q->folder;
    l->eta = -1;
    l->changed_ms = clock_wall_ms();
    pthread_mutex_lock(&j->lock);
    l->next = j->live;
    j->live = l;
    pthread_mutex_unlock(&j->lock);
    return l;
}

void live_remove(struct jobs *j, struct live *l)
{
    pthread_mutex_lock(&j->lock);
    for (struct live **at = &j->live; *at; at = &(*at)->next)
        if (*at == l) {
            *at = l->next;
            break;
        }
    pthread_mutex_unlock(&j->lock);
    free(l);
}

void live_cancel(struct jobs *j, int64_t folder)
{
    pthread_mutex_lock(&j->lock);
    for (struct live *l = j->live; l; l = l->next)
        if (l->folder == folder)
            l->cancel = true;
    pthread_mutex_unlock(&j->lock);
}

bool live_find(struct jobs *j, const char *id, struct live *out)
{
    bool found = false;
    pthread_mutex_lock(&j->lock);
    for (struct live *l = j->live; l && !found; l = l->next)
        if (!strcmp(l->id, id)) {
            out->stage = l->stage;
            out->done = l->done;
            out->total = l->total;
            out->eta = l->eta;
            out->changed_ms = l->changed_ms;
            found = true;
        }
    pthread_mutex_unlock(&j->lock);
    return found;
}
