/* Cases of norms, pointwise operations, moves and tables. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "ops_compare.h"

#define EXACT 0.0
#define FP32  1e-6

/* Shapes that reach vector bodies, tails and rows shorter than a vector. */
static const int64_t shapes[][3] = {{2, 104, 256}, {3, 5, 33}, {1, 1, 1}, {2, 9, 3}, {1, 300, 17}};

static double *doubles(int64_t n)
{
    double *v = calloc((size_t)n, sizeof *v);
    assert_non_null(v);
    return v;
}

/* ---- norms ---- */

enum norm { RMS, LAYER, LAYER_PLAIN, MODULATED, MODULATED_ONE, NORMS };

static void reference_norm(enum norm kind, const struct value *x, const struct value *first,
                           const struct value *second, double *y)
{
    int64_t c = x->dims[2], per_item = x->dims[1];
    for (int64_t row = 0; row < x->n / c; row++) {
        const double *v = x->v + row * c;
        double mean = 0, square = 0;
        for (int64_t i = 0; i < c && kind != RMS; i++)
            mean += v[i] / (double)c;
        for (int64_t i = 0; i < c; i++)
            square += (v[i] - mean) * (v[i] - mean) / (double)c;
        int64_t at = kind == MODULATED ? row / per_item * c : 0;
        for (int64_t i = 0; i < c; i++) {
            double n = (v[i] - mean) / sqrt(square + 1e-5);
            if (kind == RMS)
                n *= first->v[i];
            else if (kind == LAYER)
                n = n * first->v[i] + second->v[i];
            else if (kind != LAYER_PLAIN)
                n = n * (1 + second->v[at + i]) + first->v[at + i];
            y[row * c + i] = n;
        }
    }
}

static void norm_case(struct compare *c, enum norm kind, const int64_t *dims)
{
    ops_mark mark = ops_push(c->o);
    struct value x = value_new(c, 3, dims);
    int64_t items = kind == MODULATED ? dims[0] : 1;
    bool modulated = kind == MODULATED || kind == MODULATED_ONE;
    struct value a = modulated ? value_new(c, SHAPE(items, dims[2])) : value_dense(c, 1, dims + 2);
    struct value b = modulated ? value_new(c, SHAPE(items, dims[2])) : value_dense(c, 1, dims + 2);
    AUTO_FREE double *expected = doubles(x.n);
    struct tensor *y = NULL;
    if (kind == RMS)
        y = op_rms_norm(c->o, x.t, a.t, 1e-5f);
    else if (modulated)
        y = op_modulated_norm(c->o, x.t, a.t, b.t, 1e-5f);
    else
        y = op_layer_norm(c->o, x.t, kind == LAYER ? a.t : NULL, kind == LAYER ? b.t : NULL, 1e-5f);
    reference_norm(kind, &x, &a, &b, expected);
    compare_result(c, y, expected, x.n, FP32);
    value_free(&x);
    value_free(&a);
    value_free(&b);
    ops_pop(c->o, mark);
}

static void norms(struct compare *c)
{
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
        for (int kind = RMS; kind < NORMS; kind++)
            norm_case(c, (enum norm)kind, shapes[i]);
}

/* The same in two phases: sums of rows, then rows, each time in two calls. */
static struct tensor *group_norm_by_rows(struct compare *c, const struct value *x, int groups,
                                         const struct tensor *w, const struct tensor *b,
                                         enum activation act)
{
    int64_t h = x->dims[1], first = (h + 1) / 3 + (h > 1), rows[2] = {first ? first : h, 0};
    struct tensor *y = op_empty(c->o, DTYPE_F32, 4, x->dims);
    struct tensor *sums = op_group_sums(c->o, x->dims[0], groups);
    rows[1] = h - rows[0];
    for (int pass = 0; pass < 2; pass++)
        for (int64_t i = 0, from = 0; i < 2 && rows[i] > 0; from += rows[i++]) {
            struct tensor *part = op_slice(c->o, x->t, 1, from, rows[i]);
            if (pass == 0)
                op_group_sums_add(c->o, sums, part);
            else
                op_copy(c->o, op_slice(c->o, y, 1, from, rows[i]),
                        op_group_norm_rows(c->o, part, sums, w, b, 1e-6f, act));
        }
    return y;
}

