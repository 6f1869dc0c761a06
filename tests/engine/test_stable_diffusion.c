/* Stable Diffusion and Stable Diffusion XL against pictures that diffusers' pipelines drew, and
 * what the families promise. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/golden.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "engine/omni.h"

#define GOLDEN    "tests/engine/golden/"
#define TOKENIZER GOLDEN "clip/tokenizer"
#define LEAST_DB  60 /* some 1 in 20 values off by one */

static void stable_diffusion_1_draws_as_diffusers_does(void **state)
{
    (void)state;
    golden_check(GOLDEN "sd15", TOKENIZER, LEAST_DB);
}

/* Its tokenizer pads with "!". */
static void stable_diffusion_2_draws_as_diffusers_does(void **state)
{
    (void)state;
    golden_check(GOLDEN "sd21", TOKENIZER "_2", LEAST_DB);
}

static void stable_diffusion_xl_draws_as_diffusers_does(void **state)
{
    (void)state;
    golden_check(GOLDEN "sdxl", TOKENIZER, LEAST_DB);
}

static void unet_that_is_told_the_guidance_draws_as_diffusers_does(void **state)
{
    (void)state;
    golden_check(GOLDEN "sdxl-lcm", TOKENIZER, LEAST_DB);
}

static void inpainting_leaves_runge_kutta_steps_out_as_diffusers_does(void **state)
{
    (void)state;
    golden_check(GOLDEN "sd15-prk", TOKENIZER, LEAST_DB);
}

static void unets_with_other_middles_and_depths_draw_as_diffusers_does(void **state)
{
    (void)state;
    golden_check(GOLDEN "sdxl-uneven", TOKENIZER, LEAST_DB);
}

static void unet_with_channels_for_inpainting_draws_as_diffusers_does(void **state)
{
    (void)state;
    golden_check(GOLDEN "sd15-inpaint", TOKENIZER, LEAST_DB);
    golden_check(GOLDEN "sdxl-inpaint", TOKENIZER, LEAST_DB);
}

/* ---- promises ---- */

struct loaded {
    char folder[64];
    struct omni_model *m;
};

static void load(struct loaded *l, const char *golden)
{
    struct omni_load_options options = {.device = "cpu", .precision = OMNI_FP32, .threads = 2};
    struct err e = {0};
    golden_build(golden, TOKENIZER, l->folder);
    if (omni_model_load(l->folder, &options, &l->m, &e) != 0)
        fail_msg("%s", e.text);
}

static void unload(struct loaded *l)
{
    omni_model_free(l->m);
    file_remove_tree(AT_FDCWD, l->folder);
}

static struct omni_request request(const char *prompt, double guidance, uint64_t seed)
{
    return (struct omni_request){.prompt = prompt,
                                 .width = 32,
                                 .height = 24,
                                 .frames = 1,
                                 .steps = 2,
                                 .guidance = guidance,
                                 .seed = seed};
}

static void generate(struct omni_model *m, const struct omni_request *r, int count,
                     struct omni_result *out, struct omni_timings *t)
{
    struct err e = {0};
    if (omni_generate(m, r, count, NULL, out, t, &e) != 0)
        fail_msg("%s", e.text);
}

/* Guided and unguided requests together: how they fall into passes changes nothing. */
static void check_batch(const char *golden)
{
    enum { COUNT = 3 };
    struct loaded l;
    struct omni_result batch[COUNT], alone;
    struct omni_timings t;
    struct omni_request r[COUNT] = {request("a cat", 5, 1), request("a dog", 1, 2),
                                    request("a cat", 3, 3)};
    r[2].negative_prompt = "blurry";
    load(&l, golden);
    generate(l.m, r, COUNT, batch, &t);
    assert_int_equal(t.peak_bytes, t.planned_bytes);
    for (int i = 0; i < COUNT; i++) {
        generate(l.m, &r[i], 1, &alone, NULL);
        assert_memory_equal(alone.picture.rgb, batch[i].picture.rgb,
                            picture_frame_bytes(&alone.picture));
        picture_free(&alone.picture);
        picture_free(&batch[i].picture);
    }
    unload(&l);
}

static void a_batch_gives_the_bytes_of_each_request_alone(void **state)
{
    (void)state;
    check_batch(GOLDEN "sd15");
    check_batch(GOLDEN "sdxl");
}

static void what_a_checkpoint_leaves_open_is_as_in_its_pipeline(void **state)
{
    (void)state;
    struct loaded l;
    load(&l, GOLDEN "sdxl");
    const struct omni_model_info *i = omni_model_info(l.m);
    assert_string_equal(i->family, "stable-diffusion-xl");
    assert_int_equal(i->default_width, 40); /* sample_size 10 */
    assert_int_equal(i->default_height, 40);
    assert_int_equal(i->default_steps, 50);
    assert_true(i->default_guidance == 5);
    assert_true(i->guided);
    assert_int_equal(i->max_prompt_tokens, 75);
    unload(&l);
    load(&l, GOLDEN "sd15");
    assert_true(omni_model_info(l.m)->default_guidance == 7.5);
    unload(&l);
    load(&l, GOLDEN "sdxl-lcm");
    assert_false(omni_model_info(l.m)->guided);
    unload(&l);
}

