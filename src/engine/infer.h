/* Configs that a single file does not have: what config.json of a part would say, read from the
 * shapes of its tensors (in the names of the hub's layout), and where shapes do not tell, what all
 * published checkpoints of the kind have. */
#ifndef OMNI_INFER_H
#define OMNI_INFER_H

#include "base/err.h"
#include "engine/config.h"
#include "engine/weights/weights.h"

/* -EINVAL names the first tensor that is missing. */
typedef int infer_config(const struct weights *w, struct config **out, struct err *e);

infer_config infer_flux2, infer_zimage, infer_vae_sd, infer_vae_sdxl, infer_clip,
    infer_clip_projected;
/* Trained on pictures of 512, 768 and 1024 pixels a side. */
infer_config infer_unet, infer_unet_768, infer_unet_xl;
/* Stable Diffusion 2 reads its encoder's last but one layer: the last is left out. */
infer_config infer_clip_penultimate;

#endif
