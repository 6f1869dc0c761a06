#define PCRE2_CODE_UNIT_WIDTH 8
#include "safety/prompt_filter.h"

#include <errno.h>
#include <fcntl.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "safety/reading.h"

#define MAX_FILE     1048576
#define MAX_RULES    20000
#define MAX_TERMS    4
#define MATCH_LIMIT  1000000 /* steps of PCRE2; a prompt that needs more is blocked */
#define FILTER_ERROR "filter-error"

const char *const safety_level_names[SAFETY_LEVELS + 1] = {"off", "standard", "strict", NULL};

/* All terms must be found. */
struct rule {
    char id[SAFETY_RULE_SIZE];
    enum safety_level level;
    pcre2_code *terms[MAX_TERMS];
    int term_count;
};

/* `@name = word, word`: the words as one alternation, ready for a pattern. */
struct word_class {
    char name[SAFETY_RULE_SIZE];
    char *alternation;
};

struct prompt_filter {
    struct rule *rules;
    int rule_count, rule_cap;
    struct word_class *classes;
    int class_count;
};

int safety_level_parse(const char *word, enum safety_level *out)
{
    for (int i = 0; i < SAFETY_LEVELS; i++)
        if (!strcmp(word, safety_level_names[i])) {
            *out = (enum safety_level)i;
            return 0;
        }
    return -EINVAL;
}

int prompt_filter_new(struct prompt_filter **out, struct err *e)
{
    *out = calloc(1, sizeof **out);
    return *out ? 0 : err_nomem(e);
}

static void rule_free(struct rule *r)
{
    for (int i = 0; i < r->term_count; i++)
        pcre2_code_free(r->terms[i]);
}

void prompt_filter_free(struct prompt_filter *f)
{
    if (!f)
        return;
    for (int i = 0; i < f->rule_count; i++)
        rule_free(&f->rules[i]);
    for (int i = 0; i < f->class_count; i++)
        free(f->classes[i].alternation);
    free(f->classes);
    free(f->rules);
    free(f);
}

/* ---- compiling ---- */

static int compile(struct rule *r, const char *pattern, struct err *e)
{
    if (r->term_count == MAX_TERMS)
        return err_set(e, -EINVAL, "the rule %s has more than %d terms", r->id, MAX_TERMS);
    int number;
    PCRE2_SIZE at;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                     PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C, &number, &at, NULL);
    if (!code) {
        PCRE2_UCHAR text[128] = "";
        pcre2_get_error_message(number, text, sizeof text);
        return err_set(e, -EINVAL, "the pattern of %s is wrong at byte %zu: %s", r->id, at,
                       (char *)text);
    }
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); /* faster where the machine allows it */
    r->terms[r->term_count++] = code;
    return 0;
}

/* A phrase as a piece of a pattern over a reading: "sex tape*" → "sex tape[^ ]*". */
static int add_phrase(struct str *pattern, const char *phrase, struct err *e)
{
    AUTO_FREE char *copy = strdup(phrase);
    if (!copy)
        return err_nomem(e);
    char *rest = copy;
    size_t before = pattern->len;
    for (char *word; (word = strsep(&rest, " \t"));) {
        size_t n = strlen(word);
        bool open = n && word[n - 1] == '*';
        if (open)
            word[n - 1] = '\0';
        AUTO_STR struct str folded = {0};
        AUTO_STR struct str form = {0};
        if (reading_fold(word, &folded))
            return err_set(e, -EINVAL, "\"%.60s\" is not UTF-8 text", phrase);
        reading_make(str_cstr(&folded), READING_PLAIN, &form);
        if (form.failed)
            return err_nomem(e);
        if (form.len <= 1)
            continue;
        if (pattern->len > before)
            str_addc(pattern, ' ');
        str_addn(pattern, form.data + 1, form.len - 2);
        if (open)
            str_add(pattern, "[^ ]*");
    }
    if (pattern->len == before)
        return err_set(e, -EINVAL, "\"%.60s\" has no letters or digits to look for", phrase);
    return pattern->failed ? err_nomem(e) : 0;
}

