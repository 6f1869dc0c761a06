/* AutoencoderKL and AutoencoderKLFlux2: the autoencoder of latent diffusion. Residual blocks with
 * group norm, one attention in the middle, halving on the way in, doubling on the way out.
 * Sources: huggingface/diffusers, models/autoencoders/autoencoder_kl.py, autoencoder_kl_flux2.py,
 * vae.py.
 *
 * At a picture's full size a feature map is hundreds of megabytes, so all that is wide works in
 * bands of rows (residual.h): 1024x1024 pixels of the widths that are usual need 1 GB. */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/vae/residual.h"
#include "engine/vae/vae.h"

#define MAX_LEVELS 8
#define MAX_LAYERS 8
#define NORM_EPS   1e-6f /* of the attention's norm, as of all others inside */

struct attention_block {
    struct affine norm;
    struct tensor *w[4], *b[4]; /* q, k, v, out: [C, C], [C] */
};

struct middle {
    struct resnet resnets[2];
    struct attention_block attention;
    bool has_attention;
};

/* One resolution: its residual blocks and, but for the last, the change of size after them. */
struct level {
    struct resnet resnets[MAX_LAYERS];
    int count;
    struct filter resample;
};

struct half {
    struct filter conv_in, conv_out;
    struct level levels[MAX_LEVELS];
    int level_count;
    struct middle middle;
    struct affine norm_out;
};

struct kl {
    struct bands bands;
    int channels;
    struct half encoder, decoder;
    bool has_encoder;
    struct filter quant, post_quant; /* 1x1 on moments and on latents; optional */
};

/* What config.json says about both halves. */
struct kl_config {
    int levels, layers, latent, pixels;
    int encoder_width[MAX_LEVELS], decoder_width[MAX_LEVELS];
    bool quant, post_quant, attention;
};

static const int same[4] = {1, 1, 1, 1}, none[4] = {0, 0, 0, 0};

/* ---- loading ---- */

/* The name of a tensor or of what holds it. */
struct label {
    char text[160];
};

static struct label label(const char *fmt, ...) ERR_PRINTF(1, 2);

static struct label label(const char *fmt, ...)
{
    struct label y;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(y.text, sizeof y.text, fmt, ap);
    va_end(ap);
    return y;
}

static struct affine load_affine(struct weight_loader *l, int width, struct label at)
{
    return (struct affine){weight(l, SHAPE(width), "%s.weight", at.text),
                           weight(l, SHAPE(width), "%s.bias", at.text)};
}

static struct filter load_filter(struct weight_loader *l, int out, int in, int k, struct label at)
{
    return (struct filter){weight(l, SHAPE(out, in, k, k), "%s.weight", at.text),
                           weight(l, SHAPE(out), "%s.bias", at.text)};
}

static void load_resnet(struct weight_loader *l, struct resnet *r, int in, int out, struct label at)
{
    r->norm1 = load_affine(l, in, label("%s.norm1", at.text));
    r->conv1 = load_filter(l, out, in, 3, label("%s.conv1", at.text));
    r->norm2 = load_affine(l, out, label("%s.norm2", at.text));
    r->conv2 = load_filter(l, out, out, 3, label("%s.conv2", at.text));
    if (in != out)
        r->shortcut = load_filter(l, out, in, 1, label("%s.conv_shortcut", at.text));
}

/* Old files call the projections query, key, value, proj_attn. */
static void load_attention(struct weight_loader *l, struct attention_block *a, int width,
                           struct label at)
{
    static const char *const names[4] = {"to_q", "to_k", "to_v", "to_out.0"};
    static const char *const old[4] = {"query", "key", "value", "proj_attn"};
    a->norm = load_affine(l, width, label("%s.group_norm", at.text));
    for (int i = 0; i < 4; i++) {
        a->w[i] = weight_optional(l, SHAPE(width, width), "%s.%s.weight", at.text, old[i]);
        const char *word = a->w[i] ? old[i] : names[i];
        if (!a->w[i])
            a->w[i] = weight(l, SHAPE(width, width), "%s.%s.weight", at.text, word);
        a->b[i] = weight(l, SHAPE(width), "%s.%s.bias", at.text, word);
    }
}

