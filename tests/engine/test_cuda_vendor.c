/* The libraries' products, convolutions and attention: what we tell them, over plain code that does
 * what it is told, is what ops.h says; choices are remembered, bounded and the same for one item
 * and for many; whatever they cannot do is said. */
#include <dlfcn.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/choices.h"
#include "../support/fake_vendor.h"
#include "../support/scratch.h"
#include "base/symbols.h"

#if defined(VENDOR_CUBLASLT) && defined(VENDOR_CUDNN)

/* ---- numbers ---- */

#define ROOM 4096

struct numbers {
    _Alignas(64) uint8_t bytes[ROOM * 4];
};

/* Small numbers that every type holds exactly, so that sums are exact too where they are short. */
static void fill(struct numbers *n, enum vendor_type type, uint32_t seed)
{
    for (int i = 0; i < ROOM; i++) {
        seed = seed * 1664525 + 1013904223;
        double v = ((int)(seed >> 29) - 3) * 0.25; /* -0.75 … 1 */
        if (type == VENDOR_E4M3)
            n->bytes[i] = (uint8_t)((seed >> 31) << 7 | (5u + (seed >> 28) % 4) << 3);
        else
            fake_store(n->bytes, i, type, v);
    }
}

static double at(const struct numbers *n, int64_t i, enum vendor_type type)
{
    return fake_load(n->bytes, i, type);
}

static double close_to(enum vendor_type type)
{
    return type == VENDOR_F32 ? 2e-5 : type == VENDOR_F16 ? 2e-3 : 2e-2;
}

static double activated(double v, enum activation act)
{
    return act == ACT_RELU ? (v > 0 ? v : 0)
           : act == ACT_GELU_TANH
               ? v * 0.5 * (1 + tanh(0.7978845608028654 * (v + 0.044715 * v * v * v)))
               : v;
}

static void compare(double got, double want, enum vendor_type type)
{
    if (!(fabs(got - want) <= close_to(type) * (1 + fabs(want))))
        fail_msg("%g, expected %g", got, want);
}

/* ---- a vendor over the fakes ---- */

static struct numbers x, w, bias, y, z;
static const float x_scale[2] = {0.5f, 3}, w_scale = 2.5f; /* one an item */

static int setup(void **state)
{
    struct vendor *v = fake_vendor_new();
    *state = v;
    return v && v->lt && v->nn ? 0 : -1;
}

static int teardown(void **state)
{
    vendor_close(*state);
    if (fake_cublaslt.alive || fake_cudnn.alive)
        fprintf(stderr, "%d and %d descriptors were left\n", fake_cublaslt.alive, fake_cudnn.alive);
    return fake_cublaslt.alive || fake_cudnn.alive;
}

/* ---- products ---- */

/* 2 items of 5 rows, all with gaps: 7 inputs, 6 outputs. */
static struct vendor_linear linear_case(enum vendor_type type, enum vendor_type y_type,
                                        enum activation act)
{
    fill(&x, type, 1);
    fill(&w, type, 2);
    fill(&bias, y_type, 3);
    memset(&y, 0, sizeof(y));
    return (struct vendor_linear){.items = 2,
                                  .rows = 5,
                                  .n = 6,
                                  .k = 7,
                                  .x_row = 24,
                                  .x_item = 5 * 24 + 16,
                                  .w_row = 16,
                                  .y_row = 8,
                                  .y_item = 64,
                                  .type = type,
                                  .y_type = y_type,
                                  .bias_type = y_type,
                                  .x = x.bytes,
                                  .w = w.bytes,
                                  .bias = bias.bytes,
                                  .has_bias = true,
                                  .y = y.bytes,
                                  .x_scale = type == VENDOR_E4M3 ? x_scale : NULL,
                                  .w_scale = type == VENDOR_E4M3 ? &w_scale : NULL,
                                  .act = act};
}

/* Is y what the definition says, without what is left? */
static void check_linear(const struct vendor_linear *l, struct vendor_left left)
{
    for (int64_t i = 0; i < l->items; i++)
        for (int64_t r = 0; r < l->rows; r++)
            for (int64_t n = 0; n < l->n; n++) {
                double sum = 0;
                for (int64_t k = 0; k < l->k; k++)
                    sum += at(&x, i * l->x_item + r * l->x_row + k, l->type) *
                           at(&w, n * l->w_row + k, l->type);
                sum *= l->type == VENDOR_E4M3 ? (double)x_scale[i] * w_scale : 1;
                sum += l->has_bias && !left.bias ? at(&bias, n, l->bias_type) : 0;
                compare(at(&y, i * l->y_item + r * l->y_row + n, l->y_type),
                        activated(sum, left.act ? ACT_NONE : l->act), l->y_type);
            }
}

