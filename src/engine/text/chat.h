/* A prompt as one turn of Qwen's chat, in tokens: what the chat template in the checkpoint's
 * tokenizer makes of a single user message, as far as templates of this kind differ. */
#ifndef OMNI_CHAT_H
#define OMNI_CHAT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/checkpoint.h"
#include "engine/text/tokenizer.h"

struct chat {
    struct tokenizer *tokenizer;
    int32_t pad;
    int room;          /* tokens; what is over is cut off, the template's end too */
    char *system;      /* what the template says before the prompt, or NULL; heap */
    bool never_thinks; /* the template knows no thoughts */
    bool thinking;     /* false: an empty thought follows, so that the model answers at once */
};

/* Opens `c`'s tokenizer/ and checks that a text encoder of `vocabulary` rows can read its tokens.
 */
int chat_open(struct checkpoint *c, int vocabulary, struct chat *chat, struct err *e);
void chat_close(struct chat *chat);
/* ids and mask [room] (1: a real token, 0: padding behind them); returns the number of real tokens
 * or a negative errno. */
int chat_tokens(const struct chat *chat, const char *prompt, int32_t *ids, int32_t *mask,
                bool *truncated, struct err *e);

#endif
