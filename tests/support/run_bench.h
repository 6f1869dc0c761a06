/* Runs without a queue for a test: a scratch folder that is job folder and search path in one, an
 * empty model "tiny", the small networks "nets" that enlarge, a registry, the scripted generator.
 *
 *     TEST(name) with setup: return run_bench_new(state, registry_text);   teardown: run_bench_free
 */
#ifndef TESTS_RUN_BENCH_H
#define TESTS_RUN_BENCH_H

#include <jansson.h>

#include "job/run.h"
#include "media/media.h"
#include "scripted_generator.h"

struct run_bench {
    char *folder;
    int fd; /* of the folder */
    struct script script;
    struct generator generator;
    struct registry *registry;
    struct models *models;
    char notes[512]; /* the last note of the last run */
    struct bench_progress {
        enum job_stage stage;
        int done, total, falls; /* how often it went back within a stage */
    } progress;                 /* of the last run */
};

int run_bench_new(void **state, const char *registry);
int run_bench_free(void **state);
/* Begins anew with so many bytes for models, work and pictures (at first 1 GiB). */
void run_bench_memory(struct run_bench *b, uint64_t bytes);

/* From here on the real engine draws, and models/ of the sources is on the search path. */
void run_bench_omni(struct run_bench *b);

/* A run of the prompt `text`; NULL: the test fills in r->request. */
void bench_prepare(struct run_bench *b, struct run *r, enum modality m, const char *text);
/* Runs what was prepared, alone, and keeps its notes. */
void bench_run(struct run_bench *b, struct run *r);
/* Both; the caller frees `r` with run_free(). */
void bench_run_one(struct run_bench *b, struct run *r, enum modality m, const char *text);
void expect_done(const struct run *r);
/* The request fails, and its sentence contains `says`. */
void expect_failure(struct run_bench *b, enum modality m, const char *text, const char *says);

/* Writes a picture or clip into the folder, without loss, and frees it. */
void bench_write(struct run_bench *b, const char *name, struct picture p, enum media_format format,
                 double fps);
struct picture bench_read(const struct run_bench *b, const char *name);
/* The picture image.png of a request, which must end well; the caller frees it. */
struct picture bench_picture(struct run_bench *b, const char *text);
/* metadata.json of the last run; the caller releases it. */
json_t *bench_metadata(const struct run_bench *b);

#endif
