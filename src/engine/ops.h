/* Operations: the complete list, and the only door between models and hardware.
 *
 * Values are tensor handles: dtype, shape and place live in the handle, so an operation has one
 * name. Shapes are row-major, batch first: sequences [B, T, C], heads [B, T, H, d], pictures
 * channels-last [B, H, W, C].
 *
 * Errors are sticky: an operation on NULL, on wrong shapes or without memory returns NULL and
 * records the first failure in the context; every later operation does nothing. A model is written
 * without checks and asks ops_error() once at the end.
 *
 * Memory is a stack: results live until the scope they were made in is popped. A context in
 * planning mode (ops_new_plan) does everything but arithmetic and reports the peak.
 *
 * Items of the batch axis never influence each other's bits: a request gives the same bytes alone
 * and in a batch. */
#ifndef OMNI_OPS_H
#define OMNI_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* DTYPE_E4M3 (8-bit floats: 4 bits of exponent, 3 of fraction) is for weights alone. */
enum dtype { DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_I32, DTYPE_U8, DTYPE_E4M3, DTYPE_COUNT };
size_t dtype_size(enum dtype d); /* bytes an element */
const char *dtype_name(enum dtype d);

#define TENSOR_MAX_RANK 5

struct tensor;  /* opaque; see backend.h */
struct ops;     /* a context: backend, memory, first error */
struct backend; /* a device; see backend.h */

enum dtype tensor_dtype(const struct tensor *t);
int tensor_rank(const struct tensor *t);
int64_t tensor_dim(const struct tensor *t, int axis); /* negative axes count from the end */
int64_t tensor_elements(const struct tensor *t);

/* ---- context ---- */

/* A context with `bytes` of arena on backend `b`, computing products in `compute` (DTYPE_F32 or
 * DTYPE_BF16). */
struct ops *ops_new(struct backend *b, enum dtype compute, size_t bytes, struct err *e);
/* A context that only measures: no arithmetic, no data; every shape is checked, every workspace of
 * `b` is counted. */
struct ops *ops_new_plan(struct backend *b, enum dtype compute, struct err *e);
void ops_free(struct ops *o);
bool ops_planning(const struct ops *o);
size_t ops_peak(const struct ops *o); /* bytes: the arena's high-water mark since ops_new */
/* 0, or the first failure's code with its sentence in `e`. */
int ops_error(const struct ops *o, struct err *e);
/* Records a failure from model code (a wrong length, say); the first one stays. */
void ops_fail(struct ops *o, int code, const char *fmt, ...) ERR_PRINTF(3, 4);
/* Asked between operations and inside long ones, every 0.5 s at the least: true → -ECANCELED. */
void ops_set_cancel(struct ops *o, bool (*cancelled)(void *), void *ctx);

/* Does the host run ahead of the device? */
bool ops_runs_ahead(const struct ops *o);
/* A step ends here: waits until the device is at most one step behind (backend.h, step_end). */
void ops_step_end(struct ops *o);

/* The type that linear, attention, rms_norm, layer_norm, modulated_norm, rope and the pointwise
 * operations give their results from now on; it returns the one before, DTYPE_F32 at first. What
 * these operations read may have either type, vectors, gates and tables excepted. DTYPE_BF16 is a
 * wish: it stays DTYPE_F32 where products are not in bf16, and where the device has no such results
 * (the CPU). For what lies between the products of a block: a sum over blocks stays DTYPE_F32. */
enum dtype ops_set_results(struct ops *o, enum dtype d);
enum dtype ops_results(const struct ops *o);

typedef size_t ops_mark;
ops_mark ops_push(struct ops *o);
/* Frees what was made since `mark`. */
void ops_pop(struct ops *o, ops_mark mark);
/* The same, but `t` survives: it becomes contiguous at the start of the freed range. */
struct tensor *ops_pop_keep(struct ops *o, ops_mark mark, struct tensor *t);
/* The same, and the scope stays open with `t` at its start: for chains of layers where each result
 * takes the place of its input. */
struct tensor *ops_keep(struct ops *o, ops_mark mark, struct tensor *t);

/* What was done since ops_new, for bench tables. Kinds as the operations below. */
enum op_kind { OP_LINEAR, OP_CONV, OP_ATTENTION, OP_NORM, OP_POINTWISE, OP_MOVE, OP_KINDS };
struct op_stats {
    uint64_t calls, flops, bytes; /* two operations a multiply-add; bytes read and written */
    double seconds;               /* 0 in planning mode */
};
const struct op_stats *ops_stats(const struct ops *o); /* [OP_KINDS] */
/* Calls `record` after each linear, conv and attention with its shape as text ("208x256 ·
 * 256x768"); NULL stops. */
