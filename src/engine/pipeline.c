/* The way of a request through the engine: encode its prompts, denoise, decode. No family's name
 * stands here; what differs between families is behind struct family.
 *
 * A plan is the same run in planning mode, so what it predicts is what a run uses. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "engine/model.h"
#include "engine/random.h"
#include "engine/request.h"

#define MAX_PREDICTIONS (2 * REQUEST_MAX_BATCH)

/* Tokens that share one forward pass: enough rows to keep a processor busy; more would only cost
 * memory. How predictions fall into passes never changes their bits. */
#define PASS_TOKENS 4096

/* One evaluation of the model a step: request × positive or negative prompt. */
struct prediction {
    int request;
    struct condition *condition;
};

struct run {
    struct omni_model *m;
    struct ops *o;
    bool planning, previews;
    const struct omni_callbacks *cb; /* not NULL */
    struct resolved_request requests[REQUEST_MAX_BATCH];
    int count;
    struct schedule schedule;

    /* All positive predictions in order of requests, then the negative ones of guided requests. */
    struct prediction predictions[MAX_PREDICTIONS];
    int prediction_count;
    int negative[REQUEST_MAX_BATCH]; /* index of a request's negative prediction, -1 for none */
    struct pass passes[MAX_PREDICTIONS];
    int pass_count;
    const struct omni_request *asked[MAX_PREDICTIONS]; /* by prediction */

    struct tensor *x;         /* [count, frames, h, w, channels] */
    struct tensor *predicted; /* [prediction_count, frames, h, w, channels] */
    struct omni_result *results;
    struct omni_timings timings;
};

static void report(const struct run *r, enum omni_stage stage, int done, int total)
{
    if (!r->planning && r->cb->progress)
        r->cb->progress(r->cb->ctx, stage, done, total);
}

static bool failed(const struct run *r)
{
    return ops_error(r->o, NULL) != 0;
}

/* ---- encode ---- */

