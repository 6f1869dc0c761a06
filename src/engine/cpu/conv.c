/* Convolution: oneDNN, channels last, one picture at a time and large ones in bands of rows,
 * between which cancellation is asked. */
#include <errno.h>

#include "engine/cpu/cpu.h"

#define BAND_FLOPS (INT64_C(1) << 34) /* 0.3 s at 60 GFLOP/s */

struct conv {
    struct ops *o;
    struct cpu *c;
    const struct tensor *x, *w;
    struct tensor *y;
    const struct tensor *bias;
    struct dnn_shape shape; /* of the whole picture */
    int64_t band;           /* rows of y */
    const char *xs;         /* dense pictures in the product's type */
    void *packed;           /* room to reorder w when a band wants another order */
    void *scratch;
};

/* Rows of y first … first + rows - 1 as a convolution of its own: the rows of x that it reads, and
 * the padding that is left at its ends. */
static struct dnn_shape band_shape(const struct conv *v, int64_t first, int64_t rows,
                                   int64_t *x_first)
{
    struct dnn_shape s = v->shape;
    int64_t from = first * s.stride - s.pad[0];
    int64_t to = (first + rows - 1) * s.stride - s.pad[0] + s.kh; /* one past the last */
    s.pad[0] = from < 0 ? -from : 0;
    s.pad[1] = to > s.h ? to - s.h : 0;
    from = from < 0 ? 0 : from;
    s.h = (to > s.h ? s.h : to) - from;
    *x_first = from;
    return s;
}

static struct dnn_product *band_product(const struct conv *v, int64_t first, int64_t rows,
                                        int64_t *x_first)
{
    struct err e = {0};
    struct dnn_shape s = band_shape(v, first, rows, x_first);
    struct dnn_product *p = dnn_get(&v->c->dnn, &s, NULL, &e);
    if (!p)
        ops_fail(v->o, e.code, "conv2d: %s", e.text);
    return p;
}

/* The order in which w lies, and its address. */
static struct dnn_layout weight_layout(const struct conv *v, const void **data)
{
    const struct cpu_weight *cw = v->w->prepared;
    struct dnn_layout layout;
    *data = cw ? cw->data : v->w->data;
    if (cw)
        return cw->layout;
    if (dnn_dense_layout(&v->shape, v->w->dtype, &layout, NULL))
        ops_fail(v->o, -EIO, "conv2d: the weights cannot be described");
    return layout;
}

/* The largest scratchpad and reordered weight of all bands. */
static void take_scratch(struct conv *v)
{
    int64_t ho = v->y->dims[1], x_first;
    size_t scratch = 0, packed = 0;
    const void *data;
    struct dnn_layout held = weight_layout(v, &data);
    for (int64_t first = 0; first < ho; first += v->band) {
        int64_t rows = ho - first < v->band ? ho - first : v->band;
        struct dnn_product *p = band_product(v, first, rows, &x_first);
        if (!p)
            return;
        struct dnn_layout wanted;
        dnn_product_layout(p, &wanted);
        size_t bytes = dnn_layout_equal(&held, &wanted) ? 0 : dnn_layout_bytes(&wanted);
        packed = bytes > packed ? bytes : packed;
        scratch = dnn_scratch(p) > scratch ? dnn_scratch(p) : scratch;
        dnn_put(&v->c->dnn, p);
    }
    v->scratch = ops_scratch(v->o, scratch);
    if (packed)
        v->packed = ops_scratch(v->o, packed);
}

static void run_band(const struct conv *v, int64_t first, int64_t rows)
{
    struct err e = {0};
    int64_t x_first, ho = v->y->dims[1];
    struct dnn_product *p = band_product(v, first, rows, &x_first);
    if (!p)
        return;
    const void *w;
    struct dnn_layout wanted, held = weight_layout(v, &w);
    int rc = 0;
    dnn_product_layout(p, &wanted);
    if (!dnn_layout_equal(&held, &wanted)) {
        rc = dnn_reorder(&v->c->dnn, &held, w, &wanted, v->packed, &e);
        w = v->packed;
    }
    int64_t x_row = v->shape.w * v->shape.ci, y_row = v->y->dims[2] * v->shape.co;
    size_t size = dtype_size((enum dtype)v->shape.type);
    for (int64_t i = 0; !rc && i < v->x->dims[0] && !ops_cancelled(v->o); i++)
        rc = dnn_run(&v->c->dnn, p, v->xs + (size_t)((i * v->shape.h + x_first) * x_row) * size, w,
                     v->bias ? v->bias->data : NULL, (float *)v->y->data + (i * ho + first) * y_row,
                     v->scratch, &e);
    dnn_put(&v->c->dnn, p);
    if (rc)
        ops_fail(v->o, e.code, "conv2d: %s", e.text);
}

