#include "engine/text/clip_prompt.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

int clip_prompt_check(const struct tokenizer *t, const char *folder, struct err *e)
{
    const char *missing = tokenizer_before(t) < 0  ? "start token (of a RobertaProcessing)"
                          : tokenizer_after(t) < 0 ? "end token (of a RobertaProcessing)"
                          : tokenizer_pad(t) < 0   ? "pad_token"
                                                   : NULL;
    return missing ? err_set(e, -EINVAL, "%s: this tokenizer has no %s, which CLIP needs", folder,
                             missing)
                   : 0;
}

int clip_prompt(const struct tokenizer *t, const char *prompt, int32_t *ids, int count,
                bool *truncated, struct err *e)
{
    AUTO_FREE int32_t *found = NULL;
    size_t n = 0, room = (size_t)count - 2;
    int code = tokenizer_encode(t, prompt, strlen(prompt), &found, &n, e);
    if (code)
        return code;
    if (n > room)
        *truncated = true;
    n = n > room ? room : n;
    ids[0] = tokenizer_before(t);
    memcpy(ids + 1, found, n * sizeof *ids);
    ids[n + 1] = tokenizer_after(t);
    for (size_t i = n + 2; i < (size_t)count; i++)
        ids[i] = tokenizer_pad(t);
    return 0;
}
