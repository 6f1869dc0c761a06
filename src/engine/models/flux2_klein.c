/* FLUX.2 [klein]: Qwen3 text encoder, FLUX.2 transformer, flow matching in a latent of packed 2x2
 * positions that is normalised per channel.
 * Source: huggingface/diffusers, pipelines/flux2/pipeline_flux2_klein.py.
 *
 * Beyond the hub's layout, model_index.json may say text_encoder_out_layers (which hidden states;
 * 9, 18, 27), max_sequence_length (512), max_frames (a checkpoint's bound; 1 for pictures only),
 * image_conditioning ("reference": the model was trained to read pictures beside the drawing, or
 * "strength"), default_steps, default_guidance and default_size.
 *
 * A clip of F frames is F grids of tokens with time 0 … F-1 that attend to each other; its noise is
 * drawn frame after frame, so the first frame starts from the noise of the picture of that seed.
 * A checkpoint that was trained otherwise says so in model_index.json: frame_attention ("joint", or
 * "own": each frame sees itself and the text), motion_period (a loop's F frames have the times 0,
 * P/F, 2P/F …), frame_noise ("each", or "same": all frames start from that of the first),
 * first_frame (of image_to_video: "keep", or "reference": the picture is read beside each frame)
 * and reference_time (of the first picture that is read beside the drawing; 10). */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/models/family.h"
#include "engine/models/flux2_pass.h"
#include "engine/schedule/schedule.h"
#include "engine/text/chat.h"
#include "engine/text/qwen3.h"
#include "engine/vae/vae.h"

#define PACK 2 /* latent positions a token, each way */

#define REFERENCE_TIME 10 /* of FLUX.2 itself */

struct klein {
    struct chat chat;
    struct flux2_layout layout;
    struct qwen3 *encoder;
    struct flux2_transformer *transformer;
    struct vae vae;
    bool distilled;
    int channels;   /* of a token: PACK² times the autoencoder's */
    float *scale;   /* [channels]: latents are stored as (z - offset) / scale */
    float *offset;  /* [channels] */
    float *inverse; /* [channels]: 1 / scale */
};

/* ---- loading ---- */

static int load_encoder(struct checkpoint *c, struct klein *k, struct err *e)
{
    static const int usual[] = {9, 18, 27};
    struct qwen3_taken taken = {.count = ARRAY_LEN(usual)};
    memcpy(taken.layer, usual, sizeof(usual));
    int asked = config_length(c->index, "text_encoder_out_layers");
    if (asked >= 0) {
        if (asked < 1 || asked > QWEN3_MAX_TAKEN)
            return err_set(e, -EINVAL,
                           "%s: text_encoder_out_layers has %d entries, expected 1 to %d",
                           config_path(c->index), asked, QWEN3_MAX_TAKEN);
        taken.count = asked;
        for (int i = 0; i < asked; i++)
            taken.layer[i] =
                (int)config_int_at(c->index, "text_encoder_out_layers", i, -4096, 4096);
    }
    k->layout.text = k->chat.room =
        (int)config_int(c->index, "max_sequence_length", 512, 1, 1 << 16);
    struct part *p;
    if (config_error(c->index, e) != 0 || checkpoint_part(c, "text_encoder", "model", &p, e) != 0 ||
        qwen3_load(p, &taken, &k->encoder, e) != 0)
        return e->code;
    int width = qwen3_width(k->encoder) * taken.count;
    if (width != flux2_transformer_text_width(k->transformer))
        return err_set(e, -EINVAL,
                       "%s: the text encoder gives %d numbers a token (%d hidden states of "
                       "%d), but the transformer takes %d",
                       c->path, width, taken.count, qwen3_width(k->encoder),
                       flux2_transformer_text_width(k->transformer));
    return 0;
}

static bool vector_there(struct part *p, const char *name, int n)
{
    const struct weights_entry *t = weights_find(p->weights, name);
    return t && t->rank == 1 && t->dims[0] == n;
}

