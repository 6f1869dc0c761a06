/* Cases of linear, convolution and attention. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "ops_compare.h"

/* ---- linear ---- */

static void reference_linear(const struct value *x, const struct value *w, const struct value *bias,
                             enum activation act, double *y)
{
    int64_t n = w->dims[0], k = w->dims[1], m = x->n / k;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = bias ? bias->v[j] : 0;
            for (int64_t l = 0; l < k; l++)
                sum += x->v[i * k + l] * w->v[j * k + l];
            y[i * n + j] = reference_act(sum, act);
        }
}

/* w is the case's, and freed here. */
static void compare_linear(struct compare *c, struct value w, int rank, const int64_t *dims,
                           bool with_bias, enum activation act, double tolerance)
{
    int64_t k = dims[rank - 1], n = w.dims[0];
    ops_mark mark = ops_push(c->o);
    struct value x = value_new(c, rank, dims), bias = {0};
    if (with_bias)
        bias = weight_new(c, DTYPE_F32, SHAPE(n));
    struct tensor *y = op_linear(c->o, x.t, w.t, bias.t, act);
    AUTO_FREE double *expected = malloc((size_t)(x.n / k * n) * sizeof *expected);
    reference_linear(&x, &w, with_bias ? &bias : NULL, act, expected);
    compare_result(c, y, expected, x.n / k * n, tolerance);
    value_free(&x);
    value_free(&w);
    value_free(&bias);
    ops_pop(c->o, mark);
}

static void linear_case(struct compare *c, enum dtype d, int rank, const int64_t *dims, int64_t n,
                        bool with_bias, enum activation act)
{
    compare_linear(c, weight_new(c, d, SHAPE(n, dims[rank - 1])), rank, dims, with_bias, act,
                   product_tolerance(c));
}

static void linear_shapes(struct compare *c)
{
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        linear_case(c, types[i], SHAPE(2, 104, 256), 192, true, ACT_NONE);
        linear_case(c, types[i], SHAPE(3, 7, 33), 19, true, ACT_NONE);
        linear_case(c, types[i], SHAPE(2, 3, 5, 17), 40, false, ACT_NONE);
        linear_case(c, types[i], SHAPE(1, 64), 100, true, ACT_NONE);
        linear_case(c, types[i], SHAPE(13, 48), 64, true, ACT_NONE);
        linear_case(c, types[i], SHAPE(100, 48), 65, false, ACT_NONE);
        linear_case(c, types[i], SHAPE(31), 45, true, ACT_NONE);
        linear_case(c, types[i], SHAPE(1, 1, 1), 1, false, ACT_NONE);
    }
    for (int act = ACT_NONE; act <= ACT_SIGMOID; act++)
        linear_case(c, DTYPE_BF16, SHAPE(2, 21, 64), 48, true, (enum activation)act);
}

/* Weights over the size that is packed: mapped, and widened or narrowed in blocks. */
static void linear_large_weights(struct compare *c)
{
    if (c->layout != DENSE && c->layout != BOTH_VIEW)
        return;
    linear_case(c, DTYPE_BF16, SHAPE(2, 5, 2304), 2000, true, ACT_SILU);
    linear_case(c, DTYPE_F16, SHAPE(1, 3, 2304), 2001, false, ACT_NONE);
    linear_case(c, DTYPE_F32, SHAPE(4, 2304), 2002, true, ACT_NONE);
    linear_case(c, DTYPE_F32, SHAPE(1, 5000, 16), 24, true, ACT_NONE); /* rows in blocks, too */
}

/* Both operands are rounded to 4 bits, each by up to a 16th. */
#define FP8_TOLERANCE 5e-2

static void linear_in_fp8(struct compare *c)
{
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    for (size_t i = 0; i < ARRAY_LEN(types) && c->backend->fp8; i++) {
        compare_linear(c, fp8_weight_new(c, types[i], 192, 256), SHAPE(2, 104, 256), true, ACT_NONE,
                       FP8_TOLERANCE);
        compare_linear(c, fp8_weight_new(c, types[i], 96, 80), SHAPE(3, 9, 80), false, ACT_SILU,
                       FP8_TOLERANCE);
        compare_linear(c, fp8_weight_new(c, types[i], 64, 48), SHAPE(100, 48), true, ACT_GELU_TANH,
                       FP8_TOLERANCE);
        compare_linear(c, fp8_weight_new(c, types[i], 64, 48), SHAPE(2, 5, 48), true, ACT_NONE,
                       FP8_TOLERANCE); /* few rows: of the weights alone */
    }
}

/* ---- convolution ---- */

struct conv_shape {
    int64_t x[4], co, kh, kw;
    int stride, pad[4];
    bool bias;
    enum activation act;
};

