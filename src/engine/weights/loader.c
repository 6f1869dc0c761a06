/* The loader: asks a part for tensors by name and exact shape, keeps the first failure. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/backend.h"
#include "engine/weights/half.h"
#include "engine/weights/synthetic.h"
#include "engine/weights/usage.h"
#include "engine/weights/weights.h"

enum { NAME_LIMIT = 256, SHAPE_TEXT = 160 };

static const char *shape_text(int rank, const int64_t *dims, char out[SHAPE_TEXT])
{
    size_t n = 0;
    out[n++] = '[';
    for (int i = 0; i < rank && n < SHAPE_TEXT - 24; i++)
        n += (size_t)snprintf(out + n, SHAPE_TEXT - n, "%s%lld", i ? ", " : "", (long long)dims[i]);
    snprintf(out + n, SHAPE_TEXT - n, "]");
    return out;
}

/* Prefix and formatted name together; false and a sticky error when too long. */
static bool full_name(struct weight_loader *l, char out[NAME_LIMIT], const char *fmt, va_list ap)
{
    int n = snprintf(out, NAME_LIMIT, "%s", l->prefix ? l->prefix : "");
    int m = n < NAME_LIMIT ? vsnprintf(out + n, (size_t)(NAME_LIMIT - n), fmt, ap) : 0;
    if (n >= 0 && m >= 0 && n + m < NAME_LIMIT)
        return true;
    err_set(&l->err, -EINVAL, "%s: the tensor name '%.40s...' is over %d bytes",
            weights_path(l->weights), out, NAME_LIMIT - 1);
    return false;
}

static void *grown(void *list, size_t cap)
{
    return realloc(list, cap * sizeof(void *));
}

/* Takes over a tensor and the data made for it (NULL for mapped data). */
static bool keep(struct weight_loader *l, struct tensor *t, void *expanded,
                 const struct weights_entry *source)
{
    if (l->owned_count == l->owned_cap) {
        size_t cap = l->owned_cap ? 2 * l->owned_cap : 64;
        void *owned = grown(l->owned, cap);
        l->owned = owned ? owned : l->owned;
        void *data = owned ? grown(l->expanded, cap) : NULL;
        l->expanded = data ? data : l->expanded;
        void *sources = data ? grown(l->sources, cap) : NULL;
        l->sources = sources ? sources : l->sources;
        if (!sources)
            return false;
        l->owned_cap = cap;
    }
    l->expanded[l->owned_count] = expanded;
    l->sources[l->owned_count] = source;
    l->owned[l->owned_count++] = t;
    return true;
}

static bool same_shape(const struct weights_entry *t, int rank, const int64_t *dims)
{
    return t->rank == rank && !memcmp(t->dims, dims, (size_t)rank * sizeof *dims);
}

static uint64_t elements(const struct weights_entry *t)
{
    uint64_t n = 1; /* cannot overflow: the reader checked */
    for (int i = 0; i < t->rank; i++)
        n *= (uint64_t)t->dims[i];
    return n;
}

/* A quantized tensor as fp32 or bf16, a stretch at a time. */
static int expand(const struct weights_entry *t, enum dtype dtype, void **out, struct err *e)
{
    enum { BLOCK = 256, STRETCH = 16 * BLOCK }; /* values; every block divides BLOCK */
    float values[STRETCH];
    uint64_t count = elements(t);
    const uint8_t *from = t->data;
    size_t bytes;
    if (!size_mul((size_t)count, dtype_size(dtype), &bytes) || !(*out = malloc(bytes + 1)))
        return err_set(e, -ENOMEM, "%s: not enough memory to expand tensor '%s'", t->file, t->name);
    size_t step = count ? t->bytes * BLOCK / (size_t)count : 0;
    for (uint64_t i = 0; i < count; i += STRETCH) {
        uint64_t n = count - i < STRETCH ? count - i : STRETCH;
        t->expand(from + i / BLOCK * step, (int64_t)n, values);
        for (uint64_t k = 0; dtype == DTYPE_BF16 && k < n; k++)
            ((uint16_t *)*out)[i + k] = float_to_bfloat(values[k]);
        if (dtype != DTYPE_BF16)
            memcpy((float *)*out + i, values, (size_t)n * sizeof *values);
    }
    return 0;
}

static struct tensor *make(struct weight_loader *l, const struct weights_entry *t, int rank,
                           const int64_t *dims)
{
    char found[SHAPE_TEXT], expected[SHAPE_TEXT];
    if (!same_shape(t, rank, dims)) {
        err_set(&l->err, -EINVAL, "%s: tensor '%s' has shape %s, expected %s", t->file, t->name,
                shape_text(t->rank, t->dims, found), shape_text(rank, dims, expected));
        return NULL;
    }
    if (!t->usable) {
        err_set(&l->err, -ENOTSUP, "%s: tensor '%s' is stored as %s, expected F32, BF16 or F16",
                t->file, t->name, t->stored);
        return NULL;
    }
    AUTO_FREE void *expanded = NULL;
    struct tensor *made = NULL;
    enum dtype dtype = t->expand ? l->compute : t->dtype;
    const void *data = t->data;
    if (t->expand && !l->shapes_only) {
        if (expand(t, dtype, &expanded, &l->err))
            return NULL;
        data = expanded;
    }
    if (tensor_weight_new(l->backend, dtype, rank, dims, l->shapes_only ? NULL : data, l->compute,
                          &made, &l->err))
        return NULL;
    if (!keep(l, made, expanded, t)) {
        tensor_weight_free(made);
        err_nomem(&l->err);
        return NULL;
    }
    expanded = NULL;
    l->parameters += elements(t);
    l->bytes += t->expand ? elements(t) * dtype_size(dtype) : t->bytes;
    return made;
}

