/* Any bytes as a prompt for the shipped lists, and as a list of rules. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "safety/prompt_filter.h"

static const struct prompt_filter *shipped(void)
{
    static struct prompt_filter *f;
    struct err e;
    if (!f && (prompt_filter_new(&f, &e) ||
               prompt_filter_add_file(f, "share/safety/always.txt", SAFETY_OFF, &e) ||
               prompt_filter_add_file(f, "share/safety/standard.txt", SAFETY_STANDARD, &e) ||
               prompt_filter_add_file(f, "share/safety/strict.txt", SAFETY_STRICT, &e)))
        abort();
    return f;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safety_verdict off, strict;
    struct prompt_filter *f;
    struct err e;
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    prompt_filter_check(shipped(), text, SAFETY_OFF, &off);
    prompt_filter_check(shipped(), text, SAFETY_STRICT, &strict);
    if (off.blocked && !strict.blocked) /* a stricter level never allows more */
        abort();
    if (!prompt_filter_new(&f, &e)) {
        if (!prompt_filter_add(f, (const char *)data, size, "list", SAFETY_OFF, &e))
            prompt_filter_check(f, text, SAFETY_OFF, &off);
        prompt_filter_free(f);
    }
    free(text);
    return 0;
}
