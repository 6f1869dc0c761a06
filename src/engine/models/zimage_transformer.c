#include "engine/models/zimage_transformer.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/rope.h"

#define AXES        3    /* a position is (time, row, column) */
#define MULTIPLE    32   /* sequences are padded to it */
#define TIME_SINES  256  /* width of the timestep's sinusoid */
#define TIME_HIDDEN 1024 /* of the timestep's MLP */
#define MODULATION  256  /* width of what modulates, at most D */

struct block {
    struct tensor *q, *k, *v, *out;                 /* [D, D] */
    struct tensor *q_norm, *k_norm;                 /* [head] */
    struct tensor *w1, *w2, *w3;                    /* [F, D], [D, F], [F, D] */
    struct tensor *attention_norm[2], *ffn_norm[2]; /* [D]: before and after */
    struct tensor *modulation_w, *modulation_b;     /* [4D, MODULATION], [4D]; NULL: none */
};

struct zimage_transformer {
    int channels, patch, caption_width;
    int layers, refiners, heads;
    int64_t d, ffn, modulation;
    float eps, time_scale;
    struct rope rope;
    struct tensor *image_w, *image_b;         /* [D, patch²·channels], [D] */
    struct tensor *time_w[2], *time_b[2];     /* [1024, 256], [MODULATION, 1024] */
    struct tensor *caption_norm;              /* [caption_width] */
    struct tensor *caption_w, *caption_b;     /* [D, caption_width], [D] */
    struct tensor *final_mod_w, *final_mod_b; /* [D, MODULATION], [D] */
    struct tensor *out_w, *out_b;             /* [patch²·channels, D] */
    float *image_pad, *caption_pad;           /* [D] */
    struct block *noise_refiner, *context_refiner, *main;
};

/* ---- loading ---- */

static int first_of(struct config *c, const char *key, int fallback, int high)
{
    return config_length(c, key) < 1 ? fallback : (int)config_int_at(c, key, 0, 1, high);
}

static int read_config(struct zimage_transformer *t, struct config *c, struct err *e)
{
    static const int usual[AXES] = {32, 48, 48};
    int sum = 0;
    t->channels = (int)config_int(c, "in_channels", 16, 1, 4096);
    t->patch = first_of(c, "all_patch_size", 2, 16);
    int frames = first_of(c, "all_f_patch_size", 1, 16);
    t->d = config_int(c, "dim", 3840, 2, 1 << 16);
    t->layers = (int)config_int(c, "n_layers", 30, 0, 1024);
    t->refiners = (int)config_int(c, "n_refiner_layers", 2, 0, 1024);
    t->heads = (int)config_int(c, "n_heads", 30, 1, 1024);
    t->caption_width = (int)config_int(c, "cap_feat_dim", 2560, 1, 1 << 20);
    t->eps = (float)config_float(c, "norm_eps", 1e-5, 0, 1);
    t->time_scale = (float)config_float(c, "t_scale", 1000, 1e-3, 1e9);
    t->rope = (struct rope){.axes = AXES, .theta = config_float(c, "rope_theta", 256, 1, 1e12)};
    for (int i = 0; i < AXES; i++) {
        t->rope.dims[i] = config_length(c, "axes_dims") < 0
                              ? usual[i]
                              : (int)config_int_at(c, "axes_dims", i, 2, 4096);
        sum += t->rope.dims[i];
    }
    bool qk_norm = config_bool(c, "qk_norm", true);
    if (config_error(c, e) != 0)
        return e->code;
    if (!qk_norm || frames != 1)
        return err_set(e, -ENOTSUP, "%s: qk_norm must be true and all_f_patch_size 1",
                       config_path(c));
    if (t->d % t->heads || sum != t->d / t->heads)
        return err_set(e, -EINVAL, "%s: axes_dims add up to %d, expected dim/n_heads = %lld/%d",
                       config_path(c), sum, (long long)t->d, t->heads);
    t->ffn = (int64_t)((double)t->d / 3 * 8);
    t->modulation = t->d < MODULATION ? t->d : MODULATION;
    return 0;
}

