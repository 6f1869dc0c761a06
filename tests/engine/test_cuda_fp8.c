/* Products in 8-bit floats over the emulated device, with plain code in cuBLASLt's place: values
 * against a search of the nearest, products against plain loops, a model through its whole
 * path. From the repository's root. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/det.h"
#include "../support/fake_vendor.h"
#include "../support/mini_parts.h"
#include "../support/ops_compare.h"
#include "../support/scratch.h"
#include "base/cleanup.h"
#include "engine/device.h"
#include "engine/omni.h"
#include "engine/weights/fp8.h"
#include "engine/weights/weights.h"
#include "kernels/emulated.h"
#include "kernels/library.h"

#if defined(VENDOR_CUBLASLT) && defined(VENDOR_CUDNN)

extern cuda_backend_new_fn omni_cuda_backend_new;
extern cuda_device_count_fn omni_cuda_device_count;

static int new_with_fakes(int index, struct backend **out, struct err *e)
{
    int rc = omni_cuda_backend_new(index, out, e);
    if (rc == 0)
        cuda_library_use(cuda_of(*out), fake_vendor_new());
    return rc;
}

static struct backend *backend_new(void)
{
    struct backend *b;
    struct err e = {0};
    if (new_with_fakes(0, &b, &e))
        fail_msg("%s", e.text);
    assert_true(b->fp8);
    return b;
}

static void end(struct backend *b)
{
    backend_free(b);
    assert_int_equal(fake_cublaslt.alive, 0);
    assert_int_equal(emulated_counts().live, 0);
}

/* ---- references ---- */

/* The nearest value of e4m3, of two that are as near the one with an even code. */
static uint8_t nearest(double x)
{
    static float values[256];
    if (values[1] == 0) {
        uint8_t codes[256];
        for (int i = 0; i < 256; i++)
            codes[i] = (uint8_t)i;
        fp8_expand_e4m3(codes, 256, values);
    }
    int best = signbit(x) ? 0x80 : 0, first = best;
    for (int i = first; i < first + 0x7F; i++) {
        double d = fabs(values[i] - x), least = fabs(values[best] - x);
        if (d < least || (d == least && i % 2 == 0))
            best = i;
    }
    return (uint8_t)best;
}

/* x[n] as an item in e4m3, and back. */
static void round_item(double *x, int64_t n)
{
    float most = 0;
    for (int64_t i = 0; i < n; i++)
        most = fabsf((float)x[i]) > most ? fabsf((float)x[i]) : most;
    for (int64_t i = 0; i < n && most > 0; i++) {
        uint8_t code = nearest((double)((float)x[i] * (448.0f / most)));
        float value;
        fp8_expand_e4m3(&code, 1, &value);
        x[i] = (double)value * (most / 448.0f);
    }
}

static void multiply(const double *x, const double *w, const double *bias, enum activation act,
                     int64_t m, int64_t n, int64_t k, double *y)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = bias ? bias[j] : 0;
            for (int64_t l = 0; l < k; l++)
                sum += x[i * k + l] * w[j * k + l];
            y[i * n + j] = reference_act(sum, act);
        }
}

static double error_of(const float *got, const double *want, int64_t n)
{
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += (got[i] - want[i]) * (got[i] - want[i]);
        size += want[i] * want[i];
    }
    return sqrt(difference / size);
}

/* ---- one layer ---- */

#define ITEMS 3
#define ROWS  21
#define K     80
#define N     48

struct layer {
    struct tensor *w, *bias;
    float x[ITEMS * ROWS * K], matrix[N * K], vector[N];
};

static struct tensor *fp8_weight(struct backend *b, enum dtype d, int64_t rows, int64_t columns,
                                 const void *host)
{
    struct tensor *w;
    struct err e = {0};
    assert_int_equal(tensor_weight_shape(b, d, SHAPE(rows, columns), &w, &e), 0);
    w->fp8 = true;
    if (b->ops->weight_prepare(b, w, host, DTYPE_BF16, &e))
        fail_msg("%s", e.text);
    assert_int_equal(w->dtype, DTYPE_E4M3);
    return w;
}

