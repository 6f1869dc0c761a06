/* AutoencoderTiny: the small convolutional autoencoder of TAESD. Two stacks of 3x3 convolutions,
 * residual blocks and nearest upsampling; the decoder first squashes latents to ±3.
 * Sources: madebyollin/taesd; huggingface/diffusers, models/autoencoders/autoencoder_tiny.py. */
#include <errno.h>
#include <stdlib.h>

#include "engine/vae/vae.h"

enum layer_kind { LAYER_CONV, LAYER_BLOCK, LAYER_UPSAMPLE, LAYER_NOTHING };

struct conv {
    struct tensor *w; /* [out, in, 3, 3] */
    struct tensor *b; /* [out] or NULL */
};

/* One slot of the checkpoint's numbered list. */
struct layer {
    enum layer_kind kind;
    int stride;          /* of a convolution */
    enum activation act; /* after a convolution */
    struct conv conv[3]; /* [0] alone for LAYER_CONV */
};

struct stack {
    struct layer *layers;
    int count;
};

#define MAX_STAGES 8

/* One half as config.json describes it. */
struct stack_config {
    int stages;
    int width[MAX_STAGES], blocks[MAX_STAGES];
    int in, out;
};

struct tiny {
    struct stack encoder, decoder;
    int upsample; /* factor of one stage */
};

static const int same[4] = {1, 1, 1, 1};

static void read_stages(struct config *c, const char *widths, const char *blocks,
                        struct stack_config *s, struct err *e)
{
    s->stages = config_length(c, widths);
    if (e->code)
        return;
    if (s->stages < 1 || s->stages > MAX_STAGES || config_length(c, blocks) != s->stages) {
        err_set(e, -EINVAL, "%s: %s and %s must be lists of one length, 1 to %d", config_path(c),
                widths, blocks, MAX_STAGES);
        return;
    }
    for (int i = 0; i < s->stages; i++) {
        s->width[i] = (int)config_int_at(c, widths, i, 1, 8192);
        s->blocks[i] = (int)config_int_at(c, blocks, i, 0, 64);
    }
}

static struct layer *stack_add(struct stack *s, enum layer_kind kind)
{
    struct layer *y = &s->layers[s->count++];
    *y = (struct layer){.kind = kind, .stride = 1};
    return y;
}

static void load_conv(struct weight_loader *l, const char *half, struct stack *s, int in, int out,
                      int stride, bool bias, enum activation act)
{
    int slot = s->count;
    struct layer *y = stack_add(s, LAYER_CONV);
    y->stride = stride;
    y->act = act;
    y->conv[0].w = weight(l, SHAPE(out, in, 3, 3), "%s.layers.%d.weight", half, slot);
    if (bias)
        y->conv[0].b = weight(l, SHAPE(out), "%s.layers.%d.bias", half, slot);
}

static void load_blocks(struct weight_loader *l, const char *half, struct stack *s, int width,
                        int count)
{
    for (int n = 0; n < count; n++) {
        int slot = s->count;
        struct layer *y = stack_add(s, LAYER_BLOCK);
        for (int i = 0; i < 3; i++) {
            y->conv[i].w = weight(l, SHAPE(width, width, 3, 3), "%s.layers.%d.conv.%d.weight", half,
                                  slot, 2 * i);
            y->conv[i].b = weight(l, SHAPE(width), "%s.layers.%d.conv.%d.bias", half, slot, 2 * i);
        }
    }
}

/* Room for every slot: blocks, and at most three more a stage, and the ends. */
static int stack_reserve(struct stack *s, const struct stack_config *c, struct err *e)
{
    size_t n = 4;
    for (int i = 0; i < c->stages; i++)
        n += (size_t)c->blocks[i] + 3;
    s->layers = calloc(n, sizeof(*s->layers));
    return s->layers ? 0 : err_nomem(e);
}

static int load_encoder(struct weight_loader *l, const struct stack_config *c, struct stack *s,
                        struct err *e)
{
    if (stack_reserve(s, c, e) != 0)
        return e->code;
    for (int i = 0; i < c->stages; i++) {
        load_conv(l, "encoder", s, i ? c->width[i] : c->in, c->width[i], i ? 2 : 1, i == 0,
                  ACT_NONE);
        load_blocks(l, "encoder", s, c->width[i], c->blocks[i]);
    }
    load_conv(l, "encoder", s, c->width[c->stages - 1], c->out, 1, true, ACT_NONE);
    return 0;
}

static int load_decoder(struct weight_loader *l, const struct stack_config *c, struct stack *s,
                        struct err *e)
{
    if (stack_reserve(s, c, e) != 0)
        return e->code;
    load_conv(l, "decoder", s, c->in, c->width[0], 1, true, ACT_RELU);
    stack_add(s, LAYER_NOTHING); /* the ReLU has a slot of its own */
    for (int i = 0; i < c->stages; i++) {
        bool last = i == c->stages - 1;
        load_blocks(l, "decoder", s, c->width[i], c->blocks[i]);
        if (!last)
            stack_add(s, LAYER_UPSAMPLE);
        load_conv(l, "decoder", s, c->width[i], last ? c->out : c->width[i], 1, last, ACT_NONE);
    }
    return 0;
}

