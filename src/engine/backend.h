/* What a backend is: kernels over tensors that ops.c has already checked and allocated.
 *
 * ops.c validates shapes once for all devices, allocates results in the arena and then calls the
 * kernel. A kernel asks for scratch with ops_scratch() and, when ops_planning(), returns before it
 * touches data: this is how a plan counts exactly what a run will use. Models never include this.
 */
#ifndef OMNI_BACKEND_H
#define OMNI_BACKEND_H

#include <errno.h>

#include "engine/formula.h"
#include "engine/ops.h"

/* A device that is gone, or broken so that nothing on it works again in this process (a fault that
 * sticks to its context, say). Opening says so by its result; kernels and weight_prepare fail with
 * this code, or with any other when `lost` says it then. A caller with other devices goes to one of
 * them. */
#define BACKEND_LOST (-ENODEV)
/* Rows in the blocks of a quantized file: what a weight is made from, or once was. */
struct tensor_blocks {
    /* Writes whole blocks as fp32; NULL: the weight comes from no blocks. */
    void (*expand)(const void *blocks, int64_t values, float *out);
    float scale; /* what the values are multiplied with; 0: nothing */
    size_t row_bytes;
    bool kept; /* the host memory holds the blocks, to be expanded to `dtype` in each product */
};

struct tensor {
    enum dtype dtype;
    int rank;
    int64_t dims[TENSOR_MAX_RANK];
    int64_t strides[TENSOR_MAX_RANK]; /* elements; the last is 1 */
    void *data;                       /* the backend's address; NULL in plans */
    void *prepared;                   /* weights: the backend's packed form, or NULL */
    bool table;                       /* weights: rows are looked up, no product reads it */
    bool fp8;                         /* weights: e4m3 with one scale (backend.fp8) */
    struct tensor_blocks blocks;      /* weights */
    struct formula formula;           /* weights: what the host memory holds, as bf16 */
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
    bool blocks; /* takes weights whose blocks are kept */
    bool narrow; /* has results in bf16 (ops_set_results) */
    /* Takes matrices that say so (tensor.fp8; K a multiple of 16) in e4m3, with one scale for each,
     * and rounds what they are multiplied with to e4m3, with one scale an item. Such a weight may
     * be made from E4M3 values, times blocks.scale. */
    bool fp8;
};

/* One entry a kernel, named and shaped as in ops.h; `y` is the result. */
struct backend_ops {
    void (*destroy)(struct backend *b);
    /* Device memory for an arena of `bytes`; NULL when there is not enough. */
    void *(*alloc)(struct backend *b, size_t bytes);
    void (*release)(struct backend *b, void *p, size_t bytes);
    /* Bytes of the device's own memory that are free now, and all. NULL: it draws in the machine's
     * memory, of which others know more. */
    int (*memory)(struct backend *b, uint64_t *free, uint64_t *total);
    /* Is it gone? Asked after a failure, so it may wait for the device, and its word is what
     * counts. NULL: the code of the failure says it. */
    bool (*lost)(struct backend *b);
    /* Makes a weight, of which shape and dtype are set, from host memory that stays as it is until
     * weight_release; may pack it for products of `compute` type, and sets dtype to what kernels
     * read then. rank 2 and 4 weights are used by linear and conv. host NULL: the same without
     * data, for plans. May be called again after weight_release, with dtype set again. */
    int (*weight_prepare)(struct backend *b, struct tensor *w, const void *host, enum dtype compute,
                          struct err *e);
    void (*weight_release)(struct backend *b, struct tensor *w);
    uint64_t (*weight_bytes)(const struct tensor *w); /* resident: packed or mapped */
    /* Do kernels read the host memory that the weight was made from? */
    bool (*weight_mapped)(const struct tensor *w);
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

    /* Both or none: devices with a queue that the host fills ahead of the work (NULL: a kernel that
     * returns is done). The denoising loop then waits for nothing but step_end(). */

    /* Notes this point of the queue (an event), and returns as soon as the point that was noted
     * before it is passed: the device always has a step to do, and the host is at most that one
     * ahead, which is how far progress may be wrong and what is still done after a cancel. Asks
     * ops_cancelled() while it waits, and returns when it says so. */
    void (*step_end)(struct ops *o);
    /* flag[0] = min(flag[0], note) on the device where x holds NaN or infinity; flag: I32 [1]. */
    void (*finite_note)(struct ops *o, struct tensor *flag, const struct tensor *x, int32_t note);
};

/* The CPU backend; threads 0: OMNIFS_THREADS, else the CPUs this process may use. */
int cpu_backend_new(int threads, struct backend **out, struct err *e);
/* DTYPE_BF16 or DTYPE_F32, whichever a short measurement (a few ms, once a backend) finds faster
 * for products on this machine. */
enum dtype cpu_fastest_compute(struct backend *b);
void backend_free(struct backend *b);

/* A weight of that shape that is not prepared yet. Owned by the caller: tensor_weight_free. */
int tensor_weight_shape(struct backend *b, enum dtype d, int rank, const int64_t *dims,
                        struct tensor **out, struct err *e);
/* The same, prepared from host memory, or for plans where host is NULL. */
int tensor_weight_new(struct backend *b, enum dtype d, int rank, const int64_t *dims,
                      const void *host, enum dtype compute, struct tensor **out, struct err *e);
void tensor_weight_free(struct tensor *w);

#endif
