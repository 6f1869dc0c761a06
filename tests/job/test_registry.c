/* registry.ini: what it offers, how mistakes are told, and where things are searched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "job/registry.h"
#include "../support/scratch.h"

#define PROFILE "[image_default]\nomni_model_id = m\nmodality = image\n"

static struct registry *parse(const char *text)
{
    struct registry *r = NULL;
    struct err e;
    if (registry_parse(text, strlen(text), "registry.ini", &r, &e))
        fail_msg("%s", e.text);
    return r;
}

static void the_shipped_registry_offers_what_is_promised(void **state)
{
    (void)state;
    struct registry *r;
    struct err e;
    if (registry_load("registry.ini", &r, &e))
        fail_msg("%s", e.text);
    static const struct {
        const char *name;
        enum modality modality;
        int width, height, max_frames;
    } promised[] = {
        {"image_default", MODALITY_IMAGE, 1024, 1024, 0},
        {"image_hd", MODALITY_IMAGE, 1024, 1024, 0},
        {"video_default", MODALITY_VIDEO, 768, 432, 48},
        {"video_long", MODALITY_VIDEO, 768, 432, 240},
    };
    assert_int_equal(r->profile_count, ARRAY_LEN(promised));
    for (size_t i = 0; i < ARRAY_LEN(promised); i++) {
        const struct profile *p = registry_profile(r, promised[i].name);
        assert_non_null(p);
        assert_int_equal(p->modality, promised[i].modality);
        assert_int_equal(p->width, promised[i].width);
        assert_int_equal(p->height, promised[i].height);
        assert_int_equal(p->max_width, 2048);
        assert_int_equal(p->max_height, 2048);
        assert_int_equal(p->max_steps, 200);
        if (promised[i].max_frames)
            assert_int_equal(p->max_frames, promised[i].max_frames);
        assert_true(p->watermark);
        assert_int_equal(p->safety_level, SAFETY_STANDARD);
    }
    assert_false(r->safety.allow_off);
    registry_unref(r);
}

static void every_key_is_read(void **state)
{
    (void)state;
    struct registry *r = parse("; a comment\n[mine]\n"
                               "omni_model_id = /models/m ; and another\n  modality = video\n"
                               "precision = bf16\nnative_resolution = 144x80, 96x96\n"
                               "upscaler = bicubic\n"
                               "default_size = 64x48\nmax_resolution = 128x96\nmax_frames = 30\n"
                               "max_steps = 40\nmax_count = 3\nsteps = 12\nguidance = 2.5\n"
                               "scheduler = unipc\nframes = 8\nfps = 7.5\nlora = a:0.5, b\n"
                               "safety_level = strict\nwatermark = no\npriority = -3\n"
                               "timeout = 90\ntext_encoder = /parts/t\ntext_encoder_2 = u\n"
                               "vae = v\ntokenizer = x\ntokenizer_2 = y\n\n"
                               "[limits]\nqueue = 5\njobs_per_user = 2\nstore_bytes = 1G\n"
                               "request_bytes = 64K\n"
                               "[devices]\nuse = cpu, cuda:1\nmemory = 2G\nthreads = 3\nbatch = 8\n"
                               "[safety]\nallow_off = yes\nallow_no_watermark = yes\n");
    const struct profile *p = registry_profile(r, "mine");
    assert_string_equal(p->model, "/models/m");
    assert_int_equal(p->modality, MODALITY_VIDEO);
    assert_int_equal(p->precision, OMNI_BF16);
    assert_int_equal(p->native[0].width, 144);
    assert_int_equal(p->native[0].height, 80);
    assert_int_equal(profile_native(p, 1000, 900).width, 96); /* the nearest aspect */
    assert_int_equal(profile_native(p, 1000, 500).width, 144);
    assert_int_equal(p->upscaler, MEDIA_BICUBIC);
    assert_int_equal(p->width, 64);
    assert_int_equal(p->height, 48);
    assert_int_equal(p->max_width, 128);
    assert_int_equal(p->max_height, 96);
    assert_int_equal(p->max_frames, 30);
    assert_int_equal(p->max_steps, 40);
    assert_int_equal(p->max_count, 3);
    assert_int_equal(p->steps, 12);
    assert_true(p->guidance == 2.5);
    assert_string_equal(p->scheduler, "unipc");
    assert_int_equal(p->frames, 8);
    assert_true(p->fps == 7.5);
    assert_int_equal(p->lora_count, 2);
    assert_string_equal(p->loras[1].name, "b");
    assert_true(p->loras[0].weight == 0.5 && p->loras[1].weight == 1);
    assert_int_equal(p->safety_level, SAFETY_STRICT);
    assert_false(p->watermark);
    assert_int_equal(p->priority, -3);
    assert_true(p->timeout == 90);
    assert_string_equal(p->parts[PART_TEXT_ENCODER], "/parts/t");
    assert_string_equal(p->parts[PART_TEXT_ENCODER_2], "u");
    assert_string_equal(p->parts[PART_VAE], "v");
    assert_string_equal(p->parts[PART_TOKENIZER], "x");
    assert_string_equal(p->parts[PART_TOKENIZER_2], "y");
    assert_int_equal(r->limits.queue, 5);
    assert_int_equal(r->limits.jobs_per_user, 2);
    assert_true(r->limits.store_bytes == (uint64_t)1 << 30);
    assert_true(r->limits.request_bytes == 65536);
    assert_int_equal(r->devices.count, 2);
    assert_string_equal(r->devices.names[1], "cuda:1");
    assert_true(r->devices.memory == (uint64_t)2 << 30);
    assert_int_equal(r->devices.threads, 3);
    assert_int_equal(r->devices.batch, 8);
    assert_true(r->safety.allow_off && r->safety.allow_no_watermark);
    registry_unref(r);
}

