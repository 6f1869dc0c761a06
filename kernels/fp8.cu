/* 8-bit floats (e4m3): an item's values divided by a scale that makes the largest of them 448.
 *
 * Two passes: the largest magnitude of each block of threads, and then every block takes the
 * largest of these, whose order does not matter. Infinity gives a scale of infinity and values of
 * zero and NaN: NaN in all of the item's products. */
#include "kernels/kernel.h"

#define MOST    448.0f /* of e4m3 */
#define LEAST   0x1p-100f
#define THREADS 256

__device__ __forceinline__ float block_most(float x)
{
    SHARED(parts, float[GPU_WARP]);
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP;
    x = warp_max(x);
    if (lane == 0)
        parts[warp] = x;
    __syncthreads();
    x = warp_max(lane < THREADS / GPU_WARP ? parts[lane] : 0.0f);
    __syncthreads();
    return x;
}

/* Elements 4i … 4i + 3 of `count` rows that begin at row `top`. */
template <class X>
__device__ __forceinline__ void load_unit(float out[4], const struct rows &x, int64_t top,
                                          int64_t i)
{
    int64_t across = x.width / 4, row = i / across;
    const X *p =
        reinterpret_cast<const X *>(x.data) + rows_offset(x, top + row) + 4 * (i - row * across);
    if (x.by4)
        return load4(out, p);
    GPU_UNROLL
    for (int e = 0; e < 4; e++)
        out[e] = to_float(p[e]);
}

/* peaks[item][block] of `units` fours of elements an item. */
template <class X>
__global__ void find_peaks(float *peaks, struct rows x, int64_t rows, int64_t units)
{
    float most = 0, v[4];
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < units;
         i += (int64_t)gridDim.x * THREADS) {
        load_unit<X>(v, x, blockIdx.y * rows, i);
        GPU_UNROLL
        for (int e = 0; e < 4; e++)
            most = fabsf(v[e]) > most ? fabsf(v[e]) : most;
    }
    most = block_most(most);
    if (threadIdx.x == 0)
        peaks[(int64_t)blockIdx.y * gridDim.x + blockIdx.x] = most;
}

template <class X>
__global__ void round_items(uint32_t *to, float *scales, const float *peaks, struct rows x,
                            int64_t rows, int64_t units)
{
    float most = LEAST, v[4];
    for (unsigned i = threadIdx.x; i < gridDim.x; i += THREADS) {
        float peak = peaks[(int64_t)blockIdx.y * gridDim.x + i];
        most = peak > most ? peak : most;
    }
    most = block_most(most);
    float factor = MOST / most;
    if (blockIdx.x == 0 && threadIdx.x == 0)
        scales[blockIdx.y] = most / MOST;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < units;
         i += (int64_t)gridDim.x * THREADS) {
        uint32_t word = 0;
        load_unit<X>(v, x, blockIdx.y * rows, i);
        GPU_UNROLL
        for (int e = 0; e < 4; e++)
            word |= (uint32_t)from_float<e4m3>(v[e] * factor).bits << (8 * e);
        to[(int64_t)blockIdx.y * units + i] = word;
    }
}

template <class X>
static void run(struct cuda *c, void *to, float *scales, float *peaks, const struct rows &x,
                int64_t items)
{
    int64_t rows = x.count / items, units = rows * (x.width / 4);
    int64_t blocks = (units + THREADS - 1) / THREADS;
    dim3 grid((unsigned)(blocks < FP8_PEAKS ? blocks : FP8_PEAKS), (unsigned)items);
    LAUNCH_SYNC(grid, THREADS, 0, c->stream, find_peaks<X>)(peaks, x, rows, units);
    LAUNCH_SYNC(grid, THREADS, 0, c->stream, round_items<X>)
    (static_cast<uint32_t *>(to), scales, peaks, x, rows, units);
}

void cuda_to_fp8(struct cuda *c, void *to, float *scales, float *peaks, const struct tensor *x,
                 int64_t items)
{
    struct rows rows = rows_of(x);
    if (x->dtype == DTYPE_F32)
        run<float>(c, to, scales, peaks, rows, items);
    else if (x->dtype == DTYPE_BF16)
        run<bf16>(c, to, scales, peaks, rows, items);
    else
        run<f16>(c, to, scales, peaks, rows, items);
}