/* The items' sizes are far apart. */
static struct layer *layer_new(struct backend *b)
{
    struct layer *l = calloc(1, sizeof *l);
    assert_non_null(l);
    det_input("x", l->x, ITEMS * ROWS * K);
    det_input("w", l->matrix, N * K);
    det_input("b", l->vector, N);
    for (int i = 0; i < ITEMS * ROWS * K; i++)
        l->x[i] *= powf(100, (float)(i / (ROWS * K) - 1));
    l->w = fp8_weight(b, DTYPE_F32, N, K, l->matrix);
    assert_int_equal(
        tensor_weight_new(b, DTYPE_F32, SHAPE(N), l->vector, DTYPE_BF16, &l->bias, NULL), 0);
    return l;
}

static void layer_free(struct layer *l)
{
    tensor_weight_free(l->w);
    tensor_weight_free(l->bias);
    free(l);
}

static struct tensor *call(struct ops *o, const struct layer *l, const float *x, int64_t items,
                           int64_t rows, enum activation act)
{
    struct tensor *t = op_from_host(o, DTYPE_F32, SHAPE(items, rows, K), x);
    return op_linear(o, t, l->w, l->bias, act);
}

/* y[items · rows · N], in the memory that a plan says. */
static void run(struct backend *b, const struct layer *l, const float *x, int64_t items,
                int64_t rows, enum activation act, float *y)
{
    struct err e = {0};
    struct ops *o = ops_new_plan(b, DTYPE_BF16, &e);
    call(o, l, x, items, rows, act);
    assert_int_equal(ops_error(o, &e), 0);
    size_t bytes = ops_peak(o);
    ops_free(o);
    o = ops_new(b, DTYPE_BF16, bytes, &e);
    assert_non_null(o);
    struct tensor *t = call(o, l, x, items, rows, act);
    op_to_host(o, t, y, (size_t)(items * rows * N) * sizeof *y);
    if (ops_error(o, &e))
        fail_msg("%s", e.text);
    assert_int_equal(ops_peak(o), bytes);
    ops_free(o);
}

/* ---- values ---- */

static void weights_are_the_nearest_values_under_one_scale(void **state)
{
    (void)state;
    struct backend *b = backend_new();
    AUTO_FREE float *x = calloc(64 * 64, sizeof *x);
    assert_non_null(x);
    det_input("values", x, 64 * 64);
    for (int i = 0; i < 256; i++) { /* every value, and what is between two */
        uint8_t code = (uint8_t)i;
        float next = 0;
        fp8_expand_e4m3(&code, 1, &x[i]);
        code = (uint8_t)(i % 128 < 126 ? i + 1 : i);
        fp8_expand_e4m3(&code, 1, &next);
        x[i] = isnan(x[i]) ? 448 : x[i];
        x[256 + i] = isnan(next) ? 0 : (x[i] + next) / 2;
    }
    for (int i = 512; i < 64 * 64; i++)
        x[i] *= ldexpf(1, i % 17 - 10);
    struct tensor *w = fp8_weight(b, DTYPE_F32, 64, 64, x);
    assert_true(*cuda_weight_scale(w) == 1); /* device memory is ours to read */
    for (int i = 0; i < 64 * 64; i++)
        assert_int_equal(((const uint8_t *)w->data)[i], nearest((double)x[i]));
    tensor_weight_free(w);
    end(b);
}

static void weights_that_are_e4m3_stay_as_they_are(void **state)
{
    (void)state;
    struct backend *b = backend_new();
    uint8_t codes[16 * 32];
    float one[16 * 32] = {[3] = 1}, y[16 * 16];
    for (int i = 0; i < 16 * 32; i++)
        codes[i] = (uint8_t)(i % 127 + 128 * (i % 2));
    struct tensor *w;
    assert_int_equal(tensor_weight_shape(b, DTYPE_E4M3, SHAPE(16, 32), &w, NULL), 0);
    w->fp8 = true;
    w->blocks.scale = 0.3f;
    assert_int_equal(b->ops->weight_prepare(b, w, codes, DTYPE_BF16, NULL), 0);
    assert_memory_equal(w->data, codes, sizeof codes);
    struct ops *o = ops_new(b, DTYPE_BF16, (size_t)64 << 20, NULL);
    struct tensor *t = op_from_host(o, DTYPE_F32, SHAPE(1, 16, 32), one);
    assert_int_equal(op_to_host(o, op_linear(o, t, w, NULL, ACT_NONE), y, sizeof y), 0);
    for (int i = 0; i < 16; i++) {
        float value;
        fp8_expand_e4m3(&codes[32 * i + 3], 1, &value);
        assert_float_equal(y[i], value * 0.3f, 1e-5 * fabs((double)value));
    }
    ops_free(o);
    tensor_weight_free(w);
    end(b);
}

