/* The loader: asks a part for tensors by name and exact shape, keeps the first failure. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/backend.h"
#include "engine/weights/fp8.h"
#include "engine/weights/half.h"
#include "engine/weights/quant.h"
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

/* Takes over a tensor. */
static struct weight_source *keep(struct weight_loader *l, struct tensor *t,
                                  const struct weights_entry *entry)
{
    if (l->count == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        struct weight_source *list = realloc(l->list, cap * sizeof *list);
        if (!list)
            return NULL;
        l->list = list;
        l->cap = cap;
    }
    l->list[l->count] = (struct weight_source){.tensor = t, .entry = entry};
    return &l->list[l->count++];
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

/* ---- a weight's values ---- */

enum dtype weight_changed_type(const struct weight_loader *l, size_t i)
{
    int rank = l->list[i].tensor->rank;
    return l->compute == DTYPE_BF16 && (rank == 2 || rank == 4) ? DTYPE_BF16 : DTYPE_F32;
}

static enum dtype type_of(const struct weight_loader *l, size_t i)
{
    const struct weights_entry *t = l->list[i].entry;
    if (l->list[i].changed)
        return weight_changed_type(l, i);
    if (t->expand == fp8_expand_e4m3 && l->list[i].tensor->fp8)
        return DTYPE_E4M3; /* as it is */
    return t->expand ? l->compute : t->dtype;
}

void weight_expand(const struct weights_entry *t, int64_t first, int64_t rows, enum dtype dtype,
                   void *out)
{
    int64_t columns = t->rank ? t->dims[t->rank - 1] : 1;
    size_t row = columns ? t->bytes / (size_t)(elements(t) / (uint64_t)columns) : 0;
    for (int64_t i = 0; i < rows; i++)
        quant_values(t->expand, t->scale, (const char *)t->data + (size_t)(first + i) * row, row,
                     columns, dtype, (char *)out + (size_t)(i * columns) * dtype_size(dtype));
}

/* Values that no file has as they are: summed with LoRAs, expanded, or at an odd address. */
static bool needs_copy(const struct weight_loader *l, size_t i)
{
    const struct weight_source *s = &l->list[i];
    const struct weights_entry *t = s->entry;
    if (s->changed || t->expand)
        return s->changed || (!s->tensor->blocks.kept && type_of(l, i) != DTYPE_E4M3);
    return (uintptr_t)t->data % dtype_size(t->dtype) != 0;
}

static int make_copy(struct weight_loader *l, size_t i, struct err *e)
{
    struct weight_source *s = &l->list[i];
    enum dtype type = type_of(l, i);
    size_t bytes = (size_t)tensor_elements(s->tensor) * dtype_size(type); /* shape_bytes checked */
    s->copy = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    if (!s->copy)
        return err_set(e, -ENOMEM, "%s: not enough memory for %zu bytes of tensor '%s'",
                       s->entry->file, bytes, s->entry->name);
    if (s->changed)
        return l->change.make(l->change.ctx, l, i, type, s->copy, e);
    int64_t columns = s->tensor->dims[s->tensor->rank - 1];
    if (!s->entry->expand) {
        memcpy(s->copy, s->entry->data, bytes);
        return 0;
    }
    weight_expand(s->entry, 0, tensor_elements(s->tensor) / columns, type, s->copy);
    return 0;
}

static int prepare(struct weight_loader *l, size_t i, const void *host, bool kept, struct err *e)
{
    struct tensor *w = l->list[i].tensor;
    const struct weights_entry *t = l->list[i].entry;
    w->dtype = type_of(l, i);
    w->blocks = (struct tensor_blocks){0};
    w->formula = l->list[i].changed ? (struct formula){0} : t->formula;
    if (t->expand && !l->list[i].changed) {
        w->blocks.expand = t->expand;
        w->blocks.scale = t->scale;
        w->blocks.row_bytes = t->bytes / (size_t)(tensor_elements(w) / w->dims[w->rank - 1]);
        w->blocks.kept = kept;
    }
    return l->backend->ops->weight_prepare(l->backend, w, host, l->compute, e);
}

/* For plans. Blocks are kept where products would read the expanded values from host memory. */
static int prepare_shape(struct weight_loader *l, size_t i, struct err *e)
{
    const struct backend *b = l->backend;
    struct tensor *w = l->list[i].tensor;
    int code = prepare(l, i, NULL, false, e);
    if (code || !l->in_blocks || !b->blocks || !w->blocks.expand || w->rank != 2 || w->table ||
        !b->ops->weight_mapped(w))
        return code;
    b->ops->weight_release(l->backend, w);
    return prepare(l, i, NULL, true, e);
}

/* The tensor of weight i becomes one for plans again. */
static int put_to_sleep(struct weight_loader *l, size_t i, struct err *e)
{
    struct weight_source *s = &l->list[i];
    l->backend->ops->weight_release(l->backend, s->tensor);
    free(s->copy);
    s->copy = NULL;
    if (s->ready)
        weights_forget(l->weights, s->entry);
    s->ready = false;
    return prepare_shape(l, i, e);
}

static int wake(struct weight_loader *l, size_t i, struct err *e)
{
    struct weight_source *s = &l->list[i];
    struct tensor *w = s->tensor;
    bool kept = w->blocks.kept;
    int code = needs_copy(l, i) ? make_copy(l, i, e) : 0;
    l->backend->ops->weight_release(l->backend, w);
    if (!code)
        code = prepare(l, i, s->copy ? s->copy : s->entry->data, kept, e);
    if (code) {
        struct err ignored = {0};
        put_to_sleep(l, i, &ignored);
        return code;
    }
    s->ready = true;
    bool mapped = l->backend->ops->weight_mapped(w);
    if (s->copy || !mapped)
        weights_forget(l->weights, s->entry); /* it has been read, and will not be */
    if (s->copy && !mapped) {
        if (w->data == s->copy)
            w->data = NULL; /* kernels do not read it, and nothing else may */
        free(s->copy);
        s->copy = NULL;
    }
    return 0;
}

/* ---- making tensors ---- */

enum need { REQUIRED, OPTIONAL, LINEAR, TABLE };

/* Tensor cores take e4m3 in units of 16 along both axes. */
static bool fits_fp8(const struct weight_loader *l, const int64_t *dims)
{
    return l->fp8 && l->backend->fp8 && dims[0] % 16 == 0 && dims[1] % 16 == 0;
}

static struct tensor *make(struct weight_loader *l, const struct weights_entry *t, int rank,
                           const int64_t *dims, enum need need)
{
    char found[SHAPE_TEXT], expected[SHAPE_TEXT];
    if (!same_shape(t, rank, dims)) {
        err_set(&l->err, -EINVAL, "%s: tensor '%s' has shape %s, expected %s", t->file, t->name,
                shape_text(t->rank, t->dims, found), shape_text(rank, dims, expected));
        return NULL;
    }
    if (!t->usable) {
        err_set(&l->err, -ENOTSUP,
                "%s: tensor '%s' is stored as %s, which is not supported; take a file in F32, F16, "
                "BF16, F8_E4M3 or F8_E5M2 or, of GGUF, Q4_0 to Q8_0 or Q2_K to Q6_K",
                t->file, t->name, t->stored);
        return NULL;
    }
    struct tensor *made = NULL;
    if (tensor_weight_shape(l->backend, t->dtype, rank, dims, &made, &l->err))
        return NULL;
    made->table = need == TABLE;
    made->fp8 = need == LINEAR && fits_fp8(l, dims);
    if (!keep(l, made, t)) {
        tensor_weight_free(made);
        err_nomem(&l->err);
        return NULL;
    }
    l->parameters += elements(t);
    if (prepare_shape(l, l->count - 1, &l->err))
        return NULL;
    if (!l->shapes_only && !l->asleep && wake(l, l->count - 1, &l->err))
        return NULL;
    return made;
}

/* Of tensors that a model can do without, synthetic weights have what no published one lacks. */
static bool made_if_optional(const char *name)
{
    return strcmp(name, "text_projection.weight") == 0;
}

static struct tensor *load(struct weight_loader *l, int rank, const int64_t *dims, enum need need,
                           const char *fmt, va_list ap)
{
    char name[NAME_LIMIT], expected[SHAPE_TEXT];
    if (l->err.code || !full_name(l, name, fmt, ap))
        return NULL;
    const struct weights_entry *t = weights_use(l->weights, name);
    if (weights_made(l->weights) && (need != OPTIONAL || made_if_optional(name)))
        t = synthetic_entry(weights_made(l->weights), name, rank, dims, &l->err);
    if (t)
        return make(l, t, rank, dims, need);
    if (need != OPTIONAL && !l->err.code)
        err_set(&l->err, -ENOENT, "%s: tensor '%s' is missing, expected with shape %s",
                weights_path(l->weights), name, shape_text(rank, dims, expected));
    return NULL;
}

struct tensor *weight(struct weight_loader *l, int rank, const int64_t *dims, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    struct tensor *t = load(l, rank, dims, REQUIRED, fmt, ap);
    va_end(ap);
    return t;
}

struct tensor *weight_optional(struct weight_loader *l, int rank, const int64_t *dims,
                               const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    struct tensor *t = load(l, rank, dims, OPTIONAL, fmt, ap);
    va_end(ap);
    return t;
}

struct tensor *weight_linear(struct weight_loader *l, int64_t rows, int64_t columns,
                             const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    struct tensor *t = load(l, SHAPE(rows, columns), LINEAR, fmt, ap);
    va_end(ap);
    return t;
}

struct tensor *weight_table(struct weight_loader *l, int64_t rows, int64_t columns, const char *fmt,
                            ...)
{
    va_list ap;
    va_start(ap, fmt);
    struct tensor *t = load(l, SHAPE(rows, columns), TABLE, fmt, ap);
    va_end(ap);
    return t;
}

/* ---- in memory or not ---- */

int weight_loader_sleep(struct weight_loader *l, struct err *e)
{
    for (size_t i = 0; i < l->count; i++)
        if (l->list[i].ready && put_to_sleep(l, i, e))
            return e->code;
    return 0;
}

int weight_loader_wake(struct weight_loader *l, struct err *e)
{
    for (size_t i = 0; i < l->count && !l->shapes_only; i++)
        if (!l->list[i].ready && !l->list[i].changed)
            weights_read_ahead(l->weights, l->list[i].entry);
    for (size_t i = 0; i < l->count && !l->shapes_only; i++) {
        if (l->list[i].ready)
            continue;
        if (l->cancelled && l->cancelled(l->cancel_ctx))
            return err_set(e, -ECANCELED, "cancelled");
        if (wake(l, i, e))
            return e->code;
    }
    return 0;
}

int weight_loader_change(struct weight_loader *l, size_t i, bool changed, struct err *e)
{
    l->list[i].changed = changed;
    return put_to_sleep(l, i, e);
}

int weight_loader_keep_blocks(struct weight_loader *l, bool keep, struct err *e)
{
    if (l->in_blocks == keep)
        return 0;
    l->in_blocks = keep;
    for (size_t i = 0; i < l->count; i++) {
        const struct tensor *w = l->list[i].tensor;
        if (w->blocks.expand && (w->blocks.kept || l->backend->ops->weight_mapped(w)) &&
            put_to_sleep(l, i, e))
            return e->code;
    }
    return 0;
}

uint64_t weight_loader_bytes(const struct weight_loader *l, bool ready)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < l->count; i++)
        if (!ready || l->list[i].ready)
            sum += l->backend->ops->weight_bytes(l->list[i].tensor);
    return sum;
}

void weight_loader_free(struct weight_loader *l)
{
    for (size_t i = 0; i < l->count; i++) {
        tensor_weight_free(l->list[i].tensor);
        free(l->list[i].copy);
    }
    free(l->list);
    l->list = NULL;
    l->count = l->cap = 0;
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
            weights_entry_values(t, t->data, count, dst);
        l->parameters += (uint64_t)count;
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