static int tiny_read(struct part *p, struct tiny *t, struct stack_config *enc,
                     struct stack_config *dec, struct vae *v, struct err *e)
{
    struct config *c = p->config;
    struct err bad = {0};
    read_stages(c, "encoder_block_out_channels", "num_encoder_blocks", enc, &bad);
    read_stages(c, "decoder_block_out_channels", "num_decoder_blocks", dec, &bad);
    int pixels = (int)config_int(c, "in_channels", 3, 3, 3);
    int latent = (int)config_int(c, "latent_channels", 4, 1, 4096);
    t->upsample = (int)config_int(c, "upsampling_scaling_factor", 2, 2, 2);
    const char *act = config_string(c, "act_fn", "relu");
    if (config_error(c, e) != 0)
        return e->code;
    if (bad.code)
        return err_set(e, bad.code, "%s", bad.text);
    if (act[0] != 'r')
        return err_set(e, -EINVAL, "%s: act_fn '%s' is not known, only relu", config_path(c), act);
    if (enc->stages != dec->stages)
        return err_set(e, -EINVAL, "%s: the encoder has %d stages, the decoder %d", config_path(c),
                       enc->stages, dec->stages);
    enc->in = dec->out = pixels;
    enc->out = dec->in = latent;
    v->channels = latent;
    v->factor = 1 << (dec->stages - 1);
    v->tiny = true;
    return 0;
}

static void tiny_free(void *state)
{
    struct tiny *t = state;
    if (t) {
        free(t->encoder.layers);
        free(t->decoder.layers);
    }
    free(t);
}

static int tiny_load(struct part *p, struct vae *v, struct err *e)
{
    struct stack_config enc = {0}, dec = {0};
    struct tiny *t = calloc(1, sizeof(*t));
    if (!t)
        return err_nomem(e);
    v->state = t;
    if (tiny_read(p, t, &enc, &dec, v, e) != 0)
        return e->code;
    struct weight_loader *l = &p->loader;
    /* Files with the decoder alone exist and are enough to draw. */
    bool has_encoder = weights_find(p->weights, "encoder.layers.0.weight") != NULL;
    if ((has_encoder && load_encoder(l, &enc, &t->encoder, e) != 0) ||
        load_decoder(l, &dec, &t->decoder, e) != 0)
        return e->code;
    return l->err.code ? err_set(e, l->err.code, "%s", l->err.text) : 0;
}

static struct tensor *run_block(struct ops *o, const struct layer *y, const struct tensor *x)
{
    struct tensor *h = op_conv2d(o, x, y->conv[0].w, y->conv[0].b, 1, same, ACT_RELU);
    h = op_conv2d(o, h, y->conv[1].w, y->conv[1].b, 1, same, ACT_RELU);
    h = op_conv2d(o, h, y->conv[2].w, y->conv[2].b, 1, same, ACT_NONE);
    op_add_to(o, h, x);
    return op_act(o, h, ACT_RELU);
}

static struct tensor *run_layer(const struct tiny *t, struct ops *o, const struct layer *y,
                                struct tensor *x)
{
    switch (y->kind) {
    case LAYER_CONV:
        return op_conv2d(o, x, y->conv[0].w, y->conv[0].b, y->stride, same, y->act);
    case LAYER_BLOCK:
        return run_block(o, y, x);
    case LAYER_UPSAMPLE:
        return op_upsample_nearest(o, x, t->upsample);
    case LAYER_NOTHING:
        break;
    }
    return x;
}

/* Each layer's result takes the place of its input, so a stack needs two layers' room at a time. */
static struct tensor *run_stack(const struct tiny *t, struct ops *o, const struct stack *s,
                                ops_mark mark, struct tensor *x)
{
    for (int i = 0; i < s->count; i++)
        if (s->layers[i].kind != LAYER_NOTHING)
            x = ops_keep(o, mark, run_layer(t, o, &s->layers[i], x));
    return x;
}

static struct tensor *tiny_encode(const void *state, struct ops *o, const struct tensor *pixels)
{
    const struct tiny *t = state;
    if (!t->encoder.layers)
        ops_fail(o, -EINVAL, "this autoencoder has no encoder, so pictures cannot be read");
    ops_mark mark = ops_push(o);
    struct tensor *x = op_affine(o, pixels, 0.5f, 0.5f);
    return ops_pop_keep(o, mark, run_stack(t, o, &t->encoder, mark, x));
}

static struct tensor *tiny_decode(const void *state, struct ops *o, const struct tensor *latents)
{
    const struct tiny *t = state;
    ops_mark mark = ops_push(o);
    struct tensor *x = op_act(o, op_affine(o, latents, 1.0f / 3, 0), ACT_TANH);
    x = run_stack(t, o, &t->decoder, mark, op_affine(o, x, 3, 0));
    return ops_pop_keep(o, mark, op_affine(o, x, 2, -1));
}

const struct vae_kind autoencoder_tiny = {
    .class_name = "AutoencoderTiny",
    .load = tiny_load,
    .free = tiny_free,
    .encode = tiny_encode,
    .decode = tiny_decode,
};
