#include "engine/text/clip.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

struct clip_affine {
    struct tensor *w, *b;
};

struct clip_layer {
    struct clip_affine norm1, norm2;  /* [width] */
    struct clip_affine q, k, v, out;  /* [width, width], [width] */
    struct clip_affine first, second; /* [mlp, width], [mlp]; [width, mlp], [width] */
};

struct clip_text {
    int width, mlp, heads, layers, vocabulary, positions, projection;
    int32_t end; /* the id whose first place is pooled; LEGACY_END: the largest id's */
    enum activation act;
    float eps;
    struct tensor *tokens;            /* [vocabulary, width] */
    struct tensor *places;            /* [positions, width] */
    struct clip_affine final_norm;    /* [width] */
    struct tensor *projection_weight; /* [projection, width] */
    struct clip_layer *layer;
};

/* Configs from before transformers 4.31 state this wrong id; their end token is the largest. */
#define LEGACY_END 2

/* ---- loading ---- */

static int read_activation(struct clip_text *c, struct config *config, struct err *e)
{
    static const struct {
        const char *word;
        enum activation act;
    } known[] = {{"quick_gelu", ACT_QUICK_GELU}, {"gelu", ACT_GELU}};
    const char *word = config_string(config, "hidden_act", "quick_gelu");
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (strcmp(known[i].word, word) == 0) {
            c->act = known[i].act;
            return 0;
        }
    return err_set(e, -ENOTSUP,
                   "%s: hidden_act '%.40s' is not supported; there is: quick_gelu, gelu",
                   config_path(config), word);
}

static int read_config(struct clip_text *c, struct config *config, struct err *e)
{
    c->width = (int)config_int(config, "hidden_size", 512, 1, 1 << 16);
    c->mlp = (int)config_int(config, "intermediate_size", 2048, 1, 1 << 20);
    c->heads = (int)config_int(config, "num_attention_heads", 8, 1, 1024);
    c->layers = (int)config_int(config, "num_hidden_layers", 12, 1, 1024);
    c->vocabulary = (int)config_int(config, "vocab_size", 49408, 1, 1 << 24);
    c->positions = (int)config_int(config, "max_position_embeddings", 77, 3, 1 << 16);
    c->projection = (int)config_int(config, "projection_dim", 512, 1, 1 << 16);
    c->end = (int32_t)config_int(config, "eos_token_id", 49407, 0, 1 << 24);
    c->eps = (float)config_float(config, "layer_norm_eps", 1e-5, 0, 1);
    if (read_activation(c, config, e) != 0 || config_error(config, e) != 0)
        return e->code;
    if (c->width % c->heads != 0)
        return err_set(e, -EINVAL, "%s: hidden_size %d is not a multiple of the %d attention heads",
                       config_path(config), c->width, c->heads);
    return 0;
}

/* A projection [out, in], or a norm where `in` is 0. */
static struct clip_affine load_affine(struct weight_loader *l, int out, int in, int layer,
                                      const char *name)
{
    return (struct clip_affine){
        weight(l, in ? 2 : 1, (int64_t[]){out, in}, "encoder.layers.%d.%s.weight", layer, name),
        weight(l, SHAPE(out), "encoder.layers.%d.%s.bias", layer, name)};
}

static void load_layer(const struct clip_text *c, struct weight_loader *l, struct clip_layer *y,
                       int i)
{
    int w = c->width;
    y->norm1 = load_affine(l, w, 0, i, "layer_norm1");
    y->q = load_affine(l, w, w, i, "self_attn.q_proj");
    y->k = load_affine(l, w, w, i, "self_attn.k_proj");
    y->v = load_affine(l, w, w, i, "self_attn.v_proj");
    y->out = load_affine(l, w, w, i, "self_attn.out_proj");
    y->norm2 = load_affine(l, w, 0, i, "layer_norm2");
    y->first = load_affine(l, c->mlp, w, i, "mlp.fc1");
    y->second = load_affine(l, w, c->mlp, i, "mlp.fc2");
}

static int load_tensors(struct clip_text *c, struct part *p, struct err *e)
{
    struct weight_loader *l = &p->loader;
    c->layer = calloc((size_t)c->layers, sizeof(*c->layer));
    if (!c->layer)
        return err_nomem(e);
    c->projection_weight =
        weight_optional(l, SHAPE(c->projection, c->width), "text_projection.weight");
    if (!c->projection_weight)
        c->projection = 0;
    if (weights_find(p->weights, "text_model.embeddings.token_embedding.weight"))
        l->prefix = "text_model.";
    c->tokens = weight_table(l, c->vocabulary, c->width, "embeddings.token_embedding.weight");
    c->places = weight_table(l, c->positions, c->width, "embeddings.position_embedding.weight");
    for (int i = 0; i < c->layers && !l->err.code; i++)
        load_layer(c, l, &c->layer[i], i);
    c->final_norm.w = weight(l, SHAPE(c->width), "final_layer_norm.weight");
    c->final_norm.b = weight(l, SHAPE(c->width), "final_layer_norm.bias");
    l->prefix = NULL;
    if (l->err.code)
        return err_set(e, l->err.code, "%s", l->err.text);
    return 0;
}

