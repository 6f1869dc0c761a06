/* Autoencoders: pixels ↔ latents. One kind a file, found by the class name in config.json. */
#ifndef OMNI_VAE_H
#define OMNI_VAE_H

#include <stdbool.h>

#include "base/err.h"
#include "engine/checkpoint.h"
#include "engine/ops.h"

struct vae;

struct vae_kind {
    const char *class_name; /* "AutoencoderTiny" */
    /* Fills state, channels, factor and what else there is in `v`. */
    int (*load)(struct part *p, struct vae *v, struct err *e);
    void (*free)(void *state);
    /* Pixels [B, H, W, 3] in -1 … 1 → latents [B, H/factor, W/factor, channels] (the mean, where
     * the encoder gives a distribution). */
    struct tensor *(*encode)(const void *state, struct ops *o, const struct tensor *pixels);
    /* The other way; the result is not clamped. */
    struct tensor *(*decode)(const void *state, struct ops *o, const struct tensor *latents);
};

struct vae {
    const struct vae_kind *kind;
    void *state;
    int channels; /* of a latent */
    int factor;   /* pixels a latent position, each way */
    bool tiny;    /* cheap enough for previews */
};

/* The error of an unknown class names it. */
int vae_load(struct part *p, struct vae *v, struct err *e);
void vae_free(struct vae *v);
struct tensor *vae_encode(const struct vae *v, struct ops *o, const struct tensor *pixels);
struct tensor *vae_decode(const struct vae *v, struct ops *o, const struct tensor *latents);

extern const struct vae_kind autoencoder_tiny;

#endif
