/* Conditions by prompt: a prompt that was drawn lately is not encoded again. Bounded by bytes; the
 * least recently used go first. Reference counted, so that a condition in use outlives eviction. */
#ifndef OMNI_PROMPT_CACHE_H
#define OMNI_PROMPT_CACHE_H

#include <stddef.h>

#include "engine/models/family.h"

struct prompt_cache;

struct prompt_cache *prompt_cache_new(size_t max_bytes); /* NULL without memory */
void prompt_cache_free(struct prompt_cache *c);
/* The condition of exactly this text (NULL is a text of its own) with one more reference, or NULL.
 */
struct condition *prompt_cache_get(struct prompt_cache *c, const char *prompt);
/* Adds a reference of its own. A failure to keep is not an error. */
void prompt_cache_put(struct prompt_cache *c, const char *prompt, struct condition *x);

/* Conditions that are put and got from now on belong to `scope`, a name for what the text encoders
 * are at present; "" at first. */
void prompt_cache_scope(struct prompt_cache *c, const char *scope);

/* An empty condition with one reference. */
struct condition *condition_new(void);
void condition_drop(struct condition *x); /* NULL is fine */
/* Arrays of the same shapes, so that both fit one pass. */
bool condition_alike(const struct condition *a, const struct condition *b);

#endif