static void group_norm_case(struct compare *c, const int64_t *dims, int groups, enum activation act)
{
    ops_mark mark = ops_push(c->o);
    struct value x = value_new(c, 4, dims);
    struct value w = value_dense(c, 1, dims + 3), b = value_dense(c, 1, dims + 3);
    int64_t pixels = dims[1] * dims[2], size = dims[3] / groups, n = pixels * size;
    AUTO_FREE double *expected = doubles(x.n);
    for (int64_t unit = 0; unit < dims[0] * groups; unit++) {
        int64_t item = unit / groups, first = unit % groups * size;
        double mean = 0, square = 0;
        for (int pass = 0; pass < 3; pass++)
            for (int64_t i = 0; i < n; i++) {
                int64_t ch = first + i % size, at = (item * pixels + i / size) * dims[3] + ch;
                double v = x.v[at];
                mean += pass == 0 ? v / (double)n : 0;
                square += pass == 1 ? (v - mean) * (v - mean) / (double)n : 0;
                if (pass == 2)
                    expected[at] =
                        reference_act((v - mean) / sqrt(square + 1e-6) * w.v[ch] + b.v[ch], act);
            }
    }
    struct tensor *y = op_group_norm(c->o, x.t, groups, w.t, b.t, 1e-6f, act);
    compare_result(c, y, expected, x.n, FP32);
    struct tensor *rows = group_norm_by_rows(c, &x, groups, w.t, b.t, act);
    AUTO_FREE float *whole = malloc((size_t)x.n * sizeof *whole);
    assert_int_equal(op_to_host(c->o, y, whole, (size_t)x.n * sizeof *whole), 0);
    for (int64_t i = 0; i < x.n; i++)
        expected[i] = (double)whole[i];
    compare_result(c, rows, expected, x.n, EXACT);
    value_free(&x);
    value_free(&w);
    value_free(&b);
    ops_pop(c->o, mark);
}

static void group_norms(struct compare *c)
{
    group_norm_case(c, (int64_t[]){2, 20, 30, 64}, 32, ACT_SILU);
    group_norm_case(c, (int64_t[]){1, 3, 5, 6}, 3, ACT_NONE);
    group_norm_case(c, (int64_t[]){3, 1, 1, 4}, 1, ACT_NONE);
}

/* ---- pointwise ---- */

static void activations(struct compare *c)
{
    for (size_t s = 0; s < ARRAY_LEN(shapes); s++)
        for (int act = ACT_NONE; act <= ACT_SIGMOID; act++) {
            ops_mark mark = ops_push(c->o);
            struct value x = value_new(c, 3, shapes[s]);
            AUTO_FREE double *expected = doubles(x.n);
            for (int64_t i = 0; i < x.n; i++)
                expected[i] = reference_act(x.v[i], (enum activation)act);
            compare_result(c, op_act(c->o, x.t, (enum activation)act), expected, x.n, FP32);
            value_free(&x);
            ops_pop(c->o, mark);
        }
}

static void gated_units(struct compare *c)
{
    for (size_t s = 0; s < ARRAY_LEN(shapes); s++) {
        ops_mark mark = ops_push(c->o);
        int64_t m = shapes[s][2];
        struct value x = value_new(c, SHAPE(shapes[s][0], shapes[s][1], 2 * m));
        AUTO_FREE double *expected = doubles(x.n / 2);
        for (int64_t i = 0; i < x.n / 2; i++)
            expected[i] = reference_act(x.v[i / m * 2 * m + i % m], ACT_SILU) *
                          x.v[i / m * 2 * m + m + i % m];
        compare_result(c, op_glu(c->o, x.t, ACT_SILU), expected, x.n / 2, FP32);
        for (int64_t i = 0; i < x.n / 2; i++)
            expected[i] = x.v[i / m * 2 * m + i % m] *
                          reference_act(x.v[i / m * 2 * m + m + i % m], ACT_GELU);
        compare_result(c, op_glu_behind(c->o, x.t, ACT_GELU), expected, x.n / 2, FP32);
        value_free(&x);
        ops_pop(c->o, mark);
    }
}

