/* Operations that make, read, view and copy tensors. */
#include "engine/ops_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

struct tensor *op_empty(struct ops *o, enum dtype d, int rank, const int64_t *dims)
{
    return arena_tensor(o, d, rank, dims);
}

struct tensor *op_zeros(struct ops *o, enum dtype d, int rank, const int64_t *dims)
{
    struct tensor *y = arena_tensor(o, d, rank, dims);
    if (!y)
        return NULL;
    struct op_run run = op_begin(o);
    o->backend->ops->fill_zero(o, y);
    return op_end(o, run, OP_MOVE, 0, op_bytes(y, NULL), y);
}

struct tensor *op_from_host(struct ops *o, enum dtype d, int rank, const int64_t *dims,
                            const void *data)
{
    if (!data && !o->planning)
        ops_fail(o, -EINVAL, "from_host: no data");
    struct tensor *y = arena_tensor(o, d, rank, dims);
    if (!y)
        return NULL;
    struct op_run run = op_begin(o);
    if (!o->planning)
        o->backend->ops->upload(o, y, data, op_bytes(y, NULL));
    return op_end(o, run, OP_MOVE, 0, op_bytes(y, NULL), y);
}

int op_to_host(struct ops *o, const struct tensor *t, void *dst, size_t bytes)
{
    char text[SHAPE_TEXT];
    if (!READY(o, "to_host", t))
        return o->error.code;
    if (bytes != op_bytes(t, NULL) || (!dst && !o->planning))
        ops_fail(o, -EINVAL, "to_host: %s does not fill %zu bytes", shape_text(t, text), bytes);
    ops_mark mark = ops_push(o);
    const struct tensor *dense = tensor_contiguous(t) ? t : op_contiguous(o, t);
    struct op_run run = op_begin(o);
    if (dense && !o->error.code && !o->planning)
        o->backend->ops->download(o, dst, dense, bytes);
    op_end(o, run, OP_MOVE, 0, bytes, NULL);
    ops_pop(o, mark);
    return o->error.code;
}

static bool is_float(enum dtype d)
{
    return d == DTYPE_F32 || d == DTYPE_BF16 || d == DTYPE_F16;
}

/* y = x, converted; the shapes are equal. */
static struct tensor *copy_into(struct ops *o, struct tensor *y, const struct tensor *x)
{
    if (!y)
        return NULL;
    struct op_run run = op_begin(o);
    if (!o->error.code)
        o->backend->ops->copy(o, y, x);
    return op_end(o, run, OP_MOVE, 0, op_bytes(x, y, NULL), y);
}

struct tensor *op_cast(struct ops *o, const struct tensor *x, enum dtype d)
{
    char text[SHAPE_TEXT];
    if (!READY(o, "cast", x))
        return NULL;
    if (x->dtype != d && (!is_float(x->dtype) || !is_float(d)))
        ops_fail(o, -EINVAL, "cast: %s does not become %s, only float dtypes convert",
                 shape_text(x, text), dtype_name(d));
    return copy_into(o, arena_tensor(o, d, x->rank, x->dims), x);
}

struct tensor *op_contiguous(struct ops *o, const struct tensor *x)
{
    if (!READY(o, "contiguous", x))
        return NULL;
    return copy_into(o, arena_tensor(o, x->dtype, x->rank, x->dims), x);
}

void op_copy(struct ops *o, struct tensor *dst, const struct tensor *src)
{
    if (READY(o, "copy", dst, src) && check_same(o, "copy", dst, src))
        copy_into(o, dst, src);
}

/* Strides with which x's memory reads as `dims`, or false when it does not without a copy. Walks
 * both shapes from the end; every run of new axes must fall into a run of axes that x holds
 * densely. */
static bool view_strides(const struct tensor *x, int rank, const int64_t *dims, int64_t *strides)
{
    int to = rank - 1;
    int64_t dense = 1, span = 1, filled = 1; /* of the run that ends at axis `from` */
    int64_t base = x->strides[x->rank - 1];
    for (int from = x->rank - 1; from >= 0; from--) {
        span *= x->dims[from];
        bool joins = from > 0 && (x->dims[from - 1] == 1 || x->strides[from - 1] == span * base);
        if (joins)
            continue;
        while (to >= 0 && (filled < span || dims[to] == 1)) {
            strides[to] = filled * base;
            filled *= dims[to--];
        }
        if (filled != span)
            return false;
        if (from > 0)
            base = x->strides[from - 1];
        span = filled = dense;
    }
    return to == -1;
}

