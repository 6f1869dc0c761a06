/* LoRA files of strangers: whatever the bytes, reading ends with modules whose matrices fit each
 * other and lie inside of the file, or with a sentence. The first byte chooses: the rest is the
 * file as it is, or a two-byte length, a header and data, from which a file is put together. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/weights/lora.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t read_all(const struct weights_entry *t)
{
    size_t count = t->bytes / dtype_size(t->dtype);
    for (size_t i = 0; i < count; i++) {
        float value;
        lora_values(t, i, 1, &value);
    }
    return count;
}

static void check_module(const struct lora_module *m)
{
    if (!m->key || !m->name || !m->part || !isfinite(m->scale) || !m->down != !m->up)
        abort();
    if (m->down) {
        size_t down = read_all(m->down), up = read_all(m->up), rank = (size_t)m->down->dims[0];
        if (!rank || !down || down % rank || up != rank * (size_t)m->up->dims[0])
            abort();
    }
    if (m->diff)
        read_all(m->diff);
    if (m->diff_bias)
        read_all(m->diff_bias);
}

static void parse(const uint8_t *file, size_t size)
{
    struct lora l;
    struct err e = {0};
    int code = lora_parse("fuzz", file, size, &l, &e);
    if (code ? !e.text[0] : !l.count)
        abort();
    if (code)
        return;
    for (size_t i = 0; i < l.count; i++)
        check_module(&l.modules[i]);
    if (!lora_made_for(&l))
        abort();
    lora_close(&l);
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