static void load_middle(struct weight_loader *l, struct middle *m, int width, bool attention,
                        const char *half)
{
    for (int i = 0; i < 2; i++)
        load_resnet(l, &m->resnets[i], width, width, label("%s.mid_block.resnets.%d", half, i));
    m->has_attention = attention;
    if (attention)
        load_attention(l, &m->attention, width, label("%s.mid_block.attentions.0", half));
}

static void load_level(struct weight_loader *l, struct level *y, int in, int out, int count,
                       struct label at, const char *resample)
{
    y->count = count;
    for (int i = 0; i < count; i++)
        load_resnet(l, &y->resnets[i], i ? out : in, out, label("%s.resnets.%d", at.text, i));
    if (resample)
        y->resample = load_filter(l, out, out, 3, label("%s.%s.0.conv", at.text, resample));
}

static void load_encoder(struct weight_loader *l, const struct kl_config *c, struct half *h)
{
    const int *width = c->encoder_width;
    int last = c->levels - 1;
    h->level_count = c->levels;
    h->conv_in = load_filter(l, width[0], c->pixels, 3, label("encoder.conv_in"));
    for (int i = 0; i <= last; i++)
        load_level(l, &h->levels[i], width[i ? i - 1 : 0], width[i], c->layers,
                   label("encoder.down_blocks.%d", i), i < last ? "downsamplers" : NULL);
    load_middle(l, &h->middle, width[last], c->attention, "encoder");
    h->norm_out = load_affine(l, width[last], label("encoder.conv_norm_out"));
    h->conv_out = load_filter(l, 2 * c->latent, width[last], 3, label("encoder.conv_out"));
}

static void load_decoder(struct weight_loader *l, const struct kl_config *c, struct half *h)
{
    const int *width = c->decoder_width;
    int last = c->levels - 1;
    h->level_count = c->levels;
    h->conv_in = load_filter(l, width[last], c->latent, 3, label("decoder.conv_in"));
    load_middle(l, &h->middle, width[last], c->attention, "decoder");
    for (int i = 0; i <= last; i++) /* from the deepest, widest level outwards */
        load_level(l, &h->levels[i], width[i ? last - i + 1 : last], width[last - i], c->layers + 1,
                   label("decoder.up_blocks.%d", i), i < last ? "upsamplers" : NULL);
    h->norm_out = load_affine(l, width[0], label("decoder.conv_norm_out"));
    h->conv_out = load_filter(l, c->pixels, width[0], 3, label("decoder.conv_out"));
}

static void read_widths(struct config *c, const char *key, int levels, int *width)
{
    for (int i = 0; i < levels; i++)
        width[i] = (int)config_int_at(c, key, i, 1, 16384);
}

/* Options with one possible value. */
static int kl_check(struct config *c, int levels, struct err *e)
{
    static const char *const types[][2] = {{"down_block_types", "DownEncoderBlock2D"},
                                           {"up_block_types", "UpDecoderBlock2D"}};
    const char *act = config_string(c, "act_fn", "silu");
    if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        return err_set(e, -ENOTSUP, "%s: act_fn '%.40s' is not supported; expected silu",
                       config_path(c), act);
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < levels && config_length(c, types[k][0]) >= 0; i++)
            if (strcmp(config_string_at(c, types[k][0], i), types[k][1]) != 0)
                return config_error(c, NULL)
                           ? config_error(c, e)
                           : err_set(e, -ENOTSUP,
                                     "%s: %s holds '%.40s', which is not supported; expected %s",
                                     config_path(c), types[k][0],
                                     config_string_at(c, types[k][0], i), types[k][1]);
    return 0;
}

