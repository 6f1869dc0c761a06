/* Products: linear, convolution, attention. */
#include "engine/ops_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TRACE_TEXT 96

struct tensor *op_linear(struct ops *o, const struct tensor *x, const struct tensor *w,
                         const struct tensor *bias, enum activation act)
{
    char a[SHAPE_TEXT], b[SHAPE_TEXT], text[TRACE_TEXT];
    if (!READY(o, "linear", x, w) || !check_activation(o, "linear", "x", x) ||
        (w->dtype != DTYPE_E4M3 && !check_float(o, "linear", "w", w)) ||
        !check_rank(o, "linear", "w", w, 2) || !check_act(o, "linear", act))
        return NULL;
    int64_t n = w->dims[0], k = w->dims[1], m = tensor_elements(x) / x->dims[x->rank - 1];
    if (x->dims[x->rank - 1] != k) {
        ops_fail(o, -EINVAL, "linear: x is %s, but w is %s: the last axes must agree",
                 shape_text(x, a), shape_text(w, b));
        return NULL;
    }
    if (!check_shape(o, "linear", "bias", bias, 1, &n))
        return NULL;
    int64_t dims[TENSOR_MAX_RANK];
    memcpy(dims, x->dims, sizeof dims);
    dims[x->rank - 1] = n;
    struct tensor *y = arena_tensor(o, o->results, x->rank, dims);
    if (!y)
        return NULL;
    struct op_run run = op_begin(o);
    if (!o->error.code)
        o->backend->ops->linear(o, y, x, w, bias, act);
    snprintf(text, sizeof text, "%" PRId64 "x%" PRId64 " · %" PRId64 "x%" PRId64, m, k, k, n);
    return op_end_traced(o, run, OP_LINEAR, 2 * (uint64_t)m * (uint64_t)k * (uint64_t)n,
                         op_bytes(x, w, y, NULL), y, text);
}

/* One side of the result of a convolution, or 0 when the filter does not fit. */
static int64_t conv_side(int64_t in, int64_t before, int64_t after, int64_t kernel, int stride)
{
    int64_t room = in + before + after - kernel;
    return room < 0 ? 0 : room / stride + 1;
}

static bool check_conv(struct ops *o, const struct tensor *x, const struct tensor *w,
                       const struct tensor *bias, int stride, const int pad[4])
{
    char a[SHAPE_TEXT], b[SHAPE_TEXT];
    if (!READY(o, "conv2d", x, w) || !check_f32(o, "conv2d", "x", x) ||
        !check_rank(o, "conv2d", "x", x, 4) || !check_float(o, "conv2d", "w", w) ||
        !check_rank(o, "conv2d", "w", w, 4) || !check_shape(o, "conv2d", "bias", bias, 1, w->dims))
        return false;
    if (x->dims[3] != w->dims[1])
        ops_fail(o, -EINVAL, "conv2d: x is %s, but w is %s: the input channels must agree",
                 shape_text(x, a), shape_text(w, b));
    bool sane = stride >= 1 && x->dims[1] < INT32_MAX / 2 && x->dims[2] < INT32_MAX / 2;
    for (int i = 0; i < 4; i++)
        sane = sane && pad[i] >= 0 && pad[i] < 1 << 16;
    if (!sane)
        ops_fail(o, -EINVAL, "conv2d: stride %d and padding %d %d %d %d do not fit %s", stride,
                 pad[0], pad[1], pad[2], pad[3], shape_text(x, a));
    return !o->error.code;
}

