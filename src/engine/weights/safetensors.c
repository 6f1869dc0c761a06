#include "engine/weights/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/weights/fp8.h"

enum { LENGTH_BYTES = 8, MAX_RANK = 8 };

/* Words of the format (huggingface/safetensors, tensor.rs); `dtype` only counts where usable. */
static const struct word {
    const char *name;
    size_t bytes;
    bool usable;
    enum dtype dtype;
    void (*expand)(const void *values, int64_t count, float *out);
} words[] = {
    {"F32", 4, true, DTYPE_F32, NULL},
    {"BF16", 2, true, DTYPE_BF16, NULL},
    {"F16", 2, true, DTYPE_F16, NULL},
    {"F8_E4M3", 1, true, DTYPE_F32, fp8_expand_e4m3},
    {"F8_E5M2", 1, true, DTYPE_F32, fp8_expand_e5m2},
    {"F64", 8, false, DTYPE_F32, NULL},
    {"I64", 8, false, DTYPE_F32, NULL},
    {"I32", 4, false, DTYPE_F32, NULL},
    {"I16", 2, false, DTYPE_F32, NULL},
    {"I8", 1, false, DTYPE_F32, NULL},
    {"U64", 8, false, DTYPE_F32, NULL},
    {"U32", 4, false, DTYPE_F32, NULL},
    {"U16", 2, false, DTYPE_F32, NULL},
    {"U8", 1, false, DTYPE_F32, NULL},
    {"BOOL", 1, false, DTYPE_F32, NULL},
    {"C64", 8, false, DTYPE_F32, NULL},
    {"F8_E8M0", 1, false, DTYPE_F32, NULL},
    {"F8_E4M3FNUZ", 1, false, DTYPE_F32, NULL},
    {"F8_E5M2FNUZ", 1, false, DTYPE_F32, NULL},
};

static const struct word *find_word(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (!strcmp(words[i].name, name))
            return &words[i];
    return NULL;
}

/* What is needed to read one header. */
struct reader {
    struct weights_file *out;
    const uint8_t *data; /* after the header */
    uint64_t data_bytes;
    struct err *e;
};

#define FAULT "%s: tensor '%.100s': "

static int read_shape(struct reader *r, struct weights_entry *t, json_t *shape, uint64_t *elements)
{
    if (!json_is_array(shape) || json_array_size(shape) > MAX_RANK)
        return err_set(r->e, -EINVAL, FAULT "shape must be an array of at most %d numbers",
                       r->out->path, t->name, MAX_RANK);
    *elements = 1;
    bool fits = true;
    for (t->rank = 0; t->rank < (int)json_array_size(shape); t->rank++) {
        json_t *dim = json_array_get(shape, (size_t)t->rank);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return err_set(r->e, -EINVAL, FAULT "shape[%d] must be a whole number", r->out->path,
                           t->name, t->rank);
        t->dims[t->rank] = json_integer_value(dim);
        fits &= !__builtin_mul_overflow(*elements, (uint64_t)t->dims[t->rank], elements);
    }
    if (!fits || *elements > INT64_MAX)
        return err_set(r->e, -EINVAL, FAULT "the shape has more elements than any file holds",
                       r->out->path, t->name);
    return 0;
}

/* Begin and end of the data, within the file and as long as dtype and shape say. */
static int read_range(struct reader *r, struct weights_entry *t, json_t *offsets, uint64_t elements,
                      const struct word *word)
{
    json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last) ||
        json_integer_value(first) < 0 || json_integer_value(last) < json_integer_value(first))
        return err_set(r->e, -EINVAL, FAULT "data_offsets must be [begin, end]", r->out->path,
                       t->name);
    uint64_t begin = (uint64_t)json_integer_value(first), end = (uint64_t)json_integer_value(last);
    if (end > r->data_bytes)
        return err_set(r->e, -EINVAL,
                       FAULT "its data ends at byte %" PRIu64 ", but the file has only %" PRIu64
                             " bytes of data: it is truncated or damaged, fetch it again",
                       r->out->path, t->name, end, r->data_bytes);
    uint64_t expected;
    if (__builtin_mul_overflow(elements, word->bytes, &expected) || expected != end - begin)
        return err_set(r->e, -EINVAL, FAULT "%s of this shape does not fill its %" PRIu64 " bytes",
                       r->out->path, t->name, word->name, end - begin);
    t->data = r->data + begin;
    t->bytes = (size_t)expected;
    return 0;
}

