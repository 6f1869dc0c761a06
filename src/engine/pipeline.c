/* The way of a request through the engine: encode its prompts, denoise, decode. What differs
 * between models is behind struct family.
 *
 * A plan is the same run in planning mode, so what it predicts is what a run uses. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "engine/residency.h"
#include "engine/run.h"

void run_report(const struct run *r, enum omni_stage stage, int done, int total)
{
    if (!r->planning && r->cb->progress)
        r->cb->progress(r->cb->ctx, stage, done, total);
}

bool run_failed(const struct run *r)
{
    return ops_error(r->o, NULL) != 0;
}

/* ---- encode ---- */

/* Copies the encoder's results to the host. */
static void condition_fill(struct run *r, struct condition *x, struct tensor *const *arrays,
                           int count)
{
    x->count = count;
    for (int i = 0; i < count && !run_failed(r); i++) {
        struct condition_array *a = &x->arrays[i];
        a->rank = tensor_rank(arrays[i]);
        for (int d = 0; d < a->rank; d++)
            a->dims[d] = tensor_dim(arrays[i], d);
        a->bytes = (size_t)tensor_elements(arrays[i]) * sizeof(float);
        a->data = r->planning ? NULL : malloc(a->bytes);
        if (!r->planning && !a->data)
            ops_fail(r->o, -ENOMEM, "not enough memory to keep an encoded prompt");
        if (!op_all_finite(r->o, arrays[i]))
            ops_fail(r->o, -EDOM, "encode: the text encoder's result %d holds NaN or infinity", i);
        op_to_host(r->o, arrays[i], a->data, a->bytes);
    }
}

/* Has the weights of the stage in memory. */
static void turn(struct run *r, enum residency want)
{
    struct err e = {0};
    if (!r->planning && !run_failed(r) && residency_set(r->m, want, r->by_turns, r->cb, &e) != 0)
        ops_fail(r->o, e.code, "%s", e.text);
}

/* The condition of a prompt, from the cache or the text encoder; plans always count the encoder. */
static struct condition *condition_of(struct run *r, const char *prompt)
{
    struct omni_model *m = r->m;
    struct condition *x = r->planning ? NULL : prompt_cache_get(m->prompts, prompt);
    if (x)
        return x;
    x = condition_new();
    if (!x) {
        ops_fail(r->o, -ENOMEM, "not enough memory to keep an encoded prompt");
        return NULL;
    }
    turn(r, RESIDENT_ENCODER);
    ops_mark mark = ops_push(r->o);
    struct tensor *arrays[CONDITION_ARRAYS] = {0};
    int count = 0;
    if (!run_failed(r))
        count = m->family->encode(m->state, r->o, prompt, arrays, &x->truncated);
    condition_fill(r, x, arrays, count);
    ops_pop(r->o, mark);
    if (!r->planning && !run_failed(r))
        prompt_cache_put(m->prompts, prompt, x);
    return x;
}

static void predict_prompt(struct run *r, int request, const char *prompt)
{
    struct prediction *p = &r->predictions[r->prediction_count];
    r->asked[r->prediction_count++] = r->requests[request].ask;
    p->request = request;
    p->condition = condition_of(r, prompt);
}

static void encode(struct run *r)
{
    int total = r->count, done = 0;
    for (int i = 0; i < r->count; i++)
        total += r->requests[i].guided;
    for (int i = 0; i < r->count && !run_failed(r); i++) {
        predict_prompt(r, i, r->requests[i].ask->prompt);
        run_report(r, OMNI_ENCODE, ++done, total);
    }
    for (int i = 0; i < r->count && !run_failed(r); i++) {
        r->negative[i] = -1;
        if (!r->requests[i].guided)
            continue;
        r->negative[i] = r->prediction_count;
        predict_prompt(r, i, r->requests[i].ask->negative_prompt);
        run_report(r, OMNI_ENCODE, ++done, total);
    }
}

/* ---- noise ---- */

