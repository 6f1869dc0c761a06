/* The embedded model through the public header: the reference pictures that the original code drew,
 * and the promises of omni.h. Run from the repository root. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <png.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/pictures.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "engine/omni.h"
#include "engine/text/tokenizer.h"
#include "../support/scratch.h"

#define MODEL     "models/omni-mini"
#define REFERENCE MODEL "/reference"

static struct omni_model *load(const char *path, enum omni_precision p)
{
    struct omni_load_options options = {.device = "cpu", .precision = p};
    struct omni_model *m = NULL;
    struct err e = {0};
    if (omni_model_load(path, &options, &m, &e) != 0)
        fail_msg("%s", e.text);
    return m;
}

/* One model for all tests that only draw; in fp32, as the references were drawn. */
static int open_model(void **state)
{
    *state = load(MODEL, OMNI_FP32);
    return 0;
}

static int close_model(void **state)
{
    omni_model_free(*state);
    return 0;
}

static struct omni_request request(const char *prompt, int width, int height, int steps,
                                   uint64_t seed)
{
    return (struct omni_request){.mode = OMNI_TEXT_TO_IMAGE,
                                 .prompt = prompt,
                                 .width = width,
                                 .height = height,
                                 .frames = 1,
                                 .steps = steps,
                                 .guidance = 4,
                                 .seed = seed};
}

static void generate(struct omni_model *m, const struct omni_request *r, int count,
                     const struct omni_callbacks *cb, struct omni_result *out,
                     struct omni_timings *t)
{
    struct err e = {0};
    if (omni_generate(m, r, count, cb, out, t, &e) != 0)
        fail_msg("%s", e.text);
}

static bool same_bytes(const struct picture *a, const struct picture *b)
{
    return a->width == b->width && a->height == b->height && a->frames == b->frames &&
           memcmp(a->rgb, b->rgb, picture_frame_bytes(a) * (size_t)a->frames) == 0;
}

/* ---- the reference pictures ---- */

static struct picture read_png(const char *path)
{
    png_image image = {.version = PNG_IMAGE_VERSION};
    struct picture p;
    assert_true(png_image_begin_read_from_file(&image, path));
    image.format = PNG_FORMAT_RGB;
    assert_int_equal(picture_new(&p, (int)image.width, (int)image.height, 1), 0);
    assert_true(png_image_finish_read(&image, NULL, p.rgb, 0, NULL));
    return p;
}

static json_t *references(void)
{
    json_error_t fault;
    json_t *list = json_load_file(REFERENCE "/reference.json", 0, &fault);
    assert_true(json_array_size(list) >= 8);
    return list;
}

static const char *field(const json_t *row, const char *key)
{
    return json_string_value(json_object_get(row, key));
}

static int number(const json_t *row, const char *key)
{
    return (int)json_integer_value(json_object_get(row, key));
}

static void assert_like_reference(struct omni_model *m, const json_t *row)
{
    struct omni_result result;
    struct omni_request r =
        request(field(row, "prompt"), number(row, "width"), number(row, "height"),
                number(row, "steps"), (uint64_t)number(row, "seed"));
    r.guidance = json_number_value(json_object_get(row, "guidance"));
    AUTO_STR struct str path = {0};
    str_addf(&path, REFERENCE "/%s", field(row, "file"));
    struct picture expected = read_png(path.data);
    generate(m, &r, 1, NULL, &result, NULL);
    assert_int_equal(result.picture.width, expected.width);
    assert_int_equal(result.picture.height, expected.height);
    double db = psnr(&result.picture, &expected, 0);
    print_message("# %s: %.1f dB\n", field(row, "file"), db);
    assert_true(db >= 60);
    picture_free(&expected);
    picture_free(&result.picture);
}

static void fp32_draws_the_reference_pictures(void **state)
{
    json_t *list = references();
    for (size_t i = 0; i < json_array_size(list); i++)
        assert_like_reference(*state, json_array_get(list, i));
    json_decref(list);
}

