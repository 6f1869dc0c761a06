/* Pre-tokenizers: cut a text into pieces at the matches of a regular expression.
 *
 * Patterns are written for Oniguruma and run by PCRE2. The subset in which both mean the same is
 * accepted, `\s` is spelled out as White_Space, anything else is refused rather than misread. */
#ifndef OMNI_SPLIT_H
#define OMNI_SPLIT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct split;
struct split_run; /* working memory of one caller */

/* `literal`: the pattern is a plain text. -EINVAL, -ENOTSUP with what is wrong and where. */
int split_new(const char *pattern, size_t n, bool literal, struct split **out, struct err *e);
void split_free(struct split *s);
struct split_run *split_run_new(void);
void split_run_free(struct split_run *r);

/* The next match in text[from, n), valid UTF-8. 1, 0 for none, or -EINVAL when the pattern needs
 * more work on this text than is allowed. */
int split_find(const struct split *s, struct split_run *r, const char *text, size_t n, size_t from,
               size_t *start, size_t *end, struct err *e);

#endif
