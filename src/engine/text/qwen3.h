/* Qwen3 as a text encoder: the decoder-only language model, run up to the last layer whose output
 * is wanted. Source: huggingface/transformers, models/qwen3/modeling_qwen3.py. */
#ifndef OMNI_QWEN3_H
#define OMNI_QWEN3_H

#include <stdint.h>

#include "base/err.h"
#include "engine/checkpoint.h"
#include "engine/ops.h"

struct qwen3;

#define QWEN3_MAX_TAKEN 8

/* Which hidden states to return, in this order: 0 the embeddings, k the output of layer k - 1, the
 * number of layers: after the final norm. Negative numbers count from the end, as in Python. */
struct qwen3_taken {
    int count;
    int layer[QWEN3_MAX_TAKEN];
};

/* Loads from config.json and tensors, with or without the prefix `model.`; only the layers that
 * `taken` needs. `taken` is made non-negative. */
int qwen3_load(struct part *p, struct qwen3_taken *taken, struct qwen3 **out, struct err *e);
void qwen3_free(struct qwen3 *q);       /* the tensors are the part's */
int qwen3_width(const struct qwen3 *q); /* of one hidden state */
int qwen3_vocabulary(const struct qwen3 *q);
/* Token ids and mask (1: a real token, 0: padding, hidden as a key) → [1, tokens, count·width]. */
struct tensor *qwen3_encode(const struct qwen3 *q, struct ops *o, const int32_t *ids,
                            const int32_t *mask, int tokens);

#endif
