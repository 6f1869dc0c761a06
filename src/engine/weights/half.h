/* 16-bit floats to fp32, exactly. */
#ifndef OMNI_HALF_H
#define OMNI_HALF_H

#include <stdint.h>
#include <string.h>

static inline float float_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline float bfloat_to_float(uint16_t h)
{
    return float_of_bits((uint32_t)h << 16);
}

static inline float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7FFF;
    if (rest >= 0x7C00) /* infinity, NaN */
        return float_of_bits(sign | 0x7F800000u | rest << 13);
    if (rest < 0x0400) /* zero, subnormal: rest · 2^-24 */
        return (sign ? -1.0f : 1.0f) * (float)rest * 0x1p-24f;
    return float_of_bits(sign | ((rest << 13) + 0x38000000u));
}

/* Round to nearest even; NaN stays NaN. */
static inline uint16_t float_to_bfloat(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1)) >> 16);
}

#endif
