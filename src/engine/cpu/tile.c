#include "engine/cpu/tile.h"

#include <math.h>
#include <string.h>

#include "engine/cpu/simd.h"

/* One instruction set: vectors of `lanes` floats, and a block of `rows` x `vectors` of them that
 * fills the registers with sums: enough of them in flight to hide the latency of a multiply-add. */
#define DEFINE_PRODUCT(suffix, attribute, lanes, rows, vectors)                                    \
    typedef float vector_##suffix                                                                  \
        __attribute__((vector_size(4 * (lanes)), aligned(4), may_alias));                          \
    attribute static inline __attribute__((always_inline)) void block_##suffix(                    \
        const struct tile_product *p, const float *a, const float *b, float *c, const int wide)    \
    {                                                                                              \
        vector_##suffix sum[rows][vectors];                                                        \
        _Pragma("GCC unroll 8") for (int r = 0; r < (rows); r++)                                   \
            _Pragma("GCC unroll 4") for (int v = 0; v < wide; v++) sum[r][v] =                     \
                (vector_##suffix){0};                                                              \
        for (int64_t k = 0; k < p->k; k++, b += wide * (lanes)) {                                  \
            vector_##suffix column[vectors];                                                       \
            _Pragma("GCC unroll 4") for (int v = 0; v < wide; v++) column[v] =                     \
                *(const vector_##suffix *)(const void *)(b + v * (lanes));                         \
            _Pragma("GCC unroll 8") for (int r = 0; r < (rows); r++)                               \
                _Pragma("GCC unroll 4") for (int v = 0; v < wide; v++) sum[r][v] +=                \
                a[r * p->lda + k] * column[v];                                                     \
        }                                                                                          \
        _Pragma("GCC unroll 8") for (int r = 0; r < (rows); r++)                                   \
            _Pragma("GCC unroll 4") for (int v = 0; v < wide; v++)                                 \
        {                                                                                          \
            vector_##suffix *to = (vector_##suffix *)(void *)(c + r * p->ldc + v * (lanes));       \
            if (p->add)                                                                            \
                sum[r][v] += *to;                                                                  \
            *to = sum[r][v];                                                                       \
        }                                                                                          \
    }                                                                                              \
    attribute static void product_##suffix(const struct tile_product *p)                           \
    {                                                                                              \
        const int64_t width = (vectors) * (lanes);                                                 \
        for (int64_t column = 0; column < p->n; column += width) {                                 \
            const float *a = p->a, *b = (const float *)p->b + column * p->depth;                   \
            for (int64_t row = 0; row < p->m; row += (rows)) {                                     \
                float *c = p->c + row * p->ldc + column;                                           \
                if (p->n - column >= width)                                                        \
                    block_##suffix(p, a + row * p->lda, b, c, vectors);                            \
                else /* panels of two vectors of TILE_COLUMNS: one is left */                      \
                    block_##suffix(p, a + row * p->lda, b, c, 1);                                  \
            }                                                                                      \
        }                                                                                          \
    }

/* Rows of scores in vectors of `lanes`, TILE_COLUMNS of them at a time: compilers leave such loops
 * scalar, for their choices or their results an element. The polynomial is a minimax fit of 2^r on
 * [-0.5, 0.5], relative error 8e-8; adding 1.5·2²³ leaves the nearest integer in the low bits. */
#define DEFINE_ROWS(suffix, attribute, lanes)                                                      \
    typedef int32_t ints_##suffix __attribute__((vector_size(4 * (lanes)), aligned(4)));           \
    attribute static float maximum_##suffix(const float *x, int64_t n)                             \
    {                                                                                              \
        float most[TILE_COLUMNS];                                                                  \
        vector_##suffix at[TILE_COLUMNS / (lanes)];                                                \
        for (int v = 0; v < TILE_COLUMNS / (lanes); v++)                                           \
            at[v] = (vector_##suffix){0} - INFINITY;                                               \
        for (int64_t i = 0; i < n; i += TILE_COLUMNS)                                              \
            for (int v = 0; v < TILE_COLUMNS / (lanes); v++) {                                     \
                vector_##suffix one =                                                              \
                    *(const vector_##suffix *)(const void *)(x + i + v * (lanes));                 \
                ints_##suffix larger = (ints_##suffix)(one > at[v]);                               \
                at[v] = (vector_##suffix)(((ints_##suffix)one & larger) |                          \
                                          ((ints_##suffix)at[v] & ~larger));                       \
            }                                                                                      \
        memcpy(most, at, sizeof most);                                                             \
        return simd_largest(most);                                                                 \
    }                                                                                              \
    attribute static inline                                                                        \
        __attribute__((always_inline)) void weights_of_##suffix(vector_##suffix *x)                \
    {                                                                                              \
        vector_##suffix shifted = *x + 12582912.0f, r = *x - (shifted - 12582912.0f);              \
        vector_##suffix p = r * 1.32764717e-3f + 9.67554154e-3f;                                   \
        p = p * r + 5.55071328e-2f;                                                                \
        p = p * r + 2.40221197e-1f;                                                                \
        p = p * r + 6.93146967e-1f;                                                                \
        p = p * r + 1.00000007f;                                                                   \
        p *= (vector_##suffix)(((ints_##suffix)shifted << 23) + (127 << 23));                      \
        ints_##suffix gone = (ints_##suffix)(*x < -126.0f);                                        \
        *x = (vector_##suffix)((ints_##suffix)p & ~gone);                                          \
    }                                                                                              \
    attribute static float weights_##suffix(void *y, const float *x, int64_t n, float maximum)     \
    {                                                                                              \
        float sum[TILE_COLUMNS];                                                                   \
        vector_##suffix sums[TILE_COLUMNS / (lanes)] = {{0}};                                      \
        for (int64_t i = 0; i < n; i += TILE_COLUMNS)                                              \
            for (int v = 0; v < TILE_COLUMNS / (lanes); v++) {                                     \
                int64_t at = i + v * (lanes);                                                      \
                vector_##suffix w = *(const vector_##suffix *)(const void *)(x + at) - maximum;    \
                weights_of_##suffix(&w);                                                           \
                *(vector_##suffix *)(void *)((float *)y + at) = w;                                 \
                sums[v] += w;                                                                      \
            }                                                                                      \
        memcpy(sum, sums, sizeof sum);                                                             \
        return simd_sum(sum);                                                                      \
    }

DEFINE_PRODUCT(plain, , 4, 4, 2)
DEFINE_ROWS(plain, , 4)

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET_AVX2   __attribute__((target("avx2,fma")))
#define TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,fma")))
#define TARGET_BF16   __attribute__((target("avx512f,avx512bw,avx512vl,fma,avx512bf16")))

DEFINE_PRODUCT(avx2, TARGET_AVX2, 8, 6, 2)
DEFINE_ROWS(avx2, TARGET_AVX2, 8)
DEFINE_PRODUCT(avx512, TARGET_AVX512, 16, 8, 2)
DEFINE_ROWS(avx512, TARGET_AVX512, 16)

TARGET_BF16 static inline __attribute__((always_inline)) void
block_bf16(const struct tile_product *p, const uint16_t *a, const uint16_t *b, float *c,
           const int wide)
{
    __m512 sum[8][2];
    _Pragma("GCC unroll 8") for (int r = 0; r < 8; r++)
        _Pragma("GCC unroll 2") for (int v = 0; v < wide; v++) sum[r][v] = _mm512_setzero_ps();
    for (int64_t k = 0; k < p->k; k += 2, b += 32 * wide) {
        __m512bh column_pairs[2];
        _Pragma("GCC unroll 2") for (int v = 0; v < wide; v++) column_pairs[v] =
            (__m512bh)_mm512_loadu_si512(b + 32 * v);
        _Pragma("GCC unroll 8") for (int r = 0; r < 8; r++)
        {
            int pair;
            memcpy(&pair, a + r * p->lda + k, sizeof pair);
            __m512bh row_pair = (__m512bh)_mm512_set1_epi32(pair);
            _Pragma("GCC unroll 2") for (int v = 0; v < wide; v++) sum[r][v] =
                _mm512_dpbf16_ps(sum[r][v], row_pair, column_pairs[v]);
        }
    }
    _Pragma("GCC unroll 8") for (int r = 0; r < 8; r++)
        _Pragma("GCC unroll 2") for (int v = 0; v < wide; v++)
    {
        float *to = c + r * p->ldc + 16 * v;
        _mm512_storeu_ps(to, p->add ? _mm512_add_ps(_mm512_loadu_ps(to), sum[r][v]) : sum[r][v]);
    }
}

TARGET_BF16 static void product_bf16(const struct tile_product *p)
{
    for (int64_t column = 0; column < p->n; column += 32) {
        const uint16_t *a = p->a, *b = (const uint16_t *)p->b + column * p->depth;
        for (int64_t row = 0; row < p->m; row += 8) {
            float *c = p->c + row * p->ldc + column;
            if (p->n - column >= 32)
                block_bf16(p, a + row * p->lda, b, c, 2);
            else
                block_bf16(p, a + row * p->lda, b, c, 1);
        }
    }
}

TARGET_BF16 static float weights_bf16(void *y, const float *x, int64_t n, float maximum)
{
    float sum[TILE_COLUMNS];
    vector_avx512 sums = {0};
    for (int64_t i = 0; i < n; i += TILE_COLUMNS) {
        vector_avx512 w = *(const vector_avx512 *)(const void *)(x + i) - maximum;
        weights_of_avx512(&w);
        __m256bh halves = _mm512_cvtneps_pbh((__m512)w);
        memcpy((uint16_t *)y + i, &halves, sizeof halves);
        sums += w;
    }
    memcpy(sum, &sums, sizeof sum);
    return simd_sum(sum);
}
#endif

/* A row of the table. */
#define KERNELS(name, suffix, rows, columns, product, weights)                                     \
    ((struct tile_kernels){name, rows, columns, product_##suffix, product, maximum_##suffix,       \
                           weights_##suffix, weights})

int tile_kernels_here(struct tile_kernels *out, int max)
{
    int n = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512vl");
    if (n < max && wide && __builtin_cpu_supports("avx512bf16"))
        out[n++] = KERNELS("avx512_bf16", avx512, 8, 32, product_bf16, weights_bf16);
    if (n < max && wide)
        out[n++] = KERNELS("avx512", avx512, 8, 32, NULL, NULL);
    if (n < max && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        out[n++] = KERNELS("avx2", avx2, 6, 16, NULL, NULL);
#endif
    if (n < max)
        out[n++] = KERNELS("plain", plain, 4, 8, NULL, NULL);
    return n;
}
