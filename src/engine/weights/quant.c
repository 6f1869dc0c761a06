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
    {12, "Q4_K", 256, 144, false, DTYPE_F32, expand_q4_k},
    {13, "Q5_K", 256, 176, false, DTYPE_F32, expand_q5_k},
    {14, "Q6_K", 256, 210, false, DTYPE_F32, expand_q6_k},
    /* Known, so that files that hold them can be listed; not computed. */
    {3, "Q4_1", 32, 20, false, DTYPE_F32, NULL},
    {6, "Q5_0", 32, 22, false, DTYPE_F32, NULL},
    {7, "Q5_1", 32, 24, false, DTYPE_F32, NULL},
    {10, "Q2_K", 256, 84, false, DTYPE_F32, NULL},
    {11, "Q3_K", 256, 110, false, DTYPE_F32, NULL},
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

void quant_values(void (*expand)(const void *blocks, int64_t values, float *out),
                  const void *blocks, size_t bytes, int64_t values, enum dtype dtype, void *out)
{
    enum { STRETCH = 4 * QUANT_LARGEST_BLOCK };
    float wide[STRETCH];
    if (dtype == DTYPE_F32) {
        expand(blocks, values, out);
        return;
    }
    for (int64_t i = 0; i < values; i += STRETCH) {
        int64_t n = values - i < STRETCH ? values - i : STRETCH;
        expand((const char *)blocks + (size_t)i * bytes / (size_t)values, n, wide);
        for (int64_t k = 0; k < n; k++)
            ((uint16_t *)out)[i + k] = float_to_bfloat(wide[k]);
    }
}
