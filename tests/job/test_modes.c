/* Modes that work on what a user brings: enlarging a picture, drawing around one, drawing over a
 * clip. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/pictures.h"
#include "../support/run_bench.h"
#include "base/cleanup.h"

static const char registry_text[] =
    "[image_default]\nomni_model_id = tiny\nmodality = image\nnative_resolution = 64x64\n"
    "default_size = 128x128\nmax_resolution = 320x320\nsteps = 4\nprecision = fp32\n"
    "upscaler = nets\n"
    "[filtered]\nomni_model_id = tiny\nmodality = image\n"
    "[video_default]\nomni_model_id = tiny\nmodality = video\nnative_resolution = 64x32\n"
    "default_size = 80x48\nmax_resolution = 128x128\nsteps = 2\nframes = 3\nmax_frames = 6\n"
    "[drawn_long]\nomni_model_id = tiny\nmodality = video\nmax_frames = 24\nsteps = 1\n"
    "[drawn]\nomni_model_id = omni-mini\nmodality = video\nprecision = fp32\nsteps = 6\n";

static int setup(void **state)
{
    if (run_bench_new(state, registry_text))
        return -1;
    bench_write(*state, "photo.png", picture_by_formula(70, 50, 1), MEDIA_PNG, 0);
    bench_write(*state, "clip.webp", scene(96, 48, 8), MEDIA_WEBP, 10);
    return 0;
}

/* metadata.json, run again, gives the same picture. */
static void expect_repeatable(struct run_bench *f, const struct picture *before)
{
    AUTO_FREE char *text = NULL;
    struct run r;
    struct err e;
    size_t size;
    assert_int_equal(file_read(f->fd, "metadata.json", 1 << 20, &text, &size, &e), 0);
    bench_prepare(f, &r, MODALITY_IMAGE, NULL);
    if (request_from_json(text, size, "metadata.json", &r.request, &e))
        fail_msg("%s", e.text);
    bench_run(f, &r);
    assert_string_equal(r.error.text, "");
    run_free(&r);
    struct picture after = bench_read(f, "image.png");
    assert_int_equal(after.width, before->width);
    assert_memory_equal(after.rgb, before->rgb, picture_frame_bytes(before));
    picture_free(&after);
}

/* ---- upscale ---- */

static void a_users_picture_is_enlarged_by_the_networks(void **state)
{
    struct run_bench *f = *state;
    struct picture given = bench_read(f, "photo.png"), by_filter;
    struct picture out = bench_picture(f, "mode = upscale\nimage = photo.png\n");
    struct err e;
    assert_int_equal(f->script.loads, 0); /* nothing is drawn */
    assert_int_equal(out.width, 280);     /* four times where nothing is said */
    assert_int_equal(out.height, 200);
    assert_int_equal(media_resize(&given, 280, 200, MEDIA_LANCZOS, &by_filter, &e), 0);
    assert_true(psnr(&out, &by_filter, 0) < 40); /* random networks */
    expect_repeatable(f, &out);
    picture_free(&given);
    picture_free(&by_filter);
    picture_free(&out);
}

static void scale_and_size_say_how_large(void **state)
{
    struct run_bench *f = *state;
    struct picture twice = bench_picture(f, "image = photo.png\nscale = 2\n");
    assert_int_equal(twice.width, 140);
    assert_int_equal(twice.height, 100);
    json_t *j = bench_metadata(f), *request = json_object_get(j, "request");
    assert_string_equal(json_string_value(json_object_get(j, "mode")), "upscale");
    assert_true(json_is_null(json_object_get(j, "seed")));
    assert_true(json_is_null(json_object_get(j, "model")));
    json_t *upscaler = json_object_get(j, "upscaler");
    assert_string_equal(json_string_value(json_object_get(upscaler, "id")), "nets");
    assert_int_equal(json_integer_value(json_object_get(upscaler, "factor")), 2);
    assert_string_equal(json_string_value(json_object_get(upscaler, "precision")), "fp32");
    assert_int_equal(strlen(json_string_value(json_object_get(upscaler, "sha256"))), 64);
    assert_string_equal(json_string_value(json_object_get(j, "device")), "cpu");
    assert_true(json_real_value(json_object_get(request, "scale")) == 2);
    assert_null(json_object_get(request, "width"));
    json_decref(j);
    expect_repeatable(f, &twice);
    struct picture sized = bench_picture(f, "mode = upscale\nimage = photo.png\nsize = 200x200\n");
    assert_int_equal(sized.width, 200);
    assert_int_equal(sized.height, 200);
    expect_repeatable(f, &sized);
    struct picture odd = bench_picture(f, "image = photo.png\nscale = 1.5\nprofile = filtered\n");
    j = bench_metadata(f);
    assert_true(json_is_null(json_object_get(j, "upscaler"))); /* a filter did it */
    assert_true(json_is_null(json_object_get(j, "device")));
    json_decref(j);
    assert_int_equal(odd.width, 105);
    assert_int_equal(odd.height, 75);
    picture_free(&twice);
    picture_free(&sized);
    picture_free(&odd);
}

