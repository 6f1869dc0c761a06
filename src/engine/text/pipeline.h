/* What a tokenizer is made of. A kind of tokenizer is a choice of these steps; tokenizer_file.c
 * makes the choice, tokenizer.c runs it. */
#ifndef OMNI_TEXT_PIPELINE_H
#define OMNI_TEXT_PIPELINE_H

#include "engine/text/added.h"
#include "engine/text/bpe.h"
#include "engine/text/split.h"
#include "engine/text/tokenizer.h"

enum { SPLITS_MAX = 4 };

struct tokenizer {
    struct added_set raw;             /* 1. cut out of the text as it is */
    bool nfc;                         /* 2. what is between them is normalised */
    struct added_set normalized;      /* 3. cut out of the normalised text */
    struct split *splits[SPLITS_MAX]; /* 4. cut into words, one pattern after the other */
    int split_count;
    bool byte_level; /* words are spelled as bytes; always, so far */
    struct bpe *bpe; /* 5. words become tokens */
    int32_t pad;
    int32_t last_id;
};

/* Reads the text of a tokenizer.json into a zeroed tokenizer; on failure the caller closes it. */
int tokenizer_file_parse(const char *name, const char *json, size_t size, struct tokenizer *t,
                         struct err *e);

#endif