/* a op b with b of the last `rank` axes, or with 1 in front. */
static void binary_case(struct compare *c, const int64_t *dims, int rank, bool ones)
{
    ops_mark mark = ops_push(c->o);
    int64_t leading[3] = {1, rank > 1 ? dims[1] : 1, dims[2]};
    struct value a = value_new(c, 3, dims);
    struct value b = ones ? value_new(c, 3, leading) : value_new(c, rank, dims + 3 - rank);
    AUTO_FREE double *sum = doubles(a.n), *product = doubles(a.n);
    for (int64_t i = 0; i < a.n; i++) {
        sum[i] = a.v[i] + b.v[i % b.n];
        product[i] = a.v[i] * b.v[i % b.n];
    }
    compare_result(c, op_add(c->o, a.t, b.t), sum, a.n, FP32);
    compare_result(c, op_mul(c->o, a.t, b.t), product, a.n, FP32);
    value_free(&a);
    value_free(&b);
    ops_pop(c->o, mark);
}

static void binaries(struct compare *c)
{
    for (size_t s = 0; s < ARRAY_LEN(shapes); s++)
        for (int rank = 1; rank <= 3; rank++) {
            binary_case(c, shapes[s], rank, false);
            binary_case(c, shapes[s], rank, true);
        }
}

static void affine_and_clamp(struct compare *c)
{
    for (size_t s = 0; s < ARRAY_LEN(shapes); s++) {
        ops_mark mark = ops_push(c->o);
        struct value x = value_new(c, 3, shapes[s]);
        AUTO_FREE double *line = doubles(x.n), *cut = doubles(x.n);
        for (int64_t i = 0; i < x.n; i++) {
            line[i] = x.v[i] * 0.75 - 2;
            cut[i] = fmin(fmax(x.v[i], -0.5), 0.25);
        }
        compare_result(c, op_affine(c->o, x.t, 0.75f, -2.0f), line, x.n, FP32);
        compare_result(c, op_clamp(c->o, x.t, -0.5f, 0.25f), cut, x.n, EXACT);
        value_free(&x);
        ops_pop(c->o, mark);
    }
}

static void in_place_case(struct compare *c, const int64_t *dims)
{
    ops_mark mark = ops_push(c->o);
    struct value x = value_new(c, 3, dims), y = value_new(c, 3, dims);
    struct value gate = value_new(c, SHAPE(dims[0], dims[2]));
    struct value one = value_new(c, SHAPE(1, dims[2]));
    const struct tensor *terms[] = {y.t, x.t, y.t};
    const float factors[] = {0.5f, -2.0f, 0.25f};
    double tolerance = x.n > 1 ? FP32 : 8 * FP32; /* one element alone may nearly cancel */
    op_add_to(c->o, x.t, y.t);
    for (int64_t i = 0; i < x.n; i++)
        x.v[i] += y.v[i];
    compare_result(c, x.t, x.v, x.n, tolerance);
    op_gated_add_to(c->o, x.t, gate.t, y.t);
    for (int64_t i = 0; i < x.n; i++)
        x.v[i] += gate.v[i / (dims[1] * dims[2]) * dims[2] + i % dims[2]] * y.v[i];
    compare_result(c, x.t, x.v, x.n, tolerance);
    op_gated_add_to(c->o, x.t, one.t, y.t);
    for (int64_t i = 0; i < x.n; i++)
        x.v[i] += one.v[i % dims[2]] * y.v[i];
    compare_result(c, x.t, x.v, x.n, tolerance);
    op_add_to(c->o, x.t, op_reshape(c->o, gate.t, SHAPE(dims[0], 1, dims[2])));
    for (int64_t i = 0; i < x.n; i++)
        x.v[i] += gate.v[i / (dims[1] * dims[2]) * dims[2] + i % dims[2]];
    compare_result(c, x.t, x.v, x.n, tolerance);
    op_combine_to(c->o, x.t, terms, factors, 3);
    for (int64_t i = 0; i < x.n; i++)
        x.v[i] = 0.75 * y.v[i] - 2 * x.v[i];
    compare_result(c, x.t, x.v, x.n, tolerance);
    value_free(&x);
    value_free(&y);
    value_free(&gate);
    value_free(&one);
    ops_pop(c->o, mark);
}

