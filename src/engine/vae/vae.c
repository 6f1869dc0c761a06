#include "engine/vae/vae.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/random.h"

static const struct vae_kind *const kinds[] = {&autoencoder_tiny, &autoencoder_kl,
                                               &autoencoder_kl_flux2};

int vae_load(struct part *p, struct vae *v, struct err *e)
{
    *v = (struct vae){.scaling = 1};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (strcmp(kinds[i]->class_name, p->class_name) == 0)
            v->kind = kinds[i];
    if (!v->kind)
        return err_set(e, -EINVAL, "%s: the autoencoder class '%s' is not known",
                       config_path(p->config), p->class_name);
    int rc = v->kind->load(p, v, e);
    if (rc != 0)
        vae_free(v);
    return rc;
}

void vae_free(struct vae *v)
{
    if (v->kind)
        v->kind->free(v->state);
    *v = (struct vae){0};
}

struct tensor *vae_encode(const struct vae *v, struct ops *o, const struct tensor *pixels)
{
    struct tensor *z = v->kind->encode(v->state, o, pixels);
    return v->kind->distribution ? op_slice(o, z, -1, 0, v->channels) : z;
}

struct tensor *vae_encode_moments(const struct vae *v, struct ops *o, const struct tensor *pixels)
{
    return v->kind->encode(v->state, o, pixels);
}

/* moments [positions, 2·channels] and noise [channels, positions] → sample [positions, channels] */
static void draw(const float *moments, const float *noise, size_t positions, size_t channels,
                 float *sample)
{
    for (size_t i = 0; i < positions; i++)
        for (size_t c = 0; c < channels; c++) {
            float variance = fminf(fmaxf(moments[i * 2 * channels + channels + c], -30), 20);
            sample[i * channels + c] =
                moments[i * 2 * channels + c] + expf(0.5f * variance) * noise[c * positions + i];
        }
}

struct tensor *vae_encode_drawn(const struct vae *v, struct ops *o, const struct tensor *pixels,
                                struct random *random)
{
    struct tensor *moments = v->kind->encode(v->state, o, pixels);
    if (!v->kind->distribution || ops_error(o, NULL) != 0)
        return moments;
    int64_t h = tensor_dim(moments, 1), w = tensor_dim(moments, 2);
    size_t channels = (size_t)v->channels, positions = (size_t)(h * w), n = positions * channels;
    AUTO_FREE float *host = NULL;
    if (!ops_planning(o)) {
        host = calloc(4 * n, sizeof(*host));
        if (!host) {
            ops_fail(o, -ENOMEM, "not enough memory for the latent of a picture");
            return NULL;
        }
        random_normal(random, host + 2 * n, n);
    }
    op_to_host(o, moments, host, 2 * n * sizeof(*host));
    if (host)
        draw(host, host + 2 * n, positions, channels, host + 3 * n);
    return op_from_host(o, DTYPE_F32, SHAPE(1, h, w, v->channels), host ? host + 3 * n : NULL);
}

struct tensor *vae_decode(const struct vae *v, struct ops *o, const struct tensor *latents)
{
    return v->kind->decode(v->state, o, latents);
}
