#include "tensors.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/weights/half.h"
#include "engine/weights/weights.h"

enum { BLOCK = 32, BLOCK_BYTES = 34, ALIGNMENT = 32 };

struct named_tensor *tensors_add_hole(struct tensors *s, const char *name, int rank,
                                      const int64_t *dims)
{
    s->list = realloc(s->list, (size_t)(s->count + 1) * sizeof *s->list);
    assert_non_null(s->list);
    struct named_tensor *t = &s->list[s->count++];
    *t = (struct named_tensor){.rank = rank};
    snprintf(t->name, sizeof t->name, "%s", name);
    memcpy(t->dims, dims, (size_t)rank * sizeof *dims);
    return t;
}

struct named_tensor *tensors_add(struct tensors *s, const char *name, int rank, const int64_t *dims)
{
    struct named_tensor *t = tensors_add_hole(s, name, rank, dims);
    t->data = calloc((size_t)tensors_elements(t), sizeof *t->data);
    assert_non_null(t->data);
    return t;
}

struct named_tensor *tensors_find(const struct tensors *s, const char *name)
{
    for (int i = 0; i < s->count; i++)
        if (strcmp(s->list[i].name, name) == 0)
            return &s->list[i];
    return NULL;
}

int64_t tensors_elements(const struct named_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= t->dims[i];
    return n;
}

void tensors_read(struct tensors *s, const char *folder)
{
    struct weights *w = NULL;
    struct err e = {0};
    const char *stem = strstr(folder, "text_encoder") ? "model" : "diffusion_pytorch_model";
    if (weights_open(folder, stem, &w, &e) != 0)
        fail_msg("%s", e.text);
    for (size_t i = 0; i < weights_count(w); i++) {
        const struct weights_entry *t = weights_at(w, i);
        assert_string_equal(t->stored, "F32");
        memcpy(tensors_add(s, t->name, t->rank, t->dims)->data, t->data, t->bytes);
    }
    weights_close(w);
}

void tensors_free(struct tensors *s)
{
    for (int i = 0; i < s->count; i++)
        free(s->list[i].data);
    free(s->list);
    *s = (struct tensors){0};
}

/* ---- types ---- */

/* Round to nearest even; the tests' values are far from the largest half. */
static uint16_t to_half(float x)
{
    float size = fabsf(x);
    uint16_t sign = signbit(x) ? 0x8000 : 0;
    if (size < 0x1p-14f)
        return (uint16_t)(sign | (uint16_t)nearbyintf(size * 0x1p24f));
    int exponent;
    float fraction = frexpf(size, &exponent); /* 0.5 … 1 */
    int bits = (int)nearbyintf(fraction * 2048) - 1024;
    return (uint16_t)(sign | (((exponent + 14) << 10) + bits));
}

static enum stored type_of(const struct named_tensor *t, enum stored as)
{
    bool blocks = t->rank == 2 && t->dims[1] % BLOCK == 0;
    return as == STORED_Q8_0 && !blocks ? STORED_F32 : as;
}

static size_t bytes_of(const struct named_tensor *t, enum stored as)
{
    size_t n = (size_t)tensors_elements(t);
    switch (type_of(t, as)) {
    case STORED_F32:
        return n * 4;
    case STORED_Q8_0:
        return n / BLOCK * BLOCK_BYTES;
    default:
        return n * 2;
    }
}

static void put16(uint8_t *out, uint16_t v)
{
    memcpy(out, &v, sizeof v);
}

static void quantise(const float *x, uint8_t *out)
{
    float most = 0;
    for (int i = 0; i < BLOCK; i++)
        most = fmaxf(most, fabsf(x[i]));
    put16(out, to_half(most / 127));
    uint16_t scale;
    memcpy(&scale, out, sizeof scale);
    float d = half_to_float(scale);
    for (int i = 0; i < BLOCK; i++) {
        float q = d > 0 ? roundf(x[i] / d) : 0;
        out[2 + i] = (uint8_t)(int8_t)fmaxf(-127, fminf(127, q));
    }
}

static uint8_t *encode(const struct named_tensor *t, enum stored as)
{
    size_t n = (size_t)tensors_elements(t);
    uint8_t *out = malloc(bytes_of(t, as) + 1);
    assert_non_null(out);
    switch (type_of(t, as)) {
    case STORED_F32:
        memcpy(out, t->data, n * 4);
        break;
    case STORED_F16:
        for (size_t i = 0; i < n; i++)
            put16(out + 2 * i, to_half(t->data[i]));
        break;
    case STORED_BF16:
        for (size_t i = 0; i < n; i++)
            put16(out + 2 * i, float_to_bfloat(t->data[i]));
        break;
    case STORED_Q8_0:
        for (size_t i = 0; i < n / BLOCK; i++)
            quantise(t->data + i * BLOCK, out + i * BLOCK_BYTES);
    }
    return out;
}

