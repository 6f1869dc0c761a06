/* attention in blocks of keys with a running maximum (Dao et al., "FlashAttention", 2022; the
 * recurrence is Milakov & Gimelshein, "Online normalizer calculation for softmax", 2018): no buffer
 * of all scores is ever made.
 *
 * A block of threads works on some queries of one head, and goes through the keys. Heads wider than
 * a chunk are read chunk by chunk for the scores, and each chunk of the result's columns is a block
 * of its own, which makes the scores again: such heads are rare (one in a VAE), registers are few.
 * What a query gets depends on its own item alone. */
#include "kernels/kernel.h"

struct attention {
    const void *q, *k, *v;
    void *y;
    bool narrow, narrow_y; /* q, k and v are bf16; y is */
    const int32_t *mask;   /* or NULL */
    int64_t mask_pitch;
    int64_t q_strides[3], k_strides[3], v_strides[3]; /* of items, tokens, heads */
    int64_t tq, tk;
    int heads, repeat /* query heads a key head */, d;
    int tiles, chunks;
    float scale; /* for powers of two */
    bool causal, by4;
};

/* Where this block works. */
struct head_place {
    int64_t first; /* query */
    int64_t item, head;
    int column;      /* first of the result's */
    int64_t q, k, v; /* elements from the tensors' beginnings */
    int64_t keys;    /* that any of its queries may see */
};

__device__ __forceinline__ head_place place_of(const attention &a, int queries, int columns)
{
    int64_t block = blockIdx.x, tile = block % a.tiles, unit = block / a.tiles;
    head_place p;
    p.column = (int)(unit % a.chunks) * columns;
    unit /= a.chunks;
    p.head = unit % a.heads;
    p.item = unit / a.heads;
    p.first = tile * queries;
    int64_t group = p.head / a.repeat;
    p.q = p.item * a.q_strides[0] + p.head * a.q_strides[2];
    p.k = p.item * a.k_strides[0] + group * a.k_strides[2];
    p.v = p.item * a.v_strides[0] + group * a.v_strides[2];
    p.keys = a.causal && p.first + queries < a.tk ? p.first + queries : a.tk;
    return p;
}

__device__ __forceinline__ bool visible(const attention &a, const head_place &p, int64_t query,
                                        int64_t key)
{
    return key < a.tk && (!a.causal || key <= query) &&
           (!a.mask || a.mask[p.item * a.mask_pitch + key] != 0);
}

/* Columns c … c + 3 of row i, rows from element `from` on; zeros outside. */
__device__ __forceinline__ void load_four(float out[4], const attention &a, const void *data,
                                          int64_t from, int64_t pitch, int64_t i, int64_t count,
                                          int c)
{
    int64_t at = from + (i < count ? i * pitch : 0) + c;
    if (a.by4 && i < count && c < a.d) {
        load_some<4>(out, data, at, a.narrow);
        return;
    }
    GPU_UNROLL
    for (int e = 0; e < 4; e++) {
        out[e] = 0.0f;
        if (i < count && c + e < a.d)
            load_some<1>(out + e, data, at + e, a.narrow);
    }
}

/* The factor for what was summed under the maximum `before`; hidden keys leave it at -infinity. */
__device__ __forceinline__ float rescale(float before, float now)
{
    return now == -INFINITY ? 1.0f : exp2f(before - now);
}
__device__ __forceinline__ float weight_of(float score, float most)
{
    return exp2f(score - (most == -INFINITY ? 0.0f : most));
}
/* Nothing but hidden keys gives zeros; NaN stays. */
__device__ __forceinline__ float finished(float sum, float total)
{
    return total == 0.0f ? 0.0f : sum / total;
}

/* ---- fp32 ---- */

#define PLAIN_QUERIES 32
#define PLAIN_KEYS    32
#define PLAIN_CHUNK   64  /* columns of q and k at a time */
#define PLAIN_COLUMNS 128 /* of the result */
#define PLAIN_PARTS   8   /* threads a query */
#define PLAIN_THREADS (PLAIN_QUERIES * PLAIN_PARTS)

