/* Jobs: the one interface between a face (the mount, later HTTP) and a request's life.
 *
 * A face submits the text of a prompt.ini for a folder id, asks for views, cancels, and publishes
 * what is finished. Everything accepted is durable: after kill -9 queued and running jobs are
 * queued again, finished ones are handed out for publishing again, none twice.
 *
 *     editing → armed → queued → running(stage) → publishing → done | failed | cancelled | blocked
 *     (editing and armed live in the face) */
#ifndef OMNIFS_JOB_JOBS_H
#define OMNIFS_JOB_JOBS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/file.h"
#include "base/str.h"
#include "store/db.h"

struct jobs;
struct registry;
struct generator; /* the engine behind its interface; see job/generator.h */

enum modality { MODALITY_IMAGE, MODALITY_VIDEO, MODALITY_GIF, MODALITY_COUNT };
extern const char *const modality_names[MODALITY_COUNT]; /* "image", "video", "gif" */

enum job_state {
    JOB_QUEUED,
    JOB_RUNNING,
    JOB_PUBLISHING,
    JOB_DONE,
    JOB_FAILED,
    JOB_CANCELLED,
    JOB_BLOCKED
};
extern const char *const job_state_names[];

enum job_stage {
    STAGE_NORMALISE,
    STAGE_ROUTE,
    STAGE_DIFFUSE,
    STAGE_POSTPROCESS,
    STAGE_SAFETY,
    STAGE_PACKAGE,
    STAGE_COUNT
};
extern const char *const job_stage_names[STAGE_COUNT];

/* What the face is told. Called from worker threads without any lock; must return at once (set a
 * flag, signal a thread) and may call jobs_view and friends. */
struct job_face {
    void *ctx;
    void (*changed)(void *ctx, int64_t folder); /* the view of this folder's job is different now */
    void (*publication)(void *ctx);             /* jobs_next_publication has something */
    /* A new preview.png lies at `path` (the face takes it by rename or removes it). */
    void (*preview)(void *ctx, int64_t folder, const char *job_id, const char *path);
    /* The registry was read again (by SIGHUP or because the file changed): the limit of the store,
     * 0: none. */
    void (*limits)(void *ctx, uint64_t store_bytes);
};

struct jobs_options {
    const char *store;                 /* folder; work files go to STORE/work/ID/ */
    const char *registry_path;         /* NULL: search (see registry.h) */
    const struct generator *generator; /* NULL: Omni */
    struct job_face face;
};

/* Opens the queue, recovers what a crash left, starts the workers (one a device). */
int jobs_open(struct db *d, const struct jobs_options *o, struct jobs **out, struct err *e);
/* Stops accepting; running jobs are finished within `seconds`, else cancelled inside and queued
 * again; joins workers. The face must still answer while this runs. Views, publications and
 * jobs_published work on, so that the face can deliver what is finished before jobs_close. */
void jobs_stop(struct jobs *j, double seconds);
/* jobs_stop if that was not done, then frees. */
void jobs_close(struct jobs *j, double seconds);
/* Reads registry.ini again; on error the old one stays in force. */
int jobs_reload(struct jobs *j, struct err *e);

struct job_submission {
    int64_t folder;        /* node id of the job folder */
    char folder_name[256]; /* for messages */
    enum modality modality;
    uid_t uid;
    gid_t gid;
    const char *text; /* prompt.ini */
    size_t size;
    /* Opens a file of the job folder for reading (references, masks): fd, or negative errno. */
    int (*open_file)(void *ctx, const char *name);
    void *ctx;
    bool final; /* missing references fail the job now instead of asking to wait */
};

enum submit_result {
    SUBMIT_ACCEPTED,  /* queued (or failed at once, with its error to be published) */
    SUBMIT_UNCHANGED, /* same prompt and references as the last run: nothing to do */
    SUBMIT_EMPTY,     /* no text: not a job */
    SUBMIT_WAIT,      /* a reference is not there yet: try again later, finally with `final` */
};
/* Records the request durably (returns after db_sync). A job that is queued or running for the same
 * folder is superseded. Negative errno only when the store itself fails. */
int jobs_submit(struct jobs *j, const struct job_submission *s, enum submit_result *result,
                struct err *e);
/* Cancels the folder's queued or running job; it will be published as cancelled. */
void jobs_cancel(struct jobs *j, int64_t folder);
/* The folder is gone: cancel, publish nothing, forget. Never waits. */
void jobs_forget(struct jobs *j, int64_t folder);

struct job_view {
    char id[ID_SIZE];
    int64_t folder;
    uid_t uid;
    enum modality modality;
    enum job_state state;
    enum job_stage stage;
    int position;    /* queued: 1 is next */
    int done, total; /* running: steps, or frames encoded */
    double eta;      /* seconds, < 0 unknown */
    char profile[64];
    char error[480]; /* failed, blocked */
    int64_t created_ms, started_ms, finished_ms, changed_ms;
};
int jobs_view(struct jobs *j, int64_t folder, struct job_view *out); /* -ENOENT: no job */
bool job_state_final(enum job_state s);
/* "running diffuse 12/24 50% eta 8s" without newline; the same as a JSON object. */
void job_status_line(const struct job_view *v, struct str *out);
void job_status_json(const struct job_view *v, struct str *out);
/* The job's events, one line each. */
int jobs_log(struct jobs *j, int64_t folder, struct str *out);

/* .omnifs/NAME for a caller: profiles, models, queue, limits, stats, metrics, version. Other users'
 * jobs are counted, never shown (uid 0 sees all). -ENOENT for other names. */
extern const char *const jobs_report_names[]; /* NULL-terminated */
int jobs_report(struct jobs *j, const char *name, uid_t uid, struct str *out);

/* A finished job's files, to be made visible in this order (metadata.json is last). */
struct publication {
    char id[ID_SIZE];
    int64_t folder;
    uid_t uid;
    gid_t gid;
    int count;
    struct publication_file {
        char name[64];
        char path[512]; /* fsynced; stays until jobs_published */
    } * files;
    /* Names of the previous run's artifacts that this one does not replace, and preview.png,
     * error.txt: to be removed before metadata.json appears. */
    int stale_count;
    char (*stale)[64];
};
/* The oldest job in `publishing` that was not handed out yet; false when there is none. */
bool jobs_next_publication(struct jobs *j, struct publication *out);
void publication_free(struct publication *p);
/* 0: all visible → final state. -ENOENT: the folder is gone → forgotten. Other: kept, handed out
 * again after the next start. */
void jobs_published(struct jobs *j, const char *id, int result);

/* Bytes a new prompt or file may add for this user now: 0, -EDQUOT (jobs per user) or -ENOSPC. For
 * mkdir of a job folder. */
int jobs_may_add(struct jobs *j, uid_t uid);
/* Limits that the face enforces at write time. */
uint64_t jobs_limit_store_bytes(struct jobs *j);
uint64_t jobs_limit_request_bytes(struct jobs *j);

#endif