void ops_set_trace(struct ops *o,
                   void (*record)(void *ctx, enum op_kind k, const char *shape, uint64_t flops,
                                  double seconds),
                   void *ctx);

/* ---- making, reading, moving ---- */

struct tensor *op_empty(struct ops *o, enum dtype d, int rank, const int64_t *dims);
struct tensor *op_zeros(struct ops *o, enum dtype d, int rank, const int64_t *dims);
struct tensor *op_from_host(struct ops *o, enum dtype d, int rank, const int64_t *dims,
                            const void *data);
/* Copies a contiguous image of `t` to `dst` of exactly `bytes`; 0 or the sticky error. */
int op_to_host(struct ops *o, const struct tensor *t, void *dst, size_t bytes);
struct tensor *op_cast(struct ops *o, const struct tensor *x, enum dtype d);
/* Views (no copy). reshape may split any axis, and merge axes that lie densely; slice gives
 * [.., start:start+len, ..]. */
struct tensor *op_reshape(struct ops *o, const struct tensor *x, int rank, const int64_t *dims);
struct tensor *op_slice(struct ops *o, const struct tensor *x, int axis, int64_t start,
                        int64_t len);
/* Copies. */
struct tensor *op_contiguous(struct ops *o, const struct tensor *x);
struct tensor *op_permute(struct ops *o, const struct tensor *x, const int *axes);
struct tensor *op_concat(struct ops *o, const struct tensor *const *xs, int count, int axis);
/* dst (may be a view) = src, same shape; dst and src do not overlap. */
void op_copy(struct ops *o, struct tensor *dst, const struct tensor *src);

/* Shape literals: op_zeros(o, DTYPE_F32, SHAPE(b, t, c)). */
#define SHAPE(...)                                                                                 \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[])                   \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

/* ---- products ---- */

enum activation {
    ACT_NONE,
    ACT_RELU,
    ACT_SILU,
    ACT_GELU,
    ACT_GELU_TANH,
    ACT_QUICK_GELU,
    ACT_TANH,
    ACT_SIGMOID
};

/* y[..., N] = act(x[..., K] · w[N, K]ᵀ + bias[N]); bias may be NULL. The items that must not
 * influence each other are those of axis 0 where x has three axes or more; of x[M, K], each row
 * when M ≤ 32 (embeddings of a batch), else all of it is one item. */
struct tensor *op_linear(struct ops *o, const struct tensor *x, const struct tensor *w,
                         const struct tensor *bias, enum activation act);
/* y[B, Ho, Wo, Co] = act(conv(x[B, H, W, Ci], w[Co, Ci, kh, kw]) + bias[Co]), zero padding:
 * pad = {top, bottom, left, right}. w keeps the checkpoint's order. */
struct tensor *op_conv2d(struct ops *o, const struct tensor *x, const struct tensor *w,
                         const struct tensor *bias, int stride, const int pad[4],
                         enum activation act);
struct attention_args {
    float scale;                   /* usually 1/sqrt(d) */
    bool causal;                   /* query i sees keys 0 … i */
    const struct tensor *key_mask; /* NULL, or I32 [B, Tk]: 0 hides that key */
};
/* q[B, Tq, H, d], k and v [B, Tk, G, d] with H a multiple of G (grouped queries) → [B, Tq, H, d];
 * softmax in fp32, no Tq·Tk buffer. q, k, v may be views with any strides but a dense last axis. */
struct tensor *op_attention(struct ops *o, const struct tensor *q, const struct tensor *k,
                            const struct tensor *v, const struct attention_args *args);

/* ---- normalisation ---- */

/* y = x · rsqrt(mean(x²) + eps) · w over the last axis, w[C]. For heads: x[B, T, H, d], w[d]. */
struct tensor *op_rms_norm(struct ops *o, const struct tensor *x, const struct tensor *w,
                           float eps);
/* LayerNorm over the last axis; w and b [C] or NULL. */
struct tensor *op_layer_norm(struct ops *o, const struct tensor *x, const struct tensor *w,
                             const struct tensor *b, float eps);
