/* The denoising loop: forward passes over all predictions, then the scheduler's step. It knows no
 * family and no scheduler by name: families are tables of functions, a scheduler's step is a few
 * linear combinations. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/run.h"

/* Tokens that share one forward pass: enough rows to keep a processor busy; more would only cost
 * memory. How predictions fall into passes never changes their bits. */
#define PASS_TOKENS 4096

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

/* What a tensor [count, …] holds for a pass's predictions [batch, …]: a view where they lie in a
 * row. */
static struct tensor *gather(struct run *r, const struct pass *p, const struct tensor *t)
{
    const struct prediction *q = &r->predictions[p->first];
    const struct tensor *parts[RUN_MAX_PREDICTIONS];
    bool row = true;
    for (int i = 0; i < p->batch; i++)
        row = row && q[i].request == q[0].request + i;
    if (row)
        return op_slice(r->o, t, 0, q[0].request, p->batch);
    for (int i = 0; i < p->batch; i++)
        parts[i] = op_slice(r->o, t, 0, q[i].request, 1);
    return op_concat(r->o, parts, p->batch, 0);
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
    if (r->beside)
        p->beside = gather(r, p, r->beside);
    p->reference_count = r->reference_count;
    for (int i = 0; i < r->reference_count; i++)
        p->references[i] = gather(r, p, r->references[i]);
    if (r->m->family->prepare)
        r->m->family->prepare(r->m->state, r->o, p);
}

static int64_t reference_tokens(const struct run *r)
{
    int64_t n = 0;
    for (int i = 0; i < r->reference_count && !run_failed(r); i++)
        n += tensor_dim(r->references[i], 2) * tensor_dim(r->references[i], 3);
    return n;
}

/* Neighbouring predictions share a pass while their conditions have one shape and tokens fit. */
static void open_passes(struct run *r)
{
    int64_t tokens = r->requests[0].latent.tokens + reference_tokens(r);
    for (int first = 0, batch; first < r->prediction_count && !run_failed(r); first += batch) {
        batch = 1;
        while (first + batch < r->prediction_count && (batch + 1) * tokens <= PASS_TOKENS &&
               condition_alike(r->predictions[first].condition,
                               r->predictions[first + batch].condition))
            batch++;
        open_pass(r, first, batch);
    }
}

/* ---- loops ---- */

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
    if (!r->requests[0].ask->loop || frames < 2 || r->m->traits.own_times)
        return 0;
    int stride = (int)(frames * 0.381966) + 1;
    return (int)((int64_t)step * stride % frames);
}

/* ---- a step ---- */

static void predict(struct run *r, int step, float input_scale)
{
    struct ops *o = r->o;
    int frames = r->requests[0].latent.frames;
    int turn = turn_at(r, r->planning ? 1 : step); /* a plan counts a step that turns */
    for (int i = 0; i < r->pass_count && !run_failed(r); i++) {
        const struct pass *p = &r->passes[i];
        ops_mark mark = ops_push(o);
        struct tensor *x = turned(o, gather(r, p, r->x), turn);
        if (input_scale != 1)
            x = op_affine(o, x, input_scale, 0);
        struct tensor *y = r->m->family->predict(r->m->state, o, p, x, r->schedule.timesteps[step]);
        y = turned(o, y, turn ? frames - turn : 0);
        op_copy(o, op_slice(o, r->predicted, 0, p->first, p->batch), y);
        ops_pop(o, mark);
    }
}

/* Terms of a linear combination for one request: the guided prediction is two of them. */
struct combination {
    const struct tensor *terms[OPS_MAX_TERMS];
    float coefficients[OPS_MAX_TERMS];
    int count;
};

/* The first `frames` frames of entry i of a tensor like r->x. */
static struct tensor *entry(struct run *r, const struct tensor *t, int i, int frames)
{
    return op_slice(r->o, op_slice(r->o, t, 0, i, 1), 1, 0, frames);
}

static void add_term(struct combination *c, const struct tensor *t, float coefficient)
{
    if (c->count < OPS_MAX_TERMS) {
        c->terms[c->count] = t;
        c->coefficients[c->count++] = coefficient;
    }
}

static void add_prediction(struct run *r, struct combination *c, int i, int frames, float amount)
{
    const struct resolved_request *q = &r->requests[i];
    double factor = q->guided ? q->factor : 1;
    add_term(c, entry(r, r->predicted, i, frames), (float)(amount * factor));
    if (q->guided)
        add_term(c, entry(r, r->predicted, r->negative[i], frames), (float)(amount * (1 - factor)));
}

/* What only one step knows, for one request. */
struct passing {
    struct tensor *noise, *cut;
};

/* The tensor of a slot for request i, whole. */
static struct tensor *slot(struct run *r, enum schedule_slot s, int i, const struct passing *now)
{
    if (s == SLOT_NOISE)
        return now->noise;
    if (s == SLOT_CUT)
        return now->cut;
    return entry(r, s == SLOT_X ? r->x : r->history[s - SLOT_0], i, r->requests[i].latent.frames);
}

/* SLOT_CUT of a step. */
static struct tensor *cut_estimate(struct run *r, const struct schedule_step *at, int i)
{
    const struct latent_shape *l = &r->requests[i].latent;
    struct combination c = {0};
    struct tensor *x =
        op_empty(r->o, DTYPE_F32, SHAPE(1, l->frames, l->height, l->width, l->channels));
    add_term(&c, entry(r, r->x, i, l->frames), at->x0_latent);
    add_prediction(r, &c, i, l->frames, at->x0_model);
    op_combine_to(r->o, x, c.terms, c.coefficients, c.count);
    return op_clamp(r->o, x, -at->cut, at->cut);
}

