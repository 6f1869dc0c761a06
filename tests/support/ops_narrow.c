#include "ops_narrow.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "det.h"

enum { ITEMS = 3, TOKENS = 37, WIDTH = 64, HEADS = 4, HEAD = WIDTH / HEADS };

struct operands {
    struct ops *o;
    struct tensor *x;     /* [ITEMS, TOKENS, WIDTH]: what may be bf16 */
    struct tensor *heads; /* the same as [ITEMS, TOKENS, HEADS, HEAD] */
    struct tensor *w, *bias, *gate, *cos, *sin, *head; /* fp32, or weights */
};

/* ---- the operations ---- */

static struct tensor *linear(const struct operands *p)
{
    return op_linear(p->o, p->x, p->w, NULL, ACT_NONE);
}
static struct tensor *linear_bias_silu(const struct operands *p)
{
    return op_linear(p->o, p->x, p->w, p->bias, ACT_SILU);
}
static struct tensor *linear_of_few_rows(const struct operands *p)
{
    return op_linear(p->o, op_slice(p->o, p->x, 1, 2, 5), p->w, p->bias, ACT_NONE);
}
static struct tensor *attention(const struct operands *p)
{
    struct attention_args args = {.scale = 0.25f};
    return op_attention(p->o, p->heads, p->heads, p->heads, &args);
}
static struct tensor *causal_attention(const struct operands *p)
{
    struct attention_args args = {.scale = 0.25f, .causal = true};
    return op_attention(p->o, p->heads, p->heads, p->heads, &args);
}
static struct tensor *rms_norm(const struct operands *p)
{
    return op_rms_norm(p->o, p->heads, p->head, 1e-6f);
}
static struct tensor *layer_norm(const struct operands *p)
{
    return op_layer_norm(p->o, p->x, p->bias, p->bias, 1e-6f);
}
static struct tensor *modulated_norm(const struct operands *p)
{
    return op_modulated_norm(p->o, p->x, p->gate, p->gate, 1e-6f);
}
static struct tensor *rope(const struct operands *p)
{
    return op_rope(p->o, p->heads, p->cos, p->sin, true);
}
static struct tensor *rope_in_halves(const struct operands *p)
{
    return op_rope(p->o, p->heads, p->cos, p->sin, false);
}
static struct tensor *act(const struct operands *p)
{
    return op_act(p->o, p->x, ACT_GELU_TANH);
}
static struct tensor *glu(const struct operands *p)
{
    return op_glu(p->o, p->x, ACT_SILU);
}
static struct tensor *glu_behind(const struct operands *p)
{
    return op_glu_behind(p->o, op_slice(p->o, p->x, 2, 1, 50), ACT_GELU);
}
static struct tensor *add(const struct operands *p)
{
    return op_add(p->o, p->x, op_reshape(p->o, p->bias, SHAPE(WIDTH)));
}
static struct tensor *mul(const struct operands *p)
{
    return op_mul(p->o, p->x, p->x);
}
static struct tensor *affine(const struct operands *p)
{
    return op_affine(p->o, p->x, 0.3f, 2);
}
/* Sums stay fp32. */
static struct tensor *sum_of(const struct operands *p, bool gated)
{
    struct tensor *y = op_zeros(p->o, DTYPE_F32, SHAPE(ITEMS, TOKENS, WIDTH));
    if (gated)
        op_gated_add_to(p->o, y, p->gate, p->x);
    else
        op_add_to(p->o, y, p->x);
    return op_affine(p->o, y, 1, 1);
}
static struct tensor *add_to(const struct operands *p)
{
    return sum_of(p, false);
}
static struct tensor *gated_add_to(const struct operands *p)
{
    return sum_of(p, true);
}

static const struct {
    const char *name;
    struct tensor *(*run)(const struct operands *p);
} cases[] = {
    {"linear", linear},
    {"linear with bias and SiLU", linear_bias_silu},
    {"linear of few rows", linear_of_few_rows},
    {"attention", attention},
    {"causal attention", causal_attention},
    {"rms_norm", rms_norm},
    {"layer_norm", layer_norm},
    {"modulated_norm", modulated_norm},
    {"rope", rope},
    {"rope in halves", rope_in_halves},
    {"act", act},
    {"glu", glu},
    {"glu_behind", glu_behind},
    {"add", add},
    {"mul", mul},
    {"affine", affine},
    {"add_to", add_to},
    {"gated_add_to", gated_add_to},
};

/* ---- operands ---- */