static void chat_template_gives_the_reference_token_ids(void **state)
{
    (void)state;
    struct err e = {0};
    struct tokenizer *t = NULL;
    json_t *list = references();
    assert_int_equal(tokenizer_open(MODEL "/tokenizer", &t, &e), 0);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *row = json_array_get(list, i), *tokens = json_object_get(row, "tokens");
        AUTO_STR struct str text = {0};
        AUTO_FREE int32_t *ids = NULL;
        size_t count = 0;
        str_addf(&text,
                 "<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
                 field(row, "prompt"));
        assert_int_equal(tokenizer_encode(t, text.data, text.len, &ids, &count, &e), 0);
        for (size_t k = 0; k < json_array_size(tokens); k++)
            assert_int_equal(k < count ? ids[k] : tokenizer_pad(t),
                             json_integer_value(json_array_get(tokens, k)));
    }
    tokenizer_close(t);
    json_decref(list);
}

/* ---- what omni.h promises ---- */

/* Three requests with five predictions a step between them, together and one by one. */
static void compare_batch(struct omni_model *m, int width, int height, int steps,
                          const char *scheduler)
{
    struct omni_request r[3] = {request("a red apple, 3d render", width, height, steps, 1),
                                request("a yellow star", width, height, steps, 2),
                                request("", width, height, steps, 3)};
    r[1].guidance = 1; /* one prediction a step among requests with two */
    r[2].negative_prompt = "blue";
    for (int i = 0; i < 3; i++)
        r[i].scheduler = scheduler;
    struct omni_result batch[3], alone;
    generate(m, r, 3, NULL, batch, NULL);
    for (int i = 0; i < 3; i++) {
        generate(m, &r[i], 1, NULL, &alone, NULL);
        assert_true(same_bytes(&batch[i].picture, &alone.picture));
        picture_free(&alone.picture);
    }
    assert_false(same_bytes(&batch[0].picture, &batch[1].picture));
    for (int i = 0; i < 3; i++)
        picture_free(&batch[i].picture);
}

static void request_gives_the_same_bytes_alone_and_in_a_batch(void **state)
{
    compare_batch(*state, 128, 96, 4, NULL);
}

static void batch_in_several_passes_gives_the_same_bytes(void **state)
{
    compare_batch(*state, 512, 512, 1, NULL);
}

static void scheduler_with_a_history_gives_the_same_bytes_alone_and_in_a_batch(void **state)
{
    compare_batch(*state, 96, 64, 4, "unipc");
}

static void another_scheduler_draws_the_picture_in_fewer_steps_within_its_plan(void **state)
{
    struct omni_request r = request("a red apple, 3d render", 128, 128, 100, 1);
    struct omni_result fine, euler, unipc;
    struct omni_timings t;
    generate(*state, &r, 1, NULL, &fine, NULL);
    r.steps = 12;
    generate(*state, &r, 1, NULL, &euler, NULL);
    r.scheduler = "unipc";
    generate(*state, &r, 1, NULL, &unipc, &t);
    double rough = psnr(&fine.picture, &euler.picture, 0);
    double better = psnr(&fine.picture, &unipc.picture, 0);
    print_message("# 12 steps against 100: flow_euler %.1f dB, unipc %.1f dB\n", rough, better);
    assert_true(rough >= 28 && better >= 28); /* the way is nearly straight: no great difference */
    assert_string_equal(unipc.scheduler, "unipc");
    assert_true(t.peak_bytes <= t.planned_bytes);
    picture_free(&fine.picture);
    picture_free(&euler.picture);
    picture_free(&unipc.picture);
}

static void same_request_twice_gives_the_same_bytes_and_another_seed_others(void **state)
{
    struct omni_request r = request("rocket", 64, 64, 3, 7),
                        other = request("rocket", 64, 64, 3, 8);
    struct omni_result a, b, c;
    generate(*state, &r, 1, NULL, &a, NULL);
    generate(*state, &r, 1, NULL, &b, NULL);
    generate(*state, &other, 1, NULL, &c, NULL);
    assert_true(same_bytes(&a.picture, &b.picture));
    assert_false(same_bytes(&a.picture, &c.picture));
    picture_free(&a.picture);
    picture_free(&b.picture);
    picture_free(&c.picture);
}