/* Rows first … first + Rows of columns c … c + Columns into shared memory. */
template <int Rows, int Columns, int Pitch>
__device__ __forceinline__ void load_tile(float (&to)[Rows][Pitch], const attention &a,
                                          const void *data, int64_t from, int64_t pitch,
                                          int64_t first, int64_t count, int c)
{
    for (int i = (int)threadIdx.x; i < Rows * Columns / 4; i += PLAIN_THREADS) {
        int row = i / (Columns / 4), column = i % (Columns / 4) * 4;
        float four[4];
        load_four(four, a, data, from, pitch, first + row, count, c + column);
        for (int e = 0; e < 4; e++)
            to[row][column + e] = four[e];
    }
}

__global__ void GPU_BOUNDS(PLAIN_THREADS) plain_attention(attention a)
{
    SHARED(q, float[PLAIN_QUERIES][PLAIN_CHUNK + 1]);
    SHARED(k, float[PLAIN_KEYS][PLAIN_CHUNK + 1]);
    SHARED(v, float[PLAIN_KEYS][PLAIN_COLUMNS]);
    SHARED(weights, float[PLAIN_QUERIES][PLAIN_KEYS + 1]);
    enum { KEYS_EACH = PLAIN_KEYS / PLAIN_PARTS, COLUMNS_EACH = PLAIN_COLUMNS / PLAIN_PARTS };
    head_place p = place_of(a, PLAIN_QUERIES, PLAIN_COLUMNS);
    int row = (int)threadIdx.x / PLAIN_PARTS, part = (int)threadIdx.x % PLAIN_PARTS;
    int64_t query = p.first + row;
    float most = -INFINITY, total = 0.0f, sum[COLUMNS_EACH] = {};
    for (int64_t first = 0; first < p.keys; first += PLAIN_KEYS) {
        float score[KEYS_EACH] = {};
        for (int c = 0; c < a.d; c += PLAIN_CHUNK) {
            __syncthreads();
            load_tile<PLAIN_QUERIES, PLAIN_CHUNK>(q, a, a.q, p.q, a.q_strides[1], p.first, a.tq, c);
            load_tile<PLAIN_KEYS, PLAIN_CHUNK>(k, a, a.k, p.k, a.k_strides[1], first, a.tk, c);
            if (c == 0)
                load_tile<PLAIN_KEYS, PLAIN_COLUMNS>(v, a, a.v, p.v, a.v_strides[1], first, a.tk,
                                                     p.column);
            __syncthreads();
            for (int i = 0; i < PLAIN_CHUNK; i++) {
                GPU_UNROLL
                for (int j = 0; j < KEYS_EACH; j++)
                    score[j] += q[row][i] * k[part + PLAIN_PARTS * j][i];
            }
        }
        float largest = most, now = 0.0f;
        GPU_UNROLL
        for (int j = 0; j < KEYS_EACH; j++) {
            bool seen = visible(a, p, query, first + part + PLAIN_PARTS * j);
            score[j] = seen ? score[j] * a.scale : -INFINITY;
            largest = score[j] > largest ? score[j] : largest;
        }
        for (int mask = PLAIN_PARTS / 2; mask > 0; mask /= 2) {
            float other = __shfl_xor_sync(GPU_FULL, largest, mask);
            largest = other > largest ? other : largest;
        }
        float factor = rescale(most, largest);
        most = largest;
        GPU_UNROLL
        for (int j = 0; j < KEYS_EACH; j++) {
            float w = weight_of(score[j], most);
            weights[row][part + PLAIN_PARTS * j] = w;
            now += w;
        }
        for (int mask = PLAIN_PARTS / 2; mask > 0; mask /= 2)
            now += __shfl_xor_sync(GPU_FULL, now, mask);
        total = total * factor + now;
        __syncwarp(); /* a query's threads are of one warp */
        GPU_UNROLL
        for (int j = 0; j < COLUMNS_EACH; j++)
            sum[j] *= factor;
        for (int i = 0; i < PLAIN_KEYS; i++) {
            float w = weights[row][i];
            GPU_UNROLL
            for (int j = 0; j < COLUMNS_EACH; j++)
                sum[j] += w * v[i][part + PLAIN_PARTS * j];
        }
    }
    if (query >= a.tq)
        return;
    int64_t y = ((p.item * a.tq + query) * a.heads + p.head) * a.d;
    for (int j = 0; j < COLUMNS_EACH; j++) {
        int column = p.column + part + PLAIN_PARTS * j;
        float result = finished(sum[j], total);
        if (column < a.d)
            store_some<1>(a.y, y + column, a.narrow_y, &result);
    }
}

