/* One call of omni_generate on its way: what the stages of the pipeline share. */
#ifndef OMNI_RUN_H
#define OMNI_RUN_H

#include "engine/model.h"
#include "engine/random.h"
#include "engine/request.h"

#define RUN_MAX_PREDICTIONS (2 * REQUEST_MAX_BATCH)

/* One evaluation of the model a step: request × positive or negative prompt. */
struct prediction {
    int request;
    struct condition *condition;
};

struct run {
    struct omni_model *m;
    struct ops *o;
    bool planning, previews;
    bool by_turns; /* memory is short: text encoders and the rest are resident by turns */
    const struct omni_callbacks *cb; /* not NULL */
    struct resolved_request requests[REQUEST_MAX_BATCH];
    int count;
    struct schedule schedule;

    /* All positive predictions in order of requests, then the negative ones of guided requests. */
    struct prediction predictions[RUN_MAX_PREDICTIONS];
    int prediction_count;
    int negative[REQUEST_MAX_BATCH]; /* index of a request's negative prediction, -1 for none */
    const struct omni_request *asked[RUN_MAX_PREDICTIONS]; /* by prediction */

    struct random *random;    /* [count]: each request's own generator; NULL while planning */
    struct tensor *x;         /* [count, frames, h, w, channels] */
    struct tensor *predicted; /* [prediction_count, frames, h, w, channels] */
    struct tensor *history[SLOT_COUNT - SLOT_0]; /* like x: what the scheduler remembers */
    /* [1]: the first step with NaN, where the host runs ahead of the device; NULL elsewhere */
    struct tensor *first_bad;

    /* What became of pictures, each [count, …] and NULL where the mode needs none: */
    struct tensor *clean;  /* latents of the pictures to start from or to keep, like x */
    struct tensor *noise;  /* what they are mixed with, like x, where it is needed again */
    struct tensor *mask;   /* like x: 1 where is drawn anew, 0 where `clean` is kept */
    struct tensor *beside; /* [count, 1, h, w, …] channels beside the latent */
    struct tensor *references[PASS_REFERENCES]; /* [count, 1, h, w, channels] */
    int reference_count;

    struct pass passes[RUN_MAX_PREDICTIONS];
    int pass_count;

    struct omni_result *results;
    struct omni_timings timings;
};

bool run_failed(const struct run *r);
/* Tells the caller's callback; plans are silent. */
void run_report(const struct run *r, enum omni_stage stage, int done, int total);
/* [n, …] with the shape of one latent behind. */
struct tensor *run_latents(struct run *r, int n);
/* Request i's next noise, as torch draws it, in the order of latents [1, frames, h, w, channels].
 */
struct tensor *run_noise(struct run *r, int i);

/* Fills r->x, and what the pictures become; start.c. */
void run_start(struct run *r);
/* After step `step`: what the mask keeps becomes the picture again, as noisy as it is there. */
void run_blend(struct run *r, int step);

/* ---- pictures.c: pixels [1, H, W, 3] in -1 … 1 ---- */

/* Request i's first picture at the drawing's size; `masked`: 0 (gray) where the mask is white. */
struct tensor *run_source(struct run *r, int i, bool masked);
/* Its picture k to be read beside the drawing, at picture_reference_size(). */
struct tensor *run_reference(struct run *r, int i, int k);
/* Its mask on the latent [1, frames, h, w, channels]: 1 where is drawn anew. A clip that starts
 * from a picture keeps its first frame. */
struct tensor *run_mask(struct run *r, int i, int channels);

/* r->x from noise to picture; denoise.c. */
void run_denoise(struct run *r);

#endif
