/* The CUDA backend with libraries behind its hooks: products, convolutions and attention over the
 * emulated device, with plain code in the libraries' place, against plain loops; what a plan asks
 * for, and what happens when the libraries fail. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/fake_vendor.h"
#include "../support/ops_compare.h"
#include "../support/ops_narrow.h"
#include "engine/device.h"
#include "kernels/emulated.h"
#include "kernels/library.h"

#if defined(VENDOR_CUBLASLT) && defined(VENDOR_CUDNN)

extern cuda_backend_new_fn omni_cuda_backend_new;

static struct backend *backend_with_fakes(void)
{
    struct backend *b;
    struct err e = {0};
    if (omni_cuda_backend_new(0, &b, &e))
        fail_msg("%s", e.text);
    struct vendor *v = fake_vendor_new();
    assert_non_null(v);
    cuda_library_use(cuda_of(b), v);
    return b;
}

static void end(struct backend *b)
{
    backend_free(b);
    assert_int_equal(fake_cublaslt.alive, 0);
    assert_int_equal(fake_cudnn.alive, 0);
    assert_int_equal(emulated_counts().live, 0);
}

/* The products, with dense operands and with views. */
static void compare_the_products(struct backend *b, enum dtype compute)
{
    struct compare c = {.backend = b, .compute = compute, .seed = 1};
    struct err e = {0};
    for (const struct compare_case *k = compare_products; k->name; k++)
        for (c.layout = DENSE; !k->large && c.layout < LAYOUTS; c.layout += BOTH_VIEW - DENSE) {
            c.name = k->name;
            c.o = ops_new(b, compute, (size_t)256 << 20, &e);
            assert_non_null(c.o);
            k->run(&c);
            if (ops_error(c.o, &e))
                fail_msg("%s: %s", k->name, e.text);
            ops_free(c.o);
        }
}

static void products_equal_plain_loops_in_fp32(void **state)
{
    (void)state;
    struct backend *b = backend_with_fakes();
    compare_the_products(b, DTYPE_F32);
    assert_true(fake_cublaslt.products > 0);
    assert_true(fake_cudnn.runs > 0);
    end(b);
}

static void products_are_near_plain_loops_in_bf16(void **state)
{
    (void)state;
    struct backend *b = backend_with_fakes();
    compare_the_products(b, DTYPE_BF16);
    assert_true(fake_cublaslt.products > 0);
    assert_true(fake_cudnn.runs > 0);
    end(b);
}

/* A bias is added to what was rounded, and rounded again. */
static void results_in_bf16_are_near_those_in_fp32(void **state)
{
    (void)state;
    struct backend *b = backend_with_fakes();
    promise_narrow_results(b, 5e-3);
    assert_true(fake_cublaslt.products > 0);
    assert_true(fake_cudnn.runs > 0);
    end(b);
}

/* ---- one layer of each kind ---- */

struct layers {
    struct tensor *matrix, *bias, *filter;
    float values[40 * 40 * 9];
};

static struct tensor *weight(struct layers *l, struct backend *b, enum dtype compute, int rank,
                             const int64_t *dims)
{
    struct tensor *w = NULL;
    struct err e = {0};
    if (tensor_weight_new(b, DTYPE_F32, rank, dims, l->values, compute, &w, &e))
        fail_msg("%s", e.text);
    return w;
}

static struct layers *layers_new(struct backend *b, enum dtype compute)
{
    struct layers *l = calloc(1, sizeof *l);
    assert_non_null(l);
    for (size_t i = 0; i < sizeof l->values / sizeof *l->values; i++)
        l->values[i] = (float)((i * 2654435761u >> 20) % 64) / 64 - 0.5f;
    l->matrix = weight(l, b, compute, SHAPE(40, 32));
    l->bias = weight(l, b, compute, SHAPE(40));
    l->filter = weight(l, b, compute, SHAPE(40, 40, 3, 3));
    return l;
}

static void layers_free(struct layers *l)
{
    tensor_weight_free(l->matrix);
    tensor_weight_free(l->bias);
    tensor_weight_free(l->filter);
    free(l);
}

