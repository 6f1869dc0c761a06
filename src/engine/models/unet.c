#include "engine/models/unet.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/models/unet_blocks.h"

/* One resolution, one way. */
struct unet_level {
    int count;
    bool attends;
    struct unet_resnet resnets[UNET_MAX_LAYERS + 1];
    struct unet_transformer attentions[UNET_MAX_LAYERS + 1];
    struct unet_pair resample; /* to the next resolution, where there is one */
};

struct unet {
    struct unet_config config;
    struct unet_pair time1, time2;   /* [time, finest], [time, time] */
    struct unet_pair added1, added2; /* [time, added], [time, time] */
    struct tensor *guidance;         /* [finest, guidance_width] */
    struct unet_pair conv_in, norm_out, conv_out;
    struct unet_level down[UNET_MAX_LEVELS], up[UNET_MAX_LEVELS]; /* in the order they run */
    struct unet_resnet middle[2];
    struct unet_transformer middle_attention;
};

static const int same[4] = {1, 1, 1, 1};

/* ---- loading ---- */

/* Widths of the maps that the way down leaves behind, one for each block of the way up. */
struct widths {
    int value[UNET_MAX_LEVELS * (UNET_MAX_LAYERS + 1) + 1];
    int count;
};

struct place {
    char text[64];
};

static struct place place(const char *way, int level, const char *what, int i)
{
    struct place p;
    snprintf(p.text, sizeof p.text, "%s_blocks.%d.%s.%d", way, level, what, i);
    return p;
}

static void load_down(struct weight_loader *l, struct unet *u, int i, struct widths *left)
{
    const struct unet_level_config *c = &u->config.level[i];
    struct unet_level *y = &u->down[i];
    y->count = c->layers;
    y->attends = c->down;
    for (int k = 0; k < y->count; k++) {
        int in = k ? c->width : left->value[left->count - 1];
        unet_resnet_load(l, &u->config, &y->resnets[k], in, c->width,
                         place("down", i, "resnets", k).text);
        if (c->down)
            unet_transformer_load(l, &u->config, &y->attentions[k], c, c->transformers[k],
                                  place("down", i, "attentions", k).text);
        left->value[left->count++] = c->width;
    }
    if (i == u->config.count - 1)
        return;
    y->resample = unet_pair(l, SHAPE(c->width, c->width, 3, 3),
                            place("down", i, "downsamplers", 0).text, "conv");
    left->value[left->count++] = c->width;
}

/* `i` counts from the deepest level; *width is that of the map that comes in. */
static void load_up(struct weight_loader *l, struct unet *u, int i, struct widths *left, int *width)
{
    const struct unet_level_config *c = &u->config.level[u->config.count - 1 - i];
    struct unet_level *y = &u->up[i];
    y->count = c->layers + 1;
    y->attends = c->up;
    for (int k = 0; k < y->count; k++) {
        int in = *width + left->value[--left->count];
        unet_resnet_load(l, &u->config, &y->resnets[k], in, c->width,
                         place("up", i, "resnets", k).text);
        if (c->up)
            unet_transformer_load(l, &u->config, &y->attentions[k], c, c->up_transformers[k],
                                  place("up", i, "attentions", k).text);
        *width = c->width;
    }
    if (i < u->config.count - 1)
        y->resample = unet_pair(l, SHAPE(c->width, c->width, 3, 3),
                                place("up", i, "upsamplers", 0).text, "conv");
}

static void load_middle(struct weight_loader *l, struct unet *u)
{
    const struct unet_level_config *c = &u->config.level[u->config.count - 1];
    bool attends = u->config.middle == UNET_MIDDLE_ATTENDS;
    for (int i = 0; i < (attends ? 2 : 1); i++) {
        char at[32];
        snprintf(at, sizeof at, "mid_block.resnets.%d", i);
        unet_resnet_load(l, &u->config, &u->middle[i], c->width, c->width, at);
    }
    if (attends)
        unet_transformer_load(l, &u->config, &u->middle_attention, c, u->config.middle_transformers,
                              "mid_block.attentions.0");
}

static void load_embeddings(struct weight_loader *l, struct unet *u)
{
    const struct unet_config *c = &u->config;
    int finest = c->level[0].width, time = c->time_width;
    u->time1 = unet_pair(l, SHAPE(time, finest), "time_embedding", "linear_1");
    u->time2 = unet_pair(l, SHAPE(time, time), "time_embedding", "linear_2");
    if (c->guidance_width)
        u->guidance =
            weight(l, SHAPE(finest, c->guidance_width), "time_embedding.cond_proj.weight");
    if (c->added_width) {
        u->added1 = unet_pair(l, SHAPE(time, c->added_width), "add_embedding", "linear_1");
        u->added2 = unet_pair(l, SHAPE(time, time), "add_embedding", "linear_2");
    }
}

