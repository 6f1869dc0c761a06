/* The stages without a queue: sizes, files, the record, and that a record reproduces its run. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/run_bench.h"
#include "base/cleanup.h"
#include "job/size.h"

static const char registry_text[] =
    "[image_default]\nomni_model_id = tiny\nmodality = image\nnative_resolution = 64x64\n"
    "default_size = 256x256\nsteps = 4\n"
    "[image_direct]\nomni_model_id = tiny\nmodality = image\ndefault_size = 96x64\n"
    "[video_default]\nomni_model_id = tiny\nmodality = video\nnative_resolution = 80x48\n"
    "default_size = 160x90\nsteps = 2\nframes = 3\nmax_frames = 20\n";

static int setup(void **state)
{
    return run_bench_new(state, registry_text);
}

/* ---- sizes ---- */

static void drawn_sizes_keep_the_aspect_near_the_native_area(void **state)
{
    (void)state;
    static const struct {
        int width, height, native_width, native_height, multiple, draw_width, draw_height;
    } cases[] = {
        {1024, 1024, 128, 128, 16, 128, 128}, /* the same aspect */
        {768, 432, 144, 80, 16, 144, 80},     /* 16:9 is not exact in steps of 16 */
        {432, 768, 144, 80, 16, 80, 144},     /* upright */
        {1024, 512, 128, 128, 16, 192, 96},   /* 2:1 of the same area */
        {100, 60, 128, 128, 16, 112, 64},     /* smaller than native: as asked, rounded up */
        {1024, 768, 0, 0, 16, 1024, 768},     /* no native size */
        {1000, 1000, 0, 0, 16, 1008, 1008},
        {2048, 16, 128, 128, 16, 2048, 16}, /* thinner is not possible: the area gives way */
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int w, h;
        size_to_draw(cases[i].width, cases[i].height, cases[i].native_width, cases[i].native_height,
                     cases[i].multiple, &w, &h);
        if (w != cases[i].draw_width || h != cases[i].draw_height)
            fail_msg("%dx%d is drawn as %dx%d, not %dx%d", cases[i].width, cases[i].height, w, h,
                     cases[i].draw_width, cases[i].draw_height);
    }
}

static void covering_cuts_both_sides_alike(void **state)
{
    (void)state;
    struct picture in, out;
    struct err e;
    assert_int_equal(picture_new(&in, 6, 2, 1), 0);
    for (int x = 0; x < 6; x++)
        for (int y = 0; y < 2; y++)
            memset(in.rgb + (y * 6 + x) * 3, x * 10, 3);
    assert_int_equal(size_cover(&in, 2, 2, MEDIA_NEAREST, &out, &e), 0);
    assert_int_equal(out.width, 2);
    assert_int_equal(out.rgb[0], 20);
    assert_int_equal(out.rgb[3], 30);
    picture_free(&in);
    picture_free(&out);
}

static void pictures_have_the_size_that_was_asked(void **state)
{
    struct run r;
    bench_run_one(*state, &r, MODALITY_IMAGE, "prompt = a\nsize = 320x180\n");
    expect_done(&r);
    assert_int_equal(r.outputs[0].width, 320);
    assert_int_equal(r.outputs[0].height, 180);
    assert_int_equal(r.outputs[0].generated_width, 80);
    assert_int_equal(r.outputs[0].generated_height, 48);
    run_free(&r);
}

/* ---- files ---- */