/* Of tensors that a model can do without, synthetic weights have what no published one lacks. */
static bool made_if_optional(const char *name)
{
    return strcmp(name, "text_projection.weight") == 0;
}

static struct tensor *load(struct weight_loader *l, int rank, const int64_t *dims, bool optional,
                           const char *fmt, va_list ap)
{
    char name[NAME_LIMIT], expected[SHAPE_TEXT];
    if (l->err.code || !full_name(l, name, fmt, ap))
        return NULL;
    const struct weights_entry *t = weights_use(l->weights, name);
    if (weights_made(l->weights) && (!optional || made_if_optional(name)))
        t = synthetic_entry(weights_made(l->weights), name, rank, dims, &l->err);
    if (t)
        return make(l, t, rank, dims);
    if (!optional && !l->err.code)
        err_set(&l->err, -ENOENT, "%s: tensor '%s' is missing, expected with shape %s",
                weights_path(l->weights), name, shape_text(rank, dims, expected));
    return NULL;
}

struct tensor *weight(struct weight_loader *l, int rank, const int64_t *dims, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    struct tensor *t = load(l, rank, dims, false, fmt, ap);
    va_end(ap);
    return t;
}

struct tensor *weight_optional(struct weight_loader *l, int rank, const int64_t *dims,
                               const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    struct tensor *t = load(l, rank, dims, true, fmt, ap);
    va_end(ap);
    return t;
}

/* Is it as the file has it, so that it can be made again? (Not expanded, not patched.) */
static bool from_file(const struct weight_loader *l, size_t i)
{
    return !l->expanded[i] && l->sources[i] && l->owned[i]->data == l->sources[i]->data;
}

void weight_loader_sleep(struct weight_loader *l)
{
    const struct backend_ops *b = l->backend ? l->backend->ops : NULL;
    if (l->asleep || l->shapes_only || !b || !b->weight_sleep)
        return;
    for (size_t i = 0; i < l->owned_count; i++)
        if (from_file(l, i))
            b->weight_sleep(l->backend, l->owned[i]);
    weights_forget(l->weights);
    l->asleep = true;
}

int weight_loader_wake(struct weight_loader *l, struct err *e)
{
    for (size_t i = 0; l->asleep && i < l->owned_count; i++)
        if (from_file(l, i) && l->backend->ops->weight_wake(l->backend, l->owned[i], e) != 0)
            return e->code;
    l->asleep = false;
    return 0;
}

void weight_loader_free(struct weight_loader *l)
{
    for (size_t i = 0; i < l->owned_count; i++) {
        tensor_weight_free(l->owned[i]);
        free(l->expanded[i]);
    }
    free(l->owned);
    free(l->expanded);
    free(l->sources);
    l->owned = NULL;
    l->expanded = NULL;
    l->sources = NULL;
    l->owned_count = l->owned_cap = 0;
}

/* ---- copies to fp32 ---- */

static float from_f32(const void *p)
{
    float f;
    memcpy(&f, p, sizeof f);
    return f;
}

static float from_f64(const void *p)
{
    double d;
    memcpy(&d, p, sizeof d);
    return (float)d;
}

static float from_bf16(const void *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return bfloat_to_float(h);
}

static float from_f16(const void *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return half_to_float(h);
}

static const struct reading {
    const char *stored;
    size_t bytes;
    float (*read)(const void *p);
} readings[] = {
    {"F32", 4, from_f32}, {"BF16", 2, from_bf16}, {"F16", 2, from_f16}, {"F64", 8, from_f64}};

static int copy_f32(struct weight_loader *l, float *dst, int64_t count,
                    const struct weights_entry *t)
{
    if (t->expand && (uint64_t)count == elements(t)) {
        if (!l->shapes_only)
            t->expand(t->data, count, dst);
        l->parameters += (uint64_t)count;
        l->bytes += t->bytes;
        return 0;
    }
    for (size_t i = 0; i < sizeof readings / sizeof *readings; i++) {
        const struct reading *r = &readings[i];
        if (strcmp(r->stored, t->stored) != 0)
            continue;
        if ((uint64_t)count != t->bytes / r->bytes)
            return err_set(&l->err, -EINVAL, "%s: tensor '%s' has %zu values, expected %lld",
                           t->file, t->name, t->bytes / r->bytes, (long long)count);
        for (int64_t k = 0; k < count; k++)
            dst[k] = l->shapes_only ? 0 : r->read((const char *)t->data + (size_t)k * r->bytes);
        l->parameters += (uint64_t)count;
        l->bytes += t->bytes;
        return 0;
    }
    return err_set(&l->err, -ENOTSUP, "%s: tensor '%s' is stored as %s, expected a float type",
                   t->file, t->name, t->stored);
}

int weight_to_f32(struct weight_loader *l, float *dst, int64_t count, const char *fmt, ...)
{
    char name[NAME_LIMIT];
    if (l->err.code)
        return l->err.code;
    va_list ap;
    va_start(ap, fmt);
    bool named = full_name(l, name, fmt, ap);
    va_end(ap);
    if (!named)
        return l->err.code;
    const struct weights_entry *t = weights_use(l->weights, name);
    if (weights_made(l->weights)) {
        t = synthetic_entry(weights_made(l->weights), name, 1, &count, &l->err);
        if (!t)
            return l->err.code;
    }
    if (!t)
        return err_set(&l->err, -ENOENT, "%s: tensor '%s' is missing, expected with %lld values",
                       weights_path(l->weights), name, (long long)count);
    return copy_f32(l, dst, count, t);
}