static double conv_at(const struct value *x, const struct value *w, const struct conv_shape *s,
                      int64_t item, int64_t row, int64_t column, int64_t co)
{
    int64_t h = x->dims[1], wide = x->dims[2], ci = x->dims[3];
    double sum = 0;
    for (int64_t i = 0; i < s->kh; i++)
        for (int64_t j = 0; j < s->kw; j++) {
            int64_t r = row * s->stride + i - s->pad[0], q = column * s->stride + j - s->pad[2];
            if (r < 0 || r >= h || q < 0 || q >= wide)
                continue;
            for (int64_t k = 0; k < ci; k++)
                sum += x->v[((item * h + r) * wide + q) * ci + k] *
                       w->v[((co * ci + k) * s->kh + i) * s->kw + j];
        }
    return sum;
}

static void conv_case(struct compare *c, enum dtype d, const struct conv_shape *s)
{
    ops_mark mark = ops_push(c->o);
    struct value x = value_new(c, 4, s->x), bias = {0};
    struct value w = weight_new(c, d, SHAPE(s->co, s->x[3], s->kh, s->kw));
    if (s->bias)
        bias = weight_new(c, d, SHAPE(s->co));
    int64_t ho = (s->x[1] + s->pad[0] + s->pad[1] - s->kh) / s->stride + 1;
    int64_t wo = (s->x[2] + s->pad[2] + s->pad[3] - s->kw) / s->stride + 1;
    int64_t n = s->x[0] * ho * wo * s->co;
    AUTO_FREE double *expected = malloc((size_t)n * sizeof *expected);
    struct tensor *y = op_conv2d(c->o, x.t, w.t, bias.t, s->stride, s->pad, s->act);
    for (int64_t i = 0; i < n; i++) {
        int64_t co = i % s->co, column = i / s->co % wo, row = i / s->co / wo % ho;
        double sum = conv_at(&x, &w, s, i / s->co / wo / ho, row, column, co);
        expected[i] = reference_act(sum + (s->bias ? bias.v[co] : 0), s->act);
    }
    compare_result(c, y, expected, n, product_tolerance(c));
    value_free(&x);
    value_free(&w);
    value_free(&bias);
    ops_pop(c->o, mark);
}

static void conv_shapes(struct compare *c)
{
    static const struct conv_shape shapes[] = {
        {{2, 9, 11, 32}, 32, 3, 3, 1, {1, 1, 1, 1}, true, ACT_RELU},
        {{1, 16, 16, 16}, 24, 3, 3, 2, {0, 1, 0, 1}, true, ACT_NONE},
        {{2, 7, 5, 3}, 20, 3, 3, 1, {1, 1, 1, 1}, true, ACT_SILU},
        {{1, 8, 8, 32}, 3, 3, 3, 1, {1, 1, 1, 1}, false, ACT_NONE},
        {{2, 6, 10, 48}, 17, 1, 1, 1, {0, 0, 0, 0}, true, ACT_NONE},
        {{2, 7, 5, 24}, 9, 1, 1, 2, {0, 0, 0, 0}, true, ACT_SILU},
        {{1, 5, 6, 16}, 8, 1, 1, 2, {1, 0, 2, 1}, true, ACT_RELU},
        {{1, 12, 13, 4}, 8, 4, 2, 2, {2, 1, 0, 3}, true, ACT_NONE},
        {{1, 1, 1, 5}, 7, 1, 1, 1, {0, 0, 0, 0}, true, ACT_GELU},
        {{1, 40, 33, 64}, 64, 3, 3, 1, {1, 1, 1, 1}, true, ACT_NONE},
    };
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        conv_case(c, DTYPE_F32, &shapes[i]);
        conv_case(c, i % 2 ? DTYPE_BF16 : DTYPE_F16, &shapes[i]);
    }
}

/* So much work that it is done in bands of rows: checked at points, in the seams of any band too.
 */
static void conv_in_bands(struct compare *c)
{
    static const struct conv_shape s = {{1, 200, 256, 192}, 256,  3,       3, 1,
                                        {1, 1, 1, 1},       true, ACT_NONE};
    if (c->layout != DENSE)
        return;
    struct value x = value_new(c, 4, s.x), w = weight_new(c, DTYPE_F32, SHAPE(256, 192, 3, 3));
    struct value bias = weight_new(c, DTYPE_F32, SHAPE(256));
    struct tensor *y = op_conv2d(c->o, x.t, w.t, bias.t, s.stride, s.pad, s.act);
    double expected[4];
    for (int64_t row = 0; row < 200; row++) {
        ops_mark mark = ops_push(c->o);
        int64_t column = row * 37 % 256;
        struct tensor *point = op_slice(c->o, op_slice(c->o, y, 1, row, 1), 2, column, 1);
        for (int64_t i = 0; i < 4; i++)
            expected[i] = conv_at(&x, &w, &s, 0, row, column, i * 60) + bias.v[i * 60];
        struct tensor *some[4];
        for (int64_t i = 0; i < 4; i++)
            some[i] = op_slice(c->o, point, 3, i * 60, 1);
        point = op_concat(c->o, (const struct tensor *const *)some, 4, 3);
        compare_result(c, point, expected, 4, 10 * product_tolerance(c)); /* four points only */
        ops_pop(c->o, mark);
    }
    value_free(&x);
    value_free(&w);
    value_free(&bias);
}

