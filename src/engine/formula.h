/* Numbers that follow from their place: what synthetic weights are made of, on the CPU and, without
 * a byte from there, on a device. Both give the same bits: products with powers of two are exact,
 * and what remains is one rounding each, fused or not. */
#ifndef OMNI_FORMULA_H
#define OMNI_FORMULA_H

#include <stdint.h>

#ifdef __CUDACC__
#define FORMULA_FUNCTION static __host__ __device__ inline
#else
#define FORMULA_FUNCTION static inline
#endif

/* Value i of a tensor is that of place i % period. */
struct formula {
    float base, scale; /* base ± scale */
    uint32_t seed;
    int64_t period; /* 0: there is no formula */
};

/* The finishing mix of MurmurHash3 (Appleby, public domain) over the place, as a number from -1 to
 * below 1, scaled. */
FORMULA_FUNCTION float formula_value(const struct formula *f, uint32_t place)
{
    uint32_t x = place ^ f->seed;
    x = (x ^ x >> 16) * 0x85EBCA6Bu;
    x = (x ^ x >> 13) * 0xC2B2AE35u;
    x ^= x >> 16;
    return f->base + f->scale * (float)(int32_t)x * 4.656612873077393e-10f; /* 2^-31 */
}

#endif
