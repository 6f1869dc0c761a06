#include "engine/weights/lora_names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/weights/naming.h"

#define MAX_NUMBERS 4
#define TAIL        ".weight"

/* Names that diffusers has given the same module over time; ends of keys. */
static const struct {
    const char *now, *before;
} earlier[] = {
    {"_to_out_0", "_to_out"},
    {"_self_attn_q_proj", "_self_attn_to_q"},
    {"_self_attn_k_proj", "_self_attn_to_k"},
    {"_self_attn_v_proj", "_self_attn_to_v"},
    {"_self_attn_out_proj", "_self_attn_to_out"},
};

static const struct rename_rule *const namings[] = {naming_flux2, naming_zimage, naming_ldm_unet,
                                                    naming_open_clip};

static int add(struct lora_names *n, struct lora_name name, struct err *e)
{
    if (n->count == n->cap) {
        size_t cap = n->cap ? 2 * n->cap : 256;
        struct lora_name *more = realloc(n->list, cap * sizeof *more);
        if (!more) {
            free(name.key);
            return err_nomem(e);
        }
        n->list = more;
        n->cap = cap;
    }
    for (char *c = name.key; c && *c; c++)
        *c = *c == '.' ? '_' : *c;
    if (!name.key)
        return err_nomem(e);
    n->list[n->count++] = name;
    return 0;
}

/* ---- rules, read from right to left ---- */

/* Does `name` begin with `pattern`? The text of its numbers into at[], what follows into *rest. */
static bool fits(const char *pattern, const char *name, const char *at[MAX_NUMBERS], int *count,
                 const char **rest)
{
    char last = '\0';
    *count = 0;
    for (; *pattern; last = *pattern++) {
        if (*pattern != '*') {
            if (*name++ != *pattern)
                return false;
            continue;
        }
        size_t digits = strspn(name, "0123456789");
        if (!digits || *count == MAX_NUMBERS)
            return false;
        at[(*count)++] = name;
        name += digits;
    }
    *rest = name;
    return last == '.' && *name;
}

static void add_numbered(struct str *out, const char *pattern, const char *const *at, int count)
{
    for (int next = 0; *pattern; pattern++) {
        if (*pattern != '*')
            str_addc(out, *pattern);
        else if (next < count) {
            str_addn(out, at[next], strspn(at[next], "0123456789"));
            next++;
        }
    }
}

/* Adds the names that `rules` make `name` from, behind `before`. Tables nest two deep. */
static int add_originals(struct lora_names *n, const struct rename_rule *rules, const char *before,
                         const char *name, size_t weight, struct err *e)
{
    int code = 0;
    for (const struct rename_rule *r = rules; r->from && !code; r++) {
        const char *at[MAX_NUMBERS], *rest;
        int count;
        AUTO_STR struct str from = {0};
        if (!r->to || !fits(r->to, name, at, &count, &rest))
            continue;
        str_add(&from, before);
        add_numbered(&from, r->from, at, count);
        if (r->tail) {
            code = add_originals(n, r->tail, str_cstr(&from), rest, weight, e);
            continue;
        }
        if (r->change != RENAME_AS_IS && r->change != RENAME_THIRD && r->change != RENAME_SWAP)
            continue;
        str_add(&from, rest);
        size_t length = from.len, tail = strlen(TAIL);
        if (from.failed)
            return err_nomem(e);
        if (length <= tail || strcmp(from.data + length - tail, TAIL) != 0)
            continue;
        from.data[length - tail] = '\0';
        code = add(n, (struct lora_name){str_take(&from), weight, true, r->change, r->third}, e);
    }
    return code;
}

static int add_earlier(struct lora_names *n, const char *key, size_t weight, struct err *e)
{
    for (size_t i = 0; i < ARRAY_LEN(earlier); i++) {
        size_t m = strlen(key), t = strlen(earlier[i].now);
        if (m < t || strcmp(key + m - t, earlier[i].now) != 0)
            continue;
        AUTO_STR struct str old = {0};
        str_addn(&old, key, m - t);
        str_add(&old, earlier[i].before);
        return add(n, (struct lora_name){str_take(&old), weight, true, RENAME_AS_IS, 0}, e);
    }
    return 0;
}

int lora_names_add(struct lora_names *n, const char *name, size_t weight, struct err *e)
{
    size_t length = strlen(name), tail = strlen(TAIL);
    if (length <= tail || strcmp(name + length - tail, TAIL) != 0)
        return 0;
    size_t own = n->count;
    int code =
        add(n, (struct lora_name){strndup(name, length - tail), weight, false, RENAME_AS_IS, 0}, e);
    if (!code)
        code = add_earlier(n, n->list[own].key, weight, e);
    for (size_t i = 0; i < ARRAY_LEN(namings) && !code; i++)
        code = add_originals(n, namings[i], "", name, weight, e);
    return code;
}

/* ---- looking up ---- */

static int by_key(const void *a, const void *b)
{
    const struct lora_name *x = a, *y = b;
    int order = strcmp(x->key, y->key);
    return order ? order : (x->weight > y->weight) - (x->weight < y->weight);
}

void lora_names_sort(struct lora_names *n)
{
    if (n->count)
        qsort(n->list, n->count, sizeof *n->list, by_key);
}

const struct lora_name *lora_names_find(const struct lora_names *n, const char *key, size_t *count)
{
    size_t low = 0, high = n->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(n->list[middle].key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    for (*count = 0; low + *count < n->count && !strcmp(n->list[low + *count].key, key);)
        ++*count;
    return *count ? &n->list[low] : NULL;
}

void lora_names_free(struct lora_names *n)
{
    for (size_t i = 0; i < n->count; i++)
        free(n->list[i].key);
    free(n->list);
    *n = (struct lora_names){0};
}