static void absent_negative_prompt_is_the_empty_text(void **state)
{
    struct omni_request r = request("rocket", 64, 64, 3, 7);
    struct omni_result absent, empty;
    generate(*state, &r, 1, NULL, &absent, NULL);
    r.negative_prompt = "";
    generate(*state, &r, 1, NULL, &empty, NULL);
    assert_true(same_bytes(&absent.picture, &empty.picture));
    picture_free(&absent.picture);
    picture_free(&empty.picture);
}

static void plan_predicts_the_measured_peak(void **state)
{
    static const int sizes[][3] = {{128, 128, 1}, {256, 160, 1}, {64, 64, 5}, {16, 16, 1}};
    /* each another, so that each is encoded: at 16x16 that takes most of the memory */
    static const char *const prompts[] = {"a tree", "an oak", "a birch", "a lime"};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct omni_request r = request(prompts[i], sizes[i][0], sizes[i][1], 2, 1);
        struct omni_result result;
        struct omni_timings t;
        struct err e = {0};
        uint64_t planned = 0;
        r.frames = sizes[i][2];
        r.mode = r.frames > 1 ? OMNI_TEXT_TO_VIDEO : OMNI_TEXT_TO_IMAGE;
        assert_int_equal(omni_plan(*state, &r, 1, &planned, &e), 0);
        generate(*state, &r, 1, NULL, &result, &t);
        print_message("# %dx%dx%d: planned %llu, measured %llu\n", r.width, r.height, r.frames,
                      (unsigned long long)planned, (unsigned long long)t.peak_bytes);
        assert_true(t.peak_bytes <= t.planned_bytes && t.planned_bytes <= planned);
        assert_true((double)t.peak_bytes >= 0.9 * (double)planned);
        picture_free(&result.picture);
    }
}

struct watch {
    int encoded, steps, decoded, previews, preview_width;
    double cancel_at; /* clock at which cancelled() first said true, 0: not yet */
    int cancel_after; /* steps, 0: never */
};

static void watch_progress(void *ctx, enum omni_stage stage, int done, int total)
{
    struct watch *w = ctx;
    assert_true(done >= 1 && done <= total);
    *(stage == OMNI_ENCODE ? &w->encoded : stage == OMNI_STEPS ? &w->steps : &w->decoded) = done;
}

static void watch_preview(void *ctx, int index, int step, const struct picture *p)
{
    struct watch *w = ctx;
    assert_int_equal(index, 0);
    assert_true(step >= 1);
    w->previews++;
    w->preview_width = p->width;
}

/* Of all threads of this process: what other programs do meanwhile does not count. */
static double processor_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static bool watch_cancelled(void *ctx)
{
    struct watch *w = ctx;
    if (w->cancel_after == 0 || w->steps < w->cancel_after)
        return false;
    if (w->cancel_at == 0)
        w->cancel_at = processor_seconds();
    return true;
}

static void callbacks_see_every_step_and_previews(void **state)
{
    struct watch w = {0};
    struct omni_callbacks cb = {&w, watch_progress, watch_cancelled, watch_preview, 2, NULL};
    struct omni_request r = request("a green leaf", 64, 64, 6, 1);
    struct omni_result result;
    generate(*state, &r, 1, &cb, &result, NULL);
    assert_int_equal(w.encoded, 2);
    assert_int_equal(w.steps, 6);
    assert_int_equal(w.decoded, 1);
    assert_int_equal(w.previews, 2); /* after 2 and 4; after 6 stands the picture itself */
    assert_int_equal(w.preview_width, 64);
    picture_free(&result.picture);
}

static void previews_do_not_change_the_picture(void **state)
{
    struct watch w = {0};
    struct omni_callbacks cb = {&w, NULL, NULL, watch_preview, 1, NULL};
    struct omni_request r = request("a green leaf", 64, 64, 3, 1);
    struct omni_result with, without;
    generate(*state, &r, 1, &cb, &with, NULL);
    generate(*state, &r, 1, NULL, &without, NULL);
    assert_true(same_bytes(&with.picture, &without.picture));
    picture_free(&with.picture);
    picture_free(&without.picture);
}

