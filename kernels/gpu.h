/* What kernels are written in: CUDA under nvcc, and under a host compiler the same source as plain
 * C++, so that every kernel is run and checked where there is no GPU.
 *
 * In the emulation a grid is a loop over blocks. The threads of a block run one after the other
 * when the kernel was launched with LAUNCH, and as fibers when it was launched with LAUNCH_SYNC,
 * which kernels with barriers or shuffles need. The order of threads is forward, backward or drawn
 * from a seed (emulated.h), shared memory starts as NaN and ends where it was declared to end
 * (address sanitizer), and threads that miss a barrier are reported.
 *
 *     __global__ void twice(float *y, const float *x, int64_t n) {...}
 *     LAUNCH(blocks, 256, 0, stream, twice)(y, x, n);
 *     LAUNCH_SYNC(blocks, 256, bytes_of_dynamic_shared, stream, sums<float, 4>)(y, x, n);
 */
#ifndef OMNI_GPU_H
#define OMNI_GPU_H

#include <stddef.h>
#include <stdint.h>

typedef struct CUstream_st *gpu_stream;

#define GPU_WARP 32
#define GPU_FULL 0xFFFFFFFFu /* every lane takes part in shuffles, always */
/* More dynamic shared memory than this needs gpu_allow_shared; no kernel takes more than the
 * second, which every supported GPU has. */
#define GPU_SHARED_FREE (48 << 10)
#define GPU_SHARED_MOST (99 << 10)

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#define GPU_INLINE      __host__ __device__ __forceinline__
#define GPU_UNROLL      _Pragma("unroll")
#define GPU_BOUNDS(...) __launch_bounds__(__VA_ARGS__)
#define LAUNCH(grid, block, shared, stream, ...)                                                   \
    __VA_ARGS__<<<(grid), (block), (shared), (stream)>>>
#define LAUNCH_SYNC LAUNCH
/* SHARED(tile, float[16][17]); */
#define SHARED(name, ...)                                                                          \
    using name##_type = __VA_ARGS__;                                                               \
    __shared__ __align__(16) name##_type name
/* DYNAMIC_SHARED(char, memory): a char * to the bytes given at launch, 16-byte aligned. */
#define DYNAMIC_SHARED(type, name)                                                                 \
    extern __shared__ __align__(16) unsigned char gpu_dynamic[];                                   \
    type *name = reinterpret_cast<type *>(gpu_dynamic)

template <class Kernel> inline void gpu_allow_shared(Kernel *kernel, size_t bytes)
{
    (void)cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                               cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
}

#else /* the emulation */

#include <math.h>
#include <string.h>

#define GPU_EMULATED 1
#define GPU_INLINE   inline
#define GPU_UNROLL
#define GPU_BOUNDS(...)
#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(8) uint2 {
    unsigned x, y;
};

/* ---- emulated.cc ---- */

/* Of the thread that runs now. */
struct gpu_place {
    dim3 thread, block, threads, blocks;
};
extern thread_local gpu_place gpu_now;
#define threadIdx       (gpu_now.thread)
#define blockIdx        (gpu_now.block)
#define blockDim        (gpu_now.threads)
#define gridDim         (gpu_now.blocks)

struct gpu_launch {
    const char *name;
    dim3 grid, block;
    size_t shared;
    bool syncs;
};
void gpu_emulate(const gpu_launch &l, const void *kernel, void (*body)(void *), void *ctx);
/* The same memory for all threads of a block; `key` is the place of the declaration. */
void *gpu_shared(const void *key, size_t bytes);
void *gpu_dynamic_shared(void);
void gpu_barrier(const char *what);
/* Every lane gives `bytes` (at most 64); `all` (once, with the 32 gifts) may change them; every
 * lane gets the gift of lane `from`. */
void gpu_exchange(const char *what, void *gift, size_t bytes, int from,
                  void (*all)(unsigned char (*gifts)[64]));
void gpu_allow(const void *kernel, size_t bytes);
int gpu_lane(void);

