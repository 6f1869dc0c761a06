/* The namings of published single files, as tables of rename.h; each is in a file of its own. */
#ifndef OMNI_NAMING_H
#define OMNI_NAMING_H

#include "engine/weights/rename.h"

/* Rules. */
#define NAMED(a, b)                                                                                \
    {                                                                                              \
        .from = a, .to = b                                                                         \
    }
#define CHANGED(a, b, how)                                                                         \
    {                                                                                              \
        .from = a, .to = b, .change = RENAME_##how                                                 \
    }
#define THIRD(a, b, n)                                                                             \
    {                                                                                              \
        .from = a, .to = b, .change = RENAME_THIRD, .third = n                                     \
    }
#define WITHIN(a, b, table)                                                                        \
    {                                                                                              \
        .from = a, .to = b, .tail = table                                                          \
    }
#define DROPPED(a)                                                                                 \
    {                                                                                              \
        .from = a, .change = RENAME_DROP                                                           \
    }

/* FLUX.2's transformer as black-forest-labs/flux2 names it. */
extern const struct rename_rule naming_flux2[];
/* Z-Image's transformer as Tongyi-MAI/Z-Image and ComfyUI name it. */
extern const struct rename_rule naming_zimage[];
/* Stable Diffusion 1.5 and SDXL as CompVis/stable-diffusion and Stability-AI/generative-models name
 * them: what follows model.diffusion_model., first_stage_model. and the text encoder's prefix. */
extern const struct rename_rule naming_ldm_unet[], naming_ldm_vae[];
/* Of small relatives: one layer a block; fewer levels than four, which are counted from the end. */
extern const struct rename_rule naming_ldm_unet_1[];
extern const struct rename_rule naming_ldm_vae_1[], naming_ldm_vae_2[], naming_ldm_vae_3[];
extern const struct rename_rule naming_clip[];      /* huggingface/transformers inside */
extern const struct rename_rule naming_open_clip[]; /* mlfoundations/open_clip inside */

#endif