static void what_is_absent_is_left_to_the_checkpoint(void **state)
{
    (void)state;
    struct registry *r = parse(PROFILE);
    const struct profile *p = &r->profiles[0];
    assert_int_equal(p->steps, 0);
    assert_true(isnan(p->guidance));
    assert_string_equal(p->scheduler, "");
    assert_int_equal(profile_native(p, 64, 64).width, 0);
    assert_int_equal(p->precision, OMNI_AUTO);
    registry_unref(r);
}

static void every_mistake_is_told_with_its_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *sentence;
    } cases[] = {
        {"", ": there is no profile; add a section like [image_default]"},
        {"steps = 4\n", ":1: steps stands above the first [section]"},
        {PROFILE "stepps = 4\n", ":4: a profile has no key \"stepps\"; did you mean steps?"},
        {PROFILE "steps = few\n", ":4: steps \"few\" is not a whole number"},
        {PROFILE "steps = 4\nsteps = 5\n", ":5: steps is set twice in [image_default]"},
        {PROFILE "steps = 300\n", ":4: profile image_default: steps 300 is over its max_steps 200"},
        {PROFILE PROFILE, ":4: the section [image_default] is there a second time"},
        {PROFILE "nonsense\n", ":4: the line is neither [section] nor key = value"},
        {PROFILE "default_size = 4096x64\n", ":4: profile image_default: default_size 4096x64 is "
                                             "over its max_resolution 2048x2048"},
        {PROFILE "upscaler =\n", ":4: upscaler \"\" is not lanczos, bicubic, nearest or a model"},
        {PROFILE "scheduler = ddmi\n", ":4: scheduler \"ddmi\" is unknown; did you mean ddim?"},
        {PROFILE "precision = fp4\n", ":4: precision \"fp4\" is not auto, fp32, bf16, fp16 or fp8"},
        {PROFILE "max_resolution = 10\n", ":4: max_resolution \"10\" is not a size like 1024x1024"},
        {"[a]\nmodality = image\n", ":2: profile a names no model; add `omni_model_id = …`"},
        {"[a]\nomni_model_id = m\n\n[limits]\n",
         ":4: profile a has no modality; add `modality = image`, video or gif"},
        {PROFILE "[limits]\nqueues = 4\n", ":5: [limits] has no key \"queues\"; did you mean "
                                           "queue?"},
        {PROFILE "[limits]\nqueue = 0\n", ":5: queue 0 is outside 1 … 1e+06"},
        {PROFILE "[limits]\n[limits]\n", ":5: the section [limits] is there a second time"},
        {PROFILE "[limits]\nstore_bytes = much\n",
         ":5: store_bytes \"much\" is not a size like 512M or 20G"},
        {PROFILE "[devices]\nuse = cpu, tpu\n",
         ":5: use \"cpu, tpu\" is not auto, or a list of cpu, cuda:0, cuda:1 …"},
        {PROFILE "[devices]\nuse = cuda:0, cpu, cuda:0\n", ":5: use names cuda:0 twice"},
        {PROFILE "[safety]\nallow_off = perhaps\n", ":5: allow_off \"perhaps\" is not yes or no"},
        {"[]\n", ":1: a section's name has 1 … 48 bytes"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct registry *r;
        struct err e = {0};
        char sentence[512];
        snprintf(sentence, sizeof sentence, "registry.ini%s", cases[i].sentence);
        if (!registry_parse(cases[i].text, strlen(cases[i].text), "registry.ini", &r, &e))
            fail_msg("accepted: %s", cases[i].text);
        assert_string_equal(e.text, sentence);
    }
}