/* "word, two words, start*" → "word|two words|start[^ ]*" */
static int add_words(struct str *pattern, const char *words, struct err *e)
{
    AUTO_FREE char *copy = strdup(words);
    if (!copy)
        return err_nomem(e);
    char *rest = copy;
    for (char *item; (item = strsep(&rest, ","));) {
        if (!*(item = str_trim(item)))
            continue;
        if (pattern->len)
            str_addc(pattern, '|');
        int code = add_phrase(pattern, item, e);
        if (code)
            return code;
    }
    return pattern->len ? 0 : err_set(e, -EINVAL, "there are no words");
}

static const struct word_class *find_class(const struct prompt_filter *f, const char *name)
{
    for (int i = 0; i < f->class_count; i++)
        if (!strcmp(f->classes[i].name, name))
            return &f->classes[i];
    return NULL;
}

/* One term: @class, or words. */
static int add_term(const struct prompt_filter *f, struct rule *r, const char *term, struct err *e)
{
    AUTO_STR struct str pattern = {0};
    AUTO_STR struct str words = {0};
    if (*term == '@') {
        const struct word_class *c = find_class(f, term + 1);
        if (!c)
            return err_set(e, -EINVAL, "%.60s is not defined above", term);
        str_add(&words, c->alternation);
    } else {
        int code = add_words(&words, term, e);
        if (code)
            return code;
    }
    str_addf(&pattern, " (?:%s) ", str_cstr(&words));
    return pattern.failed || words.failed ? err_nomem(e) : compile(r, str_cstr(&pattern), e);
}

static int add_terms(const struct prompt_filter *f, struct rule *r, char *body, struct err *e)
{
    size_t n = strlen(body);
    if (*body == '/') {
        if (n < 3 || body[n - 1] != '/')
            return err_set(e, -EINVAL, "the pattern of %s has no closing '/'", r->id);
        body[n - 1] = '\0';
        return compile(r, body + 1, e);
    }
    int code = 0;
    for (char *term; !code && (term = strsep(&body, "+"));)
        code = add_term(f, r, str_trim(term), e);
    return code;
}

static int add_rule(struct prompt_filter *f, const char *id, char *body, enum safety_level level,
                    struct err *e)
{
    if (f->rule_count == MAX_RULES)
        return err_set(e, -EINVAL, "there are more than %d rules", MAX_RULES);
    if (f->rule_count == f->rule_cap) {
        int cap = f->rule_cap ? f->rule_cap * 2 : 64;
        struct rule *more = realloc(f->rules, (size_t)cap * sizeof *more);
        if (!more)
            return err_nomem(e);
        f->rules = more;
        f->rule_cap = cap;
    }
    struct rule *r = &f->rules[f->rule_count];
    *r = (struct rule){.level = level};
    snprintf(r->id, sizeof r->id, "%s", id);
    int code = add_terms(f, r, body, e);
    if (code)
        rule_free(r);
    else
        f->rule_count++;
    return code;
}

static int add_class(struct prompt_filter *f, const char *name, const char *words, struct err *e)
{
    if (find_class(f, name))
        return err_set(e, -EINVAL, "@%s is defined a second time", name);
    AUTO_STR struct str alternation = {0};
    int code = add_words(&alternation, words, e);
    if (code)
        return code;
    struct word_class *more = realloc(f->classes, (size_t)(f->class_count + 1) * sizeof *more);
    if (!more)
        return err_nomem(e);
    f->classes = more;
    struct word_class *c = &more[f->class_count];
    snprintf(c->name, sizeof c->name, "%s", name);
    if (!(c->alternation = str_take(&alternation)))
        return err_nomem(e);
    f->class_count++;
    return 0;
}

/* `id: body` or `@class = words`; blank lines and `#` comments are nothing. */
static int add_line(struct prompt_filter *f, char *line, enum safety_level level, struct err *e)
{
    line = str_trim(line);
    if (!*line || *line == '#')
        return 0;
    bool is_class = *line == '@';
    char *mark = strchr(line, is_class ? '=' : ':');
    if (!mark || mark == line)
        return err_set(e, -EINVAL, "the line is neither `id: words` nor `@class = words`");
    *mark = '\0';
    char *name = str_trim(line + is_class), *body = str_trim(mark + 1);
    if (!*name || strlen(name) >= SAFETY_RULE_SIZE)
        return err_set(e, -EINVAL, "a name has 1 … %d bytes", SAFETY_RULE_SIZE - 1);
    return is_class ? add_class(f, name, body, e) : add_rule(f, name, body, level, e);
}

