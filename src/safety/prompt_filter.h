/* The prompt filter: words and patterns that may not be drawn, by level.
 *
 * Rules are data files (share/safety/): one rule a line, `id: words` or `id: /pattern/`. The text
 * is first brought to one form (case folded, NFKC, no accents or invisible characters, and a second
 * reading with digits read as the letters they stand for), so that writing a word differently does
 * not hide it. Words match at word boundaries only. A filter is immutable and thread-safe. */
#ifndef OMNIFS_SAFETY_PROMPT_FILTER_H
#define OMNIFS_SAFETY_PROMPT_FILTER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

enum safety_level { SAFETY_OFF, SAFETY_STANDARD, SAFETY_STRICT, SAFETY_LEVELS };
extern const char *const safety_level_names[SAFETY_LEVELS + 1];   /* "off", "standard", "strict" */
int safety_level_parse(const char *word, enum safety_level *out); /* -EINVAL */

#define SAFETY_RULE_SIZE 64

struct safety_verdict {
    enum safety_level level;
    bool blocked;
    char rule[SAFETY_RULE_SIZE]; /* id of the rule that blocked */
};

struct prompt_filter;

int prompt_filter_new(struct prompt_filter **out, struct err *e);
/* Adds the rules of a text (`where` for messages). They hold at `level` and at stricter ones. */
int prompt_filter_add(struct prompt_filter *f, const char *text, size_t size, const char *where,
                      enum safety_level level, struct err *e);
/* The same from a file. */
int prompt_filter_add_file(struct prompt_filter *f, const char *path, enum safety_level level,
                           struct err *e);
void prompt_filter_free(struct prompt_filter *f);

/* Judges a text at a level. A text that cannot be judged (memory, a pattern over its limits) is
 * blocked with the rule "filter-error": the filter fails closed. */
void prompt_filter_check(const struct prompt_filter *f, const char *text, enum safety_level level,
                         struct safety_verdict *out);

#endif
