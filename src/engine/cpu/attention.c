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

#define QUERIES      96          /* in a block, at most; a multiple of every kernel's rows */
#define KEYS         256         /* in a block: scores and packed keys stay in the inner caches */
#define PITCH        (KEYS + 16) /* of scores: their rows must not all fall into the same sets */
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

    int64_t d, d_even, d_wide;                 /* head size, up to pairs, up to TILE_COLUMNS */
    int64_t tq, tk, repeat;                    /* queries, keys, query heads a key head */
    int64_t key_blocks, query_blocks, queries; /* queries in a block */
    int64_t block_bytes;                       /* a packed block of keys and its values */
    int64_t first_head; /* key heads of all items, counted b·G + g, at hand now */

    char *packed;     /* [heads at hand, key_blocks] blocks: keys, then values */
    char *workspaces; /* one a worker */
    int64_t workspace_bytes;
    int stop; /* cancelled: seen by all workers */
};

/* One worker's memory. */
struct workspace {
    void *queries; /* [QUERIES, d_even] in the products' type, scaled */
    void *weights; /* [QUERIES, PITCH] in the products' type: 2^(score - maximum) */
    float *scores; /* [QUERIES, PITCH] */
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

/* Four rows of n words, `pitch` apart, become the first four columns of n rows, `width` apart. */
CPU_CLONES static void transpose_words(uint32_t *restrict to, int64_t width,
                                       const uint32_t *restrict from, int64_t pitch, int64_t n)
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
            quad *first = (quad *)(void *)(to + (c + 2 * i) * width);
            quad *second = (quad *)(void *)(to + (c + 2 * i + 1) * width);
            *first = __builtin_shufflevector(half[2 * i], half[2 * i + 1], 0, 1, 4, 5);
            *second = __builtin_shufflevector(half[2 * i], half[2 * i + 1], 2, 3, 6, 7);
        }
    }
    for (; c < n; c++)
        for (int i = 0; i < 4; i++)
            to[c * width + i] = from[i * pitch + c];
}

/* Of the panel of tile.h that begins at column `first` of n. */
static int64_t panel_width(const struct attention *a, int64_t n, int64_t first)
{
    return n - first < a->kernels.columns ? n - first : a->kernels.columns;
}

#define PACK_CHANNELS 64 /* of four keys at a time, in the products' type */

/* keys [count, d] → panels of tile.h for all channels, d_even deep; absent keys and channels are
 * zeros. Pairs of bf16 are words: both types are the same transposition. */
static void pack_keys(const struct attention *a, uint32_t *to, const float *from, int64_t count)
{
    int64_t word = (int64_t)(sizeof(uint32_t) / dtype_size(a->type)); /* channels in a word */
    int64_t columns = round_up(count, TILE_COLUMNS), pitch = a->k->strides[1];
    for (int64_t i = 0; i < columns; i += 4) {
        int64_t panel = i / a->kernels.columns * a->kernels.columns;
        int64_t width = panel_width(a, columns, panel);
        uint32_t *at = to + panel * (a->d_even / word) + (i - panel);
        for (int64_t c = 0; c < a->d; c += PACK_CHANNELS) {
            uint32_t rows[4][PACK_CHANNELS] = {{0}};
            int64_t n = a->d - c < PACK_CHANNELS ? a->d - c : PACK_CHANNELS;
            for (int64_t k = 0; k < 4 && i + k < count; k++)
                convert_span(rows[k], a->type, from + (i + k) * pitch + c, DTYPE_F32, n);
            transpose_words(at + c / word * width, width, rows[0], PACK_CHANNELS,
                            (n + word - 1) / word);
        }
    }
}

/* One panel of values: channels of keys from..., n of them, `width` with zeros. */
CPU_CLONES static void pack_panel_f32(float *restrict to, const float *restrict from, int64_t pitch,
                                      int64_t count, int64_t n, int64_t width)
{
    for (int64_t i = 0; i < count; i++, to += width)
        for (int64_t c = 0; c < width; c++)
            to[c] = c < n ? from[i * pitch + c] : 0.0f;
}

CPU_CLONES static void pack_panel_bf16(uint16_t *restrict to, const float *restrict from,
                                       int64_t pitch, int64_t count, int64_t n, int64_t width)
{
    for (int64_t i = 0; i < count; i += 2, to += 2 * width) {
        const float *first = from + i * pitch, *second = i + 1 < count ? first + pitch : NULL;
        for (int64_t c = 0; c < n; c++) {
            to[2 * c] = float_bf16(first[c]);
            to[2 * c + 1] = second ? float_bf16(second[c]) : 0;
        }
        memset(to + 2 * n, 0, (size_t)(2 * (width - n)) * sizeof *to);
    }
}

