/* A run: one request on its way through the six stages
 *
 *     normalise → route → diffuse → postprocess → safety → package
 *
 * without knowing whether a mount, a command or a test asked. Each stage is one function over a
 * `struct run` in a file of its name; diffuse takes several runs at once. Files come from
 * `in_fd` and go to `out_fd`; metadata.json is written last, whatever the outcome.
 *
 *     struct run r;
 *     run_init(&r, id, "cat/prompt.ini", MODALITY_IMAGE);
 *     r.text = …; r.registry = …; r.models = …; r.in_fd = …; r.out_fd = …; r.hooks = …;
 *     run_batch((struct run *[]){&r}, 1);        → r.state, r.error, r.outputs
 *     run_free(&r); */
#ifndef OMNIFS_JOB_RUN_H
#define OMNIFS_JOB_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/file.h"
#include "base/picture.h"
#include "job/models.h"
#include "job/registry.h"
#include "job/request.h"

struct run;

/* What the caller wants to hear; all may be NULL. Called from the thread of run_batch. */
struct run_hooks {
    void *ctx;
    /* `done` of `total` (steps, frames) in a stage; eta in seconds, < 0 unknown. */
    void (*progress)(void *ctx, struct run *r, enum job_stage stage, int done, int total,
                     double eta);
    bool (*cancelled)(void *ctx, struct run *r);
    /* The picture as it stands, borrowed; asked for every `preview_every` steps (0: never). */
    void (*preview)(void *ctx, struct run *r, const struct picture *p);
    int preview_every;
    /* Something a user should know that is no error ("the prompt is longer than …"). */
    void (*note)(void *ctx, struct run *r, const char *sentence);
};

struct run_output {
    char name[64];     /* "image-1.png" */
    const char *type;  /* "image/png" */
    int width, height; /* pixels */
    int frames;
    double fps; /* 0 for a still */
    uint64_t bytes;
    char sha256[SHA256_HEX_SIZE];
    int generated_width, generated_height; /* before it was enlarged; 0: not generated */
};

struct run_timings { /* seconds */
    double queue, stage[STAGE_COUNT], encode, steps, decode, total;
};

struct run {
    /* ---- the caller's, borrowed ---- */
    char id[ID_SIZE];
    char where[300]; /* the prompt file, for messages */
    enum modality modality;
    const char
        *text; /* prompt.ini; NULL: `request` is already parsed (request_parse, _from_json) */
    size_t size;
    int in_fd, out_fd; /* folders: references and results */
    const struct registry *registry;
    struct models *models;
    const struct run_hooks *hooks; /* NULL: none */
    int64_t created_ms;            /* wall clock */
    char lost[480];                /* the sentence of a device that was lost drawing it; "": none */

    /* ---- filled by the stages ---- */
    struct request request;
    const struct profile *profile;
    enum job_state state; /* RUNNING until the end, then DONE, FAILED, CANCELLED or BLOCKED */
    struct err error;     /* of FAILED and BLOCKED */
    bool timed_out;
    struct model *model;                /* route; released by diffuse */
    struct omni_model_info info;        /* of the model, for the record; strings are copied */
    char info_strings[4][48];           /* family, variant, precision, device */
    struct omni_upscaler_info upscaler; /* the networks that enlarged it, */
    int upscaler_factor;                /* and how many times; 0: none did */
    int draw_width, draw_height;        /* what the model is asked to draw */
    struct picture *pictures;           /* [picture_count] as drawn, then as delivered */
    struct picture *references; /* [reference_count] images of image_to_…, at the drawn size or,
                                   where the model reads them beside the drawing, at their own */
    int picture_count, reference_count;
    struct picture mask, clip;    /* inpaint; what is converted, or drawn over frame by frame */
    struct media_info given_clip; /* route: what the video that is given holds */
    struct omni_lora loras[REQUEST_MAX_LORAS]; /* route; paths are owned */
    int lora_count;
    struct omni_lora_report lora_reports[OMNI_MAX_LORAS]; /* of the last picture */
    int lora_report_count;
    struct run_output *outputs;
    int output_count;
    int frames_done, frames_total; /* of postprocessing: enlarging and encoding each count */
    struct run_timings timings;
    bool prompt_truncated, negative_truncated; /* had more tokens than the model reads */
    uint64_t planned_bytes, peak_bytes;
    struct safety_verdict prompt_verdict;
    bool prompt_checked;
    const char *output_verdict;      /* "not_checked" while there is no output filter */
    const char *watermark;           /* "metadata" or "none" */
    int64_t started_ms, finished_ms; /* wall clock */
    double deadline;                 /* clock_seconds() */
};

void run_init(struct run *r, const char *id, const char *where, enum modality modality);
void run_free(struct run *r);

/* All stages for runs of one batch (see run_batch_key), each with its own outcome in state and
 * error. Returns 0, or a negative errno when a result could not be written at all (then the run is
 * FAILED without files). */
int run_batch(struct run *const *runs, int count);
/* Ends a run that never started (refused at submission, cancelled in the queue): files as for any
 * other outcome. */
int run_refuse(struct run *r, enum job_state state, const struct err *why);
/* Runs with equal keys may be one batch: same profile, mode, size, frames, steps, scheduler, LoRAs.
 */
void run_batch_key(const struct request *r, char key[SHA256_HEX_SIZE]);

/* The stages. 0, or the negative errno of `e`. */
int stage_normalise(struct run *r, struct err *e);
int stage_route(struct run *r, struct err *e);
int stage_diffuse(struct run *const *runs, int count, struct err *e);
int stage_postprocess(struct run *r, struct err *e);
int stage_safety(struct run *r, struct err *e);
int stage_package(struct run *r, struct err *e);

/* -EINVAL: a result would replace a file that it is made of, as both lie in one folder. */
int run_spares_references(const struct run *r, struct err *e);
/* The run failed; -ENODEV means with its device, which is told together with an earlier one. */
void run_fail(struct run *r, const struct err *e);
/* What the engine is asked to do, once references are read. */
enum omni_mode run_engine_mode(const struct run *r);
/* For stages: does the caller want this run to end (cancel, or its time is over: timed_out)? */
bool run_cancelled(struct run *r);
/* Tells the caller how far a stage is. */
void run_progress(struct run *r, enum job_stage stage, int done, int total);
void run_note(struct run *r, const char *fmt, ...) ERR_PRINTF(2, 3);

/* metadata.json of a finished run (heap, caller frees; NULL: memory). */
char *run_metadata(const struct run *r);
/* The A1111 `parameters` text of picture `index`. */
void run_parameters(const struct run *r, int index, struct str *out);

#endif
