/* Weights on the device: copied from host memory through pinned slots, converted over there. */
#include <errno.h>
#include <stdlib.h>

#include "kernels/cuda.h"

static enum dtype kept_type(const struct tensor *w, enum dtype compute)
{
    switch (w->rank) {
    case 2:
        return w->dtype;
    case 4:
        return compute;
    default:
        return DTYPE_F32;
    }
}

static void convert(struct cuda *c, const struct cuda_weight *cw, const struct tensor *w,
                    const void *from)
{
    if (w->rank == 4)
        cuda_convert_filter(c, cw->data, cw->type, from, w->dtype, w->dims[0], w->dims[1],
                            w->dims[2] * w->dims[3]);
    else
        cuda_convert(c, cw->data, cw->type, from, w->dtype, tensor_elements(w));
}

/* Uploads to where it stays, or, where that differs, to memory that is free again right after. */
static int fill(struct cuda *c, struct cuda_weight *cw, const struct tensor *w, const void *host)
{
    size_t raw = (size_t)tensor_elements(w) * dtype_size(w->dtype);
    void *between = NULL;
    int code = driver_use(c->index);
    if (!code)
        code = driver_alloc(c->stream, cw->bytes, &cw->data);
    if (code)
        return code;
    if (w->rank != 4 && cw->type == w->dtype)
        return cuda_put(c, cw->data, host, raw);
    code = driver_alloc(c->stream, raw, &between);
    if (!code)
        code = cuda_put(c, between, host, raw);
    if (!code) {
        convert(c, cw, w, between);
        code = driver_launched();
    }
    (void)driver_free(c->stream, between);
    return code;
}

int cuda_weight_prepare(struct backend *b, struct tensor *w, const void *host, enum dtype compute,
                        struct err *e)
{
    struct cuda *c = cuda_of(b);
    if (w->dtype != DTYPE_F32 && w->dtype != DTYPE_BF16 && w->dtype != DTYPE_F16)
        return err_set(e, -EINVAL, "weights are f32, bf16 or f16, not %s", dtype_name(w->dtype));
    struct cuda_weight *cw = calloc(1, sizeof *cw);
    if (!cw)
        return err_nomem(e);
    cw->type = kept_type(w, compute);
    cw->bytes = (size_t)tensor_elements(w) * dtype_size(cw->type);
    w->prepared = cw;
    w->data = NULL;
    int code = host ? fill(c, cw, w, host) : 0;
    if (code) {
        cuda_weight_release(b, w);
        return cuda_error(c, code, "a weight", e);
    }
    w->dtype = cw->type;
    w->data = cw->data;
    return 0;
}

void cuda_weight_release(struct backend *b, struct tensor *w)
{
    struct cuda *c = cuda_of(b);
    struct cuda_weight *cw = w->prepared;
    if (!cw)
        return;
    (void)driver_use(c->index);
    (void)driver_free(c->stream, cw->data);
    (void)driver_free(c->stream, cw->narrow);
    free(cw);
    w->prepared = NULL;
    w->data = NULL;
}

uint64_t cuda_weight_bytes(const struct tensor *w)
{
    const struct cuda_weight *cw = w->prepared;
    return cw ? cw->bytes + cw->narrow_bytes : 0;
}

bool cuda_weight_mapped(const struct tensor *w)
{
    (void)w;
    return false;
}

const void *cuda_weight_bf16(struct cuda *c, struct ops *o, const struct tensor *w)
{
    struct cuda_weight *cw = w->prepared;
    if (ops_planning(o))
        return NULL;
    if (w->dtype == DTYPE_BF16 || !cw || w->rank != 2)
        return w->dtype == DTYPE_BF16 ? w->data : NULL;
    pthread_mutex_lock(&c->lock);
    size_t bytes = (size_t)tensor_elements(w) * dtype_size(DTYPE_BF16);
    if (!cw->narrow && driver_alloc(c->stream, bytes, &cw->narrow) == 0) {
        cw->narrow_bytes = bytes;
        cuda_convert(c, cw->narrow, DTYPE_BF16, cw->data, cw->type, tensor_elements(w));
    }
    pthread_mutex_unlock(&c->lock);
    return cw->narrow;
}
