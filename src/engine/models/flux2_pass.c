#include "engine/models/flux2_pass.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/cleanup.h"

/* Tokens of frames that are drawn together where each is a sequence of its own: enough rows to keep
 * a processor busy. */
#define GROUP_TOKENS 4096

/* What pass.kept holds. */
enum { KEPT_TEXT, KEPT_COS, KEPT_SIN, KEPT_REFERENCES };

static bool one_by_one(const struct flux2_layout *l, const struct pass *pass)
{
    return l->own_frames && pass->latent->frames > 1;
}

/* Tokens of reference i: 0 after a failure. */
static int64_t tokens_of(const struct pass *pass, int i)
{
    const struct tensor *t = pass->references[i];
    return t ? tensor_dim(t, 2) * tensor_dim(t, 3) : 0;
}

static int64_t reference_tokens(const struct pass *pass)
{
    int64_t n = 0;
    for (int i = 0; i < pass->reference_count; i++)
        n += tokens_of(pass, i);
    return n;
}

static int64_t frame_tokens(const struct pass *pass)
{
    return (int64_t)pass->latent->height * pass->latent->width;
}

/* ---- places ---- */

static float *put_text(float *p, int tokens)
{
    for (int i = 0; i < tokens; i++, p += FLUX2_AXES)
        p[3] = (float)i;
    return p;
}

static float *put_grid(float *p, double time, int64_t h, int64_t w)
{
    for (int64_t y = 0; y < h; y++)
        for (int64_t x = 0; x < w; x++, p += FLUX2_AXES) {
            p[0] = (float)time;
            p[1] = (float)y;
            p[2] = (float)x;
        }
    return p;
}

static float *put_references(float *p, const struct flux2_layout *l, const struct pass *pass)
{
    for (int i = 0; i < pass->reference_count; i++)
        p = put_grid(p, (double)l->reference_time * (i + 1), tensor_dim(pass->references[i], 2),
                     tensor_dim(pass->references[i], 3));
    return p;
}

/* Motions come round after a period: a loop has as many whole ones as fit best. */
static double time_of(const struct flux2_layout *l, const struct pass *pass, int frame)
{
    int period = l->motion_period, frames = pass->latent->frames;
    if (period == 0)
        return frame;
    if (!pass->requests[0]->loop)
        return frame % period;
    int turns = frames < period ? 1 : (frames + period / 2) / period;
    return fmod((double)frame * turns * period / frames, period);
}

/* Of one sequence after the other. */
static void put_all(const struct flux2_layout *l, const struct pass *pass, float *p)
{
    int frames = pass->latent->frames, sequences = one_by_one(l, pass) ? frames : 1;
    for (int s = 0; s < sequences; s++) {
        p = put_text(p, l->text);
        for (int f = s; f < (sequences > 1 ? s + 1 : frames); f++)
            p = put_grid(p, time_of(l, pass, f), pass->latent->height, pass->latent->width);
        p = put_references(p, l, pass);
    }
}

static void make_tables(const struct flux2_transformer *t, const struct flux2_layout *l,
                        struct ops *o, struct pass *pass)
{
    int64_t frames = pass->latent->frames, around = l->text + reference_tokens(pass);
    int64_t tokens = frames * frame_tokens(pass) + (one_by_one(l, pass) ? frames : 1) * around;
    AUTO_FREE float *positions = NULL;
    if (!ops_planning(o)) {
        positions = calloc((size_t)tokens, FLUX2_AXES * sizeof(*positions));
        if (!positions) {
            ops_fail(o, -ENOMEM, "not enough memory for the positions of %lld tokens",
                     (long long)tokens);
            return;
        }
        put_all(l, pass, positions);
    }
    flux2_transformer_tables(t, o, positions, tokens, &pass->kept[KEPT_COS], &pass->kept[KEPT_SIN]);
}

/* All references as one sequence [batch, tokens, channels], behind the drawing's own tokens. */
static struct tensor *join_references(struct ops *o, const struct pass *pass)
{
    const struct tensor *parts[PASS_REFERENCES];
    for (int i = 0; i < pass->reference_count; i++)
        parts[i] = op_reshape(o, pass->references[i],
                              SHAPE(pass->batch, tokens_of(pass, i), pass->latent->channels));
    return pass->reference_count ? op_concat(o, parts, pass->reference_count, 1) : NULL;
}

void flux2_pass_prepare(const struct flux2_transformer *t, const struct flux2_layout *l,
                        struct ops *o, struct pass *pass)
{
    pass->kept[KEPT_REFERENCES] = join_references(o, pass);
    if (ops_error(o, NULL) != 0)
        return;
    pass->kept[KEPT_TEXT] = flux2_transformer_text(t, o, pass->conditions[0]);
    make_tables(t, l, o, pass);
}

/* ---- all frames as one sequence ---- */

