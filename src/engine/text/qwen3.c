#include "engine/text/qwen3.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/rope.h"

struct qwen3_layer {
    struct tensor *input_norm;      /* [width] */
    struct tensor *q, *k, *v;       /* [heads·head, width], [groups·head, width] twice */
    struct tensor *biases[3];       /* of q, k, v; NULL where there are none */
    struct tensor *q_norm, *k_norm; /* [head] */
    struct tensor *out, *out_bias;  /* [width, heads·head], [width] or NULL */
    struct tensor *mlp_norm;        /* [width] */
    struct tensor *gate, *up;       /* [mlp, width] */
    struct tensor *down;            /* [width, mlp] */
};

struct qwen3 {
    int width, mlp, heads, groups, head, vocabulary;
    int config_layers; /* of the checkpoint */
    int layers;        /* loaded */
    float eps;
    double theta;
    double stretch; /* of positions: each counts 1/stretch */
    bool biased;
    struct qwen3_taken taken;
    struct tensor *embedding;  /* [vocabulary, width] */
    struct tensor *final_norm; /* [width], NULL when not taken */
    struct qwen3_layer *layer;
};

/* Positions as they are, or all of them closer together. Old files say rope_scaling and type. */
static int read_rope(struct qwen3 *q, struct config *c, struct err *e)
{
    const char *at = config_has(c, "rope_scaling") ? "rope_scaling" : "rope_parameters";
    char key[3][32];
    snprintf(key[0], sizeof key[0], "%s.rope_type", at);
    snprintf(key[1], sizeof key[1], "%s.type", at);
    snprintf(key[2], sizeof key[2], "%s.factor", at);
    const char *theta = config_has(c, "rope_theta") ? "rope_theta" : "rope_parameters.rope_theta";
    const char *type = config_string(c, key[0], config_string(c, key[1], "default"));
    bool linear = strcmp(type, "linear") == 0;
    q->theta = config_float(c, theta, NAN, 1, 1e12);
    q->stretch = linear ? config_float(c, key[2], 1, 1e-3, 1e6) : 1;
    if (config_error(c, e) != 0)
        return e->code;
    if (isnan(q->theta))
        return err_set(e, -EINVAL, "%s: neither rope_theta nor rope_parameters.rope_theta is there",
                       config_path(c));
    return linear || strcmp(type, "default") == 0
               ? 0
               : err_set(e, -ENOTSUP,
                         "%s: rope type '%.40s' is not supported; there is: default, linear",
                         config_path(c), type);
}

static int check_fixed(struct config *c, struct err *e)
{
    const char *act = config_string(c, "hidden_act", "silu");
    if (strcmp(act, "silu") != 0)
        return err_set(e, -ENOTSUP, "%s: hidden_act '%.40s' is not supported; expected silu",
                       config_path(c), act);
    if (config_bool(c, "use_sliding_window", false))
        return err_set(e, -ENOTSUP, "%s: use_sliding_window is true, which is not supported",
                       config_path(c));
    for (int i = 0; i < config_length(c, "layer_types"); i++)
        if (strcmp(config_string_at(c, "layer_types", i), "full_attention") != 0)
            return err_set(e, -ENOTSUP,
                           "%s: layer_types holds '%.40s', which is not supported; expected "
                           "full_attention",
                           config_path(c), config_string_at(c, "layer_types", i));
    return config_error(c, e);
}

static int read_config(struct qwen3 *q, struct config *c, struct err *e)
{
    q->width = (int)config_int(c, "hidden_size", CONFIG_REQUIRED, 1, 1 << 16);
    q->mlp = (int)config_int(c, "intermediate_size", CONFIG_REQUIRED, 1, 1 << 20);
    q->heads = (int)config_int(c, "num_attention_heads", CONFIG_REQUIRED, 1, 1024);
    q->groups = (int)config_int(c, "num_key_value_heads", q->heads, 1, 1024);
    q->head = (int)config_int(c, "head_dim", q->heads > 0 ? q->width / q->heads : 1, 2, 4096);
    q->vocabulary = (int)config_int(c, "vocab_size", CONFIG_REQUIRED, 1, 1 << 24);
    q->config_layers = (int)config_int(c, "num_hidden_layers", CONFIG_REQUIRED, 1, 4096);
    q->eps = (float)config_float(c, "rms_norm_eps", 1e-6, 0, 1);
    q->biased = config_bool(c, "attention_bias", false);
    if (read_rope(q, c, e) != 0 || check_fixed(c, e) != 0)
        return e->code;
    if (q->heads % q->groups || q->head % 2)
        return err_set(e, -EINVAL,
                       "%s: %d heads of %d in %d groups do not fit together: heads must be "
                       "a multiple of the groups, the head's size even",
                       config_path(c), q->heads, q->head, q->groups);
    return 0;
}