static void products_are_what_the_definition_says(void **state)
{
    static const enum vendor_type types[][2] = {
        {VENDOR_F32, VENDOR_F32},  {VENDOR_BF16, VENDOR_BF16}, {VENDOR_F16, VENDOR_F16},
        {VENDOR_BF16, VENDOR_F32}, {VENDOR_F16, VENDOR_F32},   {VENDOR_E4M3, VENDOR_BF16},
        {VENDOR_E4M3, VENDOR_F32},
    };
    static const enum activation acts[] = {ACT_NONE, ACT_RELU, ACT_GELU_TANH, ACT_SILU, ACT_GELU};
    for (size_t t = 0; t < sizeof(types) / sizeof(*types); t++)
        for (size_t a = 0; a < 2 * sizeof(acts) / sizeof(*acts); a++) {
            struct vendor_left left;
            struct vendor_linear l = linear_case(types[t][0], types[t][1], acts[a / 2]);
            l.has_bias = a % 2;
            l.bias = l.has_bias ? bias.bytes : NULL;
            assert_true(vendor_linear(*state, &l, NULL, NULL, &left));
            check_linear(&l, left);
            bool bare = l.type == VENDOR_E4M3 && l.y_type == VENDOR_F32 && l.has_bias;
            bool fused =
                l.act == ACT_NONE ||
                (!bare && (l.act == ACT_RELU || (l.act == ACT_GELU_TANH && l.type != VENDOR_F32)));
            assert_int_equal(left.act, !fused);
            assert_int_equal(left.bias, bare);
            assert_int_equal(fake_cublaslt.compute, CUBLAS_COMPUTE_32F); /* no TF32 */
        }
}

static void
the_library_sees_the_weights_transposed_and_distances_as_leading_dimensions(void **state)
{
    struct vendor_left left;
    struct vendor_linear l = linear_case(VENDOR_BF16, VENDOR_BF16, ACT_NONE);
    assert_true(vendor_linear(*state, &l, NULL, NULL, &left));
    assert_int_equal(fake_cublaslt.m, 6);
    assert_int_equal(fake_cublaslt.n, 5);
    assert_int_equal(fake_cublaslt.k, 7);
    assert_int_equal(fake_cublaslt.lda, 16);
    assert_int_equal(fake_cublaslt.ldb, 24);
    assert_int_equal(fake_cublaslt.ldd, 8);
    assert_int_equal(fake_cublaslt.align_a, 16);
    assert_int_equal(fake_cublaslt.align_d, 16);
    assert_int_equal(fake_cublaslt.sums & CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE, 0);
    assert_int_equal(fake_cublaslt.sums & CUBLASLT_REDUCTION_SCHEME_INPLACE, 0);
    l.x_row = 25; /* 50 bytes */
    assert_true(vendor_linear(*state, &l, NULL, NULL, &left));
    assert_int_equal(fake_cublaslt.align_b, 2);
    check_linear(&l, left);
}

static void an_item_has_the_same_bits_alone_and_in_a_batch(void **state)
{
    struct vendor_left left;
    for (int scheme = 0; scheme < 2; scheme++) {
        struct vendor_linear l = linear_case(VENDOR_F32, VENDOR_F32, ACT_NONE);
        l.k = 24;
        l.w_row = 24 + scheme; /* a shape of its own */
        l.rows = scheme ? 1 : 5;
        assert_true(vendor_linear(*state, &l, NULL, NULL, &left));
        int searches = fake_cublaslt.searches, algorithm = fake_cublaslt.algorithm;
        z = y;
        memset(&y, 0, sizeof(y));
        l.items = 1;
        l.x = (float *)(void *)x.bytes + l.x_item;
        l.y = (float *)(void *)y.bytes + l.y_item;
        assert_true(vendor_linear(*state, &l, NULL, NULL, &left));
        assert_int_equal(fake_cublaslt.searches, searches);
        assert_int_equal(fake_cublaslt.algorithm, algorithm);
        size_t from = (size_t)l.y_item * 4;
        assert_memory_equal(y.bytes + from, z.bytes + from, (size_t)l.rows * 8 * 4);
    }
}

