/* The CPU backend's building blocks: functions in single precision, half types, small products of
 * every instruction set, and one backend under several threads. */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/ops_compare.h"
#include "base/cleanup.h"
#include "engine/bench.h"
#include "engine/cpu/alone.h"
#include "engine/cpu/cpu.h"
#include "engine/cpu/simd.h"
#include "engine/cpu/tile.h"

/* The largest error over [low, high]: relative to the value, or to 1 where that is larger. */
static double worst(float (*f)(float), double (*reference)(double), double low, double high,
                    bool relative)
{
    double most = 0;
    for (int i = 0; i <= 200000; i++) {
        float x = (float)(low + (high - low) * i / 200000);
        double want = reference((double)x), difference = fabs((double)f(x) - want);
        difference /= relative ? fabs(want) : fmax(fabs(want), 1);
        most = difference > most ? difference : most;
    }
    return most;
}

static float exp_of(float x)
{
    return simd_exp(x);
}
static float tanh_of(float x)
{
    return simd_tanh(x);
}
static float erf_of(float x)
{
    return simd_erf(x);
}

static void functions_are_right_to_single_precision(void **state)
{
    (void)state;
    assert_true(worst(exp_of, exp, -87, 88, true) < 2e-7);
    assert_true(worst(tanh_of, tanh, -12, 12, false) < 5e-7);
    assert_true(worst(tanh_of, tanh, 1e-6, 0.5, true) < 4e-7);
    assert_true(worst(erf_of, erf, -6, 6, false) < 5e-7);
    assert_true(worst(erf_of, erf, 1e-6, 0.5, true) < 4e-7);
}

static void functions_take_every_number(void **state)
{
    (void)state;
    assert_true(simd_exp(1000) > 1e38f && simd_exp(-1000) < 1e-37f);
    assert_true(simd_exp(-INFINITY) < 1e-37f && simd_exp(INFINITY) > 1e38f);
    assert_true(simd_tanh(INFINITY) <= 1.0000001f && simd_tanh(-INFINITY) >= -1.0000001f);
    assert_true(isnan(simd_exp(NAN)) && isnan(simd_tanh(NAN)) && isnan(simd_erf(NAN)));
    for (int act = ACT_NONE; act <= ACT_SIGMOID; act++)
        assert_true(isnan(simd_act(NAN, (enum activation)act)));
}

static void half_types_convert_exactly_and_round_to_even(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 65536; i++) {
        float f = f16_float((uint16_t)i), b = bf16_float((uint16_t)i);
        if ((i & 0x7C00) == 0x7C00) {
            assert_int_equal(isnan(f) != 0, (i & 0x3FF) != 0);
        } else {
            assert_true((double)f == half_value(DTYPE_F16, (uint16_t)i));
            assert_int_equal(float_f16(f), i);
        }
        if ((i & 0x7F80) == 0x7F80) {
            assert_int_equal(isnan(bf16_float(float_bf16(b))) != 0, (i & 0x7F) != 0);
        } else {
            assert_int_equal(float_bf16(b), i);
        }
    }
    for (int i = 0; i < 200000; i++) { /* between neighbours, and exactly in the middle */
        double x = ldexp(1 + i / 200000.0, i % 40 - 26) * (i % 2 ? 1 : -1);
        assert_int_equal(float_f16((float)x), half_bits(DTYPE_F16, (double)(float)x));
        assert_int_equal(float_bf16((float)x), half_bits(DTYPE_BF16, (double)(float)x));
    }
    assert_int_equal(float_f16(65519.9f), 0x7BFF);
    assert_int_equal(float_f16(65520.0f), 0x7C00);
    assert_int_equal(float_f16(-INFINITY), 0xFC00);
    assert_int_equal(float_f16(1 + 0x1p-11f), 0x3C00);
    assert_int_equal(float_f16(1 + 3 * 0x1p-11f), 0x3C02);
    assert_int_equal(float_bf16(1 + 0x1p-8f), 0x3F80);
    assert_int_equal(float_bf16(1 + 3 * 0x1p-8f), 0x3F82);
}

