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
    bool distribution;      /* encode gives mean and log variance, 2·channels */
    /* Fills state, channels, factor and what else there is in `v`. */
    int (*load)(struct part *p, struct vae *v, struct err *e);
    void (*free)(void *state);
    /* Pixels [B, H, W, 3] in -1 … 1 → [B, H/factor, W/factor, channels], or twice the channels
     * where the encoder gives a distribution. */
    struct tensor *(*encode)(const void *state, struct ops *o, const struct tensor *pixels);
    /* The other way; the result is not clamped. */
    struct tensor *(*decode)(const void *state, struct ops *o, const struct tensor *latents);
};

struct vae {
    const struct vae_kind *kind;
    void *state;
    int channels;          /* of a latent */
    int factor;            /* pixels a latent position, each way */
    bool tiny;             /* cheap enough for previews */
    double scaling, shift; /* the model works on (latent - shift)·scaling; 1 and 0 where unsaid */
};

/* The error of an unknown class names it. */
int vae_load(struct part *p, struct vae *v, struct err *e);
void vae_free(struct vae *v);
/* The mean, [B, H/factor, W/factor, channels]. */
struct tensor *vae_encode(const struct vae *v, struct ops *o, const struct tensor *pixels);
/* What the encoder gives: mean and log variance [.., 2·channels] where kind->distribution, else the
 * same as vae_encode. */
struct tensor *vae_encode_moments(const struct vae *v, struct ops *o, const struct tensor *pixels);
/* Drawn from that distribution with `random` (NULL while planning), as the original pipelines draw
 * it; the same as vae_encode where there is none. */
struct random;
struct tensor *vae_encode_drawn(const struct vae *v, struct ops *o, const struct tensor *pixels,
                                struct random *random);
struct tensor *vae_decode(const struct vae *v, struct ops *o, const struct tensor *latents);

/* Cuts an AutoencoderKL's maps otherwise than usual (residual.h): to compare, not to draw. */
void autoencoder_kl_bands(struct vae *v, int64_t hold, int64_t band);

extern const struct vae_kind autoencoder_tiny, autoencoder_kl, autoencoder_kl_flux2;

#endif
