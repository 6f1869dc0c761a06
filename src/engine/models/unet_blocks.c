#include "engine/models/unet_blocks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define TRANSFORMER_NORM_EPS 1e-6f /* of the group norm before it, whatever norm_eps is */
#define LAYER_NORM_EPS       1e-5f

static const int same[4] = {1, 1, 1, 1}, none[4] = {0, 0, 0, 0};

struct unet_pair unet_pair(struct weight_loader *l, int rank, const int64_t *dims, const char *at,
                           const char *name)
{
    return (struct unet_pair){weight(l, rank, dims, "%s.%s.weight", at, name),
                              weight(l, SHAPE(dims[0]), "%s.%s.bias", at, name)};
}

/* ---- residual blocks ---- */

void unet_resnet_load(struct weight_loader *l, const struct unet_config *c, struct unet_resnet *r,
                      int in, int out, const char *at)
{
    r->out = out;
    r->norm1 = unet_pair(l, SHAPE(in), at, "norm1");
    r->conv1 = unet_pair(l, SHAPE(out, in, 3, 3), at, "conv1");
    r->time = unet_pair(l, SHAPE(out, c->time_width), at, "time_emb_proj");
    r->norm2 = unet_pair(l, SHAPE(out), at, "norm2");
    r->conv2 = unet_pair(l, SHAPE(out, out, 3, 3), at, "conv2");
    if (in != out)
        r->shortcut = unet_pair(l, SHAPE(out, in, 1, 1), at, "conv_shortcut");
}

struct tensor *unet_norm_conv(const struct unet_call *c, const struct unet_pair *norm,
                              const struct unet_pair *conv, const struct tensor *x)
{
    struct ops *o = c->o;
    ops_mark mark = ops_push(o);
    struct tensor *h =
        op_group_norm(o, x, c->config->groups, norm->w, norm->b, c->config->norm_eps, ACT_SILU);
    return ops_pop_keep(o, mark, op_conv2d(o, h, conv->w, conv->b, 1, same, ACT_NONE));
}

/* h [B, H, W, out] += what the block makes of the time [B|1, 1, …]. */
static void add_time(const struct unet_call *c, const struct unet_resnet *r, struct tensor *h)
{
    struct ops *o = c->o;
    ops_mark mark = ops_push(o);
    struct tensor *t = op_linear(o, c->time, r->time.w, r->time.b, ACT_NONE);
    op_add_to(o, h, op_reshape(o, t, SHAPE(tensor_dim(c->time, 0), 1, 1, r->out)));
    ops_pop(o, mark);
}

struct tensor *unet_resnet_run(const struct unet_call *c, const struct unet_resnet *r,
                               const struct tensor *x)
{
    struct ops *o = c->o;
    ops_mark mark = ops_push(o);
    struct tensor *h = unet_norm_conv(c, &r->norm1, &r->conv1, x);
    add_time(c, r, h);
    h = ops_pop_keep(o, mark, unet_norm_conv(c, &r->norm2, &r->conv2, h));
    ops_mark skip = ops_push(o);
    op_add_to(o, h,
              r->shortcut.w ? op_conv2d(o, x, r->shortcut.w, r->shortcut.b, 1, none, ACT_NONE) : x);
    ops_pop(o, skip);
    return h;
}

/* ---- attention over picture and text ---- */

struct unet_attention {
    struct tensor *q, *k, *v; /* [width, width], [width, text or width] twice */
    struct unet_pair out;     /* [width, width], [width] */
};

struct unet_transformer_block {
    struct unet_pair norm1, norm2, norm3; /* [width] */
    struct unet_attention self, text;
    struct unet_pair wide;   /* [8·width, width]: values, then gates */
    struct unet_pair narrow; /* [width, 4·width] */
};

static void load_attention(struct weight_loader *l, struct unet_attention *a, int width, int from,
                           const char *at, const char *name)
{
    a->q = weight_linear(l, width, width, "%s.%s.to_q.weight", at, name);
    a->k = weight_linear(l, width, from, "%s.%s.to_k.weight", at, name);
    a->v = weight_linear(l, width, from, "%s.%s.to_v.weight", at, name);
    a->out.w = weight_linear(l, width, width, "%s.%s.to_out.0.weight", at, name);
    a->out.b = weight(l, SHAPE(width), "%s.%s.to_out.0.bias", at, name);
}

static void load_block(struct weight_loader *l, struct unet_transformer_block *b, int width,
                       int text, const char *at)
{
    b->norm1 = unet_pair(l, SHAPE(width), at, "norm1");
    load_attention(l, &b->self, width, width, at, "attn1");
    b->norm2 = unet_pair(l, SHAPE(width), at, "norm2");
    load_attention(l, &b->text, width, text, at, "attn2");
    b->norm3 = unet_pair(l, SHAPE(width), at, "norm3");
    b->wide.w = weight_linear(l, 8 * width, width, "%s.ff.net.0.proj.weight", at);
    b->wide.b = weight(l, SHAPE(8 * width), "%s.ff.net.0.proj.bias", at);
    b->narrow.w = weight_linear(l, width, 4 * width, "%s.ff.net.2.weight", at);
    b->narrow.b = weight(l, SHAPE(width), "%s.ff.net.2.bias", at);
}

