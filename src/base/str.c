#include "base/str.h"

#include <ctype.h>
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool reserve(struct str *s, size_t more)
{
    size_t need;
    if (s->failed || !size_add(s->len, more, &need) || !size_add(need, 1, &need)) {
        s->failed = true;
        return false;
    }
    if (need <= s->cap)
        return true;
    size_t cap = s->cap ? s->cap : 64;
    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    char *p = realloc(s->data, cap);
    if (!p) {
        s->failed = true;
        return false;
    }
    s->data = p;
    s->cap = cap;
    return true;
}

void str_addn(struct str *s, const void *bytes, size_t n)
{
    if (!reserve(s, n))
        return;
    if (n)
        memcpy(s->data + s->len, bytes, n);
    s->len += n;
    s->data[s->len] = '\0';
}

void str_add(struct str *s, const char *text)
{
    str_addn(s, text, strlen(text));
}

void str_addc(struct str *s, char c)
{
    str_addn(s, &c, 1);
}

void str_addf(struct str *s, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0)
        s->failed = true;
    else if (reserve(s, (size_t)n)) {
        vsnprintf(s->data + s->len, (size_t)n + 1, fmt, again);
        s->len += (size_t)n;
    }
    va_end(again);
}

const char *str_cstr(const struct str *s)
{
    return s->data ? s->data : "";
}

char *str_take(struct str *s)
{
    char *p = NULL;
    if (!s->failed)
        p = s->data ? s->data : strdup("");
    else
        free(s->data);
    *s = (struct str){0};
    return p;
}

void str_free(struct str *s)
{
    free(s->data);
    *s = (struct str){0};
}

int parse_i64(const char *text, int64_t *out)
{
    if (!isdigit((unsigned char)text[0]) &&
        !((text[0] == '-' || text[0] == '+') && isdigit((unsigned char)text[1])))
        return -EINVAL;
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (*end)
        return -EINVAL;
    if (errno)
        return -ERANGE;
    *out = v;
    return 0;
}

int parse_u64(const char *text, uint64_t *out)
{
    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (*end)
        return -EINVAL;
    if (errno)
        return -ERANGE;
    *out = v;
    return 0;
}

int parse_f64(const char *text, double *out)
{
    for (const char *c = text; *c; c++) /* no hex, nan, inf, blanks */
        if (!isdigit((unsigned char)*c) && !strchr("+-.eE", *c))
            return -EINVAL;
    if (!*text)
        return -EINVAL;
    char *end;
    static locale_t c_locale; /* created once; losing a race only leaks one locale */
    if (!c_locale)
        c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    locale_t old = uselocale(c_locale);
    double v = strtod(text, &end);
    uselocale(old);
    if (*end || end == text)
        return -EINVAL;
    if (!isfinite(v))
        return -ERANGE;
    *out = v;
    return 0;
}

int parse_bytes(const char *text, uint64_t *out)
{
    size_t n = strspn(text, "0123456789.");
    char number[32];
    double v;
    if (n == 0 || n >= sizeof number)
        return -EINVAL;
    memcpy(number, text, n);
    number[n] = '\0';
    if (parse_f64(number, &v))
        return -EINVAL;
    const char *unit = text + n;
    while (*unit == ' ')
        unit++;
    static const char letters[] = "KMGTP";
    if (*unit && *unit != 'B' && *unit != 'b') {
        const char *at = strchr(letters, toupper((unsigned char)*unit));
        if (!at || !*at)
            return -EINVAL;
        v = ldexp(v, 10 * (int)(at - letters + 1));
        unit++;
        if (*unit == 'i')
            unit++;
    }
    if (*unit == 'B' || *unit == 'b')
        unit++;
    if (*unit)
        return -EINVAL;
    if (v < 0 || v >= 9.2e18)
        return -ERANGE;
    *out = (uint64_t)v;
    return 0;
}

int parse_bool(const char *text, bool *out)
{
    static const char *const yes[] = {"yes", "true", "on", "1"}, *const no[] = {"no", "false",
                                                                                "off", "0"};
    for (int i = 0; i < 4; i++) {
        if (!strcasecmp(text, yes[i])) {
            *out = true;
            return 0;
        }
        if (!strcasecmp(text, no[i])) {
            *out = false;
            return 0;
        }
    }
    return -EINVAL;
}

char *str_trim(char *s)
{
    while (*s == ' ' || *s == '\t' || *s == '\r' || *s == '\n')
        s++;
    size_t n = strlen(s);
    while (n && strchr(" \t\r\n", s[n - 1]))
        s[--n] = '\0';
    return s;
}

int str_distance(const char *a, const char *b, int max)
{
    size_t n = strlen(a), m = strlen(b);
    if (n > 63 || m > 63 || (n > m ? n - m : m - n) > (size_t)max)
        return max + 1;
    int rows[3][64];
    for (size_t j = 0; j <= m; j++)
        rows[0][j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int *row = rows[i % 3], *above = rows[(i + 2) % 3], *higher = rows[(i + 1) % 3];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int x = tolower((unsigned char)a[i - 1]), y = tolower((unsigned char)b[j - 1]);
            int best = above[j - 1] + (x != y);
            best = above[j] + 1 < best ? above[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) &&
                y == tolower((unsigned char)a[i - 2]) && higher[j - 2] + 1 < best)
                best = higher[j - 2] + 1;
            row[j] = best;
        }
    }
    int distance = rows[n % 3][m];
    return distance > max ? max + 1 : distance;
}

/* Two slips in a short word make any other of it. */
const char *str_nearest(const char *word, const char *const *names)
{
    const char *best = NULL;
    int limit = strlen(word) > 4 ? 3 : 2;
    for (; *names; names++) {
        int d = str_distance(word, *names, 2);
        if (d < limit) {
            limit = d;
            best = *names;
        }
    }
    return best;
}

bool utf8_valid(const char *text, size_t n)
{
    const unsigned char *s = (const unsigned char *)text, *end = s + n;
    while (s < end) {
        unsigned c = *s++;
        if (c == 0)
            return false;
        if (c < 0x80)
            continue;
        int more = c >= 0xF0 ? 3 : c >= 0xE0 ? 2 : 1;
        if (c < 0xC2 || c > 0xF4 || end - s < more)
            return false;
        unsigned point = c & (0x3Fu >> more);
        for (int i = 0; i < more; i++, s++) {
            if ((*s & 0xC0) != 0x80)
                return false;
            point = point << 6 | (*s & 0x3Fu);
        }
        static const unsigned least[] = {0, 0x80, 0x800, 0x10000};
        if (point < least[more] || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000))
            return false;
    }
    return true;
}

char *format_bytes(uint64_t bytes, char *out)
{
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB", "PB"};
    double v = (double)bytes;
    int u = 0;
    while (v >= 1000 && u < 5) {
        v /= 1000;
        u++;
    }
    snprintf(out, 24, u && v < 100 ? "%.1f %s" : "%.0f %s", v, units[u]);
    return out;
}