static void a_guidance_left_open_is_told_as_the_default(void **state)
{
    (void)state;
    struct loaded l;
    struct omni_result open, stated;
    struct omni_request r = request("a cat", NAN, 1), s = request("a cat", 8.5, 1);
    load(&l, GOLDEN "sdxl-lcm");
    generate(l.m, &r, 1, &open, NULL);
    generate(l.m, &s, 1, &stated, NULL);
    assert_memory_equal(open.picture.rgb, stated.picture.rgb, picture_frame_bytes(&open.picture));
    picture_free(&open.picture);
    picture_free(&stated.picture);
    unload(&l);
}

static void a_prompt_that_is_cut_says_so(void **state)
{
    (void)state;
    struct loaded l;
    struct omni_result result;
    AUTO_STR struct str prompt = {0};
    for (int i = 0; i < 76; i++)
        str_add(&prompt, "a ");
    load(&l, GOLDEN "sdxl");
    for (int cut = 1; cut >= 0; cut--) {
        struct omni_request r = request(prompt.data, 5, 1);
        generate(l.m, &r, 1, &result, NULL);
        assert_int_equal(result.prompt_truncated, cut);
        picture_free(&result.picture);
        prompt.data[prompt.len - 2] = '\0';
    }
    unload(&l);
}

/* ---- checkpoints with faults ---- */

/* The golden checkpoint with `from` in `file` replaced by `to`; `file` removed where both are NULL.
 */
static void assert_refused(const char *golden, const char *file, const char *from, const char *to,
                           const char *message)
{
    char folder[64];
    struct omni_model *m = NULL;
    struct err e = {0};
    AUTO_STR struct str path = {0}, changed = {0};
    golden_build(golden, TOKENIZER, folder);
    str_addf(&path, "%s/%s", folder, file);
    if (from) {
        AUTO_FREE char *text = NULL;
        size_t size;
        assert_int_equal(file_read(AT_FDCWD, path.data, 1 << 20, &text, &size, &e), 0);
        char *at = strstr(text, from);
        assert_non_null(at);
        str_addf(&changed, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
        assert_int_equal(file_write_atomic(AT_FDCWD, path.data, changed.data, changed.len, &e), 0);
    } else {
        file_remove_tree(AT_FDCWD, path.data);
    }
    assert_true(omni_model_load(folder, NULL, &m, &e) < 0);
    if (!strstr(e.text, message))
        fail_msg("expected '%s' in: %s", message, e.text);
    file_remove_tree(AT_FDCWD, folder);
}

static void checkpoints_whose_parts_do_not_fit_are_refused(void **state)
{
    (void)state;
    assert_refused(GOLDEN "sdxl", "tokenizer_2", NULL, NULL, "tokenizer_2 is missing");
    assert_refused(GOLDEN "sdxl", "text_encoder_2", NULL, NULL, "text_encoder_2 is missing");
    assert_refused(GOLDEN "sdxl", "model_index.json", "StableDiffusionXL", "StableDiffusion",
                   "the text encoders give 24 numbers a token, but the UNet takes 64");
    assert_refused(GOLDEN "sd15", "model_index.json", "StableDiffusion", "StableDiffusionXL",
                   "text_encoder_2 is missing");
    assert_refused(GOLDEN "sdxl", "unet/config.json", "\"addition_time_embed_dim\": 8",
                   "\"addition_time_embed_dim\": 4", "are 44 numbers");
    assert_refused(GOLDEN "sdxl", "model_index.json", "{", "{\"requires_aesthetics_score\": true,",
                   "refiners");
    assert_refused(GOLDEN "sdxl", "vae/config.json", "\"latents_mean\": null",
                   "\"latents_mean\": [0]", "latents_mean");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stable_diffusion_1_draws_as_diffusers_does),
        cmocka_unit_test(stable_diffusion_2_draws_as_diffusers_does),
        cmocka_unit_test(stable_diffusion_xl_draws_as_diffusers_does),
        cmocka_unit_test(unet_that_is_told_the_guidance_draws_as_diffusers_does),
        cmocka_unit_test(inpainting_leaves_runge_kutta_steps_out_as_diffusers_does),
        cmocka_unit_test(unets_with_other_middles_and_depths_draw_as_diffusers_does),
        cmocka_unit_test(unet_with_channels_for_inpainting_draws_as_diffusers_does),
        cmocka_unit_test(a_batch_gives_the_bytes_of_each_request_alone),
        cmocka_unit_test(what_a_checkpoint_leaves_open_is_as_in_its_pipeline),
        cmocka_unit_test(a_guidance_left_open_is_told_as_the_default),
        cmocka_unit_test(a_prompt_that_is_cut_says_so),
        cmocka_unit_test(checkpoints_whose_parts_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
