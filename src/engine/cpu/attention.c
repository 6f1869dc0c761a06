/* Attention in blocks of keys with a running maximum (Dao et al., "FlashAttention", 2022, algorithm
 * 1; the recurrence is Milakov & Gimelshein, "Online normalizer calculation for softmax", 2018): no
 * buffer of all scores is ever made.
 *
 * Keys and values of some heads at a time are packed for the small products of tile.h, then blocks
 * of queries are worked on in parallel. What a block computes depends on its own item alone. */
#include <math.h>

#include "engine/cpu/cpu.h"
#include "engine/cpu/simd.h"
#include "engine/cpu/tile.h"

#define QUERIES      32  /* in a block; a multiple of TILE_ROWS */
#define KEYS         256 /* in a block: scores and packed keys stay in the inner caches */
#define PACKED_BYTES (INT64_C(8) << 20) /* of heads packed together, at least one head */

struct attention {
    struct ops *o;
    const struct tensor *q, *k, *v, *y;
    const int32_t *mask; /* or NULL */
    int64_t mask_pitch;
    float scale;
    bool causal;
    enum dtype type;             /* of the products */
    struct tile_kernels kernels; /* the best of this machine */

    int64_t d, d_even, d_wide; /* head size, up to pairs, up to TILE_COLUMNS */
    int64_t tq, tk, repeat;    /* queries, keys, query heads a key head */
    int64_t key_blocks, query_blocks;
    int64_t block_bytes; /* a packed block of keys and its values */
    int64_t first_head;  /* key heads of all items, counted b·G + g, at hand now */

    char *packed;     /* [heads at hand, key_blocks] blocks: keys, then values */
    char *workspaces; /* one a worker */
    int64_t workspace_bytes;
    int stop; /* cancelled: seen by all workers */
};

/* One worker's memory. */
struct workspace {
    void *queries; /* [QUERIES, d_even] in the products' type, scaled */
    void *weights; /* [QUERIES, KEYS] in the products' type: 2^(score - maximum) */
    float *scores; /* [QUERIES, KEYS] */
    float *sums;   /* [QUERIES, d_wide] Σ weight · value */
    float maximum[QUERIES], total[QUERIES];
};

static int64_t round_up(int64_t n, int64_t step)
{
    return (n + step - 1) / step * step;
}

static int64_t keys_bytes(const struct attention *a)
{
    return round_up(KEYS * a->d_even * (int64_t)dtype_size(a->type), 64);
}

/* ---- packing ---- */

typedef uint32_t quad __attribute__((vector_size(16), aligned(4), may_alias));

/* Four rows of n words, `pitch` apart, become the first four columns of n rows, KEYS apart. */
CPU_CLONES static void transpose_words(uint32_t *restrict to, const uint32_t *restrict from,
                                       int64_t pitch, int64_t n)
{
    int64_t c = 0;
    for (; c + 4 <= n; c += 4) {
        quad row[4], half[4];
        for (int i = 0; i < 4; i++)
            row[i] = *(const quad *)(const void *)(from + i * pitch + c);
        for (int i = 0; i < 2; i++) {
            half[i] = __builtin_shufflevector(row[2 * i], row[2 * i + 1], 0, 4, 1, 5);
            half[i + 2] = __builtin_shufflevector(row[2 * i], row[2 * i + 1], 2, 6, 3, 7);
        }
        for (int i = 0; i < 2; i++) {
            quad *first = (quad *)(void *)(to + (c + 2 * i) * KEYS);
            quad *second = (quad *)(void *)(to + (c + 2 * i + 1) * KEYS);
            *first = __builtin_shufflevector(half[2 * i], half[2 * i + 1], 0, 1, 4, 5);
            *second = __builtin_shufflevector(half[2 * i], half[2 * i + 1], 2, 3, 6, 7);
        }
    }
    for (; c < n; c++)
        for (int i = 0; i < 4; i++)
            to[c * KEYS + i] = from[i * pitch + c];
}

#define PACK_CHANNELS 64 /* of four keys at a time, in the products' type */

/* keys [count, d] → f32 [d, KEYS], or bf16 [d/2, KEYS, 2], which is the same of pairs as words;
 * absent keys and channels are zeros. */
