/* Profiles whose networks enlarge what the model drew: what comes of it, what it may cost, and
 * what is said where the networks are missing. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../support/pictures.h"
#include "../support/run_bench.h"
#include "base/cleanup.h"
#include "job/enlarge.h"
#include "job/size.h"

#define PROFILE(name, kind, upscaler)                                                              \
    "[" name "]\nomni_model_id = tiny\nmodality = " kind                                           \
    "\nnative_resolution = 64x64\ndefault_size = 128x128\nsteps = 2\nprecision = fp32\n"           \
    "frames = 3\nmax_frames = 4\nmax_resolution = 300x400\nupscaler = " upscaler "\n"
static const char registry_text[] = PROFILE("image_default", "image", "nets")
    PROFILE("filtered", "image", "lanczos") PROFILE("video_default", "video", "nets")
        PROFILE("native", "image", "nets") "native_only = yes\n";

static int setup(void **state)
{
    return run_bench_new(state, registry_text);
}

static int keep_frame(void *ctx, int index, const struct picture *large, struct err *e)
{
    struct picture *p = ctx;
    (void)index;
    (void)e;
    assert_int_equal(picture_new(p, large->width, large->height, 1), 0);
    memcpy(p->rgb, large->rgb, picture_frame_bytes(p));
    return 0;
}

/* What the profile's networks make of `p`. */
static struct picture enlarged(struct run_bench *f, const struct picture *p, int factor)
{
    struct omni_upscaler *u;
    struct picture out = {0};
    struct err e;
    const struct omni_upscale job = {p, factor, &out, NULL, keep_frame};
    const struct profile *profile = registry_profile(f->registry, "image_default");
    assert_int_equal(models_upscaler(f->models, profile, &u, &e), 0);
    assert_int_equal(omni_upscale(u, &job, &e), 0);
    return out;
}

static void pictures_are_enlarged_by_the_networks_of_their_profile(void **state)
{
    struct run_bench *f = *state;
    struct picture small = bench_picture(f, "prompt = a\nseed = 5\nsize = 64x64\n");
    struct picture large = bench_picture(f, "prompt = a\nseed = 5\n");
    struct picture expected = enlarged(f, &small, 2);
    struct picture filtered = bench_picture(f, "prompt = a\nseed = 5\nprofile = filtered\n");
    assert_int_equal(small.width, 64);
    assert_int_equal(large.width, 128);
    assert_memory_equal(large.rgb, expected.rgb, picture_frame_bytes(&large));
    assert_true(psnr(&large, &filtered, 0) < 40); /* random networks */
    picture_free(&small);
    picture_free(&large);
    picture_free(&expected);
    picture_free(&filtered);
}

static void the_exact_size_comes_by_a_filter(void **state)
{
    struct run_bench *f = *state;
    struct picture small = bench_picture(f, "prompt = a\nseed = 5\nsize = 64x64\n");
    struct picture large = bench_picture(f, "prompt = a\nseed = 5\nsize = 200x200\n");
    struct picture four = enlarged(f, &small, 4), expected;
    struct err e;
    assert_int_equal(media_resize(&four, 200, 200, MEDIA_LANCZOS, &expected, &e), 0);
    assert_memory_equal(large.rgb, expected.rgb, picture_frame_bytes(&large));
    picture_free(&small);
    picture_free(&large);
    picture_free(&four);
    picture_free(&expected);
}

static void clips_are_enlarged_frame_by_frame(void **state)
{
    struct run_bench *f = *state;
    struct run r;
    bench_run_one(f, &r, MODALITY_VIDEO, "prompt = a\nseed = 5\nreturn_format = png\n");
    assert_string_equal(r.error.text, "");
    assert_int_equal(r.output_count, 3);
    assert_int_equal(r.outputs[2].width, 128);
    assert_int_equal(r.outputs[2].generated_width, 64);
    run_free(&r);
}

static void progress_counts_enlarging_and_encoding(void **state)
{
    static const struct {
        enum modality modality;
        const char *text;
        int total;
    } cases[] = {
        {MODALITY_IMAGE, "prompt = a\n", 2},
        {MODALITY_IMAGE, "prompt = a\nsize = 64x64\n", 1},
        {MODALITY_IMAGE, "prompt = a\nprofile = filtered\ncount = 3\n", 6},
        {MODALITY_VIDEO, "prompt = a\n", 6},
        {MODALITY_VIDEO, "prompt = a\nreturn_format = png\n", 6},
        {MODALITY_GIF, "prompt = a\n", 6},
    };
    struct run_bench *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct run r;
        bench_run_one(f, &r, cases[i].modality, cases[i].text);
        expect_done(&r);
        assert_int_equal(f->progress.falls, 0);
        assert_int_equal(f->progress.done, cases[i].total);
        assert_int_equal(f->progress.total, cases[i].total);
        run_free(&r);
    }
}

