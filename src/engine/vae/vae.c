#include "engine/vae/vae.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

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

struct tensor *vae_decode(const struct vae *v, struct ops *o, const struct tensor *latents)
{
    return v->kind->decode(v->state, o, latents);
}
