/* Copies and conversions between float dtypes, strides and host memory. */
#include <string.h>

#include "engine/cpu/cpu.h"
#include "engine/cpu/simd.h"
#include "engine/cpu/walk.h"
#include "engine/weights/half.h"
#include "engine/weights/quant.h"

uint16_t float_f16(float x)
{
    uint32_t u = float_bits(x), sign = u >> 16 & 0x8000, a = u & 0x7FFFFFFF;
    if (a > 0x7F800000)
        return (uint16_t)(sign | 0x7E00 | (a >> 13 & 0x3FF));
    if (a >= 0x477FF000) /* 65520 and more round to infinity */
        return (uint16_t)(sign | 0x7C00);
    if (a < 0x38800000) /* below 2^-14: adding 0.5 leaves multiples of 2^-24 in the low bits */
        return (uint16_t)(sign | (float_bits(bits_float(a) + 0.5f) - float_bits(0.5f)));
    return (uint16_t)(sign | ((a - 0x38000000 + 0xFFF + (a >> 13 & 1)) >> 13));
}

CPU_CLONES static void bf16_to_f32(float *restrict to, const uint16_t *restrict from, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = bf16_float(from[i]);
}

CPU_CLONES static void f16_to_f32(float *restrict to, const uint16_t *restrict from, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = f16_float(from[i]);
}

CPU_CLONES static void f32_to_bf16(uint16_t *restrict to, const float *restrict from, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = float_bf16(from[i]);
}

CPU_CLONES static void f32_to_f16(uint16_t *restrict to, const float *restrict from, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = float_f16(from[i]);
}

#define HALF_BLOCK 512 /* elements on the way from one half type to the other */

void convert_span(void *to, enum dtype to_type, const void *from, enum dtype from_type, int64_t n)
{
    if (to_type == from_type) {
        memcpy(to, from, (size_t)n * dtype_size(to_type));
    } else if (from_type == DTYPE_F32) {
        (to_type == DTYPE_BF16 ? f32_to_bf16 : f32_to_f16)(to, from, n);
    } else if (to_type == DTYPE_F32) {
        (from_type == DTYPE_BF16 ? bf16_to_f32 : f16_to_f32)(to, from, n);
    } else {
        float wide[HALF_BLOCK];
        for (int64_t i = 0; i < n; i += HALF_BLOCK) {
            int64_t count = n - i < HALF_BLOCK ? n - i : HALF_BLOCK;
            convert_span(wide, DTYPE_F32, (const uint16_t *)from + i, from_type, count);
            convert_span((uint16_t *)to + i, to_type, wide, DTYPE_F32, count);
        }
    }
}

struct rows_job {
    char *to;
    const char *from;
    enum dtype to_type, from_type;
    int64_t width, pitch;
};

static void rows_task(void *ctx, int worker, int64_t begin, int64_t end)
{
    const struct rows_job *j = ctx;
    int64_t to_row = j->width * (int64_t)dtype_size(j->to_type);
    int64_t from_row = j->pitch * (int64_t)dtype_size(j->from_type);
    (void)worker;
    if (j->width == j->pitch) {
        convert_span(j->to + begin * to_row, j->to_type, j->from + begin * from_row, j->from_type,
                     (end - begin) * j->width);
        return;
    }
    for (int64_t i = begin; i < end; i++)
        convert_span(j->to + i * to_row, j->to_type, j->from + i * from_row, j->from_type,
                     j->width);
}

void convert_rows(int threads, void *to, enum dtype to_type, const void *from, enum dtype from_type,
                  int64_t rows, int64_t width, int64_t pitch)
{
    struct rows_job j = {to, from, to_type, from_type, width, pitch};
    cpu_parallel(threads, rows, 1 + 65536 / width, rows_task, &j);
}

struct expand_job {
    char *to;
    enum dtype to_type;
    const struct tensor *w;
    int64_t first;
};