static void a_result_that_cannot_be_enlarged_in_memory_is_refused_before_it_is_drawn(void **state)
{
    struct run_bench *f = *state;
    struct run r;
    run_bench_memory(f, 1 << 20);
    bench_run_one(f, &r, MODALITY_IMAGE, "prompt = a\nsize = 256x256\nprofile = filtered\n");
    assert_int_equal(r.state, JOB_DONE); /* a filter needs next to nothing */
    run_free(&r);
    f->script.generates = 0;
    bench_run_one(f, &r, MODALITY_IMAGE, "prompt = a\nsize = 256x256\n");
    assert_int_equal(r.state, JOB_FAILED);
    assert_non_null(strstr(r.error.text, "the result needs "));
    assert_int_equal(f->script.generates, 0);
    run_free(&r);
}

/* Bytes beyond the result that a request of `size` is planned to be enlarged with. */
static uint64_t planned(struct run_bench *f, const char *size)
{
    char text[128];
    struct run r;
    struct err e;
    uint64_t bytes;
    snprintf(text, sizeof text, "prompt = a\nprofile = native\nsize = %s\n", size);
    bench_prepare(f, &r, MODALITY_IMAGE, text);
    assert_int_equal(stage_normalise(&r, &e), 0);
    assert_int_equal(run_enlarge_bytes(&r, 64, 64, &bytes, &e), 0);
    run_free(&r);
    return bytes;
}

static void what_stands_in_the_middle_is_planned_at_its_own_size(void **state)
{
    struct run_bench *f = *state;
    struct omni_upscaler *u;
    struct err e;
    uint64_t twice;
    assert_int_equal(models_upscaler(f->models, registry_profile(f->registry, "native"), &u, &e),
                     0);
    assert_int_equal(omni_upscale_plan(u, 64, 64, 2, &twice, &e), 0);
    assert_int_equal(planned(f, "128x128"), twice);
    assert_int_equal(planned(f, "300x64"), 3 * 64 * 64); /* no networks */
    assert_int_equal(planned(f, "300x128"), twice + 3 * 128 * 128);
}

static void missing_networks_are_told_when_the_registry_is_read(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {PROFILE("mine", "image", "lanzcos"),
         "profile mine: upscaler lanzcos is not lanczos, bicubic or nearest, and: the model "
         "lanzcos is in none of "},
        {PROFILE("mine", "image", "tiny"), "profile mine: the model tiny has no upscaler: "},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct registry *r;
        struct err e;
        assert_int_equal(registry_parse(cases[i].text, strlen(cases[i].text), "r.ini", &r, &e),
                         -ENOENT);
        if (!strstr(e.text, cases[i].says))
            fail_msg("expected '%s', found '%s'", cases[i].says, e.text);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, run_bench_free)

static void a_square_stands_in_the_middle_and_its_edges_go_on(void **state)
{
    (void)state;
    struct picture in, out;
    struct err e = {0};
    int width, height;
    assert_int_equal(picture_new(&in, 2, 2, 2), 0);
    for (size_t i = 0; i < 2 * picture_frame_bytes(&in); i++)
        picture_frame(&in, 0)[i] = (uint8_t)i;
    size_fit(2, 2, 7, 4, &width, &height);
    assert_int_equal(width, 4);
    assert_int_equal(height, 4);
    assert_int_equal(picture_new(&out, 5, 3, 2), 0);
    for (int f = 0; f < 2; f++) {
        const struct picture frame = {2, 2, 1, picture_frame(&in, f)};
        assert_int_equal(size_extend_frame(&frame, &out, f, &e), 0);
    }
    static const int from[3][5] = {{0, 0, 1, 1, 1}, {2, 2, 3, 3, 3}, {2, 2, 3, 3, 3}};
    for (int f = 0; f < 2; f++)
        for (int y = 0; y < 3; y++)
            for (int x = 0; x < 5; x++)
                assert_memory_equal(picture_frame(&out, f) + 3 * (5 * y + x),
                                    picture_frame(&in, f) + 3 * from[y][x], 3);
    picture_free(&in);
    picture_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_square_stands_in_the_middle_and_its_edges_go_on),
        TEST(pictures_are_enlarged_by_the_networks_of_their_profile),
        TEST(the_exact_size_comes_by_a_filter),
        TEST(clips_are_enlarged_frame_by_frame),
        TEST(progress_counts_enlarging_and_encoding),
        TEST(a_result_that_cannot_be_enlarged_in_memory_is_refused_before_it_is_drawn),
        TEST(what_stands_in_the_middle_is_planned_at_its_own_size),
        TEST(missing_networks_are_told_when_the_registry_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