/* ---- bf16: tensor cores, a warp has 16 queries ---- */

#define MMA_QUERIES 64
#define MMA_KEYS    64
#define MMA_THREADS 128

/* 64 rows of Chunk columns as words of two neighbours. */
template <int Chunk>
__device__ __forceinline__ void load_words(uint32_t *to, const attention &a, const void *data,
                                           int64_t from, int64_t pitch, int64_t first,
                                           int64_t count, int c)
{
    enum { PITCH = Chunk / 2 + 4 }; /* 4 against bank conflicts */
    for (int i = (int)threadIdx.x; i < 64 * Chunk / 4; i += MMA_THREADS) {
        int row = i / (Chunk / 4), column = i % (Chunk / 4) * 4;
        float four[4];
        load_four(four, a, data, from, pitch, first + row, count, c + column);
        *reinterpret_cast<uint2 *>(to + row * PITCH + column / 2) =
            uint2{bf16_pair(four[0], four[1]), bf16_pair(four[2], four[3])};
    }
}

/* 64 keys of Chunk columns, turned: words of two keys along a column. */
#define TURNED_PITCH (MMA_KEYS / 2 + 4)
template <int Chunk>
__device__ __forceinline__ void load_turned(uint32_t *to, const attention &a, const void *data,
                                            int64_t from, int64_t pitch, int64_t first,
                                            int64_t count, int c)
{
    for (int i = (int)threadIdx.x; i < MMA_KEYS / 2 * Chunk / 4; i += MMA_THREADS) {
        int pair = i % (MMA_KEYS / 2), column = i / (MMA_KEYS / 2) * 4;
        float even[4], odd[4];
        load_four(even, a, data, from, pitch, first + 2 * pair, count, c + column);
        load_four(odd, a, data, from, pitch, first + 2 * pair + 1, count, c + column);
        GPU_UNROLL
        for (int e = 0; e < 4; e++)
            to[(column + e) * TURNED_PITCH + pair] = bf16_pair(even[e], odd[e]);
    }
}

/* score[8][·] += 16 queries · 64 keys over a chunk. */
template <int Chunk>
__device__ __forceinline__ void add_scores(float (&score)[1][MMA_KEYS / 8][4], const uint32_t *q,
                                           const uint32_t *k)
{
    enum { PITCH = Chunk / 2 + 4 };
    int g = (int)threadIdx.x % GPU_WARP / 4, t = (int)threadIdx.x % 4;
    GPU_UNROLL
    for (int i = 0; i < Chunk / 2; i += 8) { /* words */
        uint32_t x[1][4], y[MMA_KEYS / 8][2];
        GPU_UNROLL
        for (int r = 0; r < 4; r++)
            x[0][r] = q[(g + 8 * (r % 2)) * PITCH + i + t + 4 * (r / 2)];
        GPU_UNROLL
        for (int j = 0; j < MMA_KEYS / 8; j++) {
            y[j][0] = k[(8 * j + g) * PITCH + i + t];
            y[j][1] = k[(8 * j + g) * PITCH + i + t + 4];
        }
        mma_tiles(score, x, y);
    }
}

/* Turns scores into weights under a new maximum. Halves r = 0, 1 are rows g and g + 8 of the
 * fragments; the four lanes of a row agree. */
