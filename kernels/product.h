/* Tiled products y[M, N] = act(a[M, K] · w[N, K]ᵀ + bias[N]), for linear.cu and conv.cu, which
 * differ only in where the rows of `a` come from.
 *
 * A block makes a tile of y; its threads load tiles of a and w along K into shared memory, eight
 * elements of a row at a time, while they multiply the tiles before. Sums run along K in one order
 * for every element, whatever its place and the size of tiles, so that items do not influence each
 * other's bits. */
#ifndef OMNI_PRODUCT_H
#define OMNI_PRODUCT_H

#include "kernels/kernel.h"

struct product {
    int64_t m, n, k;
    const void *w; /* dense rows, `pitch` elements apart */
    int64_t pitch;
    bool w_by4;         /* rows of w can be read four elements at a time */
    const float *scale; /* what sums are multiplied with, or NULL */
    const float *bias;  /* or NULL */
    void *y;
    bool narrow_y; /* bf16 */
    enum activation act;
};

#define UNIT 8 /* neighbours along K that a thread loads at a time */

/* Elements k … k + 7 of a row; zeros beyond `end`. */
template <class T>
__device__ __forceinline__ void load_unit(float out[UNIT], const T *row, int64_t k, int64_t end,
                                          bool by4)
{
    GPU_UNROLL
    for (int half = 0; half < UNIT; half += 4) {
        if (by4 && k + half < end) {
            load4(out + half, row + k + half);
            continue;
        }
        GPU_UNROLL
        for (int e = half; e < half + 4; e++)
            out[e] = k + e < end ? to_float(row[k + e]) : 0.0f;
    }
}

/* Row `row` of w; rows beyond N are zero. */
template <class W>
__device__ __forceinline__ void load_weight(float out[UNIT], const product &p, int64_t row,
                                            int64_t k)
{
    int64_t end = row < p.n ? p.k : 0;
    load_unit(out, static_cast<const W *>(p.w) + (row < p.n ? row * p.pitch : 0), k, end, p.w_by4);
}

__device__ __forceinline__ void store_result(const product &p, int64_t row, int64_t column, float v)
{
    if (row >= p.m || column >= p.n)
        return;
    v *= p.scale ? *p.scale : 1.0f;
    v = gpu_act(v + (p.bias ? p.bias[column] : 0.0f), p.act);
    store_some<1>(p.y, row * p.n + column, p.narrow_y, &v);
}

/* ---- fp32: every thread makes 4 × 4 elements of a tile of 64 × 64 ---- */

#define PLAIN_SIDE    64
#define PLAIN_DEPTH   16
#define PLAIN_THREADS 256