/* Statistics of the packed latent, from the autoencoder's batch norm; without them, none. */
static int load_statistics(struct klein *k, struct part *p, struct err *e)
{
    int n = k->channels;
    double eps = config_float(p->config, "batch_norm_eps", 1e-4, 0, 1);
    k->scale = calloc((size_t)n, sizeof(float));
    k->offset = calloc((size_t)n, sizeof(float));
    k->inverse = calloc((size_t)n, sizeof(float));
    if (!k->scale || !k->offset || !k->inverse)
        return err_nomem(e);
    if (config_error(p->config, e) != 0)
        return e->code;
    bool there =
        weights_find(p->weights, "bn.running_mean") || weights_find(p->weights, "bn.running_var");
    if (there && (!vector_there(p, "bn.running_mean", n) || !vector_there(p, "bn.running_var", n)))
        return err_set(e, -EINVAL,
                       "%s: bn.running_mean and bn.running_var must both be there with %d "
                       "numbers",
                       weights_path(p->weights), n);
    struct weight_loader *l = &p->loader;
    if (there && (weight_to_f32(l, k->offset, n, "bn.running_mean") != 0 ||
                  weight_to_f32(l, k->scale, n, "bn.running_var") != 0))
        return err_set(e, l->err.code, "%s", l->err.text);
    for (int i = 0; i < n; i++) {
        k->scale[i] = there ? (float)sqrt((double)k->scale[i] + eps) : 1;
        k->inverse[i] = 1 / k->scale[i];
    }
    return 0;
}

static int load_vae(struct checkpoint *c, struct klein *k, struct err *e)
{
    struct part *p;
    if (checkpoint_part(c, "vae", "diffusion_pytorch_model", &p, e) != 0 ||
        vae_load(p, &k->vae, e) != 0)
        return e->code;
    k->channels = k->vae.channels * PACK * PACK;
    int tokens = flux2_transformer_channels(k->transformer);
    if (k->channels != tokens)
        return err_set(e, -EINVAL,
                       "%s: the transformer works on %d channels, but the autoencoder's %d "
                       "packed 2x2 make %d",
                       c->path, tokens, k->vae.channels, k->channels);
    return load_statistics(k, p, e);
}

/* Does model_index.json say `other` under `key`, which may be that or `usual`? */
static bool says(struct config *index, const char *key, const char *usual, const char *other,
                 struct err *e)
{
    const char *word = config_string(index, key, usual);
    if (!word || strcmp(word, usual) == 0)
        return false;
    if (strcmp(word, other) != 0 && !e->code)
        err_set(e, -EINVAL, "%s: %s is '%s', expected \"%s\" or \"%s\"", config_path(index), key,
                word, usual, other);
    return true;
}

/* How the checkpoint was trained to draw clips. */
static void read_layout(struct config *index, struct klein *k, struct err *e)
{
    k->layout.own_frames = says(index, "frame_attention", "joint", "own", e);
    k->layout.motion_period = (int)config_int(index, "motion_period", 0, 0, 1 << 16);
    k->layout.reference_time =
        (int)config_int(index, "reference_time", REFERENCE_TIME, -(1 << 16), 1 << 16);
}

