#include "engine/weights/rename.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"

enum { MAX_NUMBERS = 4, COPY_ALIGNMENT = 64 };

/* ---- names ---- */

/* Numbers of a name, as text within it. */
struct numbers {
    struct {
        const char *text;
        size_t length;
    } at[MAX_NUMBERS];
    int count;
};

static size_t digits(const char *s)
{
    size_t n = 0;
    while (s[n] >= '0' && s[n] <= '9')
        n++;
    return n;
}

/* Does `name` fit? What follows the pattern into *rest. */
static bool fits(const char *pattern, const char *name, struct numbers *found, const char **rest)
{
    char last = '\0';
    found->count = 0;
    for (; *pattern; last = *pattern++) {
        if (*pattern != '*') {
            if (*name++ != *pattern)
                return false;
            continue;
        }
        size_t n = digits(name);
        if (!n || found->count == MAX_NUMBERS)
            return false;
        found->at[found->count].text = name;
        found->at[found->count++].length = n;
        name += n;
    }
    *rest = name;
    return last == '.' ? *name != '\0' : *name == '\0';
}

static void add_numbered(struct str *out, const char *pattern, const struct numbers *found)
{
    int next = 0;
    for (; *pattern; pattern++) {
        if (*pattern != '*')
            str_addc(out, *pattern);
        else if (next < found->count) {
            str_addn(out, found->at[next].text, found->at[next].length);
            next++;
        }
    }
}

/* ---- entries ---- */

/* New entries in the making. */
struct renaming {
    struct weights_file *file;
    struct weights_entry *entries;
    size_t count, cap;
    struct err *e;
};

#define FAULT "%s: tensor '%.100s': "

static size_t row_bytes(const struct weights_entry *t)
{
    return t->dims[0] ? t->bytes / (size_t)t->dims[0] : 0;
}

/* Rows can be told apart: along the first of two or more dimensions, or plain numbers. */
static int check_rows(struct renaming *r, const struct weights_entry *t, int parts)
{
    if (t->rank >= (t->element ? 1 : 2) && t->dims[0] % parts == 0)
        return 0;
    return err_set(r->e, -EINVAL,
                   FAULT "%d dimensions with %lld rows cannot be divided into %d equal parts",
                   t->file, t->name, t->rank, t->rank ? (long long)t->dims[0] : 0, parts);
}

static int take_third(struct renaming *r, struct weights_entry *t, int third)
{
    int code = check_rows(r, t, 3);
    if (code)
        return code;
    size_t row = row_bytes(t);
    t->dims[0] /= 3;
    t->bytes = row * (size_t)t->dims[0];
    t->data = (const char *)t->data + (size_t)third * t->bytes;
    return 0;
}

/* Room for changed data, which the file keeps. */
static void *new_data(struct renaming *r, size_t bytes)
{
    struct weights_file *f = r->file;
    size_t rounded;
    if (!size_add(bytes, COPY_ALIGNMENT, &rounded))
        return NULL;
    void **more = realloc(f->copies, (f->copy_count + 1) * sizeof *more);
    if (!more)
        return NULL;
    f->copies = more;
    void *data = aligned_alloc(COPY_ALIGNMENT, rounded / COPY_ALIGNMENT * COPY_ALIGNMENT);
    if (data)
        f->copies[f->copy_count++] = data;
    return data;
}

static int swap_halves(struct renaming *r, struct weights_entry *t)
{
    int code = check_rows(r, t, 2);
    if (code)
        return code;
    char *data = new_data(r, t->bytes);
    if (!data)
        return err_nomem(r->e);
    size_t half = t->bytes / 2;
    memcpy(data, (const char *)t->data + half, half);
    memcpy(data + half, t->data, half);
    t->data = data;
    return 0;
}

static int transpose(struct renaming *r, struct weights_entry *t)
{
    if (t->rank != 2 || !t->element)
        return err_set(r->e, -ENOTSUP, FAULT "%s of %d dimensions cannot be transposed", t->file,
                       t->name, t->stored, t->rank);
    size_t rows = (size_t)t->dims[0], columns = (size_t)t->dims[1], one = t->element;
    char *data = new_data(r, t->bytes);
    if (!data)
        return err_nomem(r->e);
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < columns; k++)
            memcpy(data + (k * rows + i) * one, (const char *)t->data + (i * columns + k) * one,
                   one);
    t->dims[0] = (int64_t)columns;
    t->dims[1] = (int64_t)rows;
    t->data = data;
    return 0;
}