static void cancel_ends_the_call_within_half_a_second(void **state)
{
    struct watch w = {.cancel_after = 1};
    struct omni_callbacks cb = {&w, watch_progress, watch_cancelled, NULL, 0, NULL};
    struct omni_request r = request("a castle", 512, 512, 100, 1);
    struct omni_result result;
    struct err e = {0};
    assert_int_equal(omni_generate(*state, &r, 1, &cb, &result, NULL, &e), -ECANCELED);
    double took = processor_seconds() - w.cancel_at;
    assert_true(w.cancel_at > 0 && took < 0.5 * (double)sysconf(_SC_NPROCESSORS_ONLN));
    assert_null(result.picture.rgb);
}

static void long_prompt_is_flagged_as_truncated(void **state)
{
    AUTO_STR struct str text = {0};
    struct omni_result result[2];
    for (int i = 0; i < 60; i++)
        str_add(&text, "many words ");
    struct omni_request r[2] = {request(text.data, 64, 64, 1, 1),
                                request("few words", 64, 64, 1, 1)};
    generate(*state, r, 2, NULL, result, NULL);
    assert_true(result[0].prompt_truncated);
    assert_false(result[1].prompt_truncated);
    assert_false(result[0].negative_truncated);
    picture_free(&result[0].picture);
    r[0] = request("few words", 64, 64, 1, 1);
    r[0].guidance = 3;
    r[0].negative_prompt = text.data;
    generate(*state, r, 1, NULL, result, NULL);
    assert_false(result[0].prompt_truncated);
    assert_true(result[0].negative_truncated);
    picture_free(&result[0].picture);
    picture_free(&result[1].picture);
}

static void clip_has_its_frames_and_one_frame_is_the_picture(void **state)
{
    struct omni_request r = request("a ball", 64, 48, 3, 5);
    struct omni_result still, one, clip;
    generate(*state, &r, 1, NULL, &still, NULL);
    r.mode = OMNI_TEXT_TO_VIDEO;
    generate(*state, &r, 1, NULL, &one, NULL);
    r.frames = 4;
    generate(*state, &r, 1, NULL, &clip, NULL);
    assert_true(same_bytes(&still.picture, &one.picture));
    assert_int_equal(clip.picture.frames, 4);
    assert_memory_equal(picture_frame(&clip.picture, 0), picture_frame(&still.picture, 0),
                        picture_frame_bytes(&clip.picture)); /* its time is the still's, 0 */
    picture_free(&still.picture);
    picture_free(&one.picture);
    picture_free(&clip.picture);
}

static void loop_is_a_clip_of_the_same_shape(void **state)
{
    struct omni_request r = request("a ball", 64, 48, 4, 5);
    struct omni_result loop;
    r.mode = OMNI_TEXT_TO_VIDEO;
    r.frames = 5;
    r.loop = true;
    generate(*state, &r, 1, NULL, &loop, NULL);
    assert_int_equal(loop.picture.frames, 5);
    assert_int_equal(loop.picture.width, 64);
    assert_int_equal(loop.picture.height, 48);
    picture_free(&loop.picture);
}

static void impossible_requests_are_refused_with_a_sentence(void **state)
{
    struct omni_request good = request("x", 64, 64, 2, 1);
    struct {
        struct omni_request r;
        const char *says;
    } cases[11];
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        cases[i].r = good;
    cases[0].r.width = 100, cases[0].says = "96 and 112";
    cases[1].r.height = 0, cases[1].says = "height 0";
    cases[2].r.mode = OMNI_INPAINT, cases[2].says = "inpaint";
    cases[3].r.guidance = -1, cases[3].says = "guidance -1";
    cases[4].r.steps = 5000, cases[4].says = "steps 5000";
    cases[5].r.scheduler = "magic", cases[5].says = "magic";
    cases[6].r.frames = 2, cases[6].says = "frames 2";
    cases[7].r.prompt = NULL, cases[7].says = "prompt";
    cases[8].r.prompt = "\xff", cases[8].says = "UTF-8";
    cases[9].r.width = 1 << 30, cases[9].says = "width";
    cases[10].r.scheduler = "ddim", cases[10].says = "flow_euler, unipc do";
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct omni_result result;
        struct err e = {0};
        uint64_t bytes;
        assert_int_equal(omni_plan(*state, &cases[i].r, 1, &bytes, &e), -EINVAL);
        assert_non_null(strstr(e.text, cases[i].says));
        assert_int_equal(omni_generate(*state, &cases[i].r, 1, NULL, &result, NULL, &e), -EINVAL);
        assert_null(result.picture.rgb);
    }
}

