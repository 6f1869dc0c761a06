/* What a device is held to, on the device itself: device_ops [DEVICE] (cuda:0). Every operation
 * against plain loops and the promises beside values; then what the operations reach, beside the
 * device's peak. tools/gpu-report runs it; `make test` does not, because it needs the device. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/ops_compare.h"
#include "../support/ops_narrow.h"
#include "../support/ops_promises.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "engine/device.h"

static struct device device;

/* ---- values ---- */

static void every_operation_equals_plain_loops_in_fp32(void **state)
{
    (void)state;
    compare_all(device.backend, DTYPE_F32);
}

static void every_operation_is_near_plain_loops_in_bf16(void **state)
{
    (void)state;
    compare_all(device.backend, DTYPE_BF16);
}

static void an_item_has_the_same_bits_alone_in_a_batch_and_again(void **state)
{
    (void)state;
    promise_same_bits(device.backend, DTYPE_F32);
    promise_same_bits(device.backend, DTYPE_BF16);
}

static void results_in_bf16_are_near_those_in_fp32(void **state)
{
    (void)state;
    promise_narrow_results(device.backend, 5e-3);
}

static void hidden_keys_give_zeros_and_nan_is_never_hidden(void **state)
{
    (void)state;
    promise_hidden_keys_give_zeros(device.backend, DTYPE_F32);
    promise_hidden_keys_give_zeros(device.backend, DTYPE_BF16);
    promise_nan_is_never_hidden(device.backend, DTYPE_F32);
    promise_nan_is_never_hidden(device.backend, DTYPE_BF16);
}

/* ---- speed ---- */

/* Dense peaks of the makers' data sheets: 10¹² operations a second in bf16 tensor cores and in
 * plain fp32, 10⁹ bytes a second. The longer name comes first. */
static const struct peak {
    const char *name;
    double bf16, fp32, bytes;
} peaks[] = {
    {"H200", 989, 67, 4800},       {"H100 PCIe", 756, 51, 2000}, {"H100", 989, 67, 3350},
    {"B200", 2250, 80, 8000},      {"A100", 312, 19.5, 2039},    {"L40S", 362, 91.6, 864},
    {"RTX 4090", 165, 82.6, 1008}, {"RTX 3090", 71, 35.6, 936},
};

static const struct peak *peak_of(const char *device_name)
{
    for (size_t i = 0; i < ARRAY_LEN(peaks); i++)
        if (strstr(device_name, peaks[i].name))
            return &peaks[i];
    return NULL;
}

struct speed {
    struct ops *o;
    enum dtype type; /* of weights and products */
    struct tensor *x, *w, *vector;
    void *host;
    int64_t n[4];
};

static struct tensor *activations(struct speed *s, int rank, const int64_t *dims)
{
    return op_affine(s->o, op_zeros(s->o, DTYPE_F32, rank, dims), 1.0f, 0.01f);
}

static void take_weight(struct speed *s, int rank, const int64_t *dims)
{
    size_t n = 1;
    struct err e = {0};
    for (int i = 0; i < rank; i++)
        n *= (size_t)dims[i];
    s->host = calloc(n, dtype_size(s->type));
    assert_non_null(s->host);
    if (tensor_weight_shape(device.backend, s->type, rank, dims, &s->w, &e))
        fail_msg("%s", e.text);
    s->w->fp8 = s->type == DTYPE_E4M3;
    if (device.backend->ops->weight_prepare(device.backend, s->w, s->host, ops_compute(s->o), &e))
        fail_msg("%s", e.text);
}

