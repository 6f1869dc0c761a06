/* Pointwise operations and the small ones around a model: rotary tables, embeddings, upsampling. */
#include "engine/ops_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

static uint64_t elements(const struct tensor *t)
{
    return (uint64_t)tensor_elements(t);
}

struct tensor *op_act(struct ops *o, const struct tensor *x, enum activation act)
{
    if (!READY(o, "act", x) || !check_activation(o, "act", "x", x) || !check_act(o, "act", act))
        return NULL;
    struct tensor *y = arena_tensor(o, o->results, x->rank, x->dims);
    if (!y)
        return NULL;
    struct op_run run = op_begin(o);
    if (!o->error.code)
        o->backend->ops->act(o, y, x, act);
    return op_end(o, run, OP_POINTWISE, elements(x), op_bytes(x, y, NULL), y);
}

static struct tensor *glu(struct ops *o, const struct tensor *x, enum activation act, bool behind)
{
    char text[SHAPE_TEXT];
    if (!READY(o, "glu", x) || !check_activation(o, "glu", "x", x) || !check_act(o, "glu", act))
        return NULL;
    struct tensor first = *x;
    int64_t *last = &first.dims[x->rank - 1];
    if (*last % 2 != 0) {
        ops_fail(o, -EINVAL, "glu: the last axis of %s is not even", shape_text(x, text));
        return NULL;
    }
    *last /= 2;
    struct tensor second = first;
    if (x->data)
        second.data = (char *)x->data + (size_t)*last * dtype_size(x->dtype);
    struct tensor *y = arena_tensor(o, o->results, x->rank, first.dims);
    if (!y)
        return NULL;
    struct op_run run = op_begin(o);
    if (!o->error.code)
        o->backend->ops->glu(o, y, behind ? &second : &first, behind ? &first : &second, act);
    return op_end(o, run, OP_POINTWISE, elements(x), op_bytes(x, y, NULL), y);
}

struct tensor *op_glu(struct ops *o, const struct tensor *x, enum activation act)
{
    return glu(o, x, act, false);
}

struct tensor *op_glu_behind(struct ops *o, const struct tensor *x, enum activation act)
{
    return glu(o, x, act, true);
}

/* b may lack leading axes of a, or have 1 there; once an axis agrees, all after it must. */
static bool check_broadcast(struct ops *o, const char *op, const struct tensor *a,
                            const struct tensor *b)
{
    char first[SHAPE_TEXT], second[SHAPE_TEXT];
    bool fits = b->rank <= a->rank, leading = true;
    for (int i = 0; fits && i < b->rank; i++) {
        int64_t want = a->dims[a->rank - b->rank + i];
        leading = leading && b->dims[i] == 1;
        fits = b->dims[i] == want || leading;
    }
    if (!fits)
        ops_fail(o, -EINVAL, "%s: %s does not broadcast over the leading axes of %s", op,
                 shape_text(b, second), shape_text(a, first));
    return !o->error.code;
}

static struct tensor *
binary(struct ops *o, const char *op, const struct tensor *a, const struct tensor *b,
       void (*kernel)(struct ops *, struct tensor *, const struct tensor *, const struct tensor *))
{
    if (!READY(o, op, a, b) || !check_activation(o, op, "a", a) ||
        !check_activation(o, op, "b", b) || !check_broadcast(o, op, a, b))
        return NULL;
    struct tensor *y = arena_tensor(o, o->results, a->rank, a->dims);
    if (!y)
        return NULL;
    struct op_run run = op_begin(o);
    if (!o->error.code)
        kernel(o, y, a, b);
    return op_end(o, run, OP_POINTWISE, elements(y), op_bytes(a, b, y, NULL), y);
}

struct tensor *op_add(struct ops *o, const struct tensor *a, const struct tensor *b)
{
    return binary(o, "add", a, b, o->backend->ops->add);
}

struct tensor *op_mul(struct ops *o, const struct tensor *a, const struct tensor *b)
{
    return binary(o, "mul", a, b, o->backend->ops->mul);
}

static struct tensor *affine(struct ops *o, const char *op, const struct tensor *x, float scale,
                             float offset, float low, float high)
{
    if (!READY(o, op, x) || !check_activation(o, op, "x", x))
        return NULL;
    struct tensor *y = arena_tensor(o, o->results, x->rank, x->dims);
    if (!y)
        return NULL;
    struct op_run run = op_begin(o);
    if (!o->error.code)
        o->backend->ops->affine(o, y, x, scale, offset, low, high);
    return op_end(o, run, OP_POINTWISE, 2 * elements(x), op_bytes(x, y, NULL), y);
}