static void batch_of_unlike_requests_is_refused(void **state)
{
    struct omni_request r[2] = {request("x", 64, 64, 2, 1), request("x", 64, 48, 2, 1)};
    struct omni_result result[2];
    struct err e = {0};
    assert_int_equal(omni_generate(*state, r, 2, NULL, result, NULL, &e), -EINVAL);
    assert_non_null(strstr(e.text, "size"));
}

static void defaults_come_from_the_checkpoint(void **state)
{
    const struct omni_model_info *i = omni_model_info(*state);
    struct omni_request r = request("x", 16, 16, 2, 1);
    struct omni_result result;
    assert_string_equal(i->family, "flux2-klein");
    assert_string_equal(i->variant, "base");
    assert_string_equal(i->precision, "fp32");
    assert_int_equal(i->size_multiple, 16);
    assert_true(i->guided && i->has_video && i->parameters > 10000000);
    assert_int_equal(strlen(i->sha256), 64);
    r.guidance = NAN;
    generate(*state, &r, 1, NULL, &result, NULL);
    assert_float_equal(result.guidance, i->default_guidance, 0);
    assert_string_equal(result.scheduler, "flow_euler");
    picture_free(&result.picture);
}

static void bf16_picture_is_like_the_fp32_picture(void **state)
{
    struct omni_model *half = load(MODEL, OMNI_BF16);
    struct omni_request r = request("a red apple, 3d render", 128, 128, 8, 1);
    struct omni_result a, b;
    generate(*state, &r, 1, NULL, &a, NULL);
    generate(half, &r, 1, NULL, &b, NULL);
    double db = psnr(&a.picture, &b.picture, 0);
    print_message("# bf16 against fp32: %.1f dB\n", db);
    assert_true(db >= 25);
    picture_free(&a.picture);
    picture_free(&b.picture);
    omni_model_free(half);
}

/* ---- checkpoints that are not whole ---- */

/* A folder of links to the model's parts, but for `without`. */
static void link_model(char *folder, const char *without)
{
    static const char *const names[] = {"model_index.json", "scheduler",   "text_encoder",
                                        "tokenizer",        "transformer", "vae"};
    char root[4096];
    assert_non_null(getcwd(root, sizeof(root)));
    assert_non_null(mkdtemp(scratch_name(folder, "omni-mini-XXXXXX")));
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        AUTO_STR struct str from = {0};
        AUTO_STR struct str to = {0};
        if (strcmp(names[i], without) == 0)
            continue;
        str_addf(&from, "%s/" MODEL "/%s", root, names[i]);
        str_addf(&to, "%s/%s", folder, names[i]);
        assert_int_equal(symlink(from.data, to.data), 0);
    }
}

static void missing_part_is_named_by_its_path(void **state)
{
    (void)state;
    static const char *const parts[] = {"vae",       "transformer", "text_encoder",
                                        "tokenizer", "scheduler",   "model_index.json"};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        char folder[64];
        struct omni_model *m = NULL;
        struct omni_load_options options = {.device = "cpu", .precision = OMNI_FP32};
        struct err e = {0};
        AUTO_STR struct str path = {0};
        link_model(folder, parts[i]);
        str_addf(&path, "%s/%s", folder, parts[i]);
        assert_int_equal(omni_model_load(folder, &options, &m, &e), -ENOENT);
        assert_non_null(strstr(e.text, path.data));
        file_remove_tree(AT_FDCWD, folder);
    }
}