/* ---- small products ---- */

enum { M = 24, N = 80, K = 38, DEPTH = 44, LDA = 40, LDC = 90 };

/* Column j of row k in panels `columns` wide, the last one as wide as what is left. */
static int in_panels(int k, int j, int columns, bool half)
{
    int first = j / columns * columns, width = N - first < columns ? N - first : columns;
    if (half)
        return first * DEPTH + k / 2 * 2 * width + 2 * (j - first) + k % 2;
    return first * DEPTH + k * width + (j - first);
}

static void check_tile(const struct tile_kernels *kernels, bool half, bool add)
{
    float a[M * LDA], b[K * N], panels[N * DEPTH], c[M * LDC], before[M * LDC];
    uint16_t ah[M * LDA], half_panels[N * DEPTH];
    for (int i = 0; i < M * LDA; i++)
        ah[i] = float_bf16(a[i] = bf16_float(float_bf16(sinf((float)i))));
    for (int k = 0; k < K; k++)
        for (int j = 0; j < N; j++) {
            float one = b[k * N + j] = bf16_float(float_bf16(cosf((float)(k * N + j) * 1.3f)));
            panels[in_panels(k, j, kernels->columns, false)] = one;
            half_panels[in_panels(k, j, kernels->columns, true)] = float_bf16(one);
        }
    for (int i = 0; i < M * LDC; i++)
        before[i] = c[i] = (float)(i % 7);
    const struct tile_product product = {.m = M,
                                         .n = N,
                                         .k = K,
                                         .a = half ? (void *)ah : a,
                                         .b = half ? (void *)half_panels : panels,
                                         .c = c,
                                         .lda = LDA,
                                         .ldc = LDC,
                                         .depth = DEPTH,
                                         .add = add};
    (half ? kernels->bf16 : kernels->f32)(&product);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < LDC; j++) {
            double want = add || j >= N ? (double)before[i * LDC + j] : 0;
            for (int k = 0; k < K && j < N; k++)
                want += (double)a[i * LDA + k] * (double)b[k * N + j];
            assert_float_equal(c[i * LDC + j], want, 1e-5);
        }
}

static void small_products_of_every_instruction_set_agree(void **state)
{
    struct tile_kernels kernels[8];
    int n = tile_kernels_here(kernels, 8);
    (void)state;
    assert_true(n >= 1);
    for (int i = 0; i < n; i++)
        for (int add = 0; add < 2; add++) {
            assert_int_equal(M % kernels[i].rows, 0);
            assert_true(kernels[i].columns % TILE_COLUMNS == 0 ||
                        TILE_COLUMNS % kernels[i].columns == 0);
            check_tile(&kernels[i], false, add);
            if (kernels[i].bf16)
                check_tile(&kernels[i], true, add);
        }
}

/* ---- rows of scores ---- */

enum { SCORES = 4 * TILE_COLUMNS };

static void check_weights(const struct tile_kernels *kernels, bool half, const float *x)
{
    float y[SCORES], most = kernels->maximum(x, SCORES), want_sum = 0;
    uint16_t yh[SCORES];
    void *to = half ? (void *)yh : y;
    float sum = (half ? kernels->weights_bf16 : kernels->weights_f32)(to, x, SCORES, most);
    for (int i = 0; i < SCORES; i++) {
        double want = exp2((double)(x[i] - most));
        float got = half ? bf16_float(yh[i]) : y[i];
        want_sum += (float)want;
        if (want < 0x1p-126)
            assert_true(got == 0.0f);
        else
            assert_true(fabs((double)got - want) <= want * (half ? 0x1.01p-8 : 3e-7));
    }
    assert_true(fabsf(sum - want_sum) <= 1e-5f * want_sum);
}

