/* CLIP's text model as a text encoder: a causal transformer over a fixed number of positions.
 * Source: huggingface/transformers, models/clip/modeling_clip.py. */
#ifndef OMNI_CLIP_H
#define OMNI_CLIP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/checkpoint.h"
#include "engine/ops.h"

struct clip_text;

/* Loads from config.json and tensors, with or without the prefix `text_model.`; also the projection
 * of the pooled vector, text_projection.weight, where the file has one. */
int clip_text_load(struct part *p, struct clip_text **out, struct err *e);
void clip_text_free(struct clip_text *c);       /* the tensors are the part's */
int clip_text_width(const struct clip_text *c); /* of a hidden state */
int clip_text_vocabulary(const struct clip_text *c);
int clip_text_positions(const struct clip_text *c);  /* most tokens of a text */
int clip_text_projection(const struct clip_text *c); /* width of the pooled vector; 0: none */

/* What to return; each may be NULL. */
struct clip_states {
    struct tensor *penultimate; /* [1, tokens, width]: before the last layer, without any norm */
    struct tensor *last;        /* [1, tokens, width]: after the last layer and the final norm */
    struct tensor *pooled;      /* [1, projection]: the end token's row of `last`, projected */
};
enum { CLIP_PENULTIMATE = 1, CLIP_LAST = 2, CLIP_POOLED = 4 };
/* Runs `tokens` ids, no padding hidden, and fills what `wanted` (bits) asks for. */
void clip_text_encode(const struct clip_text *c, struct ops *o, const int32_t *ids, int tokens,
                      unsigned wanted, struct clip_states *out);

#endif
