/* Memory that is too short for all weights at once: text encoders and the rest are resident by
 * turns, and what is drawn is the same. Run from the repository root. */
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

static struct picture draw(struct omni_model *m, const char *prompt)
{
    struct omni_request r = {.prompt = prompt,
                             .width = 64,
                             .height = 64,
                             .frames = 1,
                             .steps = 2,
                             .guidance = 4,
                             .seed = 3};
    struct omni_result y;
    struct err e = {0};
    if (omni_generate(m, &r, 1, NULL, &y, NULL, &e) != 0)
        fail_msg("%s", e.text);
    return y.picture;
}

/* Bytes of packed and small weights of the text encoders, or of the rest, at the moment. */
static uint64_t held(const struct omni_model *m, bool encoder)
{
    uint64_t sum = 0;
    for (int i = 0; i < m->checkpoint.part_count; i++) {
        const struct part *p = &m->checkpoint.parts[i];
        if (encoder != (strcmp(p->name, "text_encoder") == 0))
            continue;
        for (size_t k = 0; k < p->loader.owned_count; k++)
            if (!m->device.backend->ops->weight_mapped(p->loader.owned[k]))
                sum += m->device.backend->ops->weight_bytes(p->loader.owned[k]);
    }
    return sum;
}

static void assert_same(struct picture a, struct picture b)
{
    assert_memory_equal(a.rgb, b.rgb, picture_frame_bytes(&a));
    picture_free(&a);
    picture_free(&b);
}

static void short_memory_draws_the_same_with_the_text_encoder_asleep(void **state)
{
    (void)state;
    for (int p = OMNI_FP32; p <= OMNI_BF16; p++) {
        struct omni_model *ample = load(0, (enum omni_precision)p);
        struct omni_model *scarce = load(1, (enum omni_precision)p);
        uint64_t encoder = held(scarce, true), rest = held(scarce, false);
        assert_true(encoder > 100000);
        assert_same(draw(ample, "a red apple"), draw(scarce, "a red apple"));
        assert_true(held(scarce, true) < encoder / 4);
        assert_int_equal(held(scarce, false), rest);
        assert_int_equal(held(ample, true), encoder);
        assert_same(draw(ample, "a green star"), draw(scarce, "a green star"));
        assert_same(draw(ample, "a red apple"), draw(scarce, "a red apple"));
        assert_true(held(scarce, true) < encoder / 4);
        omni_model_free(ample);
        omni_model_free(scarce);
    }
}

static void a_prompt_that_is_known_wakes_no_text_encoder(void **state)
{
    (void)state;
    struct omni_model *m = load(1, OMNI_FP32);
    struct err e = {0};
    struct picture first = draw(m, "a red apple");
    for (int i = 0; i < m->checkpoint.part_count; i++)
        if (strcmp(m->checkpoint.parts[i].name, "text_encoder") == 0)
            m->checkpoint.parts[i].loader.backend = NULL; /* waking would not survive this */
    assert_same(first, draw(m, "a red apple"));
    for (int i = 0; i < m->checkpoint.part_count; i++)
        m->checkpoint.parts[i].loader.backend = m->device.backend;
    assert_int_equal(residency_set(m, RESIDENT_ALL, &e), 0);
    omni_model_free(m);
}

static void the_halves_are_together_all_weights(void **state)
{
    (void)state;
    struct omni_model *m = load(0, OMNI_FP32);
    uint64_t encoder = residency_bytes(m, RESIDENT_ENCODER);
    uint64_t rest = residency_bytes(m, RESIDENT_REST);
    assert_true(encoder > 0 && rest > 0);
    assert_int_equal(encoder + rest, omni_model_info(m)->weight_bytes);
    assert_int_equal(omni_model_info(m)->least_weight_bytes, encoder > rest ? encoder : rest);
    assert_true(residency_fits(m, UINT64_MAX / 2));
    m->memory = encoder + rest + 10;
    assert_true(residency_fits(m, 10));
    assert_false(residency_fits(m, 11));
    omni_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_memory_draws_the_same_with_the_text_encoder_asleep),
        cmocka_unit_test(a_prompt_that_is_known_wakes_no_text_encoder),
        cmocka_unit_test(the_halves_are_together_all_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
