/* Added tokens: texts like <|im_end|> that are cut out before anything else looks at a prompt. */
#ifndef OMNI_ADDED_H
#define OMNI_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct added_token {
    char *text; /* owned */
    size_t length;
    int32_t id;
    bool lstrip, rstrip; /* the white space before, after it belongs to it */
};

struct added_set {
    struct added_token *tokens; /* sorted by text after added_sort */
    size_t count, cap;
};

/* Zero-initialise; add all, sort once, then find. Text is not empty. */
int added_add(struct added_set *s, const char *text, size_t n, struct added_token like,
              struct err *e);
void added_sort(struct added_set *s);
void added_free(struct added_set *s);
/* The id of exactly this text, -1 when it is none. */
int32_t added_id(const struct added_set *s, const char *text, size_t n);

struct added_match {
    size_t start, end; /* with stripped white space */
    size_t next;       /* where to look for the next match */
    int32_t id;
};
/* The leftmost, there the longest, token in text[from, n). `floor` is the end of the match before:
 * white space up to there is taken already. */
bool added_find(const struct added_set *s, const char *text, size_t n, size_t from, size_t floor,
                struct added_match *out);

#endif
