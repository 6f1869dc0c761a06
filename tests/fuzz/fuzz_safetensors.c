/* Checkpoint files of strangers: whatever the bytes, reading ends with tensors that lie inside of
 * the file without overlap, or with a sentence. The first byte chooses: the rest is
 * the file as it is, or a two-byte length, a header and data, from which a file is put together. */
#include <stdlib.h>
#include <string.h>

#include "engine/weights/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expand(const struct weights_entry *t)
{
    float *values = malloc(t->bytes * sizeof *values + 1);
    if (values)
        weights_entry_values(t, t->data, (int64_t)t->bytes, values);
    free(values);
}

static void check(const struct weights_file *s, size_t size)
{
    size_t sum = 0;
    for (size_t i = 0; i < s->count; i++) {
        const struct weights_entry *t = &s->entries[i];
        volatile uint8_t touched = 0;
        for (size_t k = 0; k < t->bytes; k++)
            touched = ((const uint8_t *)t->data)[k];
        (void)touched;
        sum += t->bytes;
        if (t->expand)
            expand(t);
        if (!t->name || !t->stored[0] || t->rank < 0 || t->rank > 8)
            abort();
    }
    if (sum > size)
        abort();
}

static void parse(const uint8_t *file, size_t size)
{
    struct weights_file s;
    struct err e = {0};
    int code = safetensors_parse("fuzz", file, size, &s, &e);
    if (code ? !e.text[0] : !s.path)
        abort();
    if (code)
        return;
    check(&s, size);
    weights_file_close(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3 || data[0] % 2 == 0) {
        parse(data + (size > 0), size - (size > 0));
        return 0;
    }
    uint64_t header = data[1] | (uint64_t)data[2] << 8;
    uint8_t *file = malloc(8 + size - 3);
    if (!file)
        return 0;
    memcpy(file, &header, 8);
    memcpy(file + 8, data + 3, size - 3);
    parse(file, 8 + size - 3);
    free(file);
    return 0;
}