static void what_cannot_be_enlarged_is_told(void **state)
{
    struct run_bench *f = *state;
    expect_failure(f, MODALITY_IMAGE, "image = photo.png\nscale = 5\n",
                   "photo.png at scale 5 has 350x250 pixels, over max_resolution 320x320 of "
                   "image_default; set a smaller scale");
    expect_failure(f, MODALITY_IMAGE, "image = gone.png\nscale = 2\n", "gone.png");
    run_bench_memory(f, 1 << 16);
    expect_failure(f, MODALITY_IMAGE, "image = photo.png\nscale = 2\n", "the result needs ");
}

/* ---- outpaint ---- */

static void around_a_picture_is_drawn_and_it_stays(void **state)
{
    struct run_bench *f = *state;
    struct picture given = bench_read(f, "photo.png");
    struct picture out = bench_picture(f, "prompt = a\nimage = photo.png\nexpand = 20,10,30,5\n");
    assert_int_equal(out.width, 120);
    assert_int_equal(out.height, 65);
    for (int y = 0; y < 50; y++)
        assert_memory_equal(out.rgb + ((y + 10) * 120 + 20) * 3, given.rgb + y * 70 * 3, 70 * 3);
    assert_int_equal(f->script.given.mode, OMNI_INPAINT);
    assert_int_equal(f->script.given.count, 1);
    assert_true(f->script.given.mask);
    assert_int_equal(f->script.given.width[0], f->script.given.mask_width);
    assert_true(f->script.given.strength == 1); /* nothing was there to start from */
    expect_repeatable(f, &out);
    picture_free(&given);
    picture_free(&out);
}

static void an_expanded_picture_can_have_another_size(void **state)
{
    struct run_bench *f = *state;
    struct picture out =
        bench_picture(f, "image = photo.png\nexpand = 30,0,0,0\nsize = 50x25\nstrength = 0.5\n");
    assert_int_equal(out.width, 50);
    assert_true(f->script.given.strength == 0.5);
    picture_free(&out);
    expect_failure(f, MODALITY_IMAGE, "image = photo.png\nexpand = 300,0,0,0\n",
                   "photo.png with expand has 370x50 pixels, over max_resolution 320x320 of "
                   "image_default; set a smaller expand or size");
    expect_failure(f, MODALITY_IMAGE, "image = photo.png\nexpand = 65535,0,0,0\n",
                   "photo.png with expand would have 65605x50 pixels");
}

/* ---- edit_video ---- */

static void a_clip_is_drawn_over_frame_by_frame_from_one_noise(void **state)
{
    struct run_bench *f = *state;
    struct run r;
    bench_run_one(
        f, &r, MODALITY_VIDEO,
        "prompt = a\nvideo = clip.webp\nframes = 5\nstrength = 0.25\nreturn_format = png\n");
    assert_string_equal(r.error.text, "");
    assert_int_equal(f->script.pictures, 5);
    assert_int_equal(f->script.given.mode, OMNI_IMAGE_TO_IMAGE);
    assert_int_equal(f->script.given.width[0], 64);
    assert_int_equal(f->script.given.height[0], 32);
    assert_true(f->script.given.strength == 0.25);
    assert_int_equal(r.output_count, 5);
    assert_int_equal(r.outputs[0].width, 96); /* the clip's own size */
    assert_int_equal(r.outputs[0].height, 48);
    assert_int_equal(r.outputs[0].generated_width, 64);
    struct picture first = bench_read(f, "frame-0001.png");
    struct picture last = bench_read(f, "frame-0005.png");
    assert_memory_equal(first.rgb, last.rgb, picture_frame_bytes(&first)); /* of one seed */
    picture_free(&first);
    picture_free(&last);
    run_free(&r);
}

