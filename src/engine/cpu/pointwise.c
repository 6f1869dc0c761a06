/* Pointwise kernels: each a short loop over dense spans (walk.h), compiled for every instruction
 * set. */
#include <math.h>

#include "engine/cpu/cpu.h"
#include "engine/cpu/simd.h"
#include "engine/cpu/walk.h"

#define OUT(s)   ((float *restrict)(void *)(s)->p[0])
#define IN(s, k) ((const float *)(const void *)(s)->p[k])

/* Runs `body` over tensors of y's shape, or broadcast to it. */
static void run(struct ops *o, struct tensor *y, int inputs, const struct tensor *const *in,
                void (*body)(const struct span *), const void *ctx)
{
    struct walk w;
    if (ops_planning(o))
        return;
    walk_start(&w, y->rank, y->dims);
    walk_add(&w, y);
    for (int i = 0; i < inputs; i++)
        walk_add(&w, in[i]);
    walk_run(&w, cpu_threads(y), true, body, ctx);
}

CPU_CLONES static void act_span(const struct span *s)
{
    float *restrict y = OUT(s);
    const float *x = IN(s, 1);
    int64_t n = s->n;
#define CASE(a)                                                                                    \
    for (int64_t i = 0; i < n; i++)                                                                \
        y[i] = simd_act(x[i], a);
    SIMD_ACT_SWITCH(*(const enum activation *)s->ctx, CASE)
#undef CASE
}

void cpu_act(struct ops *o, struct tensor *y, const struct tensor *x, enum activation act)
{
    run(o, y, 1, &x, act_span, &act);
}

CPU_CLONES static void glu_span(const struct span *s)
{
    float *restrict y = OUT(s);
    const float *a = IN(s, 1), *b = IN(s, 2);
    int64_t n = s->n;
#define CASE(k)                                                                                    \
    for (int64_t i = 0; i < n; i++)                                                                \
        y[i] = simd_act(a[i], k) * b[i];
    SIMD_ACT_SWITCH(*(const enum activation *)s->ctx, CASE)
#undef CASE
}

void cpu_glu(struct ops *o, struct tensor *y, const struct tensor *gate, const struct tensor *value,
             enum activation act)
{
    run(o, y, 2, (const struct tensor *const[]){gate, value}, glu_span, &act);
}

CPU_CLONES static void add_span(const struct span *s)
{
    float *restrict y = OUT(s);
    const float *a = IN(s, 1), *b = IN(s, 2);
    for (int64_t i = 0; i < s->n; i++)
        y[i] = a[i] + b[i];
}

void cpu_add(struct ops *o, struct tensor *y, const struct tensor *a, const struct tensor *b)
{
    run(o, y, 2, (const struct tensor *const[]){a, b}, add_span, NULL);
}

CPU_CLONES static void mul_span(const struct span *s)
{
    float *restrict y = OUT(s);
    const float *a = IN(s, 1), *b = IN(s, 2);
    for (int64_t i = 0; i < s->n; i++)
        y[i] = a[i] * b[i];
}

void cpu_mul(struct ops *o, struct tensor *y, const struct tensor *a, const struct tensor *b)
{
    run(o, y, 2, (const struct tensor *const[]){a, b}, mul_span, NULL);
}

struct affine {
    float scale, offset, low, high;
};

CPU_INLINE float affine_of(float x, const struct affine *f)
{
    float v = x * f->scale + f->offset;
    v = v < f->low ? f->low : v;
    return v > f->high ? f->high : v; /* NaN passes both */
}

CPU_CLONES static void affine_span(const struct span *s)
{
    struct affine f = *(const struct affine *)s->ctx;
    float *restrict y = OUT(s);
    const float *x = IN(s, 1);
    for (int64_t i = 0; i < s->n; i++)
        y[i] = affine_of(x[i], &f);
}

void cpu_affine(struct ops *o, struct tensor *y, const struct tensor *x, float scale, float offset,
                float low, float high)
{
    struct affine f = {scale, offset, low, high};
    run(o, y, 1, &x, affine_span, &f);
}

CPU_CLONES static void to_u8_span(const struct span *s)
{
    struct affine f = *(const struct affine *)s->ctx;
    uint8_t *restrict y = (uint8_t *)s->p[0];
    const float *x = IN(s, 1);
    for (int64_t i = 0; i < s->n; i++) {
        float v = affine_of(x[i], &f);
        v = v == v ? v : 0.0f;
        y[i] = (uint8_t)(int)rintf(v * 255.0f);
    }
}

void cpu_to_u8(struct ops *o, struct tensor *y, const struct tensor *x, float scale, float offset)
{
    struct affine f = {scale, offset, 0.0f, 1.0f};
    run(o, y, 1, &x, to_u8_span, &f);
}

CPU_CLONES static void add_to_span(const struct span *s)
{
    float *x = OUT(s);
    const float *y = IN(s, 1);
    for (int64_t i = 0; i < s->n; i++)
        x[i] += y[i];
}

CPU_CLONES static void gated_add_to_span(const struct span *s)
{
    float *x = OUT(s);
    const float *y = IN(s, 1), *gate = IN(s, 2);
    for (int64_t i = 0; i < s->n; i++)
        x[i] += gate[i] * y[i];
}

void cpu_gated_add_to(struct ops *o, struct tensor *x, const struct tensor *gate,
                      const struct tensor *y)
{
    if (!gate) {
        run(o, x, 1, &y, add_to_span, NULL);
        return;
    }
    struct tensor wide = *gate; /* [B|1, C] seen as [B|1, 1, C] */
    wide.rank = 3;
    wide.dims[1] = 1;
    wide.dims[2] = gate->dims[1];
    wide.strides[2] = gate->strides[1];
    run(o, x, 2, (const struct tensor *const[]){y, &wide}, gated_add_to_span, NULL);
}

struct combine {
    const float *coefficients;
    int count;
};

#define COMBINE_BLOCK 512

/* Through a block of sums, because a term may be the result itself. */
CPU_CLONES static void combine_span(const struct span *s)
{
    const struct combine *c = s->ctx;
    float sum[COMBINE_BLOCK];
    for (int64_t start = 0; start < s->n; start += COMBINE_BLOCK) {
        int64_t n = s->n - start < COMBINE_BLOCK ? s->n - start : COMBINE_BLOCK;
        for (int k = 0; k < c->count; k++) {
            const float *term = IN(s, k + 1) + start;
            float f = c->coefficients[k];
            for (int64_t i = 0; i < n; i++)
                sum[i] = k == 0 ? f * term[i] : sum[i] + f * term[i];
        }
        memcpy(OUT(s) + start, sum, (size_t)n * sizeof *sum);
    }
}

void cpu_combine_to(struct ops *o, struct tensor *x, const struct tensor *const *terms,
                    const float *coefficients, int count)
{
    struct combine c = {coefficients, count};
    run(o, x, count, terms, combine_span, &c);
}