static struct unet_pair load_end(struct weight_loader *l, int rank, const int64_t *dims,
                                 const char *name)
{
    return (struct unet_pair){weight(l, rank, dims, "%s.weight", name),
                              weight(l, SHAPE(dims[0]), "%s.bias", name)};
}

static void load_tensors(struct weight_loader *l, struct unet *u)
{
    const struct unet_config *c = &u->config;
    int finest = c->level[0].width, width = c->level[c->count - 1].width;
    struct widths left = {.value = {finest}, .count = 1};
    load_embeddings(l, u);
    u->conv_in = load_end(l, 4, (int64_t[]){finest, c->in_channels, 3, 3}, "conv_in");
    for (int i = 0; i < c->count && !l->err.code; i++)
        load_down(l, u, i, &left);
    if (c->middle != UNET_MIDDLE_NONE)
        load_middle(l, u);
    for (int i = 0; i < c->count && !l->err.code; i++)
        load_up(l, u, i, &left, &width);
    u->norm_out = load_end(l, 1, (int64_t[]){finest}, "conv_norm_out");
    u->conv_out = load_end(l, 4, (int64_t[]){c->out_channels, finest, 3, 3}, "conv_out");
}

int unet_load(struct part *p, struct unet **out, struct err *e)
{
    struct unet *u = calloc(1, sizeof(*u));
    if (!u)
        return err_nomem(e);
    int rc = unet_config_read(p->config, &u->config, e);
    if (rc == 0) {
        load_tensors(&p->loader, u);
        if (p->loader.err.code)
            rc = err_set(e, p->loader.err.code, "%s", p->loader.err.text);
    }
    if (rc != 0) {
        unet_free(u);
        return rc;
    }
    *out = u;
    return 0;
}

void unet_free(struct unet *u)
{
    if (!u)
        return;
    for (int i = 0; i < UNET_MAX_LEVELS; i++)
        for (int k = 0; k <= UNET_MAX_LAYERS; k++) {
            unet_transformer_free(&u->down[i].attentions[k]);
            unet_transformer_free(&u->up[i].attentions[k]);
        }
    unet_transformer_free(&u->middle_attention);
    free(u);
}

const struct unet_config *unet_config(const struct unet *u)
{
    return &u->config;
}

int unet_text_width(const struct unet *u)
{
    return u->config.level[0].text_width;
}

/* ---- embeddings ---- */

static struct tensor *two_layers(struct ops *o, const struct tensor *x, const struct unet_pair *a,
                                 const struct unet_pair *b)
{
    return op_linear(o, op_linear(o, x, a->w, a->b, ACT_SILU), b->w, b->b, ACT_NONE);
}

struct tensor *unet_added(const struct unet *u, struct ops *o, const struct tensor *pooled,
                          const float *time_ids)
{
    const struct unet_config *c = &u->config;
    int64_t batch = tensor_dim(pooled, 0);
    if (ops_error(o, NULL) != 0)
        return NULL;
    ops_mark mark = ops_push(o);
    struct tensor *ids = op_from_host(o, DTYPE_F32, SHAPE(batch * UNET_TIME_IDS), time_ids);
    ids = op_timestep_embedding(o, ids, c->added_number, c->cos_first, (float)c->frequency_shift);
    const struct tensor *parts[2] = {
        op_reshape(o, pooled, SHAPE(batch, 1, tensor_dim(pooled, 1))),
        op_reshape(o, ids, SHAPE(batch, 1, (int64_t)UNET_TIME_IDS * c->added_number))};
    struct tensor *x = op_concat(o, parts, 2, 2);
    return ops_pop_keep(o, mark, two_layers(o, x, &u->added1, &u->added2));
}

struct tensor *unet_guidance(const struct unet *u, struct ops *o, const float *guidance, int batch)
{
    const struct unet_config *c = &u->config;
    ops_mark mark = ops_push(o);
    struct tensor *w = op_from_host(o, DTYPE_F32, SHAPE(batch), guidance);
    int even = c->guidance_width - c->guidance_width % 2;
    w = op_timestep_embedding(o, op_affine(o, w, 1000, -1000), even, false, 1);
    const struct tensor *parts[2] = {op_reshape(o, w, SHAPE(batch, 1, even))};
    if (even < c->guidance_width)
        parts[1] = op_zeros(o, DTYPE_F32, SHAPE(batch, 1, 1));
    w = op_concat(o, parts, even < c->guidance_width ? 2 : 1, 2);
    return ops_pop_keep(o, mark, op_linear(o, w, u->guidance, NULL, ACT_NONE));
}

