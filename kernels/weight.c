/* Weights on the device: copied from host memory through pinned slots, or made by their formula,
 * and converted over there. */
#include <errno.h>
#include <stdlib.h>

#include "kernels/cuda.h"

static enum dtype kept_type(const struct tensor *w, enum dtype compute)
{
    switch (w->rank) {
    case 2:
        return w->fp8 ? DTYPE_E4M3 : compute == DTYPE_BF16 && !w->table ? DTYPE_BF16 : w->dtype;
    case 4:
        return compute;
    default:
        return DTYPE_F32;
    }
}

/* Where the scale is: behind the values. */
static size_t scale_offset(const struct tensor *w)
{
    return ((size_t)tensor_elements(w) + 63) & ~(size_t)63;
}

static size_t kept_bytes(const struct tensor *w, enum dtype type)
{
    return type == DTYPE_E4M3 ? scale_offset(w) + sizeof(float)
                              : (size_t)tensor_elements(w) * dtype_size(type);
}

/* e4m3 from another type; the work is free again right after. */
static int round_to_fp8(struct cuda *c, const struct cuda_weight *cw, const struct tensor *w,
                        void *from)
{
    void *peaks = NULL;
    struct tensor x = *w;
    int code = driver_alloc(c->stream, FP8_PEAKS * sizeof(float), &peaks);
    x.data = from;
    if (!code)
        cuda_to_fp8(c, cw->data, cw->scale, peaks, &x, 1);
    (void)driver_free(c->stream, peaks);
    return code;
}

static int convert(struct cuda *c, const struct cuda_weight *cw, const struct tensor *w, void *from)
{
    int code = 0;
    if (w->rank == 4)
        cuda_convert_filter(c, cw->data, cw->type, from, w->dtype, w->dims[0], w->dims[1],
                            w->dims[2] * w->dims[3]);
    else if (cw->type == DTYPE_E4M3)
        code = round_to_fp8(c, cw, w, from);
    else
        cuda_convert(c, cw->data, cw->type, from, w->dtype, tensor_elements(w));
    return code ? code : driver_launched();
}

/* The values as they come, from the host or by their formula. */
static int values(struct cuda *c, void *to, const struct tensor *w, const void *host)
{
    if (!w->formula.period || w->dtype != DTYPE_BF16)
        return cuda_put(c, to, host, (size_t)tensor_elements(w) * dtype_size(w->dtype));
    cuda_by_formula(c, to, &w->formula, tensor_elements(w));
    return driver_launched();
}

static int keep_as_it_comes(struct cuda *c, const struct cuda_weight *cw, const struct tensor *w,
                            const void *host)
{
    float scale = w->blocks.scale != 0 ? w->blocks.scale : 1;
    int code = values(c, cw->data, w, host);
    return code || !cw->scale ? code : cuda_put(c, cw->scale, &scale, sizeof scale);
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
    if (cw->type == DTYPE_E4M3)
        cw->scale = (float *)(void *)((char *)cw->data + scale_offset(w));
    if (w->rank != 4 && cw->type == w->dtype)
        return keep_as_it_comes(c, cw, w, host);
    code = driver_alloc(c->stream, raw, &between);
    if (!code)
        code = values(c, between, w, host);
    if (!code)
        code = convert(c, cw, w, between);
    (void)driver_free(c->stream, between);
    return code;
}

/* Matrices that are to be e4m3 may come so. */
static bool can_take(const struct backend *b, const struct tensor *w)
{
    if (w->fp8 && (!b->fp8 || w->rank != 2 || w->dims[1] % 16 != 0))
        return false;
    return w->dtype == DTYPE_F32 || w->dtype == DTYPE_BF16 || w->dtype == DTYPE_F16 ||
           (w->dtype == DTYPE_E4M3 && w->fp8);
}

int cuda_weight_prepare(struct backend *b, struct tensor *w, const void *host, enum dtype compute,
                        struct err *e)
{
    struct cuda *c = cuda_of(b);
    if (!can_take(b, w))
        return err_set(e, -EINVAL, "%s takes no weights of rank %d that are %s%s", b->name, w->rank,
                       dtype_name(w->dtype), w->fp8 ? ", to be e4m3" : "");
    struct cuda_weight *cw = calloc(1, sizeof *cw);
    if (!cw)
        return err_nomem(e);
    cw->type = kept_type(w, compute);
    cw->bytes = kept_bytes(w, cw->type);
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
    free(cw);
    w->prepared = NULL;
    w->data = NULL;
}

uint64_t cuda_weight_bytes(const struct tensor *w)
{
    const struct cuda_weight *cw = w->prepared;
    return cw ? cw->bytes : 0;
}

bool cuda_weight_mapped(const struct tensor *w)
{
    (void)w;
    return false;
}

const float *cuda_weight_scale(const struct tensor *w)
{
    const struct cuda_weight *cw = w->prepared;
    return cw ? cw->scale : NULL;
}
