/* What omni.h promises about requests that give pictures, with the embedded model and with golden
 * checkpoints of the other ways to read them. Numbers are tested against diffusers in
 * test_golden.c. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "../support/golden.h"
#include "../support/pictures.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "engine/omni.h"

#define MINI      "models/omni-mini"
#define TOKENIZER MINI "/tokenizer"

static struct omni_model *load(const char *path)
{
    struct omni_load_options options = {.device = "cpu", .precision = OMNI_FP32, .threads = 2};
    struct omni_model *m = NULL;
    struct err e = {0};
    if (omni_model_load(path, &options, &m, &e) != 0)
        fail_msg("%s", e.text);
    return m;
}

static struct omni_model *load_golden(const char *golden)
{
    char folder[64];
    golden_build(golden, TOKENIZER, folder);
    struct omni_model *m = load(folder);
    file_remove_tree(AT_FDCWD, folder);
    return m;
}

/* The pictures of all requests, made once. */
struct given {
    struct picture images[3], mask;
};

static struct given *given_new(void)
{
    static struct given g;
    g.images[0] = picture_by_formula(64, 64, 0);
    g.images[1] = picture_by_formula(64, 72, 1);
    g.images[2] = picture_by_formula(90, 66, 2);
    g.mask = mask_by_formula(64, 64, -1);
    return &g;
}

static void given_free(struct given *g)
{
    for (size_t i = 0; i < ARRAY_LEN(g->images); i++)
        picture_free(&g->images[i]);
    picture_free(&g->mask);
}

static struct omni_request request(const struct given *g, enum omni_mode mode, uint64_t seed)
{
    return (struct omni_request){.mode = mode,
                                 .prompt = "a boat",
                                 .width = 64,
                                 .height = 64,
                                 .frames = mode == OMNI_IMAGE_TO_VIDEO ? 3 : 1,
                                 .steps = 4,
                                 .guidance = 3,
                                 .seed = seed,
                                 .strength = 0.6,
                                 .images = g->images,
                                 .image_count = 1,
                                 .mask = mode == OMNI_INPAINT ? &g->mask : NULL};
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
    assert_true(t.peak_bytes > planned / 2);
    return y.picture;
}

static bool same(const struct picture *a, const struct picture *b)
{
    return a->width == b->width && a->height == b->height && a->frames == b->frames &&
           memcmp(a->rgb, b->rgb, picture_frame_bytes(a) * (size_t)a->frames) == 0;
}

/* Two requests together give what each gives alone, and the plan covers both. */
static void check_batch(struct omni_model *m, struct omni_request a, struct omni_request b)
{
    struct omni_request both[2] = {a, b};
    struct omni_result y[2];
    struct omni_timings t;
    struct err e = {0};
    struct picture alone[2] = {draw(m, &a), draw(m, &b)};
    if (omni_generate(m, both, 2, NULL, y, &t, &e) != 0)
        fail_msg("%s", e.text);
    assert_true(t.peak_bytes <= t.planned_bytes);
    assert_false(same(&alone[0], &alone[1]));
    for (int i = 0; i < 2; i++) {
        assert_true(same(&alone[i], &y[i].picture));
        picture_free(&alone[i]);
        picture_free(&y[i].picture);
    }
}

static void batches_from_pictures_give_the_bytes_of_each_request_alone(void **state)
{
    static const char *const goldens[] = {NULL, "tests/engine/golden/klein-base",
                                          "tests/engine/golden/zimage"};
    (void)state;
    struct given *g = given_new();
    for (size_t i = 0; i < ARRAY_LEN(goldens); i++) {
        struct omni_model *m = goldens[i] ? load_golden(goldens[i]) : load(MINI);
        for (int mode = OMNI_IMAGE_TO_IMAGE; mode <= OMNI_INPAINT; mode++)
            check_batch(m, request(g, (enum omni_mode)mode, 1),
                        request(g, (enum omni_mode)mode, 2));
        omni_model_free(m);
    }
    given_free(g);
}

static void strength_says_how_far_from_the_picture(void **state)
{
    (void)state;
    struct given *g = given_new();
    struct omni_model *m = load(MINI);
    double like[3];
    for (int i = 0; i < 3; i++) {
        struct omni_request r = request(g, OMNI_IMAGE_TO_IMAGE, 1);
        struct picture given = scene(64, 64, 1);
        r.images = &given;
        r.steps = 10;
        r.strength = (double[]){0.2, 0.6, 1}[i];
        struct picture p = draw(m, &r);
        like[i] = psnr(&p, &given, 0);
        picture_free(&p);
        picture_free(&given);
    }
    assert_true(like[0] > like[1] && like[1] > like[2]);
    omni_model_free(m);
    given_free(g);
}

static void full_strength_without_a_mask_is_text_to_image(void **state)
{
    (void)state;
    struct given *g = given_new();
    struct omni_model *m = load(MINI);
    struct omni_request r = request(g, OMNI_IMAGE_TO_IMAGE, 7), plain = r;
    r.strength = 1;
    plain.mode = OMNI_TEXT_TO_IMAGE;
    plain.image_count = 0;
    struct picture a = draw(m, &r), b = draw(m, &plain);
    assert_true(same(&a, &b)); /* flow matching begins at pure noise */
    picture_free(&a);
    picture_free(&b);
    omni_model_free(m);
    given_free(g);
}

