/* The CUDA backend's own state, and what its files share (C and C++). */
#ifndef OMNI_CUDA_H
#define OMNI_CUDA_H

#include <pthread.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "engine/backend.h"
#include "kernels/driver.h"

struct cuda;

/* Products by NVIDIA's libraries. Every entry is NULL, or returns false when the own kernel is to
 * do it. They are asked while planning too (ops_planning), and then must ask for the scratch of the
 * run; what they answer may depend on the shape of an item, but not on the number of items. */
struct cuda_products {
    void *state;
    void (*close)(struct cuda *c);
    bool (*linear)(struct cuda *c, struct ops *o, struct tensor *y, const struct tensor *x,
                   const struct tensor *w, const struct tensor *bias, enum activation act);
    bool (*conv2d)(struct cuda *c, struct ops *o, struct tensor *y, const struct tensor *x,
                   const struct tensor *w, const struct tensor *bias, int stride, const int pad[4],
                   enum activation act);
    bool (*attention)(struct cuda *c, struct ops *o, struct tensor *y, const struct tensor *q,
                      const struct tensor *k, const struct tensor *v,
                      const struct attention_args *args);
};

/* Pinned memory between host memory and the device, in slots that take turns: while the device
 * copies from one, the host fills the next. */
#define STAGING_SLOTS 4
#define STAGING_BYTES ((size_t)4 << 20)

struct staging {
    char *memory[STAGING_SLOTS];
    gpu_event event[STAGING_SLOTS]; /* the slot's last copy is done */
    int slot;
    size_t used; /* of the slot */
};

struct cuda {
    struct backend base; /* first: a struct backend * of this kind is a struct cuda * */
    char name[96];       /* "cuda:0: NVIDIA H200" */
    int index;
    gpu_stream stream;
    struct driver_device device;
    struct staging staging;
    int32_t *notes;         /* on the device: what kernels report (enum cuda_note) */
    int32_t *answers;       /* pinned: where notes are read */
    pthread_mutex_t lock;   /* guards `staging`, `answers` and `last_step` */
    bool waits;             /* OMNIFS_CUDA_WAIT=1: after every operation, to time it */
    uint64_t out_of_memory; /* how often it was */
    struct cuda_products library;
    gpu_event step[2]; /* where steps end, by turns */
    int last_step;     /* which of them was noted last */
};

enum cuda_note {
    NOTE_OUTSIDE,   /* 1: an id was outside its embedding table */
    NOTE_ID,        /* that id */
    NOTE_INFINITE,  /* below 0: op_all_finite found something else */
    NOTE_COUNT = 16 /* room */
};

static inline struct cuda *cuda_of(const struct backend *b)
{
    return (struct cuda *)(uintptr_t)b;
}

/* ---- weights (weight.c) ----
 *
 * Vectors (ranks 1, 3, 5) are kept in fp32, filters in the compute type with channels last:
 * [Co, kh, kw, Ci]. Matrices are kept in bf16 where products are computed in it, or in e4m3 where
 * they say so; else, and where rows are looked up, as they come, and kernels convert what they
 * read. */
struct cuda_weight {
    enum dtype type; /* of `data` */
    void *data;      /* on the device; NULL in plans */
    size_t bytes;
    float *scale; /* e4m3: what the values are multiplied with, on the device, behind them */
};

int cuda_weight_prepare(struct backend *b, struct tensor *w, const void *host, enum dtype compute,
                        struct err *e);
void cuda_weight_release(struct backend *b, struct tensor *w);
uint64_t cuda_weight_bytes(const struct tensor *w);
bool cuda_weight_mapped(const struct tensor *w);
/* Of a matrix in e4m3, on the device; NULL for others. */
const float *cuda_weight_scale(const struct tensor *w);

/* ---- memory (backend.c) ---- */

/* Puts `bytes` of host memory on the device; the host memory is free when it returns. 0 or the
 * driver's code. */
int cuda_put(struct cuda *c, void *to, const void *host, size_t bytes);
/* "cuda:0: what: why" as an error: -ENOMEM when that is the reason, BACKEND_LOST when the device
 * answers no more, else -EIO. */
int cuda_error(struct cuda *c, int code, const char *what, struct err *e);
/* The same as an operation's failure. */
void cuda_fail(struct ops *o, struct cuda *c, int code, const char *what);
/* Waits for the device, then gives what kernels noted; false when something failed. */
bool cuda_settle(struct ops *o, struct cuda *c, int32_t notes[NOTE_COUNT]);