static void in_place(struct compare *c)
{
    for (size_t s = 0; s < ARRAY_LEN(shapes); s++)
        in_place_case(c, shapes[s]);
}

/* ---- moves ---- */

static int64_t flat(const int64_t *index, const int64_t *dims, int rank)
{
    int64_t at = 0;
    for (int i = 0; i < rank; i++)
        at = at * dims[i] + index[i];
    return at;
}

static void permute_case(struct compare *c, const int *axes)
{
    ops_mark mark = ops_push(c->o);
    struct value x = value_new(c, SHAPE(2, 9, 33, 20));
    AUTO_FREE double *expected = doubles(x.n);
    int64_t at = 0, to[4], from[4], dims[4];
    for (int i = 0; i < 4; i++)
        dims[i] = x.dims[axes[i]];
    for (to[0] = 0; to[0] < dims[0]; to[0]++)
        for (to[1] = 0; to[1] < dims[1]; to[1]++)
            for (to[2] = 0; to[2] < dims[2]; to[2]++)
                for (to[3] = 0; to[3] < dims[3]; to[3]++) {
                    for (int i = 0; i < 4; i++)
                        from[axes[i]] = to[i];
                    expected[at++] = x.v[flat(from, x.dims, 4)];
                }
    compare_result(c, op_permute(c->o, x.t, axes), expected, x.n, EXACT);
    value_free(&x);
    ops_pop(c->o, mark);
}

static void permutes(struct compare *c)
{
    permute_case(c, (int[]){0, 2, 1, 3});
    permute_case(c, (int[]){0, 3, 1, 2});
    permute_case(c, (int[]){3, 2, 1, 0});
    permute_case(c, (int[]){0, 1, 2, 3});
}

static void concats(struct compare *c)
{
    for (int axis = 0; axis < 3; axis++) {
        ops_mark mark = ops_push(c->o);
        int64_t first[3] = {2, 5, 9}, second[3] = {2, 5, 9};
        second[axis] = 4;
        struct value a = value_new(c, 3, first), b = value_new(c, 3, second);
        int64_t outer = 1, inner_a, inner_b;
        for (int i = 0; i < axis; i++)
            outer *= first[i];
        inner_a = a.n / outer;
        inner_b = b.n / outer;
        AUTO_FREE double *expected = doubles(a.n + b.n);
        for (int64_t i = 0; i < outer; i++) {
            memcpy(expected + i * (inner_a + inner_b), a.v + i * inner_a,
                   (size_t)inner_a * sizeof(double));
            memcpy(expected + i * (inner_a + inner_b) + inner_a, b.v + i * inner_b,
                   (size_t)inner_b * sizeof(double));
        }
        const struct tensor *xs[] = {a.t, b.t};
        compare_result(c, op_concat(c->o, xs, 2, axis - 3), expected, a.n + b.n, EXACT);
        value_free(&a);
        value_free(&b);
        ops_pop(c->o, mark);
    }
}