/* The next noise of `l`, in the order of latents. */
static struct tensor *draw_noise(struct run *r, int i, const struct latent_shape *l)
{
    static const int frame_major[5] = {0, 1, 3, 4, 2}, channel_major[5] = {0, 2, 3, 4, 1};
    size_t n = (size_t)l->frames * (size_t)l->channels * (size_t)l->height * (size_t)l->width;
    AUTO_FREE float *values = NULL;
    if (!r->planning) {
        values = malloc(n * sizeof(*values));
        if (!values) {
            ops_fail(r->o, -ENOMEM, "not enough memory for %zu numbers of noise", n);
            return NULL;
        }
        random_normal(&r->random[i], values, n);
    }
    int64_t outer = l->frame_major ? l->frames : l->channels;
    int64_t inner = l->frame_major ? l->channels : l->frames;
    struct tensor *drawn =
        op_from_host(r->o, DTYPE_F32, SHAPE(1, outer, inner, l->height, l->width), values);
    return op_permute(r->o, drawn, l->frame_major ? frame_major : channel_major);
}

struct tensor *run_noise(struct run *r, int i)
{
    const struct latent_shape *l = &r->requests[i].latent;
    if (!r->m->traits.same_noise || l->frames == 1)
        return draw_noise(r, i, l);
    struct latent_shape one = *l;
    one.frames = 1;
    struct tensor *all = run_latents(r, 1);
    ops_mark mark = ops_push(r->o);
    struct tensor *noise = draw_noise(r, i, &one);
    for (int f = 0; f < l->frames; f++)
        op_copy(r->o, op_slice(r->o, all, 1, f, 1), noise);
    ops_pop(r->o, mark);
    return all;
}

struct tensor *run_latents(struct run *r, int n)
{
    const struct latent_shape *l = &r->requests[0].latent;
    return op_empty(r->o, DTYPE_F32, SHAPE(n, l->frames, l->height, l->width, l->channels));
}

/* ---- decode ---- */

static void decode_frame(struct run *r, int i, int frame)
{
    struct ops *o = r->o;
    const struct omni_request *q = r->requests[i].ask;
    ops_mark mark = ops_push(o);
    struct tensor *z = op_slice(o, op_slice(o, r->x, 0, i, 1), 1, frame, 1);
    struct tensor *pixels = r->m->family->decode(r->m->state, o, z);
    if (!run_failed(r) && (tensor_dim(pixels, 1) != q->height || tensor_dim(pixels, 2) != q->width))
        ops_fail(o, -EINVAL, "decode: the autoencoder gave %lldx%lld pixels for %dx%d",
                 (long long)tensor_dim(pixels, 2), (long long)tensor_dim(pixels, 1), q->width,
                 q->height);
    if (!op_all_finite(o, pixels))
        ops_fail(o, -EDOM, "decode: frame %d of request %d holds NaN or infinity", frame, i);
    pixels = op_to_u8(o, pixels, 0.5f, 0.5f);
    if (!r->planning) {
        struct picture *p = &r->results[i].picture;
        op_to_host(o, pixels, picture_frame(p, frame), picture_frame_bytes(p));
    }
    ops_pop(o, mark);
}

/* Frame by frame, so that a long clip needs no more memory than a picture. */
static void decode(struct run *r)
{
    int frames = r->planning ? 1 : r->requests[0].ask->frames, done = 0;
    int count = r->planning ? 1 : r->count;
    for (int i = 0; i < count && !run_failed(r); i++) {
        const struct omni_request *q = r->requests[i].ask;
        if (!r->planning &&
            picture_new(&r->results[i].picture, q->width, q->height, q->frames) != 0)
            ops_fail(r->o, -ENOMEM, "not enough memory for a picture of %dx%dx%d", q->width,
                     q->height, q->frames);
        for (int f = 0; f < frames && !run_failed(r); f++) {
            decode_frame(r, i, f);
            run_report(r, OMNI_DECODE, ++done, frames * count);
        }
    }
}

/* ---- a whole run ---- */

static const char *const kind_names[OP_KINDS] = {
    [OP_LINEAR] = "linear", [OP_CONV] = "conv",           [OP_ATTENTION] = "attention",
    [OP_NORM] = "norm",     [OP_POINTWISE] = "pointwise", [OP_MOVE] = "move"};

