/* Stable Diffusion 1 and 2, and Stable Diffusion XL: CLIP text encoders, a UNet and the latent of
 * an AutoencoderKL. Sources: huggingface/diffusers,
 * pipelines/stable_diffusion/pipeline_stable_diffusion.py,
 * pipelines/stable_diffusion_xl/pipeline_stable_diffusion_xl.py.
 *
 * Beyond the hub's layout, model_index.json may say default_steps and default_guidance. A folder
 * does not say whether it is Turbo, so its name does. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/models/family.h"
#include "engine/models/unet.h"
#include "engine/text/clip.h"
#include "engine/text/clip_prompt.h"
#include "engine/vae/vae.h"

#define MAX_TEXTS 2

/* What pass.kept holds; NULL where the UNet has no use for it. */
enum { KEPT_ADDED, KEPT_GUIDANCE };

/* conditions[]: the encoders' hidden states side by side [1, tokens, text_width]; of XL also the
 * last encoder's pooled vector [1, projection]. */
enum { TEXT, POOLED };

struct sd {
    bool xl;
    bool zero_negative; /* an absent negative prompt is zeros, not the encoding of "" */
    int texts;
    struct {
        struct tokenizer *tokenizer;
        struct clip_text *encoder;
    } text[MAX_TEXTS];
    int tokens;    /* of every prompt, with its ends and padding */
    bool inpaints; /* the UNet reads a mask and the picture under it beside the latent */
    struct unet *unet;
    struct vae vae;
    double default_guidance;
};

/* ---- loading ---- */

static int load_text(struct checkpoint *c, struct sd *s, const char *encoder, const char *tokenizer,
                     struct err *e)
{
    struct part *p;
    int i = s->texts++;
    AUTO_FREE char *folder = NULL;
    if (checkpoint_part(c, encoder, "model", &p, e) != 0 ||
        clip_text_load(p, &s->text[i].encoder, e) != 0 ||
        checkpoint_folder(c, tokenizer, &folder, e) != 0 ||
        tokenizer_open(folder, &s->text[i].tokenizer, e) != 0 ||
        clip_prompt_check(s->text[i].tokenizer, folder, e) != 0)
        return e->code;
    if (!s->xl && config_bool(p->config, "use_attention_mask", false))
        return err_set(e, -ENOTSUP, "%s: use_attention_mask is true, which is not supported",
                       config_path(p->config));
    int tokens = tokenizer_vocabulary(s->text[i].tokenizer);
    if (tokens > clip_text_vocabulary(s->text[i].encoder))
        return err_set(e, -EINVAL, "%s: the tokenizer has %d tokens, the text encoder only %d",
                       folder, tokens, clip_text_vocabulary(s->text[i].encoder));
    s->tokens = clip_text_positions(s->text[0].encoder);
    if (clip_text_positions(s->text[i].encoder) != s->tokens)
        return err_set(e, -EINVAL, "%s: the text encoders read %d and %d tokens, expected the same",
                       c->path, s->tokens, clip_text_positions(s->text[i].encoder));
    return 0;
}

static int pooled_width(const struct sd *s)
{
    return clip_text_projection(s->text[s->texts - 1].encoder);
}

/* The UNet takes what the encoders give. */
static int check_texts(const struct checkpoint *c, const struct sd *s, struct err *e)
{
    const struct unet_config *u = unet_config(s->unet);
    int width = 0, added = s->xl ? pooled_width(s) + UNET_TIME_IDS * u->added_number : 0;
    for (int i = 0; i < s->texts; i++)
        width += clip_text_width(s->text[i].encoder);
    if (width != unet_text_width(s->unet))
        return err_set(e, -EINVAL,
                       "%s: the text encoders give %d numbers a token, but the UNet takes %d",
                       c->path, width, unet_text_width(s->unet));
    if (s->xl && !pooled_width(s))
        return err_set(e, -EINVAL, "%s: text_encoder_2 has no text_projection.weight", c->path);
    if (added != u->added_width)
        return err_set(e, -EINVAL,
                       "%s: the pooled text and the sizes are %d numbers, but the UNet's "
                       "add_embedding takes %d",
                       c->path, added, u->added_width);
    return 0;
}

