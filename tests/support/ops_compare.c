#include "ops_compare.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ARENA (192u << 20)

/* ---- numbers ---- */

static double uniform(struct compare *c) /* splitmix64, [-√3, √3) */
{
    uint64_t z = (c->seed += 0x9E3779B97F4A7C15u);
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return ((double)(z >> 11) * 0x1p-53 - 0.5) * 3.4641016151377544;
}

/* Values a half type holds: `bits` of significand, exponents from `least` on. */
static double round_half(double x, int bits, int least)
{
    int exponent;
    frexp(x, &exponent);
    exponent = exponent < least ? least : exponent;
    double unit = ldexp(1.0, exponent - bits);
    return nearbyint(x / unit) * unit;
}

uint16_t half_bits(enum dtype d, double x)
{
    float f = (float)round_half(x, d == DTYPE_BF16 ? 8 : 11, d == DTYPE_BF16 ? -125 : -13);
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if (d == DTYPE_BF16)
        return (uint16_t)(u >> 16);
    int exponent = (int)(u >> 23 & 0xFF) - 112;
    uint32_t sign = u >> 16 & 0x8000, fraction = u & 0x7FFFFF;
    if (exponent >= 1)
        return (uint16_t)(sign | (uint32_t)exponent << 10 | fraction >> 13);
    return (uint16_t)(sign | (uint32_t)(fabs((double)f) * 0x1p24));
}

double half_value(enum dtype d, uint16_t bits)
{
    if (d == DTYPE_BF16) {
        uint32_t u = (uint32_t)bits << 16;
        float f;
        memcpy(&f, &u, sizeof f);
        return (double)f;
    }
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double x = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return bits & 0x8000 ? -x : x;
}

double reference_act(double x, enum activation act)
{
    switch (act) {
    case ACT_RELU:
        return x > 0 ? x : 0;
    case ACT_SILU:
        return x / (1 + exp(-x));
    case ACT_GELU:
        return 0.5 * x * (1 + erf(x / sqrt(2)));
    case ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
    case ACT_QUICK_GELU:
        return x / (1 + exp(-1.702 * x));
    case ACT_TANH:
        return tanh(x);
    case ACT_SIGMOID:
        return 1 / (1 + exp(-x));
    case ACT_NONE:
        break;
    }
    return x;
}

double product_tolerance(const struct compare *c)
{
    return c->compute == DTYPE_BF16 ? 2e-2 : 2e-6;
}

/* ---- values ---- */

static struct value value_of(struct compare *c, int rank, const int64_t *dims)
{
    struct value x = {.rank = rank, .n = 1};
    for (int i = 0; i < rank; i++)
        x.n *= x.dims[i] = dims[i];
    x.v = malloc((size_t)x.n * sizeof(double));
    assert_non_null(x.v);
    for (int64_t i = 0; i < x.n; i++)
        x.v[i] = (double)(float)uniform(c);
    return x;
}

static struct tensor *upload(struct compare *c, const struct value *x)
{
    float *f = malloc((size_t)x->n * sizeof *f);
    assert_non_null(f);
    for (int64_t i = 0; i < x->n; i++)
        f[i] = (float)x->v[i];
    struct tensor *t = op_from_host(c->o, DTYPE_F32, x->rank, x->dims, f);
    free(f);
    return t;
}

struct value value_dense(struct compare *c, int rank, const int64_t *dims)
{
    struct value x = value_of(c, rank, dims);
    x.t = upload(c, &x);
    return x;
}

struct value value_new(struct compare *c, int rank, const int64_t *dims)
{
    struct value x = value_dense(c, rank, dims);
    int64_t wide[TENSOR_MAX_RANK];
    memcpy(wide, x.dims, sizeof wide);
    bool inner = c->layout == INNER_VIEW || c->layout == BOTH_VIEW;
    bool outer = (c->layout == OUTER_VIEW || c->layout == BOTH_VIEW) && rank > 1;
    int middle = rank / 2;
    if (inner)
        wide[rank - 1] += 5;
    if (outer)
        wide[middle == rank - 1 ? 0 : middle] += 3;
    if (!inner && !outer)
        return x;
    struct tensor *view = op_zeros(c->o, DTYPE_F32, rank, wide);
    for (int i = 0; i < rank; i++)
        if (wide[i] != dims[i])
            view = op_slice(c->o, view, i, 2, dims[i]);
    op_copy(c->o, view, x.t);
    x.t = view;
    return x;
}