/* values [count, d] → panels of tile.h, KEYS deep. */
static void pack_values(const struct attention *a, void *to, const float *from, int64_t count)
{
    int64_t pitch = a->v->strides[1];
    for (int64_t c = 0; c < a->d_wide; c += a->kernels.columns) {
        int64_t width = panel_width(a, a->d_wide, c);
        int64_t n = a->d - c < width ? a->d - c : width;
        if (a->type == DTYPE_BF16)
            pack_panel_bf16((uint16_t *)to + c * KEYS, from + c, pitch, count, n, width);
        else
            pack_panel_f32((float *)to + c * KEYS, from + c, pitch, count, n, width);
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
        pack_keys(a, keys, k, count);
        pack_values(a, values, v, count);
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

/* Scores of one row become weights; what was summed under an older maximum is brought down. */
static void softmax_row(const struct attention *a, struct workspace *s, int64_t r, int64_t width,
                        bool first)
{
    float *x = s->scores + r * PITCH;
    void *weights = (char *)s->weights + (size_t)(r * PITCH) * dtype_size(a->type);
    float (*weigh)(void *, const float *, int64_t, float) =
        a->type == DTYPE_BF16 ? a->kernels.weights_bf16 : a->kernels.weights_f32;
    float block = a->kernels.maximum(x, width), old = s->maximum[r];
    if (block == -INFINITY) { /* every key is hidden, or a NaN, which the weights pass on */
        s->total[r] += weigh(weights, x, width, 0.0f);
        return;
    }
    float now = block > old ? block : old;
    float shrink = first || old == -INFINITY ? 0.0f : now == old ? 1.0f : exp2f(old - now);
    if (!first && shrink != 1.0f)
        scale_row(s->sums + r * a->d_wide, s->sums + r * a->d_wide, a->d_wide, shrink);
    s->maximum[r] = now;
    s->total[r] = s->total[r] * shrink + weigh(weights, x, width, now);
}

/* One packed block of keys against all rows. */
static void attend_block(const struct attention *a, struct workspace *s, const char *block,
                         const int32_t *mask, int64_t rows, int64_t first_query, int64_t first_key)
{
    int64_t keys = a->tk - first_key < KEYS ? a->tk - first_key : KEYS;
    int64_t m = round_up(rows, a->kernels.rows), width = round_up(keys, TILE_COLUMNS);
    void (*multiply)(const struct tile_product *) =
        a->type == DTYPE_BF16 ? a->kernels.bf16 : a->kernels.f32;
    struct tile_product scores = {.m = m,
                                  .n = width,
                                  .k = a->d,
                                  .a = s->queries,
                                  .b = block,
                                  .c = s->scores,
                                  .lda = a->d_even,
                                  .ldc = PITCH,
                                  .depth = a->d_even};
    multiply(&scores);
    for (int64_t r = 0; r < rows; r++) {
        float *x = s->scores + r * PITCH;
        int64_t last = first_query + r - first_key; /* causal: the last key that row r sees */
        int64_t seen = a->causal && last + 1 < keys ? last + 1 : keys;
        if (mask)
            hide_keys(x, mask + first_key, keys);
        for (int64_t i = seen < 0 ? 0 : seen; i < width; i++)
            x[i] = -INFINITY;
        softmax_row(a, s, r, width, first_key == 0);
    }
    struct tile_product sums = {.m = m,
                                .n = a->d_wide,
                                .k = keys,
                                .a = s->weights,
                                .b = block + keys_bytes(a),
                                .c = s->sums,
                                .lda = PITCH,
                                .ldc = a->d_wide,
                                .depth = KEYS,
                                .add = true};
    multiply(&sums);
}

static void attend_queries(const struct attention *a, struct workspace *s, int64_t head,
                           int64_t sub, int64_t first)
{
    int64_t heads = a->k->dims[2], item = head / heads, q_head = head % heads * a->repeat + sub;
    int64_t rows = a->tq - first < a->queries ? a->tq - first : a->queries;
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
    p += QUERIES * PITCH * (int64_t)sizeof(float);
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
        attend_queries(a, s, a->first_head + rest / a->repeat, rest % a->repeat,
                       block * a->queries);
    }
}

/* The block, a multiple of `step`, that splits n into as few as blocks of `most` do, evenly. */
static int64_t even_block(int64_t n, int64_t most, int64_t step)
{
    int64_t blocks = (n + most - 1) / most;
    return round_up((n + blocks - 1) / blocks, step);
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
    a->queries = even_block(a->tq, QUERIES, a->kernels.rows);
    a->query_blocks = (a->tq + a->queries - 1) / a->queries;
    a->block_bytes = keys_bytes(a) + KEYS * a->d_wide * size;
    a->workspace_bytes = round_up((int64_t)sizeof(struct workspace), 64) +
                         round_up(QUERIES * a->d_even * size, 64) +
                         QUERIES * PITCH * ((int64_t)sizeof(float) + size) +
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