static void every_format_is_what_it_says(void **state)
{
    struct run_bench *f = *state;
    static const struct {
        enum modality modality;
        const char *format, *name;
        enum media_format sniffed;
    } cases[] = {
        {MODALITY_IMAGE, "png", "image.png", MEDIA_PNG},
        {MODALITY_IMAGE, "jpeg", "image.jpg", MEDIA_JPEG},
        {MODALITY_IMAGE, "webp", "image.webp", MEDIA_WEBP},
        {MODALITY_VIDEO, "mp4", "video.mp4", MEDIA_MP4},
        {MODALITY_VIDEO, "webm", "video.webm", MEDIA_WEBM},
        {MODALITY_GIF, "gif", "animation.gif", MEDIA_GIF},
        {MODALITY_GIF, "webp", "animation.webp", MEDIA_WEBP},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct run r;
        char text[128], hex[SHA256_HEX_SIZE];
        unsigned char head[16];
        enum media_format found;
        snprintf(text, sizeof text, "prompt = a\nsize = 64x48\nreturn_format = %s\n",
                 cases[i].format);
        bench_run_one(f, &r, cases[i].modality, text);
        expect_done(&r);
        assert_int_equal(r.output_count, 1);
        const struct run_output *o = &r.outputs[0];
        assert_string_equal(o->name, cases[i].name);
        AUTO_FD int fd = openat(f->fd, o->name, O_RDONLY);
        struct stat st;
        mode_t mask = umask(0);
        umask(mask);
        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0666 & ~mask);
        assert_true((uint64_t)st.st_size == o->bytes);
        assert_int_equal(sha256_file_hex(fd, hex), 0);
        assert_string_equal(hex, o->sha256);
        assert_int_equal(pread(fd, head, sizeof head, 0), sizeof head);
        assert_int_equal(media_format_sniff(head, sizeof head, &found), 0);
        assert_int_equal(found, cases[i].sniffed);
        assert_int_equal(o->frames, cases[i].modality == MODALITY_IMAGE ? 1 : 3);
        run_free(&r);
    }
}

static void a_clip_can_be_single_frames(void **state)
{
    struct run_bench *f = *state;
    struct run r;
    bench_run_one(f, &r, MODALITY_VIDEO, "prompt = a\nreturn_format = png\nsize = 64x48\n");
    expect_done(&r);
    assert_int_equal(r.output_count, 3);
    assert_string_equal(r.outputs[0].name, "frame-0001.png");
    assert_string_equal(r.outputs[2].name, "frame-0003.png");
    assert_int_equal(r.outputs[1].frames, 1);
    run_free(&r);
}

static void a_clip_becomes_a_gif_without_a_model(void **state)
{
    struct run_bench *f = *state;
    struct run r;
    bench_run_one(f, &r, MODALITY_VIDEO, "prompt = a\nframes = 8\nfps = 8\nsize = 64x48\n");
    expect_done(&r);
    run_free(&r);
    int generates = f->script.generates;
    bench_run_one(f, &r, MODALITY_GIF, "video = video.mp4\nfps = 4\n");
    expect_done(&r);
    assert_int_equal(f->script.generates, generates);
    assert_string_equal(r.outputs[0].name, "animation.gif");
    assert_int_equal(r.outputs[0].frames, 4); /* every other one */
    assert_int_equal(r.outputs[0].width, 64);
    assert_string_equal(r.watermark, "none"); /* nothing was generated */
    run_free(&r);
    bench_run_one(f, &r, MODALITY_GIF, "video = video.mp4\nfps = 100\n");
    assert_int_equal(r.state, JOB_FAILED);
    assert_string_equal(
        r.error.text,
        "video.mp4: 100 frames are over max_frames 20 of video_default; set a smaller fps, or "
        "frames or seconds for its beginning");
    run_free(&r);
    bench_run_one(f, &r, MODALITY_GIF, "video = video.mp4\nseconds = 0.5\n");
    expect_done(&r);
    assert_int_equal(r.outputs[0].frames, 4);
    run_free(&r);
}

static void references_are_read_at_the_drawn_size(void **state)
{
    struct run_bench *f = *state;
    struct run r;
    bench_run_one(f, &r, MODALITY_IMAGE, "prompt = a\nsize = 100x60\n");
    expect_done(&r);
    run_free(&r);
    expect_failure(f, MODALITY_IMAGE, "prompt = b\nimage = image.png\n",
                   "cat/prompt.ini: the result would replace image.png, which it is made of");
    assert_int_equal(renameat(f->fd, "image.png", f->fd, "mine.png"), 0);
    bench_run_one(f, &r, MODALITY_IMAGE, "prompt = b\nimage = mine.png\nmask = mine.png\n");
    expect_done(&r);
    assert_int_equal(r.request.mode, MODE_INPAINT);
    run_free(&r);
    bench_run_one(f, &r, MODALITY_IMAGE, "prompt = b\nimage = missing.png\n");
    assert_int_equal(r.state, JOB_FAILED);
    assert_non_null(strstr(r.error.text, "missing.png"));
    run_free(&r);
}

/* The value of a PNG's tEXt or iTXt chunk `parameters`, searched in the raw bytes. */
static bool file_contains(struct run_bench *f, const char *name, const char *text)
{
    AUTO_FREE char *bytes = NULL;
    size_t size;
    struct err e;
    assert_int_equal(file_read(f->fd, name, 1 << 22, &bytes, &size, &e), 0);
    return memmem(bytes, size, text, strlen(text)) != NULL;
}