/* Half types start at an odd multiple of their size, as tensors in a file may. */
enum use { PRODUCTS, LOOKED_UP, PRODUCTS_IN_FP8 };

static struct value new_weight(struct compare *c, enum dtype d, int rank, const int64_t *dims,
                               enum use use)
{
    struct value w = value_of(c, rank, dims);
    struct err e = {0};
    w.host = malloc((size_t)(w.n + 1) * sizeof(float));
    assert_non_null(w.host);
    float *f = w.host;
    uint16_t *h = (uint16_t *)w.host + 1;
    for (int64_t i = 0; i < w.n; i++) {
        if (d == DTYPE_F32) {
            f[i] = (float)w.v[i];
        } else {
            h[i] = half_bits(d, w.v[i]);
            w.v[i] = half_value(d, h[i]);
        }
    }
    const void *data = d == DTYPE_F32 ? (void *)f : h;
    if (tensor_weight_shape(c->backend, d, rank, dims, &w.t, &e))
        fail_msg("%s", e.text);
    w.t->table = use == LOOKED_UP;
    w.t->fp8 = use == PRODUCTS_IN_FP8;
    if (c->backend->ops->weight_prepare(c->backend, w.t, data, c->compute, &e))
        fail_msg("%s", e.text);
    return w;
}

struct value weight_new(struct compare *c, enum dtype d, int rank, const int64_t *dims)
{
    return new_weight(c, d, rank, dims, PRODUCTS);
}

struct value table_new(struct compare *c, enum dtype d, int64_t rows, int64_t columns)
{
    return new_weight(c, d, SHAPE(rows, columns), LOOKED_UP);
}

struct value fp8_weight_new(struct compare *c, enum dtype d, int64_t rows, int64_t columns)
{
    return new_weight(c, d, SHAPE(rows, columns), PRODUCTS_IN_FP8);
}

void value_free(struct value *x)
{
    if (x->host)
        tensor_weight_free(x->t);
    free(x->host);
    free(x->v);
    *x = (struct value){0};
}

/* ---- comparing ---- */

static const char *layout_name(enum layout l)
{
    static const char *const names[LAYOUTS] = {"dense", "inner views", "outer views", "views"};
    return names[l];
}

void compare_result(struct compare *c, const struct tensor *y, const double *expected, int64_t n,
                    double tolerance)
{
    struct err e = {0};
    if (ops_error(c->o, &e))
        fail_msg("%s, %s: %s", c->name, layout_name(c->layout), e.text);
    assert_int_equal(tensor_elements(y), n);
    float *f = malloc((size_t)n * sizeof *f);
    assert_non_null(f);
    assert_int_equal(op_to_host(c->o, y, f, (size_t)n * sizeof *f), 0);
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += ((double)f[i] - expected[i]) * ((double)f[i] - expected[i]);
        size += expected[i] * expected[i];
    }
    free(f);
    double relative = size > 0 ? sqrt(difference / size) : sqrt(difference);
    if (!(relative <= tolerance))
        fail_msg("%s, %s, compute %s: relative L2 error %.3g is over %.3g", c->name,
                 layout_name(c->layout), dtype_name(c->compute), relative, tolerance);
}

static void run_cases(struct compare *c, const struct compare_case *cases, bool large)
{
    struct err e = {0};
    for (; cases->name; cases++) {
        if (cases->large && !large)
            continue;
        for (c->layout = DENSE; c->layout < LAYOUTS; c->layout++) {
            c->name = cases->name;
            c->o = ops_new(c->backend, c->compute, ARENA, &e);
            assert_non_null(c->o);
            cases->run(c);
            if (ops_error(c->o, &e))
                fail_msg("%s, %s: %s", c->name, layout_name(c->layout), e.text);
            ops_free(c->o);
        }
    }
}

static void compare_some(struct backend *b, enum dtype compute, bool large)
{
    struct compare c = {.backend = b, .compute = compute, .seed = 1};
    run_cases(&c, compare_products, large);
    run_cases(&c, compare_others, large);
}

void compare_all(struct backend *b, enum dtype compute)
{
    compare_some(b, compute, true);
}

void compare_small(struct backend *b, enum dtype compute)
{
    compare_some(b, compute, false);
}
