/* GGUF files of strangers: whatever the bytes, reading ends with tensors that lie inside of the
 * file, aligned and without overlap, and that expand without touching anything else, or with a
 * sentence. */
#include <stdlib.h>
#include <string.h>

#include "engine/weights/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expand(const struct weights_entry *t)
{
    uint64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= (uint64_t)t->dims[i];
    float *values = malloc(n * sizeof *values + 1);
    if (values)
        weights_entry_values(t, t->data, (int64_t)n, values);
    free(values);
}

static void check(const struct weights_file *f, size_t size)
{
    size_t sum = 0;
    for (size_t i = 0; i < f->count; i++) {
        const struct weights_entry *t = &f->entries[i];
        volatile uint8_t touched = 0;
        for (size_t k = 0; k < t->bytes; k++)
            touched = ((const uint8_t *)t->data)[k];
        (void)touched;
        sum += t->bytes;
        if (t->usable && !t->expand && t->bytes && (uintptr_t)t->data % dtype_size(t->dtype))
            abort();
        if (!t->name || !t->stored[0] || t->rank < 0 || t->rank > 8)
            abort();
        if (t->expand)
            expand(t);
    }
    if (sum > size)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct weights_file f;
    struct err e = {0};
    uint8_t *file = malloc(size + 1); /* aligned, as a mapping is */
    if (!file)
        return 0;
    if (size)
        memcpy(file, data, size);
    int code = gguf_parse("fuzz", file, size, &f, &e);
    if (code ? !e.text[0] : !f.path)
        abort();
    if (!code) {
        check(&f, size);
        weights_file_close(&f);
    }
    free(file);
    return 0;
}
