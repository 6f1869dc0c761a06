#include "kernels/library.h"

#include <stdlib.h>

struct library {
    struct vendor *vendor;
    gpu_event from, to; /* of the clock */
};

static struct vendor *vendor_of(const struct cuda *c)
{
    return ((const struct library *)c->library.state)->vendor;
}

/* ---- operands ---- */

/* An operand as a library takes it: dense, in one type, from scratch where it is not so already. */
struct operand {
    struct tensor dense;
    bool copied;
};

static struct operand operand_of(struct ops *o, const struct tensor *x, enum dtype type)
{
    struct operand p = {.dense = *x, .copied = x->dtype != type || !tensor_contiguous(x)};
    if (!p.copied)
        return p;
    int64_t n = 1;
    p.dense.dtype = type;
    for (int i = x->rank - 1; i >= 0; n *= x->dims[i--])
        p.dense.strides[i] = n;
    p.dense.data = ops_scratch(o, (size_t)n * dtype_size(type));
    return p;
}

/* Fills what was copied; false without memory. */
static bool fetch(struct ops *o, struct operand *p, const struct tensor *x)
{
    if (p->copied && p->dense.data)
        cuda_copy(o, &p->dense, x);
    return p->dense.data != NULL;
}

/* cuBLASLt wants 256-byte alignment, scratch has 64. */
static void *workspace_of(struct ops *o)
{
    char *p = ops_scratch(o, VENDOR_WORKSPACE + 192);
    return p ? p + (-(uintptr_t)p & 255) : NULL;
}

static enum vendor_type type_of(enum dtype d)
{
    return d == DTYPE_BF16 ? VENDOR_BF16 : d == DTYPE_E4M3 ? VENDOR_E4M3 : VENDOR_F32;
}

/* ---- linear ---- */

/* Rows an item, up to which dot products of our own read the matrix once for all items. */
#define FEW_ROWS 8

static struct vendor_linear describe_linear(const struct tensor *y, const struct tensor *x,
                                            const struct tensor *w, bool bias, enum activation act,
                                            enum dtype type)
{
    int64_t n = w->dims[0], k = w->dims[1], rows = tensor_elements(x) / k;
    struct vendor_linear l = {.items = 1, .rows = rows, .n = n, .k = k};
    if (x->rank >= 3 || rows <= 32) {
        l.items = x->dims[0];
        l.rows = rows / l.items;
    }
    l.x_row = k;
    l.x_item = l.rows * k;
    l.w_row = w->strides[0];
    l.y_row = n;
    l.y_item = l.rows * n;
    l.type = type_of(type);
    l.y_type = type_of(y->dtype);
    l.bias_type = VENDOR_F32;
    l.has_bias = bias;
    l.act = act;
    return l;
}

/* w and x are set. */
static bool run_linear(struct cuda *c, struct ops *o, struct vendor_linear *l, struct tensor *y,
                       const struct tensor *bias, void *workspace)
{
    struct vendor_left left;
    l->y = y->data;
    l->bias = bias ? bias->data : NULL;
    if (!workspace || !vendor_linear(vendor_of(c), l, workspace, c->stream, &left))
        return false;
    if (left.bias || left.act)
        cuda_finish(c, y->data, y->dtype, y->data, y->dtype, left.bias ? l->bias : NULL,
                    tensor_elements(y), l->n, left.act ? l->act : ACT_NONE);
    cuda_fail(o, c, driver_launched(), "linear");
    return true;
}

/* e4m3: a scale for the matrix, and one for each item of x. */
static bool fp8_linear(struct cuda *c, struct ops *o, struct tensor *y, const struct tensor *x,
                       const struct tensor *w, const struct tensor *bias, enum activation act)
{
    struct vendor_left left;
    struct vendor_linear l = describe_linear(y, x, w, bias != NULL, act, DTYPE_E4M3);
    if (l.rows <= FEW_ROWS || l.items > FP8_ITEMS ||
        !vendor_linear(vendor_of(c), &l, NULL, NULL, &left))
        return false;
    void *narrow = ops_scratch(o, (size_t)tensor_elements(x));
    float *scales = ops_scratch(o, (size_t)l.items * sizeof *scales);
    float *peaks = ops_scratch(o, (size_t)l.items * FP8_PEAKS * sizeof *peaks);
    void *workspace = workspace_of(o);
    if (ops_planning(o))
        return true;
    cuda_fail(o, c, driver_use(c->index), "the device");
    if (!narrow || !scales || !peaks)
        return false;
    cuda_to_fp8(c, narrow, scales, peaks, x, l.items);
    l.x = narrow;
    l.x_scale = scales;
    l.w = w->data;
    l.w_scale = cuda_weight_scale(w);
    return run_linear(c, o, &l, y, bias, workspace);
}