/* ---- products ---- */

static void products_are_near_those_of_the_numbers_and_those_of_the_rounded_numbers(void **state)
{
    (void)state;
    static const enum activation acts[] = {ACT_NONE, ACT_SILU, ACT_GELU_TANH, ACT_RELU};
    struct backend *b = backend_new();
    struct layer *l = layer_new(b);
    enum { ALL = ITEMS * ROWS * N };
    AUTO_FREE double *x = calloc(ITEMS * ROWS * K, sizeof *x), *w = calloc(N * K, sizeof *w);
    AUTO_FREE double *bias = calloc(N, sizeof *bias), *want = calloc(ALL, sizeof *want);
    AUTO_FREE float *y = calloc(ALL, sizeof *y);
    assert_true(x && w && bias && want && y);
    for (int rounded = 0; rounded < 2; rounded++)
        for (size_t a = 0; a < ARRAY_LEN(acts); a++) {
            int before = fake_cublaslt.products;
            for (int i = 0; i < ITEMS * ROWS * K; i++)
                x[i] = l->x[i];
            for (int i = 0; i < N * K; i++)
                w[i] = l->matrix[i];
            for (int i = 0; i < N; i++)
                bias[i] = l->vector[i];
            if (rounded)
                round_item(w, N * K);
            for (int i = 0; i < ITEMS && rounded; i++)
                round_item(x + i * ROWS * K, ROWS * K);
            multiply(x, w, bias, acts[a], ITEMS * ROWS, N, K, want);
            run(b, l, l->x, ITEMS, ROWS, acts[a], y);
            assert_int_equal(fake_cublaslt.products, before + ITEMS);
            for (int i = 0; i < ITEMS; i++) {
                double error = error_of(y + i * ROWS * N, want + i * ROWS * N, ROWS * N);
                print_message("# act %d, item %d: %.2g\n", (int)acts[a], i, error);
                assert_true(error <= (rounded ? 2e-6 : 5e-2));
                assert_true(rounded || i == 0 || error > 1e-3); /* it is e4m3 */
            }
        }
    layer_free(l);
    end(b);
}

static void an_item_has_the_same_bits_alone_and_in_a_batch(void **state)
{
    (void)state;
    struct backend *b = backend_new();
    struct layer *l = layer_new(b);
    AUTO_FREE float *all = calloc(ITEMS * ROWS * N, sizeof *all);
    float one[ROWS * N];
    assert_non_null(all);
    run(b, l, l->x, ITEMS, ROWS, ACT_SILU, all);
    for (int i = 0; i < ITEMS; i++) {
        run(b, l, l->x + i * ROWS * K, 1, ROWS, ACT_SILU, one);
        assert_memory_equal(one, all + i * ROWS * N, sizeof one);
    }
    emulated_set_order(EMULATED_BACKWARD, 0);
    run(b, l, l->x, 1, ROWS, ACT_SILU, one);
    emulated_set_order(EMULATED_FORWARD, 0);
    assert_memory_equal(one, all, sizeof one);
    layer_free(l);
    end(b);
}

static void views_give_the_bits_of_dense_operands(void **state)
{
    (void)state;
    struct backend *b = backend_new();
    struct layer *l = layer_new(b);
    float y[2][2 * 20 * N];
    struct ops *o = ops_new(b, DTYPE_BF16, (size_t)64 << 20, NULL);
    for (int odd = 0; odd < 2; odd++) { /* at odd addresses, too */
        struct tensor *t = op_zeros(o, DTYPE_F32, SHAPE(ITEMS, ROWS, K + 8));
        struct tensor *x = op_from_host(o, DTYPE_F32, SHAPE(ITEMS, ROWS, K), l->x);
        op_copy(o, op_slice(o, t, 2, 4 + odd, K), x);
        t = op_slice(o, op_slice(o, op_slice(o, t, 2, 4 + odd, K), 1, 1, 20), 0, 0, 2);
        for (int dense = 0; dense < 2; dense++) {
            struct tensor *v = dense ? op_contiguous(o, t) : t;
            op_to_host(o, op_linear(o, v, l->w, NULL, ACT_NONE), y[dense], sizeof y[dense]);
        }
        assert_int_equal(ops_error(o, NULL), 0);
        assert_memory_equal(y[0], y[1], sizeof y[0]);
    }
    ops_free(o);
    layer_free(l);
    end(b);
}