static void pack_keys(uint32_t *to, enum dtype type, const float *from, int64_t pitch,
                      int64_t count, int64_t d)
{
    int64_t word = (int64_t)(sizeof(uint32_t) / dtype_size(type)); /* channels in a word */
    for (int64_t i = 0; i < round_up(count, TILE_COLUMNS); i += 4)
        for (int64_t c = 0; c < d; c += PACK_CHANNELS) {
            uint32_t rows[4][PACK_CHANNELS] = {{0}};
            int64_t n = d - c < PACK_CHANNELS ? d - c : PACK_CHANNELS;
            for (int64_t k = 0; k < 4 && i + k < count; k++)
                convert_span(rows[k], type, from + (i + k) * pitch + c, DTYPE_F32, n);
            transpose_words(to + c / word * KEYS + i, rows[0], PACK_CHANNELS,
                            (n + word - 1) / word);
        }
}

/* values [count, d] → f32 [KEYS, wide], or bf16 [KEYS/2, wide, 2]. */
static void pack_values_f32(void *values, const float *from, int64_t pitch, int64_t count,
                            int64_t d, int64_t wide)
{
    float *to = values;
    for (int64_t i = 0; i < count; i++) {
        memcpy(to + i * wide, from + i * pitch, (size_t)d * sizeof *to);
        memset(to + i * wide + d, 0, (size_t)(wide - d) * sizeof *to);
    }
}

CPU_CLONES static void pack_values_bf16(void *values, const float *restrict from, int64_t pitch,
                                        int64_t count, int64_t d, int64_t wide)
{
    uint16_t *to = values;
    for (int64_t i = 0; i < count; i += 2) {
        const float *first = from + i * pitch, *second = first + pitch;
        uint16_t *restrict row = to + i * wide;
        bool pair = i + 1 < count;
        for (int64_t c = 0; c < d; c++) {
            row[2 * c] = float_bf16(first[c]);
            row[2 * c + 1] = pair ? float_bf16(second[c]) : 0;
        }
        memset(row + 2 * d, 0, (size_t)(2 * (wide - d)) * sizeof *row);
    }
}

static const float *head_rows(const struct tensor *t, int64_t item, int64_t row, int64_t head)
{
    return (const float *)t->data + item * t->strides[0] + row * t->strides[1] +
           head * t->strides[2];
}

static void pack_task(void *ctx, int worker, int64_t begin, int64_t end)
{
    const struct attention *a = ctx;
    int64_t heads = a->k->dims[2];
    (void)worker;
    for (int64_t unit = begin; unit < end; unit++) {
        int64_t head = a->first_head + unit / a->key_blocks;
        int64_t first = unit % a->key_blocks * KEYS;
        int64_t count = a->tk - first < KEYS ? a->tk - first : KEYS;
        const float *k = head_rows(a->k, head / heads, first, head % heads);
        const float *v = head_rows(a->v, head / heads, first, head % heads);
        void *keys = a->packed + unit * a->block_bytes, *values = (char *)keys + keys_bytes(a);
        pack_keys(keys, a->type, k, a->k->strides[1], count, a->d);
        (a->type == DTYPE_BF16 ? pack_values_bf16 : pack_values_f32)(values, v, a->v->strides[1],
                                                                     count, a->d, a->d_wide);
    }
}

/* ---- one block of queries ---- */

CPU_CLONES static void scale_row(float *to, const float *from, int64_t n, float f)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = from[i] * f;
}

static void load_queries(const struct attention *a, struct workspace *s, const float *q,
                         int64_t rows)
{
    size_t row_bytes = (size_t)a->d_even * dtype_size(a->type);
    memset(s->queries, 0, QUERIES * row_bytes);
    for (int64_t r = 0; r < rows; r++) {
        float *wide = s->sums + r * a->d_wide; /* not in use yet */
        scale_row(wide, q + r * a->q->strides[1], a->d, a->scale);
        convert_span((char *)s->queries + (size_t)r * row_bytes, a->type, wide, DTYPE_F32, a->d);
    }
    memset(s->sums, 0, (size_t)(QUERIES * a->d_wide) * sizeof(float));
    for (int64_t r = 0; r < QUERIES; r++) {
        s->maximum[r] = -INFINITY;
        s->total[r] = 0.0f;
    }
}

CPU_CLONES static void hide_keys(float *restrict scores, const int32_t *restrict mask, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        scores[i] = mask[i] ? scores[i] : -INFINITY;
}

CPU_CLONES static float row_maximum(const float *x, int64_t n)
{
    float lanes[SIMD_LANES];
    int64_t i = 0;
    for (int k = 0; k < SIMD_LANES; k++)
        lanes[k] = -INFINITY;
    for (; i + SIMD_LANES <= n; i += SIMD_LANES)
        for (int k = 0; k < SIMD_LANES; k++)
            lanes[k] = simd_larger(x[i + k], lanes[k]);
    for (; i < n; i++)
        lanes[0] = simd_larger(x[i], lanes[0]);
    return simd_largest(lanes);
}

