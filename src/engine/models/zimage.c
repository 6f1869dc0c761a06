/* Z-Image and Z-Image-Turbo: Qwen3 text encoder, S3-DiT transformer, flow matching in the latent of
 * an AutoencoderKL.
 * Source: huggingface/diffusers, pipelines/z_image/pipeline_z_image.py.
 *
 * Beyond the hub's layout, model_index.json may say max_sequence_length (512), default_steps and
 * default_guidance. A folder does not say whether it is Turbo, so its name does. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/models/family.h"
#include "engine/models/zimage_transformer.h"
#include "engine/text/chat.h"
#include "engine/text/qwen3.h"
#include "engine/vae/vae.h"

/* What pass.kept holds. */
enum { KEPT_CAPTION, KEPT_COS, KEPT_SIN };

struct zimage {
    struct chat chat;
    struct qwen3 *encoder;
    struct zimage_transformer *transformer;
    struct vae vae;
    int patch;
};

/* ---- loading ---- */

static int load_encoder(struct checkpoint *c, struct zimage *z, struct err *e)
{
    struct qwen3_taken taken = {.count = 1, .layer = {-2}};
    struct part *p;
    if (checkpoint_part(c, "text_encoder", "model", &p, e) != 0 ||
        qwen3_load(p, &taken, &z->encoder, e) != 0)
        return e->code;
    int width = qwen3_width(z->encoder), wanted = zimage_transformer_caption_width(z->transformer);
    if (width != wanted)
        return err_set(
            e, -EINVAL,
            "%s: the text encoder gives %d numbers a token, but the transformer takes %d", c->path,
            width, wanted);
    return chat_open(c, qwen3_vocabulary(z->encoder), &z->chat, e);
}

static int load_vae(struct checkpoint *c, struct zimage *z, struct err *e)
{
    struct part *p;
    if (checkpoint_part(c, "vae", "diffusion_pytorch_model", &p, e) != 0 ||
        vae_load(p, &z->vae, e) != 0)
        return e->code;
    int channels = zimage_transformer_channels(z->transformer);
    if (z->vae.channels != channels)
        return err_set(e, -EINVAL,
                       "%s: the transformer works on %d channels, but the autoencoder has %d",
                       c->path, channels, z->vae.channels);
    return 0;
}

static int read_traits(struct checkpoint *c, const struct zimage *z, struct family_traits *t,
                       struct err *e)
{
    bool turbo = strcasestr(c->path, "turbo") != NULL;
    *t = (struct family_traits){
        .variant = turbo ? "turbo" : "base",
        .modes = 1u << OMNI_TEXT_TO_IMAGE | 1u << OMNI_IMAGE_TO_IMAGE | 1u << OMNI_INPAINT,
        .size_multiple = z->vae.factor * z->patch,
        .max_frames = 1,
        .default_width = 1024,
        .default_height = 1024,
        .default_steps = (int)config_int(c->index, "default_steps", turbo ? 8 : 50, 1, 1000),
        .default_guidance = config_float(c->index, "default_guidance", turbo ? 0 : 5, 0, 1000),
        .guidance_offset = 1,
        .guided = true,
        .max_prompt_tokens = z->chat.room,
        .images = {.drawn = z->vae.kind->distribution},
    };
    return config_error(c->index, e);
}

static void zimage_free(void *state)
{
    struct zimage *z = state;
    if (!z)
        return;
    chat_close(&z->chat);
    qwen3_free(z->encoder);
    zimage_transformer_free(z->transformer);
    vae_free(&z->vae);
    free(z);
}

static int load_parts(struct checkpoint *c, struct zimage *z, struct family_traits *traits,
                      struct err *e)
{
    struct part *p;
    z->chat.thinking = true;
    z->chat.room = (int)config_int(c->index, "max_sequence_length", 512, 1, 1 << 16);
    if (config_error(c->index, e) != 0 ||
        checkpoint_part(c, "transformer", "diffusion_pytorch_model", &p, e) != 0 ||
        zimage_transformer_load(p, &z->transformer, e) != 0 || load_encoder(c, z, e) != 0 ||
        load_vae(c, z, e) != 0)
        return e->code;
    z->patch = zimage_transformer_patch(z->transformer);
    return read_traits(c, z, traits, e);
}

static int zimage_load(struct checkpoint *c, void **state, struct family_traits *traits,
                       struct err *e)
{
    struct zimage *z = calloc(1, sizeof *z);
    if (!z)
        return err_nomem(e);
    int code = load_parts(c, z, traits, e);
    if (code)
        zimage_free(z);
    else
        *state = z;
    return code;
}

/* ---- a request ---- */