static void load_block(const struct zimage_transformer *t, struct weight_loader *l, struct block *b,
                       const char *group, int i, bool modulated)
{
    int64_t d = t->d, f = t->ffn, head = d / t->heads;
#define NAMED(suffix) "%s.%d." suffix ".weight", group, i
    b->q = weight_linear(l, d, d, NAMED("attention.to_q"));
    b->k = weight_linear(l, d, d, NAMED("attention.to_k"));
    b->v = weight_linear(l, d, d, NAMED("attention.to_v"));
    b->out = weight_linear(l, d, d, NAMED("attention.to_out.0"));
    b->q_norm = weight(l, SHAPE(head), NAMED("attention.norm_q"));
    b->k_norm = weight(l, SHAPE(head), NAMED("attention.norm_k"));
    b->w1 = weight_linear(l, f, d, NAMED("feed_forward.w1"));
    b->w2 = weight_linear(l, d, f, NAMED("feed_forward.w2"));
    b->w3 = weight_linear(l, f, d, NAMED("feed_forward.w3"));
    b->attention_norm[0] = weight(l, SHAPE(d), NAMED("attention_norm1"));
    b->attention_norm[1] = weight(l, SHAPE(d), NAMED("attention_norm2"));
    b->ffn_norm[0] = weight(l, SHAPE(d), NAMED("ffn_norm1"));
    b->ffn_norm[1] = weight(l, SHAPE(d), NAMED("ffn_norm2"));
    if (modulated) {
        b->modulation_w = weight(l, SHAPE(4 * d, t->modulation), NAMED("adaLN_modulation.0"));
        b->modulation_b = weight(l, SHAPE(4 * d), "%s.%d.adaLN_modulation.0.bias", group, i);
    }
#undef NAMED
}

static struct block *load_blocks(const struct zimage_transformer *t, struct weight_loader *l,
                                 const char *group, int count, bool modulated)
{
    struct block *b = calloc((size_t)count + 1, sizeof *b);
    if (!b)
        err_nomem(&l->err);
    for (int i = 0; i < count && !l->err.code; i++)
        load_block(t, l, &b[i], group, i, modulated);
    return b;
}

/* What stands in the rows that pad a sequence; [1, D] in the file. */
static float *load_pad(const struct zimage_transformer *t, struct weight_loader *l,
                       const char *name)
{
    float *row = calloc((size_t)t->d, sizeof *row);
    if (!row)
        err_nomem(&l->err);
    else if (weight(l, SHAPE(1, t->d), "%s", name) && !l->shapes_only)
        weight_to_f32(l, row, t->d, "%s", name);
    return row;
}

static void load_ends(struct zimage_transformer *t, struct weight_loader *l)
{
    int64_t d = t->d, m = t->modulation, token = (int64_t)t->patch * t->patch * t->channels;
    int p = t->patch; /* tensors of one patch size are named by it: "2-1" */
    t->image_w = weight(l, SHAPE(d, token), "all_x_embedder.%d-1.weight", p);
    t->image_b = weight(l, SHAPE(d), "all_x_embedder.%d-1.bias", p);
    t->time_w[0] = weight(l, SHAPE(TIME_HIDDEN, TIME_SINES), "t_embedder.mlp.0.weight");
    t->time_b[0] = weight(l, SHAPE(TIME_HIDDEN), "t_embedder.mlp.0.bias");
    t->time_w[1] = weight(l, SHAPE(m, TIME_HIDDEN), "t_embedder.mlp.2.weight");
    t->time_b[1] = weight(l, SHAPE(m), "t_embedder.mlp.2.bias");
    t->caption_norm = weight(l, SHAPE(t->caption_width), "cap_embedder.0.weight");
    t->caption_w = weight(l, SHAPE(d, t->caption_width), "cap_embedder.1.weight");
    t->caption_b = weight(l, SHAPE(d), "cap_embedder.1.bias");
    t->final_mod_w = weight(l, SHAPE(d, m), "all_final_layer.%d-1.adaLN_modulation.1.weight", p);
    t->final_mod_b = weight(l, SHAPE(d), "all_final_layer.%d-1.adaLN_modulation.1.bias", p);
    t->out_w = weight(l, SHAPE(token, d), "all_final_layer.%d-1.linear.weight", p);
    t->out_b = weight(l, SHAPE(token), "all_final_layer.%d-1.linear.bias", p);
    t->image_pad = load_pad(t, l, "x_pad_token");
    t->caption_pad = load_pad(t, l, "cap_pad_token");
}