static void a_shape_is_looked_for_once_and_the_memory_is_bounded(void **state)
{
    struct vendor *v = *state;
    struct vendor_left left;
    struct vendor_linear l = linear_case(VENDOR_BF16, VENDOR_BF16, ACT_RELU);
    for (int i = 0; i < 3; i++)
        assert_true(vendor_linear(v, &l, NULL, NULL, &left));
    assert_int_equal(fake_cublaslt.searches, 1);
    assert_int_equal(fake_cublaslt.products, 6);
    for (int64_t i = 0; i < 2000; i++) {
        l.rows = 1 + i % 5;
        l.n = 1 + i % 7;
        l.w_row = 8 * (i + 2);
        l.y = NULL; /* only planned */
        assert_true(vendor_linear(v, &l, NULL, NULL, &left));
    }
    assert_true(lt_remembered(v->lt) <= 256);
    assert_int_equal(fake_cublaslt.alive, 4 * lt_remembered(v->lt));
}

static void what_the_library_cannot_fuse_is_left_to_the_caller(void **state)
{
    struct vendor_left left;
    struct vendor_linear l = linear_case(VENDOR_BF16, VENDOR_BF16, ACT_RELU);
    fake_cublaslt.refused = CUBLASLT_EPILOGUE_RELU_BIAS;
    assert_true(vendor_linear(*state, &l, NULL, NULL, &left));
    assert_true(left.act && !left.bias);
    check_linear(&l, left);
    l.act = ACT_NONE;
    fake_cublaslt.refused = CUBLASLT_EPILOGUE_BIAS;
    assert_true(vendor_linear(*state, &l, NULL, NULL, &left));
    assert_true(left.bias);
    check_linear(&l, left);
    l.bias_type = VENDOR_F32; /* the library reads a bias in the result's type only */
    l.act = ACT_RELU;
    fake_cublaslt.refused = 0;
    assert_true(vendor_linear(*state, &l, NULL, NULL, &left));
    assert_true(left.bias && left.act);
    l.bias_type = VENDOR_BF16;
    l.bias = bias.bytes + 2;
    assert_true(vendor_linear(*state, &l, NULL, NULL, &left));
    assert_true(left.bias && left.act);
}

static void the_answer_is_no_where_nothing_fits_or_nothing_runs(void **state)
{
    struct vendor_left left;
    struct vendor_linear l = linear_case(VENDOR_BF16, VENDOR_BF16, ACT_NONE);
    fake_cublaslt.workspace = VENDOR_WORKSPACE + 1;
    assert_true(vendor_linear(*state, &l, NULL, NULL, &left));
    assert_int_equal(fake_cublaslt.algorithm, 2); /* the first wants too much */
    fake_cublaslt.broken = 2;
    assert_false(vendor_linear(*state, &l, NULL, NULL, &left));
    fake_cublaslt.candidates = 0;
    l.n = 5;
    assert_false(vendor_linear(*state, &l, NULL, NULL, &left));
    assert_false(vendor_linear(NULL, &l, NULL, NULL, &left));
    struct vendor_conv c = {.items = 1};
    struct vendor_attention a = {.items = 1};
    assert_false(vendor_conv(NULL, &c, NULL, NULL, &left));
    assert_false(vendor_attention(NULL, &a, NULL, NULL));
    assert_string_equal(vendor_text(NULL), "none");
    fake_cublaslt.creation_fails = true;
    assert_null(lt_new(&fake_cublaslt_table));
}

static void a_plan_gets_the_answer_of_the_run(void **state)
{
    struct vendor_left planned, left;
    struct vendor_linear l = linear_case(VENDOR_F16, VENDOR_F16, ACT_GELU_TANH), plan = l;
    plan.x = plan.w = plan.bias = NULL;
    plan.y = NULL;
    assert_true(vendor_linear(*state, &plan, NULL, NULL, &planned));
    assert_int_equal(fake_cublaslt.products, 0);
    assert_true(vendor_linear(*state, &l, NULL, NULL, &left));
    assert_int_equal(fake_cublaslt.searches, 1);
    assert_memory_equal(&planned, &left, sizeof(left));
}

/* ---- measured choices ---- */

/* Algorithm 2 is fast. */
static bool clock_start(void *ctx, void *stream)
{
    (void)stream;
    ++*(int *)ctx;
    return true;
}

