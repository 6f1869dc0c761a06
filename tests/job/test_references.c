/* Requests that give pictures: which mode they ask for, at which sizes the model sees them, what is
 * kept of them, and what is said about wrong ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../support/pictures.h"
#include "../support/run_bench.h"

static const char registry_text[] =
    "[image_default]\nomni_model_id = tiny\nmodality = image\nnative_resolution = 64x64\n"
    "default_size = 128x128\nsteps = 4\n"
    "[video_default]\nomni_model_id = tiny\nmodality = video\nnative_resolution = 80x48\n"
    "default_size = 80x48\nsteps = 2\nframes = 3\nmax_frames = 20\n";

static int setup(void **state)
{
    if (run_bench_new(state, registry_text))
        return -1;
    bench_write(*state, "photo.png", picture_by_formula(200, 100, 1), MEDIA_PNG, 0);
    bench_write(*state, "other.png", picture_by_formula(70, 90, 2), MEDIA_PNG, 0);
    bench_write(*state, "mask.png", mask_by_formula(200, 100, -1), MEDIA_PNG, 0);
    return 0;
}

static void files_decide_the_mode(void **state)
{
    static const struct {
        enum modality modality;
        const char *text;
        enum omni_mode mode;
        bool mask;
    } cases[] = {
        {MODALITY_IMAGE, "prompt = a\nimage = photo.png\n", OMNI_IMAGE_TO_IMAGE, false},
        {MODALITY_IMAGE, "prompt = a\nimage = photo.png\nmask = mask.png\n", OMNI_INPAINT, true},
        {MODALITY_VIDEO, "prompt = a\nimage = photo.png\n", OMNI_IMAGE_TO_VIDEO, false},
        {MODALITY_GIF, "prompt = a\nimage = photo.png\n", OMNI_IMAGE_TO_VIDEO, false},
    };
    struct run_bench *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct run r;
        f->script.given.count = 0;
        bench_run_one(f, &r, cases[i].modality, cases[i].text);
        assert_string_equal(r.error.text, "");
        assert_int_equal(f->script.given.count, 1);
        assert_int_equal(f->script.given.mode, cases[i].mode);
        assert_int_equal(f->script.given.mask, cases[i].mask);
        run_free(&r);
    }
}

static void expect_given_sizes(const struct run_bench *f, int width, int height)
{
    assert_int_equal(f->script.given.width[0], width);
    assert_int_equal(f->script.given.height[0], height);
    assert_int_equal(f->script.given.mask_width, width);
    assert_int_equal(f->script.given.mask_height, height);
}

static void pictures_to_start_from_have_the_drawn_size(void **state)
{
    struct run_bench *f = *state;
    struct run r;
    bench_run_one(f, &r, MODALITY_IMAGE,
                  "prompt = a\nimage = photo.png\nmask = mask.png\nstrength = 0.25");
    assert_int_equal(r.state, JOB_DONE);
    expect_given_sizes(f, 64, 64);
    assert_true(f->script.given.strength == 0.25);
    assert_string_equal(f->notes, "");
    run_free(&r);
}

static void pictures_of_the_drawing_s_shape_are_left_to_the_engine_to_resize(void **state)
{
    struct run_bench *f = *state;
    struct run r;
    bench_run_one(f, &r, MODALITY_IMAGE,
                  "prompt = a\nimage = photo.png\nmask = mask.png\nwidth = 128\nheight = 64\n");
    assert_int_equal(r.state, JOB_DONE);
    expect_given_sizes(f, 200, 100);
    run_free(&r);
}

static void pictures_that_are_read_beside_keep_their_sizes(void **state)
{
    struct run_bench *f = *state;
    struct run r;
    f->script.reads_references = true;
    bench_run_one(f, &r, MODALITY_IMAGE,
                  "prompt = a\nimage = photo.png, other.png\nstrength = 0.5\n");
    assert_int_equal(r.state, JOB_DONE);
    assert_int_equal(f->script.given.count, 2);
    assert_int_equal(f->script.given.width[0], 200);
    assert_int_equal(f->script.given.height[1], 90);
    assert_string_equal(f->notes,
                        "strength has no effect: this model reads pictures beside the drawing");
    run_free(&r);
    bench_run_one(f, &r, MODALITY_IMAGE,
                  "prompt = a\nimage = photo.png, other.png\nmask = mask.png\n");
    assert_int_equal(r.state, JOB_DONE);
    assert_int_equal(f->script.given.width[0], 64); /* this one is changed */
    assert_int_equal(f->script.given.width[1], 70);
    run_free(&r);
}

