/* Tokenizers and prompts of strangers. The input's parts are separated by 0xFF: members of
 * tokenizer.json before the model, merges, further vocabulary, and a text. They are put into a file
 * that has all byte symbols, since none is accepted without. An input of one part is a whole
 * tokenizer.json. Ids are always inside of the vocabulary. */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "engine/text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PARTS = 4, TEXT_LIMIT = 4096 };

struct part {
    const char *text;
    size_t n;
};

static int cut(const uint8_t *data, size_t size, struct part parts[PARTS])
{
    int count = 0;
    while (count < PARTS) {
        const uint8_t *end = count + 1 < PARTS && size ? memchr(data, 0xFF, size) : NULL;
        size_t n = end ? (size_t)(end - data) : size;
        parts[count++] = (struct part){(const char *)data, n};
        if (!end)
            break;
        data += n + 1;
        size -= n + 1;
    }
    return count;
}

static void put_vocabulary(struct str *s)
{
    int others = 0;
    for (int b = 0; b < 256; b++) {
        bool printable = (b > 32 && b < 127) || (b > 160 && b != 173);
        str_addf(s, "%s\"\\u%04x\":%d", b ? "," : "", printable ? b : 256 + others++, b);
    }
}

static void put_file(struct str *s, const struct part parts[PARTS])
{
    str_addc(s, '{');
    str_addn(s, parts[0].text, parts[0].n);
    str_add(s, "\"model\":{\"type\":\"BPE\",\"merges\":[");
    str_addn(s, parts[1].text, parts[1].n);
    str_add(s, "],\"vocab\":{");
    put_vocabulary(s);
    str_addn(s, parts[2].text, parts[2].n);
    str_add(s, "}}}");
}

static void encode(const struct tokenizer *t, const char *text, size_t n)
{
    int32_t *ids;
    size_t count;
    struct err e = {0};
    if (tokenizer_encode(t, text, n < TEXT_LIMIT ? n : TEXT_LIMIT, &ids, &count, &e)) {
        if (!e.text[0])
            abort();
        return;
    }
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= tokenizer_vocabulary(t))
            abort();
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct part parts[PARTS] = {0};
    struct str file = {0};
    struct tokenizer *t = NULL;
    struct err e = {0};
    if (cut(data, size, parts) == 1)
        str_addn(&file, parts[0].text, parts[0].n);
    else
        put_file(&file, parts);
    if (tokenizer_parse("fuzz", str_cstr(&file), file.len, &t, &e) && !e.text[0])
        abort();
    if (t && parts[3].text)
        encode(t, parts[3].text, parts[3].n);
    tokenizer_close(t);
    str_free(&file);
    return 0;
}