/* A view splits into heads without a copy, and gives what the dense tensor gives. */
static void reshapes(struct compare *c)
{
    struct value x = value_new(c, SHAPE(2, 6, 24));
    compare_result(c, op_reshape(c->o, x.t, SHAPE(2, 6, 4, 6)), x.v, x.n, EXACT);
    compare_result(c, op_reshape(c->o, x.t, SHAPE(2, 3, 2, 1, 24)), x.v, x.n, EXACT);
    compare_result(c, op_reshape(c->o, op_contiguous(c->o, x.t), SHAPE(8, 36)), x.v, x.n, EXACT);
    value_free(&x);
}

static void casts(struct compare *c)
{
    static const enum dtype halves[] = {DTYPE_BF16, DTYPE_F16};
    for (size_t k = 0; k < ARRAY_LEN(halves); k++) {
        struct value x = value_new(c, SHAPE(3, 7, 133));
        AUTO_FREE double *expected = doubles(x.n);
        for (int64_t i = 0; i < x.n; i++)
            expected[i] = half_value(halves[k], half_bits(halves[k], x.v[i]));
        struct tensor *half = op_cast(c->o, x.t, halves[k]);
        assert_int_equal(tensor_dtype(half), halves[k]);
        compare_result(c, op_cast(c->o, half, DTYPE_F32), expected, x.n, EXACT);
        struct tensor *swapped = op_permute(c->o, half, (int[]){2, 0, 1});
        struct tensor *back = op_permute(c->o, swapped, (int[]){1, 2, 0});
        compare_result(c, op_cast(c->o, back, DTYPE_F32), expected, x.n, EXACT);
        value_free(&x);
    }
}

/* ---- tables ---- */

static void rope_case(struct compare *c, bool interleaved, int64_t d)
{
    ops_mark mark = ops_push(c->o);
    struct value x = value_new(c, SHAPE(2, 19, 3, d)), cos = value_new(c, SHAPE(19, d / 2));
    struct value sin = value_new(c, SHAPE(19, d / 2));
    AUTO_FREE double *expected = doubles(x.n);
    for (int64_t row = 0; row < x.n / d; row++)
        for (int64_t i = 0; i < d / 2; i++) {
            int64_t a = row * d + (interleaved ? 2 * i : i), b = a + (interleaved ? 1 : d / 2);
            int64_t at = row / 3 % 19 * (d / 2) + i;
            expected[a] = x.v[a] * cos.v[at] - x.v[b] * sin.v[at];
            expected[b] = x.v[b] * cos.v[at] + x.v[a] * sin.v[at];
        }
    compare_result(c, op_rope(c->o, x.t, cos.t, sin.t, interleaved), expected, x.n, FP32);
    value_free(&x);
    value_free(&cos);
    value_free(&sin);
    ops_pop(c->o, mark);
}

static void ropes(struct compare *c)
{
    rope_case(c, false, 64);
    rope_case(c, true, 64);
    rope_case(c, false, 6);
    rope_case(c, true, 10);
}

static void embeddings(struct compare *c)
{
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    static const int32_t ids[6] = {0, 36, 5, 5, 17, 1};
    for (size_t k = 0; k < ARRAY_LEN(types); k++) {
        struct value table = table_new(c, types[k], 37, 21);
        AUTO_FREE double *expected = doubles(6 * 21);
        for (int64_t i = 0; i < 6 * 21; i++)
            expected[i] = table.v[ids[i / 21] * 21 + i % 21];
        struct tensor *t = op_from_host(c->o, DTYPE_I32, SHAPE(2, 3), ids);
        compare_result(c, op_embedding(c->o, table.t, t), expected, 6 * 21, EXACT);
        value_free(&table);
    }
}