static int resolve_taken(struct qwen3 *q, struct qwen3_taken *taken, const char *where,
                         struct err *e)
{
    for (int i = 0; i < taken->count; i++) {
        int k = taken->layer[i];
        if (k < 0)
            k += q->config_layers + 1;
        if (k < 0 || k > q->config_layers)
            return err_set(e, -EINVAL,
                           "%s: hidden state %d is asked for, but with %d layers there are "
                           "0 … %d",
                           where, taken->layer[i], q->config_layers, q->config_layers);
        taken->layer[i] = k;
        if (k > q->layers)
            q->layers = k;
    }
    q->taken = *taken;
    return 0;
}

static void load_layer(const struct qwen3 *q, struct weight_loader *l, struct qwen3_layer *y, int i)
{
    int64_t w = q->width, qw = (int64_t)q->heads * q->head, kw = (int64_t)q->groups * q->head;
    y->input_norm = weight(l, SHAPE(w), "layers.%d.input_layernorm.weight", i);
    y->q = weight(l, SHAPE(qw, w), "layers.%d.self_attn.q_proj.weight", i);
    y->k = weight(l, SHAPE(kw, w), "layers.%d.self_attn.k_proj.weight", i);
    y->v = weight(l, SHAPE(kw, w), "layers.%d.self_attn.v_proj.weight", i);
    static const char *const names[3] = {"q", "k", "v"};
    for (int n = 0; n < 3 && q->biased; n++)
        y->biases[n] =
            weight(l, SHAPE(n ? kw : qw), "layers.%d.self_attn.%s_proj.bias", i, names[n]);
    if (q->biased)
        y->out_bias = weight(l, SHAPE(w), "layers.%d.self_attn.o_proj.bias", i);
    y->q_norm = weight(l, SHAPE(q->head), "layers.%d.self_attn.q_norm.weight", i);
    y->k_norm = weight(l, SHAPE(q->head), "layers.%d.self_attn.k_norm.weight", i);
    y->out = weight(l, SHAPE(w, qw), "layers.%d.self_attn.o_proj.weight", i);
    y->mlp_norm = weight(l, SHAPE(w), "layers.%d.post_attention_layernorm.weight", i);
    y->gate = weight(l, SHAPE(q->mlp, w), "layers.%d.mlp.gate_proj.weight", i);
    y->up = weight(l, SHAPE(q->mlp, w), "layers.%d.mlp.up_proj.weight", i);
    y->down = weight(l, SHAPE(w, q->mlp), "layers.%d.mlp.down_proj.weight", i);
}

static int load_tensors(struct qwen3 *q, struct part *p, struct err *e)
{
    struct weight_loader *l = &p->loader;
    if (weights_find(p->weights, "model.embed_tokens.weight"))
        l->prefix = "model.";
    q->layer = calloc((size_t)q->layers + 1, sizeof(*q->layer));
    if (!q->layer)
        return err_nomem(e);
    q->embedding = weight_table(l, q->vocabulary, q->width, "embed_tokens.weight");
    for (int i = 0; i < q->layers && !l->err.code; i++)
        load_layer(q, l, &q->layer[i], i);
    if (q->layers == q->config_layers)
        q->final_norm = weight(l, SHAPE(q->width), "norm.weight");
    if (l->err.code)
        return err_set(e, l->err.code, "%s", l->err.text);
    return 0;
}

int qwen3_load(struct part *p, struct qwen3_taken *taken, struct qwen3 **out, struct err *e)
{
    struct qwen3 *q = calloc(1, sizeof(*q));
    if (!q)
        return err_nomem(e);
    int rc = read_config(q, p->config, e);
    if (rc == 0)
        rc = resolve_taken(q, taken, config_path(p->config), e);
    if (rc == 0)
        rc = load_tensors(q, p, e);
    if (rc != 0) {
        qwen3_free(q);
        return rc;
    }
    *out = q;
    return 0;
}

void qwen3_free(struct qwen3 *q)
{
    if (q)
        free(q->layer);
    free(q);
}

int qwen3_width(const struct qwen3 *q)
{
    return q->width;
}

int qwen3_vocabulary(const struct qwen3 *q)
{
    return q->vocabulary;
}

/* What is the same for every layer of one call. */
struct qwen3_call {
    const struct qwen3 *q;
    struct ops *o;
    int tokens;
    struct tensor *cos, *sin; /* [tokens, head/2] */
    struct tensor *mask;      /* I32 [1, tokens] */
};

