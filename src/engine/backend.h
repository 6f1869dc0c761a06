/* What a backend is: kernels over tensors that ops.c has already checked and allocated.
 *
 * ops.c validates shapes once for all devices, allocates results in the arena and then calls the
 * kernel. A kernel asks for scratch with ops_scratch() and, when ops_planning(), returns before it
 * touches data: this is how a plan counts exactly what a run will use. Models never include this.
 */
#ifndef OMNI_BACKEND_H
#define OMNI_BACKEND_H

#include "engine/ops.h"

struct tensor {
    enum dtype dtype;
    int rank;
    int64_t dims[TENSOR_MAX_RANK];
    int64_t strides[TENSOR_MAX_RANK]; /* elements; the last is 1 */
    void *data;                       /* the backend's address; NULL in plans */
    void *prepared;                   /* weights: the backend's packed form, or NULL */
    size_t offset;                    /* of data in the arena; TENSOR_OUTSIDE for weights */
    struct backend *backend;
};

#define TENSOR_OUTSIDE SIZE_MAX

static inline bool tensor_contiguous(const struct tensor *t)
{
    int64_t n = 1;
    for (int i = t->rank - 1; i >= 0; n *= t->dims[i--])
        if (t->dims[i] != 1 && t->strides[i] != n)
            return false;
    return true;
}

/* Scratch in the arena until the running operation returns; NULL (and sticky -ENOMEM) when it does
 * not fit, NULL without error while planning. 64-byte aligned. */
void *ops_scratch(struct ops *o, size_t bytes);
enum dtype ops_compute(const struct ops *o);
struct backend *ops_backend(const struct ops *o);
/* For long kernels: true when the work should stop (cancelled). */
bool ops_cancelled(struct ops *o);

struct backend {
    const char *name; /* "cpu", "cuda:0" */
    const struct backend_ops *ops;
};

/* One entry a kernel, named and shaped as in ops.h; `y` is the result. */
struct backend_ops {
    void (*destroy)(struct backend *b);
    /* Device memory for an arena of `bytes`; NULL when there is not enough. */
    void *(*alloc)(struct backend *b, size_t bytes);
    void (*release)(struct backend *b, void *p, size_t bytes);
    /* Makes a weight tensor from host memory that stays mapped; may pack it for products of
     * `compute` type. rank 2 and 4 weights are used by linear and conv. */
    int (*weight_prepare)(struct backend *b, struct tensor *w, const void *host, enum dtype compute,
                          struct err *e);
    void (*weight_release)(struct backend *b, struct tensor *w);
    uint64_t (*weight_bytes)(const struct tensor *w); /* resident: packed or mapped */
    /* Do products read the host memory that the weight was made from? (Embedding tables always.) */
    bool (*weight_mapped)(const struct tensor *w);
    /* Frees what weight_prepare copied where the host memory still has it; no product may use the
     * weight until weight_wake made it again (NULL, both: nothing of the kind). */
    void (*weight_sleep)(struct backend *b, struct tensor *w);
    int (*weight_wake)(struct backend *b, struct tensor *w, struct err *e);
    void (*upload)(struct ops *o, struct tensor *y, const void *host, size_t bytes);
    void (*download)(struct ops *o, void *host, const struct tensor *x, size_t bytes);
    void (*fill_zero)(struct ops *o, struct tensor *y);
    void (*copy)(struct ops *o, struct tensor *y,
                 const struct tensor *x); /* any strides, casts dtype */
    void (*move)(struct ops *o, void *to, const void *from, size_t bytes); /* may overlap */
    void (*linear)(struct ops *o, struct tensor *y, const struct tensor *x, const struct tensor *w,
                   const struct tensor *bias, enum activation act);
    void (*conv2d)(struct ops *o, struct tensor *y, const struct tensor *x, const struct tensor *w,
                   const struct tensor *bias, int stride, const int pad[4], enum activation act);
    void (*attention)(struct ops *o, struct tensor *y, const struct tensor *q,
                      const struct tensor *k, const struct tensor *v,
                      const struct attention_args *args);
    void (*rms_norm)(struct ops *o, struct tensor *y, const struct tensor *x,
                     const struct tensor *w, float eps);
    /* w, b: [C] affine; shift, scale: [B|1, C] modulation; any may be NULL. */
    void (*layer_norm)(struct ops *o, struct tensor *y, const struct tensor *x,
                       const struct tensor *w, const struct tensor *b, const struct tensor *shift,
                       const struct tensor *scale, float eps);
    void (*group_sums_add)(struct ops *o, struct tensor *sums, const struct tensor *x);
    void (*group_norm_rows)(struct ops *o, struct tensor *y, const struct tensor *x,
                            const struct tensor *sums, const struct tensor *w,
                            const struct tensor *b, float eps, enum activation act);
    void (*act)(struct ops *o, struct tensor *y, const struct tensor *x, enum activation act);
    /* gate and value are views of one tensor's halves */
    void (*glu)(struct ops *o, struct tensor *y, const struct tensor *gate,
                const struct tensor *value, enum activation act);
    void (*add)(struct ops *o, struct tensor *y, const struct tensor *a, const struct tensor *b);
    void (*mul)(struct ops *o, struct tensor *y, const struct tensor *a, const struct tensor *b);
    void (*affine)(struct ops *o, struct tensor *y, const struct tensor *x, float scale,
                   float offset, float low, float high);
    void (*gated_add_to)(struct ops *o, struct tensor *x,
                         const struct tensor *gate, /* NULL: plain add */
                         const struct tensor *y);   /* x's shape; strides may be 0 */
    void (*combine_to)(struct ops *o, struct tensor *x, const struct tensor *const *terms,
                       const float *coefficients, int count);
    void (*rope)(struct ops *o, struct tensor *y, const struct tensor *x, const struct tensor *cos,
                 const struct tensor *sin, bool interleaved);
    void (*embedding)(struct ops *o, struct tensor *y, const struct tensor *table,
                      const struct tensor *ids);
    void (*timestep_embedding)(struct ops *o, struct tensor *y, const struct tensor *t,
                               bool cos_first, float shift);
    void (*upsample_nearest)(struct ops *o, struct tensor *y, const struct tensor *x, int factor);
    bool (*all_finite)(struct ops *o, const struct tensor *x);
    void (*to_u8)(struct ops *o, struct tensor *y, const struct tensor *x, float scale,
                  float offset);
};

/* The CPU backend; threads 0: OMNIFS_THREADS, else the CPUs this process may use. */
int cpu_backend_new(int threads, struct backend **out, struct err *e);
/* DTYPE_BF16 or DTYPE_F32, whichever a short measurement (a few ms, once a backend) finds faster
 * for products on this machine. */
enum dtype cpu_fastest_compute(struct backend *b);
void backend_free(struct backend *b);

/* A weight tensor over mapped host memory (dtype and dims set), prepared for products. Owned by the
 * caller: tensor_weight_free. host NULL makes a shape-only weight for plans. */
int tensor_weight_new(struct backend *b, enum dtype d, int rank, const int64_t *dims,
                      const void *host, enum dtype compute, struct tensor **out, struct err *e);
void tensor_weight_free(struct tensor *w);

#endif
