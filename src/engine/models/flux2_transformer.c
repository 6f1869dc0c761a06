#include "engine/models/flux2_transformer.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "engine/rope.h"

/* Attention weights of one stream of a double block: D×D products, norms [head]. */
struct stream {
    struct tensor *q, *k, *v, *out;
    struct tensor *q_norm, *k_norm;
    struct tensor *ff_in;  /* [2M, D]: the gate first */
    struct tensor *ff_out; /* [D, M] */
};

struct double_block {
    struct stream image, text;
};

struct single_block {
    struct tensor *in;  /* [3D + 2M, D]: q, k, v, gate, value */
    struct tensor *out; /* [D, D + M] */
    struct tensor *q_norm, *k_norm;
};

struct flux2_transformer {
    int channels, out_channels, text_width;
    int doubles, singles;
    int heads, head; /* D = heads·head */
    int64_t d, m;    /* width, width of the gated MLP */
    int time_width;
    float eps;
    struct rope rope;
    struct tensor *image_in;             /* [D, channels] */
    struct tensor *text_in;              /* [D, text_width] */
    struct tensor *time_1, *time_2;      /* [D, time_width], [D, D] */
    struct tensor *mod_image, *mod_text; /* [6D, D] */
    struct tensor *mod_single;           /* [3D, D] */
    struct tensor *norm_out;             /* [2D, D]: scale first */
    struct tensor *out;                  /* [out_channels, D] */
    struct double_block *doubly;
    struct single_block *singly;
};

/* ---- loading ---- */

static int read_axes(struct flux2_transformer *t, struct config *c, struct err *e)
{
    t->rope.axes = FLUX2_AXES;
    t->rope.theta = config_float(c, "rope_theta", 2000, 1, 1e12);
    int sum = 0, length = config_length(c, "axes_dims_rope");
    for (int i = 0; i < FLUX2_AXES; i++) {
        t->rope.dims[i] = length < 0 ? 32 : (int)config_int_at(c, "axes_dims_rope", i, 2, 4096);
        sum += t->rope.dims[i];
        if (t->rope.dims[i] % 2)
            return err_set(e, -EINVAL, "%s: axes_dims_rope must be even numbers", config_path(c));
    }
    if (config_error(c, e) != 0)
        return e->code;
    if (sum != t->head)
        return err_set(e, -EINVAL,
                       "%s: axes_dims_rope add up to %d, expected attention_head_dim %d",
                       config_path(c), sum, t->head);
    return 0;
}

static int read_config(struct flux2_transformer *t, struct config *c, struct err *e)
{
    int patch = (int)config_int(c, "patch_size", 1, 1, 1);
    t->channels = (int)config_int(c, "in_channels", 128, 1, 1 << 16);
    t->out_channels = (int)config_int(c, "out_channels", t->channels, 1, 1 << 16);
    t->text_width = (int)config_int(c, "joint_attention_dim", 15360, 1, 1 << 20);
    t->doubles = (int)config_int(c, "num_layers", 8, 0, 1024);
    t->singles = (int)config_int(c, "num_single_layers", 48, 0, 1024);
    t->heads = (int)config_int(c, "num_attention_heads", 48, 1, 1024);
    t->head = (int)config_int(c, "attention_head_dim", 128, 2, 4096);
    t->time_width = (int)config_int(c, "timestep_guidance_channels", 256, 2, 1 << 16);
    t->eps = (float)config_float(c, "eps", 1e-6, 0, 1);
    double ratio = config_float(c, "mlp_ratio", 3, 0.01, 64);
    bool embedded = config_bool(c, "guidance_embeds", false);
    t->d = (int64_t)t->heads * t->head;
    t->m = (int64_t)((double)t->d * ratio);
    if (config_error(c, e) != 0)
        return e->code;
    if (embedded)
        return err_set(e, -EINVAL,
                       "%s: guidance_embeds is true: this is FLUX.2 [dev], only [klein] is known",
                       config_path(c));
    if (t->out_channels != t->channels * patch)
        return err_set(e, -EINVAL, "%s: out_channels %d differ from in_channels %d", config_path(c),
                       t->out_channels, t->channels);
    return read_axes(t, c, e);
}