/* x = 2^(x - maximum), hidden ones exactly 0; their sum. */
CPU_CLONES static float row_weights(float *x, int64_t n, float maximum)
{
    float lanes[SIMD_LANES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + SIMD_LANES <= n; i += SIMD_LANES)
        for (int k = 0; k < SIMD_LANES; k++) {
            float w = simd_weight(x[i + k] - maximum);
            x[i + k] = w;
            lanes[k] += w;
        }
    for (; i < n; i++)
        sum += x[i] = simd_weight(x[i] - maximum);
    return simd_sum(lanes) + sum;
}

/* Scores of one row become weights; what was summed under an older maximum is brought down. */
static void softmax_row(const struct attention *a, struct workspace *s, int64_t r, int64_t keys,
                        int64_t width, bool first)
{
    float *x = s->scores + r * KEYS;
    float block = row_maximum(x, keys), old = s->maximum[r];
    for (int64_t i = keys; i < width; i++)
        x[i] = 0.0f;
    if (block == -INFINITY) { /* every key is hidden, or a NaN, which row_weights passes on */
        s->total[r] += row_weights(x, keys, 0.0f);
    } else {
        float now = block > old ? block : old;
        float shrink = first || old == -INFINITY ? 0.0f : now == old ? 1.0f : exp2f(old - now);
        if (!first && shrink != 1.0f)
            scale_row(s->sums + r * a->d_wide, s->sums + r * a->d_wide, a->d_wide, shrink);
        s->maximum[r] = now;
        s->total[r] = s->total[r] * shrink + row_weights(x, keys, now);
    }
    if (a->type == DTYPE_BF16)
        convert_span((uint16_t *)s->weights + r * KEYS, DTYPE_BF16, x, DTYPE_F32, width);
}

/* One packed block of keys against all rows. */
static void attend_block(const struct attention *a, struct workspace *s, const char *block,
                         const int32_t *mask, int64_t rows, int64_t first_query, int64_t first_key)
{
    int64_t keys = a->tk - first_key < KEYS ? a->tk - first_key : KEYS;
    int64_t m = round_up(rows, TILE_ROWS), width = round_up(keys, TILE_COLUMNS);
    void (*multiply)(const struct tile_product *) =
        a->type == DTYPE_BF16 ? a->kernels.bf16 : a->kernels.f32;
    struct tile_product scores = {.m = m,
                                  .n = width,
                                  .k = a->d,
                                  .a = s->queries,
                                  .b = block,
                                  .c = s->scores,
                                  .lda = a->d_even,
                                  .ldb = KEYS,
                                  .ldc = KEYS};
    multiply(&scores);
    for (int64_t r = 0; r < rows; r++) {
        int64_t last = first_query + r - first_key; /* causal: the last key that row r sees */
        int64_t seen = a->causal && last + 1 < keys ? last + 1 : keys;
        if (mask)
            hide_keys(s->scores + r * KEYS, mask + first_key, keys);
        for (int64_t i = seen < 0 ? 0 : seen; i < keys; i++)
            s->scores[r * KEYS + i] = -INFINITY;
        softmax_row(a, s, r, keys, width, first_key == 0);
    }
    struct tile_product sums = {.m = m,
                                .n = a->d_wide,
                                .k = keys,
                                .a = s->weights,
                                .b = block + keys_bytes(a),
                                .c = s->sums,
                                .lda = KEYS,
                                .ldb = a->d_wide,
                                .ldc = a->d_wide,
                                .add = true};
    multiply(&sums);
}

static void attend_queries(const struct attention *a, struct workspace *s, int64_t head,
                           int64_t sub, int64_t first)
{
    int64_t heads = a->k->dims[2], item = head / heads, q_head = head % heads * a->repeat + sub;
    int64_t rows = a->tq - first < QUERIES ? a->tq - first : QUERIES;
    const char *blocks = a->packed + (head - a->first_head) * a->key_blocks * a->block_bytes;
    const int32_t *mask = a->mask ? a->mask + item * a->mask_pitch : NULL;
    load_queries(a, s, head_rows(a->q, item, first, q_head), rows);
    for (int64_t b = 0; b < a->key_blocks; b++) {
        if (a->causal && b * KEYS > first + rows - 1)
            break;
        attend_block(a, s, blocks + b * a->block_bytes, mask, rows, first, b * KEYS);
    }
    for (int64_t r = 0; r < rows; r++) {
        float *y = (float *)a->y->data + item * a->y->strides[0] + (first + r) * a->y->strides[1] +
                   q_head * a->y->strides[2];
        float total = s->total[r];
        scale_row(y, s->sums + r * a->d_wide, a->d, total == 0.0f ? 0.0f : 1.0f / total);
    }
}