template <class... P> struct gpu_call {
    gpu_launch launch;
    void (*kernel)(P...);
    template <class... A> void operator()(A... a) const
    {
        void (*run)(P...) = kernel;
        auto body = [&] { run(static_cast<P>(a)...); };
        gpu_emulate(
            launch, reinterpret_cast<const void *>(run),
            [](void *ctx) { (*static_cast<decltype(body) *>(ctx))(); }, &body);
    }
};
template <class... P>
gpu_call<P...> gpu_called(const char *name, dim3 grid, dim3 block, size_t shared, bool syncs,
                          void (*kernel)(P...))
{
    return {{name, grid, block, shared, syncs}, kernel};
}
#define LAUNCH(grid, block, shared, stream, ...)                                                   \
    ((void)(stream), gpu_called(#__VA_ARGS__, (grid), (block), (shared), false, __VA_ARGS__))
#define LAUNCH_SYNC(grid, block, shared, stream, ...)                                              \
    ((void)(stream), gpu_called(#__VA_ARGS__, (grid), (block), (shared), true, __VA_ARGS__))
#define SHARED(name, ...)                                                                          \
    using name##_type = __VA_ARGS__;                                                               \
    static const char name##_key = 0;                                                              \
    name##_type &name = *static_cast<name##_type *>(gpu_shared(&name##_key, sizeof(name##_type)))
#define DYNAMIC_SHARED(type, name) type *name = static_cast<type *>(gpu_dynamic_shared())

template <class Kernel> inline void gpu_allow_shared(Kernel *kernel, size_t bytes)
{
    gpu_allow(reinterpret_cast<const void *>(kernel), bytes);
}

/* ---- CUDA's own functions ---- */

#define __syncthreads() gpu_barrier("__syncthreads")
inline void __syncwarp(unsigned = GPU_FULL)
{
    char nothing = 0;
    gpu_exchange("__syncwarp", &nothing, 1, gpu_lane(), nullptr);
}
template <class T> inline T __shfl_sync(unsigned, T value, int from, int width = GPU_WARP)
{
    int lane = gpu_lane();
    gpu_exchange("__shfl_sync", &value, sizeof value, (lane & ~(width - 1)) | (from & (width - 1)),
                 nullptr);
    return value;
}
template <class T> inline T __shfl_xor_sync(unsigned, T value, int mask)
{
    gpu_exchange("__shfl_xor_sync", &value, sizeof value, gpu_lane() ^ mask, nullptr);
    return value;
}
template <class T> inline T __shfl_down_sync(unsigned, T value, unsigned delta)
{
    int from = gpu_lane() + (int)delta;
    gpu_exchange("__shfl_down_sync", &value, sizeof value, from < GPU_WARP ? from : gpu_lane(),
                 nullptr);
    return value;
}
inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}
inline int __float2int_rn(float x) /* to the nearest, halves to even; NaN is 0 */
{
    return x == x ? (int)rintf(x) : 0;
}
template <class T> inline T __ldg(const T *p)
{
    return *p;
}

#endif

/* ---- half types ---- */

/* Bits that kernels keep and move; arithmetic is done in float. */
struct bf16 {
    uint16_t bits;
};
struct f16 {
    uint16_t bits;
};
struct e4m3 { /* sign, 4 bits of exponent, 3 of fraction; no infinity, 0x7F is NaN */
    uint8_t bits;
};

GPU_INLINE uint32_t gpu_float_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}
GPU_INLINE float gpu_bits_float(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

GPU_INLINE float to_float(float x)
{
    return x;
}
GPU_INLINE float to_float(bf16 x)
{
    return gpu_bits_float((uint32_t)x.bits << 16);
}
GPU_INLINE float to_float(f16 x)
{
#ifdef __CUDA_ARCH__
    return __half2float(__ushort_as_half(x.bits));
#else
    uint32_t sign = (uint32_t)(x.bits & 0x8000) << 16, rest = (uint32_t)(x.bits & 0x7FFF) << 13;
    if (rest >= 0x0F800000u) /* infinity and NaN */
        return gpu_bits_float(sign | 0x70000000u | rest);
    /* 2^112 moves the exponent's bias, subnormal numbers too */
    return gpu_bits_float(
        sign | gpu_float_bits(gpu_bits_float(rest) * 5192296858534827628530496329220096.0f));
#endif
}

GPU_INLINE float to_float(e4m3 x)
{
    uint32_t sign = (uint32_t)(x.bits & 0x80) << 24, rest = (uint32_t)(x.bits & 0x7F) << 20;
    if (rest == 0x07F00000u)
        return gpu_bits_float(sign | 0x7FC00000u);
    /* 2^120 moves the exponent's bias, subnormal numbers too */
    return gpu_bits_float(
        sign | gpu_float_bits(gpu_bits_float(rest) * 1329227995784915872903807060280344576.0f));
}

/* To the nearest, halves to even; NaN stays NaN; what is too large for e4m3 becomes its largest,
 * 448. from_float<T>(x). */
template <class T> GPU_INLINE T from_float(float x);
template <> GPU_INLINE float from_float<float>(float x)
{
    return x;
}
template <> GPU_INLINE bf16 from_float<bf16>(float x)
{
#ifdef __CUDA_ARCH__
    return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
#else
    uint32_t u = gpu_float_bits(x);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u)
        return {(uint16_t)(u >> 16 | 0x40)};
    return {(uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16)};
#endif
}
template <> GPU_INLINE f16 from_float<f16>(float x)
{
#ifdef __CUDA_ARCH__
    return {__half_as_ushort(__float2half_rn(x))};
#else
    uint32_t u = gpu_float_bits(x), sign = u >> 16 & 0x8000, rest = u & 0x7FFFFFFFu;
    if (rest > 0x7F800000u)
        return {(uint16_t)(sign | 0x7E00)};
    if (rest >= 0x477FF000u) /* 65520 and more */
        return {(uint16_t)(sign | 0x7C00)};
    if (rest < 0x38800000u) /* subnormal: the addition rounds at 2^-24 */
        return {(uint16_t)(sign | (gpu_float_bits(gpu_bits_float(rest) + 0.5f) - 0x3F000000u))};
    return {(uint16_t)(sign | ((rest - 0x38000000u + 0xFFF + (rest >> 13 & 1)) >> 13))};
#endif
}

template <> GPU_INLINE e4m3 from_float<e4m3>(float x)
{
#ifdef __CUDA_ARCH__
    return {__nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3)};
#else
    uint32_t u = gpu_float_bits(x), sign = u >> 24 & 0x80, rest = u & 0x7FFFFFFFu;
    if (rest > 0x7F800000u)
        return {(uint8_t)(sign | 0x7F)};
    if (rest >= 0x43E00000u) /* 448 and more */
        return {(uint8_t)(sign | 0x7E)};
    if (rest < 0x3C800000u) /* subnormal: the addition rounds at 2^-9 */
        return {(uint8_t)(sign | (gpu_float_bits(gpu_bits_float(rest) + 16384.0f) - 0x46800000u))};
    return {(uint8_t)(sign | ((rest - 0x3C000000u + 0x7FFFF + (rest >> 20 & 1)) >> 20))};
#endif
}

/* Two neighbours of bf16 in a register, the first in the low half. */
GPU_INLINE uint32_t bf16_pair(float low, float high)
{
    return from_float<bf16>(low).bits | (uint32_t)from_float<bf16>(high).bits << 16;
}

/* ---- tensor cores ---- */

/* c[16, 8] += a[16, 16] · b[16, 8] by a warp, bf16 products summed in fp32. With g = lane / 4 and
 * t = lane % 4, a register holds the pair of columns (of a) or rows (of b) that begins at:
 *     a[0] row g, column 2t        a[1] row g + 8, column 2t
 *     a[2] row g, column 2t + 8    a[3] row g + 8, column 2t + 8
 *     b[0] row 2t, column g        b[1] row 2t + 8, column g
 *     c[0], c[1] row g, columns 2t, 2t + 1      c[2], c[3] row g + 8, the same columns */
#ifdef __CUDACC__
__device__ __forceinline__ void mma_m16n8k16(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#else
struct gpu_fragments { /* of one lane: [down], [across], [down][across] of them */
    const uint32_t *a, *b;
    float *c;
    int down, across;
};
void gpu_multiply(unsigned char (*gifts)[64]); /* the twin, over the fragments of 32 lanes */
#endif

/* All of c[i][j] += a[i] · b[j]. */
template <int Down, int Across>
__device__ __forceinline__ void mma_tiles(float (&c)[Down][Across][4], const uint32_t (&a)[Down][4],
                                          const uint32_t (&b)[Across][2])
{
#ifdef __CUDACC__
    GPU_UNROLL
    for (int i = 0; i < Down; i++) {
        GPU_UNROLL
        for (int j = 0; j < Across; j++)
            mma_m16n8k16(c[i][j], a[i], b[j]);
    }
#else
    gpu_fragments f = {&a[0][0], &b[0][0], &c[0][0][0], Down, Across};
    gpu_exchange("mma_tiles", &f, sizeof f, gpu_lane(), gpu_multiply);
#endif
}

/* ---- sums of a warp and of a block, the same bits in every thread and every run ---- */

template <class T> __device__ __forceinline__ T warp_sum(T x)
{
    GPU_UNROLL
    for (int mask = GPU_WARP / 2; mask > 0; mask /= 2)
        x += __shfl_xor_sync(GPU_FULL, x, mask);
    return x;
}
template <class T> __device__ __forceinline__ T warp_max(T x)
{
    GPU_UNROLL
    for (int mask = GPU_WARP / 2; mask > 0; mask /= 2) {
        T other = __shfl_xor_sync(GPU_FULL, x, mask);
        x = other > x ? other : x;
    }
    return x;
}
/* All threads of a block (blockDim.x, a multiple of 32); safe to call again at once. */
template <class T> __device__ __forceinline__ T block_sum(T x)
{
    SHARED(parts, T[GPU_WARP]);
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP;
    int warps = (int)blockDim.x / GPU_WARP;
    x = warp_sum(x);
    if (lane == 0)
        parts[warp] = x;
    __syncthreads();
    x = lane < warps ? parts[lane] : T(0);
    x = warp_sum(x);
    __syncthreads();
    return x;
}

#endif