static void load_double(const struct flux2_transformer *t, struct weight_loader *l,
                        struct double_block *b, int i)
{
    static const struct {
        const char *q, *k, *v, *out, *q_norm, *k_norm, *ff;
    } names[2] = {
        {"to_q", "to_k", "to_v", "to_out.0", "norm_q", "norm_k", "ff"},
        {"add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "norm_added_q", "norm_added_k",
         "ff_context"},
    };
    struct stream *streams[2] = {&b->image, &b->text};
    int64_t d = t->d, m = t->m;
    for (int n = 0; n < 2; n++) {
        struct stream *s = streams[n];
        s->q = weight_linear(l, d, d, "transformer_blocks.%d.attn.%s.weight", i, names[n].q);
        s->k = weight_linear(l, d, d, "transformer_blocks.%d.attn.%s.weight", i, names[n].k);
        s->v = weight_linear(l, d, d, "transformer_blocks.%d.attn.%s.weight", i, names[n].v);
        s->out = weight_linear(l, d, d, "transformer_blocks.%d.attn.%s.weight", i, names[n].out);
        s->q_norm =
            weight(l, SHAPE(t->head), "transformer_blocks.%d.attn.%s.weight", i, names[n].q_norm);
        s->k_norm =
            weight(l, SHAPE(t->head), "transformer_blocks.%d.attn.%s.weight", i, names[n].k_norm);
        s->ff_in =
            weight_linear(l, 2 * m, d, "transformer_blocks.%d.%s.linear_in.weight", i, names[n].ff);
        s->ff_out =
            weight_linear(l, d, m, "transformer_blocks.%d.%s.linear_out.weight", i, names[n].ff);
    }
}

static void load_single(const struct flux2_transformer *t, struct weight_loader *l,
                        struct single_block *b, int i)
{
    int64_t d = t->d, m = t->m;
    b->in = weight_linear(l, 3 * d + 2 * m, d,
                          "single_transformer_blocks.%d.attn.to_qkv_mlp_proj.weight", i);
    b->out = weight_linear(l, d, d + m, "single_transformer_blocks.%d.attn.to_out.weight", i);
    b->q_norm = weight(l, SHAPE(t->head), "single_transformer_blocks.%d.attn.norm_q.weight", i);
    b->k_norm = weight(l, SHAPE(t->head), "single_transformer_blocks.%d.attn.norm_k.weight", i);
}

static void load_ends(struct flux2_transformer *t, struct weight_loader *l)
{
    int64_t d = t->d;
    t->image_in = weight(l, SHAPE(d, t->channels), "x_embedder.weight");
    t->text_in = weight(l, SHAPE(d, t->text_width), "context_embedder.weight");
    t->time_1 =
        weight(l, SHAPE(d, t->time_width), "time_guidance_embed.timestep_embedder.linear_1.weight");
    t->time_2 = weight(l, SHAPE(d, d), "time_guidance_embed.timestep_embedder.linear_2.weight");
    t->mod_image = weight(l, SHAPE(6 * d, d), "double_stream_modulation_img.linear.weight");
    t->mod_text = weight(l, SHAPE(6 * d, d), "double_stream_modulation_txt.linear.weight");
    t->mod_single = weight(l, SHAPE(3 * d, d), "single_stream_modulation.linear.weight");
    t->norm_out = weight(l, SHAPE(2 * d, d), "norm_out.linear.weight");
    t->out = weight(l, SHAPE(t->out_channels, d), "proj_out.weight");
}