/* [1, T, width] → heads [1, T, n, head], normalised and turned by position. */
static struct tensor *heads(const struct qwen3_call *c, const struct tensor *x,
                            const struct tensor *w, const struct tensor *bias,
                            const struct tensor *norm, int n)
{
    struct ops *o = c->o;
    struct tensor *y = op_linear(o, x, w, bias, ACT_NONE);
    y = op_reshape(o, y, SHAPE(1, c->tokens, n, c->q->head));
    y = op_rms_norm(o, y, norm, c->q->eps);
    return op_rope(o, y, c->cos, c->sin, false);
}

static void attention(const struct qwen3_call *c, const struct qwen3_layer *y, struct tensor *x)
{
    const struct qwen3 *q = c->q;
    struct ops *o = c->o;
    ops_mark mark = ops_push(o);
    struct tensor *n = op_rms_norm(o, x, y->input_norm, q->eps);
    struct tensor *query = heads(c, n, y->q, y->biases[0], y->q_norm, q->heads);
    struct tensor *key = heads(c, n, y->k, y->biases[1], y->k_norm, q->groups);
    struct tensor *value = op_linear(o, n, y->v, y->biases[2], ACT_NONE);
    value = op_reshape(o, value, SHAPE(1, c->tokens, q->groups, q->head));
    struct attention_args args = {
        .scale = 1.0f / sqrtf((float)q->head), .causal = true, .key_mask = c->mask};
    struct tensor *a = op_attention(o, query, key, value, &args);
    a = op_reshape(o, a, SHAPE(1, c->tokens, (int64_t)q->heads * q->head));
    op_add_to(o, x, op_linear(o, a, y->out, y->out_bias, ACT_NONE));
    ops_pop(o, mark);
}

static void mlp(const struct qwen3_call *c, const struct qwen3_layer *y, struct tensor *x)
{
    struct ops *o = c->o;
    ops_mark mark = ops_push(o);
    struct tensor *n = op_rms_norm(o, x, y->mlp_norm, c->q->eps);
    struct tensor *gate = op_linear(o, n, y->gate, NULL, ACT_SILU);
    struct tensor *h = op_mul(o, gate, op_linear(o, n, y->up, NULL, ACT_NONE));
    op_add_to(o, x, op_linear(o, h, y->down, NULL, ACT_NONE));
    ops_pop(o, mark);
}

/* Copies hidden state k, as it now stands in x, to its places in the result. */
static void take(const struct qwen3_call *c, struct tensor *result, const struct tensor *x, int k)
{
    const struct qwen3 *q = c->q;
    for (int i = 0; i < q->taken.count; i++) {
        if (q->taken.layer[i] != k)
            continue;
        ops_mark mark = ops_push(c->o);
        const struct tensor *h =
            k == q->config_layers ? op_rms_norm(c->o, x, q->final_norm, q->eps) : x;
        op_copy(c->o, op_slice(c->o, result, 2, (int64_t)i * q->width, q->width), h);
        ops_pop(c->o, mark);
    }
}

static void tables(struct qwen3_call *c, const int32_t *mask)
{
    struct rope rope = {.axes = 1, .dims = {c->q->head}, .theta = c->q->theta};
    AUTO_FREE float *positions = calloc((size_t)c->tokens, sizeof(*positions));
    if (!positions) {
        ops_fail(c->o, -ENOMEM, "not enough memory for the positions of %d tokens", c->tokens);
        return;
    }
    for (int i = 0; i < c->tokens; i++)
        positions[i] = (float)(i / c->q->stretch);
    rope_tables(c->o, &rope, positions, c->tokens, &c->cos, &c->sin);
    c->mask = op_from_host(c->o, DTYPE_I32, SHAPE(1, c->tokens), mask);
}

struct tensor *qwen3_encode(const struct qwen3 *q, struct ops *o, const int32_t *ids,
                            const int32_t *mask, int tokens)
{
    struct tensor *result =
        op_empty(o, DTYPE_F32, SHAPE(1, tokens, (int64_t)q->taken.count * q->width));
    ops_mark mark = ops_push(o);
    struct qwen3_call c = {.q = q, .o = o, .tokens = tokens};
    tables(&c, mask);
    struct tensor *x =
        op_embedding(o, q->embedding, op_from_host(o, DTYPE_I32, SHAPE(1, tokens), ids));
    take(&c, result, x, 0);
    for (int i = 0; i < q->layers; i++) {
        attention(&c, &q->layer[i], x);
        mlp(&c, &q->layer[i], x);
        take(&c, result, x, i + 1);
    }
    ops_pop(o, mark);
    return result;
}
