#define PCRE2_CODE_UNIT_WIDTH 8
#include "engine/text/split.h"

#include <ctype.h>
#include <errno.h>
#include <pcre2.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/text/unicode.h"

enum {
    PATTERN_LIMIT = 8192,
    NESTING_LIMIT = 50,
    MATCH_LIMIT = 10000000,
    HEAP_LIMIT_KIB = 65536,
    JIT_STACK_START = 32 << 10,
    JIT_STACK_MOST = 1 << 20,
};

struct split {
    pcre2_code *code;
};

struct split_run {
    pcre2_match_data *found;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

/* ---- from Oniguruma's language to PCRE2's ---- */

struct translation {
    const char *pattern;
    size_t n, at;
    bool in_class;
    struct str out;
    struct err *e;
};

static int refuse(struct translation *t, const char *what)
{
    return err_set(t->e, -ENOTSUP, "the pattern's %s at byte %zu is not supported", what, t->at);
}

static bool follows(const struct translation *t, const char *text)
{
    size_t n = strlen(text);
    return t->n - t->at >= n && !memcmp(t->pattern + t->at, text, n);
}

static void copy(struct translation *t, size_t n)
{
    str_addn(&t->out, t->pattern + t->at, n);
    t->at += n;
}

/* \p{Name} and \P{Name}. */
static int translate_property(struct translation *t)
{
    size_t n = 2;
    if (t->at + n < t->n && t->pattern[t->at + n] == '{') {
        n++;
        while (t->at + n < t->n &&
               (isalnum((unsigned char)t->pattern[t->at + n]) || t->pattern[t->at + n] == '_'))
            n++;
        if (n > 3 && t->at + n < t->n && t->pattern[t->at + n] == '}') {
            copy(t, n + 1);
            return 0;
        }
    }
    return refuse(t, "property");
}

static int translate_escape(struct translation *t)
{
    unsigned char c = t->at + 1 < t->n ? (unsigned char)t->pattern[t->at + 1] : 0;
    if (c == 'p' || c == 'P')
        return translate_property(t);
    if (c == 's' || c == 'S') {
        if (t->in_class)
            str_add(&t->out, c == 's' ? UNICODE_SPACE_CLASS : UNICODE_NOT_SPACE_CLASS);
        else
            str_addf(&t->out, "[%s%s]", c == 's' ? "" : "^", UNICODE_SPACE_CLASS);
        t->at += 2;
        return 0;
    }
    if (c && (strchr("dDrntf", c) || (c < 0x80 && ispunct(c)))) {
        copy(t, 2);
        return 0;
    }
    return refuse(t, "escape");
}

/* Groups whose meaning is the same in both languages. */
static int translate_group(struct translation *t)
{
    static const char *const groups[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:"};
    for (size_t i = 0; i < ARRAY_LEN(groups); i++)
        if (follows(t, groups[i])) {
            copy(t, strlen(groups[i]));
            return 0;
        }
    if (follows(t, "(?") || follows(t, "(*"))
        return refuse(t, "group");
    copy(t, 1);
    return 0;
}

static int translate_class_start(struct translation *t)
{
    t->in_class = true;
    copy(t, follows(t, "[^") ? 2 : 1);
    return follows(t, "]") ? refuse(t, "empty class") : 0;
}

static int translate_in_class(struct translation *t)
{
    if (follows(t, "[") || follows(t, "&&"))
        return refuse(t, "nested class");
    t->in_class = !follows(t, "]");
    copy(t, 1);
    return 0;
}

static int translate_next(struct translation *t)
{
    switch (t->pattern[t->at]) {
    case '\0':
        return refuse(t, "NUL character");
    case '\\':
        return translate_escape(t);
    default:
        if (t->in_class)
            return translate_in_class(t);
        break;
    }
    switch (t->pattern[t->at]) {
    case '(':
        return translate_group(t);
    case '[':
        return translate_class_start(t);
    case '^':
    case '$':
        return refuse(t, "anchor");
    case '{':
        if (follows(t, "{,"))
            return refuse(t, "repetition");
        break;
    }
    copy(t, 1);
    return 0;
}

/* The pattern for PCRE2; heap. */
static int translate(const char *pattern, size_t n, struct str *out, struct err *e)
{
    struct translation t = {.pattern = pattern, .n = n, .e = e};
    int code = 0;
    while (!code && t.at < n)
        code = translate_next(&t);
    if (!code && t.out.failed)
        code = err_nomem(e);
    if (code)
        str_free(&t.out);
    *out = t.out;
    return code;
}

/* ---- PCRE2 ---- */

static pcre2_code *compile(const char *pattern, size_t n, uint32_t options, struct err *e)
{
    pcre2_compile_context *limits = pcre2_compile_context_create(NULL);
    if (!limits) {
        err_nomem(e);
        return NULL;
    }
    pcre2_set_parens_nest_limit(limits, NESTING_LIMIT);
    int fault;
    PCRE2_SIZE where;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)pattern, n, PCRE2_UTF | options, &fault, &where, limits);
    pcre2_compile_context_free(limits);
    if (!code) {
        char text[160];
        pcre2_get_error_message(fault, (PCRE2_UCHAR *)text, sizeof text);
        err_set(e, -EINVAL, "the pattern is wrong: %s", text);
    }
    return code;
}