static int load_tensors(struct flux2_transformer *t, struct part *p, struct err *e)
{
    struct weight_loader *l = &p->loader;
    t->doubly = calloc((size_t)t->doubles + 1, sizeof(*t->doubly));
    t->singly = calloc((size_t)t->singles + 1, sizeof(*t->singly));
    if (!t->doubly || !t->singly)
        return err_nomem(e);
    load_ends(t, l);
    for (int i = 0; i < t->doubles && !l->err.code; i++)
        load_double(t, l, &t->doubly[i], i);
    for (int i = 0; i < t->singles && !l->err.code; i++)
        load_single(t, l, &t->singly[i], i);
    return l->err.code ? err_set(e, l->err.code, "%s", l->err.text) : 0;
}

int flux2_transformer_load(struct part *p, struct flux2_transformer **out, struct err *e)
{
    struct flux2_transformer *t = calloc(1, sizeof(*t));
    if (!t)
        return err_nomem(e);
    int rc = read_config(t, p->config, e);
    if (rc == 0)
        rc = load_tensors(t, p, e);
    if (rc != 0) {
        flux2_transformer_free(t);
        return rc;
    }
    *out = t;
    return 0;
}

void flux2_transformer_free(struct flux2_transformer *t)
{
    if (!t)
        return;
    free(t->doubly);
    free(t->singly);
    free(t);
}

int flux2_transformer_channels(const struct flux2_transformer *t)
{
    return t->channels;
}

int flux2_transformer_text_width(const struct flux2_transformer *t)
{
    return t->text_width;
}

/* ---- running ---- */

/* What is the same for every block of one forward pass. */
struct call {
    const struct flux2_transformer *t;
    struct ops *o;
    int64_t batch, text, image; /* tokens */
    const struct tensor *cos, *sin;
};

/* shift, scale and gate of one half of a block, each [1, D]. */
struct modulation {
    struct tensor *shift, *scale, *gate;
};

static struct modulation modulation_part(const struct call *c, const struct tensor *m, int i)
{
    int64_t d = c->t->d;
    return (struct modulation){
        op_slice(c->o, m, 1, (3 * i + 0) * d, d),
        op_slice(c->o, m, 1, (3 * i + 1) * d, d),
        op_slice(c->o, m, 1, (3 * i + 2) * d, d),
    };
}

static struct tensor *modulated(const struct call *c, const struct tensor *x,
                                const struct modulation *m)
{
    return op_modulated_norm(c->o, x, m->shift, m->scale, c->t->eps);
}

/* [B, T, D] → normalised heads [B, T, H, d]; no norm for values. */
static struct tensor *heads(const struct call *c, const struct tensor *x, const struct tensor *w,
                            const struct tensor *norm)
{
    const struct flux2_transformer *t = c->t;
    struct tensor *y = op_linear(c->o, x, w, NULL, ACT_NONE);
    y = op_reshape(c->o, y, SHAPE(c->batch, tensor_dim(x, 1), t->heads, t->head));
    return norm ? op_rms_norm(c->o, y, norm, t->eps) : y;
}

/* Heads of both streams as one sequence, text first. */
static struct tensor *joined(const struct call *c, const struct tensor *text,
                             const struct tensor *text_w, const struct tensor *text_norm,
                             const struct tensor *image, const struct tensor *image_w,
                             const struct tensor *image_norm)
{
    const struct flux2_transformer *t = c->t;
    struct ops *o = c->o;
    struct tensor *y =
        op_empty(o, ops_results(o), SHAPE(c->batch, c->text + c->image, t->heads, t->head));
    ops_mark mark = ops_push(o);
    op_copy(o, op_slice(o, y, 1, 0, c->text), heads(c, text, text_w, text_norm));
    op_copy(o, op_slice(o, y, 1, c->text, c->image), heads(c, image, image_w, image_norm));
    ops_pop(o, mark);
    return y;
}

/* x [B, T + N, H, d] turned; the items of the batch stand at the same places or each at its own. */
static struct tensor *turned(const struct call *c, const struct tensor *x)
{
    const struct flux2_transformer *t = c->t;
    int64_t tokens = c->text + c->image;
    if (tensor_dim(c->cos, 0) == tokens)
        return op_rope(c->o, x, c->cos, c->sin, true);
    x = op_reshape(c->o, x, SHAPE(1, c->batch * tokens, t->heads, t->head));
    x = op_rope(c->o, x, c->cos, c->sin, true);
    return op_reshape(c->o, x, SHAPE(c->batch, tokens, t->heads, t->head));
}

