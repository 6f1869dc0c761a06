#include "engine/cpu/tile.h"

#include <string.h>

#include "engine/cpu/simd.h"

/* One instruction set: vectors of `lanes` floats, and a block of `rows` x `vectors` of them that
 * fills the registers with sums: enough of them in flight to hide the latency of a multiply-add. */
#define DEFINE_PRODUCT(suffix, attribute, lanes, rows, vectors)                                    \
    typedef float vector_##suffix                                                                  \
        __attribute__((vector_size(4 * (lanes)), aligned(4), may_alias));                          \
    attribute static inline __attribute__((always_inline)) void block_##suffix(                    \
        const struct tile_product *p, int64_t row, int64_t column, const int wide)                 \
    {                                                                                              \
        const float *a = (const float *)p->a + row * p->lda;                                       \
        const float *b = (const float *)p->b + column;                                             \
        float *c = p->c + row * p->ldc + column;                                                   \
        vector_##suffix sum[rows][vectors];                                                        \
        _Pragma("GCC unroll 8") for (int r = 0; r < (rows); r++)                                   \
            _Pragma("GCC unroll 4") for (int v = 0; v < wide; v++) sum[r][v] =                     \
                (vector_##suffix){0};                                                              \
        for (int64_t k = 0; k < p->k; k++, b += p->ldb) {                                          \
            _Pragma("GCC unroll 8") for (int r = 0; r < (rows); r++)                               \
                _Pragma("GCC unroll 4") for (int v = 0; v < wide; v++) sum[r][v] +=                \
                a[r * p->lda + k] * *(const vector_##suffix *)(const void *)(b + v * (lanes));     \
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
        int64_t column = 0, step = (vectors) * (lanes);                                            \
        for (; column + step <= p->n; column += step)                                              \
            for (int64_t row = 0; row < p->m; row += (rows))                                       \
                block_##suffix(p, row, column, vectors);                                           \
        for (; column < p->n; column += (lanes))                                                   \
            for (int64_t row = 0; row < p->m; row += (rows))                                       \
                block_##suffix(p, row, column, 1);                                                 \
    }

DEFINE_PRODUCT(plain, , 4, 4, 2)

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET_AVX2   __attribute__((target("avx2,fma")))
#define TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,fma")))
#define TARGET_BF16   __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))

DEFINE_PRODUCT(avx2, TARGET_AVX2, 8, 4, 2)
DEFINE_PRODUCT(avx512, TARGET_AVX512, 16, 8, 2)

TARGET_BF16 static inline __attribute__((always_inline)) void
block_bf16(const struct tile_product *p, int64_t row, int64_t column, const int wide)
{
    const uint16_t *a = (const uint16_t *)p->a + row * p->lda;
    const uint16_t *b = (const uint16_t *)p->b + 2 * column;
    float *c = p->c + row * p->ldc + column;
    __m512 sum[8][2];
    _Pragma("GCC unroll 8") for (int r = 0; r < 8; r++)
        _Pragma("GCC unroll 2") for (int v = 0; v < wide; v++) sum[r][v] = _mm512_setzero_ps();
    for (int64_t k = 0; k < p->k; k += 2, b += 2 * p->ldb) {
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
    int64_t column = 0;
    for (; column + 32 <= p->n; column += 32)
        for (int64_t row = 0; row < p->m; row += 8)
            block_bf16(p, row, column, 2);
    for (; column < p->n; column += 16)
        for (int64_t row = 0; row < p->m; row += 8)
            block_bf16(p, row, column, 1);
}
#endif

int tile_kernels_here(struct tile_kernels *out, int max)
{
    int n = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512vl");
    if (n < max && wide && __builtin_cpu_supports("avx512bf16"))
        out[n++] = (struct tile_kernels){"avx512_bf16", product_avx512, product_bf16};
    if (n < max && wide)
        out[n++] = (struct tile_kernels){"avx512", product_avx512, NULL};
    if (n < max && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        out[n++] = (struct tile_kernels){"avx2", product_avx2, NULL};
#endif
    if (n < max)
        out[n++] = (struct tile_kernels){"plain", product_plain, NULL};
    return n;
}
