#include "engine/weights/quant.h"

#include <string.h>

#include "base/cleanup.h"
#include "engine/weights/half.h"

static float half_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return half_to_float(h);
}

/* f16 d; i8 q[32]: d·q. */
static void expand_q8_0(const void *blocks, int64_t values, float *out)
{
    const uint8_t *p = blocks;
    for (int64_t b = 0; b < values / 32; b++, p += 34, out += 32) {
        float d = half_at(p);
        for (int i = 0; i < 32; i++)
            out[i] = d * (float)(int8_t)p[2 + i];
    }
}

/* f16 d; 16 bytes: the low nibble is value i, the high one i + 16; d·(q - 8). */
static void expand_q4_0(const void *blocks, int64_t values, float *out)
{
    const uint8_t *p = blocks;
    for (int64_t b = 0; b < values / 32; b++, p += 18, out += 32) {
        float d = half_at(p);
        for (int i = 0; i < 16; i++) {
            out[i] = d * (float)((p[2 + i] & 15) - 8);
            out[i + 16] = d * (float)((p[2 + i] >> 4) - 8);
        }
    }
}

/* f16 d, f16 m; nibbles as in Q4_0: d·q + m. */
static void expand_q4_1(const void *blocks, int64_t values, float *out)
{
    const uint8_t *p = blocks;
    for (int64_t b = 0; b < values / 32; b++, p += 20, out += 32) {
        float d = half_at(p), m = half_at(p + 2);
        for (int i = 0; i < 16; i++) {
            out[i] = d * (float)(p[4 + i] & 15) + m;
            out[i + 16] = d * (float)(p[4 + i] >> 4) + m;
        }
    }
}

/* One block of 32 whose values have a fifth bit, value i's at bit i of `high`: d·(q - zero) + m. */
static void expand_five(const uint8_t *high, float d, float m, int zero, float *out)
{
    const uint8_t *low = high + 4;
    for (int i = 0; i < 16; i++) {
        int first = (low[i] & 15) | (high[i / 8] >> i % 8 & 1) << 4;
        int second = low[i] >> 4 | (high[2 + i / 8] >> i % 8 & 1) << 4;
        out[i] = d * (float)(first - zero) + m;
        out[i + 16] = d * (float)(second - zero) + m;
    }
}

/* f16 d; fifth bits [4]; nibbles [16]. */
static void expand_q5_0(const void *blocks, int64_t values, float *out)
{
    const uint8_t *p = blocks;
    for (int64_t b = 0; b < values / 32; b++, p += 22, out += 32)
        expand_five(p + 2, half_at(p), 0, 16, out);
}

/* f16 d, f16 m; fifth bits [4]; nibbles [16]. */
static void expand_q5_1(const void *blocks, int64_t values, float *out)
{
    const uint8_t *p = blocks;
    for (int64_t b = 0; b < values / 32; b++, p += 24, out += 32)
        expand_five(p + 4, half_at(p), half_at(p + 2), 0, out);
}

/* scales[16], each a scale (low nibble) and a minimum (high); q[64]; f16 d, f16 dmin. A half of 128
 * values takes 32 bytes, which hold four runs of 32, two bits each; 16 values share a scale. */
static void expand_q2_k(const void *blocks, int64_t values, float *out)
{
    const uint8_t *p = blocks;
    for (int64_t b = 0; b < values / 256; b++, p += 84) {
        float d = half_at(p + 80), dmin = half_at(p + 82);
        for (int run = 0; run < 8; run++, out += 32) {
            const uint8_t *q = p + 16 + 32 * (run / 4), *scales = p + 2 * run;
            for (int i = 0; i < 32; i++) {
                uint8_t s = scales[i / 16];
                out[i] = d * (float)(s & 15) * (float)(q[i] >> 2 * (run % 4) & 3) -
                         dmin * (float)(s >> 4);
            }
        }
    }
}

