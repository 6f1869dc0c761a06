/* Models without files: full shapes with weights made up on the spot, and what pictures of full
 * size need in memory. Run from the repository root. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "engine/model.h"
#include "engine/synthetic.h"
#include "engine/weights/half.h"
#include "engine/weights/synthetic.h"

#define MB 1000000u

static const char *tokenizer_of(const struct synthetic_model *s)
{
    return strcmp(s->tokenizer, "clip") ? "models/omni-mini/tokenizer"
                                        : "tests/engine/golden/clip/tokenizer";
}

/* The model's shapes, good for plans. */
static void open_shapes(const struct synthetic_model *s, struct omni_model *m)
{
    char path[64];
    struct err e = {0};
    const struct omni_part parts[] = {{"tokenizer", tokenizer_of(s)},
                                      {"tokenizer_2", tokenizer_of(s)}};
    const struct omni_load_options options = {
        .device = "cpu", .precision = OMNI_BF16, .parts = parts, .part_count = 2};
    snprintf(path, sizeof path, SYNTHETIC_PREFIX "%s", s->name);
    if (model_open(m, path, &options, true, &e) != 0)
        fail_msg("%s: %s", s->name, e.text);
}

static void every_model_has_the_parameters_of_the_published_one(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double least, most; /* 10⁹; what is drawn with: no encoder, no layers that nothing reads */
    } published[] = {
        {"klein-4b", 6.5, 8}, {"zimage", 9.5, 10.5}, {"sdxl", 3.4, 3.5}, {"sd15", 1.0, 1.07}};
    for (size_t i = 0; i < ARRAY_LEN(published); i++) {
        struct omni_model m;
        open_shapes(synthetic_find(published[i].name), &m);
        double parameters = (double)m.info.parameters / 1e9;
        model_close(&m);
        if (parameters < published[i].least || parameters > published[i].most)
            fail_msg("%s has %.3f billion parameters", published[i].name, parameters);
    }
}

static void autoencoders_decode_1024x1024_within_1_GB(void **state)
{
    (void)state;
    for (const struct synthetic_model *s = synthetic_models; s->name; s++) {
        struct omni_model m;
        open_shapes(s, &m);
        for (int bf16 = 0; bf16 < 2; bf16++) {
            struct err e = {0};
            struct ops *o = ops_new_plan(m.device.backend, bf16 ? DTYPE_BF16 : DTYPE_F32, &e);
            assert_non_null(o);
            struct omni_request r = {
                .prompt = "", .width = 1024, .height = 1024, .frames = 1, .guidance = NAN};
            struct latent_shape l;
            assert_int_equal(m.family->shape(m.state, &r, &l, &e), 0);
            m.family->decode(m.state, o,
                             op_empty(o, DTYPE_F32, SHAPE(1, 1, l.height, l.width, l.channels)));
            if (ops_error(o, &e) || ops_peak(o) > 1000 * (size_t)MB)
                fail_msg("%s: %zu MB %s", s->name, ops_peak(o) / MB, e.text);
            ops_free(o);
        }
        model_close(&m);
    }
}

static void values_have_the_scale_of_their_shape_and_never_change(void **state)
{
    (void)state;
    static const int64_t dims[2] = {300, 1200};
    struct err e = {0};
    double variance = 0;
    struct synthetic *a = synthetic_new("a"), *b = synthetic_new("b");
    const struct weights_entry *x = synthetic_entry(a, "x.weight", 2, dims, &e);
    const struct weights_entry *y = synthetic_entry(b, "x.weight", 2, dims, &e);
    const struct weights_entry *norm = synthetic_entry(a, "norm.weight", 1, dims, &e);
    assert_true(x && y && norm);
    assert_int_equal(x->bytes, 300 * 1200 * 2);
    assert_memory_equal(x->data, y->data, x->bytes);
    for (size_t i = 0; i < x->bytes / 2; i++) {
        double v = (double)bfloat_to_float(((const uint16_t *)x->data)[i]);
        variance += v * v / (double)(x->bytes / 2);
    }
    assert_true(variance * 1200 > 0.5 && variance * 1200 < 2);
    for (size_t i = 0; i < norm->bytes / 2; i++)
        assert_float_equal(bfloat_to_float(((const uint16_t *)norm->data)[i]), 1, 0.03);
    static const int64_t huge[2] = {INT64_MAX / 2, 8};
    assert_null(synthetic_entry(a, "huge", 2, huge, &e));
    assert_int_equal(e.code, -EINVAL);
    synthetic_free(a);
    synthetic_free(b);
}

static void numbers_that_are_read_to_host_memory_are_made_too(void **state)
{
    (void)state;
    struct err e = {0};
    struct weights *w = NULL;
    float row[3840] = {0};
    assert_int_equal(weights_synthetic("synthetic:some", &w, &e), 0);
    struct weight_loader l = {.weights = w};
    assert_int_equal(weight_to_f32(&l, row, 3840, "x_pad_token"), 0);
    for (int i = 0; i < 3840; i++)
        assert_true(row[i] != 0 && fabsf(row[i]) <= 0.0201f);
    weight_loader_free(&l);
    weights_close(w);
}

static void a_name_that_is_unknown_is_told_from_those_there_are(void **state)
{
    (void)state;
    struct omni_model *m = NULL;
    struct err e = {0};
    assert_int_equal(omni_model_load("synthetic:sd9", NULL, &m, &e), -ENOENT);
    for (const struct synthetic_model *s = synthetic_models; s->name; s++)
        assert_non_null(strstr(e.text, s->name));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_model_has_the_parameters_of_the_published_one),
        cmocka_unit_test(autoencoders_decode_1024x1024_within_1_GB),
        cmocka_unit_test(values_have_the_scale_of_their_shape_and_never_change),
        cmocka_unit_test(numbers_that_are_read_to_host_memory_are_made_too),
        cmocka_unit_test(a_name_that_is_unknown_is_told_from_those_there_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
