#include "engine/upscale/network.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/backend.h"

#define COLOURS      3
#define MAX_SCALE    4
#define MAX_CHANNELS 1024
#define MAX_BLOCKS   256
#define TAPS         (2 * UPSCALE_BORDER + 1)
#define CUBIC        (-0.75)

const char *const upscale_parts[UPSCALE_NETWORKS] = {"upscaler", "upscaler_x2"};

struct conv {
    struct tensor *w, *b;
};

struct upscale_network {
    int scale, channels, blocks;
    double cubic; /* a of the bicubic enlargement */
    struct conv in, out;
    struct upscale_block {
        struct conv conv1, conv2;
    } * block;
    float *filter;          /* what `bicubic` was made from */
    struct tensor *bicubic; /* [3·scale², 3, TAPS, TAPS] */
};

/* ---- the bicubic enlargement as a filter ---- */

static double kernel(double a, double t)
{
    t = fabs(t);
    if (t <= 1)
        return ((a + 2) * t - (a + 3)) * t * t + 1;
    return t < 2 ? ((a * t - 5 * a) * t + 8 * a) * t - 4 * a : 0;
}

/* What the pixels -2 … 2 around one contribute to the `phase`-th of the `scale` in its place. */
static void phase_weights(const struct upscale_network *n, int phase, double out[TAPS])
{
    double at = (phase + 0.5) / n->scale - 0.5;
    for (int i = 0; i < TAPS; i++)
        out[i] = kernel(n->cubic, at - (i - UPSCALE_BORDER));
}

static void fill_filter(const struct upscale_network *n, float *out)
{
    int scale = n->scale;
    for (int c = 0; c < COLOURS; c++)
        for (int p = 0; p < scale * scale; p++) {
            double down[TAPS], right[TAPS];
            phase_weights(n, p / scale, down);
            phase_weights(n, p % scale, right);
            float *own = out + (size_t)((c * scale * scale + p) * COLOURS + c) * TAPS * TAPS;
            for (int i = 0; i < TAPS * TAPS; i++)
                own[i] = (float)(down[i / TAPS] * right[i % TAPS]);
        }
}

/* In fp32 whatever the others are: it is the picture itself. */
static int make_filter(struct upscale_network *n, const struct weight_loader *l, struct err *e)
{
    int outputs = COLOURS * n->scale * n->scale;
    n->filter = calloc((size_t)(outputs * COLOURS * TAPS * TAPS), sizeof(*n->filter));
    if (!n->filter)
        return err_nomem(e);
    fill_filter(n, n->filter);
    return tensor_weight_new(l->backend, DTYPE_F32, SHAPE(outputs, COLOURS, TAPS, TAPS),
                             l->shapes_only ? NULL : n->filter, DTYPE_F32, &n->bicubic, e);
}

/* ---- loading ---- */

static int read_config(struct upscale_network *n, const struct part *p, struct err *e)
{
    if (strcmp(p->class_name, UPSCALE_CLASS) != 0)
        return err_set(e, -EINVAL, "%s: the class '%s' is no upscaler, expected " UPSCALE_CLASS,
                       config_path(p->config), p->class_name);
    n->scale = (int)config_int(p->config, "scale", CONFIG_REQUIRED, 2, MAX_SCALE);
    n->channels = (int)config_int(p->config, "channels", CONFIG_REQUIRED, 1, MAX_CHANNELS);
    n->blocks = (int)config_int(p->config, "blocks", CONFIG_REQUIRED, 0, MAX_BLOCKS);
    n->cubic = config_float(p->config, "cubic", CUBIC, -1, 0);
    return config_error(p->config, e);
}

static struct conv ERR_PRINTF(4, 5)
    load_conv(struct weight_loader *l, int from, int to, const char *fmt, ...)
{
    char name[64];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof(name), fmt, ap);
    va_end(ap);
    return (struct conv){weight(l, SHAPE(to, from, 3, 3), "%s.weight", name),
                         weight(l, SHAPE(to), "%s.bias", name)};
}