/* Heads q, k, v [B, T + N, H, d] → [B, T + N, D]. */
static struct tensor *attend(const struct call *c, const struct tensor *q, const struct tensor *k,
                             const struct tensor *v)
{
    struct ops *o = c->o;
    struct attention_args args = {.scale = 1.0f / sqrtf((float)c->t->head)};
    struct tensor *a = op_attention(o, turned(c, q), turned(c, k), v, &args);
    return op_reshape(o, a, SHAPE(c->batch, c->text + c->image, c->t->d));
}

static void feed_forward(const struct call *c, const struct stream *s, const struct modulation *m,
                         struct tensor *x)
{
    struct ops *o = c->o;
    ops_mark mark = ops_push(o);
    struct tensor *h = op_linear(o, modulated(c, x, m), s->ff_in, NULL, ACT_NONE);
    h = op_glu(o, h, ACT_SILU);
    op_gated_add_to(o, x, m->gate, op_linear(o, h, s->ff_out, NULL, ACT_NONE));
    ops_pop(o, mark);
}

static void run_double(const struct call *c, const struct double_block *b, struct tensor *text,
                       struct tensor *image, const struct modulation mt[2],
                       const struct modulation mi[2])
{
    struct ops *o = c->o;
    const struct stream *st = &b->text, *si = &b->image;
    enum dtype before = ops_set_results(o, DTYPE_BF16);
    ops_mark mark = ops_push(o);
    struct tensor *nt = modulated(c, text, &mt[0]), *ni = modulated(c, image, &mi[0]);
    struct tensor *q = joined(c, nt, st->q, st->q_norm, ni, si->q, si->q_norm);
    struct tensor *k = joined(c, nt, st->k, st->k_norm, ni, si->k, si->k_norm);
    struct tensor *v = joined(c, nt, st->v, NULL, ni, si->v, NULL);
    struct tensor *a = attend(c, q, k, v);
    struct tensor *at = op_slice(o, a, 1, 0, c->text), *ai = op_slice(o, a, 1, c->text, c->image);
    op_gated_add_to(o, text, mt[0].gate, op_linear(o, at, st->out, NULL, ACT_NONE));
    op_gated_add_to(o, image, mi[0].gate, op_linear(o, ai, si->out, NULL, ACT_NONE));
    ops_pop(o, mark);
    feed_forward(c, si, &mi[1], image);
    feed_forward(c, st, &mt[1], text);
    ops_set_results(o, before);
}

/* Columns `first` … first + D of the fused projection p [B, L, 3D + 2M], as a view of heads. */
static struct tensor *fused_heads(const struct call *c, struct tensor *p, int64_t first)
{
    const struct flux2_transformer *t = c->t;
    return op_reshape(c->o, op_slice(c->o, p, 2, first, t->d),
                      SHAPE(c->batch, c->text + c->image, t->heads, t->head));
}

static void run_single(const struct call *c, const struct single_block *b, struct tensor *h,
                       const struct modulation *m)
{
    const struct flux2_transformer *t = c->t;
    struct ops *o = c->o;
    enum dtype before = ops_set_results(o, DTYPE_BF16);
    ops_mark mark = ops_push(o);
    struct tensor *p = op_linear(o, modulated(c, h, m), b->in, NULL, ACT_NONE);
    struct tensor *q = op_rms_norm(o, fused_heads(c, p, 0), b->q_norm, t->eps);
    struct tensor *k = op_rms_norm(o, fused_heads(c, p, t->d), b->k_norm, t->eps);
    struct tensor *v = fused_heads(c, p, 2 * t->d);
    struct tensor *gated = op_glu(o, op_slice(o, p, 2, 3 * t->d, 2 * t->m), ACT_SILU);
    const struct tensor *both[2] = {attend(c, q, k, v), gated};
    struct tensor *y = op_linear(o, op_concat(o, both, 2, 2), b->out, NULL, ACT_NONE);
    op_gated_add_to(o, h, m->gate, y);
    ops_pop(o, mark);
    ops_set_results(o, before);
}