/* LayerNorm(x[B, T, C])·(1 + scale[B|1, C]) + shift[B|1, C]: adaptive modulation. */
struct tensor *op_modulated_norm(struct ops *o, const struct tensor *x, const struct tensor *shift,
                                 const struct tensor *scale, float eps);
/* GroupNorm over [B, H, W, C] in `groups`, then act; w and b [C]. */
struct tensor *op_group_norm(struct ops *o, const struct tensor *x, int groups,
                             const struct tensor *w, const struct tensor *b, float eps,
                             enum activation act);
/* The same bits in two phases, for pictures that are never in memory whole: sums (U8 [B, groups,
 * OPS_GROUP_SUM], the backend's own numbers, all zero at first) gather rows x[B, h, W, C], which
 * are added from the top to the bottom; then any rows are normed by all that was added. */
#define OPS_GROUP_SUM 32
struct tensor *op_group_sums(struct ops *o, int64_t batch, int groups);
void op_group_sums_add(struct ops *o, struct tensor *sums, const struct tensor *x);
struct tensor *op_group_norm_rows(struct ops *o, const struct tensor *x, const struct tensor *sums,
                                  const struct tensor *w, const struct tensor *b, float eps,
                                  enum activation act);

/* ---- pointwise and others ---- */

struct tensor *op_act(struct ops *o, const struct tensor *x, enum activation act);
/* y[..., M] = act(x[..., :M]) · x[..., M:]. */
struct tensor *op_glu(struct ops *o, const struct tensor *x, enum activation act);
/* The same with the gate behind: y[..., M] = x[..., :M] · act(x[..., M:]). */
struct tensor *op_glu_behind(struct ops *o, const struct tensor *x, enum activation act);
/* Same shapes, or b broadcast over leading axes ([C] against [..., C]). */
struct tensor *op_add(struct ops *o, const struct tensor *a, const struct tensor *b);
struct tensor *op_mul(struct ops *o, const struct tensor *a, const struct tensor *b);
/* y = x·scale + offset. */
struct tensor *op_affine(struct ops *o, const struct tensor *x, float scale, float offset);
struct tensor *op_clamp(struct ops *o, const struct tensor *x, float low, float high);
/* In place: x += y, with y repeated along axes where it has 1 ([B, 1, 1, C] against [B, H, W, C]);
 * x[B, T, C] += gate[B|1, C] · y; x = Σ coefficient_i · term_i (terms may be x; at most
 * OPS_MAX_TERMS). */
#define OPS_MAX_TERMS 8
void op_add_to(struct ops *o, struct tensor *x, const struct tensor *y);
void op_gated_add_to(struct ops *o, struct tensor *x, const struct tensor *gate,
                     const struct tensor *y);
void op_combine_to(struct ops *o, struct tensor *x, const struct tensor *const *terms,
                   const float *coefficients, int count);
/* Rotary embedding of x[B, T, H, d] with tables cos, sin [T, d/2] (fp32). Pairs (2i, 2i+1) when
 * `interleaved`, else (i, i + d/2). A new tensor. */
struct tensor *op_rope(struct ops *o, const struct tensor *x, const struct tensor *cos,
                       const struct tensor *sin, bool interleaved);
/* rows of table[V, C] by ids I32 [B, T] → F32 [B, T, C]; an id outside the table is an error. */
struct tensor *op_embedding(struct ops *o, const struct tensor *table, const struct tensor *ids);
/* [n] → [n, dim]: cos and sin of t·f_i, f_i = exp(-ln(10000)·i/(dim/2 - shift)); cos first when
 * `cos_first`. */
struct tensor *op_timestep_embedding(struct ops *o, const struct tensor *t, int dim, bool cos_first,
                                     float shift);
/* [B, H, W, C] → [B, kH, kW, C]. */
struct tensor *op_upsample_nearest(struct ops *o, const struct tensor *x, int factor);
/* False when a NaN or infinity is inside (true while planning or failed). Waits for the device. */
bool op_all_finite(struct ops *o, const struct tensor *x);
/* The same question without waiting, for devices that run behind the host: flag I32 [1] becomes
 * min(flag, note) when a NaN or infinity is inside. Only where ops_runs_ahead(). */
void op_finite_note(struct ops *o, struct tensor *flag, const struct tensor *x, int32_t note);
/* U8 = round_half_even(clamp(x·scale + offset, 0, 1)·255), same shape. */
struct tensor *op_to_u8(struct ops *o, const struct tensor *x, float scale, float offset);

#endif