static int load_vae(struct checkpoint *c, struct sd *s, struct err *e)
{
    const struct unet_config *u = unet_config(s->unet);
    struct part *p;
    if (checkpoint_part(c, "vae", "diffusion_pytorch_model", &p, e) != 0 ||
        vae_load(p, &s->vae, e) != 0)
        return e->code;
    if (config_has(p->config, "latents_mean") || config_has(p->config, "latents_std"))
        return err_set(e, -ENOTSUP, "%s: latents_mean and latents_std are not supported",
                       config_path(p->config));
    s->vae.shift = 0; /* these pipelines scale latents and shift none, whatever the file says */
    s->inpaints = u->in_channels == 2 * s->vae.channels + 1;
    if ((u->in_channels != s->vae.channels && !s->inpaints) || u->out_channels != s->vae.channels)
        return err_set(e, -ENOTSUP,
                       "%s: the UNet takes %d channels and gives %d, the latent has %d; expected "
                       "%d and %d, or %d and %d to inpaint",
                       c->path, u->in_channels, u->out_channels, s->vae.channels, s->vae.channels,
                       s->vae.channels, 2 * s->vae.channels + 1, s->vae.channels);
    return 0;
}

/* Pixels: sample_size, a number or [height, width], in positions of the latent. */
static int default_side(const struct sd *s, struct config *c, int axis)
{
    int most = 16384 / s->vae.factor;
    int64_t side = config_length(c, "sample_size") == 2
                       ? config_int_at(c, "sample_size", axis, 1, most)
                       : config_int(c, "sample_size", 64, 1, most);
    return (int)side * s->vae.factor;
}

static int read_traits(struct checkpoint *c, struct sd *s, const struct part *unet,
                       struct family_traits *t, struct err *e)
{
    bool turbo = strcasestr(c->path, "turbo") != NULL;
    bool told =
        unet_config(s->unet)->guidance_width > 0; /* distilled: one pass, told the guidance */
    int steps = told || turbo ? 4 : 50;
    double guidance = told ? 8.5 : turbo ? 0 : s->xl ? 5 : 7.5;
    *t = (struct family_traits){
        .variant = turbo  ? "turbo"
                   : told ? "distilled"
                          : "base",
        .modes = s->inpaints
                     ? 1u << OMNI_INPAINT
                     : 1u << OMNI_TEXT_TO_IMAGE | 1u << OMNI_IMAGE_TO_IMAGE | 1u << OMNI_INPAINT,
        .size_multiple = s->vae.factor,
        .max_frames = 1,
        .default_width = default_side(s, unet->config, 1),
        .default_height = default_side(s, unet->config, 0),
        .default_steps = (int)config_int(c->index, "default_steps", steps, 1, 1000),
        .default_guidance = config_float(c->index, "default_guidance", guidance, 0, 1000),
        .guided = !told,
        .max_prompt_tokens = s->tokens - 2,
        .images = {.drawn = s->vae.kind->distribution, .beside = s->inpaints},
    };
    s->default_guidance = t->default_guidance;
    return config_error(unet->config, e) != 0 ? e->code : config_error(c->index, e);
}

static void sd_free(void *state)
{
    struct sd *s = state;
    if (!s)
        return;
    for (int i = 0; i < s->texts; i++) {
        tokenizer_close(s->text[i].tokenizer);
        clip_text_free(s->text[i].encoder);
    }
    unet_free(s->unet);
    vae_free(&s->vae);
    free(s);
}

static int load_parts(struct checkpoint *c, struct sd *s, struct family_traits *traits,
                      struct err *e)
{
    struct part *unet;
    if (config_bool(c->index, "requires_aesthetics_score", false))
        return err_set(e, -ENOTSUP,
                       "%s: refiners (requires_aesthetics_score) are not supported; use a base "
                       "checkpoint",
                       config_path(c->index));
    s->zero_negative = s->xl && config_bool(c->index, "force_zeros_for_empty_prompt", true);
    if (config_error(c->index, e) != 0 ||
        checkpoint_part(c, "unet", "diffusion_pytorch_model", &unet, e) != 0 ||
        unet_load(unet, &s->unet, e) != 0 || load_text(c, s, "text_encoder", "tokenizer", e) != 0 ||
        (s->xl && load_text(c, s, "text_encoder_2", "tokenizer_2", e) != 0) ||
        check_texts(c, s, e) != 0 || load_vae(c, s, e) != 0)
        return e->code;
    return read_traits(c, s, unet, traits, e);
}

static int load(struct checkpoint *c, bool xl, void **state, struct family_traits *traits,
                struct err *e)
{
    struct sd *s = calloc(1, sizeof(*s));
    if (!s)
        return err_nomem(e);
    s->xl = xl;
    int rc = load_parts(c, s, traits, e);
    if (rc != 0)
        sd_free(s);
    else
        *state = s;
    return rc;
}

