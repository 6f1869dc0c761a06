#include "engine/text/json_span.h"

#include <string.h>

static void skip_blanks(struct json_span *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\t' || *s->at == '\r'))
        s->at++;
}

bool json_take(struct json_span *s, char c)
{
    skip_blanks(s);
    if (s->at == s->end || *s->at != c)
        return false;
    s->at++;
    return true;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Four hexadecimal digits, -1 where there are none. */
static int32_t take_hex(struct json_span *s)
{
    int32_t value = 0;
    if (s->end - s->at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(*s->at++);
        if (digit < 0)
            return -1;
        value = value << 4 | digit;
    }
    return value;
}

static void put_utf8(struct str *out, uint32_t c)
{
    if (c < 0x80) {
        str_addc(out, (char)c);
        return;
    }
    int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const uint32_t lead[] = {0, 0xC0, 0xE0, 0xF0};
    str_addc(out, (char)(lead[more] | c >> (6 * more)));
    while (more--)
        str_addc(out, (char)(0x80 | (c >> (6 * more) & 0x3F)));
}

/* \uXXXX, or a pair of them for code points from U+10000. */
static bool take_unicode(struct json_span *s, struct str *out)
{
    int32_t c = take_hex(s);
    if (c <= 0 || (c >= 0xDC00 && c < 0xE000))
        return false;
    if (c >= 0xD800 && c < 0xDC00) {
        if (s->end - s->at < 6 || s->at[0] != '\\' || s->at[1] != 'u')
            return false;
        s->at += 2;
        int32_t low = take_hex(s);
        if (low < 0xDC00 || low >= 0xE000)
            return false;
        c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
    }
    put_utf8(out, (uint32_t)c);
    return true;
}

static bool take_escape(struct json_span *s, struct str *out)
{
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    if (s->at == s->end)
        return false;
    char c = *s->at++;
    if (c == 'u')
        return take_unicode(s, out);
    const char *letter = c ? strchr(letters, c) : NULL;
    if (letter)
        str_addc(out, meanings[letter - letters]);
    return letter != NULL;
}

/* The end of the characters that need no unescaping. */
static const char *plain_end(const struct json_span *s)
{
    const char *p = s->at;
    while (p < s->end && *p != '"' && *p != '\\' && (unsigned char)*p >= 0x20)
        p++;
    return p;
}

bool json_take_string(struct json_span *s, struct str *buffer, const char **text, size_t *n)
{
    if (!json_take(s, '"'))
        return false;
    const char *start = s->at;
    s->at = plain_end(s);
    if (s->at < s->end && *s->at == '"') {
        *text = start;
        *n = (size_t)(s->at++ - start);
        return true;
    }
    buffer->len = 0;
    str_addn(buffer, start, (size_t)(s->at - start));
    while (s->at < s->end && *s->at == '\\') {
        s->at++;
        if (!take_escape(s, buffer))
            return false;
        start = s->at;
        s->at = plain_end(s);
        str_addn(buffer, start, (size_t)(s->at - start));
    }
    *text = buffer->data;
    *n = buffer->len;
    if (buffer->failed || s->at == s->end || *s->at != '"')
        return false;
    s->at++;
    return true;
}

bool json_take_integer(struct json_span *s, int64_t *out)
{
    skip_blanks(s);
    bool negative = s->at < s->end && *s->at == '-';
    s->at += negative;
    const char *first = s->at;
    int64_t value = 0;
    for (; s->at < s->end && *s->at >= '0' && *s->at <= '9'; s->at++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, *s->at - '0', &value))
            return false;
    if (s->at == first || (*first == '0' && s->at - first > 1))
        return false;
    *out = negative ? -value : value;
    return true;
}

static bool skip_string(struct json_span *s)
{
    for (s->at++; s->at < s->end; s->at++) {
        if (*s->at == '"') {
            s->at++;
            return true;
        }
        if (*s->at == '\\' && ++s->at == s->end)
            return false;
    }
    return false;
}

/* A number, or true, false, null. */
static bool skip_word(struct json_span *s)
{
    const char *first = s->at;
    while (s->at < s->end && !strchr(",]}:\"[{ \n\t\r", *s->at))
        s->at++;
    return s->at > first;
}

bool json_skip(struct json_span *s)
{
    size_t depth = 0;
    do {
        skip_blanks(s);
        if (s->at == s->end)
            return false;
        char c = *s->at;
        if (c == '{' || c == '[') {
            depth++;
            s->at++;
        } else if (c == '}' || c == ']') {
            if (depth-- == 0)
                return false;
            s->at++;
        } else if (c == ',' || c == ':') {
            if (depth == 0)
                return false;
            s->at++;
        } else if (c == '"' ? !skip_string(s) : !skip_word(s)) {
            return false;
        }
    } while (depth);
    return true;
}

bool json_find(struct json_span object, const char *key, struct json_span *value)
{
    struct json_span s = object;
    if (!json_take(&s, '{'))
        return false;
    do {
        skip_blanks(&s);
        const char *name = s.at;
        if (s.at == s.end || *s.at != '"' || !skip_string(&s))
            return false;
        size_t n = (size_t)(s.at - name) - 2;
        bool found = n == strlen(key) && !memcmp(name + 1, key, n);
        if (!json_take(&s, ':'))
            return false;
        skip_blanks(&s);
        value->at = s.at;
        if (!json_skip(&s))
            return false;
        value->end = s.at;
        if (found)
            return true;
    } while (json_take(&s, ','));
    return false;
}

size_t json_count(struct json_span s)
{
    size_t count = 0;
    if (!json_take(&s, '{') && !json_take(&s, '['))
        return 0;
    while (json_skip(&s)) {
        count++;
        if (json_take(&s, ':') && !json_skip(&s))
            break;
        if (!json_take(&s, ','))
            break;
    }
    return count;
}