static void pictures_tell_how_they_were_made(void **state)
{
    struct run_bench *f = *state;
    struct run r;
    bench_run_one(
        f, &r, MODALITY_IMAGE,
        "prompt = a cat\nnegative_prompt = dogs\nseed = 7\nguidance = 2.5\nscheduler = ddim\n");
    expect_done(&r);
    assert_true(file_contains(
        f, "image.png",
        "a cat\nNegative prompt: dogs\nSteps: 4, Sampler: ddim, CFG scale: 2.5, Seed: 7, Size: "
        "256x256, Generated size: 64x64, Model hash: feedc0de, Model: tiny, Version: omnifs "));
    assert_true(file_contains(f, "image.png", "Digital source type: trainedAlgorithmicMedia"));
    assert_string_equal(r.watermark, "metadata");
    run_free(&r);
    bench_run_one(f, &r, MODALITY_VIDEO, "prompt = a cat\nsize = 64x48\n");
    expect_done(&r);
    assert_true(file_contains(f, "video.mp4", "trainedAlgorithmicMedia"));
    run_free(&r);
}

/* ---- the record ---- */

static void expect_keys(const json_t *o, const char *expected)
{
    AUTO_STR struct str names = {0};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)o, key, value)
    {
        str_addf(&names, "%s ", key);
    }
    assert_string_equal(str_cstr(&names), expected);
}

static const char top_keys[] =
    "id status error modality mode profile request outputs model upscaler seed "
    "truncated timings_ms device memory "
    "safety watermark created started finished omnifs ";

static void the_record_has_its_keys_in_order(void **state)
{
    struct run_bench *f = *state;
    struct run r;
    bench_run_one(f, &r, MODALITY_IMAGE, "prompt = a\n");
    expect_done(&r);
    json_t *j = bench_metadata(f);
    expect_keys(j, top_keys);
    expect_keys(json_array_get(json_object_get(j, "outputs"), 0),
                "file type width height frames fps bytes sha256 generated_size ");
    expect_keys(json_object_get(j, "model"), "id family precision sha256 loras ");
    expect_keys(json_object_get(j, "timings_ms"),
                "queue normalise route diffuse postprocess safety package total ");
    expect_keys(json_object_get(json_object_get(j, "timings_ms"), "diffuse"),
                "encode steps decode ");
    assert_true(json_number_value(json_object_get(json_object_get(j, "timings_ms"), "package")) >
                0);
    assert_int_equal(json_integer_value(json_object_get(
                         json_array_get(json_object_get(j, "outputs"), 0), "bytes")),
                     r.outputs[0].bytes);
    expect_keys(json_object_get(j, "memory"), "peak_bytes planned_bytes ");
    expect_keys(json_object_get(j, "safety"), "prompt output ");
    expect_keys(json_object_get(j, "omnifs"), "version commit ");
    expect_keys(json_object_get(j, "request"),
                "modality prompt mode profile safety_level watermark return_format width height "
                "steps guidance seed scheduler count ");
    assert_string_equal(json_string_value(json_object_get(json_object_get(j, "safety"), "output")),
                        "not_checked");
    json_decref(j);
    run_free(&r);
}

static void failures_have_the_same_record(void **state)
{
    struct run_bench *f = *state;
    static const char *const texts[] = {"prompt = fail\n", "prompt = porn\n", "steps = x\n"};
    static const enum job_state states[] = {JOB_FAILED, JOB_BLOCKED, JOB_FAILED};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct run r;
        bench_run_one(f, &r, MODALITY_IMAGE, texts[i]);
        assert_int_equal(r.state, states[i]);
        json_t *j = bench_metadata(f);
        expect_keys(j, top_keys);
        assert_string_equal(json_string_value(json_object_get(j, "status")),
                            job_state_names[states[i]]);
        assert_string_equal(json_string_value(json_object_get(j, "error")), r.error.text);
        assert_int_equal(json_array_size(json_object_get(j, "outputs")), 0);
        json_decref(j);
        assert_true(file_contains(f, "error.txt", r.error.text));
        run_free(&r);
    }
}