static void scores_become_weights_in_every_instruction_set(void **state)
{
    struct tile_kernels kernels[8];
    int n = tile_kernels_here(kernels, 8);
    float x[SCORES];
    (void)state;
    for (int i = 0; i < n; i++)
        for (int half = 0; half <= (kernels[i].bf16 != NULL); half++)
            for (int round = 0; round < 200; round++) {
                for (int k = 0; k < SCORES; k++)
                    x[k] = 40 + 70 * sinf((float)(round * SCORES + k));
                x[round % SCORES] = -INFINITY;
                check_weights(&kernels[i], half, x);
                float y[SCORES], sum = 0;
                x[(round + 5) % SCORES] = NAN; /* no maximum, but in the sum */
                assert_true(kernels[i].maximum(x, SCORES) <= 110.0f);
                sum = (half ? kernels[i].weights_bf16 : kernels[i].weights_f32)(y, x, SCORES, 110);
                assert_true(isnan(sum));
            }
}

/* ---- one backend, many shapes, several threads ---- */

enum { SHAPES = 700, ROWS = 3, COLUMNS = 5 }; /* more shapes than are kept */

static void *many_shapes(void *arg)
{
    struct backend *b = arg;
    struct ops *o = ops_new(b, DTYPE_F32, 1 << 20, NULL);
    float x[SHAPES * ROWS], y[ROWS * COLUMNS];
    for (int i = 0; i < SHAPES * ROWS; i++)
        x[i] = 1;
    for (int k = 1; o && k <= SHAPES; k++) {
        ops_mark mark = ops_push(o);
        struct tensor *t = op_from_host(o, DTYPE_F32, SHAPE(1, ROWS, k), x);
        struct tensor *w = op_zeros(o, DTYPE_F32, SHAPE(COLUMNS, k));
        w = op_affine(o, w, 1, 0.5f);
        if (op_to_host(o, op_linear(o, t, w, NULL, ACT_NONE), y, sizeof y))
            break;
        for (int i = 0; i < ROWS * COLUMNS; i++)
            if (fabsf(y[i] - 0.5f * (float)k) > 1e-3f)
                ops_fail(o, -1, "wrong");
        ops_pop(o, mark);
    }
    void *failed = !o || ops_error(o, NULL) ? b : NULL;
    ops_free(o);
    return failed;
}

static void one_backend_serves_many_shapes_to_several_threads(void **state)
{
    struct backend *b;
    pthread_t threads[3];
    void *failed;
    (void)state;
    assert_int_equal(cpu_backend_new(1, &b, NULL), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, many_shapes, b), 0);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    backend_free(b);
}

static void bf16_products_are_found_where_the_processor_has_them(void **state)
{
    struct backend *b;
    (void)state;
    assert_int_equal(cpu_backend_new(0, &b, NULL), 0);
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512bf16") && !getenv("ONEDNN_MAX_CPU_ISA"))
        assert_true(cpu_of(b)->has_bf16);
#endif
    backend_free(b);
}

static void the_fastest_compute_type_is_measured_quickly_and_kept(void **state)
{
    struct backend *b;
    (void)state;
    assert_int_equal(cpu_backend_new(0, &b, NULL), 0);
    enum dtype first = cpu_fastest_compute(b);
    assert_true(first == DTYPE_F32 || (first == DTYPE_BF16 && cpu_of(b)->has_bf16));
    for (int i = 0; i < 100; i++)
        assert_int_equal(cpu_fastest_compute(b), first);
    backend_free(b);
}

struct rows_seen {
    int count, stop_at;
};

static bool see_row(void *ctx, const struct omni_bench_row *r)
{
    struct rows_seen *s = ctx;
    assert_true(r->seconds > 0 && r->gflops > 0 && r->gbytes > 0 && r->of_library > 0);
    assert_non_null(strstr(r->shape, "104x256"));
    return ++s->count < s->stop_at;
}

static void the_bench_reports_rows_until_it_is_told_to_stop(void **state)
{
    struct backend *b;
    struct err e = {0};
    struct rows_seen seen = {.stop_at = 2};
    (void)state;
    assert_int_equal(cpu_backend_new(1, &b, NULL), 0);
    assert_int_equal(omni_bench_ops(b, 0.01, see_row, &seen, &e), 0);
    assert_int_equal(seen.count, 2);
    backend_free(b);
}