static double clock_stop(void *ctx, void *stream)
{
    (void)ctx;
    (void)stream;
    return fake_cublaslt.algorithm == 2 ? 1 : 2;
}

static int measured_setup(void **state)
{
    return scratch_setup(state);
}

static int chosen(const char *path, const char *stamp, int *measured)
{
    void *state;
    struct vendor_left left;
    assert_int_equal(setup(&state), 0);
    struct vendor *v = state;
    v->clock = (struct vendor_clock){measured, clock_start, clock_stop};
    v->choices = choices_open(path, stamp);
    struct vendor_linear l = linear_case(VENDOR_F32, VENDOR_F32, ACT_NONE);
    *measured = 0;
    for (int i = 0; i < 2; i++)
        assert_true(vendor_linear(v, &l, NULL, NULL, &left));
    check_linear(&l, left);
    assert_int_equal(teardown(&state), 0);
    return fake_cublaslt.algorithm;
}

static void the_fastest_is_measured_once_and_known_in_the_next_process(void **state)
{
    char path[128];
    int measured;
    snprintf(path, sizeof(path), "%s/choices", (const char *)*state);
    scratch_write(path, "cuBLASLt_1/H200 00 zz\nnonsense\n");
    assert_int_equal(chosen(path, "cuBLASLt_1/H200", &measured), 2);
    assert_int_equal(measured, 3); /* three candidates */
    assert_int_equal(chosen(path, "cuBLASLt_1/H200", &measured), 2);
    assert_int_equal(measured, 0);
    assert_int_equal(chosen(path, "cuBLASLt_2/H200", &measured), 2);
    assert_int_equal(measured, 3); /* another version: nothing of the file is its own */
}

static void choices_that_the_library_refuses_are_not_used(void **state)
{
    char path[128];
    int measured;
    snprintf(path, sizeof(path), "%s/choices", (const char *)*state);
    chosen(path, "s", &measured);
    FILE *f = fopen(path, "r+e"); /* algorithm 9, of three */
    assert_non_null(f);
    fseek(f, 2 + 16 + 1, SEEK_SET);
    fputs("09", f);
    fclose(f);
    assert_int_equal(chosen(path, "s", &measured), 1);
    assert_int_equal(measured, 0);
}

/* ---- convolutions ---- */

static struct vendor_conv conv_case(enum vendor_type type, int64_t stride, enum activation act)
{
    fill(&x, type, 4);
    fill(&w, type, 5);
    fill(&bias, type, 6);
    memset(&y, 0, sizeof(y));
    struct vendor_conv c = {.items = 2,
                            .h = 6,
                            .w = 5,
                            .ci = 3,
                            .co = 4,
                            .kh = 3,
                            .kw = 2,
                            .stride = stride,
                            .pad = {1, 2, 0, 1},
                            .type = type,
                            .bias_type = type,
                            .x = x.bytes,
                            .weights = w.bytes,
                            .bias = bias.bytes,
                            .has_bias = true,
                            .y = y.bytes,
                            .act = act};
    c.ho = (c.h + c.pad[0] + c.pad[1] - c.kh) / stride + 1;
    c.wo = (c.w + c.pad[2] + c.pad[3] - c.kw) / stride + 1;
    return c;
}

static double conv_sum(const struct vendor_conv *c, int64_t item, int64_t oy, int64_t ox, int64_t o)
{
    double sum = 0;
    for (int64_t ky = 0; ky < c->kh; ky++)
        for (int64_t kx = 0; kx < c->kw; kx++) {
            int64_t iy = oy * c->stride + ky - c->pad[0], ix = ox * c->stride + kx - c->pad[2];
            if (iy < 0 || iy >= c->h || ix < 0 || ix >= c->w)
                continue;
            for (int64_t i = 0; i < c->ci; i++)
                sum += at(&x, ((item * c->h + iy) * c->w + ix) * c->ci + i, c->type) *
                       at(&w, ((o * c->kh + ky) * c->kw + kx) * c->ci + i, c->type);
        }
    return sum;
}

static void check_conv(const struct vendor_conv *c, struct vendor_left left)
{
    for (int64_t i = 0; i < c->items * c->ho * c->wo * c->co; i++) {
        int64_t o = i % c->co, ox = i / c->co % c->wo, oy = i / c->co / c->wo % c->ho;
        double sum = conv_sum(c, i / c->co / c->wo / c->ho, oy, ox, o);
        sum += c->has_bias && !left.bias ? at(&bias, o, c->bias_type) : 0;
        compare(at(&y, i, c->type), activated(sum, left.act ? ACT_NONE : c->act), c->type);
    }
}