struct tensor *op_reshape(struct ops *o, const struct tensor *x, int rank, const int64_t *dims)
{
    char text[SHAPE_TEXT];
    size_t bytes;
    if (!READY(o, "reshape", x))
        return NULL;
    if (shape_bytes(x->dtype, rank, dims, &bytes) || bytes != op_bytes(x, NULL)) {
        struct tensor want = {.dtype = x->dtype, .rank = 0};
        char wanted[SHAPE_TEXT];
        for (; want.rank < rank && want.rank < TENSOR_MAX_RANK; want.rank++)
            want.dims[want.rank] = dims[want.rank];
        ops_fail(o, -EINVAL, "reshape: %s does not have the elements of %s", shape_text(x, text),
                 shape_text(&want, wanted));
        return NULL;
    }
    struct tensor view = *x;
    view.rank = rank;
    memcpy(view.dims, dims, (size_t)rank * sizeof *dims);
    if (!view_strides(x, rank, dims, view.strides)) {
        ops_fail(o, -EINVAL,
                 "reshape: the view %s has gaps between the axes to merge; make it "
                 "contiguous first",
                 shape_text(x, text));
        return NULL;
    }
    view.prepared = NULL;
    return arena_view(o, &view);
}

struct tensor *op_slice(struct ops *o, const struct tensor *x, int axis, int64_t start, int64_t len)
{
    char text[SHAPE_TEXT];
    if (!READY(o, "slice", x))
        return NULL;
    int at = axis < 0 ? axis + x->rank : axis;
    if (at < 0 || at >= x->rank || start < 0 || len < 1 || start > x->dims[at] ||
        len > x->dims[at] - start) {
        ops_fail(o, -EINVAL, "slice: %s has no %" PRId64 " entries from %" PRId64 " on axis %d",
                 shape_text(x, text), len, start, axis);
        return NULL;
    }
    struct tensor view = *x;
    size_t skip = (size_t)(start * x->strides[at]) * dtype_size(x->dtype);
    view.dims[at] = len;
    view.prepared = NULL;
    if (view.offset != TENSOR_OUTSIDE)
        view.offset += skip;
    if (view.data)
        view.data = (char *)view.data + skip;
    return arena_view(o, &view);
}

struct tensor *op_permute(struct ops *o, const struct tensor *x, const int *axes)
{
    if (!READY(o, "permute", x))
        return NULL;
    struct tensor view = *x;
    unsigned seen = 0;
    for (int i = 0; i < x->rank; i++) {
        if (axes[i] < 0 || axes[i] >= x->rank || seen >> axes[i] & 1) {
            ops_fail(o, -EINVAL, "permute: axis %d of %d is out of range or named twice", axes[i],
                     x->rank);
            return NULL;
        }
        seen |= 1u << axes[i];
        view.dims[i] = x->dims[axes[i]];
        view.strides[i] = x->strides[axes[i]];
    }
    return copy_into(o, arena_tensor(o, x->dtype, x->rank, view.dims), &view);
}

/* All but `axis` equal to the first; the sum along it, or 0 with the sticky error. */
static int64_t concat_length(struct ops *o, const struct tensor *const *xs, int count, int axis)
{
    int64_t sum = 0;
    for (int i = 0; i < count; i++) {
        struct tensor like = *xs[i];
        if (__builtin_add_overflow(sum, like.dims[axis], &sum)) {
            ops_fail(o, -EINVAL, "concat: the sum along axis %d is too large", axis);
            return 0;
        }
        if (like.rank == xs[0]->rank)
            like.dims[axis] = xs[0]->dims[axis];
        if (!check_same(o, "concat", xs[0], &like))
            return 0;
    }
    return sum;
}

struct tensor *op_concat(struct ops *o, const struct tensor *const *xs, int count, int axis)
{
    if (o->error.code)
        return NULL;
    if (count < 1 || !xs) {
        ops_fail(o, -EINVAL, "concat: nothing to join");
        return NULL;
    }
    if (!check_ready(o, "concat", count, xs))
        return NULL;
    int at = axis < 0 ? axis + xs[0]->rank : axis;
    if (at < 0 || at >= xs[0]->rank) {
        ops_fail(o, -EINVAL, "concat: there is no axis %d of %d", axis, xs[0]->rank);
        return NULL;
    }
    int64_t dims[TENSOR_MAX_RANK];
    memcpy(dims, xs[0]->dims, sizeof dims);
    dims[at] = concat_length(o, xs, count, at);
    if (o->error.code)
        return NULL;
    struct tensor *y = arena_tensor(o, xs[0]->dtype, xs[0]->rank, dims);
    int64_t start = 0;
    for (int i = 0; y && i < count; start += xs[i++]->dims[at])
        if (!copy_into(o, op_slice(o, y, at, start, xs[i]->dims[at]), xs[i]))
            return NULL;
    return y;
}
