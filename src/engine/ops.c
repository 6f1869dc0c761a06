/* The context: life, errors, cancellation, statistics. Memory is arena.c; the operations are
 * op_*.c. */
#include "engine/ops_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"

/* How often the caller's `cancelled` is asked at the most, in seconds. */
#define CANCEL_INTERVAL 0.02

static struct ops *context_new(struct backend *b, enum dtype compute, struct err *e)
{
    if (!b || (compute != DTYPE_F32 && compute != DTYPE_BF16)) {
        err_set(e, -EINVAL, "operations need a backend and compute f32 or bf16, not %s",
                dtype_name(compute));
        return NULL;
    }
    struct ops *o = calloc(1, sizeof *o);
    if (!o) {
        err_nomem(e);
        return NULL;
    }
    o->backend = b;
    o->compute = compute;
    o->results = DTYPE_F32;
    return o;
}

struct ops *ops_new(struct backend *b, enum dtype compute, size_t bytes, struct err *e)
{
    struct ops *o = context_new(b, compute, e);
    if (!o)
        return NULL;
    bytes = bytes ? bytes : OPS_ALIGN;
    o->base = b->ops->alloc(b, bytes);
    if (!o->base) {
        if (b->ops->lost && b->ops->lost(b))
            err_set(e, BACKEND_LOST, "%s does not answer", b->name);
        else
            err_set(e, -ENOMEM, "%s has no %zu bytes for activations; use a smaller size or batch",
                    b->name, bytes);
        free(o);
        return NULL;
    }
    o->capacity = bytes;
    return o;
}

struct ops *ops_new_plan(struct backend *b, enum dtype compute, struct err *e)
{
    struct ops *o = context_new(b, compute, e);
    if (!o)
        return NULL;
    o->planning = true;
    o->capacity = SIZE_MAX / 4;
    return o;
}

void ops_free(struct ops *o)
{
    if (!o)
        return;
    if (o->base)
        o->backend->ops->release(o->backend, o->base, o->capacity);
    arena_free(o);
    free(o);
}

bool ops_planning(const struct ops *o)
{
    return o->planning;
}

enum dtype ops_compute(const struct ops *o)
{
    return o->compute;
}

enum dtype ops_set_results(struct ops *o, enum dtype d)
{
    enum dtype before = o->results;
    bool narrow = d == DTYPE_BF16 && o->compute == DTYPE_BF16 && o->backend->narrow;
    o->results = narrow ? DTYPE_BF16 : DTYPE_F32;
    return before;
}

enum dtype ops_results(const struct ops *o)
{
    return o->results;
}

struct backend *ops_backend(const struct ops *o)
{
    return o->backend;
}

size_t ops_peak(const struct ops *o)
{
    return o->peak;
}

int ops_error(const struct ops *o, struct err *e)
{
    if (o->error.code && e)
        *e = o->error;
    return o->error.code;
}

void ops_fail(struct ops *o, int code, const char *fmt, ...)
{
    if (o->error.code)
        return;
    va_list ap;
    va_start(ap, fmt);
    err_setv(&o->error, code < 0 ? code : -EINVAL, fmt, ap);
    va_end(ap);
}

void ops_set_cancel(struct ops *o, bool (*cancelled)(void *), void *ctx)
{
    o->cancelled = cancelled;
    o->cancel_ctx = ctx;
    o->cancel_asked = 0;
}

static bool cancelled_at(struct ops *o, double now)
{
    if (!o->error.code && !o->planning && o->cancelled &&
        now - o->cancel_asked >= CANCEL_INTERVAL) {
        o->cancel_asked = now;
        if (o->cancelled(o->cancel_ctx))
            ops_fail(o, -ECANCELED, "cancelled");
    }
    return o->error.code != 0;
}

bool ops_cancelled(struct ops *o)
{
    return cancelled_at(o, clock_seconds());
}

bool ops_runs_ahead(const struct ops *o)
{
    return o->backend->ops->step_end && o->backend->ops->finite_note;
}

void ops_step_end(struct ops *o)
{
    if (!o->error.code && !o->planning && ops_runs_ahead(o))
        o->backend->ops->step_end(o);
}

const struct op_stats *ops_stats(const struct ops *o)
{
    return o->stats;
}

void ops_set_trace(struct ops *o,
                   void (*record)(void *ctx, enum op_kind k, const char *shape, uint64_t flops,
                                  double seconds),
                   void *ctx)
{
    o->record = record;
    o->record_ctx = ctx;
}

struct op_run op_begin(struct ops *o)
{
    struct op_run run = {.start = o->planning ? 0 : clock_seconds(), .used = o->used};
    cancelled_at(o, run.start);
    return run;
}

struct tensor *op_end_traced(struct ops *o, struct op_run run, enum op_kind kind, uint64_t flops,
                             uint64_t bytes, struct tensor *y, const char *shape)
{
    double seconds = o->planning ? 0 : clock_seconds() - run.start;
    o->used = run.used;
    if (o->error.code)
        return NULL;
    struct op_stats *s = &o->stats[kind];
    s->calls++;
    s->flops += flops;
    s->bytes += bytes;
    s->seconds += seconds;
    if (shape && o->record)
        o->record(o->record_ctx, kind, shape, flops, seconds);
    return y;
}

struct tensor *op_end(struct ops *o, struct op_run run, enum op_kind kind, uint64_t flops,
                      uint64_t bytes, struct tensor *y)
{
    return op_end_traced(o, run, kind, flops, bytes, y, NULL);
}

uint64_t op_bytes(const struct tensor *first, ...)
{
    uint64_t sum = 0;
    va_list ap;
    va_start(ap, first);
    for (const struct tensor *t = first; t; t = va_arg(ap, const struct tensor *))
        sum += (uint64_t)tensor_elements(t) * dtype_size(t->dtype);
    va_end(ap);
    return sum;
}