int zimage_transformer_load(struct part *p, struct zimage_transformer **out, struct err *e)
{
    struct zimage_transformer *t = calloc(1, sizeof *t);
    struct weight_loader *l = &p->loader;
    if (!t)
        return err_nomem(e);
    int code = read_config(t, p->config, e);
    if (!code) {
        load_ends(t, l);
        t->noise_refiner = load_blocks(t, l, "noise_refiner", t->refiners, true);
        t->context_refiner = load_blocks(t, l, "context_refiner", t->refiners, false);
        t->main = load_blocks(t, l, "layers", t->layers, true);
        if (l->err.code)
            code = err_set(e, l->err.code, "%s", l->err.text);
    }
    if (code)
        zimage_transformer_free(t);
    else
        *out = t;
    return code;
}

void zimage_transformer_free(struct zimage_transformer *t)
{
    if (!t)
        return;
    free(t->noise_refiner);
    free(t->context_refiner);
    free(t->main);
    free(t->image_pad);
    free(t->caption_pad);
    free(t);
}

int zimage_transformer_channels(const struct zimage_transformer *t)
{
    return t->channels;
}

int zimage_transformer_patch(const struct zimage_transformer *t)
{
    return t->patch;
}

int zimage_transformer_caption_width(const struct zimage_transformer *t)
{
    return t->caption_width;
}

/* ---- running ---- */

static int64_t padded(int64_t tokens)
{
    return (tokens + MULTIPLE - 1) / MULTIPLE * MULTIPLE;
}

/* The image comes after the caption in time; image pads stand at the origin. */
void zimage_transformer_tables(const struct zimage_transformer *t, struct ops *o, int64_t h,
                               int64_t w, int64_t rows, struct tensor **cos, struct tensor **sin)
{
    int64_t image = padded(h * w), caption = padded(rows);
    AUTO_FREE float *positions = calloc((size_t)(image + caption), AXES * sizeof *positions);
    if (!positions) {
        ops_fail(o, -ENOMEM, "not enough memory for the positions of %lld tokens",
                 (long long)(image + caption));
        return;
    }
    for (int64_t i = 0; i < h * w; i++) {
        positions[AXES * i] = (float)(caption + 1);
        positions[AXES * i + 1] = (float)(i / w);
        positions[AXES * i + 2] = (float)(i % w);
    }
    for (int64_t j = 0; j < caption; j++)
        positions[AXES * (image + j)] = (float)(1 + j);
    rope_tables(o, &t->rope, positions, image + caption, cos, sin);
}

/* scale and gate of the attention and of the feed-forward, each [1, D]; NULL where unmodulated. */
struct modulation {
    struct tensor *scale[2], *gate[2];
};

static struct modulation modulation(const struct zimage_transformer *t, struct ops *o,
                                    const struct block *b, const struct tensor *time)
{
    struct modulation m = {0};
    if (!b->modulation_w)
        return m;
    struct tensor *all = op_linear(o, time, b->modulation_w, b->modulation_b, ACT_NONE);
    for (int i = 0; i < 2; i++) {
        struct tensor *scale = op_slice(o, all, 1, 2 * i * t->d, t->d);
        m.scale[i] = op_reshape(o, op_affine(o, scale, 1, 1), SHAPE(t->d));
        m.gate[i] = op_act(o, op_slice(o, all, 1, (2 * i + 1) * t->d, t->d), ACT_TANH);
    }
    return m;
}

static struct tensor *scaled_norm(const struct zimage_transformer *t, struct ops *o,
                                  const struct tensor *x, const struct tensor *w,
                                  const struct tensor *scale)
{
    struct tensor *n = op_rms_norm(o, x, w, t->eps);
    return scale ? op_mul(o, n, scale) : n;
}

/* x += gate · norm(y). */
static void add_normed(const struct zimage_transformer *t, struct ops *o, struct tensor *x,
                       const struct tensor *y, const struct tensor *w, const struct tensor *gate)
{
    struct tensor *n = op_rms_norm(o, y, w, t->eps);
    if (gate)
        op_gated_add_to(o, x, gate, n);
    else
        op_add_to(o, x, n);
}