static int read_traits(struct checkpoint *c, struct klein *k, struct family_traits *t,
                       struct err *e)
{
    struct config *index = c->index;
    read_layout(index, k, e);
    int multiple = k->vae.factor * PACK;
    bool size = config_length(index, "default_size") == 2;
    *t = (struct family_traits){
        .variant = k->distilled ? "distilled" : "base",
        .modes = 1u << OMNI_TEXT_TO_IMAGE | 1u << OMNI_TEXT_TO_VIDEO | 1u << OMNI_IMAGE_TO_IMAGE |
                 1u << OMNI_INPAINT | 1u << OMNI_IMAGE_TO_VIDEO,
        .size_multiple = multiple,
        .max_frames = (int)config_int(index, "max_frames", 1024, 1, 1024),
        .default_width =
            size ? (int)config_int_at(index, "default_size", 0, 1, 16384) : 64 * multiple,
        .default_height =
            size ? (int)config_int_at(index, "default_size", 1, 1, 16384) : 64 * multiple,
        .default_steps = (int)config_int(index, "default_steps", k->distilled ? 4 : 50, 1, 1000),
        .default_guidance = config_float(index, "default_guidance", k->distilled ? 1 : 4, 0, 1000),
        .guided = !k->distilled,
        .max_prompt_tokens = k->chat.room,
        .same_noise = says(index, "frame_noise", "each", "same", e),
        .own_times = k->layout.own_frames || k->layout.motion_period > 0,
        .images = {.references = !says(index, "image_conditioning", "reference", "strength", e),
                   .first_frame = says(index, "first_frame", "keep", "reference", e),
                   .smooth_mask = true},
    };
    return e->code ? e->code : config_error(index, e);
}

static void klein_free(void *state)
{
    struct klein *k = state;
    if (!k)
        return;
    chat_close(&k->chat);
    qwen3_free(k->encoder);
    flux2_transformer_free(k->transformer);
    vae_free(&k->vae);
    free(k->scale);
    free(k->offset);
    free(k->inverse);
    free(k);
}

static int load_parts(struct checkpoint *c, struct klein *k, struct family_traits *traits,
                      struct err *e)
{
    struct part *p;
    k->distilled = config_bool(c->index, "is_distilled", false);
    if (checkpoint_part(c, "transformer", "diffusion_pytorch_model", &p, e) != 0 ||
        flux2_transformer_load(p, &k->transformer, e) != 0 || load_encoder(c, k, e) != 0 ||
        chat_open(c, qwen3_vocabulary(k->encoder), &k->chat, e) != 0 || load_vae(c, k, e) != 0)
        return e->code;
    return read_traits(c, k, traits, e);
}

static int klein_load(struct checkpoint *c, void **state, struct family_traits *traits,
                      struct err *e)
{
    struct klein *k = calloc(1, sizeof(*k));
    if (!k)
        return err_nomem(e);
    int rc = load_parts(c, k, traits, e);
    if (rc != 0) {
        klein_free(k);
        return rc;
    }
    *state = k;
    return 0;
}

/* ---- a request ---- */

static int klein_shape(const void *state, const struct omni_request *r, struct latent_shape *out,
                       struct err *e)
{
    const struct klein *k = state;
    int multiple = k->vae.factor * PACK;
    (void)e;
    *out = (struct latent_shape){.frames = r->frames,
                                 .height = r->height / multiple,
                                 .width = r->width / multiple,
                                 .channels = k->channels,
                                 .frame_major = true};
    int sequences = k->layout.own_frames ? r->frames : 1;
    out->tokens =
        (int64_t)out->frames * out->height * out->width + (int64_t)sequences * k->chat.room;
    return 0;
}

static double klein_mu(const void *state, const struct schedule_config *c,
                       const struct latent_shape *l, int steps)
{
    const struct klein *k = state;
    int64_t frames = k->layout.own_frames ? 1 : l->frames;
    (void)c;
    return flux2_empirical_mu(frames * l->height * l->width, steps);
}

static int klein_encode(const void *state, struct ops *o, const char *prompt,
                        struct tensor *out[CONDITION_ARRAYS], bool *truncated)
{
    const struct klein *k = state;
    struct err e = {0};
    AUTO_FREE int32_t *ids = calloc((size_t)k->chat.room * 2, sizeof(*ids));
    int32_t *mask = ids ? ids + k->chat.room : NULL;
    if (!ids)
        err_nomem(&e);
    else
        chat_tokens(&k->chat, prompt ? prompt : "", ids, mask, truncated, &e);
    if (e.code) {
        ops_fail(o, e.code, "%s", e.text);
        return 0;
    }
    out[0] = qwen3_encode(k->encoder, o, ids, mask, k->chat.room);
    return 1;
}

/* ---- a pass ---- */