/* x[items, 16, 32] → linear, convolution, attention → out[items · 640] (NULL in plans). */
static void draw(struct ops *o, const struct layers *l, const float *x, int64_t items, float *out)
{
    int pad[4] = {1, 1, 1, 1};
    struct attention_args args = {.scale = 0.3f};
    struct tensor *t = op_from_host(o, DTYPE_F32, SHAPE(items, 16, 32), x);
    t = op_linear(o, t, l->matrix, l->bias, ACT_SILU);
    t = op_reshape(o, t, SHAPE(items, 4, 4, 40));
    t = op_conv2d(o, t, l->filter, l->bias, 1, pad, ACT_RELU);
    t = op_reshape(o, t, SHAPE(items, 16, 5, 8));
    t = op_attention(o, t, t, t, &args);
    if (out)
        op_to_host(o, t, out, (size_t)items * 640 * sizeof *out);
}

static void run(struct backend *b, enum dtype compute, const struct layers *l, const float *x,
                int64_t items, float *out, size_t bytes)
{
    struct err e = {0};
    struct ops *o = ops_new(b, compute, bytes, &e);
    assert_non_null(o);
    draw(o, l, x, items, out);
    if (ops_error(o, &e))
        fail_msg("%s", e.text);
    assert_true(ops_peak(o) <= bytes);
    ops_free(o);
}

static size_t planned(struct backend *b, enum dtype compute, const struct layers *l, int64_t items)
{
    struct err e = {0};
    struct ops *o = ops_new_plan(b, compute, &e);
    assert_non_null(o);
    draw(o, l, l->values, items, NULL);
    assert_int_equal(ops_error(o, &e), 0);
    size_t bytes = ops_peak(o);
    ops_free(o);
    return bytes;
}

static void a_run_needs_what_was_planned_and_items_have_their_own_bits(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        enum dtype compute = i ? DTYPE_BF16 : DTYPE_F32;
        struct backend *b = backend_with_fakes();
        struct layers *l = layers_new(b, compute);
        float all[3 * 640], one[640];
        int products = fake_cublaslt.products, runs = fake_cudnn.runs;
        size_t bytes = planned(b, compute, l, 3);
        assert_true(bytes > VENDOR_WORKSPACE);
        assert_int_equal(fake_cublaslt.products + fake_cudnn.runs, products + runs);
        run(b, compute, l, l->values, 3, all, bytes);
        assert_int_equal(fake_cublaslt.products, products + 3);
        assert_int_equal(fake_cudnn.runs, runs + (i ? 6 : 3)); /* fp32 attention is our own */
        for (int item = 0; item < 3; item++) {
            run(b, compute, l, l->values + item * 512, 1, one, planned(b, compute, l, 1));
            assert_memory_equal(one, all + item * 640, sizeof one);
        }
        layers_free(l);
        end(b);
    }
}

/* What a library refuses or does not manage, the own kernels do, with the memory of the plan. */
static void a_library_that_fails_changes_nothing(void **state)
{
    (void)state;
    struct backend *b = backend_with_fakes();
    struct layers *l = layers_new(b, DTYPE_BF16);
    float with[640], without[640];
    size_t bytes = planned(b, DTYPE_BF16, l, 1);
    run(b, DTYPE_BF16, l, l->values, 1, with, bytes);
    int products = fake_cublaslt.products, runs = fake_cudnn.runs;
    fake_cublaslt.broken = 1;
    fake_cudnn.broken = true;
    run(b, DTYPE_BF16, l, l->values, 1, without, bytes);
    assert_int_equal(fake_cublaslt.products, products);
    assert_int_equal(fake_cudnn.runs, runs);
    for (int i = 0; i < 640; i++)
        assert_true(fabsf(with[i] - without[i]) < 0.05f);
    layers_free(l);
    end(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_equal_plain_loops_in_fp32),
        cmocka_unit_test(products_are_near_plain_loops_in_bf16),
        cmocka_unit_test(results_in_bf16_are_near_those_in_fp32),
        cmocka_unit_test(a_run_needs_what_was_planned_and_items_have_their_own_bits),
        cmocka_unit_test(a_library_that_fails_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    return 0;
}

#endif
