/* prompt.ini: what is read, what it means with a registry, and how each mistake is told. */
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

#include "base/cleanup.h"
#include "job/registry.h"
#include "job/request.h"

#define WHERE "cat/prompt.ini"

static const char registry_text[] = "[image_default]\nomni_model_id = omni-mini\nmodality = image\n"
                                    "max_resolution = 1024x1024\nmax_steps = 100\nsteps = 20\n"
                                    "guidance = 4\nmax_count = 4\n"
                                    "[image_small]\nomni_model_id = omni-mini\nmodality = image\n"
                                    "default_size = 64x64\nwatermark = no\nsafety_level = strict\n"
                                    "[video_default]\nomni_model_id = omni-mini\nmodality = video\n"
                                    "frames = 24\nfps = 12\nmax_frames = 48\n";

static int load_registry(void **state)
{
    struct registry *r;
    struct err e;
    int code = registry_parse(registry_text, strlen(registry_text), "registry.ini", &r, &e);
    if (code)
        fprintf(stderr, "%s\n", e.text);
    *state = r;
    return code;
}

static int unload_registry(void **state)
{
    registry_unref(*state);
    return 0;
}

/* Parses and normalises; the sentence on failure. */
static int both(const struct registry *registry, enum modality m, const char *text,
                struct request *r, struct err *e)
{
    const struct profile *p;
    int code = request_parse(text, strlen(text), WHERE, m, r, e);
    return code ? code : request_normalise(r, registry, WHERE, &p, e);
}

static void expect_error(const struct registry *registry, enum modality m, const char *text,
                         const char *sentence)
{
    struct request r;
    struct err e = {0};
    int code = both(registry, m, text, &r, &e);
    if (!code)
        fail_msg("accepted: %s", text);
    assert_string_equal(e.text, sentence);
    request_free(&r);
}

static struct request accept(const struct registry *registry, enum modality m, const char *text)
{
    struct request r;
    struct err e = {0};
    if (both(registry, m, text, &r, &e))
        fail_msg("%s", e.text);
    return r;
}

/* ---- lines ---- */

static void a_long_prompt_with_semicolons_survives(void **state)
{
    AUTO_STR struct str text = {0}, prompt = {0};
    while (prompt.len < 10000)
        str_addf(&prompt, "a cat; (a dog:1.3) = %zu # ", prompt.len);
    prompt.data[--prompt.len] = '\0'; /* blanks at the end are no part of a value */
    str_addf(&text, "prompt = %s\n", prompt.data);
    struct request r = accept(*state, MODALITY_IMAGE, text.data);
    assert_string_equal(r.prompt, prompt.data);
    request_free(&r);
}

static void comments_are_whole_lines_only(void **state)
{
    struct request r = accept(*state, MODALITY_IMAGE,
                              "; first\n# second\nprompt = a ; b # c\n\n  # tag\n[params]\n"
                              "; third\nsteps = 7\n");
    assert_string_equal(r.prompt, "a ; b # c\n# tag");
    assert_int_equal(r.steps, 7);
    request_free(&r);
}

static void indented_lines_continue_the_value_above(void **state)
{
    struct request r =
        accept(*state, MODALITY_IMAGE, "prompt =\n  a cat\n\ton a mat\n\n    = asleep\nseed = 3\n");
    assert_string_equal(r.prompt, "a cat\non a mat\n= asleep");
    assert_int_equal(r.seed, 3);
    request_free(&r);
}

static void windows_and_bare_files_read_the_same(void **state)
{
    struct request r =
        accept(*state, MODALITY_IMAGE, "\xEF\xBB\xBFprompt = a cat\r\nsize=64x32\r\n[params]");
    assert_string_equal(r.prompt, "a cat");
    assert_int_equal(r.width, 64);
    assert_int_equal(r.height, 32);
    request_free(&r);
}

static void an_empty_negative_prompt_is_not_an_absent_one(void **state)
{
    struct request r = accept(*state, MODALITY_IMAGE, "prompt =\nnegative_prompt =\n");
    assert_string_equal(r.prompt, "");
    assert_non_null(r.negative_prompt);
    assert_string_equal(r.negative_prompt, "");
    request_free(&r);
    r = accept(*state, MODALITY_IMAGE, "prompt = a\n");
    assert_null(r.negative_prompt);
    request_free(&r);
}