/* ---- conversions that weights need (move.cu) ---- */

/* n elements, dense; any two of f32, bf16, f16. */
void cuda_convert(struct cuda *c, void *to, enum dtype to_type, const void *from,
                  enum dtype from_type, int64_t n);
/* [Co, Ci, taps] → [Co, taps, Ci]. */
void cuda_convert_filter(struct cuda *c, void *to, enum dtype to_type, const void *from,
                         enum dtype from_type, int64_t co, int64_t ci, int64_t taps);

/* formula.cu: n elements of bf16, dense, on the device alone. */
void cuda_by_formula(struct cuda *c, void *to, const struct formula *f, int64_t n);

/* ---- 8-bit floats (fp8.cu) ---- */

/* x of any strides (f32, bf16 or f16; the last axis a multiple of 4) as e4m3, dense: each of the
 * `items` stretches of rows is divided by a scale of its own, scales[items]. peaks[items ·
 * FP8_PEAKS] is for work; at most FP8_ITEMS items. */
#define FP8_PEAKS 512
#define FP8_ITEMS 65535
void cuda_to_fp8(struct cuda *c, void *to, float *scales, float *peaks, const struct tensor *x,
                 int64_t items);

/* ---- kernels, as in backend.h; the file is named in each section ---- */

/* move.cu */
void cuda_fill_zero(struct ops *o, struct tensor *y);
void cuda_copy(struct ops *o, struct tensor *y, const struct tensor *x);
/* linear.cu, conv.cu, attention.cu */
void cuda_linear(struct ops *o, struct tensor *y, const struct tensor *x, const struct tensor *w,
                 const struct tensor *bias, enum activation act);
void cuda_conv2d(struct ops *o, struct tensor *y, const struct tensor *x, const struct tensor *w,
                 const struct tensor *bias, int stride, const int pad[4], enum activation act);
void cuda_attention(struct ops *o, struct tensor *y, const struct tensor *q, const struct tensor *k,
                    const struct tensor *v, const struct attention_args *args);
/* norm.cu */
void cuda_rms_norm(struct ops *o, struct tensor *y, const struct tensor *x, const struct tensor *w,
                   float eps);
void cuda_layer_norm(struct ops *o, struct tensor *y, const struct tensor *x,
                     const struct tensor *w, const struct tensor *b, const struct tensor *shift,
                     const struct tensor *scale, float eps);
void cuda_group_sums_add(struct ops *o, struct tensor *sums, const struct tensor *x);
void cuda_group_norm_rows(struct ops *o, struct tensor *y, const struct tensor *x,
                          const struct tensor *sums, const struct tensor *w, const struct tensor *b,
                          float eps, enum activation act);
/* pointwise.cu */
void cuda_act(struct ops *o, struct tensor *y, const struct tensor *x, enum activation act);
void cuda_glu(struct ops *o, struct tensor *y, const struct tensor *gate,
              const struct tensor *value, enum activation act);
void cuda_add(struct ops *o, struct tensor *y, const struct tensor *a, const struct tensor *b);
void cuda_mul(struct ops *o, struct tensor *y, const struct tensor *a, const struct tensor *b);
void cuda_affine(struct ops *o, struct tensor *y, const struct tensor *x, float scale, float offset,
                 float low, float high);
void cuda_gated_add_to(struct ops *o, struct tensor *x, const struct tensor *gate,
                       const struct tensor *y);
void cuda_combine_to(struct ops *o, struct tensor *x, const struct tensor *const *terms,
                     const float *coefficients, int count);
/* table.cu */
void cuda_rope(struct ops *o, struct tensor *y, const struct tensor *x, const struct tensor *cos,
               const struct tensor *sin, bool interleaved);
void cuda_embedding(struct ops *o, struct tensor *y, const struct tensor *table,
                    const struct tensor *ids);
void cuda_timestep_embedding(struct ops *o, struct tensor *y, const struct tensor *t,
                             bool cos_first, float shift);
/* image.cu */
void cuda_upsample_nearest(struct ops *o, struct tensor *y, const struct tensor *x, int factor);
bool cuda_all_finite(struct ops *o, const struct tensor *x);
void cuda_finite_note(struct ops *o, struct tensor *flag, const struct tensor *x, int32_t note);
void cuda_to_u8(struct ops *o, struct tensor *y, const struct tensor *x, float scale, float offset);

#ifdef __cplusplus
}
#endif

#endif
