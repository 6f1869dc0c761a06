#include "engine/text/unicode.h"

#include <errno.h>
#include <stdlib.h>
#include <utf8proc.h>

enum { MARKS_IN_A_ROW = 1024 };

static bool is_space(int32_t c)
{
    return (c >= 0x9 && c <= 0xD) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

size_t unicode_leading_space(const char *text, size_t n)
{
    size_t at = 0;
    while (at < n) {
        utf8proc_int32_t c;
        utf8proc_ssize_t step =
            utf8proc_iterate((const uint8_t *)text + at, (utf8proc_ssize_t)(n - at), &c);
        if (step <= 0 || !is_space(c))
            break;
        at += (size_t)step;
    }
    return at;
}

size_t unicode_trailing_space(const char *text, size_t n)
{
    size_t end = n;
    while (end > 0) {
        size_t start = end - 1;
        while (start > 0 && ((unsigned char)text[start] & 0xC0) == 0x80)
            start--;
        if (unicode_leading_space(text + start, end - start) != end - start)
            break;
        end = start;
    }
    return n - end;
}

/* utf8proc orders a run of combining marks by insertion. */
static int check_marks(const char *text, size_t n, struct err *e)
{
    int run = 0;
    for (size_t at = 0; at < n;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t step =
            utf8proc_iterate((const uint8_t *)text + at, (utf8proc_ssize_t)(n - at), &c);
        if (step <= 0)
            return err_set(e, -EILSEQ, "the text is not valid UTF-8 at byte %zu", at);
        run = c >= 0x300 && utf8proc_get_property(c)->combining_class ? run + 1 : 0;
        if (run > MARKS_IN_A_ROW)
            return err_set(e, -EINVAL, "the text has over %d combining marks in a row",
                           MARKS_IN_A_ROW);
        at += (size_t)step;
    }
    return 0;
}

int unicode_nfc(const char *text, size_t n, char **out, size_t *out_n, struct err *e)
{
    int code = check_marks(text, n, e);
    if (code)
        return code;
    utf8proc_uint8_t *normal = NULL;
    utf8proc_ssize_t size = utf8proc_map((const uint8_t *)text, (utf8proc_ssize_t)n, &normal,
                                         UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (size == UTF8PROC_ERROR_NOMEM)
        return err_nomem(e);
    if (size < 0)
        return err_set(e, -EINVAL, "the text cannot be normalised: %s", utf8proc_errmsg(size));
    *out = (char *)normal;
    *out_n = (size_t)size;
    return 0;
}

size_t unicode_put_short(uint32_t point, char out[2])
{
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    out[0] = (char)(0xC0 | point >> 6);
    out[1] = (char)(0x80 | (point & 0x3F));
    return 2;
}