static void hostile_text_is_refused(void **state)
{
    (void)state;
    struct request r;
    struct err e;
    static const char latin1[] = "prompt = a\nnegative_prompt = caf\xE9\n";
    assert_int_equal(request_parse(latin1, strlen(latin1), WHERE, MODALITY_IMAGE, &r, &e), -EINVAL);
    assert_string_equal(e.text, WHERE ":2: the line is not UTF-8 text");
    request_free(&r);
    static const char nul[] = "prompt = a\0b\n";
    assert_int_equal(request_parse(nul, sizeof nul - 1, WHERE, MODALITY_IMAGE, &r, &e), -EINVAL);
    request_free(&r);
    AUTO_FREE char *large = malloc(REQUEST_MAX_BYTES + 1);
    memset(large, '\n', REQUEST_MAX_BYTES + 1);
    assert_int_equal(request_parse(large, REQUEST_MAX_BYTES + 1, WHERE, MODALITY_IMAGE, &r, &e),
                     -EFBIG);
    assert_string_equal(e.text, WHERE " has 65537 bytes; a prompt file may have 65536");
    request_free(&r);
    assert_int_equal(request_parse(large, REQUEST_MAX_BYTES, WHERE, MODALITY_IMAGE, &r, &e), 0);
    request_free(&r);
}

/* ---- mistakes ---- */

