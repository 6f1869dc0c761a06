#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int err_setv(struct err *e, int code, const char *fmt, va_list ap)
{
    if (!e)
        return code;
    e->code = code;
    int n = vsnprintf(e->text, sizeof e->text, fmt, ap);
    if (n < 0)
        e->text[0] = '\0';
    if ((size_t)n >= sizeof e->text) { /* cut at a UTF-8 boundary, and say that it was cut */
        size_t end = sizeof e->text - 4;
        while (end > 0 && ((unsigned char)e->text[end] & 0xC0) == 0x80)
            end--;
        memcpy(e->text + end, "...", 4);
    }
    for (char *c = e->text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7F)
            *c = '?';
    return code;
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    err_setv(e, code, fmt, ap);
    va_end(ap);
    return code;
}

int err_prefix(struct err *e, const char *fmt, ...)
{
    if (!e)
        return -EINVAL;
    char prefix[sizeof e->text], rest[sizeof e->text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(prefix, sizeof prefix, fmt, ap);
    va_end(ap);
    memcpy(rest, e->text, sizeof rest);
    return err_set(e, e->code, "%s: %s", prefix, rest);
}

int err_nomem(struct err *e)
{
    return err_set(e, -ENOMEM, "not enough memory");
}
