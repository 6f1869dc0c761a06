/* 8-bit floats: every value as torch has it, and scales beside weights as published files have
 * them. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "engine/backend.h"
#include "engine/weights/fp8.h"
#include "engine/weights/safetensors.h"
#include "../support/scratch.h"

#define FOLDER "tests/engine/golden/fp8/"

static float *floats(const char *path, size_t *count)
{
    char *data = NULL;
    struct err e = {0};
    if (file_read(AT_FDCWD, path, 1 << 20, &data, count, &e) != 0)
        fail_msg("%s", e.text);
    *count /= sizeof(float);
    return (float *)data;
}

static struct weights *open_file(const char *path)
{
    struct weights *w = NULL;
    struct err e = {0};
    if (weights_open(path, "", &w, &e) != 0)
        fail_msg("%s", e.text);
    return w;
}

static void every_value_of_both_types_is_the_reference_s(void **state)
{
    (void)state;
    static const char *const names[] = {"e4m3", "e5m2"};
    size_t count;
    AUTO_FREE float *expected = floats(FOLDER "every.f32", &count);
    struct weights *w = open_file(FOLDER "every.safetensors");
    struct weight_loader l = {.weights = w};
    assert_int_equal(count, 512);
    for (int i = 0; i < 2; i++) {
        float values[256];
        assert_int_equal(weight_to_f32(&l, values, 256, "%s", names[i]), 0);
        for (int k = 0; k < 256; k++)
            assert_true(values[k] == expected[256 * i + k] ||
                        (isnan(values[k]) && isnan(expected[256 * i + k])));
    }
    weights_close(w);
}

static void scales_of_either_name_are_multiplied_in_and_leave_the_list(void **state)
{
    (void)state;
    static const char *const files[] = {FOLDER "scale_weight.safetensors",
                                        FOLDER "weight_scale.safetensors"};
    size_t count;
    AUTO_FREE float *expected = floats(FOLDER "scaled.f32", &count);
    assert_int_equal(count, 120);
    for (int i = 0; i < 2; i++) {
        struct weights *w = open_file(files[i]);
        struct weight_loader l = {.weights = w};
        float values[60];
        assert_int_equal(weights_count(w), 2); /* weight and bias */
        assert_int_equal(weight_to_f32(&l, values, 60, "x.weight"), 0);
        for (int k = 0; k < 60; k++)
            assert_float_equal(values[k], expected[60 * i + k], 1e-6);
        weights_close(w);
    }
}

static void a_scaled_weight_serves_in_products(void **state)
{
    (void)state;
    size_t count;
    AUTO_FREE float *expected = floats(FOLDER "scaled.f32", &count);
    struct backend *b;
    struct err e = {0};
    assert_int_equal(cpu_backend_new(1, &b, &e), 0);
    struct weights *w = open_file(FOLDER "scale_weight.safetensors");
    struct weight_loader l = {.weights = w, .backend = b, .compute = DTYPE_F32};
    struct tensor *t = weight(&l, SHAPE(6, 10), "x.weight");
    if (!t)
        fail_msg("%s", l.err.text);
    struct ops *o = ops_new(b, DTYPE_F32, 1 << 20, &e);
    float one[10] = {[7] = 1}, y[6];
    struct tensor *x = op_from_host(o, DTYPE_F32, SHAPE(1, 10), one);
    assert_int_equal(op_to_host(o, op_linear(o, x, t, NULL, ACT_NONE), y, sizeof y), 0);
    for (int i = 0; i < 6; i++)
        assert_float_equal(y[i], expected[10 * i + 7], 1e-6);
    ops_free(o);
    weight_loader_free(&l);
    weights_close(w);
    backend_free(b);
}

static void refused(const char *header, const float *data, size_t bytes, const char *sentence)
{
    AUTO_STR struct str s = {0};
    struct weights_file f;
    struct err e = {0};
    uint64_t n = strlen(header);
    str_addn(&s, (const char *)&n, sizeof n);
    str_add(&s, header);
    str_addn(&s, (const char *)data, bytes);
    assert_true(safetensors_parse("odd.safetensors", s.data, s.len, &f, &e) < 0);
    if (!strstr(e.text, sentence))
        fail_msg("expected '%s' in: %s", sentence, e.text);
}

#define WEIGHT "\"x.weight\":{\"dtype\":\"F8_E4M3\",\"shape\":[2,2],\"data_offsets\":[0,4]},"
#define SCALE(name, shape, end)                                                                    \
    "\"" name "\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[4," end "]}}"

static void scales_that_make_no_sense_end_in_a_sentence(void **state)
{
    (void)state;
    static const float rows[] = {0, 1, 1}, zero[] = {0, 0}, odd[] = {0, NAN}, two[] = {0, 2};
    refused("{" WEIGHT SCALE("x.weight_scale", "[2]", "12"), rows, 12, "by row or block");
    refused("{" WEIGHT SCALE("x.weight_scale_inv", "[1,1]", "8"), two, 8, "by row or block");
    refused("{" WEIGHT SCALE("x.scale_weight", "[]", "8"), zero, 8, "not a positive number");
    refused("{" WEIGHT SCALE("x.scale_weight", "[]", "8"), odd, 8, "not a positive number");
    refused("{" WEIGHT SCALE("y.scale_weight", "[]", "8"), two, 8, "no weight that it scales");
    refused("{\"x.weight\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}," SCALE(
                "x.scale_weight", "[]", "8"),
            two, 8, "which is F32 and not F8_E4M3 or F8_E5M2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_value_of_both_types_is_the_reference_s),
        cmocka_unit_test(scales_of_either_name_are_multiplied_in_and_leave_the_list),
        cmocka_unit_test(a_scaled_weight_serves_in_products),
        cmocka_unit_test(scales_that_make_no_sense_end_in_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