static void strength_is_the_documented_one_unless_given(void **state)
{
    struct run_bench *f = *state;
    struct run r;
    bench_run_one(f, &r, MODALITY_IMAGE, "prompt = a\nimage = photo.png\n");
    assert_true(f->script.given.strength == 0.6);
    run_free(&r);
}

static void what_a_mask_keeps_is_the_given_picture_to_the_pixel(void **state)
{
    struct run_bench *f = *state;
    struct media_limits limits;
    struct picture given, out;
    struct err e;
    struct run r;
    media_limits_init(&limits);
    bench_run_one(f, &r, MODALITY_IMAGE,
                  "prompt = a\nimage = photo.png\nmask = mask.png\nsize = 200x100\n");
    assert_int_equal(r.state, JOB_DONE);
    assert_int_equal(media_read_image(f->fd, "photo.png", &limits, MEDIA_READ_RGB, &given, &e), 0);
    assert_int_equal(media_read_image(f->fd, "image.png", &limits, MEDIA_READ_RGB, &out, &e), 0);
    size_t changed = 0;
    for (int y = 0; y < 100; y++) {
        const uint8_t *a = given.rgb + y * 600, *b = out.rgb + y * 600;
        assert_memory_equal(a, b, 300);
        for (int x = 300; x < 600; x++)
            changed += a[x] != b[x];
    }
    assert_true(changed > 20000);
    picture_free(&given);
    picture_free(&out);
    run_free(&r);
}

static void wrong_ones_are_told_with_their_line(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"prompt = a\nmode = inpaint\nimage = photo.png\n",
         "cat/prompt.ini: mode inpaint needs mask; write a line like `mask = mask.png`"},
        {"prompt = a\nmask = mask.png\n",
         "cat/prompt.ini: mode inpaint needs image; write a line like `image = photo.png`"},
        {"prompt = a\nmode = image_to_image\n",
         "cat/prompt.ini: mode image_to_image needs image; write a line like `image = photo.png`"},
        {"prompt = a\nmode = text_to_image\nimage = photo.png\n",
         "cat/prompt.ini:3: image has no use in mode text_to_image; remove it"},
        {"prompt = a\nimage = photo.png\nstrength = 1.5\n", "cat/prompt.ini:3: strength"},
        {"prompt = a\nimage = gone.png\n", "gone.png"},
        {"prompt = a\nimage = photo.png\nmask = tiny\n", "tiny"},
    };
    struct run_bench *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct run r;
        bench_run_one(f, &r, MODALITY_IMAGE, cases[i].text);
        assert_int_equal(r.state, JOB_FAILED);
        if (!strstr(r.error.text, cases[i].says))
            fail_msg("expected '%s', found '%s'", cases[i].says, r.error.text);
        run_free(&r);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, run_bench_free)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(files_decide_the_mode),
        TEST(pictures_to_start_from_have_the_drawn_size),
        TEST(pictures_of_the_drawing_s_shape_are_left_to_the_engine_to_resize),
        TEST(pictures_that_are_read_beside_keep_their_sizes),
        TEST(strength_is_the_documented_one_unless_given),
        TEST(what_a_mask_keeps_is_the_given_picture_to_the_pixel),
        TEST(wrong_ones_are_told_with_their_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