/* Copies the encoder's results to the host. */
static void condition_fill(struct run *r, struct condition *x, struct tensor *const *arrays,
                           int count)
{
    x->count = count;
    for (int i = 0; i < count && !failed(r); i++) {
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
    ops_mark mark = ops_push(r->o);
    struct tensor *arrays[CONDITION_ARRAYS] = {0};
    int count = m->family->encode(m->state, r->o, prompt, arrays, &x->truncated);
    condition_fill(r, x, arrays, count);
    ops_pop(r->o, mark);
    if (!r->planning && !failed(r))
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
    for (int i = 0; i < r->count && !failed(r); i++) {
        predict_prompt(r, i, r->requests[i].ask->prompt);
        report(r, OMNI_ENCODE, ++done, total);
    }
    for (int i = 0; i < r->count && !failed(r); i++) {
        r->negative[i] = -1;
        if (!r->requests[i].guided)
            continue;
        r->negative[i] = r->prediction_count;
        predict_prompt(r, i, r->requests[i].ask->negative_prompt);
        report(r, OMNI_ENCODE, ++done, total);
    }
}

/* ---- noise ---- */

/* One request's noise as torch draws it, brought into the order of latents. */
static struct tensor *noise(struct run *r, const struct resolved_request *q)
{
    const struct latent_shape *l = &q->latent;
    static const int frame_major[5] = {0, 1, 3, 4, 2}, channel_major[5] = {0, 2, 3, 4, 1};
    size_t n = (size_t)l->frames * (size_t)l->channels * (size_t)l->height * (size_t)l->width;
    AUTO_FREE float *values = NULL;
    if (!r->planning) {
        struct random random;
        values = malloc(n * sizeof(*values));
        if (!values) {
            ops_fail(r->o, -ENOMEM, "not enough memory for %zu numbers of noise", n);
            return NULL;
        }
        random_seed(&random, q->ask->seed);
        random_normal(&random, values, n);
    }
    if (l->frame_major)
        return op_permute(r->o,
                          op_from_host(r->o, DTYPE_F32,
                                       SHAPE(1, l->frames, l->channels, l->height, l->width),
                                       values),
                          frame_major);
    return op_permute(r->o,
                      op_from_host(r->o, DTYPE_F32,
                                   SHAPE(1, l->channels, l->frames, l->height, l->width), values),
                      channel_major);
}

/* [n, …] with the shape of one latent behind. */
static struct tensor *latents(struct run *r, int n)
{
    const struct latent_shape *l = &r->requests[0].latent;
    return op_empty(r->o, DTYPE_F32, SHAPE(n, l->frames, l->height, l->width, l->channels));
}

static void start(struct run *r)
{
    r->x = latents(r, r->count);
    for (int i = 0; i < r->count && !failed(r); i++) {
        ops_mark mark = ops_push(r->o);
        op_copy(r->o, op_slice(r->o, r->x, 0, i, 1), noise(r, &r->requests[i]));
        ops_pop(r->o, mark);
    }
}

/* ---- passes ---- */

/* Array `which` of the pass's conditions, stacked and sent to the device. */
static struct tensor *stack_conditions(struct run *r, const struct pass *p, int which)
{
    const struct condition_array *a = &r->predictions[p->first].condition->arrays[which];
    int64_t dims[3] = {a->dims[0] * p->batch, a->dims[1], a->dims[2]};
    AUTO_FREE char *host = NULL;
    if (!r->planning) {
        host = malloc(a->bytes * (size_t)p->batch);
        if (!host) {
            ops_fail(r->o, -ENOMEM, "not enough memory for the conditions of %d predictions",
                     p->batch);
            return NULL;
        }
        for (int i = 0; i < p->batch; i++)
            memcpy(host + a->bytes * (size_t)i,
                   r->predictions[p->first + i].condition->arrays[which].data, a->bytes);
    }
    return op_from_host(r->o, DTYPE_F32, a->rank, dims, host);
}

static void open_pass(struct run *r, int first, int batch)
{
    struct pass *p = &r->passes[r->pass_count++];
    *p = (struct pass){.first = first,
                       .batch = batch,
                       .latent = &r->requests[0].latent,
                       .requests = &r->asked[first]};
    for (int i = 0; i < r->predictions[first].condition->count; i++)
        p->conditions[i] = stack_conditions(r, p, i);
    if (r->m->family->prepare)
        r->m->family->prepare(r->m->state, r->o, p);
}

/* Neighbouring predictions share a pass while their conditions have one shape and tokens fit. */
static void open_passes(struct run *r)
{
    int64_t tokens = r->requests[0].latent.tokens;
    for (int first = 0, batch; first < r->prediction_count && !failed(r); first += batch) {
        batch = 1;
        while (first + batch < r->prediction_count && (batch + 1) * tokens <= PASS_TOKENS &&
               condition_alike(r->predictions[first].condition,
                               r->predictions[first + batch].condition))
            batch++;
        open_pass(r, first, batch);
    }
}

/* The latents of a pass's predictions [batch, …]: a view where they lie in a row. */
static struct tensor *gather(struct run *r, const struct pass *p)
{
    const struct prediction *q = &r->predictions[p->first];
    const struct tensor *parts[MAX_PREDICTIONS];
    bool row = true;
    for (int i = 0; i < p->batch; i++)
        row = row && q[i].request == q[0].request + i;
    if (row)
        return op_slice(r->o, r->x, 0, q[0].request, p->batch);
    for (int i = 0; i < p->batch; i++)
        parts[i] = op_slice(r->o, r->x, 0, q[i].request, 1);
    return op_concat(r->o, parts, p->batch, 0);
}

/* The clip [n, frames, …] turned so that frame `by` comes first. */
static struct tensor *turned(struct ops *o, struct tensor *x, int by)
{
    if (by == 0 || !x)
        return x;
    int64_t frames = tensor_dim(x, 1);
    const struct tensor *parts[2] = {op_slice(o, x, 1, by, frames - by), op_slice(o, x, 1, 0, by)};
    return op_concat(o, parts, 2, 1);
}

/* A clip that loops is turned by another amount at every step, so that the model sees every pair of
 * neighbours, the last and the first too, away from the ends. The golden ratio spreads the turns.
 */
static int turn_at(const struct run *r, int step)
{
    int frames = r->requests[0].latent.frames;
    if (!r->requests[0].ask->loop || frames < 2)
        return 0;
    int stride = (int)(frames * 0.381966) + 1;
    /* A plan takes a step that turns. */
    return (int)((int64_t)(step + r->planning) * stride % frames);
}

static void predict(struct run *r, int step)
{
    struct ops *o = r->o;
    int turn = turn_at(r, step), frames = r->requests[0].latent.frames;
    for (int i = 0; i < r->pass_count && !failed(r); i++) {
        const struct pass *p = &r->passes[i];
        ops_mark mark = ops_push(o);
        struct tensor *x = turned(o, gather(r, p), turn);
        float t = r->planning ? 0 : r->schedule.timesteps[step];
        struct tensor *y = r->m->family->predict(r->m->state, o, p, x, t);
        y = turned(o, y, turn ? frames - turn : 0);
        op_copy(o, op_slice(o, r->predicted, 0, p->first, p->batch), y);
        ops_pop(o, mark);
    }
}

/* ---- steps ---- */

/* to = x_i + amount · (guided prediction of request i), for frames `first` … of all tensors. */
static void advance(struct run *r, struct tensor *to, int i, int frames, double amount)
{
    struct ops *o = r->o;
    const struct resolved_request *q = &r->requests[i];
    int from[3] = {i, i, r->negative[i]};
    struct tensor *const sources[3] = {r->x, r->predicted, r->predicted};
    const struct tensor *terms[3];
    double factor = q->guided ? q->factor : 1;
    float coefficients[3] = {1, (float)(amount * factor), (float)(amount * (1 - factor))};
    int count = q->guided ? 3 : 2;
    for (int k = 0; k < count; k++)
        terms[k] = op_slice(o, op_slice(o, sources[k], 0, from[k], 1), 1, 0, frames);
    op_combine_to(o, to, terms, coefficients, count);
}

static void show(struct run *r, int i, int step, const struct tensor *pixels)
{
    struct picture p;
    if (r->planning || failed(r))
        return;
    if (picture_new(&p, (int)tensor_dim(pixels, 2), (int)tensor_dim(pixels, 1), 1) != 0)
        return; /* a preview is not worth a failure */
    if (op_to_host(r->o, pixels, p.rgb, picture_frame_bytes(&p)) == 0)
        r->cb->preview(r->cb->ctx, i, step, &p);
    picture_free(&p);
}

/* The first frame as it would be if the model were right now: x - sigma · prediction. */
static void preview(struct run *r, int step)
{
    struct ops *o = r->o;
    const struct latent_shape *l = &r->requests[0].latent;
    int last = r->planning ? -1 : r->schedule.steps - 1;
    if (!r->previews || step == last || (!r->planning && (step + 1) % r->cb->preview_every != 0))
        return;
    for (int i = 0; i < r->count && !failed(r); i++) {
        ops_mark mark = ops_push(o);
        struct tensor *x = op_empty(o, DTYPE_F32, SHAPE(1, 1, l->height, l->width, l->channels));
        advance(r, x, i, 1, r->planning ? 0 : -(double)r->schedule.sigmas[step]);
        x = r->m->family->preview(r->m->state, o, x);
        show(r, i, step + 1, op_to_u8(o, x, 0.5f, 0.5f));
        ops_pop(o, mark);
    }
}

static void check_finite(struct run *r, int step)
{
    struct ops *o = r->o;
    if (op_all_finite(o, r->x))
        return;
    int bad = 0;
    while (bad < r->count - 1 && op_all_finite(o, op_slice(o, r->x, 0, bad, 1)))
        bad++;
    ops_fail(o, -EDOM,
             "step %d of %d: the latent of request %d holds NaN or infinity; the "
             "checkpoint is damaged or needs precision fp32",
             step + 1, r->schedule.steps, bad);
}

static void take_step(struct run *r, int step)
{
    predict(r, step);
    preview(r, step);
    double amount =
        r->planning ? 0 : (double)r->schedule.sigmas[step + 1] - (double)r->schedule.sigmas[step];
    for (int i = 0; i < r->count && !failed(r); i++) {
        ops_mark mark = ops_push(r->o);
        advance(r, op_slice(r->o, r->x, 0, i, 1), i, r->requests[i].latent.frames, amount);
        ops_pop(r->o, mark);
    }
    check_finite(r, step);
}

/* Every step needs the same memory, so a plan takes one. */
static void denoise(struct run *r)
{
    ops_mark mark = ops_push(r->o);
    r->predicted = latents(r, r->prediction_count);
    open_passes(r);
    int steps = r->planning ? 1 : r->schedule.steps;
    for (int i = 0; i < steps && !failed(r); i++) {
        take_step(r, i);
        if (!failed(r))
            report(r, OMNI_STEPS, i + 1, steps);
    }
    ops_pop(r->o, mark);
}

/* ---- decode ---- */

static void decode_frame(struct run *r, int i, int frame)
{
    struct ops *o = r->o;
    const struct omni_request *q = r->requests[i].ask;
    ops_mark mark = ops_push(o);
    struct tensor *z = op_slice(o, op_slice(o, r->x, 0, i, 1), 1, frame, 1);
    struct tensor *pixels = r->m->family->decode(r->m->state, o, z);
    if (!failed(r) && (tensor_dim(pixels, 1) != q->height || tensor_dim(pixels, 2) != q->width))
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
    for (int i = 0; i < count && !failed(r); i++) {
        const struct omni_request *q = r->requests[i].ask;
        if (!r->planning &&
            picture_new(&r->results[i].picture, q->width, q->height, q->frames) != 0)
            ops_fail(r->o, -ENOMEM, "not enough memory for a picture of %dx%dx%d", q->width,
                     q->height, q->frames);
        for (int f = 0; f < frames && !failed(r); f++) {
            decode_frame(r, i, f);
            report(r, OMNI_DECODE, ++done, frames * count);
        }
    }
}

/* ---- a whole run ---- */

static void count_work(struct run *r)
{
    static const char *const names[OP_KINDS] = {
        [OP_LINEAR] = "linear", [OP_CONV] = "conv",           [OP_ATTENTION] = "attention",
        [OP_NORM] = "norm",     [OP_POINTWISE] = "pointwise", [OP_MOVE] = "move"};
    const struct op_stats *s = ops_stats(r->o);
    for (int i = 0; i < OP_KINDS && i < OMNI_WORK_KINDS; i++)
        r->timings.work[i] =
            (struct omni_work){names[i], s[i].calls, s[i].flops, s[i].bytes, s[i].seconds};
}

static int run_all(struct run *r, struct err *e)
{
    double t0 = clock_seconds();
    encode(r);
    double t1 = clock_seconds();
    start(r);
    denoise(r);
    double t2 = clock_seconds();
    decode(r);
    r->timings.encode = t1 - t0;
    r->timings.steps = t2 - t1;
    r->timings.decode = clock_seconds() - t2;
    r->timings.peak_bytes = ops_peak(r->o);
    count_work(r);
    for (int i = 0; i < r->prediction_count; i++) {
        if (!r->planning && i < r->count && r->predictions[i].condition)
            r->results[i].prompt_truncated = r->predictions[i].condition->truncated;
        condition_drop(r->predictions[i].condition);
    }
    return ops_error(r->o, e);
}

static const struct omni_callbacks no_callbacks;

static int run_new(struct omni_model *m, const struct omni_request *requests, int count,
                   struct run **out, struct err *e)
{
    struct run *r = calloc(1, sizeof(*r));
    if (!r)
        return err_nomem(e);
    *r = (struct run){.m = m, .count = count, .cb = &no_callbacks};
    int rc = requests_resolve(m, requests, count, r->requests, e);
    if (rc != 0)
        free(r);
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

int omni_plan(struct omni_model *m, const struct omni_request *requests, int count, uint64_t *bytes,
              struct err *e)
{
    AUTO_FREE struct run *r = NULL;
    struct err local = {0};
    e = e ? e : &local;
    if (run_new(m, requests, count, &r, e) != 0)
        return e->code;
    r->previews = can_preview(m);
    return run_plan(r, bytes, e);
}

static int run_schedule(struct run *r, struct err *e)
{
    const struct resolved_request *q = &r->requests[0];
    const struct family *f = r->m->family;
    double mu = f->mu ? f->mu(r->m->state, &q->latent, q->steps) : 0;
    return schedule_make(&q->schedule, q->steps, mu, &r->schedule, e);
}

static int run_generate(struct run *r, struct err *e)
{
    uint64_t bytes = 0;
    if (run_plan(r, &bytes, e) != 0 || run_schedule(r, e) != 0)
        return e->code;
    r->o = ops_new(r->m->device.backend, r->m->checkpoint.compute, bytes, e);
    if (!r->o)
        return e->code;
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
    }
}

int omni_generate(struct omni_model *m, const struct omni_request *requests, int count,
                  const struct omni_callbacks *callbacks, struct omni_result *results,
                  struct omni_timings *timings, struct err *e)
{
    AUTO_FREE struct run *r = NULL;
    struct err local = {0};
    e = e ? e : &local;
    for (int i = 0; i < count; i++)
        results[i] = (struct omni_result){0};
    if (run_new(m, requests, count, &r, e) != 0)
        return e->code;
    if (callbacks)
        r->cb = callbacks;
    r->previews = can_preview(m) && r->cb->preview && r->cb->preview_every > 0;
    r->results = results;
    int rc = run_generate(r, e);
    schedule_free(&r->schedule);
    for (int i = 0; i < count && rc != 0; i++)
        picture_free(&results[i].picture);
    if (rc == 0)
        results_fill(r);
    if (timings)
        *timings = r->timings;
    return rc;
}