static int kl_read(struct part *p, struct kl *k, struct kl_config *kc, struct vae *v, struct err *e)
{
    struct config *c = p->config;
    kc->levels = config_length(c, "block_out_channels");
    if (kc->levels < 1 || kc->levels > MAX_LEVELS)
        return err_set(e, -EINVAL, "%s: block_out_channels must list 1 to %d widths",
                       config_path(c), MAX_LEVELS);
    if (kl_check(c, kc->levels, e) != 0)
        return e->code;
    bool own = config_length(c, "decoder_block_out_channels") == kc->levels;
    read_widths(c, "block_out_channels", kc->levels, kc->encoder_width);
    read_widths(c, own ? "decoder_block_out_channels" : "block_out_channels", kc->levels,
                kc->decoder_width);
    kc->layers = (int)config_int(c, "layers_per_block", 1, 1, MAX_LAYERS - 1);
    kc->latent = (int)config_int(c, "latent_channels", 4, 1, 4096);
    kc->pixels = (int)config_int(c, "in_channels", 3, 3, 3);
    config_int(c, "out_channels", 3, 3, 3);
    kc->quant = config_bool(c, "use_quant_conv", true);
    kc->post_quant = config_bool(c, "use_post_quant_conv", true);
    kc->attention = config_bool(c, "mid_block_add_attention", true);
    k->bands = (struct bands){.groups = (int)config_int(c, "norm_num_groups", 32, 1, 4096),
                              .hold = BANDS_HOLD,
                              .band = BANDS_BAND};
    v->scaling = config_float(c, "scaling_factor", 1, 1e-6, 1e6);
    v->shift = config_float(c, "shift_factor", 0, -1e6, 1e6);
    v->channels = k->channels = kc->latent;
    v->factor = 1 << (kc->levels - 1);
    return config_error(c, e);
}

static void kl_free(void *state)
{
    free(state);
}

static int kl_load(struct part *p, struct vae *v, struct err *e)
{
    struct kl_config c = {0};
    struct kl *k = calloc(1, sizeof(*k));
    if (!k)
        return err_nomem(e);
    v->state = k;
    if (kl_read(p, k, &c, v, e) != 0)
        return e->code;
    struct weight_loader *l = &p->loader;
    /* Files with the decoder alone exist and are enough to draw. */
    k->has_encoder = weights_find(p->weights, "encoder.conv_in.weight") != NULL;
    if (k->has_encoder) {
        load_encoder(l, &c, &k->encoder);
        if (c.quant)
            k->quant = load_filter(l, 2 * c.latent, 2 * c.latent, 1, label("quant_conv"));
    }
    load_decoder(l, &c, &k->decoder);
    if (c.post_quant)
        k->post_quant = load_filter(l, c.latent, c.latent, 1, label("post_quant_conv"));
    return l->err.code ? err_set(e, l->err.code, "%s", l->err.text) : 0;
}

/* ---- running ---- */

static struct tensor *conv(struct ops *o, const struct filter *f, const struct tensor *x,
                           int stride, const int pad[4])
{
    return op_conv2d(o, x, f->w, f->b, stride, pad, ACT_NONE);
}

static struct tensor *run_attention(const struct kl *k, struct ops *o,
                                    const struct attention_block *a, struct tensor *x)
{
    if (ops_error(o, NULL) != 0)
        return NULL;
    int64_t b = tensor_dim(x, 0), n = tensor_dim(x, 1) * tensor_dim(x, 2), c = tensor_dim(x, 3);
    struct attention_args args = {.scale = (float)(1 / sqrt((double)c))};
    struct tensor *qkv[3],
        *h = op_group_norm(o, x, k->bands.groups, a->norm.w, a->norm.b, NORM_EPS, ACT_NONE);
    h = op_reshape(o, h, SHAPE(b, n, c));
    for (int i = 0; i < 3; i++)
        qkv[i] = op_reshape(o, op_linear(o, h, a->w[i], a->b[i], ACT_NONE), SHAPE(b, n, 1, c));
    h = op_attention(o, qkv[0], qkv[1], qkv[2], &args);
    h = op_linear(o, op_reshape(o, h, SHAPE(b, n, c)), a->w[3], a->b[3], ACT_NONE);
    op_add_to(o, op_reshape(o, x, SHAPE(b, n, c)), h);
    return x;
}