/* SiLU(time embedding) [1, D]: the input of every modulation. */
static struct tensor *time_embedding(const struct call *c, float timestep)
{
    const struct flux2_transformer *t = c->t;
    struct ops *o = c->o;
    struct tensor *e = op_from_host(o, DTYPE_F32, SHAPE(1), &timestep);
    e = op_timestep_embedding(o, e, t->time_width, true, 0);
    e = op_linear(o, e, t->time_1, NULL, ACT_SILU);
    return op_linear(o, e, t->time_2, NULL, ACT_SILU);
}

static struct tensor *head_out(const struct call *c, struct tensor *h, const struct tensor *time,
                               int64_t wanted)
{
    const struct flux2_transformer *t = c->t;
    struct ops *o = c->o;
    struct tensor *e = op_linear(o, time, t->norm_out, NULL, ACT_NONE);
    struct tensor *scale = op_slice(o, e, 1, 0, t->d), *shift = op_slice(o, e, 1, t->d, t->d);
    struct tensor *y =
        op_modulated_norm(o, op_slice(o, h, 1, c->text, wanted), shift, scale, t->eps);
    return op_linear(o, y, t->out, NULL, ACT_NONE);
}

struct tensor *flux2_transformer_text(const struct flux2_transformer *t, struct ops *o,
                                      const struct tensor *text)
{
    return op_linear(o, text, t->text_in, NULL, ACT_NONE);
}

void flux2_transformer_tables(const struct flux2_transformer *t, struct ops *o,
                              const float *positions, int64_t tokens, struct tensor **cos,
                              struct tensor **sin)
{
    rope_tables(o, &t->rope, positions, tokens, cos, sin);
}

struct tensor *flux2_transformer_forward(const struct flux2_transformer *t, struct ops *o,
                                         const struct tensor *image, const struct tensor *text,
                                         const struct tensor *cos, const struct tensor *sin,
                                         float timestep, int64_t wanted)
{
    if (ops_error(o, NULL) != 0)
        return NULL;
    struct call c = {.t = t,
                     .o = o,
                     .batch = tensor_dim(image, 0),
                     .text = tensor_dim(text, 1),
                     .image = tensor_dim(image, 1),
                     .cos = cos,
                     .sin = sin};
    ops_mark mark = ops_push(o);
    struct tensor *time = time_embedding(&c, timestep);
    /* One sequence from the start; the double blocks work on its two views. */
    struct tensor *h = op_empty(o, DTYPE_F32, SHAPE(c.batch, c.text + c.image, t->d));
    struct tensor *ht = op_slice(o, h, 1, 0, c.text), *hi = op_slice(o, h, 1, c.text, c.image);
    ops_mark inner = ops_push(o);
    op_copy(o, ht, text);
    op_copy(o, hi, op_linear(o, image, t->image_in, NULL, ACT_NONE));
    ops_pop(o, inner);

    struct tensor *m = op_linear(o, time, t->mod_image, NULL, ACT_NONE);
    struct modulation mi[2] = {modulation_part(&c, m, 0), modulation_part(&c, m, 1)};
    m = op_linear(o, time, t->mod_text, NULL, ACT_NONE);
    struct modulation mt[2] = {modulation_part(&c, m, 0), modulation_part(&c, m, 1)};
    for (int i = 0; i < t->doubles; i++)
        run_double(&c, &t->doubly[i], ht, hi, mt, mi);
    m = op_linear(o, time, t->mod_single, NULL, ACT_NONE);
    struct modulation ms = modulation_part(&c, m, 0);
    for (int i = 0; i < t->singles; i++)
        run_single(&c, &t->singly[i], h, &ms);
    return ops_pop_keep(o, mark, head_out(&c, h, time, wanted));
}