/* Scale j of Q3_K: sixteen of 6 bits, low nibbles first, from 12 bytes. */
static float scale_of_three(const uint8_t *s, int j)
{
    int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
    return (float)((low | (s[8 + j % 4] >> 2 * (j / 4) & 3) << 4) - 32);
}

/* high[32]: bit `run` of byte i is the third bit of value i of that run; q[64] as in Q2_K;
 * scales[12]; f16 d: d·scale·(q - 4). */
static void expand_q3_k(const void *blocks, int64_t values, float *out)
{
    const uint8_t *p = blocks;
    for (int64_t b = 0; b < values / 256; b++, p += 110) {
        float d = half_at(p + 108);
        for (int run = 0; run < 8; run++, out += 32) {
            const uint8_t *q = p + 32 + 32 * (run / 4);
            for (int i = 0; i < 32; i++) {
                int v = (q[i] >> 2 * (run % 4) & 3) | (p[i] >> run & 1) << 2;
                out[i] = d * scale_of_three(p + 96, 2 * run + i / 16) * (float)(v - 4);
            }
        }
    }
}

/* Scale and minimum j of a K block: eight pairs of 6 bits in 12 bytes. */
static void scale_and_min(const uint8_t *s, int j, float *scale, float *min)
{
    int sc, m;
    if (j < 4) {
        sc = s[j] & 63;
        m = s[j + 4] & 63;
    } else {
        sc = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        m = (s[j + 4] >> 4) | (s[j] >> 6) << 4;
    }
    *scale = (float)sc;
    *min = (float)m;
}

/* 256 values of Q4_K or, with the fifth bits in `high`, of Q5_K: d·scale·q - dmin·min. */
static void expand_k(const uint8_t *head, const uint8_t *low, const uint8_t *high, float *out)
{
    float d = half_at(head), dmin = half_at(head + 2);
    for (int j = 0; j < 8; j++, out += 32) {
        float scale, min;
        scale_and_min(head + 4, j, &scale, &min);
        float step = d * scale, floor = dmin * min;
        const uint8_t *q = low + 32 * (j / 2); /* two runs of 32 share 32 bytes */
        for (int i = 0; i < 32; i++) {
            int v = j % 2 ? q[i] >> 4 : q[i] & 15;
            if (high)
                v += (high[i] >> j & 1) << 4;
            out[i] = step * (float)v - floor;
        }
    }
}

static void expand_q4_k(const void *blocks, int64_t values, float *out)
{
    const uint8_t *p = blocks;
    for (int64_t b = 0; b < values / 256; b++, p += 144, out += 256)
        expand_k(p, p + 16, NULL, out);
}

static void expand_q5_k(const void *blocks, int64_t values, float *out)
{
    const uint8_t *p = blocks;
    for (int64_t b = 0; b < values / 256; b++, p += 176, out += 256)
        expand_k(p, p + 48, p + 16, out);
}

/* ql[128], qh[64], i8 scales[16], f16 d: per half, value l of run k takes 4 bits of ql, 2 of qh. */
static void expand_q6_k(const void *blocks, int64_t values, float *out)
{
    const uint8_t *p = blocks;
    for (int64_t b = 0; b < values / 256; b++, p += 210) {
        float d = half_at(p + 208);
        for (int half = 0; half < 2; half++, out += 128) {
            const uint8_t *ql = p + 64 * half, *qh = p + 128 + 32 * half;
            const int8_t *scales = (const int8_t *)p + 192 + 8 * half;
            for (int k = 0; k < 4; k++)
                for (int l = 0; l < 32; l++) {
                    int low = ql[l + 32 * (k & 1)] >> (k & 2 ? 4 : 0) & 15;
                    int q = (low | (qh[l] >> 2 * k & 3) << 4) - 32;
                    out[32 * k + l] = d * (float)scales[2 * k + l / 16] * (float)q;
                }
        }
    }
}