static float value_at(const uint8_t *bytes, enum stored type, size_t i)
{
    uint16_t h;
    float f;
    if (type == STORED_F32) {
        memcpy(&f, bytes + 4 * i, sizeof f);
        return f;
    }
    if (type == STORED_Q8_0) {
        const uint8_t *block = bytes + i / BLOCK * BLOCK_BYTES;
        memcpy(&h, block, sizeof h);
        return half_to_float(h) * (float)(int8_t)block[2 + i % BLOCK];
    }
    memcpy(&h, bytes + 2 * i, sizeof h);
    return type == STORED_F16 ? half_to_float(h) : bfloat_to_float(h);
}

void tensors_round(struct tensors *s, enum stored as)
{
    for (int k = 0; k < s->count; k++) {
        struct named_tensor *t = &s->list[k];
        AUTO_FREE uint8_t *bytes = encode(t, as);
        for (int64_t i = 0; i < tensors_elements(t); i++)
            t->data[i] = value_at(bytes, type_of(t, as), (size_t)i);
    }
}

/* ---- files ---- */

static void write_data(FILE *f, const struct tensors *s, enum stored as, size_t alignment)
{
    long start = ftell(f);
    for (int i = 0; i < s->count; i++) {
        size_t bytes = bytes_of(&s->list[i], as),
               padding = (alignment - bytes % alignment) % alignment;
        if (s->list[i].data) {
            AUTO_FREE uint8_t *data = encode(&s->list[i], as);
            assert_int_equal(fwrite(data, bytes, 1, f), 1);
        } else {
            assert_int_equal(fseek(f, (long)bytes, SEEK_CUR), 0);
        }
        assert_int_equal(fseek(f, (long)padding, SEEK_CUR), 0);
    }
    assert_true(ftell(f) >= start);
    fflush(f);
    assert_int_equal(ftruncate(fileno(f), ftell(f)), 0);
}

static void write_safetensors(FILE *f, const struct tensors *s, enum stored as)
{
    static const char *const words[] = {"F32", "F16", "BF16"};
    AUTO_STR struct str header = {0};
    size_t offset = 0;
    for (int i = 0; i < s->count; i++) {
        const struct named_tensor *t = &s->list[i];
        str_addf(&header, "%c\"%s\":{\"dtype\":\"%s\",\"shape\":[", i ? ',' : '{', t->name,
                 words[as]);
        for (int a = 0; a < t->rank; a++)
            str_addf(&header, "%s%lld", a ? "," : "", (long long)t->dims[a]);
        str_addf(&header, "],\"data_offsets\":[%zu,%zu]}", offset, offset + bytes_of(t, as));
        offset += bytes_of(t, as);
    }
    str_add(&header, "}");
    while (header.len % 8)
        str_addc(&header, ' ');
    uint64_t length = header.len;
    assert_int_equal(fwrite(&length, 8, 1, f), 1);
    assert_int_equal(fwrite(header.data, header.len, 1, f), 1);
    write_data(f, s, as, 1);
}

static void put(struct str *s, uint64_t value, size_t bytes)
{
    str_addn(s, &value, bytes); /* little-endian, as the machines that run this are */
}

static void write_gguf(FILE *f, const struct tensors *s, enum stored as)
{
    static const uint32_t ids[] = {[STORED_F32] = 0, [STORED_F16] = 1, [STORED_Q8_0] = 8};
    AUTO_STR struct str header = {0};
    uint64_t offset = 0;
    str_add(&header, "GGUF");
    put(&header, 3, 4);
    put(&header, (uint64_t)s->count, 8);
    put(&header, 0, 8);
    for (int i = 0; i < s->count; i++) {
        const struct named_tensor *t = &s->list[i];
        put(&header, strlen(t->name), 8);
        str_add(&header, t->name);
        put(&header, (uint64_t)t->rank, 4);
        for (int a = t->rank; a-- > 0;)
            put(&header, (uint64_t)t->dims[a], 8);
        put(&header, ids[type_of(t, as)], 4);
        put(&header, offset, 8);
        offset += (bytes_of(t, as) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    while (header.len % ALIGNMENT)
        str_addc(&header, '\0');
    assert_int_equal(fwrite(header.data, header.len, 1, f), 1);
    write_data(f, s, as, ALIGNMENT);
}

void tensors_write(const struct tensors *s, enum stored as, const char *path)
{
    AUTO_FILE FILE *f = fopen(path, "wb");
    assert_non_null(f);
    if (strstr(path, ".gguf"))
        write_gguf(f, s, as);
    else
        write_safetensors(f, s, as);
}