static int read_entry(struct reader *r, struct weights_entry *t, const char *name, json_t *info)
{
    t->file = r->out->path;
    t->name = strdup(name);
    if (!t->name)
        return err_nomem(r->e);
    const char *dtype = json_string_value(json_object_get(info, "dtype"));
    const struct word *word = dtype ? find_word(dtype) : NULL;
    if (!word)
        return err_set(r->e, -EINVAL, FAULT "dtype '%.20s' is unknown", r->out->path, name,
                       dtype ? dtype : "(missing)");
    strcpy(t->stored, word->name);
    t->usable = word->usable;
    t->dtype = word->dtype;
    t->element = word->bytes;
    t->expand = word->expand;
    uint64_t elements = 0;
    int code = read_shape(r, t, json_object_get(info, "shape"), &elements);
    return code ? code : read_range(r, t, json_object_get(info, "data_offsets"), elements, word);
}

static int by_place(const void *a, const void *b)
{
    const struct weights_entry *x = a, *y = b;
    uintptr_t i = (uintptr_t)x->data, j = (uintptr_t)y->data;
    if (i != j)
        return i < j ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes); /* empty tensors come first */
}

/* Every byte of data belongs to exactly one tensor. */
static int check_cover(struct reader *r)
{
    struct weights_file *s = r->out;
    if (s->count)
        qsort(s->entries, s->count, sizeof *s->entries, by_place);
    const uint8_t *end = r->data;
    for (size_t i = 0; i < s->count; i++) {
        const struct weights_entry *t = &s->entries[i];
        if (t->data != end)
            return err_set(r->e, -EINVAL, FAULT "its data %s the data before it", s->path, t->name,
                           (const uint8_t *)t->data < end ? "overlaps" : "leaves a hole after");
        end += t->bytes;
    }
    uint64_t covered = (uint64_t)(end - r->data);
    if (covered != r->data_bytes)
        return err_set(r->e, -EINVAL,
                       "%s: %" PRIu64 " bytes of data belong to no tensor; the file is damaged",
                       s->path, r->data_bytes - covered);
    return 0;
}

static int read_header(struct reader *r, json_t *root)
{
    struct weights_file *s = r->out;
    size_t most = json_object_size(root);
    s->entries = calloc(most + 1, sizeof *s->entries);
    if (!s->entries)
        return err_nomem(r->e);
    const char *name;
    json_t *info;
    json_object_foreach(root, name, info)
    {
        if (!strcmp(name, "__metadata__"))
            continue;
        int code = read_entry(r, &s->entries[s->count++], name, info);
        if (code)
            return code;
    }
    int code = check_cover(r);
    return code ? code : fp8_take_scales(s, r->e);
}

/* The header's length, checked against the file's and the limit; 0 with `e` set when wrong. */
static size_t header_bytes(const char *path, const uint8_t *bytes, size_t size, struct err *e)
{
    uint64_t n = 0;
    if (size < LENGTH_BYTES + 2) {
        err_set(e, -EINVAL, "%s: %zu bytes are too few for a safetensors file", path, size);
        return 0;
    }
    for (int i = LENGTH_BYTES - 1; i >= 0; i--)
        n = n << 8 | bytes[i];
    const char *fault = NULL;
    if (n > SAFETENSORS_HEADER_LIMIT)
        fault = "which is over the limit of 33554432; is this a safetensors file?";
    else if (n < 2 || bytes[LENGTH_BYTES] != '{')
        fault = "but no JSON object follows; is this a safetensors file?";
    else if (n > size - LENGTH_BYTES)
        fault = "but it ends before: it is truncated, fetch it again";
    if (!fault)
        return (size_t)n;
    err_set(e, -EINVAL, "%s: the file announces a header of %" PRIu64 " bytes, %s", path, n, fault);
    return 0;
}

int safetensors_parse(const char *path, const void *bytes, size_t size, struct weights_file *out,
                      struct err *e)
{
    *out = (struct weights_file){.path = strdup(path)};
    if (!out->path)
        return err_nomem(e);
    size_t header = header_bytes(path, bytes, size, e);
    int code = header ? 0 : -EINVAL;
    if (!code) {
        const uint8_t *start = (const uint8_t *)bytes + LENGTH_BYTES;
        struct reader r = {out, start + header, size - LENGTH_BYTES - header, e};
        json_error_t fault;
        json_t *root = json_loadb((const char *)start, header, JSON_REJECT_DUPLICATES, &fault);
        code = root ? read_header(&r, root)
                    : err_set(e, -EINVAL, "%s: the header is not valid JSON at byte %d: %s", path,
                              fault.position, fault.text);
        json_decref(root);
    }
    if (code)
        weights_file_close(out);
    return code;
}