static void convolutions_are_what_the_definition_says(void **state)
{
    struct vendor_left left;
    for (int type = VENDOR_F32; type <= VENDOR_F16; type++)
        for (int64_t stride = 1; stride <= 2; stride++)
            for (int a = 0; a < 3; a++) {
                enum activation act = a == 0 ? ACT_NONE : a == 1 ? ACT_RELU : ACT_SILU;
                struct vendor_conv c = conv_case((enum vendor_type)type, stride, act);
                assert_true(vendor_conv(*state, &c, NULL, &left, &left));
                check_conv(&c, left);
                assert_int_equal(left.act, act == ACT_SILU);
                assert_false(left.bias);
                assert_ptr_equal(fake_cudnn.stream, &left);
                c.has_bias = false;
                assert_true(vendor_conv(*state, &c, NULL, NULL, &left));
                check_conv(&c, left);
            }
}

static void a_convolution_takes_what_the_library_has_and_leaves_the_rest(void **state)
{
    struct vendor_left left;
    struct vendor_conv c = conv_case(VENDOR_BF16, 1, ACT_RELU);
    fake_cudnn.most_operations = 2;
    assert_true(vendor_conv(*state, &c, NULL, NULL, &left));
    assert_true(left.act && !left.bias);
    check_conv(&c, left);
    fake_cudnn.most_operations = 1;
    c.stride = 2;
    c.ho = c.wo = 3;
    assert_true(vendor_conv(*state, &c, NULL, NULL, &left));
    assert_true(left.act && left.bias);
    check_conv(&c, left);
    fake_cudnn.most_operations = 0;
    c = conv_case(VENDOR_BF16, 1, ACT_NONE);
    c.bias_type = VENDOR_F32;
    assert_true(vendor_conv(*state, &c, NULL, NULL, &left));
    assert_true(left.bias);
    assert_int_equal(fake_cudnn.operations, 1);
    fake_cudnn.engines = 0;
    c.kw = 1;
    assert_false(vendor_conv(*state, &c, NULL, NULL, &left));
}

static void engines_without_a_fixed_order_or_with_tf32_are_passed_over(void **state)
{
    static const struct {
        cudnnBackendNumericalNote_t note;
        enum vendor_type type;
        int64_t workspace;
        int engine;
    } rows[] = {
        {CUDNN_NUMERICAL_NOTE_TYPE_COUNT, VENDOR_F32, 0, 1},
        {CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC, VENDOR_F32, 0, 2},
        {CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC, VENDOR_BF16, 0, 2},
        {CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION, VENDOR_BF16, 0, 2},
        {CUDNN_NUMERICAL_NOTE_TENSOR_CORE, VENDOR_F32, 0, 2},
        {CUDNN_NUMERICAL_NOTE_TENSOR_CORE, VENDOR_BF16, 0, 1},
        {CUDNN_NUMERICAL_NOTE_TYPE_COUNT, VENDOR_F16, (int64_t)VENDOR_WORKSPACE + 1, 2},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        void *fresh;
        struct vendor_left left;
        assert_int_equal(setup(&fresh), 0);
        fake_cudnn.note = rows[i].note;
        fake_cudnn.workspace = rows[i].workspace;
        struct vendor_conv c = conv_case(rows[i].type, 1, ACT_NONE);
        assert_true(vendor_conv(fresh, &c, NULL, NULL, &left));
        assert_int_equal(fake_cudnn.engine, rows[i].engine);
        assert_int_equal(teardown(&fresh), 0);
    }
}

static void plans_are_made_once_for_any_number_of_items_and_their_memory_is_bounded(void **state)
{
    struct vendor *v = *state;
    struct vendor_left left;
    struct vendor_conv c = conv_case(VENDOR_BF16, 1, ACT_NONE);
    assert_true(vendor_conv(v, &c, NULL, NULL, &left));
    c.items = 1;
    assert_true(vendor_conv(v, &c, NULL, NULL, &left));
    assert_int_equal(fake_cudnn.searches, 1);
    assert_int_equal(fake_cudnn.runs, 3);
    c.y = NULL;
    int alive = fake_cudnn.alive;
    for (c.h = 7; c.h < 300; c.h++)
        assert_true(vendor_conv(v, &c, NULL, NULL, &left));
    assert_int_equal(fake_cudnn.runs, 3);
    assert_int_equal(nn_remembered(v->nn), 96);
    assert_int_equal(fake_cudnn.alive, 96 * alive);
}