int split_new(const char *pattern, size_t n, bool literal, struct split **out, struct err *e)
{
    if (n == 0 || n > PATTERN_LIMIT)
        return err_set(e, -EINVAL, "the pattern has %zu bytes, expected 1 to %d", n, PATTERN_LIMIT);
    AUTO_STR struct str translated = {0};
    if (literal)
        str_addn(&translated, pattern, n);
    else if (translate(pattern, n, &translated, e))
        return e ? e->code : -EINVAL;
    struct split *s = translated.failed ? NULL : calloc(1, sizeof *s);
    if (!s)
        return err_nomem(e);
    s->code = compile(translated.data, translated.len, literal ? PCRE2_LITERAL : PCRE2_UCP, e);
    if (!s->code) {
        free(s);
        return e ? e->code : -EINVAL;
    }
    pcre2_jit_compile(s->code, PCRE2_JIT_COMPLETE); /* without it, matching interprets */
    *out = s;
    return 0;
}

void split_free(struct split *s)
{
    if (!s)
        return;
    pcre2_code_free(s->code);
    free(s);
}

struct split_run *split_run_new(void)
{
    struct split_run *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->found = pcre2_match_data_create(1, NULL);
    r->context = pcre2_match_context_create(NULL);
    if (!r->found || !r->context) {
        split_run_free(r);
        return NULL;
    }
    pcre2_set_match_limit(r->context, MATCH_LIMIT);
    pcre2_set_heap_limit(r->context, HEAP_LIMIT_KIB);
    r->stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_MOST, NULL);
    if (r->stack)
        pcre2_jit_stack_assign(r->context, NULL, r->stack);
    return r;
}

void split_run_free(struct split_run *r)
{
    if (!r)
        return;
    pcre2_match_data_free(r->found);
    pcre2_match_context_free(r->context);
    pcre2_jit_stack_free(r->stack);
    free(r);
}

int split_find(const struct split *s, struct split_run *r, const char *text, size_t n, size_t from,
               size_t *start, size_t *end, struct err *e)
{
    uint32_t options = PCRE2_NO_UTF_CHECK;
    int code = pcre2_match(s->code, (PCRE2_SPTR)text, n, from, options, r->found, r->context);
    if (code == PCRE2_ERROR_JIT_STACKLIMIT)
        code = pcre2_match(s->code, (PCRE2_SPTR)text, n, from, options | PCRE2_NO_JIT, r->found,
                           r->context);
    if (code == PCRE2_ERROR_NOMATCH)
        return 0;
    if (code < 0) {
        char message[160];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof message);
        return err_set(e, -EINVAL, "the tokenizer's pattern fails on this text: %s", message);
    }
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(r->found);
    *start = range[0];
    *end = range[1];
    return 1;
}
