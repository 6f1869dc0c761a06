/* Rotary embedding, table lookups, time embedding, upsampling and the check for NaN: kernels that
 * move values by position. */
#include <errno.h>
#include <math.h>

#include "engine/cpu/cpu.h"
#include "engine/cpu/simd.h"
#include "engine/cpu/walk.h"

struct rope_job {
    const struct tensor *x, *y, *cos, *sin;
    bool interleaved;
};

CPU_CLONES static void rope_halves(float *restrict y, const float *restrict x,
                                   const float *restrict c, const float *restrict s, int64_t half)
{
    for (int64_t i = 0; i < half; i++) {
        y[i] = x[i] * c[i] - x[i + half] * s[i];
        y[i + half] = x[i + half] * c[i] + x[i] * s[i];
    }
}

CPU_CLONES static void rope_pairs(float *restrict y, const float *restrict x,
                                  const float *restrict c, const float *restrict s, int64_t half)
{
    for (int64_t i = 0; i < half; i++) {
        float a = x[2 * i], b = x[2 * i + 1];
        y[2 * i] = a * c[i] - b * s[i];
        y[2 * i + 1] = b * c[i] + a * s[i];
    }
}

static void rope_task(void *ctx, int worker, int64_t begin, int64_t end)
{
    const struct rope_job *j = ctx;
    int64_t tokens = j->x->dims[1], heads = j->x->dims[2], d = j->x->dims[3];
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        int64_t t = i % tokens;
        const float *c = (const float *)j->cos->data + t * j->cos->strides[0];
        const float *s = (const float *)j->sin->data + t * j->sin->strides[0];
        const float *x =
            (const float *)j->x->data + i / tokens * j->x->strides[0] + t * j->x->strides[1];
        float *y = (float *)j->y->data + i * heads * d;
        for (int64_t h = 0; h < heads; h++)
            (j->interleaved ? rope_pairs : rope_halves)(y + h * d, x + h * j->x->strides[2], c, s,
                                                        d / 2);
    }
}

void cpu_rope(struct ops *o, struct tensor *y, const struct tensor *x, const struct tensor *cos,
              const struct tensor *sin, bool interleaved)
{
    struct rope_job j = {x, y, cos, sin, interleaved};
    if (!ops_planning(o))
        cpu_parallel(cpu_threads(y), x->dims[0] * x->dims[1], 1 + 16384 / (x->dims[2] * x->dims[3]),
                     rope_task, &j);
}

void cpu_embedding(struct ops *o, struct tensor *y, const struct tensor *table,
                   const struct tensor *ids)
{
    if (ops_planning(o))
        return;
    struct rows rows = rows_of(ids);
    int64_t c = table->dims[1], row_bytes = table->strides[0] * (int64_t)dtype_size(table->dtype);
    for (int64_t i = 0; i < rows.count * rows.width; i++) {
        int32_t id =
            ((const int32_t *)ids->data)[rows_offset(&rows, i / rows.width) + i % rows.width];
        if (id < 0 || id >= table->dims[0]) {
            ops_fail(o, -EINVAL, "embedding: id %d is outside the table of %lld rows", id,
                     (long long)table->dims[0]);
            return;
        }
        convert_span((float *)y->data + i * c, DTYPE_F32,
                     (const char *)table->data + id * row_bytes, table->dtype, c);
    }
}

/* Rounded to fp32 at each step as the reference does (diffusers get_timestep_embedding): at t near
 * 1000 the argument's rounding is visible in the result. */
void cpu_timestep_embedding(struct ops *o, struct tensor *y, const struct tensor *t, bool cos_first,
                            float shift)
{
    if (ops_planning(o))
        return;
    int64_t n = t->dims[0], half = y->dims[1] / 2;
    for (int64_t i = 0; i < n; i++) {
        float *first = (float *)y->data + i * 2 * half, *second = first + half;
        float at = ((const float *)t->data)[i * t->strides[0]];
        for (int64_t k = 0; k < half; k++) {
            float exponent = -9.210340371976184f * (float)k / ((float)half - shift);
            float angle = at * expf(exponent);
            (cos_first ? first : second)[k] = cosf(angle);
            (cos_first ? second : first)[k] = sinf(angle);
        }
    }
}

struct upsample_job {
    const struct tensor *x, *y;
    int factor;
};

static void upsample_task(void *ctx, int worker, int64_t begin, int64_t end)
{
    const struct upsample_job *j = ctx;
    int64_t h = j->x->dims[1], w = j->x->dims[2], c = j->x->dims[3], k = j->factor;
    (void)worker;
    for (int64_t row = begin; row < end; row++) { /* of x, over all items */
        const float *x =
            (const float *)j->x->data + row / h * j->x->strides[0] + row % h * j->x->strides[1];
        float *y = (float *)j->y->data + row * k * k * w * c;
        for (int64_t i = 0; i < w * k; i++)
            memcpy(y + i * c, x + i / k * j->x->strides[2], (size_t)c * sizeof *y);
        for (int64_t i = 1; i < k; i++)
            memcpy(y + i * k * w * c, y, (size_t)(k * w * c) * sizeof *y);
    }
}

void cpu_upsample_nearest(struct ops *o, struct tensor *y, const struct tensor *x, int factor)
{
    struct upsample_job j = {x, y, factor};
    if (!ops_planning(o))
        cpu_parallel(cpu_threads(y), x->dims[0] * x->dims[1], 1, upsample_task, &j);
}

/* ctx: a flag that only ever goes from 0 to 1, so that threads need no order. */
CPU_CLONES static void finite_span(const struct span *s)
{
    const uint32_t *x = (const void *)s->p[0];
    uint32_t most = 0;
    for (int64_t i = 0; i < s->n; i++) {
        uint32_t magnitude = x[i] & 0x7FFFFFFF;
        most = magnitude > most ? magnitude : most;
    }
    if (most >= 0x7F800000)
        __atomic_store_n(*(int *const *)s->ctx, 1, __ATOMIC_RELAXED);
}

bool cpu_all_finite(struct ops *o, const struct tensor *x)
{
    int found = 0, *flag = &found;
    struct walk w;
    (void)o;
    walk_start(&w, x->rank, x->dims);
    walk_add(&w, x);
    walk_run(&w, cpu_threads(x), true, finite_span, &flag);
    return !found;
}