/* Few rows, and whatever the library does not do: the own kernels read e4m3. */
static void own_kernels_read_such_weights_too(void **state)
{
    (void)state;
    struct backend *b = backend_new();
    struct layer *l = layer_new(b);
    double x[ROWS * K], w[N * K], bias[N], want[ROWS * N];
    float y[ROWS * N];
    for (int i = 0; i < N * K; i++)
        w[i] = l->matrix[i];
    for (int i = 0; i < N; i++)
        bias[i] = l->vector[i];
    for (int i = 0; i < ROWS * K; i++)
        x[i] = l->x[i];
    round_item(w, N * K);
    for (int few = 0; few < 2; few++) {
        int64_t rows = few ? 5 : ROWS;
        fake_cublaslt.broken = few ? 0 : 1;
        int before = fake_cublaslt.products;
        run(b, l, l->x, 1, rows, ACT_SILU, y);
        assert_int_equal(fake_cublaslt.products, before);
        multiply(x, w, bias, ACT_SILU, rows, N, K, want);
        assert_true(error_of(y, want, rows * N) <= 1e-2);
    }
    layer_free(l);
    end(b);
}

static void zeros_are_zero_and_what_is_not_finite_spoils_its_own_item_alone(void **state)
{
    (void)state;
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    struct backend *b = backend_new();
    struct layer *l = layer_new(b);
    AUTO_FREE float *y = calloc(ITEMS * ROWS * N, sizeof *y);
    assert_non_null(y);
    memset(l->x, 0, ROWS * K * sizeof *l->x);
    for (size_t k = 0; k < ARRAY_LEN(odd); k++) {
        l->x[ROWS * K + 5 * K + 7] = odd[k];
        run(b, l, l->x, ITEMS, ROWS, ACT_NONE, y);
        for (int i = 0; i < ROWS * N; i++) {
            assert_true(y[i] == l->vector[i % N]);
            assert_true(isfinite(y[2 * ROWS * N + i]));
        }
        bool seen = false;
        for (int i = 0; i < N; i++)
            seen = seen || isnan(y[(ROWS + 5) * N + i]);
        assert_true(seen);
    }
    layer_free(l);
    end(b);
}

/* ---- refusals ---- */

static void what_cannot_be_fp8_is_refused(void **state)
{
    (void)state;
    struct backend *bare;
    struct err e = {0};
    float host[16 * 24] = {0};
    struct tensor *w;
    assert_int_equal(omni_cuda_backend_new(0, &bare, &e), 0);
    assert_false(bare->fp8); /* there is no library */
    struct backend *b = backend_new();
    const struct {
        struct backend *b;
        int64_t columns;
        bool fp8;
        enum dtype type;
    } rows[] = {{bare, 16, true, DTYPE_F32},
                {b, 24, true, DTYPE_F32},
                {b, 16, false, DTYPE_E4M3},
                {b, 16, true, DTYPE_U8}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct backend *on = rows[i].b;
        assert_int_equal(
            tensor_weight_shape(on, rows[i].type, SHAPE(16, rows[i].columns), &w, NULL), 0);
        w->fp8 = rows[i].fp8;
        assert_int_equal(on->ops->weight_prepare(on, w, host, DTYPE_BF16, &e), -EINVAL);
        assert_non_null(strstr(e.text, "takes no weights"));
        tensor_weight_free(w);
    }
    backend_free(bare);
    end(b);
}

/* ---- models ---- */

#define HEADER                                                                                     \
    "{\"x.weight\":{\"dtype\":\"F8_E4M3\",\"shape\":[16,16],\"data_offsets\":[0,256]},"            \
    "\"x.weight_scale\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[256,260]}}"

