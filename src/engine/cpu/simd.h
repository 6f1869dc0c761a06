/* Vector code without intrinsics: loops that compilers vectorise, compiled once an instruction set
 * and chosen at run time, and the functions inside them in single precision.
 *
 * Constants: exp from Cephes expf (netlib.org/cephes/single.tgz); tanh and erf are the rational
 * approximations of Eigen (Eigen/src/Core/MathFunctionsImpl.h, generic_fast_tanh_float and
 * generic_fast_erf_float). Errors: exp 1e-7 of the value; tanh and erf 5e-7, and 3e-7 of small
 * values. */
#ifndef OMNI_CPU_SIMD_H
#define OMNI_CPU_SIMD_H

#include <stdint.h>
#include <string.h>

#include "engine/ops.h"

/* Put before a hot function. Sanitizers run before the resolvers of such functions could. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                             \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CPU_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CPU_CLONES
#endif

#define CPU_INLINE static inline __attribute__((always_inline))

CPU_INLINE uint32_t float_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

CPU_INLINE float bits_float(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* exp(x); saturates at about 2.4e38 and 1.2e-38. NaN stays NaN. */
CPU_INLINE float simd_exp(float x)
{
    const float round =
        12582912.0f; /* 1.5·2²³: adding it leaves the nearest integer in the low bits */
    x = x > 88.3762626647949f ? 88.3762626647949f : x;
    x = x < -87.3365478515625f ? -87.3365478515625f : x;
    float shifted = x * 1.44269504088896341f + round;
    float n = shifted - round;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return p * bits_float((float_bits(shifted) << 23) + (127u << 23));
}

CPU_INLINE float simd_sigmoid(float x)
{
    return 1.0f / (1.0f + simd_exp(-x));
}

CPU_INLINE float simd_tanh(float x)
{
    x = x > 7.90531110763549805f ? 7.90531110763549805f : x;
    x = x < -7.90531110763549805f ? -7.90531110763549805f : x;
    float s = x * x, p = -2.76076847742355e-16f;
    p = p * s + 2.00018790482477e-13f;
    p = p * s - 8.60467152213735e-11f;
    p = p * s + 5.12229709037114e-08f;
    p = p * s + 1.48572235717979e-05f;
    p = p * s + 6.37261928875436e-04f;
    p = p * s + 4.89352455891786e-03f;
    float q = 1.19825839466702e-06f;
    q = q * s + 1.18534705686654e-04f;
    q = q * s + 2.26843463243900e-03f;
    q = q * s + 4.89352518554385e-03f;
    return x * p / q;
}

CPU_INLINE float simd_erf(float x)
{
    x = x > 4.0f ? 4.0f : x;
    x = x < -4.0f ? -4.0f : x;
    float s = x * x, p = -2.72614225801306e-10f;
    p = p * s + 2.77068142495902e-08f;
    p = p * s - 2.10102402082508e-06f;
    p = p * s - 5.69250639462346e-05f;
    p = p * s - 7.34990630326855e-04f;
    p = p * s - 2.95459980854025e-03f;
    p = p * s - 1.60960333262415e-02f;
    float q = -1.45660718464996e-05f;
    q = q * s - 2.13374055278905e-04f;
    q = q * s - 1.68282697438203e-03f;
    q = q * s - 7.37332916720468e-03f;
    q = q * s - 1.42647390514189e-02f;
    return x * p / q;
}

/* One activation; `act` is constant in every loop, so that the choice is made outside of it. */
CPU_INLINE float simd_act(float x, enum activation act)
{
    switch (act) {
    case ACT_RELU:
        return x < 0.0f ? 0.0f : x;
    case ACT_SILU:
        return x * simd_sigmoid(x);
    case ACT_GELU:
        return 0.5f * x * (1.0f + simd_erf(x * 0.70710678118654752f));
    case ACT_GELU_TANH:
        return 0.5f * x * (1.0f + simd_tanh(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case ACT_QUICK_GELU:
        return x * simd_sigmoid(1.702f * x);
    case ACT_TANH:
        return simd_tanh(x);
    case ACT_SIGMOID:
        return simd_sigmoid(x);
    case ACT_NONE:
        break;
    }
    return x;
}

/* Runs `CASE(activation)` for the activation at hand: one loop a function, none with a switch in.
 */
#define SIMD_ACT_SWITCH(act, CASE)                                                                 \
    switch (act) {                                                                                 \
    case ACT_NONE:                                                                                 \
        CASE(ACT_NONE) break;                                                                      \
    case ACT_RELU:                                                                                 \
        CASE(ACT_RELU) break;                                                                      \
    case ACT_SILU:                                                                                 \
        CASE(ACT_SILU) break;                                                                      \
    case ACT_GELU:                                                                                 \
        CASE(ACT_GELU) break;                                                                      \
    case ACT_GELU_TANH:                                                                            \
        CASE(ACT_GELU_TANH) break;                                                                 \
    case ACT_QUICK_GELU:                                                                           \
        CASE(ACT_QUICK_GELU) break;                                                                \
    case ACT_TANH:                                                                                 \
        CASE(ACT_TANH) break;                                                                      \
    case ACT_SIGMOID:                                                                              \
        CASE(ACT_SIGMOID) break;                                                                   \
    }

/* Reductions keep this many partial results, so that loops over rows are vectors whatever the
 * instruction set, and give the same bits on all. */
#define SIMD_LANES 16

CPU_INLINE float simd_sum(const float lanes[SIMD_LANES])
{
    float a[8];
    for (int i = 0; i < 8; i++)
        a[i] = lanes[i] + lanes[i + 8];
    return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
}

CPU_INLINE float simd_largest(const float lanes[SIMD_LANES])
{
    float most = lanes[0];
    for (int i = 1; i < SIMD_LANES; i++)
        most = lanes[i] > most ? lanes[i] : most;
    return most;
}

CPU_INLINE float bf16_float(uint16_t h)
{
    return bits_float((uint32_t)h << 16);
}

/* Round to nearest even; NaN stays a quiet NaN. */
CPU_INLINE uint16_t float_bf16(float x)
{
    uint32_t u = float_bits(x), rounded = (u + 0x7FFF + (u >> 16 & 1)) >> 16;
    return (uint16_t)((u & 0x7FFFFFFF) > 0x7F800000 ? (u >> 16 | 0x40) : rounded);
}

CPU_INLINE float f16_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = (uint32_t)(h & 0x7FFF) << 13;
    float scaled = bits_float(rest) * 0x1p112f; /* moves the exponent's bias, subnormals too */
    uint32_t special = rest | 0x7F800000;       /* infinity or NaN */
    return bits_float(sign | ((h & 0x7C00) == 0x7C00 ? special : float_bits(scaled)));
}

uint16_t float_f16(float x); /* round to nearest even; convert.c */

#endif