struct tensor *op_affine(struct ops *o, const struct tensor *x, float scale, float offset)
{
    return affine(o, "affine", x, scale, offset, -INFINITY, INFINITY);
}

struct tensor *op_clamp(struct ops *o, const struct tensor *x, float low, float high)
{
    if (!(low <= high))
        ops_fail(o, -EINVAL, "clamp: %g is not below %g", (double)low, (double)high);
    return affine(o, "clamp", x, 1.0f, 0.0f, low, high);
}

/* y as a view of x's shape where it has 1. The last axis must stay dense: kernels count on it. */
static struct tensor repeated(const struct tensor *y, const struct tensor *x)
{
    struct tensor wide = *y;
    for (int i = 0; y->rank == x->rank && x->dims[x->rank - 1] > 1 && i < x->rank - 1; i++)
        if (y->dims[i] == 1 && x->dims[i] > 1) {
            wide.dims[i] = x->dims[i];
            wide.strides[i] = 0;
        }
    return wide;
}

void op_add_to(struct ops *o, struct tensor *x, const struct tensor *y)
{
    if (!READY(o, "add_to", x, y) || !check_f32(o, "add_to", "x", x) ||
        !check_activation(o, "add_to", "y", y))
        return;
    struct tensor wide = repeated(y, x);
    if (!check_same_shape(o, "add_to", x, &wide))
        return;
    struct op_run run = op_begin(o);
    if (!o->error.code)
        o->backend->ops->gated_add_to(o, x, NULL, &wide);
    op_end(o, run, OP_POINTWISE, elements(x), op_bytes(x, x, y, NULL), x);
}

void op_gated_add_to(struct ops *o, struct tensor *x, const struct tensor *gate,
                     const struct tensor *y)
{
    const char *op = "gated_add_to";
    if (!READY(o, op, x, gate, y) || !check_f32(o, op, "x", x) ||
        !check_activation(o, op, "y", y) || !check_same_shape(o, op, x, y) ||
        !check_rank(o, op, "x", x, 3))
        return;
    int64_t dims[2] = {gate->dims[0] == 1 ? 1 : x->dims[0], x->dims[2]};
    if (!check_shape(o, op, "gate", gate, 2, dims))
        return;
    struct op_run run = op_begin(o);
    if (!o->error.code)
        o->backend->ops->gated_add_to(o, x, gate, y);
    op_end(o, run, OP_POINTWISE, 2 * elements(x), op_bytes(x, x, y, NULL), x);
}

void op_combine_to(struct ops *o, struct tensor *x, const struct tensor *const *terms,
                   const float *coefficients, int count)
{
    if (!READY(o, "combine_to", x) || !check_f32(o, "combine_to", "x", x))
        return;
    if (count < 1 || count > OPS_MAX_TERMS) {
        ops_fail(o, -EINVAL, "combine_to: %d terms, 1 to %d are possible", count, OPS_MAX_TERMS);
        return;
    }
    if (!check_ready(o, "combine_to", count, terms))
        return;
    for (int i = 0; i < count; i++)
        if (!check_same(o, "combine_to", x, terms[i]))
            return;
    struct op_run run = op_begin(o);
    if (!o->error.code)
        o->backend->ops->combine_to(o, x, terms, coefficients, count);
    op_end(o, run, OP_POINTWISE, 2 * (uint64_t)count * elements(x),
           (uint64_t)(count + 1) * op_bytes(x, NULL), x);
}

struct tensor *op_rope(struct ops *o, const struct tensor *x, const struct tensor *cos,
                       const struct tensor *sin, bool interleaved)
{
    char text[SHAPE_TEXT];
    if (!READY(o, "rope", x, cos, sin) || !check_activation(o, "rope", "x", x) ||
        !check_rank(o, "rope", "x", x, 4))
        return NULL;
    if (x->dims[3] % 2 != 0)
        ops_fail(o, -EINVAL, "rope: the heads of %s are not even", shape_text(x, text));
    int64_t dims[2] = {x->dims[1], x->dims[3] / 2};
    if (!check_shape(o, "rope", "cos", cos, 2, dims) ||
        !check_shape(o, "rope", "sin", sin, 2, dims))
        return NULL;
    struct tensor *y = arena_tensor(o, o->results, 4, x->dims);
    if (!y)
        return NULL;
    struct op_run run = op_begin(o);
    if (!o->error.code)
        o->backend->ops->rope(o, y, x, cos, sin, interleaved);
    return op_end(o, run, OP_POINTWISE, 3 * elements(x), op_bytes(x, y, NULL), y);
}