static struct tensor *predict_together(const struct flux2_transformer *t, struct ops *o,
                                       const struct pass *pass, const struct tensor *x,
                                       float timestep)
{
    const struct latent_shape *l = pass->latent;
    int64_t image = l->frames * frame_tokens(pass);
    const struct tensor *tokens[2] = {op_reshape(o, x, SHAPE(pass->batch, image, l->channels)),
                                      pass->kept[KEPT_REFERENCES]};
    x = tokens[1] ? op_concat(o, tokens, 2, 1) : tokens[0];
    struct tensor *v =
        flux2_transformer_forward(t, o, x, pass->kept[KEPT_TEXT], pass->kept[KEPT_COS],
                                  pass->kept[KEPT_SIN], timestep, image);
    return op_reshape(o, v, SHAPE(pass->batch, l->frames, l->height, l->width, l->channels));
}

/* ---- a sequence a frame ---- */

/* Frames first … first + count - 1 of prediction `item`. */
struct group {
    int item, first, count;
};

/* [1, frames, …] of a tensor like x. */
static struct tensor *frames_of(struct ops *o, const struct tensor *x, const struct group *g)
{
    return op_slice(o, op_slice(o, x, 0, g->item, 1), 1, g->first, g->count);
}

/* `y` [count, n, C] = that item of `x` [batch, n, C] for every frame. */
static void repeat(struct ops *o, struct tensor *y, const struct tensor *x, const struct group *g)
{
    for (int f = 0; f < g->count; f++)
        op_copy(o, op_slice(o, y, 0, f, 1), op_slice(o, x, 0, g->item, 1));
}

/* [count, h·w + references, C]: every frame's tokens with the same pictures behind. */
static struct tensor *group_tokens(struct ops *o, const struct pass *pass, const struct tensor *x,
                                   const struct group *g)
{
    int64_t own = frame_tokens(pass), beside = reference_tokens(pass), c = pass->latent->channels;
    struct tensor *frames = op_reshape(o, frames_of(o, x, g), SHAPE(g->count, own, c));
    if (!beside)
        return frames;
    struct tensor *y = op_empty(o, DTYPE_F32, SHAPE(g->count, own + beside, c));
    op_copy(o, op_slice(o, y, 1, 0, own), frames);
    repeat(o, op_slice(o, y, 1, own, beside), pass->kept[KEPT_REFERENCES], g);
    return y;
}

static void predict_group(const struct flux2_transformer *t, const struct flux2_layout *l,
                          struct ops *o, const struct pass *pass, const struct tensor *x,
                          float timestep, const struct group *g, struct tensor *y)
{
    const struct latent_shape *s = pass->latent;
    int64_t own = frame_tokens(pass), sequence = l->text + own + reference_tokens(pass);
    ops_mark mark = ops_push(o);
    struct tensor *text =
        op_empty(o, DTYPE_F32, SHAPE(g->count, l->text, tensor_dim(pass->kept[KEPT_TEXT], 2)));
    repeat(o, text, pass->kept[KEPT_TEXT], g);
    struct tensor *tables[2];
    for (int i = 0; i < 2; i++)
        tables[i] =
            op_slice(o, pass->kept[KEPT_COS + i], 0, g->first * sequence, g->count * sequence);
    struct tensor *v = flux2_transformer_forward(t, o, group_tokens(o, pass, x, g), text, tables[0],
                                                 tables[1], timestep, own);
    op_copy(o, frames_of(o, y, g),
            op_reshape(o, v, SHAPE(1, g->count, s->height, s->width, s->channels)));
    ops_pop(o, mark);
}

static struct tensor *predict_one_by_one(const struct flux2_transformer *t,
                                         const struct flux2_layout *l, struct ops *o,
                                         const struct pass *pass, const struct tensor *x,
                                         float timestep)
{
    const struct latent_shape *s = pass->latent;
    int64_t sequence = l->text + frame_tokens(pass) + reference_tokens(pass);
    int most = sequence < GROUP_TOKENS ? (int)(GROUP_TOKENS / sequence) : 1;
    struct tensor *y =
        op_empty(o, DTYPE_F32, SHAPE(pass->batch, s->frames, s->height, s->width, s->channels));
    struct group g = {0};
    for (g.item = 0; g.item < pass->batch; g.item++)
        for (g.first = 0; g.first < s->frames && !ops_error(o, NULL); g.first += most) {
            g.count = s->frames - g.first < most ? s->frames - g.first : most;
            predict_group(t, l, o, pass, x, timestep, &g, y);
        }
    return y;
}

struct tensor *flux2_pass_predict(const struct flux2_transformer *t, const struct flux2_layout *l,
                                  struct ops *o, const struct pass *pass, const struct tensor *x,
                                  float timestep)
{
    if (ops_error(o, NULL) != 0)
        return NULL;
    return one_by_one(l, pass) ? predict_one_by_one(t, l, o, pass, x, timestep)
                               : predict_together(t, o, pass, x, timestep);
}