/* [B, T, D] → heads [B, T, H, d], normalised and turned where there is a norm. */
static struct tensor *heads(const struct zimage_transformer *t, struct ops *o,
                            const struct tensor *x, const struct tensor *w,
                            const struct tensor *norm, const struct tensor *cos,
                            const struct tensor *sin)
{
    struct tensor *y = op_linear(o, x, w, NULL, ACT_NONE);
    if (!y)
        return NULL;
    y = op_reshape(o, y, SHAPE(tensor_dim(x, 0), tensor_dim(x, 1), t->heads, t->d / t->heads));
    return norm ? op_rope(o, op_rms_norm(o, y, norm, t->eps), cos, sin, true) : y;
}

static void attend(const struct zimage_transformer *t, struct ops *o, const struct block *b,
                   struct tensor *x, const struct modulation *m, const struct tensor *cos,
                   const struct tensor *sin)
{
    struct attention_args args = {.scale = 1.0f / sqrtf((float)(t->d / t->heads))};
    struct tensor *n = scaled_norm(t, o, x, b->attention_norm[0], m->scale[0]);
    struct tensor *q = heads(t, o, n, b->q, b->q_norm, cos, sin);
    struct tensor *k = heads(t, o, n, b->k, b->k_norm, cos, sin);
    struct tensor *a = op_attention(o, q, k, heads(t, o, n, b->v, NULL, NULL, NULL), &args);
    if (!a)
        return;
    a = op_reshape(o, a, SHAPE(tensor_dim(x, 0), tensor_dim(x, 1), t->d));
    a = op_linear(o, a, b->out, NULL, ACT_NONE);
    add_normed(t, o, x, a, b->attention_norm[1], m->gate[0]);
}

static void feed_forward(const struct zimage_transformer *t, struct ops *o, const struct block *b,
                         struct tensor *x, const struct modulation *m)
{
    struct tensor *n = scaled_norm(t, o, x, b->ffn_norm[0], m->scale[1]);
    struct tensor *h = op_linear(o, n, b->w1, NULL, ACT_SILU);
    h = op_mul(o, h, op_linear(o, n, b->w3, NULL, ACT_NONE));
    add_normed(t, o, x, op_linear(o, h, b->w2, NULL, ACT_NONE), b->ffn_norm[1], m->gate[1]);
}

static void run_blocks(const struct zimage_transformer *t, struct ops *o, const struct block *b,
                       int count, struct tensor *x, const struct tensor *time,
                       const struct tensor *cos, const struct tensor *sin)
{
    for (int i = 0; i < count && x; i++) {
        ops_mark mark = ops_push(o);
        struct modulation m = modulation(t, o, &b[i], time);
        enum dtype before = ops_set_results(o, DTYPE_BF16);
        ops_mark half = ops_push(o);
        attend(t, o, &b[i], x, &m, cos, sin);
        ops_pop(o, half);
        feed_forward(t, o, &b[i], x, &m);
        ops_set_results(o, before);
        ops_pop(o, mark);
    }
}

/* Rows [B, n, D] and behind them the pad row, up to the multiple. */
static struct tensor *pad_rows(const struct zimage_transformer *t, struct ops *o,
                               const struct tensor *rows, const float *pad)
{
    if (!rows)
        return NULL;
    int64_t batch = tensor_dim(rows, 0), n = tensor_dim(rows, 1), all = padded(n);
    struct tensor *y = op_empty(o, DTYPE_F32, SHAPE(batch, all, t->d));
    ops_mark mark = ops_push(o);
    op_copy(o, op_slice(o, y, 1, 0, n), rows);
    if (all > n) {
        struct tensor *row = op_from_host(o, DTYPE_F32, SHAPE(t->d), pad);
        struct tensor *zeros = op_zeros(o, DTYPE_F32, SHAPE(batch, all - n, t->d));
        op_copy(o, op_slice(o, y, 1, n, all - n), op_add(o, zeros, row));
    }
    ops_pop(o, mark);
    return y;
}