static void linear_operands(struct speed *s)
{
    s->x = activations(s, SHAPE(1, s->n[0], s->n[1]));
    take_weight(s, SHAPE(s->n[2], s->n[1]));
}
static void linear_call(struct speed *s)
{
    op_linear(s->o, s->x, s->w, NULL, ACT_NONE);
}
static void attention_operands(struct speed *s)
{
    s->x = activations(s, SHAPE(1, s->n[0], s->n[1], s->n[2]));
}
static void attention_call(struct speed *s)
{
    op_attention(s->o, s->x, s->x, s->x, &(struct attention_args){.scale = 0.1f});
}
static void conv_operands(struct speed *s)
{
    s->x = activations(s, SHAPE(1, s->n[0], s->n[0], s->n[1]));
    take_weight(s, SHAPE(s->n[2], s->n[1], 3, 3));
}
static void conv_call(struct speed *s)
{
    op_conv2d(s->o, s->x, s->w, NULL, 1, (const int[4]){1, 1, 1, 1}, ACT_NONE);
}
static void rows_operands(struct speed *s)
{
    s->x = activations(s, SHAPE(1, s->n[0], s->n[1]));
    s->vector = activations(s, SHAPE(s->n[1]));
}
static void rms_norm_call(struct speed *s)
{
    op_rms_norm(s->o, s->x, s->vector, 1e-6f);
}
static void layer_norm_call(struct speed *s)
{
    op_layer_norm(s->o, s->x, s->vector, s->vector, 1e-6f);
}
static void glu_call(struct speed *s)
{
    op_glu(s->o, s->x, ACT_SILU);
}
static void gelu_call(struct speed *s)
{
    op_act(s->o, s->x, ACT_GELU_TANH);
}
static void add_call(struct speed *s)
{
    op_add_to(s->o, s->x, s->x);
}
static void permute_call(struct speed *s)
{
    op_permute(s->o, s->x, (const int[3]){0, 2, 1});
}
static void rope_operands(struct speed *s)
{
    s->x = activations(s, SHAPE(1, s->n[0], s->n[1], s->n[2]));
    s->vector = activations(s, SHAPE(s->n[0], s->n[2] / 2));
}
static void rope_call(struct speed *s)
{
    op_rope(s->o, s->x, s->vector, s->vector, true);
}
static void picture_operands(struct speed *s)
{
    s->x = activations(s, SHAPE(1, s->n[0], s->n[0], s->n[1]));
}
static void group_norm_call(struct speed *s)
{
    op_group_norm(s->o, s->x, 32, NULL, NULL, 1e-6f, ACT_SILU);
}
static void upsample_call(struct speed *s)
{
    op_upsample_nearest(s->o, s->x, 2);
}
static void to_u8_call(struct speed *s)
{
    op_to_u8(s->o, s->x, 0.5f, 0.5f);
}

/* Shapes of FLUX.2 klein, Stable Diffusion XL and their autoencoders at 1024x1024. */
static const struct row {
    const char *name;
    enum op_kind kind;
    void (*operands)(struct speed *);
    void (*call)(struct speed *);
    int64_t n[3];
} rows[] = {
    {"linear", OP_LINEAR, linear_operands, linear_call, {4608, 3072, 3072}},
    {"linear", OP_LINEAR, linear_operands, linear_call, {4608, 3072, 27648}},
    {"linear", OP_LINEAR, linear_operands, linear_call, {4608, 12288, 3072}},
    {"linear", OP_LINEAR, linear_operands, linear_call, {512, 2560, 9728}},
    {"linear", OP_LINEAR, linear_operands, linear_call, {4096, 640, 5120}},
    {"linear", OP_LINEAR, linear_operands, linear_call, {1, 3072, 18432}},
    {"attention", OP_ATTENTION, attention_operands, attention_call, {4608, 24, 128}},
    {"attention", OP_ATTENTION, attention_operands, attention_call, {4096, 10, 64}},
    {"attention", OP_ATTENTION, attention_operands, attention_call, {4096, 1, 512}},
    {"conv2d 3x3", OP_CONV, conv_operands, conv_call, {128, 320, 320}},
    {"conv2d 3x3", OP_CONV, conv_operands, conv_call, {512, 256, 256}},
    {"conv2d 3x3", OP_CONV, conv_operands, conv_call, {1024, 128, 128}},
    {"rms_norm", OP_NORM, rows_operands, rms_norm_call, {110592, 128, 0}},
    {"layer_norm", OP_NORM, rows_operands, layer_norm_call, {4608, 3072, 0}},
    {"group_norm silu", OP_NORM, picture_operands, group_norm_call, {1024, 128, 0}},
    {"glu silu", OP_POINTWISE, rows_operands, glu_call, {4608, 18432, 0}},
    {"gelu_tanh", OP_POINTWISE, rows_operands, gelu_call, {4608, 12288, 0}},
    {"add_to", OP_POINTWISE, rows_operands, add_call, {4608, 3072, 0}},
    {"rope", OP_POINTWISE, rope_operands, rope_call, {4608, 24, 128}},
    {"permute 0 2 1", OP_MOVE, rows_operands, permute_call, {4608, 3072, 0}},
    {"upsample_nearest", OP_MOVE, picture_operands, upsample_call, {512, 256, 0}},
    {"to_u8", OP_POINTWISE, picture_operands, to_u8_call, {1024, 3, 0}},
};

