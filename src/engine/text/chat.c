#include "engine/text/chat.h"

#include <errno.h>

#include "base/cleanup.h"
#include "base/str.h"

int chat_open(struct checkpoint *c, int vocabulary, struct chat *chat, struct err *e)
{
    AUTO_FREE char *folder = NULL;
    if (checkpoint_folder(c, "tokenizer", &folder, e) != 0 ||
        tokenizer_open(folder, &chat->tokenizer, e) != 0)
        return e->code;
    chat->pad = tokenizer_pad(chat->tokenizer);
    if (chat->pad < 0)
        chat->pad = tokenizer_id(chat->tokenizer, "<|endoftext|>");
    if (chat->pad < 0)
        return err_set(e, -EINVAL,
                       "%s: there is no pad token: neither pad_token in tokenizer_config.json nor "
                       "<|endoftext|>",
                       folder);
    if (tokenizer_vocabulary(chat->tokenizer) > vocabulary)
        return err_set(e, -EINVAL, "%s: the tokenizer has %d tokens, the text encoder only %d",
                       folder, tokenizer_vocabulary(chat->tokenizer), vocabulary);
    return 0;
}

void chat_close(struct chat *chat)
{
    tokenizer_close(chat->tokenizer);
    chat->tokenizer = NULL;
}

int chat_tokens(const struct chat *chat, const char *prompt, int32_t *ids, int32_t *mask,
                bool *truncated, struct err *e)
{
    AUTO_STR struct str text = {0};
    AUTO_FREE int32_t *found = NULL;
    size_t count = 0, room = (size_t)chat->room;
    str_add(&text, "<|im_start|>user\n");
    str_add(&text, prompt);
    str_add(&text, "<|im_end|>\n<|im_start|>assistant\n");
    if (!chat->thinking)
        str_add(&text, "<think>\n\n</think>\n\n");
    if (text.failed)
        return err_nomem(e);
    if (tokenizer_encode(chat->tokenizer, text.data, text.len, &found, &count, e) != 0)
        return e->code;
    *truncated = count > room;
    for (size_t i = 0; i < room; i++) {
        mask[i] = i < count;
        ids[i] = i < count ? found[i] : chat->pad;
    }
    return (int)(count < room ? count : room);
}
