/* Reading large JSON in place, without a tree: a vocabulary of 150,000 entries would otherwise cost
 * a third of a second and 100 MB at every start.
 *
 * A span is a piece of JSON text that is consumed from the left. Functions return false where the
 * text is not what they read; nothing beyond `end` is ever looked at. */
#ifndef OMNI_JSON_SPAN_H
#define OMNI_JSON_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

struct json_span {
    const char *at, *end;
};

/* Blanks, then this character. */
bool json_take(struct json_span *s, char c);
/* Blanks, then a string. *text (n bytes) lies in the span, or in `buffer` when it had escapes; it
 * is good until the buffer's next use. No NUL character comes out. */
bool json_take_string(struct json_span *s, struct str *buffer, const char **text, size_t *n);
/* Blanks, then a whole number without fraction or exponent. */
bool json_take_integer(struct json_span *s, int64_t *out);
/* Blanks, then any value; brackets are only counted: whoever uses the value reads it properly. */
bool json_skip(struct json_span *s);
/* The value of a member of the object at the start of `object`. */
bool json_find(struct json_span object, const char *key, struct json_span *value);
/* How many elements or members an array or object has, as far as it is well-formed. */
size_t json_count(struct json_span s);

#endif
