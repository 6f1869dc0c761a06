/* What the files behind jobs.h share. */
#ifndef OMNIFS_JOB_JOBS_INTERNAL_H
#define OMNIFS_JOB_JOBS_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "job/jobs.h"
#include "job/metrics.h"
#include "job/models.h"
#include "job/queue.h"
#include "job/registry.h"
#include "job/run.h"

#define JOB_ATTEMPTS  3 /* a job that took the daemon down so often is not tried again */
#define MAX_BATCH     64
#define JOB_PATH_SIZE 512

/* A running job: what views show of it, and how it is told to end. */
struct live {
    struct live *next;
    char id[ID_SIZE];
    int64_t folder;
    enum job_stage stage;
    int done, total;
    double eta;
    int64_t changed_ms;
    atomic_bool cancel; /* by the user, or superseded, or its folder is gone */
};

struct worker {
    struct jobs *jobs;
    struct models *models;
    pthread_t thread;
    bool started;
    atomic_bool lost;    /* with its device: it claims nothing more */
    atomic_int requeued; /* jobs that it gave back because of that */
};

struct jobs {
    struct db *db;
    char store[JOB_PATH_SIZE - 128];
    char registry_path[REGISTRY_PATH_SIZE]; /* "": search */
    struct generator generator;
    struct job_face face;
    struct metrics *metrics;
    struct audit *audit;
    int64_t started_ms;

    /* One a device, and one for the CPU that is added when all devices are lost. */
    struct worker workers[REGISTRY_MAX_DEVICES + 1];
    atomic_int worker_count;
    pthread_t janitor;
    bool janitor_started;

    /* Guards what follows; never held over the database, a file or a call of the face. */
    pthread_mutex_t lock;
    pthread_cond_t work;  /* something was queued, or the end is near */
    pthread_cond_t chore; /* something for the janitor */
    pthread_cond_t idle;  /* a worker's batch ended */
    struct registry *registry;
    int64_t registry_seen; /* stamp of its file when it was last read */
    struct live *live;
    int busy;                /* workers with a batch */
    unsigned wakes;          /* of the workers, so far */
    bool stopping;           /* claim nothing more */
    bool abandon;            /* give back what runs */
    bool closing;            /* the janitor ends */
    bool chores;             /* the janitor is asked to look now */
    char (*handed)[ID_SIZE]; /* [handed_count] handed out and not yet answered */
    int handed_count;

    /* Held for reading while a submission's files lie in work/ without a row; the sweep of work/
     * takes it for writing. */
    pthread_rwlock_t preparing;
};

/* The registry as it is now; registry_unref'd by the caller. */
struct registry *jobs_registry(struct jobs *j);
/* STORE/work/ID[/part] into path. */
void jobs_work_path(const struct jobs *j, const char *id, const char *part,
                    char path[JOB_PATH_SIZE]);
/* Opens (and makes) STORE/work/ID/part as a folder: fd or negative errno. */
int jobs_work_folder(const struct jobs *j, const char *id, const char *part);
void jobs_wake_workers(struct jobs *j);
void jobs_wake_janitor(struct jobs *j);
void jobs_changed(struct jobs *j, int64_t folder);
void jobs_note(struct jobs *j, const char *id, const char *fmt, ...) ERR_PRINTF(3, 4);
/* "cat/prompt.ini" */
void jobs_prompt_name(const char *folder_name, char *out, size_t size);

/* live.c */
struct live *live_add(struct jobs *j, const struct queue_job *q);
void live_remove(struct jobs *j, struct live *l);
/* Tells the running jobs of a folder to end. */
void live_cancel(struct jobs *j, int64_t folder);
bool live_find(struct jobs *j, const char *id, struct live *out); /* a copy */

/* finish.c: a run's files become the files of its job: their names, metadata.json last (heap
 * array), with the folder synced. */
int finish_files(const struct run *r, char (**names)[64], int *count);
void finish_record(struct jobs *j, const struct queue_job *q, const struct run *r);
/* Makes a run's references readable and its results writable. */
int finish_open_folders(struct jobs *j, struct run *r, struct err *e);
void finish_close_folders(struct run *r);

/* devices.c: a worker for each device of the registry; their threads start later. */
int devices_make_workers(struct jobs *j, struct err *e);
/* Ends a worker whose device is lost. Where it was the last one, the CPU takes over. */
void devices_fail_over(struct worker *w);
/* Lines for .omnifs/stats and .omnifs/metrics. */
void devices_summary(struct jobs *j, struct str *out);
void devices_prometheus(struct jobs *j, struct str *out);

/* worker.c, janitor.c: thread bodies. */
int worker_start(struct worker *w); /* 0 or a positive errno */
void *worker_main(void *worker);
void *janitor_main(void *jobs);
/* Changes when registry.ini does; 0 when it is not there. */
int64_t registry_stamp(struct jobs *j);

#endif