static void every_mistake_is_told_with_its_line(void **state)
{
    static const struct {
        const char *text, *sentence;
    } cases[] = {
        /* lines */
        {"prompt = a\njust text\n", ":2: \"just text\" is no `key = value`; to continue the value "
                                    "above, begin the line with a blank"},
        {"= a\n", ":1: there is no key before '='"},
        {"[params\n", ":1: the section has no ']'"},
        {"[parms]\nsteps = 1\n", ":2: the section [parms] is unknown; there is only [params]"},
        {"[params]\nprompt = a\n", ":2: prompt does not belong into [params]; move it to the top"},
        {"promt = a\n", ":1: the key \"promt\" is unknown; did you mean prompt?"},
        {"prompt = a\n\n[params]\nWidht = 64\n",
         ":4: the key \"Widht\" is unknown; did you mean width?"},
        {"prompt = a\ncolour = red\n", ":2: the key \"colour\" is unknown; README.txt of a mount "
                                       "and omnifs-prompt(5) list the keys"},
        {"prompt = a\nsteps = 3\n[params]\nsteps = 4\n",
         ":4: steps is set a second time; the first is in line 2"},
        /* values */
        {"prompt = a\nsteps = many\n", ":2: steps \"many\" is not a whole number"},
        {"prompt = a\nsteps = 4.5\n", ":2: steps \"4.5\" is not a whole number"},
        {"prompt = a\nsteps = 0x10\n", ":2: steps \"0x10\" is not a whole number"},
        {"prompt = a\nsteps = 0\n", ":2: steps 0 is outside 1 … 10000"},
        {"prompt = a\nsteps = 99999999999999999999\n",
         ":2: steps 99999999999999999999 is outside 1 … 10000"},
        {"prompt = a\nguidance = nan\n", ":2: guidance \"nan\" is not a number"},
        {"prompt = a\nguidance = -1\n", ":2: guidance -1 is outside 0 … 100"},
        {"prompt = a\nseed = -1\n",
         ":2: seed \"-1\" is not a whole number from 0 to 18446744073709551615"},
        {"prompt = a\nseed = 18446744073709551616\n",
         ":2: seed \"18446744073709551616\" is not a whole number from 0 to 18446744073709551615"},
        {"prompt = a\nsize = 1024\n", ":2: size \"1024\" is not like 1024x1024"},
        {"prompt = a\nsize = 64x8\n", ":2: size 64x8 is outside 16 … 65535"},
        {"prompt = a\nwatermark = maybe\n", ":2: watermark \"maybe\" is not yes or no"},
        {"prompt = a\nscheduler = flow_eular\n",
         ":2: scheduler \"flow_eular\" is unknown; did you mean flow_euler?"},
        {"prompt = a\nmode = dream\n",
         ":2: mode \"dream\" is unknown; it may be text_to_image, image_to_image, inpaint, "
         "outpaint, upscale, text_to_video, image_to_video, edit_video, video_to_gif, loop"},
        {"prompt = a\nimage = ../secret.png\n",
         ":2: image \"../secret.png\" is not the name of a file in the job folder"},
        {"prompt = a\nimage = a.png,\n", ":2: image names no file"},
        {"prompt = a\nlora = x:heavy\n", ":2: lora weight \"heavy\" is not a number in -10 … 10"},
        {"prompt = a\nexpand = 1,2,3\n",
         ":2: expand \"1,2,3\" is not four numbers of pixels: left,top,right,bottom"},
        {"prompt = a\nquality = 101\n", ":2: quality 101 is outside 1 … 100"},
        {"prompt = a\nloop = never\n",
         ":2: loop \"never\" is not forever or a number of times, 1 … 65535"},
        {"prompt = a\ndither = random\n",
         ":2: dither \"random\" is not auto, none, bayer or floyd"},
        /* limits */
        {"prompt = a\n\n[params]\nwidth = 5000\nheight = 64\n",
         ":4: width 5000 is over max_resolution 1024x1024 of image_default"},
        {"prompt = a\nsize = 64x1025\n",
         ":2: height 1025 is over max_resolution 1024x1024 of image_default"},
        {"prompt = a\nwidth = 64\n", ":2: width is set without height"},
        {"prompt = a\nsize = 64x64\nheight = 64\n",
         ":3: the size is set twice: by size and by width and height"},
        {"prompt = a\nsteps = 101\n", ":2: steps 101 is over max_steps 100 of image_default"},
        {"prompt = a\ncount = 5\n", ":2: count 5 is over max_count 4 of image_default"},
        /* modes and profiles */
        {"steps = 4\n", ": mode text_to_image needs prompt; write a line like `prompt = a red "
                        "apple`"},
        {"prompt = a\nmode = loop\n", ":2: mode loop belongs into the folder gif/, not image/"},
        {"mode = upscale\n", ": mode upscale needs image; write a line like `image = photo.png`"},
        {"mode = upscale\nimage = a.png\nprompt = b\n",
         ":3: prompt has no use in mode upscale; remove it"},
        {"mode = upscale\nimage = a.png, b.png\n",
         ":2: mode upscale enlarges one image, 2 are given"},
        {"image = a.png\nscale = 2\nsize = 64x64\n",
         ":2: the size is set twice: by size and by scale"},
        {"image = a.png\nscale = 17\n", ":2: scale 17 is outside 1 … 16"},
        {"mode = outpaint\nimage = a.png\n",
         ": mode outpaint needs expand; write a line like `expand = 64,0,64,0`"},
        {"image = a.png\nexpand = 0, 0,0,0\n",
         ":2: expand adds nothing; write a line like `expand = 64,0,64,0`"},
        {"image = a.png\nexpand = 64\n",
         ":2: expand \"64\" is not four numbers of pixels: left,top,right,bottom"},
        {"prompt = a\nmode = image_to_image\n",
         ": mode image_to_image needs image; write a line like `image = photo.png`"},
        {"prompt = a\nstrength = 0.5\n",
         ":2: strength has no use in mode text_to_image; remove it"},
        {"prompt = a\nframes = 4\n", ":2: frames has no use in mode text_to_image; remove it"},
        {"prompt = a\nprofile = image_smal\n",
         ":2: profile \"image_smal\" is unknown; did you mean image_small?"},
        {"prompt = a\nprofile = best\n", ":2: profile \"best\" is unknown; for image there are: "
                                         "image_default, image_small"},
        {"prompt = a\nprofile = video_default\n",
         ":2: profile video_default makes video, not image"},
        {"prompt = a\nlora = ../style:0.8\n", ":2: lora ../style is a path; a prompt names LoRAs "
                                              "by name, and paths are for registry.ini"},
        {"prompt = a\nlora = b, /etc/passwd\n", ":2: lora /etc/passwd is a path; a prompt names "
                                                "LoRAs by name, and paths are for registry.ini"},
        {"prompt = a\nsafety_level = off\n", ":2: safety_level off is below the standard of "
                                             "profile image_default, which is not allowed "
                                             "here (allow_off in registry.ini)"},
        {"prompt = a\nprofile = image_small\nsafety_level = standard\n",
         ":3: safety_level standard is below the strict of profile image_small, which is not "
         "allowed here (allow_off in registry.ini)"},
        {"prompt = a\nwatermark = no\n", ":2: watermark no is not allowed here (allow_no_watermark "
                                         "in registry.ini); use yes"},
        {"prompt = a\nreturn_format = mp4\n",
         ":2: return_format mp4 is nothing for image; it may be png, jpeg or webp"},
        {"prompt = a\nreturn_format = jpge\n",
         ":2: return_format \"jpge\" is unknown; did you mean jpeg?"},
        {"prompt = a\nreturn_format = avif\n",
         ":2: return_format \"avif\" is unknown; it may be png, jpeg, webp, mp4, webm, gif"},
        {"prompt = a\nspf = 2\n",
         ":2: the key \"spf\" is unknown; README.txt of a mount and omnifs-prompt(5) "
         "list the keys"},
        {"prompt = a\nfsp = 2\n", ":2: the key \"fsp\" is unknown; did you mean fps?"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char sentence[512];
        snprintf(sentence, sizeof sentence, WHERE "%s", cases[i].sentence);
        expect_error(*state, MODALITY_IMAGE, cases[i].text, sentence);
    }
}

static void a_key_without_use_is_refused(void **state)
{
    static const struct {
        enum modality modality;
        const char *text, *sentence;
    } cases[] = {
        {MODALITY_IMAGE, "quality = 80\n", "quality has no use with return_format png"},
        {MODALITY_IMAGE, "return_format = jpeg\npalette = 8\n",
         "palette has no use with return_format jpeg"},
        {MODALITY_IMAGE, "dither = none\n", "dither has no use with return_format png"},
        {MODALITY_IMAGE, "loop = forever\n", "loop has no use in mode text_to_image"},
        {MODALITY_IMAGE, "fps = 12\n", "fps has no use in mode text_to_image"},
        {MODALITY_IMAGE, "seconds = 1\n", "seconds has no use in mode text_to_image"},
        {MODALITY_VIDEO, "loop = 2\n", "loop has no use in mode text_to_video"},
        {MODALITY_VIDEO, "count = 2\n", "count has no use in mode text_to_video"},
        {MODALITY_VIDEO, "return_format = png\nquality = 80\n",
         "quality has no use with return_format png"},
        {MODALITY_VIDEO, "palette = 16\n", "palette has no use with return_format mp4"},
        {MODALITY_GIF, "quality = 80\n", "quality has no use with return_format gif"},
        {MODALITY_GIF, "return_format = webp\npalette = 16\n",
         "palette has no use with return_format webp"},
        {MODALITY_GIF, "video = a.mp4\nseed = 1\n", "seed has no use in mode video_to_gif"},
        {MODALITY_GIF, "video = a.mp4\nsteps = 4\n", "steps has no use in mode video_to_gif"},
        {MODALITY_GIF, "video = a.mp4\nwatermark = yes\n",
         "watermark has no use in mode video_to_gif"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        bool converts = strstr(cases[i].text, "video =") != NULL;
        char text[256], sentence[256];
        snprintf(text, sizeof text, "%s%s", cases[i].text, converts ? "" : "prompt = a\n");
        int line = strchr(cases[i].text, '\n')[1] ? 2 : 1;
        snprintf(sentence, sizeof sentence, WHERE ":%d: %s; remove it", line, cases[i].sentence);
        expect_error(*state, cases[i].modality, text, sentence);
    }
    expect_error(*state, MODALITY_GIF, "video = a.mp4\nprompt = a star\n",
                 WHERE ":2: prompt has no use in mode video_to_gif; remove it");
}

static void control_characters_do_not_reach_the_sentence(void **state)
{
    expect_error(*state, MODALITY_IMAGE, "prompt = a\nsteps = \x1b[31mred\n",
                 WHERE ":2: steps \"?[31mred\" is not a whole number");
}

static void length_of_a_clip_is_said_once(void **state)
{
    expect_error(*state, MODALITY_VIDEO, "prompt = a\nframes = 4\nseconds = 2\n",
                 WHERE ":3: the length is set twice: by frames and by seconds");
    expect_error(*state, MODALITY_VIDEO, "prompt = a\nframes = 49\n",
                 WHERE ":2: frames 49 is over max_frames 48 of video_default");
    expect_error(*state, MODALITY_VIDEO, "prompt = a\nseconds = 5\n",
                 WHERE ":2: seconds 5 at 12 frames a second are 60 frames, over max_frames 48 of "
                       "video_default");
    struct request r = accept(*state, MODALITY_VIDEO, "prompt = a\nseconds = 1.5\nfps = 10\n");
    assert_int_equal(r.frames, 15);
    request_free(&r);
}

/* ---- what is filled in ---- */

static void defaults_come_from_modality_and_profile(void **state)
{
    struct request r = accept(*state, MODALITY_IMAGE, "prompt = a\n");
    assert_int_equal(r.mode, MODE_TEXT_TO_IMAGE);
    assert_string_equal(r.profile, "image_default");
    assert_int_equal(r.width, 1024);
    assert_int_equal(r.height, 1024);
    assert_int_equal(r.steps, 20);
    assert_true(r.guidance == 4);
    assert_int_equal(r.frames, 1);
    assert_int_equal(r.count, 1);
    assert_int_equal(r.format, MEDIA_PNG);
    assert_int_equal(r.safety_level, SAFETY_STANDARD);
    assert_true(r.watermark);
    request_free(&r);

    r = accept(*state, MODALITY_IMAGE, "prompt = a\nprofile = image_small\nreturn_format = jpg\n");
    assert_int_equal(r.width, 64);
    assert_int_equal(r.steps, 0); /* the checkpoint's own */
    assert_true(isnan(r.guidance));
    assert_int_equal(r.safety_level, SAFETY_STRICT);
    assert_false(r.watermark);
    assert_int_equal(r.format, MEDIA_JPEG);
    request_free(&r);

    r = accept(*state, MODALITY_VIDEO, "prompt = a\n");
    assert_int_equal(r.mode, MODE_TEXT_TO_VIDEO);
    assert_int_equal(r.width, 768);
    assert_int_equal(r.height, 432);
    assert_int_equal(r.frames, 24);
    assert_true(r.fps == 12);
    assert_int_equal(r.format, MEDIA_MP4);
    request_free(&r);
}

static void mode_follows_the_references(void **state)
{
    static const struct {
        enum modality modality;
        const char *text;
        enum job_mode mode;
    } cases[] = {
        {MODALITY_IMAGE, "prompt = a\nimage = b.png\n", MODE_IMAGE_TO_IMAGE},
        {MODALITY_IMAGE, "prompt = a\nimage = b.png\nmask = m.png\n", MODE_INPAINT},
        {MODALITY_IMAGE, "image = b.png\nscale = 2\n", MODE_UPSCALE},
        {MODALITY_IMAGE, "image = b.png\nexpand = 1,2,3,4\n", MODE_OUTPAINT},
        {MODALITY_VIDEO, "prompt = a\nimage = b.png\n", MODE_IMAGE_TO_VIDEO},
        {MODALITY_VIDEO, "prompt = a\nvideo = b.mp4\n", MODE_EDIT_VIDEO},
        {MODALITY_GIF, "prompt = a\n", MODE_LOOP},
        {MODALITY_GIF, "prompt = a\nimage = b.png\n", MODE_LOOP},
        {MODALITY_GIF, "video = b.mp4\n", MODE_VIDEO_TO_GIF},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct request r = accept(*state, cases[i].modality, cases[i].text);
        assert_int_equal(r.mode, cases[i].mode);
        request_free(&r);
    }
}

static void seeds_are_kept_whole_or_drawn(void **state)
{
    struct request r = accept(*state, MODALITY_IMAGE, "prompt = a\nseed = 18446744073709551615\n");
    assert_true(r.seed == UINT64_MAX);
    request_free(&r);
    struct request a = accept(*state, MODALITY_IMAGE, "prompt = a\n");
    struct request b = accept(*state, MODALITY_IMAGE, "prompt = a\n");
    struct request c = accept(*state, MODALITY_IMAGE, "prompt = a\n");
    assert_true(a.seed != b.seed || b.seed != c.seed);
    assert_true(a.seed <= UINT32_MAX && b.seed <= UINT32_MAX);
    request_free(&a);
    request_free(&b);
    request_free(&c);
}

static int collect(void *ctx, const char *name)
{
    str_addf(ctx, "%s ", name);
    return 0;
}

static void references_are_listed_in_order(void **state)
{
    struct request r =
        accept(*state, MODALITY_IMAGE, "prompt = a\nmask = m.png\nimage = b.png, c d.jpg\n");
    AUTO_STR struct str names = {0};
    assert_int_equal(request_references(&r, collect, &names), 0);
    assert_string_equal(names.data, "b.png c d.jpg m.png ");
    request_free(&r);
}

/* ---- overriding and reproducing ---- */

static void the_command_line_replaces_keys(void **state)
{
    struct request r;
    struct err e;
    const struct profile *p;
    static const char text[] = "prompt = a\nsize = 64x64\nsteps = 3\n";
    assert_int_equal(request_parse(text, strlen(text), WHERE, MODALITY_IMAGE, &r, &e), 0);
    assert_int_equal(request_set(&r, "steps", "9", "-s", &e), 0);
    assert_int_equal(request_set(&r, "width", "32", "-s", &e), 0);
    assert_int_equal(request_set(&r, "height", "48", "-s", &e), 0);
    assert_int_equal(request_set(&r, "prompt", "b", "-s", &e), 0);
    assert_int_equal(request_set(&r, "stpes", "9", "-s", &e), -EINVAL);
    assert_string_equal(e.text, "-s: the key \"stpes\" is unknown; did you mean steps?");
    assert_int_equal(request_normalise(&r, *state, WHERE, &p, &e), 0);
    assert_string_equal(r.prompt, "b");
    assert_int_equal(r.steps, 9);
    assert_int_equal(r.width, 32);
    assert_int_equal(r.height, 48);
    request_free(&r);
}

/* The request of a metadata.json, as text. */
static char *as_metadata(const struct request *r)
{
    json_t *root = json_pack("{so}", "request", request_json(r));
    char *text = json_dumps(root, 0);
    json_decref(root);
    return text;
}

static void metadata_gives_the_same_request_again(void **state)
{
    static const struct {
        enum modality modality;
        const char *text;
    } cases[] = {
        {MODALITY_IMAGE, "prompt = a \"cat\"\n  # on; a mat\nnegative_prompt =\nseed = "
                         "18446744073709551615\nsteps = 7\nguidance = 3.1\ncount = 2\n"
                         "return_format = webp\nquality = 71\nscheduler = ddim\n"},
        {MODALITY_IMAGE, "prompt = a\nimage = b.png, c.png\nmask = m.png\nstrength = 0.37\n"},
        {MODALITY_IMAGE, "prompt = a\nprofile = image_small\n"}, /* its own watermark and level */
        {MODALITY_VIDEO, "prompt = a\nseconds = 1\nreturn_format = png\n"},
        {MODALITY_GIF, "prompt = a\nloop = 3\npalette = 16\ndither = floyd\n"},
        {MODALITY_GIF, "video = clip.mp4\nfps = 7.5\n"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct request a = accept(*state, cases[i].modality, cases[i].text), b;
        struct err e = {0};
        const struct profile *p;
        AUTO_FREE char *first = as_metadata(&a);
        if (request_from_json(first, strlen(first), "metadata.json", &b, &e) ||
            request_normalise(&b, *state, "metadata.json", &p, &e))
            fail_msg("%s\n%s", e.text, first);
        AUTO_FREE char *second = as_metadata(&b);
        assert_string_equal(first, second);
        assert_int_equal(a.modality, b.modality);
        request_free(&a);
        request_free(&b);
    }
}

static void other_json_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *sentence;
    } cases[] = {
        {"{", "m.json:1: string or '}' expected near end of file"},
        {"{\"request\": null}",
         "m.json: the request of that run had a mistake and was not recorded; use "
         "its prompt.ini"},
        {"[]", "m.json has no request with a modality; is it a metadata.json of omnifs?"},
        {"{\"request\":{\"modality\":\"smell\"}}",
         "m.json has no request with a modality; is it a metadata.json of omnifs?"},
        {"{\"request\":{\"modality\":\"image\",\"steps\":{}}}",
         "m.json: request.steps has no value that a key can have"},
        {"{\"request\":{\"modality\":\"image\",\"steps\":0}}",
         "m.json: steps 0 is outside 1 … 10000"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct request r;
        struct err e = {0};
        assert_true(request_from_json(cases[i].text, strlen(cases[i].text), "m.json", &r, &e) < 0);
        assert_string_equal(e.text, cases[i].sentence);
        request_free(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_long_prompt_with_semicolons_survives),
        cmocka_unit_test(comments_are_whole_lines_only),
        cmocka_unit_test(indented_lines_continue_the_value_above),
        cmocka_unit_test(windows_and_bare_files_read_the_same),
        cmocka_unit_test(an_empty_negative_prompt_is_not_an_absent_one),
        cmocka_unit_test(hostile_text_is_refused),
        cmocka_unit_test(every_mistake_is_told_with_its_line),
        cmocka_unit_test(a_key_without_use_is_refused),
        cmocka_unit_test(control_characters_do_not_reach_the_sentence),
        cmocka_unit_test(length_of_a_clip_is_said_once),
        cmocka_unit_test(defaults_come_from_modality_and_profile),
        cmocka_unit_test(mode_follows_the_references),
        cmocka_unit_test(seeds_are_kept_whole_or_drawn),
        cmocka_unit_test(references_are_listed_in_order),
        cmocka_unit_test(the_command_line_replaces_keys),
        cmocka_unit_test(metadata_gives_the_same_request_again),
        cmocka_unit_test(other_json_is_refused),
    };
    return cmocka_run_group_tests(tests, load_registry, unload_registry);
}
