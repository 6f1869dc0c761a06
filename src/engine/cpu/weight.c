/* Weights on the CPU: mapped where they can be used as they lie, packed where that is faster.
 *
 * oneDNN reads a packed matrix 5 to 9 % faster from about 100 rows on, and two to three times
 * faster for single rows; so small matrices are packed, and large ones, whose duplicate would cost
 * more than it gains, stay mapped, as do tables and quantized blocks. fp32 products with large
 * half-precision weights, and all products with blocks, expand them a stretch at a time (linear.c).
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "engine/cpu/cpu.h"

#define PACK_MAX  (INT64_C(1) << 22) /* elements */
#define PACK_ROWS 128                /* products that the packed order is chosen for */
#define PACK_SIDE 64

static int take_memory(struct cpu_weight *cw, struct err *e)
{
    cw->data = aligned_alloc(64, (cw->bytes + 63) & ~(size_t)63);
    return cw->data ? 0
                    : err_set(e, -ENOMEM, "not enough memory for %zu bytes of weights", cw->bytes);
}

static int prepare_vector(struct cpu_weight *cw, struct tensor *w, const void *host, struct err *e)
{
    int64_t n = tensor_elements(w);
    cw->form = WEIGHT_VECTOR;
    cw->bytes = (size_t)n * sizeof(float);
    if (host) {
        int rc = take_memory(cw, e);
        if (rc)
            return rc;
        convert_span(cw->data, DTYPE_F32, host, w->dtype, n);
    }
    w->dtype = DTYPE_F32;
    w->data = cw->data;
    return 0;
}

/* A product that tells oneDNN what the weight will be used for. */
static struct dnn_shape typical_product(int threads, const struct tensor *w, enum dtype type)
{
    struct dnn_shape s = {.type = type, .threads = threads};
    if (weight_is_matrix(w)) {
        s.m = PACK_ROWS;
        s.n = s.ldy = w->dims[0];
        s.k = s.ldx = s.ldw = w->dims[1];
        return s;
    }
    s.conv = s.stride = s.bias = 1;
    s.co = w->dims[0];
    s.ci = w->dims[1];
    s.kh = w->dims[2];
    s.kw = w->dims[3];
    s.h = s.w = PACK_SIDE + s.kh;
    return s;
}

static int prepare_packed(struct cpu *c, struct cpu_weight *cw, const struct tensor *w,
                          const void *host, struct err *e)
{
    struct dnn_shape shape = typical_product(c->threads, w, cw->type);
    struct dnn_layout dense;
    AUTO_FREE void *wide = NULL;
    enum dtype from = w->dtype;
    int rc = dnn_best_layout(&c->dnn, &shape, &cw->layout, e);
    if (rc)
        return rc;
    cw->form = WEIGHT_PACKED;
    cw->bytes = dnn_layout_bytes(&cw->layout);
    if (!host)
        return 0;
    if ((rc = take_memory(cw, e)))
        return rc;
    /* oneDNN does not read f16 on CPUs, and has no fast way from bf16 to f32 without AVX-512. */
    if (from == DTYPE_F16 || (from == DTYPE_BF16 && cw->type == DTYPE_F32)) {
        int64_t n = tensor_elements(w);
        wide = malloc((size_t)n * sizeof(float));
        if (!wide)
            return err_nomem(e);
        convert_span(wide, DTYPE_F32, host, from, n);
        from = DTYPE_F32;
    }
    rc = dnn_dense_layout(&shape, from, &dense, e);
    if (!rc)
        rc = dnn_reorder(&c->dnn, &dense, wide ? wide : host, &cw->layout, cw->data, e);
    return rc;
}

static void prepare_mapped(struct cpu_weight *cw, const struct tensor *w)
{
    cw->form = WEIGHT_MAPPED;
    cw->bytes = w->blocks.kept ? (size_t)w->dims[0] * w->blocks.row_bytes
                               : (size_t)tensor_elements(w) * dtype_size(w->dtype);
}

static bool worth_packing(const struct tensor *w, enum dtype type)
{
    if (w->table || w->blocks.kept)
        return false;
    return !weight_is_matrix(w) || tensor_elements(w) <= PACK_MAX ||
           (type == DTYPE_BF16 && w->dtype != DTYPE_BF16);
}

int cpu_weight_prepare(struct backend *b, struct tensor *w, const void *host, enum dtype compute,
                       struct err *e)
{
    struct cpu *c = cpu_of(b);
    if (w->dtype != DTYPE_F32 && w->dtype != DTYPE_BF16 && w->dtype != DTYPE_F16)
        return err_set(e, -EINVAL, "weights are f32, bf16 or f16, not %s", dtype_name(w->dtype));
    struct cpu_weight *cw = calloc(1, sizeof *cw);
    int rc = 0;
    if (!cw)
        return err_nomem(e);
    cw->type = compute == DTYPE_BF16 && c->has_bf16 ? DTYPE_BF16 : DTYPE_F32;
    w->prepared = cw;
    w->data = (void *)(uintptr_t)host; /* only read */
    if (w->rank != 2 && w->rank != 4)
        rc = prepare_vector(cw, w, host, e);
    else if (worth_packing(w, cw->type))
        rc = prepare_packed(c, cw, w, host, e);
    else
        prepare_mapped(cw, w);
    if (rc)
        cpu_weight_release(b, w);
    return rc;
}

void cpu_weight_release(struct backend *b, struct tensor *w)
{
    struct cpu_weight *cw = w->prepared;
    (void)b;
    if (cw)
        free(cw->data);
    free(cw);
    w->prepared = NULL;
    w->data = NULL;
}

uint64_t cpu_weight_bytes(const struct tensor *w)
{
    const struct cpu_weight *cw = w->prepared;
    return cw ? cw->bytes : 0;
}

bool cpu_weight_mapped(const struct tensor *w)
{
    const struct cpu_weight *cw = w->prepared;
    return cw && cw->form == WEIGHT_MAPPED;
}
