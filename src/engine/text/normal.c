#include "engine/text/normal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/str.h"
#include "engine/text/unicode.h"

int normal_add(struct normal *s, enum normal_step step, struct err *e)
{
    if (s->count == NORMALS_MAX)
        return err_set(e, -ENOTSUP, "more than %d normalizers", NORMALS_MAX);
    s->steps[s->count++] = step;
    return 0;
}

/* The built text as a result. */
static int finish(struct str *s, char **out, size_t *out_n, struct err *e)
{
    *out_n = s->len;
    str_addc(s, '\0'); /* so that an empty text is something to free */
    *out = str_take(s);
    return *out ? 0 : err_nomem(e);
}

static int spaces(const char *text, size_t n, char **out, size_t *out_n, struct err *e)
{
    struct str s = {0};
    for (size_t at = 0; at < n;) {
        size_t blank = unicode_leading_space(text + at, n - at);
        if (blank)
            str_addc(&s, ' ');
        else
            str_addc(&s, text[at]); /* also the bytes within a character: they begin no space */
        at += blank ? blank : 1;
    }
    return finish(&s, out, out_n, e);
}

static int lower(const char *text, size_t n, char **out, size_t *out_n, struct err *e)
{
    struct str s = {0};
    for (size_t at = 0; at < n;) {
        utf8proc_int32_t c;
        utf8proc_uint8_t small[4];
        utf8proc_ssize_t step =
            utf8proc_iterate((const uint8_t *)text + at, (utf8proc_ssize_t)(n - at), &c);
        if (step <= 0) {
            str_free(&s);
            return err_set(e, -EILSEQ, "the text is not valid UTF-8 at byte %zu", at);
        }
        /* The one character whose small form is two, whatever the language. */
        if (c == 0x130)
            str_add(&s, "i\xCC\x87");
        else
            str_addn(&s, small, (size_t)utf8proc_encode_char(utf8proc_tolower(c), small));
        at += (size_t)step;
    }
    return finish(&s, out, out_n, e);
}

static int (*const runs[])(const char *, size_t, char **, size_t *, struct err *) = {
    [NORMAL_NFC] = unicode_nfc, [NORMAL_SPACES] = spaces, [NORMAL_LOWER] = lower};

int normal_run(const struct normal *s, const char *text, size_t n, char **out, size_t *out_n,
               struct err *e)
{
    char *now = malloc(n + 1);
    if (!now)
        return err_nomem(e);
    memcpy(now, text, n);
    for (int i = 0; i < s->count; i++) {
        char *next;
        int code = runs[s->steps[i]](now, n, &next, &n, e);
        free(now);
        if (code)
            return code;
        now = next;
    }
    *out = now;
    *out_n = n;
    return 0;
}