/* All values, and a scale of a half. */
static void write_file(const char *path)
{
    uint64_t n = sizeof HEADER - 1;
    float scale = 0.5f;
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fwrite(&n, sizeof n, 1, f);
    fwrite(HEADER, n, 1, f);
    for (int i = 0; i < 256; i++)
        fputc(i, f);
    fwrite(&scale, sizeof scale, 1, f);
    assert_int_equal(fclose(f), 0);
}

static void a_loader_makes_its_large_matrices_so_and_takes_files_as_they_are(void **state)
{
    char path[256];
    snprintf(path, sizeof path, "%s/x.safetensors", (const char *)*state);
    struct backend *b = backend_new();
    struct weights *files;
    struct err e = {0};
    write_file(path);
    if (weights_open(path, "", &files, &e))
        fail_msg("%s", e.text);
    for (int fp8 = 0; fp8 < 2; fp8++) {
        struct weight_loader l = {
            .weights = files, .backend = b, .compute = DTYPE_BF16, .fp8 = fp8, .asleep = true};
        struct tensor *w = weight_linear(&l, 16, 16, "x.weight");
        struct tensor *v = weight(&l, SHAPE(16, 16), "x.weight");
        if (!w || !v)
            fail_msg("%s", l.err.text);
        uint64_t planned = weight_loader_bytes(&l, false);
        assert_int_equal(weight_loader_wake(&l, &e), 0);
        assert_int_equal(weight_loader_bytes(&l, true), planned);
        assert_int_equal(v->dtype, DTYPE_BF16);
        assert_int_equal(w->dtype, fp8 ? DTYPE_E4M3 : DTYPE_BF16);
        for (int i = 0; i < 256 && fp8; i++)
            assert_int_equal(((const uint8_t *)w->data)[i], i);
        assert_true(!fp8 || *cuda_weight_scale(w) == 0.5f);
        weight_loader_free(&l);
    }
    weights_close(files);
    end(b);
}

static void a_picture_in_fp8_is_like_the_one_in_fp32(void **state)
{
    (void)state;
    static const struct cuda_exports with_fakes = {new_with_fakes, omni_cuda_device_count};
    device_provide(&with_fakes);
    struct picture plain = mini_picture("cpu", OMNI_FP32, 64);
    struct picture fp8 = mini_picture("cuda:0", OMNI_FP8, 64);
    device_provide(NULL);
    double error = mini_picture_error(&fp8, &plain);
    print_message("# relative error %.2g\n", error);
    assert_true(error > 0 && error <= 0.25); /* a small model in one step: bf16 moves it by 0.05 */
    picture_free(&plain);
    picture_free(&fp8);
    assert_int_equal(emulated_counts().live, 0);
}

static void the_cpu_says_what_fp8_needs(void **state)
{
    (void)state;
    struct omni_load_options options = {.device = "cpu", .precision = OMNI_FP8};
    struct omni_model *m = NULL;
    struct err e = {0};
    assert_int_equal(omni_model_load("models/omni-mini", &options, &m, &e), -EINVAL);
    assert_string_equal(e.text, "precision fp8 is not possible on cpu: it needs an NVIDIA GPU of "
                                "compute capability 8.9 or later and cuBLASLt; expected auto, "
                                "fp32 or bf16");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_the_nearest_values_under_one_scale),
        cmocka_unit_test(weights_that_are_e4m3_stay_as_they_are),
        cmocka_unit_test(products_are_near_those_of_the_numbers_and_those_of_the_rounded_numbers),
        cmocka_unit_test(an_item_has_the_same_bits_alone_and_in_a_batch),
        cmocka_unit_test(views_give_the_bits_of_dense_operands),
        cmocka_unit_test(own_kernels_read_such_weights_too),
        cmocka_unit_test(zeros_are_zero_and_what_is_not_finite_spoils_its_own_item_alone),
        cmocka_unit_test(what_cannot_be_fp8_is_refused),
        cmocka_unit_test_setup_teardown(
            a_loader_makes_its_large_matrices_so_and_takes_files_as_they_are, scratch_setup,
            scratch_teardown),
        cmocka_unit_test(a_picture_in_fp8_is_like_the_one_in_fp32),
        cmocka_unit_test(the_cpu_says_what_fp8_needs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    return 0;
}

#endif
