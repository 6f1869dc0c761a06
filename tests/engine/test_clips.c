/* Clips of models whose frames see only themselves. Their numbers are tested against diffusers in
 * test_golden.c. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../support/golden.h"
#include "../support/pictures.h"
#include "../support/scratch.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "engine/omni.h"

#define GOLDEN    "tests/engine/golden/klein-clips"
#define TOKENIZER "models/omni-mini/tokenizer"

static const struct omni_load_options options = {
    .device = "cpu", .precision = OMNI_FP32, .threads = 2};

static struct omni_model *load(void)
{
    char folder[64];
    struct omni_model *m = NULL;
    struct err e = {0};
    golden_build(GOLDEN, TOKENIZER, folder);
    if (omni_model_load(folder, &options, &m, &e) != 0)
        fail_msg("%s", e.text);
    file_remove_tree(AT_FDCWD, folder);
    return m;
}

static struct omni_request clip(enum omni_mode mode, const struct picture *image, int frames,
                                uint64_t seed)
{
    return (struct omni_request){.mode = mode,
                                 .prompt = "a boat",
                                 .width = 32,
                                 .height = 32,
                                 .frames = frames,
                                 .steps = 2,
                                 .guidance = 3,
                                 .seed = seed,
                                 .strength = 0.6,
                                 .images = image,
                                 .image_count = image ? 1 : 0};
}

static struct picture draw(struct omni_model *m, const struct omni_request *r)
{
    struct omni_result y;
    struct omni_timings t;
    struct err e = {0};
    uint64_t planned;
    if (omni_plan(m, r, 1, &planned, &e) != 0 || omni_generate(m, r, 1, NULL, &y, &t, &e) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(t.planned_bytes, planned);
    assert_true(t.peak_bytes <= planned);
    return y.picture;
}

static bool same_frame(const struct picture *a, int i, const struct picture *b, int k)
{
    return memcmp(picture_frame(a, i), picture_frame(b, k), picture_frame_bytes(a)) == 0;
}

static void the_first_frame_is_the_picture_of_that_seed(void **state)
{
    (void)state;
    struct omni_model *m = load();
    struct omni_request r = clip(OMNI_TEXT_TO_VIDEO, NULL, 3, 7), still = r;
    still.mode = OMNI_TEXT_TO_IMAGE;
    still.frames = 1;
    struct picture a = draw(m, &r), b = draw(m, &still);
    assert_true(same_frame(&a, 0, &b, 0)); /* time 0, the same noise, alone */
    assert_false(same_frame(&a, 1, &b, 0));
    picture_free(&a);
    picture_free(&b);
    omni_model_free(m);
}

static void a_frame_does_not_know_how_long_the_clip_is(void **state)
{
    (void)state;
    struct omni_model *m = load();
    struct omni_request r = clip(OMNI_TEXT_TO_VIDEO, NULL, 3, 7), longer = r;
    longer.frames = 120; /* more than are drawn together */
    struct picture a = draw(m, &r), b = draw(m, &longer);
    for (int f = 0; f < 3; f++)
        assert_true(same_frame(&a, f, &b, f));
    picture_free(&a);
    picture_free(&b);
    omni_model_free(m);
}

static void a_loop_of_one_period_takes_the_times_of_any_clip(void **state)
{
    (void)state;
    struct omni_model *m = load();
    struct omni_request r = clip(OMNI_TEXT_TO_VIDEO, NULL, 6, 7), loop = r;
    loop.loop = true; /* of motion_period 6: the times are 0, 1, 2 … */
    struct picture a = draw(m, &r), b = draw(m, &loop);
    assert_memory_equal(a.rgb, b.rgb, 6 * picture_frame_bytes(&a));
    loop.frames = 3; /* 0, 2, 4 */
    struct picture c = draw(m, &loop);
    assert_true(same_frame(&c, 1, &a, 2) && same_frame(&c, 2, &a, 4));
    picture_free(&a);
    picture_free(&b);
    picture_free(&c);
    omni_model_free(m);
}