/* ---- all of it ---- */

static struct workspace *workspace_at(const struct attention *a, int worker)
{
    char *p = a->workspaces + worker * a->workspace_bytes;
    struct workspace *s = (struct workspace *)(void *)p;
    int64_t size = (int64_t)dtype_size(a->type);
    p += round_up((int64_t)sizeof *s, 64);
    s->queries = p;
    p += round_up(QUERIES * a->d_even * size, 64);
    s->scores = (float *)(void *)p;
    p += QUERIES * KEYS * (int64_t)sizeof(float);
    s->sums = (float *)(void *)p;
    p += round_up(QUERIES * a->d_wide * (int64_t)sizeof(float), 64);
    s->weights = a->type == DTYPE_BF16 ? (void *)p : s->scores;
    return s;
}

static void attend_task(void *ctx, int worker, int64_t begin, int64_t end)
{
    struct attention *a = ctx;
    struct workspace *s = workspace_at(a, worker);
    for (int64_t unit = begin; unit < end; unit++) {
        if (worker == 0 && ops_cancelled(a->o)) /* the caller's own thread */
            __atomic_store_n(&a->stop, 1, __ATOMIC_RELAXED);
        if (__atomic_load_n(&a->stop, __ATOMIC_RELAXED))
            return;
        int64_t block = unit % a->query_blocks, rest = unit / a->query_blocks;
        attend_queries(a, s, a->first_head + rest / a->repeat, rest % a->repeat, block * QUERIES);
    }
}

static void measure(struct attention *a, const struct attention_args *args)
{
    int64_t size = (int64_t)dtype_size(a->type);
    a->scale = args->scale * 1.44269504088896341f; /* log2(e): exp(s) = 2^(s·log2(e)) */
    a->causal = args->causal;
    a->d = a->q->dims[3];
    a->d_even = round_up(a->d, 2);
    a->d_wide = round_up(a->d, TILE_COLUMNS);
    a->tq = a->q->dims[1];
    a->tk = a->k->dims[1];
    a->repeat = a->q->dims[2] / a->k->dims[2];
    a->key_blocks = (a->tk + KEYS - 1) / KEYS;
    a->query_blocks = (a->tq + QUERIES - 1) / QUERIES;
    a->block_bytes = keys_bytes(a) + KEYS * a->d_wide * size;
    a->workspace_bytes = round_up((int64_t)sizeof(struct workspace), 64) +
                         round_up(QUERIES * a->d_even * size, 64) +
                         QUERIES * KEYS * ((int64_t)sizeof(float) + size) +
                         round_up(QUERIES * a->d_wide * (int64_t)sizeof(float), 64);
    if (args->key_mask) {
        a->mask = args->key_mask->data;
        a->mask_pitch = args->key_mask->strides[0];
    }
}

void cpu_attention(struct ops *o, struct tensor *y, const struct tensor *q, const struct tensor *k,
                   const struct tensor *v, const struct attention_args *args)
{
    struct attention a = {.o = o, .q = q, .k = k, .v = v, .y = y};
    int threads = cpu_threads(y);
    tile_kernels_here(&a.kernels, 1);
    a.type = ops_compute(o) == DTYPE_BF16 && a.kernels.bf16 ? DTYPE_BF16 : DTYPE_F32;
    measure(&a, args);
    int64_t heads = k->dims[0] * k->dims[2], head_bytes = a.key_blocks * a.block_bytes;
    int64_t at_once = PACKED_BYTES / head_bytes;
    at_once = at_once < 1 ? 1 : at_once > heads ? heads : at_once;
    a.packed = ops_scratch(o, (size_t)(at_once * head_bytes));
    a.workspaces = ops_scratch(o, (size_t)(threads * a.workspace_bytes));
    if (ops_planning(o) || !a.packed || !a.workspaces)
        return;
    for (int64_t head = 0; head < heads && !ops_cancelled(o); head += at_once) {
        int64_t count = heads - head < at_once ? heads - head : at_once;
        a.first_head = head;
        cpu_parallel(threads, count * a.key_blocks, 1, pack_task, &a);
        cpu_parallel(threads, count * a.repeat * a.query_blocks, 1, attend_task, &a);
    }
}
