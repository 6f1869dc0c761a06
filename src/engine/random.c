#include "engine/random.h"

#include <math.h>
#include <string.h>

/* The bits of torch's noise depend on the rounding of every product and sum below, so none of them
 * may be fused behind our back; where torch fuses, fmaf() says so. gcc fuses nothing in C11
 * mode. */
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

/* The same source compiled twice; the bits are equal, the clone with fused hardware is faster.
 * The choice is made before the sanitizers' run time is up, so sanitized builds do without. */
#if defined(__x86_64__) && !defined(__clang__) && __GNUC__ >= 12 &&                                \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define VECTORISED __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define VECTORISED
#endif

enum { STATE = 624, MIDDLE = 397, LANES = 8, BLOCK = 2 * LANES };

/* ---- MT19937: Matsumoto and Nishimura 1998 ---- */

void random_seed(struct random *r, uint64_t seed)
{
    r->state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < STATE; i++)
        r->state[i] = 1812433253u * (r->state[i - 1] ^ r->state[i - 1] >> 30) + i;
    r->next = STATE;
    r->has_spare = false;
    r->spare = 0;
}

static inline uint32_t twist(uint32_t upper, uint32_t lower, uint32_t far)
{
    uint32_t joined = (upper & 0x80000000u) | (lower & 0x7FFFFFFFu);
    return far ^ joined >> 1 ^ ((lower & 1) ? 0x9908B0DFu : 0);
}

static void refill(struct random *r)
{
    uint32_t *s = r->state;
    for (int i = 0; i < STATE - MIDDLE; i++)
        s[i] = twist(s[i], s[i + 1], s[i + MIDDLE]);
    for (int i = STATE - MIDDLE; i < STATE - 1; i++)
        s[i] = twist(s[i], s[i + 1], s[i + MIDDLE - STATE]);
    s[STATE - 1] = twist(s[STATE - 1], s[0], s[MIDDLE - 1]);
    r->next = 0;
}

static inline uint32_t next32(struct random *r)
{
    if (r->next >= STATE)
        refill(r);
    uint32_t y = r->state[r->next++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9D2C5680u;
    y ^= y << 15 & 0xEFC60000u;
    return y ^ y >> 18;
}

/* ---- n < 16: Box-Muller in doubles, one pair at a time ---- */

static double uniform_double(struct random *r)
{
    uint64_t high = next32(r), low = next32(r);
    return (double)((high << 32 | low) & ((UINT64_C(1) << 53) - 1)) * 0x1p-53;
}

static double normal_double(struct random *r)
{
    if (r->has_spare) {
        r->has_spare = false;
        return r->spare;
    }
    double u1 = uniform_double(r), u2 = uniform_double(r);
    double radius = sqrt(-2.0 * log1p(-u2)), angle = 2.0 * 3.14159265358979323846 * u1;
    r->spare = radius * sin(angle);
    r->has_spare = true;
    return radius * cos(angle);
}

/* ---- n >= 16: Box-Muller in floats on blocks of 16 ---- */

/* The two functions below are the single-precision approximations of Cephes (Moshier, logf.c and
 * sinf.c), as torch's AVX2 build evaluates them: same order, same fused steps, hence the same bits.
 */

/* Natural logarithm of x in [2^-24, 1]. */
static inline float log_unit(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    float e = (float)((int32_t)(bits >> 23) - 126);
    bits = (bits & 0x007FFFFFu) | 0x3F000000u; /* the mantissa as a number in [0.5, 1) */
    float m;
    memcpy(&m, &bits, sizeof m);
    float low = m < 0.707106781186547524f ? 1.0f : 0.0f;
    e -= low;
    float f = (m - 1.0f) + low * m;
    float y = 7.0376836292E-2f;
    y = fmaf(y, f, -1.1514610310E-1f);
    y = fmaf(y, f, 1.1676998740E-1f);
    y = fmaf(y, f, -1.2420140846E-1f);
    y = fmaf(y, f, 1.4249322787E-1f);
    y = fmaf(y, f, -1.6668057665E-1f);
    y = fmaf(y, f, 2.0000714765E-1f);
    y = fmaf(y, f, -2.4999993993E-1f);
    y = fmaf(y, f, 3.3333331174E-1f);
    float z = f * f;
    y = fmaf(y * f, z, e * -2.12194440e-4f);
    y = fmaf(z, -0.5f, y);
    return fmaf(e, 0.693359375f, f + y);
}

/* Sine and cosine of x in [0, 2π). */
static inline void sincos_turn(float x, float *sine, float *cosine)
{
    int32_t octant = ((int32_t)(x * 1.27323954473516f) + 1) & ~1; /* 4/π, rounded up to even */
    float k = (float)octant;
    x = fmaf(k, -0.78515625f, x); /* x − octant·π/4, with π/4 in three parts */
    x = fmaf(k, -2.4187564849853515625e-4f, x);
    x = fmaf(k, -3.77489497744594108e-8f, x);
    float z = x * x;
    float c = fmaf(2.443315711809948E-005f, z, -1.388731625493765E-003f);
    c = fmaf(c, z, 4.166664568298827E-002f);
    c = fmaf(c * z, z, -(z * 0.5f)) + 1.0f;
    float s = fmaf(-1.9515295891E-4f, z, 8.3321608736E-3f);
    s = fmaf(s, z, -1.6666654611E-1f);
    s = fmaf(s * z, x, x);
    bool swap = octant & 2;
    float a = swap ? c : s, b = swap ? s : c;
    *sine = octant & 4 ? -a : a;
    *cosine = (octant + 2) & 4 ? -b : b;
}

/* In place: 16 uniforms in [0, 1) → 16 normals; value i and i + 8 come from one pair. */
static inline void box_muller(float *data)
{
    for (int i = 0; i < LANES; i++) {
        float radius = sqrtf(-2.0f * log_unit(1.0f - data[i]));
        float sine, cosine;
        sincos_turn(6.28318530717958647692f * data[i + LANES], &sine, &cosine);
        data[i] = radius * cosine;
        data[i + LANES] = radius * sine;
    }
}

static VECTORISED void box_muller_blocks(float *data, size_t blocks)
{
    for (size_t i = 0; i < blocks; i++)
        box_muller(data + i * BLOCK);
}

static void uniform_floats(struct random *r, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (float)(next32(r) & 0xFFFFFF) * 0x1p-24f;
}

void random_normal(struct random *r, float *out, size_t n)
{
    if (n < BLOCK) {
        for (size_t i = 0; i < n; i++)
            out[i] = (float)normal_double(r);
        return;
    }
    uniform_floats(r, out, n);
    box_muller_blocks(out, n / BLOCK);
    if (n % BLOCK) { /* the last 16 values are drawn again, over some that are done */
        uniform_floats(r, out + n - BLOCK, BLOCK);
        box_muller_blocks(out + n - BLOCK, 1);
    }
}

/* To nearest, ties to even; the values are finite. */
static float round_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000u;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Unlike fp32, low precisions draw block by block, so a tail of n % 16 takes the numbers after the
 * last whole block. */
void random_normal_bf16(struct random *r, float *out, size_t n)
{
    if (n < BLOCK) {
        random_normal(r, out, n);
    } else {
        size_t whole = n / BLOCK * BLOCK;
        uniform_floats(r, out, whole);
        box_muller_blocks(out, whole / BLOCK);
        if (whole != n) {
            float *tail = out + n - BLOCK;
            uniform_floats(r, tail, BLOCK);
            box_muller_blocks(tail, 1);
        }
    }
    for (size_t i = 0; i < n; i++)
        out[i] = round_bf16(out[i]);
}
