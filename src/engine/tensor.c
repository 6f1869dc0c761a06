/* Tensors as values: dtypes, shapes, and weights, which live outside every arena. */
#include "engine/ops_internal.h"

#include <errno.h>
#include <stdlib.h>

static const struct {
    const char *name;
    size_t size;
} dtypes[DTYPE_COUNT] = {
    [DTYPE_F32] = {"f32", 4}, [DTYPE_BF16] = {"bf16", 2}, [DTYPE_F16] = {"f16", 2},
    [DTYPE_I32] = {"i32", 4}, [DTYPE_U8] = {"u8", 1},     [DTYPE_E4M3] = {"e4m3", 1},
};

size_t dtype_size(enum dtype d)
{
    return (unsigned)d < DTYPE_COUNT ? dtypes[d].size : 0;
}

const char *dtype_name(enum dtype d)
{
    return (unsigned)d < DTYPE_COUNT ? dtypes[d].name : "unknown dtype";
}

enum dtype tensor_dtype(const struct tensor *t)
{
    return t ? t->dtype : DTYPE_COUNT;
}

int tensor_rank(const struct tensor *t)
{
    return t ? t->rank : 0;
}

int64_t tensor_dim(const struct tensor *t, int axis)
{
    if (t && axis < 0)
        axis += t->rank;
    return t && axis >= 0 && axis < t->rank ? t->dims[axis] : 0;
}

int64_t tensor_elements(const struct tensor *t)
{
    int64_t n = t ? 1 : 0;
    for (int i = 0; t && i < t->rank; i++)
        n *= t->dims[i];
    return n;
}

int tensor_weight_shape(struct backend *b, enum dtype d, int rank, const int64_t *dims,
                        struct tensor **out, struct err *e)
{
    size_t bytes;
    *out = NULL;
    if (shape_bytes(d, rank, dims, &bytes))
        return err_set(e, -EINVAL, "a weight of rank %d has a size that is zero or too large",
                       rank);
    struct tensor *w = calloc(1, sizeof *w);
    if (!w)
        return err_nomem(e);
    *w = (struct tensor){.dtype = d, .rank = rank, .offset = TENSOR_OUTSIDE, .backend = b};
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; i--) {
        w->dims[i] = dims[i];
        w->strides[i] = stride;
        stride *= dims[i];
    }
    *out = w;
    return 0;
}

int tensor_weight_new(struct backend *b, enum dtype d, int rank, const int64_t *dims,
                      const void *host, enum dtype compute, struct tensor **out, struct err *e)
{
    int rc = tensor_weight_shape(b, d, rank, dims, out, e);
    if (!rc)
        rc = b->ops->weight_prepare(b, *out, host, compute, e);
    if (rc) {
        free(*out);
        *out = NULL;
    }
    return rc;
}

void tensor_weight_free(struct tensor *w)
{
    if (!w)
        return;
    w->backend->ops->weight_release(w->backend, w);
    free(w);
}

void backend_free(struct backend *b)
{
    if (b)
        b->ops->destroy(b);
}