static void a_failure_is_told_until_the_next_run(void **state)
{
    struct run_bench *f = *state;
    struct run r;
    expect_failure(f, MODALITY_IMAGE, "prompt = fail\n", "");
    assert_int_equal(faccessat(f->fd, "error.txt", F_OK, 0), 0);
    bench_run_one(f, &r, MODALITY_IMAGE, "prompt = a\n");
    expect_done(&r);
    assert_int_equal(faccessat(f->fd, "error.txt", F_OK, 0), -1);
    run_free(&r);
}

static void a_record_reproduces_its_run(void **state)
{
    struct run_bench *f = *state;
    static const struct {
        enum modality modality;
        const char *text;
    } cases[] = {
        {MODALITY_IMAGE, "prompt = a; b\n  # c\nnegative_prompt =\nprofile = image_direct\n"},
        {MODALITY_IMAGE, "prompt = a\ncount = 2\nreturn_format = jpeg\nquality = 55\n"},
        {MODALITY_VIDEO, "prompt = a\nseconds = 0.5\nsize = 64x48\n"},
        {MODALITY_GIF, "prompt = a\npalette = 8\nloop = 2\nsize = 64x48\n"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct run first, again;
        struct err e;
        size_t size;
        AUTO_FREE char *metadata = NULL;
        bench_run_one(f, &first, cases[i].modality, cases[i].text);
        expect_done(&first);
        assert_int_equal(file_read(f->fd, "metadata.json", 1 << 20, &metadata, &size, &e), 0);
        bench_prepare(f, &again, MODALITY_IMAGE, NULL);
        assert_int_equal(request_from_json(metadata, size, "metadata.json", &again.request, &e), 0);
        again.modality = again.request.modality;
        assert_int_equal(run_batch((struct run *[]){&again}, 1), 0);
        expect_done(&again);
        assert_int_equal(first.output_count, again.output_count);
        for (int k = 0; k < first.output_count; k++)
            assert_string_equal(first.outputs[k].sha256, again.outputs[k].sha256);
        run_free(&first);
        run_free(&again);
    }
}

static void a_batch_gives_what_each_gives_alone(void **state)
{
    struct run_bench *f = *state;
    struct run alone, a, b;
    bench_run_one(f, &alone, MODALITY_IMAGE, "prompt = two\nseed = 9\n");
    expect_done(&alone);
    int generates = f->script.generates;
    bench_prepare(f, &a, MODALITY_IMAGE, "prompt = one\nseed = 4\n");
    bench_prepare(f, &b, MODALITY_IMAGE, "prompt = two\nseed = 9\n");
    assert_int_equal(run_batch((struct run *[]){&a, &b}, 2), 0);
    expect_done(&a);
    expect_done(&b);
    assert_int_equal(f->script.generates, generates + 1);
    assert_string_equal(b.outputs[0].sha256, alone.outputs[0].sha256);
    run_free(&alone);
    run_free(&a);
    run_free(&b);
}

static void the_checkpoint_fills_in_what_the_profile_leaves(void **state)
{
    struct run r;
    bench_run_one(*state, &r, MODALITY_IMAGE, "prompt = a\nprofile = image_direct\n");
    expect_done(&r);
    assert_int_equal(r.request.steps, 5);
    assert_true(r.request.guidance == 3.5);
    assert_string_equal(r.request.scheduler, "euler");
    run_free(&r);
}

static void a_prompt_that_is_cut_is_noted(void **state)
{
    struct run_bench *f = *state;
    struct run r;
    bench_run_one(f, &r, MODALITY_IMAGE,
                  "prompt = a very long prompt that no small model can read\n");
    expect_done(&r);
    assert_string_equal(f->notes, "the prompt is longer than the 40 tokens that the model reads; "
                                  "the rest has no effect");
    run_free(&r);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, run_bench_free)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drawn_sizes_keep_the_aspect_near_the_native_area),
        cmocka_unit_test(covering_cuts_both_sides_alike),
        TEST(pictures_have_the_size_that_was_asked),
        TEST(every_format_is_what_it_says),
        TEST(a_clip_can_be_single_frames),
        TEST(a_clip_becomes_a_gif_without_a_model),
        TEST(references_are_read_at_the_drawn_size),
        TEST(pictures_tell_how_they_were_made),
        TEST(the_record_has_its_keys_in_order),
        TEST(failures_have_the_same_record),
        TEST(a_failure_is_told_until_the_next_run),
        TEST(a_record_reproduces_its_run),
        TEST(a_batch_gives_what_each_gives_alone),
        TEST(the_checkpoint_fills_in_what_the_profile_leaves),
        TEST(a_prompt_that_is_cut_is_noted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