static int sd_load(struct checkpoint *c, void **state, struct family_traits *traits, struct err *e)
{
    return load(c, false, state, traits, e);
}

static int sdxl_load(struct checkpoint *c, void **state, struct family_traits *traits,
                     struct err *e)
{
    return load(c, true, state, traits, e);
}

/* As the pipeline of versions 1 and 2 does, whatever the file says: what it has from before these
 * options were known. */
static void sd_correct(struct schedule_config *schedule)
{
    schedule->steps_offset = 1;
    if (schedule->clip_sample == SWITCH_ON || strcmp(schedule->kind, "ddim") == 0)
        schedule->clip_sample = SWITCH_OFF;
}

static void sd_correct_inpaint(struct schedule_config *schedule)
{
    if (schedule->skip_prk == SWITCH_OFF || strcmp(schedule->kind, "pndm") == 0)
        schedule->skip_prk = SWITCH_ON;
}

/* ---- a request ---- */

static int sd_shape(const void *state, const struct omni_request *r, struct latent_shape *out,
                    struct err *e)
{
    const struct sd *s = state;
    (void)e;
    *out = (struct latent_shape){.frames = 1,
                                 .height = r->height / s->vae.factor,
                                 .width = r->width / s->vae.factor,
                                 .channels = s->vae.channels};
    out->tokens = (int64_t)out->height * out->width;
    return 0;
}

/* The states of encoder i: the last of Stable Diffusion, the last but one of XL. */
static struct tensor *encode_text(const struct sd *s, struct ops *o, int i, const char *prompt,
                                  struct tensor **pooled, bool *truncated)
{
    struct err e = {0};
    struct clip_states states;
    AUTO_FREE int32_t *ids = calloc((size_t)s->tokens, sizeof(*ids));
    int rc = ids ? clip_prompt(s->text[i].tokenizer, prompt, ids, s->tokens, truncated, &e)
                 : err_nomem(&e);
    if (rc != 0) {
        ops_fail(o, e.code, "%s", e.text);
        return NULL;
    }
    bool last = i == s->texts - 1;
    unsigned wanted = s->xl ? CLIP_PENULTIMATE | (last ? CLIP_POOLED : 0) : CLIP_LAST;
    clip_text_encode(s->text[i].encoder, o, ids, s->tokens, wanted, &states);
    if (states.pooled)
        *pooled = states.pooled;
    return s->xl ? states.penultimate : states.last;
}

static int sd_encode(const void *state, struct ops *o, const char *prompt,
                     struct tensor *out[CONDITION_ARRAYS], bool *truncated)
{
    const struct sd *s = state;
    const struct tensor *parts[MAX_TEXTS];
    if (!prompt && s->zero_negative) {
        out[TEXT] = op_zeros(o, DTYPE_F32, SHAPE(1, s->tokens, unet_text_width(s->unet)));
        out[POOLED] = op_zeros(o, DTYPE_F32, SHAPE(1, pooled_width(s)));
        return 2;
    }
    for (int i = 0; i < s->texts; i++)
        parts[i] = encode_text(s, o, i, prompt ? prompt : "", &out[POOLED], truncated);
    out[TEXT] = op_concat(o, parts, s->texts, 2);
    return s->xl ? 2 : 1;
}

/* ---- a pass ---- */

/* The picture as if it were neither scaled nor cut: original size, corner, size. */
static struct tensor *prepare_added(const struct sd *s, struct ops *o, const struct pass *pass)
{
    AUTO_FREE float *ids = calloc((size_t)pass->batch, UNET_TIME_IDS * sizeof(*ids));
    if (!ids) {
        ops_fail(o, -ENOMEM, "not enough memory for the sizes of %d predictions", pass->batch);
        return NULL;
    }
    float h = (float)(pass->latent->height * s->vae.factor);
    float w = (float)(pass->latent->width * s->vae.factor);
    for (int i = 0; i < pass->batch; i++)
        memcpy(ids + (size_t)i * UNET_TIME_IDS, (float[UNET_TIME_IDS]){h, w, 0, 0, h, w},
               UNET_TIME_IDS * sizeof(*ids));
    return unet_added(s->unet, o, pass->conditions[POOLED], ids);
}