static int zimage_shape(const void *state, const struct omni_request *r, struct latent_shape *out,
                        struct err *e)
{
    const struct zimage *z = state;
    (void)e;
    *out = (struct latent_shape){.frames = 1,
                                 .height = r->height / z->vae.factor,
                                 .width = r->width / z->vae.factor,
                                 .channels = z->vae.channels};
    out->tokens = (int64_t)out->height * out->width / (z->patch * z->patch) + z->chat.room;
    return 0;
}

/* The pipeline counts patches of 2x2, whatever the transformer's are. */
static double zimage_mu(const void *state, const struct schedule_config *c,
                        const struct latent_shape *l, int steps)
{
    (void)state;
    (void)steps;
    return schedule_linear_mu(c, (int64_t)(l->height / 2) * (l->width / 2));
}

/* The rows of the real tokens; those behind cannot change them. */
static int zimage_encode(const void *state, struct ops *o, const char *prompt,
                         struct tensor *out[CONDITION_ARRAYS], bool *truncated)
{
    const struct zimage *z = state;
    struct err e = {0};
    size_t room = (size_t)z->chat.room;
    AUTO_FREE int32_t *ids = calloc(room * 2, sizeof *ids);
    int count = ids ? chat_tokens(&z->chat, prompt ? prompt : "", ids, ids + room, truncated, &e)
                    : err_nomem(&e);
    if (count < 0) {
        ops_fail(o, e.code, "%s", e.text);
        return 0;
    }
    out[0] = qwen3_encode(z->encoder, o, ids, ids + room, count);
    return 1;
}

static void zimage_prepare(const void *state, struct ops *o, struct pass *pass)
{
    const struct zimage *z = state;
    if (ops_error(o, NULL) != 0)
        return;
    int64_t h = pass->latent->height / z->patch, w = pass->latent->width / z->patch;
    struct tensor **kept = pass->kept;
    zimage_transformer_tables(z->transformer, o, h, w, tensor_dim(pass->conditions[0], 1),
                              &kept[KEPT_COS], &kept[KEPT_SIN]);
    kept[KEPT_CAPTION] = zimage_transformer_caption(z->transformer, o, pass->conditions[0],
                                                    kept[KEPT_COS], kept[KEPT_SIN]);
}

/* The model counts time from noise to picture, and predicts the velocity with the other sign. */
static struct tensor *zimage_predict(const void *state, struct ops *o, const struct pass *pass,
                                     const struct tensor *x, float timestep)
{
    const struct zimage *z = state;
    const struct latent_shape *l = pass->latent;
    ops_mark mark = ops_push(o);
    x = op_reshape(o, x, SHAPE(pass->batch, l->height, l->width, l->channels));
    struct tensor *y = zimage_transformer_forward(z->transformer, o, x, pass->kept[KEPT_CAPTION],
                                                  pass->kept[KEPT_COS], pass->kept[KEPT_SIN],
                                                  (1000 - timestep) / 1000);
    y = ops_pop_keep(o, mark, op_affine(o, y, -1, 0));
    return op_reshape(o, y, SHAPE(pass->batch, 1, l->height, l->width, l->channels));
}

static struct tensor *zimage_read_image(const void *state, struct ops *o,
                                        const struct tensor *pixels, struct random *random)
{
    const struct zimage *z = state;
    if (ops_error(o, NULL) != 0)
        return NULL;
    ops_mark mark = ops_push(o);
    struct tensor *x = vae_encode_drawn(&z->vae, o, pixels, random);
    x = op_affine(o, x, (float)z->vae.scaling, (float)(-z->vae.shift * z->vae.scaling));
    x = ops_pop_keep(o, mark, x);
    return op_reshape(o, x, SHAPE(1, 1, tensor_dim(x, 1), tensor_dim(x, 2), z->vae.channels));
}

static struct tensor *zimage_decode(const void *state, struct ops *o, const struct tensor *latent)
{
    const struct zimage *z = state;
    if (ops_error(o, NULL) != 0)
        return NULL;
    ops_mark mark = ops_push(o);
    latent = op_reshape(o, latent,
                        SHAPE(1, tensor_dim(latent, 2), tensor_dim(latent, 3), z->vae.channels));
    latent = op_affine(o, latent, (float)(1 / z->vae.scaling), (float)z->vae.shift);
    return ops_pop_keep(o, mark, vae_decode(&z->vae, o, latent));
}

static const char *const classes[] = {"ZImagePipeline", "ZImageImg2ImgPipeline",
                                      "ZImageInpaintPipeline", NULL};

const struct family family_zimage = {
    .name = "z-image",
    .what = "Z-Image",
    .classes = classes,
    .load = zimage_load,
    .free = zimage_free,
    .shape = zimage_shape,
    .mu = zimage_mu,
    .encode = zimage_encode,
    .prepare = zimage_prepare,
    .predict = zimage_predict,
    .read_image = zimage_read_image,
    .decode = zimage_decode,
};