struct tensor *op_conv2d(struct ops *o, const struct tensor *x, const struct tensor *w,
                         const struct tensor *bias, int stride, const int pad[4],
                         enum activation act)
{
    char text[TRACE_TEXT];
    if (!check_conv(o, x, w, bias, stride, pad) || !check_act(o, "conv2d", act))
        return NULL;
    int64_t ho = conv_side(x->dims[1], pad[0], pad[1], w->dims[2], stride);
    int64_t wo = conv_side(x->dims[2], pad[2], pad[3], w->dims[3], stride);
    if (ho < 1 || wo < 1) {
        ops_fail(o, -EINVAL,
                 "conv2d: a %" PRId64 "x%" PRId64 " filter does not fit the padded input",
                 w->dims[2], w->dims[3]);
        return NULL;
    }
    struct tensor *y = arena_tensor(o, DTYPE_F32, SHAPE(x->dims[0], ho, wo, w->dims[0]));
    if (!y)
        return NULL;
    struct op_run run = op_begin(o);
    if (!o->error.code)
        o->backend->ops->conv2d(o, y, x, w, bias, stride, pad, act);
    snprintf(text, sizeof text,
             "%" PRId64 "x%" PRId64 "x%" PRId64 "x%" PRId64 " · %" PRId64 "x%" PRId64 "x%" PRId64
             "x%" PRId64 " → %" PRId64 "x%" PRId64,
             x->dims[0], x->dims[1], x->dims[2], x->dims[3], w->dims[0], w->dims[1], w->dims[2],
             w->dims[3], ho, wo);
    uint64_t filter = (uint64_t)(w->dims[1] * w->dims[2] * w->dims[3]);
    return op_end_traced(o, run, OP_CONV, 2 * (uint64_t)tensor_elements(y) * filter,
                         op_bytes(x, w, y, NULL), y, text);
}

static bool check_same_types(struct ops *o, const struct tensor *q, const struct tensor *k)
{
    if (q->dtype != k->dtype)
        ops_fail(o, -EINVAL, "attention: q is %s, but k is %s", dtype_name(q->dtype),
                 dtype_name(k->dtype));
    return !o->error.code;
}

static bool check_attention(struct ops *o, const struct tensor *q, const struct tensor *k,
                            const struct tensor *v, const struct tensor *mask)
{
    char a[SHAPE_TEXT], b[SHAPE_TEXT];
    if (!READY(o, "attention", q, k, v) || !check_activation(o, "attention", "q", q) ||
        !check_same_types(o, q, k) || !check_rank(o, "attention", "q", q, 4) ||
        !check_rank(o, "attention", "k", k, 4) || !check_same(o, "attention", k, v))
        return false;
    if (q->dims[0] != k->dims[0] || q->dims[3] != k->dims[3] || q->dims[2] % k->dims[2] != 0)
        ops_fail(o, -EINVAL,
                 "attention: q is %s, but k is %s: batch and head size must agree, and heads be a "
                 "multiple",
                 shape_text(q, a), shape_text(k, b));
    if (mask && (mask->dtype != DTYPE_I32 || mask->rank != 2 || mask->dims[0] != k->dims[0] ||
                 mask->dims[1] != k->dims[1]))
        ops_fail(o, -EINVAL, "attention: key_mask is %s, expected [%" PRId64 ", %" PRId64 "] i32",
                 shape_text(mask, a), k->dims[0], k->dims[1]);
    return !o->error.code;
}

struct tensor *op_attention(struct ops *o, const struct tensor *q, const struct tensor *k,
                            const struct tensor *v, const struct attention_args *args)
{
    char text[TRACE_TEXT];
    if (!check_attention(o, q, k, v, args->key_mask))
        return NULL;
    struct tensor *y = arena_tensor(o, o->results, 4, q->dims);
    if (!y)
        return NULL;
    struct op_run run = op_begin(o);
    if (!o->error.code)
        o->backend->ops->attention(o, y, q, k, v, args);
    snprintf(text, sizeof text, "%" PRId64 "x%" PRId64 "x%" PRId64 "x%" PRId64 " · %" PRId64 "%s",
             q->dims[0], q->dims[1], q->dims[2], q->dims[3], k->dims[1],
             args->causal ? " causal" : "");
    uint64_t flops = 4 * (uint64_t)tensor_elements(q) * (uint64_t)k->dims[1];
    return op_end_traced(o, run, OP_ATTENTION, args->causal ? flops / 2 : flops,
                         op_bytes(q, k, v, y, NULL), y, text);
}
