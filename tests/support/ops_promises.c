#include "ops_promises.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"

/* ---- bits ---- */

#define ITEMS 3
enum { TOKENS = 37, WIDTH = 64, HEADS = 4, SIDE = 12 };

struct part {
    struct tensor *square, *wide, *large, *bias, *filter; /* weights */
};

static void fill(float *x, int64_t n, uint32_t seed)
{
    for (int64_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(int32_t)seed * 0x1p-30f;
    }
}

static struct tensor *weight_of(struct backend *b, enum dtype compute, int rank,
                                const int64_t *dims, float **host)
{
    struct tensor *w;
    struct err e = {0};
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= dims[i];
    *host = malloc((size_t)n * sizeof(float));
    assert_non_null(*host);
    fill(*host, n, (uint32_t)n);
    if (tensor_weight_new(b, DTYPE_F32, rank, dims, *host, compute, &w, &e))
        fail_msg("%s", e.text);
    return w;
}

/* A bit of everything on items `first` … of the inputs; the result is [count, TOKENS, WIDTH]. */
static struct tensor *forward(struct ops *o, const struct part *p, const float *x, int64_t first,
                              int64_t count)
{
    static const int pad[4] = {1, 1, 1, 1};
    int64_t item = TOKENS * WIDTH;
    struct tensor *t = op_from_host(o, DTYPE_F32, SHAPE(count, TOKENS, WIDTH), x + first * item);
    struct tensor *rows = op_from_host(o, DTYPE_F32, SHAPE(count, WIDTH), x + first * WIDTH);
    struct tensor *mod = op_linear(o, rows, p->square, p->bias, ACT_SILU);
    struct tensor *h = op_modulated_norm(o, t, mod, mod, 1e-6f);
    h = op_linear(o, h, p->wide, NULL, ACT_NONE);
    struct tensor *q =
        op_reshape(o, op_slice(o, h, 2, 0, WIDTH), SHAPE(count, TOKENS, HEADS, WIDTH / HEADS));
    struct tensor *k =
        op_reshape(o, op_slice(o, h, 2, WIDTH, WIDTH), SHAPE(count, TOKENS, HEADS, WIDTH / HEADS));
    struct tensor *a = op_attention(o, q, k, k, &(struct attention_args){.scale = 0.25f});
    a = op_reshape(o, a, SHAPE(count, TOKENS, WIDTH));
    op_gated_add_to(o, a, mod, t);
    struct tensor *picture = op_reshape(o, op_slice(o, a, 1, 0, 36), SHAPE(count, 6, 6, WIDTH));
    picture = op_conv2d(o, op_upsample_nearest(o, op_contiguous(o, picture), 2), p->filter, p->bias,
                        2, pad, ACT_RELU);
    picture = op_group_norm(o, picture, 8, NULL, NULL, 1e-5f, ACT_SILU);
    struct tensor *more = op_linear(o, a, p->large, NULL, ACT_GELU);
    more = op_linear(o, op_slice(o, more, 2, 0, WIDTH), p->square, NULL, ACT_NONE);
    struct tensor *seen = op_reshape(o, picture, SHAPE(count, 36, WIDTH));
    op_add_to(o, op_slice(o, more, 1, 1, 36), seen);
    return more;
}

static void part_new(struct part *p, struct backend *b, enum dtype compute, float *hosts[5])
{
    p->square = weight_of(b, compute, SHAPE(WIDTH, WIDTH), &hosts[0]);
    p->wide = weight_of(b, compute, SHAPE(2 * WIDTH, WIDTH), &hosts[1]);
    p->large = weight_of(b, compute, SHAPE(70000, WIDTH), &hosts[2]); /* not packed */
    p->bias = weight_of(b, compute, SHAPE(WIDTH), &hosts[3]);
    p->filter = weight_of(b, compute, SHAPE(WIDTH, WIDTH, 3, 3), &hosts[4]);
}

static void part_free(struct part *p, float *hosts[5])
{
    tensor_weight_free(p->square);
    tensor_weight_free(p->wide);
    tensor_weight_free(p->large);
    tensor_weight_free(p->bias);
    tensor_weight_free(p->filter);
    for (int i = 0; i < 5; i++)
        free(hosts[i]);
}