static void longer_clips_repeat_the_period(void **state)
{
    (void)state;
    struct omni_model *m = load();
    struct omni_request r = clip(OMNI_TEXT_TO_VIDEO, NULL, 8, 7), loop = r;
    loop.loop = true;
    loop.frames = 12; /* two periods of 6 */
    struct picture a = draw(m, &r), b = draw(m, &loop);
    assert_true(same_frame(&a, 6, &a, 0) && same_frame(&a, 7, &a, 1));
    for (int f = 0; f < 6; f++)
        assert_true(same_frame(&b, f, &a, f) && same_frame(&b, f + 6, &a, f));
    picture_free(&a);
    picture_free(&b);
    omni_model_free(m);
}

static void clips_in_a_batch_are_those_drawn_alone(void **state)
{
    (void)state;
    struct omni_model *m = load();
    struct picture given[2] = {picture_by_formula(64, 64, 0), picture_by_formula(90, 70, 1)};
    struct omni_request both[2];
    struct omni_result y[2];
    struct omni_timings t;
    struct err e = {0};
    for (int i = 0; i < 2; i++)
        both[i] = clip(OMNI_IMAGE_TO_VIDEO, &given[i], 3, 1 + (uint64_t)i);
    if (omni_generate(m, both, 2, NULL, y, &t, &e) != 0)
        fail_msg("%s", e.text);
    assert_true(t.peak_bytes <= t.planned_bytes);
    for (int i = 0; i < 2; i++) {
        struct picture alone = draw(m, &both[i]);
        assert_memory_equal(alone.rgb, y[i].picture.rgb, 3 * picture_frame_bytes(&alone));
        picture_free(&alone);
        picture_free(&y[i].picture);
        picture_free(&given[i]);
    }
    omni_model_free(m);
}

static void strength_is_nothing_to_a_picture_that_is_read_beside(void **state)
{
    (void)state;
    struct omni_model *m = load();
    struct picture given = picture_by_formula(64, 64, 0), other = picture_by_formula(64, 64, 9);
    struct omni_request r = clip(OMNI_IMAGE_TO_VIDEO, &given, 2, 1);
    assert_true(omni_model_info(m)->reads_first_frame);
    struct picture a = draw(m, &r);
    r.strength = 1;
    struct picture b = draw(m, &r);
    r.images = &other;
    struct picture c = draw(m, &r);
    assert_memory_equal(a.rgb, b.rgb, 2 * picture_frame_bytes(&a));
    assert_false(same_frame(&a, 0, &c, 0) || same_frame(&a, 1, &c, 1));
    picture_free(&a);
    picture_free(&b);
    picture_free(&c);
    picture_free(&given);
    picture_free(&other);
    omni_model_free(m);
}

static void words_that_mean_nothing_are_refused(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"\"frame_attention\": \"none\"", "frame_attention is 'none', expected \"joint\" or "
                                          "\"own\""},
        {"\"frame_noise\": \"some\"", "frame_noise is 'some', expected \"each\" or \"same\""},
        {"\"first_frame\": \"lose\"", "first_frame is 'lose', expected \"keep\" or \"reference\""},
        {"\"motion_period\": -1", "motion_period"},
        {"\"reference_time\": \"late\"", "reference_time"},
    };
    (void)state;
    char folder[64], path[96], text[256];
    golden_build(GOLDEN, TOKENIZER, folder);
    snprintf(path, sizeof path, "%s/model_index.json", folder);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct omni_model *m;
        struct err e = {0};
        snprintf(text, sizeof text,
                 "{\"_class_name\": \"Flux2KleinPipeline\", \"text_encoder_out_layers\": "
                 "[1, 2, 4], \"max_sequence_length\": 40, %s}",
                 cases[i].text);
        scratch_write(path, text);
        assert_int_equal(omni_model_load(folder, &options, &m, &e), -EINVAL);
        if (!strstr(e.text, cases[i].says))
            fail_msg("expected '%s', found '%s'", cases[i].says, e.text);
    }
    file_remove_tree(AT_FDCWD, folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_frame_is_the_picture_of_that_seed),
        cmocka_unit_test(a_frame_does_not_know_how_long_the_clip_is),
        cmocka_unit_test(a_loop_of_one_period_takes_the_times_of_any_clip),
        cmocka_unit_test(longer_clips_repeat_the_period),
        cmocka_unit_test(clips_in_a_batch_are_those_drawn_alone),
        cmocka_unit_test(strength_is_nothing_to_a_picture_that_is_read_beside),
        cmocka_unit_test(words_that_mean_nothing_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