/* ---- attention ---- */

static double score(const struct vendor_attention *a, int64_t item, int64_t head, int64_t i,
                    int64_t j)
{
    double sum = 0;
    int64_t group = head / (a->heads / a->groups);
    for (int64_t c = 0; c < a->d; c++)
        sum += at(&x, item * a->qs.item + i * a->qs.position + head * a->qs.head + c, a->type) *
               at(&w, item * a->ks.item + j * a->ks.position + group * a->ks.head + c, a->type);
    return exp(sum * a->scale);
}

static void check_attention(const struct vendor_attention *a)
{
    for (int64_t n = 0; n < a->items * a->heads * a->tq * a->d; n++) {
        int64_t c = n % a->d, i = n / a->d % a->tq, head = n / a->d / a->tq % a->heads;
        int64_t item = n / a->d / a->tq / a->heads, group = head / (a->heads / a->groups);
        double sum = 0, value = 0;
        for (int64_t j = 0; j < (a->causal && i + 1 < a->tk ? i + 1 : a->tk); j++) {
            double s = score(a, item, head, i, j);
            sum += s;
            value += s * at(&bias, item * a->vs.item + j * a->vs.position + group * a->vs.head + c,
                            a->type);
        }
        compare(at(&y, item * a->ys.item + i * a->ys.position + head * a->ys.head + c, a->type),
                value / sum, a->type);
    }
}

static void attention_is_what_the_definition_says(void **state)
{
    struct vendor *v = *state;
    for (int n = 0; n < 8; n++) {
        enum vendor_type type = n & 1 ? VENDOR_BF16 : VENDOR_F16;
        int64_t groups = n & 2 ? 2 : 4;
        fill(&x, type, 7);
        fill(&w, type, 8);
        fill(&bias, type, 9);
        memset(&y, 0, sizeof(y));
        /* q and y lie by positions, k by heads, v by positions with a gap */
        struct vendor_attention a = {.items = 2,
                                     .tq = 5,
                                     .tk = 6,
                                     .heads = 4,
                                     .groups = groups,
                                     .d = 8,
                                     .type = type,
                                     .qs = {5 * 32, 32, 8},
                                     .ks = {groups * 48, 8, 48},
                                     .vs = {6 * 40, 40, 8},
                                     .ys = {5 * 32, 32, 8},
                                     .q = x.bytes,
                                     .k = w.bytes,
                                     .v = bias.bytes,
                                     .y = y.bytes,
                                     .scale = 0.6f,
                                     .causal = n & 4};
        assert_true(nn_attention(v->nn, &a, NULL, NULL));
        check_attention(&a);
        assert_int_equal(fake_cudnn.runs, 2 * (n + 1));
    }
}

static void attention_of_fp32_or_of_little_work_is_left_to_our_own_kernel(void **state)
{
    struct vendor *v = *state;
    struct vendor_attention a = {.items = 1,
                                 .tq = 4608,
                                 .tk = 4608,
                                 .heads = 24,
                                 .groups = 24,
                                 .d = 128,
                                 .qs = {0, 3072, 128},
                                 .ks = {0, 3072, 128},
                                 .vs = {0, 3072, 128},
                                 .ys = {0, 3072, 128},
                                 .type = VENDOR_BF16};
    v->least_attention = 4e9;
    assert_true(vendor_attention(v, &a, NULL, NULL)); /* planned */
    a.type = VENDOR_F32;
    assert_false(vendor_attention(v, &a, NULL, NULL));
    a.type = VENDOR_BF16;
    a.tk = 77;
    assert_false(vendor_attention(v, &a, NULL, NULL));
    assert_int_equal(fake_cudnn.searches, 1);
}

/* ---- the library itself, which plans for a device that is only described ---- */

static const char h200[] =
    "{\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],"
    "\"regsPerBlock\":65536,\"multiProcessorCount\":132,\"warpSize\":32,"
    "\"maxSharedMemoryPerBlock\":49152,\"maxSharedMemoryPerBlockOptin\":232448,"
    "\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536,\"maxCtasPerSM\":32,"
    "\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,\"pciDeviceId\":0,\"isTccDriver\":0,"
    "\"supportCoopLaunch\":1,\"totalGlobalMem\":150000000000,\"smClockRateKHz\":1980000,"
    "\"memClockRateKHz\":3201000,\"l2CacheSize\":62914560,\"cudaDeviceId\":0,\"deviceVer\":900,"
    "\"driverVer\":13000,\"deviceName\":\"NVIDIA H200\"}";