/* What residual blocks read: [B|1, 1, time_width]. */
static struct tensor *embed_time(const struct unet *u, struct ops *o, float timestep,
                                 const struct tensor *added, const struct tensor *guidance)
{
    const struct unet_config *c = &u->config;
    ops_mark mark = ops_push(o);
    struct tensor *t = op_from_host(o, DTYPE_F32, SHAPE(1), &timestep);
    t = op_timestep_embedding(o, t, c->level[0].width, c->cos_first, (float)c->frequency_shift);
    t = op_reshape(o, t, SHAPE(1, 1, c->level[0].width));
    if (guidance)
        t = op_add(o, guidance, t);
    t = two_layers(o, t, &u->time1, &u->time2);
    if (added)
        t = tensor_dim(t, 0) == 1 ? op_add(o, added, t) : op_add(o, t, added);
    return ops_pop_keep(o, mark, op_act(o, t, ACT_SILU));
}

/* ---- the way down and up ---- */

/* The maps that the way down leaves, each in a scope of its own: the way up takes the last one, and
 * with it goes all that was made since. */
struct left {
    struct {
        struct tensor *map;
        ops_mark mark;
    } place[UNET_MAX_LEVELS * (UNET_MAX_LAYERS + 1) + 1];
    int count;
};

static void leave(struct left *s, ops_mark mark, struct tensor *map)
{
    s->place[s->count].mark = mark;
    s->place[s->count++].map = map;
}

static struct tensor *run_down(const struct unet_call *c, const struct unet_level *y,
                               struct tensor *x, struct left *s)
{
    struct ops *o = c->o;
    for (int k = 0; k < y->count; k++) {
        ops_mark mark = ops_push(o);
        x = unet_resnet_run(c, &y->resnets[k], x);
        if (y->attends)
            unet_transformer_run(c, &y->attentions[k], x);
        leave(s, mark, x);
    }
    if (y->resample.w) {
        ops_mark mark = ops_push(o);
        x = op_conv2d(o, x, y->resample.w, y->resample.b, 2, same, ACT_NONE);
        leave(s, mark, x);
    }
    return x;
}

static struct tensor *run_middle(const struct unet_call *c, const struct unet *u, struct tensor *x)
{
    if (u->config.middle == UNET_MIDDLE_NONE)
        return x;
    if (u->config.middle == UNET_MIDDLE_PLAIN)
        return unet_resnet_run(c, &u->middle[0], x);
    ops_mark mark = ops_push(c->o);
    x = ops_keep(c->o, mark, unet_resnet_run(c, &u->middle[0], x));
    unet_transformer_run(c, &u->middle_attention, x);
    return ops_pop_keep(c->o, mark, unet_resnet_run(c, &u->middle[1], x));
}

/* One block of the way up; takes the last map. */
static struct tensor *run_up_block(const struct unet_call *c, const struct unet_level *y, int k,
                                   struct tensor *x, struct left *s)
{
    struct ops *o = c->o;
    s->count--;
    ops_mark mark = ops_push(o);
    const struct tensor *parts[2] = {x, s->place[s->count].map};
    x = ops_pop_keep(o, mark, unet_resnet_run(c, &y->resnets[k], op_concat(o, parts, 2, 3)));
    if (y->attends)
        unet_transformer_run(c, &y->attentions[k], x);
    return ops_pop_keep(o, s->place[s->count].mark, x);
}

/* Doubled, or one row or column less where the map of the way down had an odd size. */
static struct tensor *enlarge(const struct unet_call *c, const struct unet_level *y,
                              struct tensor *x, const struct tensor *like)
{
    struct ops *o = c->o;
    ops_mark mark = ops_push(o);
    struct tensor *big = op_upsample_nearest(o, x, 2);
    big = op_slice(o, big, 1, 0, tensor_dim(like, 1));
    big = op_slice(o, big, 2, 0, tensor_dim(like, 2));
    return ops_pop_keep(o, mark,
                        op_conv2d(o, big, y->resample.w, y->resample.b, 1, same, ACT_NONE));
}

static struct tensor *run_up(const struct unet_call *c, const struct unet_level *y,
                             struct tensor *x, struct left *s)
{
    for (int k = 0; k < y->count; k++)
        x = run_up_block(c, y, k, x, s);
    return y->resample.w ? enlarge(c, y, x, s->place[s->count - 1].map) : x;
}

struct tensor *unet_forward(const struct unet *u, struct ops *o, const struct tensor *x,
                            const struct tensor *text, float timestep, const struct tensor *added,
                            const struct tensor *guidance)
{
    const struct unet_config *config = &u->config;
    ops_mark mark = ops_push(o);
    struct left s = {.count = 0};
    struct unet_call c = {.o = o, .config = config, .text = text};
    c.time = embed_time(u, o, timestep, added, guidance);
    ops_mark first = ops_push(o);
    struct tensor *h = op_conv2d(o, x, u->conv_in.w, u->conv_in.b, 1, same, ACT_NONE);
    leave(&s, first, h);
    for (int i = 0; i < config->count; i++)
        h = run_down(&c, &u->down[i], h, &s);
    h = run_middle(&c, u, h);
    for (int i = 0; i < config->count; i++)
        h = run_up(&c, &u->up[i], h, &s);
    return ops_pop_keep(o, mark, unet_norm_conv(&c, &u->norm_out, &u->conv_out, h));
}
