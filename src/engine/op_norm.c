/* Normalisations. */
#include "engine/ops_internal.h"

#include <errno.h>
#include <inttypes.h>

/* A multiply-add counts as two; the sums, the root and the affine part come to about this many an
 * element. */
#define NORM_FLOPS 6

static uint64_t norm_flops(const struct tensor *x)
{
    return NORM_FLOPS * (uint64_t)tensor_elements(x);
}

/* x is there and an activation, and every given vector is [C]. */
static bool check_norm(struct ops *o, const char *op, const struct tensor *x,
                       const struct tensor *w, const struct tensor *b)
{
    if (!READY(o, op, x) || !check_activation(o, op, "x", x))
        return false;
    const int64_t *c = &x->dims[x->rank - 1];
    return check_shape(o, op, "w", w, 1, c) && check_shape(o, op, "b", b, 1, c);
}

struct tensor *op_rms_norm(struct ops *o, const struct tensor *x, const struct tensor *w, float eps)
{
    if (!READY(o, "rms_norm", x, w) || !check_norm(o, "rms_norm", x, w, NULL))
        return NULL;
    struct tensor *y = arena_tensor(o, o->results, x->rank, x->dims);
    if (!y)
        return NULL;
    struct op_run run = op_begin(o);
    if (!o->error.code)
        o->backend->ops->rms_norm(o, y, x, w, eps);
    return op_end(o, run, OP_NORM, norm_flops(x), op_bytes(x, y, NULL), y);
}

static struct tensor *layer_norm(struct ops *o, const struct tensor *x, const struct tensor *w,
                                 const struct tensor *b, const struct tensor *shift,
                                 const struct tensor *scale, float eps)
{
    struct tensor *y = arena_tensor(o, o->results, x->rank, x->dims);
    if (!y)
        return NULL;
    struct op_run run = op_begin(o);
    if (!o->error.code)
        o->backend->ops->layer_norm(o, y, x, w, b, shift, scale, eps);
    return op_end(o, run, OP_NORM, norm_flops(x), op_bytes(x, y, NULL), y);
}

struct tensor *op_layer_norm(struct ops *o, const struct tensor *x, const struct tensor *w,
                             const struct tensor *b, float eps)
{
    if (!check_norm(o, "layer_norm", x, w, b))
        return NULL;
    return layer_norm(o, x, w, b, NULL, NULL, eps);
}

struct tensor *op_modulated_norm(struct ops *o, const struct tensor *x, const struct tensor *shift,
                                 const struct tensor *scale, float eps)
{
    const char *op = "modulated_norm";
    if (!READY(o, op, x, shift, scale) || !check_norm(o, op, x, NULL, NULL) ||
        !check_rank(o, op, "x", x, 3))
        return NULL;
    int64_t dims[2] = {shift->dims[0] == 1 ? 1 : x->dims[0], x->dims[2]};
    int64_t scale_dims[2] = {scale->dims[0] == 1 ? 1 : x->dims[0], x->dims[2]};
    if (!check_shape(o, op, "shift", shift, 2, dims) ||
        !check_shape(o, op, "scale", scale, 2, scale_dims))
        return NULL;
    return layer_norm(o, x, NULL, NULL, shift, scale, eps);
}

/* ---- groups ---- */

struct tensor *op_group_sums(struct ops *o, int64_t batch, int groups)
{
    return op_zeros(o, DTYPE_U8, SHAPE(batch, groups, OPS_GROUP_SUM));
}

/* x is a picture, and sums are those of a batch of its size and of groups that divide it. */
static bool check_groups(struct ops *o, const char *op, const struct tensor *x,
                         const struct tensor *sums)
{
    char text[SHAPE_TEXT], other[SHAPE_TEXT];
    if (!READY(o, op, x, sums) || !check_f32(o, op, "x", x) || !check_rank(o, op, "x", x, 4))
        return false;
    if (sums->dtype != DTYPE_U8 || sums->rank != 3 || sums->dims[0] != x->dims[0] ||
        x->dims[3] % sums->dims[1] != 0 || sums->dims[2] != OPS_GROUP_SUM ||
        !tensor_contiguous(sums))
        ops_fail(o, -EINVAL, "%s: %s are no sums of groups of %s", op, shape_text(sums, other),
                 shape_text(x, text));
    return !o->error.code;
}

void op_group_sums_add(struct ops *o, struct tensor *sums, const struct tensor *x)
{
    if (!check_groups(o, "group_sums", x, sums))
        return;
    struct op_run run = op_begin(o);
    if (!o->error.code)
        o->backend->ops->group_sums_add(o, sums, x);
    op_end(o, run, OP_NORM, norm_flops(x) / 2, op_bytes(x, NULL), NULL);
}

static struct tensor *norm_rows(struct ops *o, struct tensor *y, const struct tensor *x,
                                const struct tensor *sums, const struct tensor *w,
                                const struct tensor *b, float eps, enum activation act)
{
    if (!y || !sums)
        return NULL;
    struct op_run run = op_begin(o);
    if (!o->error.code)
        o->backend->ops->group_norm_rows(o, y, x, sums, w, b, eps, act);
    return op_end(o, run, OP_NORM, norm_flops(x) / 2, op_bytes(x, y, NULL), y);
}

struct tensor *op_group_norm_rows(struct ops *o, const struct tensor *x, const struct tensor *sums,
                                  const struct tensor *w, const struct tensor *b, float eps,
                                  enum activation act)
{
    if (!check_norm(o, "group_norm", x, w, b) || !check_groups(o, "group_norm", x, sums) ||
        !check_act(o, "group_norm", act))
        return NULL;
    return norm_rows(o, arena_tensor(o, DTYPE_F32, 4, x->dims), x, sums, w, b, eps, act);
}

struct tensor *op_group_norm(struct ops *o, const struct tensor *x, int groups,
                             const struct tensor *w, const struct tensor *b, float eps,
                             enum activation act)
{
    char text[SHAPE_TEXT];
    if (!check_norm(o, "group_norm", x, w, b) || !check_f32(o, "group_norm", "x", x) ||
        !check_rank(o, "group_norm", "x", x, 4) || !check_act(o, "group_norm", act))
        return NULL;
    if (groups < 1 || x->dims[3] % groups != 0) {
        ops_fail(o, -EINVAL, "group_norm: %s does not divide into %d groups", shape_text(x, text),
                 groups);
        return NULL;
    }
    struct tensor *y = arena_tensor(o, DTYPE_F32, 4, x->dims);
    ops_mark mark = ops_push(o);
    struct tensor *sums = op_group_sums(o, x->dims[0], groups);
    op_group_sums_add(o, sums, x);
    y = norm_rows(o, y, x, sums, w, b, eps, act);
    ops_pop(o, mark);
    return y;
}
