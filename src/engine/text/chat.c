#include "engine/text/chat.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "engine/config.h"

#define MAX_TEMPLATE ((size_t)1 << 20) /* bytes */

/* ---- the template ---- */

/* The template's source: a file of its own, or in tokenizer_config.json; heap, NULL without one. */
static char *read_template(const char *folder)
{
    AUTO_STR struct str path = {0};
    char *text = NULL;
    size_t size;
    struct config *c = NULL;
    str_addf(&path, "%s/chat_template.jinja", folder);
    if (path.failed || file_read(AT_FDCWD, path.data, MAX_TEMPLATE, &text, &size, NULL) == 0)
        return text;
    str_free(&path);
    str_addf(&path, "%s/tokenizer_config.json", folder);
    if (path.failed || config_open(path.data, &c, NULL) != 0)
        return NULL;
    const char *found = config_string(c, "chat_template", NULL);
    text = found ? strdup(found) : NULL;
    config_close(c);
    return text;
}

/* Adds `text` with its line ends, which literals of a template may write as two signs. */
static void add_literal(struct str *out, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (text[i] == '\\' && i + 1 < size && text[i + 1] == 'n') {
            str_addc(out, '\n');
            i++;
        } else
            str_addc(out, text[i]);
}

/* What a template says of its own where no message is the system's: one literal from
 * "<|im_start|>system" to its end. */
static char *system_text(const char *template)
{
    static const char open[] = "<|im_start|>system", shut[] = "<|im_end|>";
    AUTO_STR struct str out = {0};
    for (const char *at = strstr(template, open); at; at = strstr(at + 1, open)) {
        const char *end = strstr(at, shut);
        size_t size = end ? (size_t)(end - at) : 0;
        if (!end || size < sizeof open + 1 || memchr(at, '\'', size) || memchr(at, '"', size) ||
            memchr(at, '{', size))
            continue;
        add_literal(&out, at, size + sizeof shut - 1);
        str_addc(&out, '\n');
        return str_take(&out);
    }
    return NULL;
}

/* Templates are programs, which nobody runs here: what is asked of one is what Qwen's differ in. */
static int learn_template(struct chat *chat, const char *folder, struct err *e)
{
    AUTO_FREE char *template = read_template(folder);
    if (!template)
        return 0;
    if (!strstr(template, "<|im_start|>"))
        return err_set(e, -ENOTSUP,
                       "%s: the chat template is not of Qwen's kind: it holds no <|im_start|>",
                       folder);
    chat->system = system_text(template);
    chat->never_thinks = !strstr(template, "enable_thinking");
    return 0;
}

/* ---- tokens ---- */

int chat_open(struct checkpoint *c, int vocabulary, struct chat *chat, struct err *e)
{
    AUTO_FREE char *folder = NULL;
    if (checkpoint_folder(c, "tokenizer", &folder, e) != 0 ||
        tokenizer_open(folder, &chat->tokenizer, e) != 0 || learn_template(chat, folder, e) != 0)
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
    free(chat->system);
    chat->tokenizer = NULL;
    chat->system = NULL;
}

int chat_tokens(const struct chat *chat, const char *prompt, int32_t *ids, int32_t *mask,
                bool *truncated, struct err *e)
{
    AUTO_STR struct str text = {0};
    AUTO_FREE int32_t *found = NULL;
    size_t count = 0, room = (size_t)chat->room;
    str_add(&text, chat->system ? chat->system : "");
    str_add(&text, "<|im_start|>user\n");
    str_add(&text, prompt);
    str_add(&text, "<|im_end|>\n<|im_start|>assistant\n");
    if (!chat->thinking && !chat->never_thinks)
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
