/* The Z-Image transformer (S3-DiT): image patches and caption rows, each refined alone, then one
 * sequence through the same kind of block. Every size comes from config.json.
 * Source: huggingface/diffusers, models/transformers/transformer_z_image.py. */
#ifndef OMNI_ZIMAGE_TRANSFORMER_H
#define OMNI_ZIMAGE_TRANSFORMER_H

#include "base/err.h"
#include "engine/checkpoint.h"
#include "engine/ops.h"

struct zimage_transformer;

int zimage_transformer_load(struct part *p, struct zimage_transformer **out, struct err *e);
void zimage_transformer_free(struct zimage_transformer *t); /* the tensors are the part's */
int zimage_transformer_channels(const struct zimage_transformer *t); /* of a latent */
int zimage_transformer_patch(
    const struct zimage_transformer *t); /* latent positions a token, each way */
int zimage_transformer_caption_width(const struct zimage_transformer *t);

/* Rotary tables [image + caption tokens, head/2], both padded, for latents of h x w tokens and a
 * caption of `rows`. */
void zimage_transformer_tables(const struct zimage_transformer *t, struct ops *o, int64_t h,
                               int64_t w, int64_t rows, struct tensor **cos, struct tensor **sin);
/* Caption [B, rows, caption_width] → refined [B, padded rows, D]; the same at every step. */
struct tensor *zimage_transformer_caption(const struct zimage_transformer *t, struct ops *o,
                                          const struct tensor *caption, const struct tensor *cos,
                                          const struct tensor *sin);
/* Latents x [B, H, W, channels] and a refined caption at `time` (0 noise … 1 clean) → the model's
 * output, same shape as x: the negated velocity. */
struct tensor *zimage_transformer_forward(const struct zimage_transformer *t, struct ops *o,
                                          const struct tensor *x, const struct tensor *caption,
                                          const struct tensor *cos, const struct tensor *sin,
                                          float time);

#endif
