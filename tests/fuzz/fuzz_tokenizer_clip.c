/* CLIP's tokenizer files of strangers, and prompts. The input's parts are separated by 0xFF:
 * further members of vocab.json, merges.txt, tokenizer_config.json, special_tokens_map.json and a
 * text. The vocabulary has the characters of all bytes, with and without the end of a word, and the
 * usual special tokens, since none is accepted without. Ids are always inside of the vocabulary,
 * and a prompt fills exactly the room that there is. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/str.h"
#include "engine/text/clip_prompt.h"
#include "engine/text/tokenizer.h"
#include "../support/scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PARTS = 5, TEXT_LIMIT = 4096, MOST_ROOM = 77 };

struct part {
    const char *text;
    size_t n;
};

static void cut(const uint8_t *data, size_t size, struct part parts[PARTS])
{
    for (int i = 0; i < PARTS; i++) {
        const uint8_t *end = size ? memchr(data, 0xFF, size) : NULL;
        size_t n = end && i + 1 < PARTS ? (size_t)(end - data) : size;
        parts[i] = (struct part){(const char *)data, n};
        data += n + (n < size);
        size -= n + (n < size);
    }
}

static void put_vocabulary(struct str *s, struct part more)
{
    int others = 0;
    str_addc(s, '{');
    for (int b = 0; b < 256; b++) {
        bool printable = (b > 32 && b < 127) || (b > 160 && b != 173);
        int symbol = printable ? b : 256 + others++;
        str_addf(s, "\"\\u%04x\":%d,\"\\u%04x</w>\":%d,", symbol, b, symbol, 256 + b);
    }
    str_addn(s, more.text, more.n);
    str_add(s, "\"<|startoftext|>\":1022,\"<|endoftext|>\":1023}");
}

/* An empty part is no file. */
static void put_file(const char *folder, const char *name, const char *text, size_t n)
{
    struct str path = {0};
    str_addf(&path, "%s/%s", folder, name);
    FILE *f = n ? fopen(str_cstr(&path), "w") : NULL;
    if (f) {
        (void)fwrite(text, 1, n, f);
        (void)fclose(f);
    }
    str_free(&path);
}

static void put_folder(const char *folder, const struct part parts[PARTS])
{
    struct str vocabulary = {0}, merges = {0};
    put_vocabulary(&vocabulary, parts[0]);
    str_add(&merges, "#version: 0.2\n");
    str_addn(&merges, parts[1].text, parts[1].n);
    put_file(folder, "vocab.json", str_cstr(&vocabulary), vocabulary.len);
    put_file(folder, "merges.txt", str_cstr(&merges), merges.len);
    put_file(folder, "tokenizer_config.json", parts[2].text, parts[2].n);
    put_file(folder, "special_tokens_map.json", parts[3].text, parts[3].n);
    str_free(&vocabulary);
    str_free(&merges);
}

static void encode(const struct tokenizer *t, struct part part)
{
    int32_t ids[MOST_ROOM];
    struct err e = {0};
    char *prompt = strndup(part.text, part.n < TEXT_LIMIT ? part.n : TEXT_LIMIT);
    int room = 3 + (int)part.n % (MOST_ROOM - 2);
    bool truncated = false;
    if (prompt && clip_prompt(t, prompt, ids, room, &truncated, &e) && !e.text[0])
        abort();
    for (int i = 0; prompt && !e.code && i < room; i++)
        if (ids[i] < 0 || ids[i] >= tokenizer_vocabulary(t))
            abort();
    free(prompt);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct part parts[PARTS];
    struct tokenizer *t = NULL;
    struct err e = {0};
    char folder[SCRATCH_SIZE];
    if (!mkdtemp(scratch_name(folder, "fuzz-clip-XXXXXX")))
        return 0;
    cut(data, size, parts);
    put_folder(folder, parts);
    if (tokenizer_open(folder, &t, &e) && !e.text[0])
        abort();
    if (t && clip_prompt_check(t, folder, &e) == 0)
        encode(t, parts[4]);
    else if (t && !e.text[0])
        abort();
    tokenizer_close(t);
    file_remove_tree(AT_FDCWD, folder);
    return 0;
}