struct tensor *zimage_transformer_caption(const struct zimage_transformer *t, struct ops *o,
                                          const struct tensor *caption, const struct tensor *cos,
                                          const struct tensor *sin)
{
    ops_mark mark = ops_push(o);
    struct tensor *x = op_rms_norm(o, caption, t->caption_norm, t->eps);
    x = op_linear(o, x, t->caption_w, t->caption_b, ACT_NONE);
    x = ops_pop_keep(o, mark, pad_rows(t, o, x, t->caption_pad));
    if (!x)
        return NULL;
    int64_t rows = tensor_dim(x, 1), image = tensor_dim(cos, 0) - rows;
    run_blocks(t, o, t->context_refiner, t->refiners, x, NULL, op_slice(o, cos, 0, image, rows),
               op_slice(o, sin, 0, image, rows));
    return x;
}

/* [B, H, W, C] → tokens [B, H/p·W/p, p·p·C]: rows, columns, then channels within a patch. */
static struct tensor *patches(const struct zimage_transformer *t, struct ops *o,
                              const struct tensor *x, int64_t h, int64_t w)
{
    static const int axes[5] = {0, 1, 3, 2, 4};
    int64_t b = tensor_dim(x, 0), p = t->patch, c = t->channels;
    struct tensor *y = op_reshape(o, x, SHAPE(b, h, p, w, p * c));
    return op_reshape(o, op_permute(o, y, axes), SHAPE(b, h * w, p * p * c));
}

static struct tensor *unpatched(const struct zimage_transformer *t, struct ops *o,
                                const struct tensor *x, int64_t h, int64_t w)
{
    static const int axes[5] = {0, 1, 3, 2, 4};
    if (!x)
        return NULL;
    int64_t b = tensor_dim(x, 0), p = t->patch, c = t->channels;
    struct tensor *y = op_permute(o, op_reshape(o, x, SHAPE(b, h, w, p, p * c)), axes);
    return op_reshape(o, y, SHAPE(b, h * p, w * p, c));
}

static struct tensor *time_embedding(const struct zimage_transformer *t, struct ops *o, float time)
{
    float scaled = time * t->time_scale;
    struct tensor *e = op_from_host(o, DTYPE_F32, SHAPE(1), &scaled);
    e = op_timestep_embedding(o, e, TIME_SINES, true, 0);
    e = op_linear(o, e, t->time_w[0], t->time_b[0], ACT_SILU);
    return op_linear(o, e, t->time_w[1], t->time_b[1], ACT_NONE);
}

/* The last norm has an epsilon of its own. */
static struct tensor *head_out(const struct zimage_transformer *t, struct ops *o,
                               const struct tensor *x, const struct tensor *time)
{
    struct tensor *scale =
        op_linear(o, op_act(o, time, ACT_SILU), t->final_mod_w, t->final_mod_b, ACT_NONE);
    struct tensor *shift = op_zeros(o, DTYPE_F32, SHAPE(1, t->d));
    return op_linear(o, op_modulated_norm(o, x, shift, scale, 1e-6f), t->out_w, t->out_b, ACT_NONE);
}

struct tensor *zimage_transformer_forward(const struct zimage_transformer *t, struct ops *o,
                                          const struct tensor *x, const struct tensor *caption,
                                          const struct tensor *cos, const struct tensor *sin,
                                          float time)
{
    if (ops_error(o, NULL) != 0)
        return NULL;
    int64_t b = tensor_dim(x, 0), h = tensor_dim(x, 1) / t->patch, w = tensor_dim(x, 2) / t->patch;
    int64_t image = padded(h * w), rows = tensor_dim(caption, 1);
    ops_mark mark = ops_push(o);
    struct tensor *c = time_embedding(t, o, time);
    struct tensor *all = op_empty(o, DTYPE_F32, SHAPE(b, image + rows, t->d));
    ops_mark inner = ops_push(o);
    struct tensor *tokens = op_linear(o, patches(t, o, x, h, w), t->image_w, t->image_b, ACT_NONE);
    tokens = pad_rows(t, o, tokens, t->image_pad);
    run_blocks(t, o, t->noise_refiner, t->refiners, tokens, c, op_slice(o, cos, 0, 0, image),
               op_slice(o, sin, 0, 0, image));
    op_copy(o, op_slice(o, all, 1, 0, image), tokens);
    op_copy(o, op_slice(o, all, 1, image, rows), caption);
    ops_pop(o, inner);
    run_blocks(t, o, t->main, t->layers, all, c, cos, sin);
    struct tensor *y = head_out(t, o, op_slice(o, all, 1, 0, h * w), c);
    return ops_pop_keep(o, mark, unpatched(t, o, y, h, w));
}