/* ---- attention ---- */

struct attention_shape {
    int64_t b, tq, tk, h, g, d;
    bool causal, masked;
};

static bool visible(const struct attention_shape *s, const int32_t *mask, int64_t item, int64_t i,
                    int64_t j)
{
    return (!s->causal || j <= i) && (!s->masked || mask[item * s->tk + j]);
}

static void attend_row(const struct attention_shape *s, const struct value *q,
                       const struct value *k, const struct value *v, const int32_t *mask,
                       int64_t row, double *scores, double *y)
{
    int64_t head = row % s->h, i = row / s->h % s->tq, item = row / s->h / s->tq;
    int64_t group = head / (s->h / s->g);
    double most = -INFINITY, total = 0;
    for (int64_t j = 0; j < s->tk; j++) {
        double dot = 0;
        for (int64_t l = 0; l < s->d; l++)
            dot += q->v[row * s->d + l] * k->v[((item * s->tk + j) * s->g + group) * s->d + l];
        scores[j] = visible(s, mask, item, i, j) ? dot / sqrt((double)s->d) : -INFINITY;
        most = scores[j] > most ? scores[j] : most;
    }
    memset(y, 0, (size_t)s->d * sizeof *y);
    for (int64_t j = 0; j < s->tk && most > -INFINITY; j++)
        total += scores[j] = exp(scores[j] - most);
    for (int64_t j = 0; j < s->tk && total > 0; j++)
        for (int64_t l = 0; l < s->d; l++)
            y[l] += scores[j] / total * v->v[((item * s->tk + j) * s->g + group) * s->d + l];
}

static void attention_case(struct compare *c, const struct attention_shape *s)
{
    ops_mark mark = ops_push(c->o);
    struct value q = value_new(c, SHAPE(s->b, s->tq, s->h, s->d));
    struct value k = value_new(c, SHAPE(s->b, s->tk, s->g, s->d));
    struct value v = value_new(c, SHAPE(s->b, s->tk, s->g, s->d));
    struct attention_args args = {.scale = 1.0f / sqrtf((float)s->d), .causal = s->causal};
    AUTO_FREE int32_t *mask = calloc((size_t)(s->b * s->tk), sizeof *mask);
    AUTO_FREE double *scores = malloc((size_t)s->tk * sizeof *scores);
    AUTO_FREE double *expected = malloc((size_t)q.n * sizeof *expected);
    for (int64_t i = 0; i < s->b * s->tk; i++) /* of the last item, only the first key is seen */
        mask[i] = i / s->tk == s->b - 1 ? i % s->tk == 0 : i * 7 % 5 != 0;
    if (s->masked)
        args.key_mask = op_from_host(c->o, DTYPE_I32, SHAPE(s->b, s->tk), mask);
    struct tensor *y = op_attention(c->o, q.t, k.t, v.t, &args);
    for (int64_t row = 0; row < q.n / s->d; row++)
        attend_row(s, &q, &k, &v, mask, row, scores, expected + row * s->d);
    compare_result(c, y, expected, q.n, product_tolerance(c));
    value_free(&q);
    value_free(&k);
    value_free(&v);
    ops_pop(c->o, mark);
}

static void attention_shapes(struct compare *c)
{
    static const struct attention_shape shapes[] = {
        {2, 104, 104, 4, 4, 64, false, false}, {1, 33, 300, 2, 2, 40, false, false},
        {2, 70, 70, 6, 2, 16, true, false},    {2, 50, 129, 4, 1, 80, false, true},
        {1, 260, 260, 2, 2, 32, true, true},   {1, 9, 17, 1, 1, 160, false, false},
        {1, 5, 140, 1, 1, 512, false, false},  {3, 1, 1, 2, 1, 7, false, false},
        {1, 40, 12, 3, 3, 24, true, false},    {1, 200, 555, 2, 1, 48, false, false},
        {2, 105, 531, 2, 2, 41, true, true},
    };
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
        attention_case(c, &shapes[i]);
}

const struct compare_case compare_products[] = {
    {"linear", linear_shapes, false},
    {"linear in fp8", linear_in_fp8, false},
    {"linear with large weights", linear_large_weights, false},
    {"conv2d in bands", conv_in_bands, true},
    {"conv2d", conv_shapes, false},
    {"attention", attention_shapes, false},
    {NULL, NULL, false},
};