static int change(struct renaming *r, struct weights_entry *t, const struct rename_rule *rule)
{
    switch (rule->change) {
    case RENAME_THIRD:
        return take_third(r, t, rule->third);
    case RENAME_SWAP:
        return swap_halves(r, t);
    case RENAME_TRANSPOSE:
        return transpose(r, t);
    case RENAME_FLAT:
        while (t->rank > 2 && t->dims[t->rank - 1] == 1)
            t->rank--;
        return 0;
    case RENAME_SINGLE_ROW:
        if (t->rank == 1) {
            t->dims[1] = t->dims[0];
            t->dims[0] = 1;
            t->rank = 2;
        }
        return 0;
    default:
        return 0;
    }
}

static struct weights_entry *new_entry(struct renaming *r)
{
    if (r->count == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 256;
        struct weights_entry *more = realloc(r->entries, cap * sizeof *more);
        if (!more)
            return NULL;
        r->entries = more;
        r->cap = cap;
    }
    return &r->entries[r->count];
}

/* `old` as a new entry called `name`, which is taken over; `rule` may be NULL. */
static int add_entry(struct renaming *r, const struct weights_entry *old, char *name,
                     const struct rename_rule *rule)
{
    struct weights_entry *t = name ? new_entry(r) : NULL;
    if (!t) {
        free(name);
        return err_nomem(r->e);
    }
    *t = *old;
    int code = rule ? change(r, t, rule) : 0;
    t->name = name;
    r->count++;
    return code;
}

/* Adds `old`, whose name is `head` and then `name`, under every rule that fits; the number of rules
 * or a negative errno. Tables are as deep as their authors nest them. */
static int add_renamed(struct renaming *r, const struct weights_entry *old, const char *head,
                       const char *name, const struct rename_rule *rules)
{
    int count = 0;
    for (const struct rename_rule *rule = rules; rule->from; rule++) {
        struct numbers found;
        const char *rest;
        if (!fits(rule->from, name, &found, &rest))
            continue;
        if (rule->change == RENAME_DROP) {
            count++;
            continue;
        }
        AUTO_STR struct str renamed = {0};
        str_add(&renamed, head);
        add_numbered(&renamed, rule->to, &found);
        int code;
        if (rule->tail) {
            code = renamed.failed ? err_nomem(r->e)
                                  : add_renamed(r, old, str_cstr(&renamed), rest, rule->tail);
        } else {
            str_add(&renamed, rest);
            code = add_entry(r, old, str_take(&renamed), rule);
            code = code ? code : 1;
        }
        if (code < 0)
            return code;
        count += code;
    }
    return count;
}

static int rename_all(struct renaming *r, const char *prefix, const struct rename_rule *rules)
{
    size_t skipped = strlen(prefix);
    for (size_t i = 0; i < r->file->count; i++) {
        const struct weights_entry *old = &r->file->entries[i];
        const char *name = old->name + skipped;
        if (strncmp(old->name, prefix, skipped) != 0)
            continue;
        int count = add_renamed(r, old, "", name, rules);
        if (count == 0)
            count = add_entry(r, old, strdup(name), NULL);
        if (count < 0)
            return count;
    }
    return 0;
}

static void free_entries(struct weights_entry *entries, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free((char *)entries[i].name);
    free(entries);
}

int weights_file_rename(struct weights_file *f, const char *prefix, const struct rename_rule *rules,
                        struct err *e)
{
    static const struct rename_rule none[] = {{0}};
    struct renaming r = {.file = f, .e = e};
    int code = rename_all(&r, prefix, rules ? rules : none);
    if (code) {
        free_entries(r.entries, r.count);
        return code;
    }
    free_entries(f->entries, f->count);
    f->entries = r.entries;
    f->count = r.count;
    return 0;
}