static struct tensor *input(struct ops *o, const char *name, int rank, const int64_t *dims)
{
    float x[ITEMS * TOKENS * WIDTH];
    size_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= (size_t)dims[i];
    det_input(name, x, n);
    return op_from_host(o, DTYPE_F32, rank, dims, x);
}

static struct tensor *weight(struct backend *b, const char *name, int rank, const int64_t *dims)
{
    static float x[2][WIDTH * WIDTH]; /* the CPU reads them later */
    struct tensor *w = NULL;
    struct err e = {0};
    float *host = x[rank - 1];
    det_input(name, host, (size_t)(rank == 1 ? dims[0] : dims[0] * dims[1]));
    if (tensor_weight_new(b, DTYPE_F32, rank, dims, host, DTYPE_BF16, &w, &e))
        fail_msg("%s", e.text);
    return w;
}

/* x in `type`, of numbers that bf16 has; `shift` columns into a wider tensor, or dense for -1. */
static void take_x(struct operands *p, enum dtype type, int64_t shift)
{
    struct ops *o = p->o;
    struct tensor *x = input(o, "x", SHAPE(ITEMS, TOKENS, WIDTH));
    x = op_cast(o, op_cast(o, x, DTYPE_BF16), type);
    if (shift >= 0) {
        struct tensor *wide = op_zeros(o, type, SHAPE(ITEMS, TOKENS + 2, WIDTH + 8));
        wide = op_slice(o, op_slice(o, wide, 2, shift, WIDTH), 1, 1, TOKENS);
        op_copy(o, wide, x);
        x = wide;
    }
    p->x = x;
    p->heads = op_reshape(o, x, SHAPE(ITEMS, TOKENS, HEADS, HEAD));
}

static void take_others(struct operands *p)
{
    struct ops *o = p->o;
    p->gate = input(o, "gate", SHAPE(ITEMS, WIDTH));
    p->cos = input(o, "cos", SHAPE(TOKENS, HEAD / 2));
    p->sin = input(o, "sin", SHAPE(TOKENS, HEAD / 2));
    p->head = input(o, "head", SHAPE(HEAD));
}

/* ---- comparing ---- */

/* Result i of `p`, with everything in `type`, as fp32 into y; the number of elements. */
static size_t result(struct operands *p, size_t i, enum dtype type, int64_t shift, float *y)
{
    struct err e = {0};
    ops_mark mark = ops_push(p->o);
    take_x(p, type, shift);
    enum dtype before = ops_set_results(p->o, type);
    struct tensor *t = cases[i].run(p);
    assert_int_equal(ops_results(p->o), type);
    assert_int_equal(ops_set_results(p->o, before), type);
    if (ops_error(p->o, &e))
        fail_msg("%s: %s", cases[i].name, e.text);
    assert_int_equal(tensor_dtype(t), type);
    size_t n = (size_t)tensor_elements(t);
    t = op_cast(p->o, op_cast(p->o, t, DTYPE_BF16), DTYPE_F32);
    op_to_host(p->o, t, y, n * sizeof *y);
    ops_pop(p->o, mark);
    return n;
}

static double error_of(const float *got, const float *want, size_t n)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        size += (double)want[i] * want[i];
    }
    return sqrt(difference / size);
}

void promise_narrow_results(struct backend *b, double tolerance)
{
    enum { MOST = ITEMS * TOKENS * WIDTH };
    struct err e = {0};
    AUTO_FREE float *wide = calloc(MOST, sizeof *wide), *narrow = calloc(MOST, sizeof *narrow);
    struct operands p = {.o = ops_new(b, DTYPE_BF16, (size_t)256 << 20, &e),
                         .w = weight(b, "w", SHAPE(WIDTH, WIDTH)),
                         .bias = weight(b, "bias", SHAPE(WIDTH))};
    assert_true(wide && narrow && p.o);
    assert_int_equal(ops_results(p.o), DTYPE_F32);
    take_others(&p);
    for (int64_t shift = -1; shift < 5; shift += shift < 0 ? 2 : 3) /* dense, at 1 and at 4 */
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            size_t n = result(&p, i, DTYPE_F32, shift, wide);
            assert_int_equal(result(&p, i, DTYPE_BF16, shift, narrow), n);
            double error = error_of(narrow, wide, n);
            if (!(error <= tolerance))
                fail_msg("%s, shift %d: relative L2 error %.3g", cases[i].name, (int)shift, error);
        }
    ops_free(p.o);
    tensor_weight_free(p.w);
    tensor_weight_free(p.bias);
}