/* A copy of the transformer in `folder` with NaN all over one bf16 tensor. */
static void damage_transformer(const char *folder, const char *tensor)
{
    AUTO_STR struct str path = {0};
    AUTO_STR struct str key = {0};
    AUTO_FREE char *data = NULL, *config = NULL;
    size_t size, config_size;
    unsigned long begin, end;
    uint64_t header;
    struct err e = {0};
    str_addf(&path, "%s/transformer", folder);
    assert_int_equal(file_mkdirs(path.data, &e), 0);
    assert_int_equal(
        file_read(AT_FDCWD, MODEL "/transformer/config.json", 1 << 20, &config, &config_size, &e),
        0);
    assert_int_equal(file_read(AT_FDCWD, MODEL "/transformer/diffusion_pytorch_model.safetensors",
                               (size_t)1 << 30, &data, &size, &e),
                     0);
    memcpy(&header, data, 8);
    str_addf(&key, "\"%s\"", tensor);
    const char *at = strstr(data + 8, key.data);
    assert_non_null(at);
    assert_int_equal(sscanf(strstr(at, "data_offsets") + 14, "[%lu,%lu]", &begin, &end), 2);
    memset(data + 8 + header + begin, 0xff, end - begin);
    str_add(&path, "/config.json");
    assert_int_equal(file_write_atomic(AT_FDCWD, path.data, config, config_size, &e), 0);
    path.len -= strlen("config.json");
    str_add(&path, "diffusion_pytorch_model.safetensors");
    assert_int_equal(file_write_atomic(AT_FDCWD, path.data, data, size, &e), 0);
}

static void nan_weights_end_in_edom_that_names_the_step(void **state)
{
    (void)state;
    char folder[64];
    link_model(folder, "transformer");
    damage_transformer(folder, "proj_out.weight");
    struct omni_model *m = load(folder, OMNI_FP32);
    struct omni_request r = request("x", 64, 64, 3, 1);
    struct omni_result result;
    struct err e = {0};
    assert_int_equal(omni_generate(m, &r, 1, NULL, &result, NULL, &e), -EDOM);
    assert_non_null(strstr(e.text, "step 1 of 3"));
    assert_null(result.picture.rgb);
    omni_model_free(m);
    assert_int_equal(omni_verify(folder, NULL, &e), -EDOM);
    assert_non_null(strstr(e.text, "proj_out.weight"));
    file_remove_tree(AT_FDCWD, folder);
}

static void fingerprint_changes_with_the_weights(void **state)
{
    char folder[64];
    link_model(folder, "transformer");
    damage_transformer(folder, "proj_out.weight");
    struct omni_model *m = load(folder, OMNI_FP32), *again = load(MODEL, OMNI_FP32);
    assert_string_equal(omni_model_info(again)->sha256, omni_model_info(*state)->sha256);
    assert_string_not_equal(omni_model_info(m)->sha256, omni_model_info(*state)->sha256);
    omni_model_free(m);
    omni_model_free(again);
    file_remove_tree(AT_FDCWD, folder);
}

static void loading_takes_few_seconds_of_processor_time(void **state)
{
    (void)state;
    double start = processor_seconds();
    struct omni_model *m = load(MODEL, OMNI_FP32);
    double took = processor_seconds() - start;
    print_message("# loaded in %.0f ms\n", took * 1000);
    omni_model_free(m);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    assert_true(took < 3); /* 0.15 s on an idle machine */
#endif
}

static void missing_device_is_refused_with_a_sentence(void **state)
{
    (void)state;
    struct omni_load_options options = {.device = "cuda:7"};
    struct omni_model *m = NULL;
    struct err e = {0};
    assert_int_equal(omni_model_load(MODEL, &options, &m, &e), -ENODEV);
    assert_non_null(strstr(e.text, "cuda:7"));
    options.device = "abacus";
    assert_int_equal(omni_model_load(MODEL, &options, &m, &e), -EINVAL);
    assert_non_null(strstr(e.text, "abacus"));
}

/* ---- looking without drawing ---- */