static void wait_for_device(struct speed *s, struct tensor *probe)
{
    float one;
    struct err e = {0};
    op_to_host(s->o, probe, &one, sizeof one);
    if (ops_error(s->o, &e))
        fail_msg("%s", e.text);
}

/* Seconds of one call: of as many as take about 0.1 s, between two waits; the best of three. */
static double measure(struct speed *s, const struct row *r)
{
    struct tensor *probe = op_zeros(s->o, DTYPE_F32, SHAPE(1));
    double best = 1e9;
    int calls = 1;
    for (int i = 0; i < 5; i++) { /* the first two find the number of calls */
        wait_for_device(s, probe);
        double start = clock_seconds();
        for (int k = 0; k < calls; k++) {
            ops_mark mark = ops_push(s->o);
            r->call(s);
            ops_pop(s->o, mark);
        }
        wait_for_device(s, probe);
        double seconds = (clock_seconds() - start) / calls;
        if (i >= 2)
            best = seconds < best ? seconds : best;
        else
            calls = seconds > 0.1 ? 1 : seconds < 1e-4 ? 1000 : (int)(0.1 / seconds);
    }
    return best;
}

static void time_row(const struct row *r, enum dtype type, const struct peak *peak)
{
    struct speed s = {.type = type, .n = {r->n[0], r->n[1], r->n[2]}};
    struct err e = {0};
    char shape[64];
    s.o = ops_new(device.backend, type == DTYPE_F32 ? DTYPE_F32 : DTYPE_BF16, (size_t)6 << 30, &e);
    if (!s.o)
        fail_msg("%s", e.text);
    r->operands(&s);
    struct op_stats before = ops_stats(s.o)[r->kind];
    ops_mark mark = ops_push(s.o);
    r->call(&s);
    ops_pop(s.o, mark);
    struct op_stats after = ops_stats(s.o)[r->kind];
    double seconds = measure(&s, r);
    double work = (double)(after.flops - before.flops) * 1e-12 / seconds;
    double bytes = (double)(after.bytes - before.bytes) * 1e-9 / seconds;
    bool product = r->kind == OP_LINEAR || r->kind == OP_CONV || r->kind == OP_ATTENTION;
    double most = type == DTYPE_E4M3   ? 2 * peak->bf16
                  : type == DTYPE_BF16 ? peak->bf16
                                       : peak->fp32;
    double floor = product ? most : peak->bytes;
    snprintf(shape, sizeof shape, "%" PRId64 "x%" PRId64 "x%" PRId64, r->n[0], r->n[1], r->n[2]);
    printf("# %-17s %-18s %-4s %9.3f ms  %8.1f %-7s %5.1f %% of peak\n", r->name, shape,
           product ? dtype_name(type) : "", seconds * 1e3, product ? work : bytes,
           product ? "TFLOP/s" : "GB/s", floor > 0 ? 100 * (product ? work : bytes) / floor : 0);
    tensor_weight_free(s.w);
    free(s.host);
    ops_free(s.o);
}

static void operations_are_timed(void **state)
{
    static const struct peak unknown = {"", 0, 0, 0};
    const struct peak *peak = peak_of(device.backend->name);
    (void)state;
    if (!peak)
        printf("# the peak of %s is not known here: 0 %%\n", device.backend->name);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        bool product = rows[i].n[2] != 0 && rows[i].kind <= OP_ATTENTION;
        if (rows[i].kind == OP_LINEAR && device.backend->fp8)
            time_row(&rows[i], DTYPE_E4M3, peak ? peak : &unknown);
        if (product)
            time_row(&rows[i], DTYPE_BF16, peak ? peak : &unknown);
        time_row(&rows[i], DTYPE_F32, peak ? peak : &unknown);
    }
}

int main(int argc, char **argv)
{
    struct err e = {0};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_equals_plain_loops_in_fp32),
        cmocka_unit_test(every_operation_is_near_plain_loops_in_bf16),
        cmocka_unit_test(an_item_has_the_same_bits_alone_in_a_batch_and_again),
        cmocka_unit_test(results_in_bf16_are_near_those_in_fp32),
        cmocka_unit_test(hidden_keys_give_zeros_and_nan_is_never_hidden),
        cmocka_unit_test(operations_are_timed),
    };
    if (device_open(argc > 1 ? argv[1] : "cuda:0", 0, &device, &e) != 0) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    printf("# %s\n", device.backend->name);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    device_close(&device);
    return failed != 0;
}