static void timestep_embeddings(struct compare *c)
{
    static const float t[3] = {0.0f, 1.5f, 37.25f};
    for (int first = 0; first < 2; first++)
        for (int shift = 0; shift < 2; shift++) {
            double expected[3 * 64];
            for (int i = 0; i < 3; i++)
                for (int k = 0; k < 32; k++) {
                    double angle = (double)t[i] * exp(-log(10000) * k / (32 - shift));
                    expected[i * 64 + k] = first ? cos(angle) : sin(angle);
                    expected[i * 64 + 32 + k] = first ? sin(angle) : cos(angle);
                }
            struct tensor *x = op_from_host(c->o, DTYPE_F32, SHAPE(3), t);
            compare_result(c, op_timestep_embedding(c->o, x, 64, first, (float)shift), expected,
                           3 * 64, 4e-6);
        }
}

static void upsamples(struct compare *c)
{
    for (int k = 1; k <= 3; k++) {
        struct value x = value_new(c, SHAPE(2, 4, 5, 7));
        int64_t n = x.n * k * k;
        AUTO_FREE double *expected = doubles(n);
        for (int64_t i = 0; i < n; i++) {
            int64_t ch = i % 7, column = i / 7 % (5 * k), row = i / 7 / (5 * k) % (4 * k);
            int64_t item = i / (7 * 20 * k * k);
            expected[i] = x.v[((item * 4 + row / k) * 5 + column / k) * 7 + ch];
        }
        compare_result(c, op_upsample_nearest(c->o, x.t, k), expected, n, EXACT);
        value_free(&x);
    }
}

static void finite_checks(struct compare *c)
{
    static const double bad[] = {INFINITY, -INFINITY, NAN};
    struct value x = value_new(c, SHAPE(3, 11, 301));
    assert_true(op_all_finite(c->o, x.t));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        float f = (float)bad[i];
        struct tensor *one = op_from_host(c->o, DTYPE_F32, SHAPE(1, 1, 1), &f);
        struct tensor *y = op_affine(c->o, x.t, 1, 0), *at = op_slice(c->o, y, 0, 2, 1);
        at = op_slice(c->o, op_slice(c->o, at, 1, 10, 1), 2, 300 - (int64_t)i, 1);
        op_copy(c->o, at, one);
        assert_false(op_all_finite(c->o, y));
        assert_true(op_all_finite(c->o, op_slice(c->o, y, 0, 0, 2)));
    }
    value_free(&x);
}

static void bytes_of_pictures(struct compare *c)
{
    static const float in[8] = {-1, 0, 0.5f / 255, 1.5f / 255, 2.5f / 255, 1, 7, NAN};
    static const uint8_t out[8] = {0, 0, 0, 2, 2, 255, 255, 0};
    uint8_t got[8];
    struct tensor *x = op_from_host(c->o, DTYPE_F32, SHAPE(8), in);
    assert_int_equal(op_to_host(c->o, op_to_u8(c->o, x, 1, 0), got, sizeof got), 0);
    assert_memory_equal(got, out, sizeof out);
    struct value v = value_new(c, SHAPE(2, 5, 9, 3));
    uint8_t bytes[270];
    assert_int_equal(op_to_host(c->o, op_to_u8(c->o, v.t, 0.5f, 0.5f), bytes, sizeof bytes), 0);
    for (int i = 0; i < 270; i++) {
        double want = fmin(fmax(v.v[i] * 0.5 + 0.5, 0), 1) * 255;
        assert_true(fabs((double)bytes[i] - want) <= 0.5001);
    }
    value_free(&v);
}

const struct compare_case compare_others[] = {
    {"norms", norms, false},
    {"group norm", group_norms, false},
    {"activations", activations, false},
    {"glu", gated_units, false},
    {"add and mul", binaries, false},
    {"affine and clamp", affine_and_clamp, false},
    {"in place", in_place, false},
    {"permute", permutes, false},
    {"concat", concats, false},
    {"reshape", reshapes, false},
    {"cast", casts, false},
    {"rope", ropes, false},
    {"embedding", embeddings, false},
    {"timestep embedding", timestep_embeddings, false},
    {"upsample", upsamples, false},
    {"all finite", finite_checks, false},
    {"to u8", bytes_of_pictures, false},
    {NULL, NULL, false},
};