__device__ __forceinline__ void soften(float (&score)[MMA_KEYS / 8][4], const attention &a,
                                       const head_place &p, int64_t query, int64_t first,
                                       float (&most)[2], float (&total)[2], float (&factor)[2])
{
    int t = (int)threadIdx.x % 4;
    GPU_UNROLL
    for (int r = 0; r < 2; r++) {
        float largest = most[r], now = 0.0f;
        GPU_UNROLL
        for (int j = 0; j < MMA_KEYS / 8; j++) {
            GPU_UNROLL
            for (int e = 0; e < 2; e++) {
                float &s = score[j][2 * r + e];
                s = visible(a, p, query + 8 * r, first + 8 * j + 2 * t + e) ? s * a.scale
                                                                            : -INFINITY;
                largest = s > largest ? s : largest;
            }
        }
        for (int mask = 2; mask > 0; mask /= 2) {
            float other = __shfl_xor_sync(GPU_FULL, largest, mask);
            largest = other > largest ? other : largest;
        }
        factor[r] = rescale(most[r], largest);
        most[r] = largest;
        GPU_UNROLL
        for (int j = 0; j < MMA_KEYS / 8; j++) {
            GPU_UNROLL
            for (int e = 0; e < 2; e++) {
                float &s = score[j][2 * r + e];
                s = weight_of(s, largest);
                now += s;
            }
        }
        for (int mask = 2; mask > 0; mask /= 2)
            now += __shfl_xor_sync(GPU_FULL, now, mask);
        total[r] = total[r] * factor[r] + now;
    }
}

/* sum[·] += weights · 64 values of a chunk. What a product left in `c` is what the next takes as
 * `a`: the same lanes hold the same rows and columns. */
template <int Chunk>
__device__ __forceinline__ void
add_values(float (&sum)[1][Chunk / 8][4], const float (&weight)[MMA_KEYS / 8][4], const uint32_t *v)
{
    int g = (int)threadIdx.x % GPU_WARP / 4, t = (int)threadIdx.x % 4;
    GPU_UNROLL
    for (int i = 0; i < MMA_KEYS / 16; i++) {
        const float *low = weight[2 * i], *high = weight[2 * i + 1];
        uint32_t x[1][4] = {{bf16_pair(low[0], low[1]), bf16_pair(low[2], low[3]),
                             bf16_pair(high[0], high[1]), bf16_pair(high[2], high[3])}};
        uint32_t y[Chunk / 8][2];
        GPU_UNROLL
        for (int j = 0; j < Chunk / 8; j++) {
            y[j][0] = v[(8 * j + g) * TURNED_PITCH + 8 * i + t];
            y[j][1] = v[(8 * j + g) * TURNED_PITCH + 8 * i + t + 4];
        }
        mma_tiles(sum, x, y);
    }
}

template <int Chunk> __global__ void GPU_BOUNDS(MMA_THREADS) mma_attention(attention a)
{
    enum {
        PITCH = Chunk / 2 + 4,
        WORDS = 64 * PITCH > Chunk * TURNED_PITCH ? 64 * PITCH : Chunk * TURNED_PITCH
    };
    SHARED(q, uint32_t[64 * PITCH]);
    SHARED(kv, uint32_t[WORDS]); /* keys, then their values */
    head_place p = place_of(a, MMA_QUERIES, Chunk);
    int warp = (int)threadIdx.x / GPU_WARP, g = (int)threadIdx.x % GPU_WARP / 4;
    int t = (int)threadIdx.x % 4;
    int64_t query = p.first + 16 * warp + g;
    float most[2] = {-INFINITY, -INFINITY}, total[2] = {}, sum[1][Chunk / 8][4] = {};
    for (int64_t first = 0; first < p.keys; first += MMA_KEYS) {
        float score[1][MMA_KEYS / 8][4] = {}, factor[2];
        for (int c = 0; c < a.d; c += Chunk) {
            __syncthreads();
            if (a.d > Chunk || first == 0)
                load_words<Chunk>(q, a, a.q, p.q, a.q_strides[1], p.first, a.tq, c);
            load_words<Chunk>(kv, a, a.k, p.k, a.k_strides[1], first, a.tk, c);
            __syncthreads();
            add_scores<Chunk>(score, q + 16 * warp * PITCH, kv);
        }
        soften(score[0], a, p, query, first, most, total, factor);
        GPU_UNROLL
        for (int j = 0; j < Chunk / 8; j++) {
            GPU_UNROLL
            for (int e = 0; e < 4; e++)
                sum[0][j][e] *= factor[e / 2];
        }
        __syncthreads();
        load_turned<Chunk>(kv, a, a.v, p.v, a.v_strides[1], first, a.tk, p.column);
        __syncthreads();
        add_values<Chunk>(sum, score[0], kv);
    }
    GPU_UNROLL
    for (int j = 0; j < Chunk / 8; j++) {
        GPU_UNROLL
        for (int e = 0; e < 4; e++) {
            int64_t row = query + 8 * (e / 2);
            int column = p.column + 8 * j + 2 * t + e % 2;
            float result = finished(sum[0][j][e], total[e / 2]);
            if (row < a.tq && column < a.d)
                store_some<1>(a.y, ((p.item * a.tq + row) * a.heads + p.head) * a.d + column,
                              a.narrow_y, &result);
        }
    }
}

