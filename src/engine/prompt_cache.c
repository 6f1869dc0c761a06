#include "engine/prompt_cache.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"

#define MAX_ENTRIES 64

struct entry {
    char key[SHA256_HEX_SIZE]; /* of scope and text */
    struct condition *x;
    unsigned long used; /* the clock at the last use; 0: a free place */
};

struct prompt_cache {
    size_t max_bytes, bytes;
    unsigned long clock;
    char scope[SHA256_HEX_SIZE];
    struct entry entries[MAX_ENTRIES];
};

struct condition *condition_new(void)
{
    struct condition *x = calloc(1, sizeof(*x));
    if (x)
        x->references = 1;
    return x;
}

void condition_drop(struct condition *x)
{
    if (!x || --x->references > 0)
        return;
    for (int i = 0; i < x->count; i++)
        free(x->arrays[i].data);
    free(x);
}

static size_t condition_bytes(const struct condition *x)
{
    size_t n = sizeof(*x);
    for (int i = 0; i < x->count; i++)
        n += x->arrays[i].bytes;
    return n;
}

bool condition_alike(const struct condition *a, const struct condition *b)
{
    if (a->count != b->count)
        return false;
    for (int i = 0; i < a->count; i++) {
        const struct condition_array *x = &a->arrays[i], *y = &b->arrays[i];
        if (x->rank != y->rank || memcmp(x->dims, y->dims, sizeof(x->dims)) != 0)
            return false;
    }
    return true;
}

struct prompt_cache *prompt_cache_new(size_t max_bytes)
{
    struct prompt_cache *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->max_bytes = max_bytes;
    prompt_cache_scope(c, "");
    return c;
}

static void entry_clear(struct prompt_cache *c, struct entry *y)
{
    if (!y->used)
        return;
    c->bytes -= condition_bytes(y->x);
    condition_drop(y->x);
    *y = (struct entry){0};
}

void prompt_cache_free(struct prompt_cache *c)
{
    for (int i = 0; c && i < MAX_ENTRIES; i++)
        entry_clear(c, &c->entries[i]);
    free(c);
}

void prompt_cache_scope(struct prompt_cache *c, const char *scope)
{
    sha256_hex(scope, strlen(scope), c->scope);
}

static void key_of(const struct prompt_cache *c, const char *prompt, char key[SHA256_HEX_SIZE])
{
    struct sha256 *s = sha256_new();
    key[0] = '\0';
    if (!s)
        return;
    sha256_add(s, c->scope, sizeof c->scope);
    sha256_add(s, prompt ? "=" : "", prompt ? 1 : 0); /* NULL is not the empty text */
    sha256_add(s, prompt ? prompt : "", prompt ? strlen(prompt) : 0);
    sha256_end(s, key);
}

struct condition *prompt_cache_get(struct prompt_cache *c, const char *prompt)
{
    char key[SHA256_HEX_SIZE];
    key_of(c, prompt, key);
    for (int i = 0; i < MAX_ENTRIES; i++) {
        struct entry *y = &c->entries[i];
        if (!y->used || strcmp(y->key, key) != 0)
            continue;
        y->used = ++c->clock;
        y->x->references++;
        return y->x;
    }
    return NULL;
}

/* A free place, or the one that was not used for the longest time. */
static struct entry *oldest(struct prompt_cache *c)
{
    struct entry *y = &c->entries[0];
    for (int i = 1; i < MAX_ENTRIES; i++)
        if (c->entries[i].used < y->used)
            y = &c->entries[i];
    return y;
}

static struct entry *oldest_used(struct prompt_cache *c)
{
    struct entry *y = NULL;
    for (int i = 0; i < MAX_ENTRIES; i++)
        if (c->entries[i].used && (!y || c->entries[i].used < y->used))
            y = &c->entries[i];
    return y;
}

void prompt_cache_put(struct prompt_cache *c, const char *prompt, struct condition *x)
{
    size_t bytes = condition_bytes(x);
    if (bytes > c->max_bytes)
        return;
    while (c->bytes > c->max_bytes - bytes)
        entry_clear(c, oldest_used(c));
    struct entry *y = oldest(c);
    entry_clear(c, y);
    key_of(c, prompt, y->key);
    x->references++;
    y->x = x;
    y->used = ++c->clock;
    c->bytes += bytes;
}