/* What is kept went through the autoencoder and is the same whatever is drawn beside it. */
static void inpaint_changes_what_is_white_alone(void **state)
{
    (void)state;
    struct given *g = given_new();
    struct omni_model *m = load(MINI);
    struct picture p[2];
    double error[2] = {0};
    for (int i = 0; i < 2; i++) {
        struct omni_request r = request(g, OMNI_INPAINT, (uint64_t)i);
        r.strength = 1;
        p[i] = draw(m, &r);
    }
    for (int i = 0; i < 64 * 64 * 3; i++) {
        double d = p[0].rgb[i] - p[1].rgb[i];
        int x = i / 3 % 64;
        if (x < 16 || x >= 48) /* the decoder mixes neighbours */
            error[x >= 48] += d * d;
    }
    assert_true(error[0] * 200 < error[1]);
    picture_free(&p[0]);
    picture_free(&p[1]);
    omni_model_free(m);
    given_free(g);
}

static void a_clip_begins_with_its_picture(void **state)
{
    (void)state;
    struct given *g = given_new();
    struct omni_model *m = load(MINI);
    struct picture given = scene(64, 64, 1);
    struct omni_request r = request(g, OMNI_IMAGE_TO_VIDEO, 3);
    r.images = &given;
    struct picture clip = draw(m, &r);
    assert_int_equal(clip.frames, 3);
    double first = psnr(&clip, &given, 0);
    assert_true(first > 20); /* as the small autoencoder shows it */
    picture_free(&clip);
    picture_free(&given);
    omni_model_free(m);
    given_free(g);
}

static void references_count_in_the_plan_and_change_the_picture(void **state)
{
    (void)state;
    struct given *g = given_new();
    struct omni_model *m = load_golden("tests/engine/golden/klein-base");
    struct omni_request r = request(g, OMNI_IMAGE_TO_IMAGE, 3);
    struct err e = {0};
    uint64_t bytes[3];
    struct picture p[3];
    assert_true(omni_model_info(m)->reads_references);
    for (int i = 0; i < 3; i++) {
        r.image_count = i + 1;
        p[i] = draw(m, &r);
        assert_int_equal(omni_plan(m, &r, 1, &bytes[i], &e), 0);
    }
    assert_true(bytes[0] < bytes[1] && bytes[1] < bytes[2]);
    assert_false(same(&p[0], &p[1]));
    assert_false(same(&p[1], &p[2]));
    for (int i = 0; i < 3; i++)
        picture_free(&p[i]);
    omni_model_free(m);
    given_free(g);
}

/* ---- refusals ---- */

static void refuse(struct omni_model *m, const struct omni_request *r, int count, const char *says)
{
    struct err e = {0};
    uint64_t bytes;
    struct omni_result y[2];
    assert_int_equal(omni_plan(m, r, count, &bytes, &e), -EINVAL);
    if (!strstr(e.text, says))
        fail_msg("expected '%s', found '%s'", says, e.text);
    assert_int_equal(omni_generate(m, r, count, NULL, y, NULL, &e), -EINVAL);
}

static void wrong_pictures_are_refused_in_a_sentence(void **state)
{
    (void)state;
    struct given *g = given_new();
    struct omni_model *m = load(MINI), *klein = load_golden("tests/engine/golden/klein-base");
    struct omni_request good = request(g, OMNI_INPAINT, 1), r = good;
    struct picture nothing = {0}, small = picture_by_formula(63, 64, 0),
                   thin = picture_by_formula(577, 72, 0);
    r.mask = NULL;
    refuse(m, &r, 1, "mode inpaint needs a mask");
    r = good;
    r.image_count = 0;
    refuse(m, &r, 1, "mode inpaint reads 1 picture with this model, but 0 are given");
    r.image_count = 2;
    refuse(m, &r, 1, "mode inpaint reads 1 picture with this model, but 2 are given");
    r = good;
    r.mode = OMNI_IMAGE_TO_IMAGE;
    refuse(m, &r, 1, "mode image_to_image has no use for a mask");
    r.mode = OMNI_TEXT_TO_IMAGE;
    refuse(m, &r, 1, "mode text_to_image reads 0 pictures");
    r = good;
    r.strength = 1.01;
    refuse(m, &r, 1, "strength 1.01 is not between 0 and 1");
    r.strength = 0;
    refuse(m, &r, 1, "strength 0 of 4 steps leaves none to draw");
    r = good;
    r.images = &nothing;
    refuse(m, &r, 1, "the picture holds no pixels");
    r = good;
    r.mask = &nothing;
    refuse(m, &r, 1, "the mask holds no pixels");
    r = request(g, OMNI_IMAGE_TO_IMAGE, 1);
    r.images = &small;
    refuse(klein, &r, 1, "picture 1 has 63x64 pixels; this model reads 64x64 at least");
    r.images = &thin;
    refuse(klein, &r, 1, "more than 8 times as long as it is wide");
    struct omni_request two[2] = {good, good};
    two[1].strength = 0.2;
    refuse(m, two, 2, "differs from the first in strength or pictures");
    two[0] = two[1] = request(g, OMNI_IMAGE_TO_IMAGE, 1);
    two[1].images = &g->images[1];
    refuse(klein, two, 2, "differs from the first in strength or pictures");
    picture_free(&small);
    picture_free(&thin);
    omni_model_free(m);
    omni_model_free(klein);
    given_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_from_pictures_give_the_bytes_of_each_request_alone),
        cmocka_unit_test(strength_says_how_far_from_the_picture),
        cmocka_unit_test(full_strength_without_a_mask_is_text_to_image),
        cmocka_unit_test(inpaint_changes_what_is_white_alone),
        cmocka_unit_test(a_clip_begins_with_its_picture),
        cmocka_unit_test(references_count_in_the_plan_and_change_the_picture),
        cmocka_unit_test(wrong_pictures_are_refused_in_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