/* `Rows` says what `a` is: Rows::row finds a row once, row.load reads a unit of it. */
template <class Rows, class W>
__global__ void GPU_BOUNDS(PLAIN_THREADS) plain_product(product p, Rows rows)
{
    SHARED(a, float[PLAIN_DEPTH][PLAIN_SIDE + 4]);
    SHARED(b, float[PLAIN_DEPTH][PLAIN_SIDE + 4]);
    int thread = (int)threadIdx.x, across = thread % 16 * 4, down = thread / 16 * 4;
    int64_t tiles = (p.n + PLAIN_SIDE - 1) / PLAIN_SIDE;
    int64_t top = blockIdx.x / tiles * PLAIN_SIDE, left = blockIdx.x % tiles * PLAIN_SIDE;
    /* the first half of the threads loads a, the other w: a unit each */
    int line = thread % PLAIN_SIDE, unit = thread / PLAIN_SIDE % 2 * UNIT;
    bool loads_a = thread < PLAIN_THREADS / 2;
    typename Rows::row row = rows.find(top + line, p.m);
    float next[UNIT], sum[4][4] = {};
    for (int64_t k = 0; k < p.k; k += PLAIN_DEPTH) {
        if (loads_a)
            row.load(next, rows, k + unit, p.k);
        else
            load_weight<W>(next, p, left + line, k + unit);
        __syncthreads(); /* nobody reads the tiles before */
        for (int e = 0; e < UNIT; e++)
            (loads_a ? a : b)[unit + e][line] = next[e];
        __syncthreads();
        for (int e = 0; e < PLAIN_DEPTH; e++) {
            float x[4], y[4];
            load4(x, &a[e][down]);
            load4(y, &b[e][across]);
            GPU_UNROLL
            for (int i = 0; i < 4; i++) {
                GPU_UNROLL
                for (int j = 0; j < 4; j++)
                    sum[i][j] += x[i] * y[j];
            }
        }
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            store_result(p, top + down + i, left + across + j, sum[i][j]);
}

/* ---- bf16: tensor cores, eight warps as 2 × 4 ---- */

#define MMA_DEPTH   32 /* of tiles along K */
#define MMA_PITCH   20 /* words of two elements a row: 16 and 4 against bank conflicts */
#define MMA_THREADS 256

/* Writes a unit as four words of two elements. */
__device__ __forceinline__ void store_unit(uint32_t *to, const float in[UNIT])
{
    *reinterpret_cast<uint4 *>(to) = uint4{bf16_pair(in[0], in[1]), bf16_pair(in[2], in[3]),
                                           bf16_pair(in[4], in[5]), bf16_pair(in[6], in[7])};
}

/* One step of 32 along K: this warp's part of the tile. */
template <int Down, int Across>
__device__ __forceinline__ void multiply_tiles(float (&sum)[Down][Across][4], const uint32_t *a,
                                               const uint32_t *b)
{
    int g = (int)threadIdx.x % GPU_WARP / 4, t = (int)threadIdx.x % 4;
    GPU_UNROLL
    for (int k = 0; k < MMA_DEPTH / 2; k += 8) { /* words */
        uint32_t x[Down][4], y[Across][2];
        GPU_UNROLL
        for (int i = 0; i < Down; i++) {
            GPU_UNROLL
            for (int r = 0; r < 4; r++)
                x[i][r] = a[(16 * i + g + 8 * (r % 2)) * MMA_PITCH + k + t + 4 * (r / 2)];
        }
        GPU_UNROLL
        for (int j = 0; j < Across; j++) {
            GPU_UNROLL
            for (int r = 0; r < 2; r++)
                y[j][r] = b[(8 * j + g) * MMA_PITCH + k + t + 4 * r];
        }
        mma_tiles(sum, x, y);
    }
}

/* A tile is Side × Side elements; two of them in shared memory take turns. */
template <class Rows, class W, int Side>
__global__ void GPU_BOUNDS(MMA_THREADS) mma_product(product p, Rows rows)
{
    enum { DOWN = Side / 32, ACROSS = Side / 32, LOADS = Side / 64 };
    SHARED(a, uint32_t[2][Side * MMA_PITCH]);
    SHARED(b, uint32_t[2][Side * MMA_PITCH]);
    int thread = (int)threadIdx.x, warp = thread / GPU_WARP;
    int64_t tiles = (p.n + Side - 1) / Side;
    int64_t top = blockIdx.x / tiles * Side, left = blockIdx.x % tiles * Side;
    int line = thread / 4, unit = thread % 4; /* of 64 lines at a time */
    int down = warp / 4 * (Side / 2), across = warp % 4 * (Side / 4);
    typename Rows::row row[LOADS];
    float sum[DOWN][ACROSS][4] = {}, x[LOADS][UNIT], y[LOADS][UNIT];
    GPU_UNROLL
    for (int i = 0; i < LOADS; i++)
        row[i] = rows.find(top + line + 64 * i, p.m);
    int turn = 0;
    for (int64_t k = 0;; k += MMA_DEPTH, turn ^= 1) {
        if (k < p.k) {
            GPU_UNROLL
            for (int i = 0; i < LOADS; i++) {
                row[i].load(x[i], rows, k + unit * UNIT, p.k);
                load_weight<W>(y[i], p, left + line + 64 * i, k + unit * UNIT);
            }
        }
        if (k > 0) /* while those come */
            multiply_tiles(sum, a[turn ^ 1] + down * MMA_PITCH, b[turn ^ 1] + across * MMA_PITCH);
        if (k >= p.k)
            break;
        GPU_UNROLL
        for (int i = 0; i < LOADS; i++) {
            int at = (line + 64 * i) * MMA_PITCH + unit * 4;
            store_unit(a[turn] + at, x[i]);
            store_unit(b[turn] + at, y[i]);
        }
        __syncthreads();
    }
    int g = thread % GPU_WARP / 4, t = thread % 4;
    GPU_UNROLL
    for (int i = 0; i < DOWN; i++) {
        GPU_UNROLL
        for (int j = 0; j < ACROSS; j++) {
            GPU_UNROLL
            for (int r = 0; r < 4; r++)
                store_result(p, top + down + 16 * i + g + 8 * (r / 2),
                             left + across + 8 * j + 2 * t + r % 2, sum[i][j][r]);
        }
    }
}

/* ---- choosing ---- */

#define MMA_LARGE 128
#define MMA_SMALL 64 /* where large tiles would not fill the device */

template <class Rows, class W>
static void run_product(struct cuda *c, const product &p, const Rows &rows, enum dtype compute)
{
    auto blocks = [&](int64_t side) {
        return (unsigned)((p.m + side - 1) / side * ((p.n + side - 1) / side));
    };
    if (compute != DTYPE_BF16)
        LAUNCH_SYNC(blocks(PLAIN_SIDE), PLAIN_THREADS, 0, c->stream, plain_product<Rows, W>)
    (p, rows);
    else if (p.n > MMA_SMALL && blocks(MMA_LARGE) >= (unsigned)c->device.multiprocessors)
        LAUNCH_SYNC(blocks(MMA_LARGE), MMA_THREADS, 0, c->stream,
                    mma_product<Rows, W, MMA_LARGE>)(p, rows);
    else LAUNCH_SYNC(blocks(MMA_SMALL), MMA_THREADS, 0, c->stream,
                     mma_product<Rows, W, MMA_SMALL>)(p, rows);
}

#endif