static void count_work(struct run *r)
{
    const struct op_stats *s = ops_stats(r->o);
    for (int i = 0; i < OP_KINDS && i < OMNI_WORK_KINDS; i++)
        r->timings.work[i] =
            (struct omni_work){kind_names[i], s[i].calls, s[i].flops, s[i].bytes, s[i].seconds};
}

/* Of a prediction, -1 for none. */
static bool was_truncated(const struct run *r, int prediction)
{
    const struct condition *c = prediction < 0 ? NULL : r->predictions[prediction].condition;
    return c && c->truncated;
}

static int run_all(struct run *r, struct err *e)
{
    double t0 = clock_seconds();
    encode(r);
    turn(r, RESIDENT_REST);
    double t1 = clock_seconds();
    run_start(r);
    run_denoise(r);
    double t2 = clock_seconds();
    decode(r);
    r->timings.encode = t1 - t0;
    r->timings.steps = t2 - t1;
    r->timings.decode = clock_seconds() - t2;
    r->timings.peak_bytes = ops_peak(r->o);
    count_work(r);
    for (int i = 0; i < r->count && !r->planning; i++) {
        r->results[i].prompt_truncated = was_truncated(r, i);
        r->results[i].negative_truncated = was_truncated(r, r->negative[i]);
    }
    for (int i = 0; i < r->prediction_count; i++)
        condition_drop(r->predictions[i].condition);
    return ops_error(r->o, e);
}

static const struct omni_callbacks no_callbacks;

static void run_free(struct run *r)
{
    if (!r)
        return;
    schedule_free(&r->schedule);
    free(r->random);
    free(r);
}

static void cleanup_run(struct run **r)
{
    run_free(*r);
}
#define AUTO_RUN __attribute__((cleanup(cleanup_run)))

static int make_schedule(struct run *r, struct err *e)
{
    const struct resolved_request *q = &r->requests[0];
    const struct family *f = r->m->family;
    double mu = f->mu ? f->mu(r->m->state, &q->schedule, &q->latent, q->steps) : 0;
    return schedule_make_from(&q->schedule, q->steps, q->first, mu, &r->schedule, e);
}

static int run_new(struct omni_model *m, const struct omni_request *requests, int count,
                   struct run **out, struct err *e)
{
    struct run *r = calloc(1, sizeof(*r));
    if (!r)
        return err_nomem(e);
    *r = (struct run){.m = m, .count = count, .cb = &no_callbacks};
    int rc = requests_resolve(m, requests, count, r->requests, e);
    if (rc == 0)
        rc = make_schedule(r, e);
    if (rc != 0)
        run_free(r);
    else
        *out = r;
    return rc;
}

static bool can_preview(const struct omni_model *m)
{
    return m->family->preview && m->family->can_preview(m->state);
}

/* Peak bytes of what `r` is about to do; leaves it as it was. */
static int run_plan(const struct run *r, uint64_t *bytes, struct err *e)
{
    AUTO_FREE struct run *plan = malloc(sizeof(*plan));
    if (!plan)
        return err_nomem(e);
    *plan = *r;
    plan->planning = true;
    plan->o = ops_new_plan(r->m->device.backend, r->m->checkpoint.compute, e);
    if (!plan->o)
        return e->code;
    int rc = run_all(plan, e);
    *bytes = plan->timings.peak_bytes;
    ops_free(plan->o);
    return rc;
}

/* The same, with quantized weights expanded where all weights fit beside the work, else kept in
 * their blocks. */
static int run_plan_within(const struct run *r, uint64_t *bytes, struct err *e)
{
    struct omni_model *m = r->m;
    if (residency_keep_blocks(m, false, e) != 0 || run_plan(r, bytes, e) != 0)
        return e->code;
    if (residency_fits(m, *bytes) || !residency_has_blocks(m))
        return 0;
    return residency_keep_blocks(m, true, e) ? e->code : run_plan(r, bytes, e);
}