/* What a model draws over `clip`; the caller frees it. */
static struct picture drawn_over(struct run_bench *f, struct picture clip, enum media_format format)
{
    struct picture out;
    struct run r;
    bench_write(f, "given", clip, format, 10);
    bench_run_one(f, &r, MODALITY_VIDEO,
                  "prompt = a red apple\nseed = 1\nprofile = drawn\nvideo = given\n"
                  "return_format = png\n");
    expect_done(&r);
    assert_int_equal(picture_new(&out, 64, 64, r.output_count), 0);
    for (int i = 0; i < r.output_count; i++) {
        struct picture frame = bench_read(f, r.outputs[i].name);
        memcpy(picture_frame(&out, i), frame.rgb, picture_frame_bytes(&frame));
        picture_free(&frame);
    }
    run_free(&r);
    return out;
}

/* How far the frames of a clip are from each other: the mean difference of neighbours. */
static double unrest(const struct picture *clip)
{
    size_t bytes = picture_frame_bytes(clip), n = bytes * (size_t)(clip->frames - 1);
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += abs(clip->rgb[i + bytes] - clip->rgb[i]);
    return sum / (double)n;
}

static void a_still_clip_stays_still_and_noise_becomes_less(void **state)
{
    struct run_bench *f = *state;
    enum { FRAMES = 5 }; /* more than one batch */
    struct picture one = scene(64, 64, 1), still, noisy;
    assert_int_equal(picture_new(&still, 64, 64, FRAMES), 0);
    assert_int_equal(picture_new(&noisy, 64, 64, FRAMES), 0);
    uint32_t random = 1;
    for (int i = 0; i < FRAMES; i++)
        for (size_t k = 0; k < picture_frame_bytes(&one); k++) {
            random = random * 1664525 + 1013904223;
            int v = one.rgb[k] + (int)(random >> 28) - 8;
            picture_frame(&still, i)[k] = one.rgb[k];
            picture_frame(&noisy, i)[k] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
        }
    double given = unrest(&noisy);
    run_bench_omni(f);
    struct picture a = drawn_over(f, still, MEDIA_GIF), b = drawn_over(f, noisy, MEDIA_WEBP);
    assert_int_equal(a.frames, FRAMES);
    assert_int_equal(b.frames, FRAMES);
    assert_true(unrest(&a) == 0);
    print_message("# unrest of the noisy clip: given %.2f, drawn %.2f\n", given, unrest(&b));
    assert_true(unrest(&b) < given / 2);
    picture_free(&one);
    picture_free(&a);
    picture_free(&b);
}

static void frames_that_stay_longer_are_drawn_once_and_keep_their_time(void **state)
{
    struct run_bench *f = *state;
    struct picture clip = scene(64, 32, 12);
    struct run r;
    for (int i = 3; i < 12; i++)
        memcpy(picture_frame(&clip, i), picture_frame(&clip, i < 6 ? 2 : 6),
               picture_frame_bytes(&clip));
    bench_write(f, "held.webp", clip, MEDIA_WEBP, 10);
    f->script.copies = true;
    bench_run_one(f, &r, MODALITY_VIDEO,
                  "prompt = a\nvideo = held.webp\nprofile = drawn_long\nreturn_format = png\n");
    expect_done(&r);
    assert_int_equal(r.output_count, 12);
    assert_int_equal(f->script.pictures, 4);
    struct picture third = bench_read(f, "frame-0003.png"), sixth = bench_read(f, "frame-0006.png"),
                   seventh = bench_read(f, "frame-0007.png"),
                   last = bench_read(f, "frame-0012.png");
    assert_memory_equal(third.rgb, sixth.rgb, picture_frame_bytes(&third));
    assert_memory_not_equal(sixth.rgb, seventh.rgb, picture_frame_bytes(&third));
    assert_memory_equal(seventh.rgb, last.rgb, picture_frame_bytes(&third));
    picture_free(&third);
    picture_free(&sixth);
    picture_free(&seventh);
    picture_free(&last);
    run_free(&r);
}

static void a_clips_rate_and_length_are_its_own_unless_asked_for(void **state)
{
    struct run_bench *f = *state;
    struct run r;
    bench_run_one(f, &r, MODALITY_VIDEO, "prompt = a\nvideo = clip.webp\nfps = 5\n");
    assert_string_equal(r.error.text, "");
    assert_int_equal(r.outputs[0].frames, 4);
    assert_true(r.outputs[0].fps == 5);
    run_free(&r);
    bench_run_one(f, &r, MODALITY_VIDEO,
                  "prompt = a\nvideo = clip.webp\nseconds = 0.4\nsize = 64x64\n");
    assert_string_equal(r.error.text, "");
    assert_int_equal(r.outputs[0].frames, 4);
    assert_int_equal(r.outputs[0].width, 64);
    assert_true(r.outputs[0].fps == 10);
    run_free(&r);
}