static json_t *inspected(const char *path)
{
    AUTO_FREE char *text = NULL;
    struct err e = {0};
    if (omni_inspect(path, NULL, &text, &e) != 0)
        fail_msg("%s", e.text);
    json_t *j = json_loads(text, 0, NULL);
    assert_non_null(j);
    return j;
}

static void inspect_tells_parts_and_memory(void **state)
{
    (void)state;
    struct err e = {0};
    json_t *j = inspected(MODEL);
    assert_string_equal(field(j, "family"), "flux2-klein");
    assert_true(json_is_null(json_object_get(j, "error")));
    assert_int_equal(json_array_size(json_object_get(j, "parts")), 5);
    assert_true(json_array_size(json_object_get(j, "memory")) >= 4);
    const json_t *weights = json_object_get(j, "weights");
    json_int_t all = json_integer_value(json_object_get(weights, "bytes"));
    json_int_t by_turns = json_integer_value(json_object_get(weights, "by_turns_bytes"));
    assert_true(by_turns > 1000000 && by_turns < all);
    assert_null(json_object_get(weights, "in_blocks_bytes"));
    json_decref(j);
    assert_int_equal(omni_verify(MODEL, NULL, &e), 0);
}

static void inspect_of_a_broken_checkpoint_tells_what_is_there(void **state)
{
    (void)state;
    char folder[64];
    link_model(folder, "transformer");
    json_t *j = inspected(folder), *parts = json_object_get(j, "parts");
    assert_non_null(strstr(field(j, "error"), "transformer"));
    int found = 0;
    for (size_t i = 0; i < json_array_size(parts); i++)
        found += json_is_true(json_object_get(json_array_get(parts, i), "found"));
    assert_int_equal(json_array_size(parts), 3);
    assert_int_equal(found, 2);
    json_decref(j);
    file_remove_tree(AT_FDCWD, folder);
}

static void devices_lists_the_cpu(void **state)
{
    (void)state;
    AUTO_FREE char *text = NULL;
    struct err e = {0};
    assert_int_equal(omni_devices(&text, &e), 0);
    assert_non_null(strstr(text, "cpu: "));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chat_template_gives_the_reference_token_ids),
        cmocka_unit_test(fp32_draws_the_reference_pictures),
        cmocka_unit_test(request_gives_the_same_bytes_alone_and_in_a_batch),
        cmocka_unit_test(batch_in_several_passes_gives_the_same_bytes),
        cmocka_unit_test(scheduler_with_a_history_gives_the_same_bytes_alone_and_in_a_batch),
        cmocka_unit_test(another_scheduler_draws_the_picture_in_fewer_steps_within_its_plan),
        cmocka_unit_test(same_request_twice_gives_the_same_bytes_and_another_seed_others),
        cmocka_unit_test(absent_negative_prompt_is_the_empty_text),
        cmocka_unit_test(plan_predicts_the_measured_peak),
        cmocka_unit_test(callbacks_see_every_step_and_previews),
        cmocka_unit_test(previews_do_not_change_the_picture),
        cmocka_unit_test(cancel_ends_the_call_within_half_a_second),
        cmocka_unit_test(long_prompt_is_flagged_as_truncated),
        cmocka_unit_test(clip_has_its_frames_and_one_frame_is_the_picture),
        cmocka_unit_test(loop_is_a_clip_of_the_same_shape),
        cmocka_unit_test(impossible_requests_are_refused_with_a_sentence),
        cmocka_unit_test(batch_of_unlike_requests_is_refused),
        cmocka_unit_test(defaults_come_from_the_checkpoint),
        cmocka_unit_test(bf16_picture_is_like_the_fp32_picture),
        cmocka_unit_test(missing_part_is_named_by_its_path),
        cmocka_unit_test(nan_weights_end_in_edom_that_names_the_step),
        cmocka_unit_test(fingerprint_changes_with_the_weights),
        cmocka_unit_test(loading_takes_few_seconds_of_processor_time),
        cmocka_unit_test(missing_device_is_refused_with_a_sentence),
        cmocka_unit_test(inspect_tells_parts_and_memory),
        cmocka_unit_test(inspect_of_a_broken_checkpoint_tells_what_is_there),
        cmocka_unit_test(devices_lists_the_cpu),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