int clip_text_load(struct part *p, struct clip_text **out, struct err *e)
{
    struct clip_text *c = calloc(1, sizeof(*c));
    if (!c)
        return err_nomem(e);
    int rc = read_config(c, p->config, e);
    if (rc == 0)
        rc = load_tensors(c, p, e);
    if (rc != 0) {
        clip_text_free(c);
        return rc;
    }
    *out = c;
    return 0;
}

void clip_text_free(struct clip_text *c)
{
    if (c)
        free(c->layer);
    free(c);
}

int clip_text_width(const struct clip_text *c)
{
    return c->width;
}

int clip_text_vocabulary(const struct clip_text *c)
{
    return c->vocabulary;
}

int clip_text_positions(const struct clip_text *c)
{
    return c->positions;
}

int clip_text_projection(const struct clip_text *c)
{
    return c->projection;
}

/* ---- running ---- */

static struct tensor *linear(struct ops *o, const struct tensor *x, const struct clip_affine *a,
                             enum activation act)
{
    return op_linear(o, x, a->w, a->b, act);
}

static struct tensor *norm(const struct clip_text *c, struct ops *o, const struct tensor *x,
                           const struct clip_affine *a)
{
    return op_layer_norm(o, x, a->w, a->b, c->eps);
}

/* x [1, T, width] += attention(norm(x)) */
static void attention(const struct clip_text *c, struct ops *o, const struct clip_layer *y,
                      struct tensor *x, int tokens)
{
    ops_mark mark = ops_push(o);
    int head = c->width / c->heads;
    struct tensor *n = norm(c, o, x, &y->norm1), *qkv[3];
    const struct clip_affine *from[3] = {&y->q, &y->k, &y->v};
    for (int i = 0; i < 3; i++)
        qkv[i] = op_reshape(o, linear(o, n, from[i], ACT_NONE), SHAPE(1, tokens, c->heads, head));
    struct attention_args args = {.scale = 1.0f / sqrtf((float)head), .causal = true};
    struct tensor *a = op_attention(o, qkv[0], qkv[1], qkv[2], &args);
    a = op_reshape(o, a, SHAPE(1, tokens, c->width));
    op_add_to(o, x, linear(o, a, &y->out, ACT_NONE));
    ops_pop(o, mark);
}

/* x [1, T, width] += mlp(norm(x)) */
static void mlp(const struct clip_text *c, struct ops *o, const struct clip_layer *y,
                struct tensor *x)
{
    ops_mark mark = ops_push(o);
    struct tensor *h = linear(o, norm(c, o, x, &y->norm2), &y->first, c->act);
    op_add_to(o, x, linear(o, h, &y->second, ACT_NONE));
    ops_pop(o, mark);
}

/* [1, T] → [1, T, width] */
static struct tensor *embed(const struct clip_text *c, struct ops *o, const int32_t *ids,
                            int tokens)
{
    AUTO_FREE int32_t *places = calloc((size_t)tokens, sizeof(*places));
    if (!places) {
        ops_fail(o, -ENOMEM, "not enough memory for the positions of %d tokens", tokens);
        return NULL;
    }
    for (int i = 0; i < tokens; i++)
        places[i] = i;
    struct tensor *x =
        op_embedding(o, c->tokens, op_from_host(o, DTYPE_I32, SHAPE(1, tokens), ids));
    op_add_to(o, x,
              op_embedding(o, c->places, op_from_host(o, DTYPE_I32, SHAPE(1, tokens), places)));
    return x;
}

/* The first end token; 0 without one, as the reference has it. */
static int end_place(const struct clip_text *c, const int32_t *ids, int tokens)
{
    int best = 0;
    for (int i = 0; i < tokens; i++) {
        if (c->end != LEGACY_END && ids[i] == c->end)
            return i;
        if (c->end == LEGACY_END && ids[i] > ids[best])
            best = i;
    }
    return best;
}

void clip_text_encode(const struct clip_text *c, struct ops *o, const int32_t *ids, int tokens,
                      unsigned wanted, struct clip_states *out)
{
    *out = (struct clip_states){0};
    if (wanted & CLIP_PENULTIMATE)
        out->penultimate = op_empty(o, DTYPE_F32, SHAPE(1, tokens, c->width));
    if (wanted & CLIP_LAST)
        out->last = op_empty(o, DTYPE_F32, SHAPE(1, tokens, c->width));
    if (wanted & CLIP_POOLED)
        out->pooled = op_empty(o, DTYPE_F32, SHAPE(1, c->projection));
    ops_mark mark = ops_push(o);
    struct tensor *x = embed(c, o, ids, tokens);
    /* The last layer is for those who look at its result. */
    int layers = wanted & (CLIP_LAST | CLIP_POOLED) ? c->layers : c->layers - 1;
    for (int i = 0; i < layers; i++) {
        if (i == c->layers - 1 && out->penultimate)
            op_copy(o, out->penultimate, x);
        attention(c, o, &c->layer[i], x, tokens);
        mlp(c, o, &c->layer[i], x);
    }
    if (layers < c->layers)
        op_copy(o, out->penultimate, x);
    else
        x = norm(c, o, x, &c->final_norm);
    if (out->last)
        op_copy(o, out->last, x);
    if (out->pooled) {
        struct tensor *row = op_slice(o, x, 1, end_place(c, ids, tokens), 1);
        row = op_reshape(o, row, SHAPE(1, c->width));
        op_copy(o, out->pooled, op_linear(o, row, c->projection_weight, NULL, ACT_NONE));
    }
    ops_pop(o, mark);
}
