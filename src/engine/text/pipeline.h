/* What a tokenizer is made of. A kind of tokenizer is a choice of these steps; tokenizer_file.c
 * makes the choice, tokenizer.c runs it. */
#ifndef OMNI_TEXT_PIPELINE_H
#define OMNI_TEXT_PIPELINE_H

#include "engine/text/added.h"
#include "engine/text/bpe.h"
#include "engine/text/json_span.h"
#include "engine/text/normal.h"
#include "engine/text/split.h"
#include "engine/text/tokenizer.h"

enum { SPLITS_MAX = 4 };

struct tokenizer {
    struct added_set raw;             /* 1. cut out of the text as it is */
    struct normal normal;             /* 2. what is between them is normalised */
    struct added_set normalized;      /* 3. cut out of the normalised text */
    struct split *splits[SPLITS_MAX]; /* 4. cut into words, one pattern after the other */
    bool only_matches[SPLITS_MAX];    /*    what is between the matches is dropped */
    int split_count;
    bool byte_level;       /* words are spelled as bytes; always, so far */
    struct bpe *bpe;       /* 5. words become tokens */
    int32_t before, after; /* what the file puts around a text; -1: nothing */
    int32_t pad;
    int32_t last_id;
};

/* Reads the text of a tokenizer.json into a new tokenizer; on failure the caller closes it. */
int tokenizer_file_parse(const char *name, const char *json, size_t size, struct tokenizer *t,
                         struct err *e);
/* Reads a folder of CLIP's older form: vocab.json, merges.txt, special_tokens_map.json and
 * tokenizer_config.json, of which the last two may be missing. */
int tokenizer_clip_read(const char *folder, struct tokenizer *t, struct err *e);

/* ---- steps of both ---- */

enum { TOKENIZER_FILE_LIMIT = 64 << 20, TOKENIZER_ID_LIMIT = 1 << 24 };

/* GPT-2's own pattern, which a ByteLevel step with use_regex stands for. */
#define GPT2_PATTERN                                                                               \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

int tokenizer_add_split(struct tokenizer *t, const char *pattern, size_t n, bool literal,
                        bool only_matches, struct err *e);
/* {"token": id, …} */
int tokenizer_read_vocabulary(struct bpe *b, struct json_span vocab, struct err *e);
/* `like` says id and white space; `normalized`: the text is looked for after normalizing. Sort
 * both sets after the last. */
int tokenizer_add_token(struct tokenizer *t, const char *text, size_t n, struct added_token like,
                        bool normalized, struct err *e);

#endif
