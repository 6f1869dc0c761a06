/* The loader: asks a part for tensors by name and exact shape, keeps the first failure. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "engine/backend.h"
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

static bool keep(struct weight_loader *l, struct tensor *t)
{
    if (l->owned_count == l->owned_cap) {
        size_t cap = l->owned_cap ? 2 * l->owned_cap : 64;
        struct tensor **grown = realloc(l->owned, cap * sizeof(struct tensor *));
        if (!grown)
            return false;
        l->owned = grown;
        l->owned_cap = cap;
    }
    l->owned[l->owned_count++] = t;
    return true;
}

static bool same_shape(const struct weights_entry *t, int rank, const int64_t *dims)
{
    return t->rank == rank && !memcmp(t->dims, dims, (size_t)rank * sizeof *dims);
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
    struct tensor *made = NULL;
    if (tensor_weight_new(l->backend, t->dtype, rank, dims, l->shapes_only ? NULL : t->data,
                          l->compute, &made, &l->err))
        return NULL;
    if (!keep(l, made)) {
        tensor_weight_free(made);
        err_nomem(&l->err);
        return NULL;
    }
    l->parameters += t->bytes / dtype_size(t->dtype);
    l->bytes += t->bytes;
    return made;
}

static struct tensor *load(struct weight_loader *l, int rank, const int64_t *dims, bool optional,
                           const char *fmt, va_list ap)
{
    char name[NAME_LIMIT], expected[SHAPE_TEXT];
    if (l->err.code || !full_name(l, name, fmt, ap))
        return NULL;
    const struct weights_entry *t = weights_use(l->weights, name);
    if (t)
        return make(l, t, rank, dims);
    if (!optional)
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

void weight_loader_free(struct weight_loader *l)
{
    for (size_t i = 0; i < l->owned_count; i++)
        tensor_weight_free(l->owned[i]);
    free(l->owned);
    l->owned = NULL;
    l->owned_count = l->owned_cap = 0;
}

/* ---- copies to fp32 ---- */

static float from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

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
    return from_bits((uint32_t)h << 16);
}

static float from_f16(const void *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7FFF;
    if (rest >= 0x7C00) /* infinity, NaN */
        return from_bits(sign | 0x7F800000u | rest << 13);
    if (rest < 0x0400) /* zero, subnormal: rest · 2^-24 */
        return (sign ? -1.0f : 1.0f) * (float)rest * 0x1p-24f;
    return from_bits(sign | ((rest << 13) + 0x38000000u));
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
    if (!t)
        return err_set(&l->err, -ENOENT, "%s: tensor '%s' is missing, expected with %lld values",
                       weights_path(l->weights), name, (long long)count);
    return copy_f32(l, dst, count, t);
}
