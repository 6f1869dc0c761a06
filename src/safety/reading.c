#include "safety/reading.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/cleanup.h"

/* Letters that look like a Latin one (Unicode's confusables, those of everyday alphabets). */
static utf8proc_int32_t latin_lookalike(utf8proc_int32_t c)
{
    static const struct {
        utf8proc_int32_t from;
        char to;
    } pairs[] = {
        {0x0131, 'i'}, {0x0251, 'a'}, {0x0261, 'g'}, {0x03B1, 'a'}, {0x03B9, 'i'}, {0x03BA, 'k'},
        {0x03BD, 'v'}, {0x03BF, 'o'}, {0x03C1, 'p'}, {0x03C4, 't'}, {0x03C5, 'u'}, {0x03C7, 'x'},
        {0x0430, 'a'}, {0x0432, 'b'}, {0x0435, 'e'}, {0x043A, 'k'}, {0x043C, 'm'}, {0x043D, 'h'},
        {0x043E, 'o'}, {0x0440, 'p'}, {0x0441, 'c'}, {0x0442, 't'}, {0x0443, 'y'}, {0x0445, 'x'},
        {0x0455, 's'}, {0x0456, 'i'}, {0x0458, 'j'}, {0x0501, 'd'}, {0x051B, 'q'}, {0x051D, 'w'},
    };
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++)
        if (pairs[i].from == c)
            return pairs[i].to;
    return c;
}

static void add_point(struct str *out, utf8proc_int32_t c)
{
    utf8proc_uint8_t bytes[4];
    str_addn(out, bytes, (size_t)utf8proc_encode_char(c, bytes));
}

int reading_fold(const char *text, struct str *out)
{
    utf8proc_uint8_t *mapped = NULL;
    utf8proc_ssize_t n =
        utf8proc_map((const utf8proc_uint8_t *)text, 0, &mapped,
                     UTF8PROC_NULLTERM | UTF8PROC_STABLE | UTF8PROC_COMPAT | UTF8PROC_COMPOSE |
                         UTF8PROC_CASEFOLD | UTF8PROC_IGNORE | UTF8PROC_STRIPMARK);
    if (n < 0) {
        free(mapped);
        return n == UTF8PROC_ERROR_NOMEM ? -ENOMEM : -EINVAL;
    }
    utf8proc_ssize_t at = 0;
    while (at < n) {
        utf8proc_int32_t c;
        utf8proc_ssize_t step = utf8proc_iterate(mapped + at, n - at, &c);
        if (step <= 0)
            break;
        add_point(out, latin_lookalike(c));
        at += step;
    }
    free(mapped);
    return out->failed ? -ENOMEM : 0;
}

/* ---- words ---- */

static bool is_ideograph(utf8proc_int32_t c)
{
    return (c >= 0x3040 && c <= 0x30FF) || (c >= 0x3400 && c <= 0x9FFF) || c >= 0x20000;
}

static bool is_word_char(utf8proc_int32_t c)
{
    if (c < 0x80)
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    utf8proc_category_t k = utf8proc_category(c);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NO;
}

static char digit_as_letter(char c, enum reading how)
{
    static const char digits[] = "0134578@$!", letters[] = "oieastbasi";
    const char *at = c ? strchr(digits, c) : NULL;
    if (c == '1' && how == READING_DIGITS_L)
        return 'l';
    return at ? letters[at - digits] : c;
}

static bool disguised(const char *word)
{
    bool letter = false, digit = false;
    for (const char *c = word; *c; c++) {
        letter |= (*c >= 'a' && *c <= 'z') || (*c & 0x80);
        digit |= digit_as_letter(*c, READING_DIGITS_I) != *c;
    }
    return letter && digit; /* a plain number is a number */
}

/* Three and more of a letter in a row count as one, or as two. */
static void add_squeezed(struct str *out, const char *word, enum reading how)
{
    for (const char *c = word; *c;) {
        size_t run = 1;
        while (c[run] == *c)
            run++;
        size_t keep = run < 3 ? run : how == READING_DIGITS_I ? 1 : 2;
        for (size_t i = 0; i < keep; i++)
            str_addc(out, *c);
        c += run;
    }
}

static void end_word(struct str *word, enum reading how, struct str *out)
{
    while (word->len && word->data[word->len - 1] == '!')
        word->data[--word->len] = '\0';
    if (!word->len)
        return;
    char *w = word->data;
    if (how == READING_DIGITS_I || how == READING_DIGITS_L) {
        if (disguised(w))
            for (char *c = w; *c; c++)
                *c = digit_as_letter(*c, how);
        add_squeezed(out, w, how);
    } else
        str_add(out, w);
    str_addc(out, ' ');
    word->len = 0;
    *word->data = '\0';
}

static void make_words(const char *folded, enum reading how, struct str *out)
{
    AUTO_STR struct str word = {0};
    const utf8proc_uint8_t *at = (const utf8proc_uint8_t *)folded;
    bool signs = how == READING_DIGITS_I || how == READING_DIGITS_L;
    for (;;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t step = *at ? utf8proc_iterate(at, -1, &c) : 0;
        if (step <= 0)
            break;
        at += step;
        bool sign = signs && (c == '@' || c == '$' || (c == '!' && word.len));
        if (is_ideograph(c)) {
            end_word(&word, how, out);
            add_point(out, c);
            str_addc(out, ' ');
        } else if (sign || is_word_char(c))
            add_point(&word, c);
        else
            end_word(&word, how, out);
    }
    end_word(&word, how, out);
    if (word.failed)
        out->failed = true;
}

/* "n u d e " → "nude ": runs of three and more words of one ASCII character. */
static void join_spaced(const char *words, struct str *out)
{
    const char *at = words;
    while (*at) {
        const char *end = at;
        while (end[0] && !(end[0] & 0x80) && end[1] == ' ')
            end += 2;
        size_t letters = (size_t)(end - at) / 2;
        if (letters >= 3) {
            char joined;
            AUTO_STR struct str run = {0};
            for (size_t i = 0; i < letters; i++)
                str_addc(&run, at[2 * i]);
            bool fold = disguised(str_cstr(&run));
            for (size_t i = 0; i < letters; i++) {
                joined = at[2 * i];
                str_addc(out, fold ? digit_as_letter(joined, READING_DIGITS_I) : joined);
            }
            str_addc(out, ' ');
            at = end;
            continue;
        }
        const char *next = strchr(at, ' ');
        if (!next)
            break;
        str_addn(out, at, (size_t)(next + 1 - at));
        at = next + 1;
    }
}

void reading_make(const char *folded, enum reading how, struct str *out)
{
    str_addc(out, ' ');
    if (how != READING_SPACED) {
        make_words(folded, how, out);
        return;
    }
    AUTO_STR struct str words = {0};
    make_words(folded, READING_PLAIN, &words);
    join_spaced(str_cstr(&words), out);
    if (words.failed)
        out->failed = true;
}