static void expand_task(void *ctx, int worker, int64_t begin, int64_t end)
{
    const struct expand_job *j = ctx;
    const struct tensor_blocks *b = &j->w->blocks;
    int64_t width = j->w->dims[1];
    bool rounds = j->to_type == DTYPE_F32 && j->w->dtype == DTYPE_BF16;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        const char *row = (const char *)j->w->data + (size_t)(j->first + i) * b->row_bytes;
        void *to = j->to + (size_t)(i * width) * dtype_size(j->to_type);
        quant_values(b->expand, b->scale, row, b->row_bytes, width, j->to_type, to);
        for (int64_t k = 0; rounds && k < width; k++)
            ((float *)to)[k] = bfloat_to_float(float_to_bfloat(((float *)to)[k]));
    }
}

void expand_rows(int threads, void *to, enum dtype to_type, const struct tensor *w, int64_t first,
                 int64_t rows)
{
    struct expand_job j = {to, to_type, w, first};
    cpu_parallel(threads, rows, 1 + 16384 / w->dims[1], expand_task, &j);
}

struct rows rows_of(const struct tensor *t)
{
    struct rows r = {.count = 1, .width = t->dims[t->rank - 1]};
    for (int i = 0; i < t->rank - 1; i++) {
        r.count *= t->dims[i];
        if (t->dims[i] == 1)
            continue;
        if (r.rank > 0 && r.strides[r.rank - 1] == t->strides[i] * t->dims[i]) {
            r.dims[r.rank - 1] *= t->dims[i];
            r.strides[r.rank - 1] = t->strides[i];
        } else {
            r.dims[r.rank] = t->dims[i];
            r.strides[r.rank++] = t->strides[i];
        }
    }
    return r;
}

void cpu_upload(struct ops *o, struct tensor *y, const void *host, size_t bytes)
{
    (void)o;
    memcpy(y->data, host, bytes);
}

void cpu_download(struct ops *o, void *host, const struct tensor *x, size_t bytes)
{
    (void)o;
    memcpy(host, x->data, bytes);
}

void cpu_fill_zero(struct ops *o, struct tensor *y)
{
    if (!ops_planning(o))
        memset(y->data, 0, (size_t)tensor_elements(y) * dtype_size(y->dtype));
}

void cpu_move(struct ops *o, void *to, const void *from, size_t bytes)
{
    (void)o;
    memmove(to, from, bytes);
}

struct copy_types {
    enum dtype to, from;
};

/* Elements apart in memory, converted through a dense block. */
static void gather(const struct span *s, int64_t start, int64_t n, size_t size, char *block)
{
    const char *from = s->p[1] + start * s->step[1];
    for (int64_t i = 0; i < n; i++, from += s->step[1])
        memcpy(block + (size_t)i * size, from, size);
}

static void copy_strided(const struct span *s, const struct copy_types *t)
{
    char block[HALF_BLOCK * sizeof(float)];
    for (int64_t i = 0; i < s->n; i += HALF_BLOCK) {
        int64_t n = s->n - i < HALF_BLOCK ? s->n - i : HALF_BLOCK;
        switch (dtype_size(t->from)) { /* constant sizes make each gather a plain loop */
        case 4:
            gather(s, i, n, 4, block);
            break;
        case 2:
            gather(s, i, n, 2, block);
            break;
        default:
            gather(s, i, n, 1, block);
        }
        convert_span(s->p[0] + i * s->step[0], t->to, block, t->from, n);
    }
}

static void copy_span(const struct span *s)
{
    const struct copy_types *t = s->ctx;
    int64_t to = (int64_t)dtype_size(t->to), from = (int64_t)dtype_size(t->from);
    if (s->step[0] == to && s->step[1] == from) {
        convert_span(s->p[0], t->to, s->p[1], t->from, s->n);
    } else if (s->step[0] == to) {
        copy_strided(s, t);
    } else {
        for (int64_t i = 0; i < s->n; i++)
            convert_span(s->p[0] + i * s->step[0], t->to, s->p[1] + i * s->step[1], t->from, 1);
    }
}

void cpu_copy(struct ops *o, struct tensor *y, const struct tensor *x)
{
    struct copy_types types = {y->dtype, x->dtype};
    struct walk w;
    if (ops_planning(o))
        return;
    walk_start(&w, y->rank, y->dims);
    walk_add(&w, y);
    walk_add(&w, x);
    walk_run(&w, cpu_threads(y), false, copy_span, &types);
}
