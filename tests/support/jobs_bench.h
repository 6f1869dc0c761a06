/* A whole job floor for a test: a scratch store, two small models on the search path, a registry,
 * the scripted generator, and a face that publishes into memory. */
#ifndef TESTS_JOBS_BENCH_H
#define TESTS_JOBS_BENCH_H

#include <pthread.h>
#include <stdatomic.h>

#include "job/jobs.h"
#include "scripted_generator.h"

struct jobs_bench {
    char store[64];
    char registry_path[80];
    struct script script;
    struct generator generator;
    struct db *db;
    struct jobs *jobs;
    atomic_int previews, changes;
    atomic_int reloads;              /* of the registry, as told to the face */
    atomic_uint_fast64_t told_limit; /* store_bytes with the last of them */
    bool hold_publications;          /* publications are left for the test to take */
    /* The last publication of each folder, as the names in order: "image.png metadata.json". */
    pthread_mutex_t lock;
    struct published {
        int64_t folder;
        char names[512], stale[512], metadata[8192], error[1024];
        int times;
    } published[64];
    int published_count;
};

/* Opens everything; `registry` is appended to two profiles each for the models alpha and beta
 * (image_default, image_beta, video_default). Fails the test on an error. */
void bench_start(struct jobs_bench *b, const char *registry);
/* The same in a folder that may hold the store of an earlier bench. */
void bench_start_at(struct jobs_bench *b, const char *store, const char *registry);
/* Both with Omni instead of the scripted generator: the registry has to name its profiles. */
void bench_start_omni(struct jobs_bench *b, const char *registry);
void bench_start_omni_at(struct jobs_bench *b, const char *store, const char *registry);
/* Closes jobs and database, and opens them again, as a restart does. */
void bench_restart(struct jobs_bench *b, double seconds);
void bench_stop(struct jobs_bench *b);
/* Writes the registry anew. */
void bench_registry(struct jobs_bench *b, const char *registry);
/* Submits a prompt for a folder, by user 1000 + uid; returns the result. */
enum submit_result bench_submit(struct jobs_bench *b, int64_t folder, uid_t uid, enum modality m,
                                const char *text);
/* The waits are for as long as a busy machine may need; then the test fails.
 * Until the folder's job is in its final state. */
struct job_view bench_wait(struct jobs_bench *b, int64_t folder);
/* Until the folder's job draws. The script must hold it there. */
void bench_wait_running(struct jobs_bench *b, int64_t folder);
/* … and `step` steps are done. */
struct job_view bench_wait_step(struct jobs_bench *b, int64_t folder, int step);
/* Until the folder's job is in that state. */
void bench_wait_state(struct jobs_bench *b, int64_t folder, enum job_state state);
void bench_pause(int ms);
/* A copy of what was published last; times is 0 when nothing was. */
struct published bench_published(struct jobs_bench *b, int64_t folder);
/* Runs `daemon` on a scratch store in a process of its own, which must end by SIGKILL; the store's
 * path into out[SCRATCH_SIZE]. */
void bench_killed(void (*daemon)(const char *store), char *out);
/* Publishes what is ready (the face does so by itself unless hold_publications). */
void bench_publish(struct jobs_bench *b);

void assert_contains(const char *text, const char *part);
/* `part` is in .omnifs/NAME as user 1000 reads it, or in the log of the folder's job. */
void expect_report(struct jobs_bench *b, const char *name, const char *part);
void expect_log(struct jobs_bench *b, int64_t folder, const char *part);

#endif