static float *run_forward(struct backend *b, enum dtype compute, const struct part *p,
                          const float *x, int64_t first, int64_t count)
{
    struct err e = {0};
    size_t bytes = (size_t)(count * TOKENS * WIDTH) * sizeof(float);
    float *y = malloc(bytes);
    struct ops *o = ops_new(b, compute, 256u << 20, &e);
    assert_true(y && o);
    if (op_to_host(o, forward(o, p, x, first, count), y, bytes)) {
        ops_error(o, &e);
        fail_msg("%s", e.text);
    }
    ops_free(o);
    return y;
}

void promise_same_bits(struct backend *b, enum dtype compute)
{
    struct part p;
    float *hosts[5];
    size_t item = TOKENS * WIDTH;
    AUTO_FREE float *x = malloc(ITEMS * item * sizeof(float));
    assert_non_null(x);
    fill(x, (int64_t)(ITEMS * item), 7);
    part_new(&p, b, compute, hosts);
    AUTO_FREE float *all = run_forward(b, compute, &p, x, 0, ITEMS);
    AUTO_FREE float *again = run_forward(b, compute, &p, x, 0, ITEMS);
    assert_memory_equal(all, again, ITEMS * item * sizeof(float));
    for (int i = 0; i < ITEMS; i++) {
        AUTO_FREE float *alone = run_forward(b, compute, &p, x, i, 1);
        assert_memory_equal(alone, all + (size_t)i * item, item * sizeof(float));
    }
    part_free(&p, hosts);
}

/* ---- single promises ---- */

void promise_hidden_keys_give_zeros(struct backend *b, enum dtype compute)
{
    struct ops *o = ops_new(b, compute, 1 << 20, NULL);
    float x[2 * 3 * 8], y[2 * 3 * 8];
    int32_t mask[6] = {1, 0, 1, 0, 0, 0};
    fill(x, 48, 3);
    struct tensor *t = op_from_host(o, DTYPE_F32, SHAPE(2, 3, 1, 8), x);
    struct attention_args args = {.scale = 1};
    args.key_mask = op_from_host(o, DTYPE_I32, SHAPE(2, 3), mask);
    assert_int_equal(op_to_host(o, op_attention(o, t, t, t, &args), y, sizeof y), 0);
    for (int i = 0; i < 24; i++) {
        assert_true(y[i] != 0.0f);
        assert_true(y[24 + i] == 0.0f);
    }
    ops_free(o);
}

void promise_nan_is_never_hidden(struct backend *b, enum dtype compute)
{
    float x[64], w[64 * 64], one[64];
    fill(x, 64, 1);
    fill(w, 64 * 64, 2);
    for (int i = 0; i < 64; i++)
        one[i] = 1;
    x[5] = NAN;
    struct ops *o = ops_new(b, compute, 1 << 20, NULL);
    struct tensor *t = op_from_host(o, DTYPE_F32, SHAPE(1, 1, 64), x), *weight;
    struct tensor *ones = op_from_host(o, DTYPE_F32, SHAPE(64), one);
    assert_int_equal(tensor_weight_new(b, DTYPE_F32, SHAPE(64, 64), w, compute, &weight, NULL), 0);
    struct tensor *head = op_reshape(o, t, SHAPE(1, 1, 1, 64)), *filter;
    assert_int_equal(
        tensor_weight_new(b, DTYPE_F32, SHAPE(64, 64, 1, 1), w, compute, &filter, NULL), 0);
    struct tensor *const results[] = {
        op_linear(o, t, weight, NULL, ACT_NONE),
        op_rms_norm(o, t, ones, 1e-6f),
        op_layer_norm(o, t, NULL, NULL, 1e-6f),
        op_group_norm(o, head, 1, NULL, NULL, 1e-6f, ACT_NONE),
        op_attention(o, head, head, head, &(struct attention_args){.scale = 1}),
        op_clamp(o, t, -1, 1),
    };
    for (size_t i = 0; i < ARRAY_LEN(results); i++)
        assert_false(op_all_finite(o, results[i]));
    for (int act = ACT_NONE; act <= ACT_SIGMOID; act++) {
        assert_false(op_all_finite(o, op_act(o, t, (enum activation)act)));
        assert_false(op_all_finite(o, op_linear(o, t, weight, NULL, (enum activation)act)));
        assert_false(op_all_finite(
            o, op_conv2d(o, head, filter, NULL, 1, (const int[4]){0}, (enum activation)act)));
    }
    assert_int_equal(ops_error(o, NULL), 0);
    tensor_weight_free(weight);
    tensor_weight_free(filter);
    ops_free(o);
}