static struct tensor *prepare_guidance(const struct sd *s, struct ops *o, const struct pass *pass)
{
    AUTO_FREE float *guidance = calloc((size_t)pass->batch, sizeof(*guidance));
    if (!guidance) {
        ops_fail(o, -ENOMEM, "not enough memory for the guidance of %d predictions", pass->batch);
        return NULL;
    }
    for (int i = 0; i < pass->batch; i++) {
        double asked = pass->requests[i]->guidance;
        guidance[i] = (float)(isnan(asked) ? s->default_guidance : asked);
    }
    return unet_guidance(s->unet, o, guidance, pass->batch);
}

static void sd_prepare(const void *state, struct ops *o, struct pass *pass)
{
    const struct sd *s = state;
    if (s->xl)
        pass->kept[KEPT_ADDED] = prepare_added(s, o, pass);
    if (unet_config(s->unet)->guidance_width)
        pass->kept[KEPT_GUIDANCE] = prepare_guidance(s, o, pass);
}

static struct tensor *sd_predict(const void *state, struct ops *o, const struct pass *pass,
                                 const struct tensor *x, float timestep)
{
    const struct sd *s = state;
    const struct latent_shape *l = pass->latent;
    x = op_reshape(o, x, SHAPE(pass->batch, l->height, l->width, l->channels));
    if (pass->beside) {
        const struct tensor *parts[2] = {
            x, op_reshape(o, pass->beside,
                          SHAPE(pass->batch, l->height, l->width, s->vae.channels + 1))};
        x = op_concat(o, parts, 2, 3);
    }
    struct tensor *y = unet_forward(s->unet, o, x, pass->conditions[TEXT], timestep,
                                    pass->kept[KEPT_ADDED], pass->kept[KEPT_GUIDANCE]);
    return op_reshape(o, y, SHAPE(pass->batch, 1, l->height, l->width, l->channels));
}

/* ---- pixels ---- */

static struct tensor *sd_read_image(const void *state, struct ops *o, const struct tensor *pixels,
                                    struct random *random)
{
    const struct sd *s = state;
    if (ops_error(o, NULL) != 0)
        return NULL;
    ops_mark mark = ops_push(o);
    struct tensor *x = vae_encode_drawn(&s->vae, o, pixels, random);
    x = op_affine(o, x, (float)s->vae.scaling, (float)(-s->vae.shift * s->vae.scaling));
    x = ops_pop_keep(o, mark, x);
    return op_reshape(o, x, SHAPE(1, 1, tensor_dim(x, 1), tensor_dim(x, 2), s->vae.channels));
}

static struct tensor *sd_decode(const void *state, struct ops *o, const struct tensor *latent)
{
    const struct sd *s = state;
    if (ops_error(o, NULL) != 0)
        return NULL;
    ops_mark mark = ops_push(o);
    latent = op_reshape(o, latent,
                        SHAPE(1, tensor_dim(latent, 2), tensor_dim(latent, 3), s->vae.channels));
    latent = op_affine(o, latent, (float)(1 / s->vae.scaling), (float)s->vae.shift);
    return ops_pop_keep(o, mark, vae_decode(&s->vae, o, latent));
}

static bool sd_can_preview(const void *state)
{
    const struct sd *s = state;
    return s->vae.tiny;
}

static const char *const sd_classes[] = {
    "StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline",
    "LatentConsistencyModelPipeline", NULL};
static const char *const sdxl_classes[] = {"StableDiffusionXLPipeline",
                                           "StableDiffusionXLImg2ImgPipeline",
                                           "StableDiffusionXLInpaintPipeline", NULL};

#define SD_FAMILY(word, title, list, loader, correcting, correcting_inpaint)                       \
    {                                                                                              \
        .name = word, .what = title, .classes = list, .load = loader, .free = sd_free,             \
        .shape = sd_shape, .encode = sd_encode, .prepare = sd_prepare, .predict = sd_predict,      \
        .read_image = sd_read_image, .decode = sd_decode, .preview = sd_decode,                    \
        .correct = correcting, .correct_inpaint = correcting_inpaint,                              \
        .can_preview = sd_can_preview                                                              \
    }

const struct family family_stable_diffusion = SD_FAMILY(
    "stable-diffusion", "Stable Diffusion", sd_classes, sd_load, sd_correct, sd_correct_inpaint);
const struct family family_stable_diffusion_xl =
    SD_FAMILY("stable-diffusion-xl", "Stable Diffusion XL", sdxl_classes, sdxl_load, NULL, NULL);