static int load_tensors(struct upscale_network *n, struct weight_loader *l, struct err *e)
{
    n->block = calloc((size_t)n->blocks + 1, sizeof(*n->block));
    if (!n->block)
        return err_nomem(e);
    int c = n->channels;
    n->in = load_conv(l, COLOURS, c, "conv_in");
    for (int i = 0; i < n->blocks && !l->err.code; i++) {
        n->block[i].conv1 = load_conv(l, c, c, "blocks.%d.conv1", i);
        n->block[i].conv2 = load_conv(l, c, c, "blocks.%d.conv2", i);
    }
    n->out = load_conv(l, c, COLOURS * n->scale * n->scale, "conv_out");
    return l->err.code ? err_set(e, l->err.code, "%s", l->err.text) : 0;
}

int upscale_network_load(struct part *p, struct upscale_network **out, struct err *e)
{
    struct upscale_network *n = calloc(1, sizeof(*n));
    if (!n)
        return err_nomem(e);
    int rc = read_config(n, p, e);
    if (rc == 0)
        rc = load_tensors(n, &p->loader, e);
    if (rc == 0)
        rc = make_filter(n, &p->loader, e);
    if (rc != 0) {
        upscale_network_free(n);
        return rc;
    }
    *out = n;
    return 0;
}

void upscale_network_free(struct upscale_network *n)
{
    if (!n)
        return;
    if (n->bicubic)
        tensor_weight_free(n->bicubic);
    free(n->filter);
    free(n->block);
    free(n);
}

int upscale_network_scale(const struct upscale_network *n)
{
    return n->scale;
}

int upscale_network_channels(const struct upscale_network *n)
{
    return n->channels;
}

int upscale_network_reach(const struct upscale_network *n)
{
    return 2 * n->blocks + 2;
}

/* ---- running ---- */

static struct tensor *filtered(struct ops *o, const struct conv *c, const struct tensor *x,
                               enum activation act)
{
    static const int same[4] = {1, 1, 1, 1};
    return op_conv2d(o, x, c->w, c->b, 1, same, act);
}

struct tensor *upscale_network_run(const struct upscale_network *n, struct ops *o,
                                   const struct tensor *bordered)
{
    static const int none[4] = {0};
    const int edge = UPSCALE_BORDER;
    if (ops_error(o, NULL) != 0)
        return NULL;
    ops_mark mark = ops_push(o);
    struct tensor *x = op_slice(o, bordered, 1, edge, tensor_dim(bordered, 1) - 2 * edge);
    x = op_slice(o, x, 2, edge, tensor_dim(bordered, 2) - 2 * edge);
    struct tensor *h = filtered(o, &n->in, x, ACT_NONE);
    for (int i = 0; i < n->blocks; i++) {
        ops_mark inner = ops_push(o);
        struct tensor *y = filtered(o, &n->block[i].conv1, h, ACT_SILU);
        op_add_to(o, h, filtered(o, &n->block[i].conv2, y, ACT_NONE));
        ops_pop(o, inner);
    }
    h = ops_keep(o, mark, filtered(o, &n->out, h, ACT_NONE));
    op_add_to(o, h, op_conv2d(o, bordered, n->bicubic, NULL, 1, none, ACT_NONE));
    return ops_pop_keep(o, mark, h);
}

bool upscale_network_look(struct checkpoint *c, int i, struct part *p, struct err *e)
{
    struct upscale_network *n = NULL;
    struct stat st;
    AUTO_FREE char *folder = checkpoint_file(c, upscale_parts[i]);
    *p = (struct part){0};
    *e = (struct err){0};
    if (!folder || stat(folder, &st) != 0 || !c->backend)
        return false;
    if (part_open(p, folder, upscale_parts[i], UPSCALE_STEM, e) == 0) {
        p->loader.backend = c->backend;
        p->loader.compute = DTYPE_F32;
        p->loader.shapes_only = true;
        upscale_network_load(p, &n, e);
    }
    snprintf(p->name, sizeof(p->name), "%s", upscale_parts[i]);
    upscale_network_free(n);
    return true;
}