static bool library_linear(struct cuda *c, struct ops *o, struct tensor *y, const struct tensor *x,
                           const struct tensor *w, const struct tensor *bias, enum activation act)
{
    enum dtype type = ops_compute(o);
    struct vendor_left left;
    if (w->dtype == DTYPE_E4M3)
        return fp8_linear(c, o, y, x, w, bias, act);
    struct vendor_linear l = describe_linear(y, x, w, bias != NULL, act, type);
    if (l.rows <= FEW_ROWS || w->dtype != type ||
        !vendor_linear(vendor_of(c), &l, NULL, NULL, &left))
        return false;
    struct operand p = operand_of(o, x, type);
    void *workspace = workspace_of(o);
    if (ops_planning(o))
        return true;
    cuda_fail(o, c, driver_use(c->index), "the device");
    if (!fetch(o, &p, x))
        return false;
    l.x = p.dense.data;
    l.w = w->data;
    return run_linear(c, o, &l, y, bias, workspace);
}

/* ---- convolution ---- */

static struct vendor_conv describe_conv(const struct tensor *y, const struct tensor *x,
                                        const struct tensor *w, int stride, const int pad[4],
                                        enum dtype type)
{
    return (struct vendor_conv){.items = x->dims[0],
                                .h = x->dims[1],
                                .w = x->dims[2],
                                .ci = x->dims[3],
                                .co = w->dims[0],
                                .kh = w->dims[2],
                                .kw = w->dims[3],
                                .ho = y->dims[1],
                                .wo = y->dims[2],
                                .stride = stride,
                                .pad = {pad[0], pad[1], pad[2], pad[3]},
                                .type = type_of(type),
                                .bias_type = VENDOR_F32};
}

/* fp32 with bias and activation as far as the library has them; bf16 bare, and then both with the
 * way back to fp32. */
static bool library_conv2d(struct cuda *c, struct ops *o, struct tensor *y, const struct tensor *x,
                           const struct tensor *w, const struct tensor *bias, int stride,
                           const int pad[4], enum activation act)
{
    enum dtype type = ops_compute(o);
    struct vendor_left left;
    struct vendor_conv v = describe_conv(y, x, w, stride, pad, type);
    v.has_bias = type == DTYPE_F32 && bias;
    v.act = type == DTYPE_F32 ? act : ACT_NONE;
    if (!w->prepared || w->dtype != type || !vendor_conv(vendor_of(c), &v, NULL, NULL, &left))
        return false;
    struct operand p = operand_of(o, x, type);
    void *workspace = workspace_of(o), *z = NULL;
    if (type == DTYPE_BF16)
        z = ops_scratch(o, (size_t)tensor_elements(y) * dtype_size(type));
    if (ops_planning(o))
        return true;
    cuda_fail(o, c, driver_use(c->index), "the device");
    if (!workspace || (type == DTYPE_BF16 && !z) || !fetch(o, &p, x))
        return false;
    v.x = p.dense.data;
    v.weights = w->data;
    v.bias = v.has_bias ? bias->data : NULL;
    v.y = z ? z : y->data;
    if (!vendor_conv(vendor_of(c), &v, workspace, c->stream, &left))
        return false;
    bool rest_bias = bias && (z || left.bias), rest_act = z || left.act;
    if (z || rest_bias || rest_act)
        cuda_finish(c, y->data, DTYPE_F32, v.y, type, rest_bias ? bias->data : NULL,
                    tensor_elements(y), v.co, rest_act ? act : ACT_NONE);
    cuda_fail(o, c, driver_launched(), "conv2d");
    return true;
}

/* ---- attention ---- */

/* Dense [B, T, H, d]. */
static struct vendor_strides dense_strides(const struct tensor *t)
{
    int64_t position = t->dims[2] * t->dims[3];
    return (struct vendor_strides){t->dims[1] * position, position, t->dims[3]};
}

