/* Row normalisations: RMSNorm, LayerNorm and its modulated form. */
#include <math.h>

#include "engine/cpu/cpu.h"
#include "engine/cpu/simd.h"

#define ROWS_GRAIN 16384 /* elements: less is not worth waking a thread */

struct norm_job {
    const struct tensor *x, *y;
    struct rows rows;
    const float *w, *b;                 /* [C] or NULL */
    const struct tensor *shift, *scale; /* [B|1, C] or NULL */
    int64_t rows_per_item;
    float eps;
};

/* Σ (x - mean)², or with `power` 1 Σ (x - mean). */
CPU_INLINE float row_sum(const float *x, int64_t n, float mean, int power)
{
    float lanes[SIMD_LANES] = {0}, tail = 0;
    int64_t i = 0;
    for (; i + SIMD_LANES <= n; i += SIMD_LANES)
        for (int k = 0; k < SIMD_LANES; k++) {
            float d = x[i + k] - mean;
            lanes[k] += power == 2 ? d * d : d;
        }
    for (; i < n; i++) {
        float d = x[i] - mean;
        tail += power == 2 ? d * d : d;
    }
    return simd_sum(lanes) + tail;
}

CPU_CLONES static void rms_row(float *restrict y, const float *restrict x, const float *restrict w,
                               int64_t n, float eps)
{
    float r = 1.0f / sqrtf(row_sum(x, n, 0.0f, 2) / (float)n + eps);
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] * r * w[i];
}

static void rms_task(void *ctx, int worker, int64_t begin, int64_t end)
{
    const struct norm_job *j = ctx;
    (void)worker;
    for (int64_t i = begin; i < end; i++)
        rms_row((float *)j->y->data + i * j->rows.width,
                (const float *)j->x->data + rows_offset(&j->rows, i), j->w, j->rows.width, j->eps);
}

static int64_t rows_grain(const struct rows *r)
{
    return 1 + ROWS_GRAIN / r->width;
}

void cpu_rms_norm(struct ops *o, struct tensor *y, const struct tensor *x, const struct tensor *w,
                  float eps)
{
    if (ops_planning(o))
        return;
    struct norm_job j = {.x = x, .y = y, .rows = rows_of(x), .w = w->data, .eps = eps};
    cpu_parallel(cpu_threads(y), j.rows.count, rows_grain(&j.rows), rms_task, &j);
}

struct affine_row {
    const float *w, *b, *shift, *scale; /* each may be NULL */
};

CPU_CLONES static void layer_row(float *restrict y, const float *restrict x, int64_t n, float eps,
                                 const struct affine_row *a)
{
    float mean = row_sum(x, n, 0.0f, 1) / (float)n;
    float r = 1.0f / sqrtf(row_sum(x, n, mean, 2) / (float)n + eps);
    const float *restrict w = a->w, *restrict b = a->b, *restrict t = a->shift,
                          *restrict s = a->scale;
    if (s) {
        for (int64_t i = 0; i < n; i++)
            y[i] = (x[i] - mean) * r * (1.0f + s[i]) + t[i];
    } else if (w && b) {
        for (int64_t i = 0; i < n; i++)
            y[i] = (x[i] - mean) * r * w[i] + b[i];
    } else {
        for (int64_t i = 0; i < n; i++)
            y[i] = (x[i] - mean) * r * (w ? w[i] : 1.0f) + (b ? b[i] : 0.0f);
    }
}

/* Row `item` of a modulation [B|1, C]. */
static const float *modulation(const struct tensor *t, int64_t item)
{
    return t ? (const float *)t->data + (t->dims[0] == 1 ? 0 : item * t->strides[0]) : NULL;
}

static void layer_task(void *ctx, int worker, int64_t begin, int64_t end)
{
    const struct norm_job *j = ctx;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        int64_t item = i / j->rows_per_item;
        struct affine_row a = {j->w, j->b, modulation(j->shift, item), modulation(j->scale, item)};
        layer_row((float *)j->y->data + i * j->rows.width,
                  (const float *)j->x->data + rows_offset(&j->rows, i), j->rows.width, j->eps, &a);
    }
}

void cpu_layer_norm(struct ops *o, struct tensor *y, const struct tensor *x, const struct tensor *w,
                    const struct tensor *b, const struct tensor *shift, const struct tensor *scale,
                    float eps)
{
    if (ops_planning(o))
        return;
    struct norm_job j = {.x = x,
                         .y = y,
                         .rows = rows_of(x),
                         .w = w ? w->data : NULL,
                         .b = b ? b->data : NULL,
                         .shift = shift,
                         .scale = scale,
                         .eps = eps};
    j.rows_per_item = x->rank > 1 ? j.rows.count / x->dims[0] : 1;
    cpu_parallel(cpu_threads(y), j.rows.count, rows_grain(&j.rows), layer_task, &j);
}