struct told {
    char kind[3][16], shape[3][96];
    int count;
};

static void keep_told(void *ctx, enum op_kind kind, const char *shape, uint64_t flops,
                      double seconds)
{
    static const char *const kinds[] = {
        [OP_LINEAR] = "linear", [OP_CONV] = "conv", [OP_ATTENTION] = "attention"};
    struct told *t = ctx;
    assert_true(t->count < 3 && flops > 0 && seconds >= 0);
    snprintf(t->kind[t->count], sizeof t->kind[0], "%s", kinds[kind]);
    snprintf(t->shape[t->count++], sizeof t->shape[0], "%s", shape);
}

/* A linear, a convolution of stride 2 and an attention with grouped keys, as they are told. */
static void run_told(struct backend *b, struct told *told)
{
    struct ops *o = ops_new(b, DTYPE_F32, 1 << 20, NULL);
    ops_set_trace(o, keep_told, told);
    op_linear(o, op_zeros(o, DTYPE_F32, SHAPE(1, 7, 24)), op_zeros(o, DTYPE_F32, SHAPE(16, 24)),
              NULL, ACT_NONE);
    op_conv2d(o, op_zeros(o, DTYPE_F32, SHAPE(2, 9, 12, 16)),
              op_zeros(o, DTYPE_F32, SHAPE(32, 16, 3, 3)), NULL, 2, (const int[4]){0, 1, 1, 1},
              ACT_NONE);
    op_attention(o, op_zeros(o, DTYPE_F32, SHAPE(2, 20, 4, 8)),
                 op_zeros(o, DTYPE_F32, SHAPE(2, 33, 2, 8)),
                 op_zeros(o, DTYPE_F32, SHAPE(2, 33, 2, 8)), &(struct attention_args){.scale = 1});
    assert_int_equal(ops_error(o, NULL), 0);
    ops_free(o);
}

static void the_library_alone_is_measured_on_every_product_that_is_told(void **state)
{
    struct backend *b;
    struct err e = {0};
    struct told told = {0};
    struct alone_shape s[3];
    double seconds;
    (void)state;
    assert_int_equal(cpu_backend_new(1, &b, NULL), 0);
    run_told(b, &told);
    assert_int_equal(told.count, 3);
    for (int i = 0; i < 3; i++) {
        assert_true(alone_read(told.kind[i], told.shape[i], &s[i]));
        assert_int_equal(
            omni_bench_library(b, DTYPE_F32, told.kind[i], told.shape[i], &seconds, &e), 0);
        assert_true(seconds > 0 && seconds < 60);
    }
    assert_true(s[0].m == 7 && s[0].k == 24 && s[0].n == 16);
    assert_true(s[1].batch == 2 && s[1].h == 9 && s[1].w == 12 && s[1].ci == 16 && s[1].co == 32);
    assert_true(s[1].kh == 3 && s[1].kw == 3 && s[1].ho == 4 && s[1].wo == 6);
    assert_true(s[2].heads == 8 && s[2].queries == 20 && s[2].keys == 33 && s[2].size == 8);
    assert_int_equal(omni_bench_library(b, DTYPE_F32, "norm", "3x4", &seconds, &e), -EINVAL);
    backend_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(functions_are_right_to_single_precision),
        cmocka_unit_test(functions_take_every_number),
        cmocka_unit_test(half_types_convert_exactly_and_round_to_even),
        cmocka_unit_test(small_products_of_every_instruction_set_agree),
        cmocka_unit_test(scores_become_weights_in_every_instruction_set),
        cmocka_unit_test(one_backend_serves_many_shapes_to_several_threads),
        cmocka_unit_test(bf16_products_are_found_where_the_processor_has_them),
        cmocka_unit_test(the_fastest_compute_type_is_measured_quickly_and_kept),
        cmocka_unit_test(the_bench_reports_rows_until_it_is_told_to_stop),
        cmocka_unit_test(the_library_alone_is_measured_on_every_product_that_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