static bool library_attention(struct cuda *c, struct ops *o, struct tensor *y,
                              const struct tensor *q, const struct tensor *k,
                              const struct tensor *v, const struct attention_args *args)
{
    struct vendor_attention a = {.items = q->dims[0],
                                 .tq = q->dims[1],
                                 .tk = k->dims[1],
                                 .heads = q->dims[2],
                                 .groups = k->dims[2],
                                 .d = q->dims[3],
                                 .qs = dense_strides(q),
                                 .ks = dense_strides(k),
                                 .vs = dense_strides(v),
                                 .ys = dense_strides(q),
                                 .type = VENDOR_BF16,
                                 .scale = args->scale,
                                 .causal = args->causal};
    if (ops_compute(o) != DTYPE_BF16 || args->key_mask ||
        !vendor_attention(vendor_of(c), &a, NULL, NULL))
        return false;
    struct operand qs = operand_of(o, q, DTYPE_BF16), ks = operand_of(o, k, DTYPE_BF16);
    struct operand vs = operand_of(o, v, DTYPE_BF16);
    void *workspace = workspace_of(o), *z = y->data;
    if (y->dtype != DTYPE_BF16)
        z = ops_scratch(o, (size_t)tensor_elements(y) * dtype_size(DTYPE_BF16));
    if (ops_planning(o))
        return true;
    cuda_fail(o, c, driver_use(c->index), "the device");
    if (!workspace || !z || !fetch(o, &qs, q) || !fetch(o, &ks, k) || !fetch(o, &vs, v))
        return false;
    a.q = qs.dense.data;
    a.k = ks.dense.data;
    a.v = vs.dense.data;
    a.y = z;
    if (!vendor_attention(vendor_of(c), &a, workspace, c->stream))
        return false;
    if (y->dtype != DTYPE_BF16)
        cuda_convert(c, y->data, DTYPE_F32, z, DTYPE_BF16, tensor_elements(y));
    cuda_fail(o, c, driver_launched(), "attention");
    return true;
}

/* ---- life ---- */

static bool clock_start(void *ctx, void *stream)
{
    struct library *l = ctx;
    return driver_event_record(l->from, stream) == 0;
}

static double clock_stop(void *ctx, void *stream)
{
    struct library *l = ctx;
    float ms = 0;
    if (driver_event_record(l->to, stream) || driver_event_wait(l->to) ||
        driver_event_between(l->from, l->to, &ms))
        return -1;
    return ms / 1e3;
}

static void library_close(struct cuda *c)
{
    struct library *l = c->library.state;
    vendor_close(l->vendor);
    (void)driver_event_free(l->from);
    (void)driver_event_free(l->to);
    free(l);
    c->library = (struct cuda_products){0};
}

static struct library *library_new(void)
{
    struct library *l = calloc(1, sizeof *l);
    if (l && (driver_event_new(&l->from) || driver_event_new(&l->to))) {
        free(l);
        l = NULL;
    }
    return l;
}

/* Does cuBLASLt multiply e4m3 on this device? */
static bool has_fp8(struct vendor *v)
{
    struct vendor_left left;
    struct vendor_linear l = {.items = 1,
                              .rows = 256,
                              .n = 1024,
                              .k = 1024,
                              .x_item = 256 * 1024,
                              .x_row = 1024,
                              .w_row = 1024,
                              .y_item = 256 * 1024,
                              .y_row = 1024,
                              .type = VENDOR_E4M3,
                              .y_type = VENDOR_F32};
    return vendor_linear(v, &l, NULL, NULL, &left);
}

static void put_behind(struct cuda *c, struct library *l, struct vendor *v)
{
    l->vendor = v;
    c->base.fp8 = has_fp8(v);
    c->library =
        (struct cuda_products){l, library_close, library_linear, library_conv2d, library_attention};
    if (!v)
        library_close(c);
}

void cuda_library_use(struct cuda *c, struct vendor *v)
{
    struct library *l = library_new();
    if (l)
        put_behind(c, l, v);
}

void cuda_library_open(struct cuda *c)
{
    struct library *l = library_new();
    struct vendor_clock clock = {l, clock_start, clock_stop};
    if (l)
        put_behind(c, l, vendor_open(c->device.name, &clock));
}