static const struct quant_type types[] = {
    {0, "F32", 1, 4, true, DTYPE_F32, NULL},
    {1, "F16", 1, 2, true, DTYPE_F16, NULL},
    {30, "BF16", 1, 2, true, DTYPE_BF16, NULL},
    {8, "Q8_0", 32, 34, false, DTYPE_F32, expand_q8_0},
    {2, "Q4_0", 32, 18, false, DTYPE_F32, expand_q4_0},
    {3, "Q4_1", 32, 20, false, DTYPE_F32, expand_q4_1},
    {6, "Q5_0", 32, 22, false, DTYPE_F32, expand_q5_0},
    {7, "Q5_1", 32, 24, false, DTYPE_F32, expand_q5_1},
    {10, "Q2_K", 256, 84, false, DTYPE_F32, expand_q2_k},
    {11, "Q3_K", 256, 110, false, DTYPE_F32, expand_q3_k},
    {12, "Q4_K", 256, 144, false, DTYPE_F32, expand_q4_k},
    {13, "Q5_K", 256, 176, false, DTYPE_F32, expand_q5_k},
    {14, "Q6_K", 256, 210, false, DTYPE_F32, expand_q6_k},
    /* Known, so that files that hold them can be listed; not computed. */
    {9, "Q8_1", 32, 40, false, DTYPE_F32, NULL},
    {15, "Q8_K", 256, 292, false, DTYPE_F32, NULL},
    {16, "IQ2_XXS", 256, 66, false, DTYPE_F32, NULL},
    {17, "IQ2_XS", 256, 74, false, DTYPE_F32, NULL},
    {18, "IQ3_XXS", 256, 98, false, DTYPE_F32, NULL},
    {19, "IQ1_S", 256, 50, false, DTYPE_F32, NULL},
    {20, "IQ4_NL", 32, 18, false, DTYPE_F32, NULL},
    {21, "IQ3_S", 256, 110, false, DTYPE_F32, NULL},
    {22, "IQ2_S", 256, 82, false, DTYPE_F32, NULL},
    {23, "IQ4_XS", 256, 136, false, DTYPE_F32, NULL},
    {29, "IQ1_M", 256, 56, false, DTYPE_F32, NULL},
    {34, "TQ1_0", 256, 54, false, DTYPE_F32, NULL},
    {35, "TQ2_0", 256, 66, false, DTYPE_F32, NULL},
    {39, "MXFP4", 32, 17, false, DTYPE_F32, NULL},
    {40, "NVFP4", 64, 36, false, DTYPE_F32, NULL},
    {24, "I8", 1, 1, false, DTYPE_F32, NULL},
    {25, "I16", 1, 2, false, DTYPE_F32, NULL},
    {26, "I32", 1, 4, false, DTYPE_F32, NULL},
    {27, "I64", 1, 8, false, DTYPE_F32, NULL},
    {28, "F64", 1, 8, false, DTYPE_F32, NULL},
};

const struct quant_type *quant_find(uint32_t id)
{
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (types[i].id == id)
            return &types[i];
    return NULL;
}

static void multiply(float *x, int64_t values, float scale)
{
    for (int64_t i = 0; scale != 0 && i < values; i++)
        x[i] *= scale;
}

void quant_values(void (*expand)(const void *blocks, int64_t values, float *out), float scale,
                  const void *blocks, size_t bytes, int64_t values, enum dtype dtype, void *out)
{
    enum { STRETCH = 4 * QUANT_LARGEST_BLOCK };
    float wide[STRETCH];
    if (dtype == DTYPE_F32) {
        expand(blocks, values, out);
        multiply(out, values, scale);
        return;
    }
    for (int64_t i = 0; i < values; i += STRETCH) {
        int64_t n = values - i < STRETCH ? values - i : STRETCH;
        expand((const char *)blocks + (size_t)i * bytes / (size_t)values, n, wide);
        multiply(wide, n, scale);
        for (int64_t k = 0; k < n; k++)
            ((uint16_t *)out)[i + k] = float_to_bfloat(wide[k]);
    }
}
