#include "engine/weights/gguf.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/weights/quant.h"

enum { MAX_DIMS = 4, MAX_NAME = 1024, MAX_ARRAY_DEPTH = 4, LARGEST_ALIGNMENT = 1 << 16 };
#define LEAST_TENSOR_INFO 24 /* bytes: no name, no dims */

/* Types of values (gguf.h); the bytes of one, 0: of its own length. */
enum value { VALUE_STRING = 8, VALUE_ARRAY = 9, VALUE_U32 = 4, VALUE_TYPES = 13 };
static const uint8_t value_bytes[VALUE_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

/* A place in the header. A read past the end sets `over` and gives zeros. */
struct cursor {
    const uint8_t *at, *end;
    bool over;
};

static const uint8_t *take(struct cursor *c, uint64_t n)
{
    if (c->over || n > (uint64_t)(c->end - c->at)) {
        c->over = true;
        return NULL;
    }
    const uint8_t *p = c->at;
    c->at += n;
    return p;
}

static uint64_t take_number(struct cursor *c, int bytes)
{
    const uint8_t *p = take(c, (uint64_t)bytes);
    uint64_t v = 0;
    for (int i = bytes; p && i-- > 0;)
        v = v << 8 | p[i];
    return v;
}

/* A string in place, not NUL-terminated. */
static const char *take_string(struct cursor *c, uint64_t *length)
{
    *length = take_number(c, 8);
    return (const char *)take(c, *length);
}

struct reader {
    const char *path;
    struct cursor c;
    const uint8_t *start;
    size_t size;
    uint64_t alignment;
    struct weights_file *out;
    struct err *e;
};

static int fault(struct reader *r, const char *what)
{
    return err_set(r->e, -EINVAL, "%s: %s; the file is damaged or truncated, fetch it again",
                   r->path, what);
}

/* ---- key-value pairs: all but the alignment are passed over ---- */

static int skip_value(struct reader *r, uint64_t type, int depth)
{
    uint64_t n, items, item;
    if (type >= VALUE_TYPES || depth > MAX_ARRAY_DEPTH)
        return fault(r, "a value has an unknown type");
    if (type == VALUE_STRING) {
        take_string(&r->c, &n);
        return 0;
    }
    if (type != VALUE_ARRAY) {
        take(&r->c, value_bytes[type]);
        return 0;
    }
    item = take_number(&r->c, 4);
    items = take_number(&r->c, 8);
    if (item < VALUE_TYPES && value_bytes[item]) {
        uint64_t bytes;
        if (__builtin_mul_overflow(items, (uint64_t)value_bytes[item], &bytes))
            return fault(r, "an array is larger than any file");
        take(&r->c, bytes);
        return 0;
    }
    for (uint64_t i = 0; i < items && !r->c.over; i++) {
        int code = skip_value(r, item, depth + 1);
        if (code)
            return code;
    }
    return 0;
}

static int read_pairs(struct reader *r, uint64_t count)
{
    static const char key_of_alignment[] = "general.alignment";
    r->alignment = 32;
    for (uint64_t i = 0; i < count && !r->c.over; i++) {
        uint64_t length;
        const char *key = take_string(&r->c, &length);
        uint64_t type = take_number(&r->c, 4);
        if (key && type == VALUE_U32 && length == sizeof key_of_alignment - 1 &&
            !memcmp(key, key_of_alignment, (size_t)length)) {
            r->alignment = take_number(&r->c, 4);
            continue;
        }
        int code = skip_value(r, type, 0);
        if (code)
            return code;
    }
    if (r->c.over)
        return fault(r, "the header ends within its values");
    if (r->alignment < 8 || r->alignment > LARGEST_ALIGNMENT || (r->alignment & (r->alignment - 1)))
        return fault(r, "general.alignment is not a power of two from 8 to 65536");
    return 0;
}

/* ---- tensors ---- */

#define TENSOR "%s: tensor '%.100s': "

static int read_name(struct reader *r, struct weights_entry *t)
{
    uint64_t length;
    const char *name = take_string(&r->c, &length);
    if (!name || length == 0 || length > MAX_NAME || !utf8_valid(name, (size_t)length))
        return fault(r, "the name of a tensor is missing, too long or not UTF-8");
    t->name = strndup(name, (size_t)length);
    return t->name ? 0 : err_nomem(r->e);
}

/* Dimensions stand innermost first. */
static int read_dims(struct reader *r, struct weights_entry *t, uint64_t *elements)
{
    uint64_t rank = take_number(&r->c, 4);
    if (rank > MAX_DIMS)
        return err_set(r->e, -EINVAL, TENSOR "%" PRIu64 " dimensions, expected at most %d", r->path,
                       t->name, rank, MAX_DIMS);
    t->rank = (int)rank;
    *elements = 1;
    for (int i = t->rank; i-- > 0;) {
        uint64_t dim = take_number(&r->c, 8);
        if (dim > INT64_MAX || __builtin_mul_overflow(*elements, dim, elements) ||
            *elements > INT64_MAX)
            return err_set(r->e, -EINVAL, TENSOR "more elements than any file holds", r->path,
                           t->name);
        t->dims[i] = (int64_t)dim;
    }
    return 0;
}

static int read_type(struct reader *r, struct weights_entry *t, uint64_t elements)
{
    uint32_t id = (uint32_t)take_number(&r->c, 4);
    const struct quant_type *q = quant_find(id);
    if (!q)
        return err_set(r->e, -ENOTSUP,
                       TENSOR "GGUF type %" PRIu32
                              " is not known; the file is damaged or of a newer version",
                       r->path, t->name, id);
    uint64_t row = t->rank ? (uint64_t)t->dims[t->rank - 1] : 1, bytes;
    if (row % (uint64_t)q->block_values)
        return err_set(r->e, -EINVAL, TENSOR "rows of %" PRIu64 " values are no whole blocks of %s",
                       r->path, t->name, row, q->name);
    if (__builtin_mul_overflow(elements / (uint64_t)q->block_values, (uint64_t)q->block_bytes,
                               &bytes))
        return err_set(r->e, -EINVAL, TENSOR "more bytes than any file holds", r->path, t->name);
    strcpy(t->stored, q->name);
    t->dtype = q->dtype;
    t->expand = q->expand;
    t->usable = q->plain || q->expand;
    t->element = q->block_values == 1 ? q->block_bytes : 0;
    t->bytes = (size_t)bytes;
    return 0;
}

/* The offset waits in `data` until the start of the data is known. */
static int read_info(struct reader *r, struct weights_entry *t)
{
    uint64_t elements = 0;
    t->file = r->out->path;
    int code = read_name(r, t);
    if (!code)
        code = read_dims(r, t, &elements);
    if (!code)
        code = read_type(r, t, elements);
    if (code)
        return code;
    uint64_t offset = take_number(&r->c, 8);
    if (r->c.over)
        return fault(r, "the header ends within its tensors");
    if (offset % r->alignment || offset > r->size)
        return err_set(r->e, -EINVAL,
                       TENSOR "offset %" PRIu64 " is not aligned or outside the file", r->path,
                       t->name, offset);
    t->data = r->start + offset;
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const struct weights_entry *x = a, *y = b;
    uintptr_t i = (uintptr_t)x->data, j = (uintptr_t)y->data;
    return i == j ? (x->bytes > y->bytes) - (x->bytes < y->bytes) : i < j ? -1 : 1;
}

/* Moves the offsets behind the header; every tensor lies in the file and none overlaps. */
static int place(struct reader *r)
{
    struct weights_file *f = r->out;
    size_t header = (size_t)(r->c.at - r->start), base;
    if (!size_add(header, (size_t)r->alignment - 1, &base))
        return fault(r, "the header is too large");
    base &= ~((size_t)r->alignment - 1);
    if (f->count)
        qsort(f->entries, f->count, sizeof *f->entries, by_place);
    size_t end = base;
    for (size_t i = 0; i < f->count; i++) {
        struct weights_entry *t = &f->entries[i];
        size_t from = (size_t)((const uint8_t *)t->data - r->start), to;
        if (!size_add(from, base, &from) || !size_add(from, t->bytes, &to) || to > r->size)
            return err_set(r->e, -EINVAL,
                           TENSOR "its data ends behind the file: it is truncated, fetch it again",
                           r->path, t->name);
        if (from < end)
            return err_set(r->e, -EINVAL, TENSOR "its data overlaps the data before it", r->path,
                           t->name);
        end = to;
        t->data = r->start + from;
    }
    return 0;
}

static int read_tensors(struct reader *r, uint64_t count)
{
    struct weights_file *f = r->out;
    if (count > (uint64_t)(r->c.end - r->c.at) / LEAST_TENSOR_INFO)
        return fault(r, "the header announces more tensors than fit");
    f->entries = calloc((size_t)count + 1, sizeof *f->entries);
    if (!f->entries)
        return err_nomem(r->e);
    while (f->count < count) {
        int code = read_info(r, &f->entries[f->count++]);
        if (code)
            return code;
    }
    return place(r);
}

bool gguf_is(const void *bytes, size_t size)
{
    return size >= 4 && !memcmp(bytes, "GGUF", 4);
}

int gguf_parse(const char *path, const void *bytes, size_t size, struct weights_file *out,
               struct err *e)
{
    *out = (struct weights_file){.path = strdup(path)};
    if (!out->path)
        return err_nomem(e);
    const uint8_t *start = bytes;
    struct reader r = {.path = path,
                       .c = {start, start + size, false},
                       .start = start,
                       .size = size,
                       .out = out,
                       .e = e};
    bool magic = take(&r.c, 4) && gguf_is(bytes, size);
    uint64_t version = take_number(&r.c, 4);
    uint64_t tensors = take_number(&r.c, 8), pairs = take_number(&r.c, 8);
    int code = 0;
    if (!magic || r.c.over || version < 2 || version > 3)
        code = err_set(e, -EINVAL, "%s: GGUF version %" PRIu64 " is not known, expected 2 or 3",
                       path, version);
    if (!code)
        code = read_pairs(&r, pairs);
    if (!code)
        code = read_tensors(&r, tensors);
    if (code)
        weights_file_close(out);
    return code;
}
