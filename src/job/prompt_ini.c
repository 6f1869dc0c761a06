#include "job/prompt_ini.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"

struct reader {
    const char *where;
    int (*each)(void *ctx, const struct ini_entry *entry, struct err *e);
    void *ctx;
    struct err *e;
    char section[64];
    char key[64];
    int key_line; /* 0: no key is open */
    struct str value;
};

static int flush(struct reader *r)
{
    if (!r->key_line)
        return 0;
    if (r->value.failed)
        return err_nomem(r->e);
    struct ini_entry entry = {r->key_line, r->section, r->key, str_cstr(&r->value)};
    int code = r->each(r->ctx, &entry, r->e);
    r->key_line = 0;
    str_free(&r->value);
    return code;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static void trim(const char **start, const char **end)
{
    while (*start < *end && is_blank(**start))
        ++*start;
    while (*start < *end && is_blank((*end)[-1]))
        --*end;
}

/* Copies a name of at most 63 bytes; longer ones can be no key of ours, and are cut for the
 * message that says so. */
static void copy_name(char out[64], const char *start, const char *end)
{
    size_t n = (size_t)(end - start) < 63 ? (size_t)(end - start) : 63;
    memcpy(out, start, n);
    while (n && !utf8_valid(out, n))
        n--;
    out[n] = '\0';
}

static int section_line(struct reader *r, const char *start, const char *end, int line)
{
    if (end[-1] != ']')
        return err_set(r->e, -EINVAL, "%s:%d: the section has no ']'", r->where, line);
    start++;
    end--;
    trim(&start, &end);
    copy_name(r->section, start, end);
    return 0;
}

static int key_line(struct reader *r, const char *start, const char *end, int line)
{
    const char *equals = memchr(start, '=', (size_t)(end - start));
    if (!equals) {
        int shown = end - start > 40 ? 40 : (int)(end - start);
        while (shown && !utf8_valid(start, (size_t)shown))
            shown--;
        return err_set(r->e, -EINVAL,
                       "%s:%d: \"%.*s\" is no `key = value`; to continue the value above, begin "
                       "the line with a blank",
                       r->where, line, shown, start);
    }
    const char *key_end = equals, *value = equals + 1;
    trim(&start, &key_end);
    trim(&value, &end);
    if (key_end == start)
        return err_set(r->e, -EINVAL, "%s:%d: there is no key before '='", r->where, line);
    copy_name(r->key, start, key_end);
    r->key_line = line;
    str_addn(&r->value, value, (size_t)(end - value));
    return 0;
}

static int one_line(struct reader *r, const char *start, const char *end, int line)
{
    bool indented = start < end && is_blank(*start);
    trim(&start, &end);
    if (start == end)
        return 0;
    if (indented && r->key_line) {
        if (r->value.len)
            str_addc(&r->value, '\n');
        str_addn(&r->value, start, (size_t)(end - start));
        return 0;
    }
    if (*start == '#' || *start == ';')
        return 0;
    int code = flush(r);
    if (code)
        return code;
    return *start == '[' ? section_line(r, start, end, line) : key_line(r, start, end, line);
}

int prompt_ini_parse(const char *text, size_t size, const char *where,
                     int (*each)(void *ctx, const struct ini_entry *entry, struct err *e),
                     void *ctx, struct err *e)
{
    struct reader r = {.where = where, .each = each, .ctx = ctx, .e = e};
    const char *at = text, *end = text + size;
    if (size >= 3 && !memcmp(at, "\xEF\xBB\xBF", 3)) /* editors on Windows write this mark */
        at += 3;
    int code = 0;
    for (int line = 1; !code && at < end; line++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *stop = newline ? newline : end;
        if (!utf8_valid(at, (size_t)(stop - at)))
            code = err_set(e, -EINVAL, "%s:%d: the line is not UTF-8 text", where, line);
        else
            code = one_line(&r, at, stop, line);
        at = newline ? newline + 1 : end;
    }
    if (!code)
        code = flush(&r);
    str_free(&r.value);
    return code;
}
