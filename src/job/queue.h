/* The queue: jobs as rows of the store's database. Every function is one short transaction; nothing
 * here touches files or threads, so another implementation could keep the rows elsewhere.
 *
 *     QUEUED ─claim→ RUNNING ─finish→ PUBLISHING ─published→ outcome (DONE, FAILED …)
 *        │ ←──requeue──┘                 ↑
 *        └──────────refuse───────────────┘ (its files are written by whoever finds it not `ready`)
 *
 * A row that is `gone` (superseded, or its folder was removed) is never published, only deleted.
 * Functions return 0 or a negative errno. */
#ifndef OMNIFS_JOB_QUEUE_H
#define OMNIFS_JOB_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/file.h"
#include "job/jobs.h"
#include "store/db.h"

struct queue_job {
    int64_t seq; /* order of submission */
    char id[ID_SIZE];
    int64_t folder;
    char folder_name[256];
    enum modality modality;
    uid_t uid;
    gid_t gid;
    enum job_state state, outcome; /* outcome: valid from PUBLISHING on */
    int attempts;
    char profile[64];
    int priority;
    int pictures;
    char key[SHA256_HEX_SIZE];    /* equal keys may be one batch */
    char digest[SHA256_HEX_SIZE]; /* of prompt and references */
    char *text;                   /* heap; only where a function says so */
    size_t size;
    bool ready, gone;
    char error[480];
    char lost[480]; /* what became of the device that drew it first; "": it was not requeued */
    int64_t created_ms, started_ms, finished_ms, changed_ms;
};
void queue_job_free(struct queue_job *j);

int queue_open(struct db *d, struct err *e);

/* Adds a job (text borrowed) in its state: QUEUED, or PUBLISHING with outcome and error and not
 * ready. Jobs of the same folder that wait are deleted, those that run are gone. */
int queue_insert(struct db *d, const struct queue_job *j);
/* The folder's latest job that is not gone; -ENOENT. Without text. */
int queue_latest(struct db *d, int64_t folder, struct queue_job *out);
int queue_get(struct db *d, const char *id, struct queue_job *out); /* without text */

/* Takes the next job and others of its batch, up to `pictures` pictures together: highest priority
 * first, users in turn, each in order of submission. Returns how many (with text), 0: none. */
int queue_claim(struct db *d, int pictures, struct queue_job *out, int max);
/* Back to the queue, as if it had not been claimed (the daemon stops). */
int queue_release(struct db *d, const char *id);
/* Running → waiting, because its device was lost (`why`), once: -ENOENT where that happened to it
 * before, or it is gone (then it is deleted) or not running. The loss is no attempt. */
int queue_requeue(struct db *d, const char *id, const char *why);
/* Running → publishing with these files; a gone one is deleted. -ENOENT: it was gone. */
int queue_finish(struct db *d, const char *id, enum job_state outcome, const char *error,
                 const char (*names)[64], int count);
/* Waiting → publishing, not ready. -ENOENT when it does not wait. */
int queue_refuse(struct db *d, const char *id, enum job_state outcome, const char *error);
/* The next job that is publishing but not ready (with text); -ENOENT. */
int queue_unready(struct db *d, struct queue_job *out);
int queue_set_ready(struct db *d, const char *id, const char (*names)[64], int count);

/* The oldest publishing, ready job with seq > after; -ENOENT. */
int queue_publishable(struct db *d, int64_t after, struct queue_job *out);
/* Names of a job's files in order, and names that earlier runs of its folder left (heap arrays). */
int queue_files(struct db *d, const struct queue_job *j, char (**names)[64], int *count,
                char (**stale)[64], int *stale_count);
/* All files are visible: publishing → outcome; what earlier runs of the folder left is forgotten.
 */
int queue_published(struct db *d, const char *id);
/* Forgets the folder: deletes all of its jobs but running ones, which are gone. */
int queue_forget(struct db *d, int64_t folder);
int queue_delete(struct db *d, const char *id);

/* After a crash: running jobs wait again, or fail where this was their `attempts`-th try; gone ones
 * are deleted. */
int queue_recover(struct db *d, int attempts, const char *sentence);

/* Jobs that wait or run: all, of one user (without those of `folder`, 0: with all). */
int queue_active(struct db *d, int64_t but_folder, uid_t uid, int *all, int *user);
/* 1 is next. */
int queue_position(struct db *d, const struct queue_job *j, int *position);
bool queue_has(struct db *d, const char *id);
/* Counts by state, and of those of one user that wait or run. */
int queue_counts(struct db *d, int64_t counts[JOB_BLOCKED + 1]);
/* Jobs that wait, run or publish in order of submission: calls each() without text. */
int queue_each_active(struct db *d, void (*each)(void *ctx, const struct queue_job *j), void *ctx);

/* Events: the log of a job. */
int queue_event(struct db *d, const char *id, const char *text);
int queue_events(struct db *d, const char *id,
                 void (*each)(void *ctx, int64_t at_ms, const char *text), void *ctx);

#endif