struct tensor *op_embedding(struct ops *o, const struct tensor *table, const struct tensor *ids)
{
    char text[SHAPE_TEXT];
    if (!READY(o, "embedding", table, ids) || !check_float(o, "embedding", "table", table) ||
        !check_rank(o, "embedding", "table", table, 2))
        return NULL;
    if (ids->dtype != DTYPE_I32 || ids->rank != 2) {
        ops_fail(o, -EINVAL, "embedding: ids are %s, expected [B, T] i32", shape_text(ids, text));
        return NULL;
    }
    struct tensor *y =
        arena_tensor(o, DTYPE_F32, SHAPE(ids->dims[0], ids->dims[1], table->dims[1]));
    if (!y)
        return NULL;
    struct op_run run = op_begin(o);
    if (!o->error.code)
        o->backend->ops->embedding(o, y, table, ids);
    return op_end(o, run, OP_MOVE, 0, op_bytes(y, y, NULL), y);
}

struct tensor *op_timestep_embedding(struct ops *o, const struct tensor *t, int dim, bool cos_first,
                                     float shift)
{
    if (!READY(o, "timestep_embedding", t) || !check_f32(o, "timestep_embedding", "t", t) ||
        !check_rank(o, "timestep_embedding", "t", t, 1))
        return NULL;
    if (dim < 2 || dim % 2 != 0 || !(shift < (float)(dim / 2))) {
        ops_fail(o, -EINVAL,
                 "timestep_embedding: dim %d with shift %g; an even dim is needed, and "
                 "a shift below half of it",
                 dim, (double)shift);
        return NULL;
    }
    struct tensor *y = arena_tensor(o, DTYPE_F32, SHAPE(t->dims[0], dim));
    if (!y)
        return NULL;
    struct op_run run = op_begin(o);
    if (!o->error.code)
        o->backend->ops->timestep_embedding(o, y, t, cos_first, shift);
    return op_end(o, run, OP_POINTWISE, elements(y), op_bytes(y, NULL), y);
}

struct tensor *op_upsample_nearest(struct ops *o, const struct tensor *x, int factor)
{
    if (!READY(o, "upsample_nearest", x) || !check_f32(o, "upsample_nearest", "x", x) ||
        !check_rank(o, "upsample_nearest", "x", x, 4))
        return NULL;
    int64_t h, w;
    if (factor < 1 || __builtin_mul_overflow(x->dims[1], factor, &h) ||
        __builtin_mul_overflow(x->dims[2], factor, &w)) {
        ops_fail(o, -EINVAL, "upsample_nearest: factor %d is not possible", factor);
        return NULL;
    }
    struct tensor *y = arena_tensor(o, DTYPE_F32, SHAPE(x->dims[0], h, w, x->dims[3]));
    if (!y)
        return NULL;
    struct op_run run = op_begin(o);
    if (!o->error.code)
        o->backend->ops->upsample_nearest(o, y, x, factor);
    return op_end(o, run, OP_MOVE, 0, op_bytes(x, y, NULL), y);
}

bool op_all_finite(struct ops *o, const struct tensor *x)
{
    if (!READY(o, "all_finite", x) || !check_f32(o, "all_finite", "x", x) || o->planning)
        return true;
    struct op_run run = op_begin(o);
    bool finite = o->error.code || o->backend->ops->all_finite(o, x);
    op_end(o, run, OP_POINTWISE, elements(x), op_bytes(x, NULL), NULL);
    return finite;
}

void op_finite_note(struct ops *o, struct tensor *flag, const struct tensor *x, int32_t note)
{
    char text[SHAPE_TEXT];
    if (!READY(o, "finite_note", flag, x) || !check_f32(o, "finite_note", "x", x))
        return;
    if (flag->dtype != DTYPE_I32 || elements(flag) != 1 || !ops_runs_ahead(o)) {
        ops_fail(o, -EINVAL, "finite_note: %s is no flag of a device that runs behind the host",
                 shape_text(flag, text));
        return;
    }
    struct op_run run = op_begin(o);
    if (!o->error.code && !o->planning)
        o->backend->ops->finite_note(o, flag, x, note);
    op_end(o, run, OP_POINTWISE, elements(x), op_bytes(x, NULL), NULL);
}

struct tensor *op_to_u8(struct ops *o, const struct tensor *x, float scale, float offset)
{
    if (!READY(o, "to_u8", x) || !check_f32(o, "to_u8", "x", x))
        return NULL;
    struct tensor *y = arena_tensor(o, DTYPE_U8, x->rank, x->dims);
    if (!y)
        return NULL;
    struct op_run run = op_begin(o);
    if (!o->error.code)
        o->backend->ops->to_u8(o, y, x, scale, offset);
    return op_end(o, run, OP_POINTWISE, 4 * elements(x), op_bytes(x, y, NULL), y);
}