/* cuDNN's own functions; false where it is not installed, or too old for descriptions. */
static bool cudnn_itself(struct cudnn_table *table, cudnnBackendDescriptor_t *device)
{
#define NAME(name) #name,
    static const char *const names[] = {CUDNN_FUNCTIONS(NAME)};
#undef NAME
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    void *library = NULL; /* it is not built for that */
#else
    void *library = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
#endif
    *device = NULL;
    if (!library || symbols_find(library, "cudnn", names, sizeof(names) / sizeof(*names), table))
        return false;
    return !table->BackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, device) &&
           !table->BackendSetAttribute(*device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                       CUDNN_TYPE_CHAR, sizeof(h200) - 1, h200) &&
           !table->BackendFinalize(*device);
}

static void cudnn_has_plans_for_our_convolutions_on_an_h200(void **state)
{
    struct cudnn_table table;
    cudnnBackendDescriptor_t device;
    struct vendor_left left;
    (void)state;
    if (!cudnn_itself(&table, &device))
        skip();
    struct nn *n = nn_new_described(&table, device);
    static const int64_t channels[][2] = {{3, 128}, {128, 3}, {4, 320}, {512, 512}, {1280, 640}};
    for (size_t i = 0; i < 4 * sizeof(channels) / sizeof(*channels); i++) {
        int64_t stride = 1 + i % 2;
        struct vendor_conv c = {.items = 1,
                                .h = 64,
                                .w = 64,
                                .ci = channels[i / 4][0],
                                .co = channels[i / 4][1],
                                .kh = 3,
                                .kw = 3,
                                .ho = 64 / stride,
                                .wo = 64 / stride,
                                .stride = stride,
                                .pad = {stride == 1, 1, stride == 1, 1},
                                .has_bias = true,
                                .type = i & 2 ? VENDOR_BF16 : VENDOR_F16,
                                .bias_type = i & 2 ? VENDOR_BF16 : VENDOR_F16};
        assert_true(nn_conv(n, &c, NULL, NULL, &left));
        assert_false(left.bias);
    }
    nn_free(n);
    table.BackendDestroyDescriptor(device);
}

int main(void)
{
#define WITH_FAKES(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        WITH_FAKES(products_are_what_the_definition_says),
        WITH_FAKES(the_library_sees_the_weights_transposed_and_distances_as_leading_dimensions),
        WITH_FAKES(an_item_has_the_same_bits_alone_and_in_a_batch),
        WITH_FAKES(a_shape_is_looked_for_once_and_the_memory_is_bounded),
        WITH_FAKES(what_the_library_cannot_fuse_is_left_to_the_caller),
        WITH_FAKES(the_answer_is_no_where_nothing_fits_or_nothing_runs),
        WITH_FAKES(a_plan_gets_the_answer_of_the_run),
        cmocka_unit_test_setup_teardown(the_fastest_is_measured_once_and_known_in_the_next_process,
                                        measured_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(choices_that_the_library_refuses_are_not_used,
                                        measured_setup, scratch_teardown),
        WITH_FAKES(convolutions_are_what_the_definition_says),
        WITH_FAKES(a_convolution_takes_what_the_library_has_and_leaves_the_rest),
        cmocka_unit_test(engines_without_a_fixed_order_or_with_tf32_are_passed_over),
        WITH_FAKES(plans_are_made_once_for_any_number_of_items_and_their_memory_is_bounded),
        WITH_FAKES(attention_is_what_the_definition_says),
        WITH_FAKES(attention_of_fp32_or_of_little_work_is_left_to_our_own_kernel),
        cmocka_unit_test(cudnn_has_plans_for_our_convolutions_on_an_h200),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

static void without_the_headers_nothing_is_available(void **state)
{
    char text[8] = "";
    void *library = NULL;
    (void)state;
#ifndef VENDOR_CUBLASLT
    assert_null(lt_open(&library, text, sizeof(text)));
#endif
#ifndef VENDOR_CUDNN
    assert_null(nn_open(&library, text, sizeof(text)));
#endif
    assert_null(library);
    assert_string_equal(text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(without_the_headers_nothing_is_available)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