/* ---- choosing ---- */

static bool rows_by4(const struct tensor *t)
{
    bool by4 = is_aligned(t->data, 4 * dtype_size(t->dtype)) && t->dims[3] % 4 == 0;
    for (int i = 0; i < 3; i++)
        by4 = by4 && (t->dims[i] == 1 || t->strides[i] % 4 == 0);
    return by4;
}

static attention attention_of(struct tensor *y, const struct tensor *q, const struct tensor *k,
                              const struct tensor *v, const struct attention_args *args)
{
    attention a = {};
    a.q = q->data;
    a.k = k->data;
    a.v = v->data;
    a.y = y->data;
    a.narrow = is_narrow(q);
    a.narrow_y = is_narrow(y);
    for (int i = 0; i < 3; i++) {
        a.q_strides[i] = q->strides[i];
        a.k_strides[i] = k->strides[i];
        a.v_strides[i] = v->strides[i];
    }
    if (args->key_mask) {
        a.mask = static_cast<const int32_t *>(args->key_mask->data);
        a.mask_pitch = args->key_mask->strides[0];
    }
    a.tq = q->dims[1];
    a.tk = k->dims[1];
    a.heads = (int)q->dims[2];
    a.repeat = (int)(q->dims[2] / k->dims[2]);
    a.d = (int)q->dims[3];
    a.scale = args->scale * 1.4426950408889634f; /* e^x = 2^(x / ln 2) */
    a.causal = args->causal;
    a.by4 = rows_by4(q) && rows_by4(k) && rows_by4(v);
    return a;
}

void cuda_attention(struct ops *o, struct tensor *y, const struct tensor *q, const struct tensor *k,
                    const struct tensor *v, const struct attention_args *args)
{
    struct cuda *c = cuda_of(ops_backend(o));
    if (c->library.attention && c->library.attention(c, o, y, q, k, v, args)) {
        cuda_launched(o, "attention");
        return;
    }
    if (ops_planning(o))
        return;
    c = cuda_here(o);
    attention a = attention_of(y, q, k, v, args);
    bool tensor_cores = ops_compute(o) == DTYPE_BF16;
    int queries = tensor_cores ? MMA_QUERIES : PLAIN_QUERIES;
    int columns = !tensor_cores ? PLAIN_COLUMNS : a.d <= 64 ? 64 : 128;
    a.tiles = (int)((a.tq + queries - 1) / queries);
    a.chunks = (a.d + columns - 1) / columns;
    int64_t blocks = q->dims[0] * a.heads * a.chunks * a.tiles;
    if (!tensor_cores)
        LAUNCH_SYNC((unsigned)blocks, PLAIN_THREADS, 0, c->stream, plain_attention)(a);
    else if (columns == 64)
        LAUNCH_SYNC((unsigned)blocks, MMA_THREADS, 0, c->stream, mma_attention<64>)(a);
    else
        LAUNCH_SYNC((unsigned)blocks, MMA_THREADS, 0, c->stream, mma_attention<128>)(a);
    cuda_launched(o, "attention");
}
