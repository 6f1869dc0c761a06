#include "engine/text/bpe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/str.h"
#include "engine/text/unicode.h"

struct token {
    uint32_t offset, length; /* in the spellings */
    int32_t id;
};

struct merge {
    uint64_t pair; /* left id, right id; NO_PAIR where the slot is free */
    uint32_t rank;
    int32_t id;
};

#define NO_PAIR      UINT64_MAX
#define NONE         UINT32_MAX
#define SUFFIX_LIMIT 15

/* Both tables are open-addressed, at most half full, a power of two long. */
struct bpe {
    struct str spellings; /* of all tokens, one after the other */
    struct token *tokens;
    size_t token_count, token_max;
    uint32_t *slots; /* token index + 1, 0 where free */
    size_t slot_mask;
    struct merge *merges;
    size_t merge_mask, merge_count, merge_max;
    uint64_t seed; /* so that a file cannot aim at one slot */
    int32_t bytes[256];
    char suffix[SUFFIX_LIMIT + 1];
    int32_t last_bytes[256]; /* with the suffix */
    int32_t last_id;
    bool ignore_merges;
};

void id_list_add(struct id_list *l, int32_t id)
{
    if (l->count == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 256;
        int32_t *grown = realloc(l->data, cap * sizeof *grown);
        if (!grown) {
            l->failed = true;
            return;
        }
        l->data = grown;
        l->cap = cap;
    }
    l->data[l->count++] = id;
}

/* How much of a text a message quotes. */
static int shown(size_t n)
{
    return n > 40 ? 40 : (int)n;
}

/* ---- vocabulary ---- */

static size_t table_size(size_t entries)
{
    size_t size = 16;
    while (size < 2 * entries)
        size *= 2;
    return size;
}

struct bpe *bpe_new(size_t tokens, size_t merges, bool ignore_merges)
{
    if (tokens > INT32_MAX || merges > INT32_MAX)
        return NULL;
    struct bpe *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    size_t slots = table_size(tokens), pairs = table_size(merges);
    b->tokens = calloc(tokens + 1, sizeof *b->tokens);
    b->slots = calloc(slots, sizeof *b->slots);
    b->merges = calloc(pairs, sizeof *b->merges);
    if (!b->tokens || !b->slots || !b->merges) {
        bpe_free(b);
        return NULL;
    }
    for (size_t i = 0; i < pairs; i++)
        b->merges[i].pair = NO_PAIR;
    b->slot_mask = slots - 1;
    b->merge_mask = pairs - 1;
    b->token_max = tokens;
    b->merge_max = merges;
    b->seed = random_u64();
    b->last_id = -1;
    b->ignore_merges = ignore_merges;
    return b;
}

int bpe_end_of_word(struct bpe *b, const char *suffix, struct err *e)
{
    size_t n = strlen(suffix);
    if (n > SUFFIX_LIMIT || (n && b->ignore_merges))
        return err_set(e, -ENOTSUP, "BPE with end_of_word_suffix '%.20s'%s is not supported",
                       suffix, b->ignore_merges ? " and ignore_merges" : "");
    memcpy(b->suffix, suffix, n + 1);
    return 0;
}

void bpe_free(struct bpe *b)
{
    if (!b)
        return;
    str_free(&b->spellings);
    free(b->tokens);
    free(b->slots);
    free(b->merges);
    free(b);
}

static uint64_t mix(uint64_t x)
{
    x *= UINT64_C(0x9E3779B97F4A7C15);
    return x ^ x >> 32;
}

static size_t hash_text(const struct bpe *b, const char *text, size_t n)
{
    uint64_t h = b->seed + n;
    for (; n >= 8; text += 8, n -= 8) {
        uint64_t word;
        memcpy(&word, text, 8);
        h = mix(h ^ word);
    }
    uint64_t tail = 0;
    memcpy(&tail, text, n);
    return mix(h ^ tail);
}

/* The slot of a text: its token's, or the free one where it would go. */
static uint32_t *find_slot(const struct bpe *b, const char *text, size_t n)
{
    for (size_t i = hash_text(b, text, n);; i++) {
        uint32_t *slot = &b->slots[i & b->slot_mask];
        if (!*slot)
            return slot;
        const struct token *t = &b->tokens[*slot - 1];
        if (t->length == n && !memcmp(b->spellings.data + t->offset, text, n))
            return slot;
    }
}