static void klein_prepare(const void *state, struct ops *o, struct pass *pass)
{
    const struct klein *k = state;
    flux2_pass_prepare(k->transformer, &k->layout, o, pass);
}

static struct tensor *klein_predict(const void *state, struct ops *o, const struct pass *pass,
                                    const struct tensor *x, float timestep)
{
    const struct klein *k = state;
    return flux2_pass_predict(k->transformer, &k->layout, o, pass, x, timestep);
}

/* ---- pixels ---- */

/* Packed [1, h, w, C·4], channel c·4 + dy·2 + dx → [1, 2h, 2w, C]. */
static struct tensor *unpack(struct ops *o, const struct tensor *x, int64_t h, int64_t w, int64_t c)
{
    static const int axes[5] = {0, 3, 1, 4, 2};
    struct tensor *y = op_reshape(o, x, SHAPE(h, w, c, PACK, PACK));
    return op_reshape(o, op_permute(o, y, axes), SHAPE(1, h * PACK, w * PACK, c));
}

/* The other way: [1, 2h, 2w, C] → [1, 1, h, w, C·4]. */
static struct tensor *pack(struct ops *o, const struct tensor *x, int64_t h, int64_t w, int64_t c)
{
    static const int axes[5] = {0, 2, 4, 1, 3};
    struct tensor *y = op_reshape(o, x, SHAPE(h, PACK, w, PACK, c));
    return op_reshape(o, op_permute(o, y, axes), SHAPE(1, 1, h, w, c * PACK * PACK));
}

/* The autoencoder's mean: references are not drawn. */
static struct tensor *klein_read_image(const void *state, struct ops *o,
                                       const struct tensor *pixels, struct random *random)
{
    const struct klein *k = state;
    (void)random;
    if (ops_error(o, NULL) != 0)
        return NULL;
    int64_t multiple = k->vae.factor * PACK;
    int64_t h = tensor_dim(pixels, 1) / multiple, w = tensor_dim(pixels, 2) / multiple;
    ops_mark mark = ops_push(o);
    struct tensor *z = ops_keep(o, mark, vae_encode(&k->vae, o, pixels));
    z = pack(o, z, h, w, k->vae.channels);
    z = op_add(o, z,
               op_affine(o, op_from_host(o, DTYPE_F32, SHAPE(k->channels), k->offset), -1, 0));
    z = op_mul(o, z, op_from_host(o, DTYPE_F32, SHAPE(k->channels), k->inverse));
    return ops_pop_keep(o, mark, z);
}

static struct tensor *klein_decode(const void *state, struct ops *o, const struct tensor *latent)
{
    const struct klein *k = state;
    if (ops_error(o, NULL) != 0)
        return NULL;
    int64_t h = tensor_dim(latent, 2), w = tensor_dim(latent, 3);
    ops_mark mark = ops_push(o);
    struct tensor *scale = op_from_host(o, DTYPE_F32, SHAPE(k->channels), k->scale);
    struct tensor *offset = op_from_host(o, DTYPE_F32, SHAPE(k->channels), k->offset);
    struct tensor *z = op_add(o, op_mul(o, latent, scale), offset);
    z = ops_keep(o, mark, unpack(o, z, h, w, k->vae.channels));
    return ops_pop_keep(o, mark, vae_decode(&k->vae, o, z));
}

static bool klein_can_preview(const void *state)
{
    const struct klein *k = state;
    return k->vae.tiny;
}

static const char *const classes[] = {"Flux2KleinPipeline", "Flux2KleinInpaintPipeline", NULL};

const struct family family_flux2_klein = {
    .name = "flux2-klein",
    .what = "FLUX.2 [klein]",
    .classes = classes,
    .load = klein_load,
    .free = klein_free,
    .shape = klein_shape,
    .mu = klein_mu,
    .encode = klein_encode,
    .prepare = klein_prepare,
    .predict = klein_predict,
    .read_image = klein_read_image,
    .decode = klein_decode,
    .preview = klein_decode,
    .can_preview = klein_can_preview,
};
