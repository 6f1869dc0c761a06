/* UNet2DConditionModel: the denoiser of Stable Diffusion. Levels of residual blocks and attention,
 * halving on the way down, doubling on the way up, where each block also reads the map that the way
 * down left at its place.
 * Source: huggingface/diffusers, models/unets/unet_2d_condition.py. */
#ifndef OMNI_UNET_H
#define OMNI_UNET_H

#include "base/err.h"
#include "engine/checkpoint.h"
#include "engine/models/unet_config.h"
#include "engine/ops.h"

struct unet;

int unet_load(struct part *p, struct unet **out, struct err *e);
void unet_free(struct unet *u); /* the tensors are the part's */
const struct unet_config *unet_config(const struct unet *u);
int unet_text_width(const struct unet *u);

/* What is told beside the timestep, the same at every step. */
#define UNET_TIME_IDS 6
/* Pooled texts [B, …] and their UNET_TIME_IDS numbers each (on the host; may be NULL while
 * planning) → [B, 1, time_width]. */
struct tensor *unet_added(const struct unet *u, struct ops *o, const struct tensor *pooled,
                          const float *time_ids);
/* Guidances [batch] (on the host; may be NULL while planning) of a checkpoint that has guidance
 * distilled in → [B, 1, width of the finest level]. */
struct tensor *unet_guidance(const struct unet *u, struct ops *o, const float *guidance, int batch);

/* Latents x [B, h, w, in_channels] and text [B, tokens, text_width] at `timestep` → the prediction
 * [B, h, w, out_channels]; added and guidance as above, or NULL. */
struct tensor *unet_forward(const struct unet *u, struct ops *o, const struct tensor *x,
                            const struct tensor *text, float timestep, const struct tensor *added,
                            const struct tensor *guidance);

#endif