/* Opens and puts in force what the requests change about the weights. */
static int adapt(struct omni_model *m, const struct omni_request *first, struct err *e)
{
    if (adapters_want(m->adapters, first->loras, first->lora_count, e) != 0 ||
        adapters_apply(m->adapters, e) != 0)
        return e->code;
    residency_count(m);
    return 0;
}

int omni_plan(struct omni_model *m, const struct omni_request *requests, int count, uint64_t *bytes,
              struct err *e)
{
    AUTO_RUN struct run *r = NULL;
    struct err local = {0};
    e = e ? e : &local;
    *e = local; /* what an earlier call left there is not ours */
    if (run_new(m, requests, count, &r, e) != 0)
        return e->code;
    r->previews = can_preview(m);
    return adapt(m, requests, e) ? e->code : run_plan_within(r, bytes, e);
}

static int seed_all(struct run *r, struct err *e)
{
    r->random = calloc((size_t)r->count, sizeof(*r->random));
    if (!r->random)
        return err_nomem(e);
    for (int i = 0; i < r->count; i++)
        random_seed(&r->random[i], r->requests[i].ask->seed);
    return 0;
}

static void trace(void *ctx, enum op_kind kind, const char *shape, uint64_t flops, double seconds)
{
    const struct omni_callbacks *cb = ctx;
    cb->operation(cb->ctx, kind_names[kind], shape, flops, seconds);
}

static int check_room(const struct omni_model *m, uint64_t planned, struct err *e)
{
    char need[24], weights[24], have[24];
    uint64_t least = m->info.least_weight_bytes;
    if (residency_fits_by_turns(m, planned))
        return 0;
    return err_set(e, -ENOMEM,
                   "this request needs %s of memory, %s of them for weights, and %s may be used",
                   format_bytes(least + planned, need), format_bytes(least, weights),
                   format_bytes(m->memory, have));
}

static int run_generate(struct run *r, struct err *e)
{
    uint64_t bytes = 0;
    if (run_plan_within(r, &bytes, e) != 0 || check_room(r->m, bytes, e) != 0 ||
        seed_all(r, e) != 0)
        return e->code;
    r->o = ops_new(r->m->device.backend, r->m->checkpoint.compute, bytes, e);
    if (!r->o)
        return e->code;
    if (r->cb->operation)
        ops_set_trace(r->o, trace, (void *)(uintptr_t)r->cb); /* only read */
    r->by_turns = !residency_fits(r->m, bytes);
    ops_set_cancel(r->o, r->cb->cancelled, r->cb->ctx);
    int rc = run_all(r, e);
    r->timings.planned_bytes = bytes;
    ops_free(r->o);
    return rc;
}

static void results_fill(struct run *r)
{
    for (int i = 0; i < r->count; i++) {
        struct omni_result *y = &r->results[i];
        y->steps = r->requests[i].steps;
        y->guidance = r->requests[i].guidance;
        memcpy(y->scheduler, r->requests[i].schedule.kind, sizeof(y->scheduler));
        y->lora_count = adapters_report(r->m->adapters, y->loras);
    }
}

int omni_generate(struct omni_model *m, const struct omni_request *requests, int count,
                  const struct omni_callbacks *callbacks, struct omni_result *results,
                  struct omni_timings *timings, struct err *e)
{
    AUTO_RUN struct run *r = NULL;
    struct err local = {0};
    e = e ? e : &local;
    *e = local; /* what an earlier call left there is not ours */
    for (int i = 0; i < count; i++)
        results[i] = (struct omni_result){0};
    if (run_new(m, requests, count, &r, e) != 0)
        return e->code;
    if (callbacks)
        r->cb = callbacks;
    if (adapt(m, requests, e) != 0)
        return model_error(m, e);
    r->previews = can_preview(m) && r->cb->preview && r->cb->preview_every > 0;
    r->results = results;
    int rc = run_generate(r, e);
    for (int i = 0; i < count && rc != 0; i++)
        picture_free(&results[i].picture);
    if (rc == 0)
        results_fill(r);
    if (timings)
        *timings = r->timings;
    return rc ? model_error(m, e) : 0;
}