static void update_request(struct run *r, const struct schedule_step *at, int i)
{
    struct ops *o = r->o;
    ops_mark mark = ops_push(o);
    const struct passing now = {.noise = at->draws ? run_noise(r, i) : NULL,
                                .cut = at->cut > 0 ? cut_estimate(r, at, i) : NULL};
    for (int k = 0; k < at->updates; k++) {
        const struct schedule_update *u = &at->update[k];
        struct combination c = {0};
        for (int n = 0; n < u->count; n++)
            if (u->from[n] == SLOT_MODEL)
                add_prediction(r, &c, i, r->requests[i].latent.frames, u->coefficient[n]);
            else
                add_term(&c, slot(r, u->from[n], i, &now), u->coefficient[n]);
        op_combine_to(o, slot(r, u->to, i, &now), c.terms, c.coefficients, c.count);
    }
    ops_pop(o, mark);
}

/* ---- NaN ---- */

#define NO_STEP INT32_MAX

static void fail_step(struct run *r, int step)
{
    struct ops *o = r->o;
    int bad = 0;
    while (bad < r->count - 1 && op_all_finite(o, op_slice(o, r->x, 0, bad, 1)))
        bad++;
    ops_fail(o, -EDOM,
             "step %d of %d: the latent of request %d holds NaN or infinity; the "
             "checkpoint is damaged or needs precision fp32",
             step + 1, r->schedule.steps, bad);
}

/* Asking would make the host wait at every step; a device that it runs ahead of takes notes. */
static void check_step(struct run *r, int step)
{
    if (r->first_bad)
        op_finite_note(r->o, r->first_bad, r->x, step);
    else if (!op_all_finite(r->o, r->x))
        fail_step(r, step);
}

static void open_notes(struct run *r)
{
    static const int32_t none = NO_STEP;
    r->first_bad =
        ops_runs_ahead(r->o) ? op_from_host(r->o, DTYPE_I32, 1, (int64_t[]){1}, &none) : NULL;
}

/* After the last step: what the notes say. */
static void read_notes(struct run *r)
{
    int32_t step = NO_STEP;
    if (r->first_bad && op_to_host(r->o, r->first_bad, &step, sizeof step) == 0 && step != NO_STEP)
        fail_step(r, step);
}

/* ---- previews ---- */

static void show(struct run *r, int i, int step, const struct tensor *pixels)
{
    struct picture p;
    if (r->planning || run_failed(r))
        return;
    if (picture_new(&p, (int)tensor_dim(pixels, 2), (int)tensor_dim(pixels, 1), 1) != 0)
        return; /* a preview is not worth a failure */
    if (op_to_host(r->o, pixels, p.rgb, picture_frame_bytes(&p)) == 0)
        r->cb->preview(r->cb->ctx, i, step, &p);
    picture_free(&p);
}

static bool preview_due(const struct run *r, int step)
{
    if (!r->previews || r->planning)
        return r->previews;
    return step < r->schedule.steps - 1 && (step + 1) % r->cb->preview_every == 0;
}

/* The first frame as it would be if the model were right now. */
static void preview(struct run *r, const struct schedule_step *at, int step)
{
    struct ops *o = r->o;
    const struct latent_shape *l = &r->requests[0].latent;
    for (int i = 0; i < r->count && !run_failed(r); i++) {
        ops_mark mark = ops_push(o);
        struct combination c = {0};
        struct tensor *x = op_empty(o, DTYPE_F32, SHAPE(1, 1, l->height, l->width, l->channels));
        add_term(&c, entry(r, r->x, i, 1), at->x0_latent);
        add_prediction(r, &c, i, 1, at->x0_model);
        op_combine_to(o, x, c.terms, c.coefficients, c.count);
        x = r->m->family->preview(r->m->state, o, x);
        show(r, i, step + 1, op_to_u8(o, x, 0.5f, 0.5f));
        ops_pop(o, mark);
    }
}

/* ---- the loop ---- */

static void take_step(struct run *r, const struct schedule_step *at, int step)
{
    predict(r, step, at->input_scale);
    if (preview_due(r, step))
        preview(r, at, step);
    for (int i = 0; i < r->count && !run_failed(r); i++)
        update_request(r, at, i);
    run_blend(r, step);
    check_step(r, step);
    ops_step_end(r->o);
}

/* A step that needs as much memory as any of the list: a plan takes this one alone. */
static struct schedule_step largest_step(const struct schedule *s)
{
    struct schedule_step y = s->at[0];
    for (int i = 1; i < s->steps; i++) {
        y.draws = y.draws || s->at[i].draws;
        y.cut = fmaxf(y.cut, s->at[i].cut);
        if (s->at[i].input_scale != 1)
            y.input_scale = s->at[i].input_scale;
    }
    return y;
}

void run_denoise(struct run *r)
{
    ops_mark mark = ops_push(r->o);
    r->predicted = run_latents(r, r->prediction_count);
    for (int i = 0; i < r->schedule.slots; i++)
        r->history[i] = run_latents(r, r->count);
    open_notes(r);
    open_passes(r);
    struct schedule_step largest = largest_step(&r->schedule);
    int steps = r->planning ? 1 : r->schedule.steps;
    for (int i = 0; i < steps && !run_failed(r); i++) {
        take_step(r, r->planning ? &largest : &r->schedule.at[i], i);
        if (!run_failed(r))
            run_report(r, OMNI_STEPS, i + 1, steps);
    }
    read_notes(r);
    ops_pop(r->o, mark);
}
