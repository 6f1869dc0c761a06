/* oneDNN behind a small door: matrix products and convolutions, made once a shape and kept.
 *
 * Every primitive takes its scratchpad from the caller, so that plans count it. A cache may be used
 * by several threads. */
#ifndef OMNI_CPU_DNN_H
#define OMNI_CPU_DNN_H

#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>

#include "engine/ops.h"

struct dnn_product;

struct dnn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    pthread_mutex_t lock;
    struct dnn_product **entries; /* hash chains */
    struct dnn_product *newest, *oldest;
    size_t count;
};

/* A memory layout as oneDNN describes it. */
struct dnn_layout {
    dnnl_memory_desc_t md;
};

int dnn_open(struct dnn *d, struct err *e);
void dnn_close(struct dnn *d);

/* What identifies a product; unused fields are zero (the struct is compared as bytes). */
struct dnn_shape {
    int32_t conv;            /* 0: y[m, n] = x[m, k] · w[n, k]ᵀ; 1: convolution of one picture */
    int32_t type, bias, act; /* enum dtype of x and w; bias present; enum activation */
    int32_t packed;          /* linear: w in the order of `layout`, else dense checkpoint order */
    int32_t stride;
    int32_t threads;                /* that the product is made for and runs on */
    int64_t m, n, k, ldx, ldw, ldy; /* linear; ld…: elements between rows (ldw: of dense w) */
    int64_t h, w, ci, co, kh, kw, pad[4]; /* convolution, x and y dense */
};

/* The product for `shape`, made or found; NULL with a sentence. `layout` is that of w when
 * shape->packed. Give it back with dnn_put. */
struct dnn_product *dnn_get(struct dnn *d, const struct dnn_shape *shape,
                            const struct dnn_layout *layout, struct err *e);
void dnn_put(struct dnn *d, struct dnn_product *p);
size_t dnn_scratch(const struct dnn_product *p);
/* The order of w that the product reads. Linear: as asked for; convolution: oneDNN's choice. */
void dnn_product_layout(const struct dnn_product *p, struct dnn_layout *out);
/* What oneDNN calls its implementation ("brg:avx512_core"). */
const char *dnn_implementation(const struct dnn_product *p);
/* y = act(x · w + bias); all addresses of the shape's types, bias f32. 0 or a sentence. */
int dnn_run(struct dnn *d, const struct dnn_product *p, const void *x, const void *w,
            const float *bias, float *y, void *scratch, struct err *e);

/* The layout that is best for w[n, k] (conv: w[co, ci, kh, kw]) in products like `shape`. */
int dnn_best_layout(struct dnn *d, const struct dnn_shape *shape, struct dnn_layout *out,
                    struct err *e);
size_t dnn_layout_bytes(const struct dnn_layout *layout);
bool dnn_layout_equal(const struct dnn_layout *a, const struct dnn_layout *b);
/* Dense weights in checkpoint order. */
int dnn_dense_layout(const struct dnn_shape *shape, enum dtype type, struct dnn_layout *out,
                     struct err *e);
/* Copies weights from one order and dtype (f32, bf16) to another. */
int dnn_reorder(struct dnn *d, const struct dnn_layout *from, const void *src,
                const struct dnn_layout *to, void *dst, struct err *e);

#endif