int bpe_add_token(struct bpe *b, const char *text, size_t n, int32_t id, struct err *e)
{
    uint32_t *slot = find_slot(b, text, n);
    if (*slot || b->token_count == b->token_max)
        return err_set(e, -EINVAL, "token '%.*s' is there twice", shown(n), text);
    uint32_t offset = (uint32_t)b->spellings.len;
    str_addn(&b->spellings, text, n);
    if (b->spellings.failed)
        return err_nomem(e);
    if (b->spellings.len > INT32_MAX)
        return err_set(e, -EINVAL, "the vocabulary is too large");
    b->tokens[b->token_count++] = (struct token){offset, (uint32_t)n, id};
    *slot = (uint32_t)b->token_count;
    if (id > b->last_id)
        b->last_id = id;
    return 0;
}

int32_t bpe_id(const struct bpe *b, const char *text, size_t n)
{
    uint32_t slot = *find_slot(b, text, n);
    return slot ? b->tokens[slot - 1].id : -1;
}

int32_t bpe_last_id(const struct bpe *b)
{
    return b->last_id;
}

/* ---- merges ---- */

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static struct merge *find_merge(const struct bpe *b, int32_t left, int32_t right)
{
    uint64_t pair = pair_of(left, right);
    for (size_t i = mix(pair ^ b->seed);; i++) {
        struct merge *m = &b->merges[i & b->merge_mask];
        if (m->pair == pair || m->pair == NO_PAIR)
            return m;
    }
}

int bpe_add_merge(struct bpe *b, const char *left, size_t left_n, const char *right, size_t right_n,
                  struct err *e)
{
    char joined[1024];
    if (left_n > sizeof joined || right_n > sizeof joined - left_n)
        return err_set(e, -EINVAL, "merge %zu makes a token of over %zu bytes", b->merge_count,
                       sizeof joined);
    if (b->merge_count == b->merge_max)
        return err_set(e, -EINVAL, "there are more merges than announced");
    memcpy(joined, left, left_n);
    memcpy(joined + left_n, right, right_n);
    int32_t l = bpe_id(b, left, left_n), r = bpe_id(b, right, right_n);
    int32_t id = bpe_id(b, joined, left_n + right_n);
    if (l < 0 || r < 0 || id < 0)
        return err_set(e, -EINVAL, "merge %zu of '%.*s' and '%.*s': %s not in the vocabulary",
                       b->merge_count, shown(left_n), left, shown(right_n), right,
                       l < 0   ? "the first is"
                       : r < 0 ? "the second is"
                               : "the result is");
    /* A pair listed twice has the later rank. */
    *find_merge(b, l, r) = (struct merge){pair_of(l, r), (uint32_t)b->merge_count++, id};
    return 0;
}

/* ---- bytes as characters ---- */

/* GPT-2's table: printable bytes of Latin-1 stand for themselves, the other 68 for U+0100 and up,
 * in order. */
static size_t spell_byte(unsigned byte, char out[2])
{
    if ((byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173))
        return unicode_put_short(byte, out);
    unsigned rank = byte <= 32 ? byte : byte < 161 ? byte - 127 + 33 : 67;
    return unicode_put_short(0x100 + rank, out);
}

int bpe_finish(struct bpe *b, struct err *e)
{
    size_t suffix = strlen(b->suffix);
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[2 + SUFFIX_LIMIT];
        size_t n = spell_byte(byte, text);
        memcpy(text + n, b->suffix, suffix);
        b->bytes[byte] = bpe_id(b, text, n);
        b->last_bytes[byte] = bpe_id(b, text, n + suffix);
        if (b->bytes[byte] < 0 || b->last_bytes[byte] < 0)
            return err_set(e, -EINVAL,
                           "the vocabulary has no token for byte 0x%02x%s; only byte-level "
                           "vocabularies are supported",
                           byte, b->bytes[byte] < 0 ? "" : " at the end of a word");
    }
    return 0;
}

/* ---- encoding ---- */

/* The symbols of a piece, a linked list in place. */
struct bpe_symbol {
    int32_t id; /* -1: merged into its left neighbour */
    uint32_t previous, next;
};

struct bpe_candidate {
    uint32_t rank, at; /* lower ranks first, then further left */
    int32_t id;        /* what the pair at `at` would become */
};

