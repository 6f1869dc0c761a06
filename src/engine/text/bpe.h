/* Byte-level byte-pair encoding: a vocabulary, and merges applied lowest rank first.
 *
 * The vocabulary spells bytes as printable characters (GPT-2's table). Which merge comes next, with
 * ties to the left and outdated candidates dropped, follows tokenizers/src/models/bpe/word.rs. */
#ifndef OMNI_BPE_H
#define OMNI_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* A growing list of ids with a sticky flag for lack of memory. */
struct id_list {
    int32_t *data;
    size_t count, cap;
    bool failed;
};
void id_list_add(struct id_list *l, int32_t id);

struct bpe;

/* For at most so many tokens and merges. `ignore_merges`: a piece that is a token is that token,
 * whatever the merges would make of it. */
struct bpe *bpe_new(size_t tokens, size_t merges, bool ignore_merges);
void bpe_free(struct bpe *b);
/* Before the rest: the last byte of every word is spelled with this behind ("</w>"; "" for none).
 */
int bpe_end_of_word(struct bpe *b, const char *suffix, struct err *e);
/* Add all tokens, then all merges in the order of their rank, then finish. -EINVAL for a merge that
 * is not made of tokens, and for a vocabulary in which a byte has no token. */
int bpe_add_token(struct bpe *b, const char *text, size_t n, int32_t id, struct err *e);
int bpe_add_merge(struct bpe *b, const char *left, size_t left_n, const char *right, size_t right_n,
                  struct err *e);
int bpe_finish(struct bpe *b, struct err *e);

/* The id of a token as the vocabulary spells it, -1 when unknown; the largest id. */
int32_t bpe_id(const struct bpe *b, const char *text, size_t n);
int32_t bpe_last_id(const struct bpe *b);

/* Working memory, kept between pieces; zero-initialise. */
struct bpe_scratch {
    struct bpe_symbol *symbols;
    struct bpe_candidate *heap;
    char *spelled;
    size_t cap;
};
void bpe_scratch_free(struct bpe_scratch *s);
/* Appends the ids of one piece of raw bytes. */
int bpe_encode(const struct bpe *b, struct bpe_scratch *s, const char *piece, size_t n,
               struct id_list *out, struct err *e);

#endif
