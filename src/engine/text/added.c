#include "engine/text/added.h"

#include <stdlib.h>
#include <string.h>

#include "engine/text/unicode.h"

int added_add(struct added_set *s, const char *text, size_t n, struct added_token like,
              struct err *e)
{
    if (s->count == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 32;
        struct added_token *grown = realloc(s->tokens, cap * sizeof *grown);
        if (!grown)
            return err_nomem(e);
        s->tokens = grown;
        s->cap = cap;
    }
    like.text = malloc(n);
    like.length = n;
    if (!like.text)
        return err_nomem(e);
    memcpy(like.text, text, n);
    s->tokens[s->count++] = like;
    return 0;
}

void added_free(struct added_set *s)
{
    for (size_t i = 0; i < s->count; i++)
        free(s->tokens[i].text);
    free(s->tokens);
    *s = (struct added_set){0};
}

static int compare(const char *a, size_t an, const char *b, size_t bn)
{
    int order = memcmp(a, b, an < bn ? an : bn);
    return order ? order : (an > bn) - (an < bn);
}

static int by_text(const void *a, const void *b)
{
    const struct added_token *x = a, *y = b;
    return compare(x->text, x->length, y->text, y->length);
}

void added_sort(struct added_set *s)
{
    if (s->count)
        qsort(s->tokens, s->count, sizeof *s->tokens, by_text);
}

int32_t added_id(const struct added_set *s, const char *text, size_t n)
{
    for (size_t i = 0; i < s->count; i++)
        if (!compare(s->tokens[i].text, s->tokens[i].length, text, n))
            return s->tokens[i].id;
    return -1;
}

/* The first token of [low, high), which share `depth` bytes, whose next byte is at least `byte`. */
static size_t lower_bound(const struct added_set *s, size_t low, size_t high, size_t depth,
                          int byte)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct added_token *t = &s->tokens[middle];
        if (t->length <= depth || (unsigned char)t->text[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest token that text[0, n) starts with: the sorted list is walked like a trie. */
static const struct added_token *longest_at(const struct added_set *s, const char *text, size_t n)
{
    const struct added_token *best = NULL;
    size_t low = 0, high = s->count;
    for (size_t depth = 0; low < high; depth++) {
        if (s->tokens[low].length == depth)
            best = &s->tokens[low]; /* the shortest of a range comes first */
        if (depth == n)
            break;
        int byte = (unsigned char)text[depth];
        low = lower_bound(s, low, high, depth, byte);
        high = lower_bound(s, low, high, depth, byte + 1);
    }
    return best;
}

bool added_find(const struct added_set *s, const char *text, size_t n, size_t from, size_t floor,
                struct added_match *out)
{
    if (!s->count)
        return false;
    for (size_t at = from; at < n; at++) {
        const struct added_token *t = longest_at(s, text + at, n - at);
        if (!t)
            continue;
        *out = (struct added_match){at, at + t->length, at + t->length, t->id};
        if (t->lstrip && at > floor)
            out->start -= unicode_trailing_space(text + floor, at - floor);
        if (t->rstrip)
            out->end += unicode_leading_space(text + out->end, n - out->end);
        return true;
    }
    return false;
}