static void a_clip_beyond_the_limits_is_told(void **state)
{
    struct run_bench *f = *state;
    expect_failure(f, MODALITY_VIDEO, "prompt = a\nvideo = clip.webp\n",
                   "clip.webp: 8 frames are over max_frames 6 of video_default; set a smaller "
                   "fps, or frames or seconds for its beginning");
    expect_failure(f, MODALITY_VIDEO, "prompt = a\nvideo = clip.webp\nfps = 5\nframes = 5\n",
                   "clip.webp has 4 frames at 5 frames a second, fewer than the 5 that are asked "
                   "for");
    expect_failure(f, MODALITY_VIDEO, "prompt = a\nvideo = clip.webp\nframes = 7\n",
                   "cat/prompt.ini:3: frames 7 is over max_frames 6 of video_default");
    expect_failure(f, MODALITY_VIDEO, "prompt = a\nvideo = gone.mp4\n", "gone.mp4");
    expect_failure(f, MODALITY_VIDEO, "prompt = a\nvideo = photo.png\n", "photo.png");
    expect_failure(f, MODALITY_VIDEO, "prompt = fail\nvideo = clip.webp\nfps = 5\n",
                   "the script says");
}

static void the_beginning_of_a_long_clip_is_enough(void **state)
{
    struct run_bench *f = *state;
    struct run r;
    bench_write(f, "long.mp4", scene(48, 32, 90), MEDIA_MP4, 30);
    bench_run_one(f, &r, MODALITY_VIDEO, "prompt = a\nvideo = long.mp4\nframes = 3\n");
    expect_done(&r);
    assert_int_equal(r.outputs[0].frames, 3);
    run_free(&r);
    bench_run_one(f, &r, MODALITY_GIF, "video = long.mp4\nfps = 2\nsize = 24x16\n");
    expect_done(&r);
    assert_int_equal(r.outputs[0].frames, 6);
    assert_int_equal(r.outputs[0].width, 24);
    run_free(&r);
}

static void a_clip_that_memory_cannot_hold_is_refused_before_it_is_decoded(void **state)
{
    static const char *const requests[] = {
        "prompt = a\nvideo = clip.webp\nframes = 6\nsize = 120x120\n",
        "video = clip.webp\nfps = 5\nsize = 120x120\n",
    };
    struct run_bench *f = *state;
    run_bench_memory(f, 1 << 17);
    for (int i = 0; i < 2; i++)
        expect_failure(f, i ? MODALITY_GIF : MODALITY_VIDEO, requests[i], "the result needs ");
    run_bench_memory(f, 1 << 15);
    expect_failure(f, MODALITY_VIDEO, "prompt = a\nvideo = clip.webp\nframes = 1\nsize = 16x16\n",
                   "clip.webp is 96x48 pixels and needs 32.3 KB of memory to be read; there are ");
    run_bench_memory(f, 1 << 14);
    expect_failure(f, MODALITY_VIDEO, "prompt = a\nimage = photo.png\nframes = 1\nsize = 16x16\n",
                   "photo.png is 70x50 pixels and needs 24.5 KB of memory to be read; there are ");
    assert_int_equal(f->script.generates, 0);
}

static void strength_without_effect_is_noted(void **state)
{
    struct run_bench *f = *state;
    struct run r;
    f->script.reads_references = true;
    bench_run_one(f, &r, MODALITY_VIDEO,
                  "prompt = a\nvideo = clip.webp\nfps = 5\nstrength = 0.5\n");
    assert_string_equal(r.error.text, "");
    assert_string_equal(f->notes,
                        "strength has no effect: this model reads pictures beside the drawing");
    run_free(&r);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, run_bench_free)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_users_picture_is_enlarged_by_the_networks),
        TEST(scale_and_size_say_how_large),
        TEST(what_cannot_be_enlarged_is_told),
        TEST(around_a_picture_is_drawn_and_it_stays),
        TEST(an_expanded_picture_can_have_another_size),
        TEST(a_clip_is_drawn_over_frame_by_frame_from_one_noise),
        TEST(a_still_clip_stays_still_and_noise_becomes_less),
        TEST(frames_that_stay_longer_are_drawn_once_and_keep_their_time),
        TEST(a_clips_rate_and_length_are_its_own_unless_asked_for),
        TEST(a_clip_beyond_the_limits_is_told),
        TEST(the_beginning_of_a_long_clip_is_enough),
        TEST(a_clip_that_memory_cannot_hold_is_refused_before_it_is_decoded),
        TEST(strength_without_effect_is_noted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
