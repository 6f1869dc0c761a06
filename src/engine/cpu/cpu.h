/* The CPU backend's own state, and what its files share. */
#ifndef OMNI_CPU_H
#define OMNI_CPU_H

#include <pthread.h>

#include "engine/backend.h"
#include "engine/cpu/dnn.h"
#include "engine/cpu/parallel.h"

struct cpu {
    struct backend base; /* first: a struct backend * of this kind is a struct cpu * */
    int threads;
    bool has_bf16; /* oneDNN multiplies bf16 here */
    struct dnn dnn;
    pthread_mutex_t lock; /* guards `fastest` */
    int fastest;          /* enum dtype, or -1 until measured */
};

static inline struct cpu *cpu_of(const struct backend *b)
{
    return (struct cpu *)(uintptr_t)b;
}
/* Of the tensors of a running operation. */
static inline int cpu_threads(const struct tensor *t)
{
    return cpu_of(t->backend)->threads;
}

/* The last axis of a tensor as rows: how many, how long, and where each begins. Leading axes that
 * lie evenly are merged, so that the common case is one multiplication. */
struct rows {
    int rank;
    int64_t dims[TENSOR_MAX_RANK], strides[TENSOR_MAX_RANK]; /* of the leading axes, elements */
    int64_t count, width;
};
struct rows rows_of(const struct tensor *t);
static inline int64_t rows_offset(const struct rows *r, int64_t i)
{
    int64_t offset = 0;
    for (int k = r->rank - 1; k > 0; i /= r->dims[k--])
        offset += i % r->dims[k] * r->strides[k];
    return r->rank > 0 ? offset + i * r->strides[0] : 0;
}
/* True when row i begins at i·*pitch elements. */
static inline bool rows_even(const struct rows *r, int64_t *pitch)
{
    *pitch = r->rank > 0 ? r->strides[0] : r->width;
    return r->rank <= 1;
}

/* ---- convert.c ---- */

/* n elements, dense, float dtypes. */
void convert_span(void *to, enum dtype to_type, const void *from, enum dtype from_type, int64_t n);
/* rows × width from a strided source (elements between rows) to a dense destination, in parallel.
 */
void convert_rows(int threads, void *to, enum dtype to_type, const void *from, enum dtype from_type,
                  int64_t rows, int64_t width, int64_t pitch);
/* rows × width of a weight that is kept in blocks, from row `first` on, likewise. */
void expand_rows(int threads, void *to, enum dtype to_type, const struct tensor *w, int64_t first,
                 int64_t rows);
void cpu_upload(struct ops *o, struct tensor *y, const void *host, size_t bytes);
void cpu_download(struct ops *o, void *host, const struct tensor *x, size_t bytes);
void cpu_fill_zero(struct ops *o, struct tensor *y);
void cpu_copy(struct ops *o, struct tensor *y, const struct tensor *x);
void cpu_move(struct ops *o, void *to, const void *from, size_t bytes);

/* ---- weight.c ---- */

enum weight_form {
    WEIGHT_VECTOR, /* ranks 1, 3, 5: an fp32 copy, at tensor.data */
    WEIGHT_MAPPED, /* as the caller's memory holds it: values, or blocks to be expanded */
    WEIGHT_PACKED, /* a copy in `type`, in the order that oneDNN likes best */
};
struct cpu_weight {
    enum weight_form form;
    enum dtype type;          /* of products with it */
    struct dnn_layout layout; /* of `data` when packed */
    void *data;               /* owned; NULL when mapped and in plans */
    size_t bytes;             /* resident */
};
/* Is w a matrix? Filters of one pixel are: their convolutions are linear. */
static inline bool weight_is_matrix(const struct tensor *w)
{
    return w->rank == 2 || (w->rank == 4 && w->dims[2] == 1 && w->dims[3] == 1);
}
int cpu_weight_prepare(struct backend *b, struct tensor *w, const void *host, enum dtype compute,
                       struct err *e);
void cpu_weight_release(struct backend *b, struct tensor *w);
uint64_t cpu_weight_bytes(const struct tensor *w);
bool cpu_weight_mapped(const struct tensor *w);

/* ---- kernels, as in backend.h ---- */

void cpu_linear(struct ops *o, struct tensor *y, const struct tensor *x, const struct tensor *w,
                const struct tensor *bias, enum activation act);
void cpu_conv2d(struct ops *o, struct tensor *y, const struct tensor *x, const struct tensor *w,
                const struct tensor *bias, int stride, const int pad[4], enum activation act);
void cpu_attention(struct ops *o, struct tensor *y, const struct tensor *q, const struct tensor *k,
                   const struct tensor *v, const struct attention_args *args);
void cpu_rms_norm(struct ops *o, struct tensor *y, const struct tensor *x, const struct tensor *w,
                  float eps);
void cpu_layer_norm(struct ops *o, struct tensor *y, const struct tensor *x, const struct tensor *w,
                    const struct tensor *b, const struct tensor *shift, const struct tensor *scale,
                    float eps);
void cpu_group_sums_add(struct ops *o, struct tensor *sums, const struct tensor *x);
void cpu_group_norm_rows(struct ops *o, struct tensor *y, const struct tensor *x,
                         const struct tensor *sums, const struct tensor *w, const struct tensor *b,
                         float eps, enum activation act);
void cpu_act(struct ops *o, struct tensor *y, const struct tensor *x, enum activation act);
void cpu_glu(struct ops *o, struct tensor *y, const struct tensor *gate, const struct tensor *value,
             enum activation act);
void cpu_add(struct ops *o, struct tensor *y, const struct tensor *a, const struct tensor *b);
void cpu_mul(struct ops *o, struct tensor *y, const struct tensor *a, const struct tensor *b);
void cpu_affine(struct ops *o, struct tensor *y, const struct tensor *x, float scale, float offset,
                float low, float high);
void cpu_gated_add_to(struct ops *o, struct tensor *x, const struct tensor *gate,
                      const struct tensor *y);
void cpu_combine_to(struct ops *o, struct tensor *x, const struct tensor *const *terms,
                    const float *coefficients, int count);
void cpu_rope(struct ops *o, struct tensor *y, const struct tensor *x, const struct tensor *cos,
              const struct tensor *sin, bool interleaved);
void cpu_embedding(struct ops *o, struct tensor *y, const struct tensor *table,
                   const struct tensor *ids);
void cpu_timestep_embedding(struct ops *o, struct tensor *y, const struct tensor *t, bool cos_first,
                            float shift);
void cpu_upsample_nearest(struct ops *o, struct tensor *y, const struct tensor *x, int factor);
bool cpu_all_finite(struct ops *o, const struct tensor *x);
void cpu_to_u8(struct ops *o, struct tensor *y, const struct tensor *x, float scale, float offset);

#endif
