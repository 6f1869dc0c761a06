/* Weights are in memory as it allows: none before a request needs them, text encoders and the rest
 * by turns where both do not fit, and what is drawn is the same. Run from the repository root. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/backend.h"
#include "engine/residency.h"

#define MODEL "models/omni-mini"

static struct omni_model *load(uint64_t memory, enum omni_precision precision)
{
    struct omni_load_options options = {.device = "cpu", .precision = precision, .memory = memory};
    struct omni_model *m = NULL;
    struct err e = {0};
    if (omni_model_load(MODEL, &options, &m, &e) != 0)
        fail_msg("%s", e.text);
    return m;
}

static struct omni_request request(const char *prompt)
{
    return (struct omni_request){.prompt = prompt,
                                 .width = 64,
                                 .height = 64,
                                 .frames = 1,
                                 .steps = 2,
                                 .guidance = 4,
                                 .seed = 3};
}

static struct picture draw(struct omni_model *m, const char *prompt)
{
    struct omni_request r = request(prompt);
    struct omni_result y;
    struct err e = {0};
    if (omni_generate(m, &r, 1, NULL, &y, NULL, &e) != 0)
        fail_msg("%s", e.text);
    return y.picture;
}

/* The least memory that the request can do with. */
static uint64_t least(enum omni_precision precision)
{
    struct omni_model *m = load(0, precision);
    struct omni_request r = request("a red apple");
    struct err e = {0};
    uint64_t planned;
    assert_int_equal(omni_plan(m, &r, 1, &planned, &e), 0);
    planned += omni_model_info(m)->least_weight_bytes;
    omni_model_free(m);
    return planned;
}

/* Bytes of the text encoders' weights, or of the rest, that have data at the moment. */
static uint64_t held(const struct omni_model *m, bool encoder)
{
    uint64_t sum = 0;
    for (int i = 0; i < m->checkpoint.part_count; i++)
        if (encoder == (strcmp(m->checkpoint.parts[i].name, "text_encoder") == 0))
            sum += weight_loader_bytes(&m->checkpoint.parts[i].loader, true);
    return sum;
}

static uint64_t all(const struct omni_model *m)
{
    return omni_model_info(m)->weight_bytes;
}

static void assert_same(struct picture a, struct picture b)
{
    assert_memory_equal(a.rgb, b.rgb, picture_frame_bytes(&a));
    picture_free(&a);
    picture_free(&b);
}

static void opening_a_model_takes_no_memory_for_weights(void **state)
{
    (void)state;
    struct omni_model *m = load(0, OMNI_FP32);
    struct omni_request r = request("a red apple");
    struct err e = {0};
    uint64_t planned;
    assert_true(all(m) > 1000000);
    assert_int_equal(omni_plan(m, &r, 1, &planned, &e), 0);
    assert_int_equal(omni_model_info(m)->resident_bytes, 0);
    assert_int_equal(held(m, true) + held(m, false), 0);
    struct picture p = draw(m, "a red apple");
    picture_free(&p);
    assert_int_equal(omni_model_info(m)->resident_bytes, all(m));
    assert_int_equal(held(m, true) + held(m, false), all(m));
    omni_model_free(m);
}

static void short_memory_draws_the_same_with_the_halves_by_turns(void **state)
{
    (void)state;
    for (int p = OMNI_FP32; p <= OMNI_BF16; p++) {
        struct omni_model *ample = load(0, (enum omni_precision)p);
        struct omni_model *scarce = load(least((enum omni_precision)p), (enum omni_precision)p);
        assert_same(draw(ample, "a red apple"), draw(scarce, "a red apple"));
        assert_int_equal(held(scarce, true), 0);
        assert_true(held(scarce, false) > 0);
        assert_int_equal(omni_model_info(scarce)->resident_bytes, held(scarce, false));
        assert_true(held(ample, true) > 0);
        assert_same(draw(ample, "a green star"), draw(scarce, "a green star"));
        assert_same(draw(ample, "a red apple"), draw(scarce, "a red apple"));
        assert_int_equal(held(scarce, true), 0);
        omni_model_free(ample);
        omni_model_free(scarce);
    }
}

static void work_that_fits_beside_no_weights_is_refused_before_any(void **state)
{
    (void)state;
    struct omni_model *m = load(least(OMNI_FP32) - 1, OMNI_FP32);
    struct omni_request r = request("a red apple");
    struct omni_result y;
    struct err e = {0};
    assert_int_equal(omni_generate(m, &r, 1, NULL, &y, NULL, &e), -ENOMEM);
    assert_non_null(strstr(e.text, "this request needs "));
    assert_int_equal(omni_model_info(m)->resident_bytes, 0);
    omni_model_free(m);
    m = load(least(OMNI_FP32), OMNI_FP32); /* one byte more */
    assert_int_equal(omni_generate(m, &r, 1, NULL, &y, NULL, &e), 0);
    picture_free(&y.picture);
    omni_model_free(m);
}

static void a_prompt_that_is_known_wakes_no_text_encoder(void **state)
{
    (void)state;
    struct omni_model *m = load(least(OMNI_FP32), OMNI_FP32);
    struct picture first = draw(m, "a red apple");
    assert_int_equal(held(m, true), 0);
    m->memory = 0; /* would let it wake and stay */
    assert_same(first, draw(m, "a red apple"));
    assert_int_equal(held(m, true), 0);
    omni_model_free(m);
}

static bool second_time(void *ctx)
{
    return ++*(int *)ctx > 1;
}

static void waking_that_is_cancelled_goes_on_next_time(void **state)
{
    (void)state;
    struct omni_model *m = load(0, OMNI_FP32), *other = load(0, OMNI_FP32);
    struct omni_request r = request("a red apple");
    struct omni_result y;
    struct err e = {0};
    int asked = 0;
    struct omni_callbacks cb = {.ctx = &asked, .cancelled = second_time};
    assert_int_equal(omni_generate(m, &r, 1, &cb, &y, NULL, &e), -ECANCELED);
    assert_true(omni_model_info(m)->resident_bytes < all(m));
    assert_same(draw(m, "a red apple"), draw(other, "a red apple"));
    omni_model_free(m);
    omni_model_free(other);
}

static void the_halves_are_together_all_weights(void **state)
{
    (void)state;
    struct omni_model *m = load(0, OMNI_FP32);
    struct picture p = draw(m, "a red apple");
    picture_free(&p);
    uint64_t encoder = held(m, true), rest = held(m, false);
    assert_true(encoder > 0 && rest > 0);
    assert_int_equal(encoder + rest, all(m));
    assert_int_equal(omni_model_info(m)->least_weight_bytes, encoder > rest ? encoder : rest);
    assert_true(residency_fits(m, UINT64_MAX / 2));
    m->memory = encoder + rest + 10;
    assert_true(residency_fits(m, 10));
    assert_false(residency_fits(m, 11));
    m->memory = (encoder > rest ? encoder : rest) + 10;
    assert_true(residency_fits_by_turns(m, 10));
    assert_false(residency_fits_by_turns(m, 11));
    omni_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening_a_model_takes_no_memory_for_weights),
        cmocka_unit_test(short_memory_draws_the_same_with_the_halves_by_turns),
        cmocka_unit_test(work_that_fits_beside_no_weights_is_refused_before_any),
        cmocka_unit_test(a_prompt_that_is_known_wakes_no_text_encoder),
        cmocka_unit_test(waking_that_is_cancelled_goes_on_next_time),
        cmocka_unit_test(the_halves_are_together_all_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
