/* What a UNet2DConditionModel is built of: residual blocks that read the time embedding, and
 * attention over picture and text. Feature maps are [B, H, W, C].
 * Sources: huggingface/diffusers, models/resnet.py, transformers/transformer_2d.py, attention.py.
 */
#ifndef OMNI_UNET_BLOCKS_H
#define OMNI_UNET_BLOCKS_H

#include "engine/models/unet_config.h"
#include "engine/ops.h"
#include "engine/weights/weights.h"

/* The weight and bias of a norm, a matrix or a filter. */
struct unet_pair {
    struct tensor *w, *b; /* NULL w: not there */
};
/* `at`.`name`.weight with these dims and .bias with the first of them. */
struct unet_pair unet_pair(struct weight_loader *l, int rank, const int64_t *dims, const char *at,
                           const char *name);

/* What is the same for all blocks of one call. */
struct unet_call {
    struct ops *o;
    const struct unet_config *config;
    struct tensor *time;       /* [B|1, 1, time_width], after SiLU */
    const struct tensor *text; /* [B, tokens, text_width] */
};

struct unet_resnet {
    int out;
    struct unet_pair norm1, conv1, time, norm2, conv2;
    struct unet_pair shortcut; /* where the width changes */
};
void unet_resnet_load(struct weight_loader *l, const struct unet_config *c, struct unet_resnet *r,
                      int in, int out, const char *at);
struct tensor *unet_resnet_run(const struct unet_call *c, const struct unet_resnet *r,
                               const struct tensor *x);
/* Group norm, SiLU and a 3x3 filter. */
struct tensor *unet_norm_conv(const struct unet_call *c, const struct unet_pair *norm,
                              const struct unet_pair *conv, const struct tensor *x);

struct unet_transformer_block;
struct unet_transformer {
    int width, heads, count;
    struct unet_pair norm, in, out;
    struct unet_transformer_block *blocks; /* [count] */
};
void unet_transformer_load(struct weight_loader *l, const struct unet_config *c,
                           struct unet_transformer *t, const struct unet_level_config *level,
                           int count, const char *at);
void unet_transformer_free(struct unet_transformer *t);
/* In place. */
void unet_transformer_run(const struct unet_call *c, const struct unet_transformer *t,
                          struct tensor *x);

#endif