void bpe_scratch_free(struct bpe_scratch *s)
{
    free(s->symbols);
    free(s->heap);
    free(s->spelled);
    *s = (struct bpe_scratch){0};
}

static bool reserve(struct bpe_scratch *s, size_t n)
{
    if (n <= s->cap)
        return true;
    bpe_scratch_free(s);
    size_t cap = n < 256 ? 256 : n;
    s->symbols = calloc(cap, sizeof *s->symbols);
    s->heap = calloc(cap, 3 * sizeof *s->heap); /* n - 1 pairs, two more for each merge */
    s->spelled = calloc(cap, 2);
    s->cap = s->symbols && s->heap && s->spelled ? cap : 0;
    return s->cap != 0;
}

static bool before(struct bpe_candidate a, struct bpe_candidate b)
{
    return a.rank != b.rank ? a.rank < b.rank : a.at < b.at;
}

static void heap_push(struct bpe_candidate *heap, size_t *count, struct bpe_candidate c)
{
    size_t i = (*count)++;
    for (; i > 0 && before(c, heap[(i - 1) / 2]); i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = c;
}

static struct bpe_candidate heap_pop(struct bpe_candidate *heap, size_t *count)
{
    struct bpe_candidate top = heap[0], last = heap[--*count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < *count; i = child) {
        if (child + 1 < *count && before(heap[child + 1], heap[child]))
            child++;
        if (!before(heap[child], last))
            break;
        heap[i] = heap[child];
    }
    heap[i] = last;
    return top;
}

/* Queues the pair that starts at `at`, if it merges. */
static void offer(const struct bpe *b, struct bpe_scratch *s, size_t *count, uint32_t at)
{
    const struct bpe_symbol *left = &s->symbols[at];
    if (left->next == NONE)
        return;
    const struct merge *m = find_merge(b, left->id, s->symbols[left->next].id);
    if (m->pair != NO_PAIR)
        heap_push(s->heap, count, (struct bpe_candidate){m->rank, at, m->id});
}

static void merge_all(const struct bpe *b, struct bpe_scratch *s, size_t n)
{
    size_t count = 0;
    for (uint32_t i = 0; i + 1 < n; i++)
        offer(b, s, &count, i);
    while (count) {
        struct bpe_candidate c = heap_pop(s->heap, &count);
        struct bpe_symbol *left = &s->symbols[c.at];
        if (left->id < 0 || left->next == NONE)
            continue;
        struct bpe_symbol *right = &s->symbols[left->next];
        const struct merge *m = find_merge(b, left->id, right->id);
        if (m->pair == NO_PAIR || m->id != c.id)
            continue; /* a neighbour has changed since */
        left->id = c.id;
        left->next = right->next;
        right->id = -1;
        if (left->next != NONE)
            s->symbols[left->next].previous = c.at;
        if (left->previous != NONE)
            offer(b, s, &count, left->previous);
        offer(b, s, &count, c.at);
    }
}

/* The whole piece's id when it is a token, else -1. */
static int32_t whole(const struct bpe *b, struct bpe_scratch *s, const char *piece, size_t n)
{
    size_t length = 0;
    for (size_t i = 0; i < n; i++)
        length += spell_byte((unsigned char)piece[i], s->spelled + length);
    return bpe_id(b, s->spelled, length);
}

int bpe_encode(const struct bpe *b, struct bpe_scratch *s, const char *piece, size_t n,
               struct id_list *out, struct err *e)
{
    if (n == 0)
        return 0;
    if (n >= NONE / 4 || !reserve(s, n))
        return err_nomem(e);
    int32_t id = b->ignore_merges ? whole(b, s, piece, n) : -1;
    if (id >= 0) {
        id_list_add(out, id);
        return out->failed ? err_nomem(e) : 0;
    }
    for (uint32_t i = 0; i < n; i++)
        s->symbols[i] = (struct bpe_symbol){b->bytes[(unsigned char)piece[i]], i ? i - 1 : NONE,
                                            i + 1 < n ? i + 1 : NONE};
    s->symbols[n - 1].id = b->last_bytes[(unsigned char)piece[n - 1]];
    merge_all(b, s, n);
    for (uint32_t i = 0; i != NONE; i = s->symbols[i].next)
        id_list_add(out, s->symbols[i].id);
    return out->failed ? err_nomem(e) : 0;
}
