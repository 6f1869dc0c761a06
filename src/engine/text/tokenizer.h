/* Tokenizers: text to token ids, as the `tokenizers` library does it from tokenizer.json, or from
 * the files that CLIP's had before. */
#ifndef OMNI_TOKENIZER_H
#define OMNI_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct tokenizer;

enum { TOKENIZER_TEXT_LIMIT = 1 << 20 }; /* bytes of one text */

/* Reads `folder`/tokenizer.json (byte-level BPE: NFC, added tokens, Split by regex, ByteLevel;
 * merges as strings or pairs) and tokenizer_config.json (pad_token); without the first, CLIP's
 * vocab.json and merges.txt. What is not supported is refused by name. */
int tokenizer_open(const char *folder, struct tokenizer **out, struct err *e);
/* The same from the text of a tokenizer.json, without a pad token; `name` is for messages. */
int tokenizer_parse(const char *name, const char *json, size_t size, struct tokenizer **out,
                    struct err *e);
void tokenizer_close(struct tokenizer *t);
int tokenizer_vocabulary(const struct tokenizer *t); /* largest id + 1 */
int32_t tokenizer_pad(const struct tokenizer *t);    /* id of the pad token, -1 where none */
/* What the file puts before and after every text, -1 for nothing; tokenizer_encode leaves it to the
 * caller, who knows how much room there is. */
int32_t tokenizer_before(const struct tokenizer *t);
int32_t tokenizer_after(const struct tokenizer *t);
/* The id of a token's exact text, -1 when unknown. */
int32_t tokenizer_id(const struct tokenizer *t, const char *token);
/* Encodes UTF-8 text of n bytes; *ids is heap, caller frees. Literal added tokens are recognised.
 * -EILSEQ for invalid UTF-8, -EFBIG over TOKENIZER_TEXT_LIMIT. Any number of threads may encode. */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, int32_t **ids,
                     size_t *count, struct err *e);

#endif
