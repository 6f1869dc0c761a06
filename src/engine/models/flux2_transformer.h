/* The FLUX.2 transformer: double blocks (text and image streams with weights of their own, joined
 * in attention), then single blocks over both. Every size comes from config.json.
 * Source: huggingface/diffusers, models/transformers/transformer_flux2.py. */
#ifndef OMNI_FLUX2_TRANSFORMER_H
#define OMNI_FLUX2_TRANSFORMER_H

#include <stdint.h>

#include "base/err.h"
#include "engine/checkpoint.h"
#include "engine/ops.h"

struct flux2_transformer;

#define FLUX2_AXES 4 /* a position is (time, row, column, text index) */

int flux2_transformer_load(struct part *p, struct flux2_transformer **out, struct err *e);
void flux2_transformer_free(struct flux2_transformer *t);          /* the tensors are the part's */
int flux2_transformer_channels(const struct flux2_transformer *t); /* of an image token */
int flux2_transformer_text_width(const struct flux2_transformer *t); /* joint_attention_dim */

/* Text [B, T, text_width] → [B, T, D]; the same at every step, so made once a request. */
struct tensor *flux2_transformer_text(const struct flux2_transformer *t, struct ops *o,
                                      const struct tensor *text);
/* Rotary tables for `tokens` positions [tokens, FLUX2_AXES], text first. */
void flux2_transformer_tables(const struct flux2_transformer *t, struct ops *o,
                              const float *positions, int64_t tokens, struct tensor **cos,
                              struct tensor **sin);
/* Image tokens [B, N, channels] and text [B, T, D] at `timestep` (0 … 1000) → the prediction for
 * the first `wanted` image tokens [B, wanted, channels]; tables as above for T + N tokens, or for
 * B·(T + N) where each item has places of its own. */
struct tensor *flux2_transformer_forward(const struct flux2_transformer *t, struct ops *o,
                                         const struct tensor *image, const struct tensor *text,
                                         const struct tensor *cos, const struct tensor *sin,
                                         float timestep, int64_t wanted);

#endif