/* Each result takes the place of its input: a stack needs a block's room, not the sum. */
static struct tensor *run_middle(const struct kl *k, struct ops *o, const struct middle *m,
                                 ops_mark mark, struct tensor *x)
{
    x = run_resnet(&k->bands, o, &m->resnets[0], mark, (struct map){.x = x});
    if (m->has_attention)
        x = ops_keep(o, mark, run_attention(k, o, &m->attention, x));
    return run_resnet(&k->bands, o, &m->resnets[1], mark, (struct map){.x = x});
}

static struct tensor *run_level(const struct kl *k, struct ops *o, const struct level *y,
                                ops_mark mark, struct map x)
{
    for (int i = 0; i < y->count; i++)
        x = (struct map){.x = run_resnet(&k->bands, o, &y->resnets[i], mark, x)};
    return x.x;
}

static struct tensor *kl_encode(const void *state, struct ops *o, const struct tensor *pixels)
{
    const struct kl *k = state;
    const struct half *h = &k->encoder;
    if (!k->has_encoder)
        ops_fail(o, -EINVAL, "this autoencoder has no encoder, so pictures cannot be read");
    ops_mark mark = ops_push(o);
    struct tensor *x = conv(o, &h->conv_in, pixels, 1, same);
    for (int i = 0; i < h->level_count; i++) {
        x = run_level(k, o, &h->levels[i], mark, (struct map){.x = x});
        if (h->levels[i].resample.w)
            x = ops_keep(o, mark, halve(&k->bands, o, &h->levels[i].resample, x));
    }
    x = run_middle(k, o, &h->middle, mark, x);
    x = ops_keep(o, mark, norm_conv(&k->bands, o, &h->norm_out, &h->conv_out, x));
    return ops_pop_keep(o, mark, k->quant.w ? conv(o, &k->quant, x, 1, none) : x);
}

static struct tensor *kl_decode(const void *state, struct ops *o, const struct tensor *latents)
{
    const struct kl *k = state;
    const struct half *h = &k->decoder;
    ops_mark mark = ops_push(o);
    if (k->post_quant.w)
        latents = conv(o, &k->post_quant, latents, 1, none);
    struct map x = {.x = ops_keep(o, mark, conv(o, &h->conv_in, latents, 1, same))};
    x.x = run_middle(k, o, &h->middle, mark, x.x);
    for (int i = 0; i < h->level_count; i++) {
        x = (struct map){.x = run_level(k, o, &h->levels[i], mark, x)};
        if (h->levels[i].resample.w)
            x = double_map(&k->bands, o, &h->levels[i].resample, &h->levels[i + 1].resnets[0], mark,
                           x.x);
    }
    return ops_pop_keep(o, mark, norm_conv(&k->bands, o, &h->norm_out, &h->conv_out, x.x));
}

void autoencoder_kl_bands(struct vae *v, int64_t hold, int64_t band)
{
    struct kl *k = v->state;
    k->bands.hold = hold;
    k->bands.band = band;
}

#define KL_KIND(symbol, name)                                                                      \
    const struct vae_kind symbol = {.class_name = name,                                            \
                                    .distribution = true,                                          \
                                    .load = kl_load,                                               \
                                    .free = kl_free,                                               \
                                    .encode = kl_encode,                                           \
                                    .decode = kl_decode}

KL_KIND(autoencoder_kl, "AutoencoderKL");
KL_KIND(autoencoder_kl_flux2, "AutoencoderKLFlux2");