/* Filters of one pixel: a linear over the pixels that the stride leaves, of a padded copy where
 * there is padding. oneDNN's convolution would reorder such weights at every call on small maps. */
static void pointwise(struct ops *o, struct tensor *y, const struct tensor *x,
                      const struct tensor *w, const struct tensor *bias, int stride,
                      const int pad[4], enum activation act)
{
    struct tensor view = *x;
    if (pad[0] || pad[1] || pad[2] || pad[3]) {
        int64_t n = 1;
        view.dims[1] += pad[0] + pad[1];
        view.dims[2] += pad[2] + pad[3];
        for (int i = 3; i >= 0; n *= view.dims[i--])
            view.strides[i] = n;
        view.data = ops_scratch(o, (size_t)n * sizeof(float));
        if (view.data) {
            struct tensor inside = view;
            cpu_fill_zero(o, &view);
            inside.data = (float *)view.data + pad[0] * view.strides[1] + pad[2] * view.strides[2];
            inside.dims[1] = x->dims[1];
            inside.dims[2] = x->dims[2];
            cpu_copy(o, &inside, x);
        }
    }
    for (int i = 1; i <= 2; i++) {
        view.dims[i] = y->dims[i];
        view.strides[i] *= stride;
    }
    cpu_linear(o, y, &view, w, bias, act);
}

/* x as dense pictures in the product's type. */
static void take_pictures(struct conv *v, enum dtype type)
{
    v->xs = v->x->data;
    if (type == DTYPE_F32 && tensor_contiguous(v->x))
        return;
    struct tensor dense = {.dtype = type, .rank = 4, .backend = v->x->backend};
    int64_t stride = 1;
    for (int i = 3; i >= 0; stride *= dense.dims[i--]) {
        dense.dims[i] = v->x->dims[i];
        dense.strides[i] = stride;
    }
    dense.data = ops_scratch(v->o, (size_t)stride * dtype_size(type));
    v->xs = dense.data;
    if (dense.data)
        cpu_copy(v->o, &dense, v->x);
}

void cpu_conv2d(struct ops *o, struct tensor *y, const struct tensor *x, const struct tensor *w,
                const struct tensor *bias, int stride, const int pad[4], enum activation act)
{
    const struct cpu_weight *cw = w->prepared;
    struct conv v = {.o = o, .c = cpu_of(y->backend), .x = x, .w = w, .y = y, .bias = bias};
    if (weight_is_matrix(w)) {
        pointwise(o, y, x, w, bias, stride, pad, act);
        return;
    }
    enum dtype type = cw ? cw->type : v.c->has_bf16 ? ops_compute(o) : DTYPE_F32;
    v.shape = (struct dnn_shape){.conv = 1,
                                 .threads = v.c->threads,
                                 .type = type,
                                 .bias = bias != NULL,
                                 .act = act,
                                 .stride = stride,
                                 .h = x->dims[1],
                                 .w = x->dims[2],
                                 .ci = x->dims[3],
                                 .co = w->dims[0],
                                 .kh = w->dims[2],
                                 .kw = w->dims[3]};
    for (int i = 0; i < 4; i++)
        v.shape.pad[i] = pad[i];
    int64_t row_flops = 2 * y->dims[2] * v.shape.co * v.shape.ci * v.shape.kh * v.shape.kw;
    v.band = row_flops > BAND_FLOPS / 8 ? 8 : BAND_FLOPS / row_flops;
    if (v.band > y->dims[1] || pad[0] >= v.shape.kh || pad[1] >= v.shape.kh)
        v.band = y->dims[1]; /* no band may lie in the padding alone */
    take_pictures(&v, type);
    take_scratch(&v);
    if (ops_planning(o))
        return;
    for (int64_t first = 0; first < y->dims[1] && !ops_cancelled(o); first += v.band)
        run_band(&v, first, y->dims[1] - first < v.band ? y->dims[1] - first : v.band);
}