int prompt_filter_add(struct prompt_filter *f, const char *text, size_t size, const char *where,
                      enum safety_level level, struct err *e)
{
    if (size > MAX_FILE)
        return err_set(e, -EFBIG, "%s has %zu bytes; at most %d are read", where, size, MAX_FILE);
    if (!utf8_valid(text, size))
        return err_set(e, -EINVAL, "%s is not UTF-8 text", where);
    AUTO_FREE char *copy = malloc(size + 1);
    if (!copy)
        return err_nomem(e);
    memcpy(copy, text, size);
    copy[size] = '\0';
    char *rest = copy;
    int number = 1;
    for (char *line; (line = strsep(&rest, "\n")); number++)
        if (add_line(f, line, level, e))
            return err_prefix(e, "%s:%d", where, number);
    return 0;
}

int prompt_filter_add_file(struct prompt_filter *f, const char *path, enum safety_level level,
                           struct err *e)
{
    AUTO_FREE char *text = NULL;
    size_t size;
    int code = file_read(AT_FDCWD, path, MAX_FILE, &text, &size, e);
    return code ? code : prompt_filter_add(f, text, size, path, level, e);
}

/* ---- checking ---- */

struct matcher {
    pcre2_match_data *data;
    pcre2_match_context *context;
};

/* 1 found, 0 not, negative: cannot tell. */
static int found(const struct matcher *m, const pcre2_code *code, const struct str *subject)
{
    int n =
        pcre2_match(code, (PCRE2_SPTR)str_cstr(subject), subject->len, 0, 0, m->data, m->context);
    return n == PCRE2_ERROR_NOMATCH ? 0 : n < 0 ? -1 : 1;
}

static int rule_matches(const struct matcher *m, const struct rule *r, const struct str *subject)
{
    for (int i = 0; i < r->term_count; i++) {
        int n = found(m, r->terms[i], subject);
        if (n != 1)
            return n;
    }
    return r->term_count > 0;
}

static void block(struct safety_verdict *v, const char *rule)
{
    v->blocked = true;
    snprintf(v->rule, sizeof v->rule, "%s", rule);
}

/* Rules in their order, so that the gravest (which come first) name the verdict. */
static void check_rules(const struct prompt_filter *f, const struct matcher *m,
                        const struct str readings[READING_COUNT], struct safety_verdict *v)
{
    for (int i = 0; i < f->rule_count && !v->blocked; i++) {
        const struct rule *r = &f->rules[i];
        for (int how = 0; how < READING_COUNT && r->level <= v->level && !v->blocked; how++) {
            int n = rule_matches(m, r, &readings[how]);
            if (n)
                block(v, n > 0 ? r->id : FILTER_ERROR);
        }
    }
}

void prompt_filter_check(const struct prompt_filter *f, const char *text, enum safety_level level,
                         struct safety_verdict *out)
{
    *out = (struct safety_verdict){.level = level};
    struct matcher m = {pcre2_match_data_create(1, NULL), pcre2_match_context_create(NULL)};
    struct str readings[READING_COUNT] = {{0}};
    AUTO_STR struct str folded = {0};
    bool ready = m.data && m.context && !reading_fold(text, &folded);
    for (int how = 0; how < READING_COUNT && ready; how++) {
        reading_make(str_cstr(&folded), (enum reading)how, &readings[how]);
        ready = !readings[how].failed;
    }
    if (ready) {
        pcre2_set_match_limit(m.context, MATCH_LIMIT);
        check_rules(f, &m, readings, out);
    } else
        block(out, FILTER_ERROR);
    for (int how = 0; how < READING_COUNT; how++)
        str_free(&readings[how]);
    pcre2_match_data_free(m.data);
    pcre2_match_context_free(m.context);
}