void unet_transformer_load(struct weight_loader *l, const struct unet_config *c,
                           struct unet_transformer *t, const struct unet_level_config *level,
                           int count, const char *at)
{
    int w = level->width, rank = c->linear_projection ? 2 : 4;
    t->width = w;
    t->heads = level->heads;
    t->blocks = calloc((size_t)count + 1, sizeof(*t->blocks));
    if (!t->blocks) {
        err_nomem(&l->err);
        return;
    }
    t->count = count;
    t->norm = unet_pair(l, SHAPE(w), at, "norm");
    t->in = unet_pair(l, rank, (int64_t[]){w, w, 1, 1}, at, "proj_in");
    for (int i = 0; i < count && !l->err.code; i++) {
        char name[128];
        snprintf(name, sizeof name, "%s.transformer_blocks.%d", at, i);
        load_block(l, &t->blocks[i], w, level->text_width, name);
    }
    t->out = unet_pair(l, rank, (int64_t[]){w, w, 1, 1}, at, "proj_out");
}

void unet_transformer_free(struct unet_transformer *t)
{
    free(t->blocks);
    *t = (struct unet_transformer){0};
}

/* h [B, T, width] += attention of norm(h) to `from` [B, Tk, …], or to itself where that is NULL. */
static void attend(const struct unet_call *c, const struct unet_transformer *t,
                   const struct unet_attention *a, const struct unet_pair *norm, struct tensor *h,
                   const struct tensor *from)
{
    struct ops *o = c->o;
    ops_mark mark = ops_push(o);
    int head = t->width / t->heads;
    const struct tensor *n = op_layer_norm(o, h, norm->w, norm->b, LAYER_NORM_EPS), *qkv[3];
    const struct tensor *weights[3] = {a->q, a->k, a->v};
    for (int i = 0; i < 3; i++) {
        const struct tensor *source = i && from ? from : n;
        qkv[i] = op_reshape(o, op_linear(o, source, weights[i], NULL, ACT_NONE),
                            SHAPE(tensor_dim(source, 0), tensor_dim(source, 1), t->heads, head));
    }
    struct attention_args args = {.scale = 1.0f / sqrtf((float)head)};
    struct tensor *y = op_attention(o, qkv[0], qkv[1], qkv[2], &args);
    y = op_reshape(o, y, SHAPE(tensor_dim(h, 0), tensor_dim(h, 1), t->width));
    op_add_to(o, h, op_linear(o, y, a->out.w, a->out.b, ACT_NONE));
    ops_pop(o, mark);
}

static void feed_forward(const struct unet_call *c, const struct unet_transformer_block *b,
                         struct tensor *h)
{
    struct ops *o = c->o;
    ops_mark mark = ops_push(o);
    struct tensor *y = op_layer_norm(o, h, b->norm3.w, b->norm3.b, LAYER_NORM_EPS);
    y = op_linear(o, y, b->wide.w, b->wide.b, ACT_NONE);
    y = ops_keep(o, mark, op_glu_behind(o, y, ACT_GELU));
    op_add_to(o, h, op_linear(o, y, b->narrow.w, b->narrow.b, ACT_NONE));
    ops_pop(o, mark);
}

/* [B, H, W, C] → the same shape, whichever way the file stores the matrix. */
static struct tensor *project(const struct unet_call *c, const struct unet_pair *p,
                              const struct tensor *x)
{
    if (c->config->linear_projection)
        return op_linear(c->o, x, p->w, p->b, ACT_NONE);
    return op_conv2d(c->o, x, p->w, p->b, 1, none, ACT_NONE);
}

void unet_transformer_run(const struct unet_call *c, const struct unet_transformer *t,
                          struct tensor *x)
{
    struct ops *o = c->o;
    if (ops_error(o, NULL) != 0)
        return;
    int64_t b = tensor_dim(x, 0), height = tensor_dim(x, 1), width = tensor_dim(x, 2);
    ops_mark mark = ops_push(o);
    struct tensor *h = op_group_norm(o, x, c->config->groups, t->norm.w, t->norm.b,
                                     TRANSFORMER_NORM_EPS, ACT_NONE);
    h = ops_keep(o, mark, project(c, &t->in, h));
    struct tensor *tokens = op_reshape(o, h, SHAPE(b, height * width, t->width));
    enum dtype before = ops_set_results(o, DTYPE_BF16);
    for (int i = 0; i < t->count; i++) {
        const struct unet_transformer_block *y = &t->blocks[i];
        attend(c, t, &y->self, &y->norm1, tokens, NULL);
        attend(c, t, &y->text, &y->norm2, tokens, c->text);
        feed_forward(c, y, tokens);
    }
    ops_set_results(o, before);
    op_add_to(o, x, project(c, &t->out, h));
    ops_pop(o, mark);
}