static void long_lines_are_refused_not_cut(void **state)
{
    (void)state;
    AUTO_STR struct str text = {0};
    struct registry *r;
    struct err e = {0};
    str_add(&text, PROFILE "omni_model_id = ");
    for (int i = 0; i < 400; i++)
        str_addc(&text, 'm');
    assert_int_equal(registry_parse(text.data, text.len, "registry.ini", &r, &e), -EINVAL);
    assert_non_null(strstr(e.text, "registry.ini:4: the line has more than "));
}

static void word_lists_of_the_operator_are_added(void **state)
{
    const char *folder = *state;
    char path[512], text[1024];
    struct err e;
    struct registry *r;
    snprintf(path, sizeof path, "%s/words.txt", folder);
    scratch_write(path, "house-rule: gnome\n");
    snprintf(path, sizeof path, "%s/registry.ini", folder);
    snprintf(text, sizeof text, PROFILE "[safety]\nstandard_lists = words.txt\n");
    scratch_write(path, text);
    if (registry_load(path, &r, &e))
        fail_msg("%s", e.text);
    struct safety_verdict v;
    prompt_filter_check(r->filter, "a garden gnome", SAFETY_STANDARD, &v);
    assert_true(v.blocked);
    assert_string_equal(v.rule, "house-rule");
    registry_unref(r);

    snprintf(text, sizeof text, PROFILE "[safety]\nstandard_lists = missing.txt\n");
    scratch_write(path, text);
    assert_int_equal(registry_load(path, &r, &e), -ENOENT);
    assert_non_null(strstr(e.text, "missing.txt"));
}

static void the_named_registry_is_used_and_told_when_missing(void **state)
{
    char path[512];
    struct registry *r;
    struct err e = {0};
    snprintf(path, sizeof path, "%s/mine.ini", (char *)*state);
    setenv("OMNIFS_REGISTRY", path, 1);
    assert_int_equal(registry_load(NULL, &r, &e), -ENOENT);
    assert_non_null(strstr(e.text, "mine.ini"));
    scratch_write(path, PROFILE);
    assert_int_equal(registry_load(NULL, &r, &e), 0);
    assert_string_equal(r->path, path);
    registry_unref(r);
    unsetenv("OMNIFS_REGISTRY");
}

static void the_users_registry_goes_before_the_systems(void **state)
{
    char path[512];
    struct registry *r;
    struct err e = {0};
    setenv("XDG_CONFIG_HOME", *state, 1);
    snprintf(path, sizeof path, "%s/omnifs", (char *)*state);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/omnifs/registry.ini", (char *)*state);
    scratch_write(path, PROFILE);
    assert_int_equal(registry_load(NULL, &r, &e), 0);
    assert_string_equal(r->path, path);
    registry_unref(r);
    remove(path);
    unsetenv("XDG_CONFIG_HOME");
}

static void models_are_found_by_name_on_the_search_path(void **state)
{
    char list[1100], first[512], second[512], expected[600], path[REGISTRY_PATH_SIZE];
    struct err e;
    snprintf(first, sizeof first, "%s/first", (char *)*state);
    snprintf(second, sizeof second, "%s/second", (char *)*state);
    mkdir(first, 0700);
    mkdir(second, 0700);
    snprintf(expected, sizeof expected, "%s/tiny", second);
    mkdir(expected, 0700);
    snprintf(list, sizeof list, "%s:%s", first, second);
    setenv("OMNIFS_MODELS", list, 1);
    assert_int_equal(model_find("tiny", path, &e), 0);
    assert_string_equal(path, expected);
    assert_int_equal(model_find(expected, path, &e), 0);
    assert_string_equal(path, expected);
    assert_int_equal(model_find("large", path, &e), -ENOENT);
    assert_non_null(strstr(e.text, second));
    assert_int_equal(model_find("../second/tiny", path, &e), -EINVAL);
    unsetenv("OMNIFS_MODELS");
    assert_int_equal(model_find("omni-mini", path, &e), 0); /* in the source tree */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_shipped_registry_offers_what_is_promised),
        cmocka_unit_test(every_key_is_read),
        cmocka_unit_test(what_is_absent_is_left_to_the_checkpoint),
        cmocka_unit_test(every_mistake_is_told_with_its_line),
        cmocka_unit_test(long_lines_are_refused_not_cut),
        cmocka_unit_test(word_lists_of_the_operator_are_added),
        cmocka_unit_test(the_named_registry_is_used_and_told_when_missing),
        cmocka_unit_test(the_users_registry_goes_before_the_systems),
        cmocka_unit_test(models_are_found_by_name_on_the_search_path),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
