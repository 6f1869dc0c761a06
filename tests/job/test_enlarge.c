/* Profiles whose networks enlarge what the model drew: what comes of it, what it may cost, and
 * what is said where the networks are missing. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/golden.h"
#include "../support/pictures.h"
#include "../support/scratch.h"
#include "../support/scripted_generator.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "job/size.h"
#include "job/run.h"
#include "media/media.h"

#define PROFILE(name, kind, upscaler)                                                              \
    "[" name "]\nomni_model_id = tiny\nmodality = " kind                                           \
    "\nnative_resolution = 64x64\ndefault_size = 128x128\nsteps = 2\nprecision = fp32\n"           \
    "frames = 3\nmax_frames = 4\nmax_resolution = 300x400\nupscaler = " upscaler "\n"
static const char registry_text[] = PROFILE("image_default", "image", "nets")
    PROFILE("filtered", "image", "lanczos") PROFILE("video_default", "video", "nets");

struct fixture {
    char *folder;
    struct script script;
    struct generator generator;
    struct registry *registry;
    struct models *models;
    int fd;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    void *folder;
    struct err e;
    char path[128];
    if (!f || scratch_setup(&folder))
        return -1;
    f->folder = folder;
    snprintf(path, sizeof path, "%s/tiny", f->folder);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/nets", f->folder);
    golden_write_parts("tests/engine/golden/upscale", path);
    setenv("OMNIFS_MODELS", f->folder, 1);
    script_init(&f->script);
    f->generator = script_generator(&f->script);
    f->fd = open(f->folder, O_RDONLY | O_DIRECTORY);
    *state = f;
    if (registry_parse(registry_text, strlen(registry_text), "registry.ini", &f->registry, &e) ||
        models_new(&f->generator, &(struct omni_device){.name = "cpu"}, 1 << 30, 2, &f->models,
                   &e)) {
        fprintf(stderr, "%s\n", e.text);
        return -1;
    }
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    void *folder = f->folder;
    models_free(f->models);
    registry_unref(f->registry);
    close(f->fd);
    free(f);
    return scratch_teardown(&folder);
}

static void run_one(struct fixture *f, struct run *r, enum modality m, const char *text)
{
    run_init(r, "20260131-000000-0123456789", "cat/prompt.ini", m);
    r->text = text;
    r->size = strlen(text);
    r->in_fd = r->out_fd = f->fd;
    r->registry = f->registry;
    r->models = f->models;
    r->created_ms = clock_wall_ms();
    assert_int_equal(run_batch((struct run *[]){r}, 1), 0);
}

/* The picture that a prompt gives; the caller frees it. */
static struct picture picture_of(struct fixture *f, const char *text)
{
    struct media_limits limits;
    struct picture p;
    struct run r;
    struct err e;
    media_limits_init(&limits);
    run_one(f, &r, MODALITY_IMAGE, text);
    assert_string_equal(r.error.text, "");
    run_free(&r);
    assert_int_equal(media_read_image(f->fd, "image.png", &limits, MEDIA_READ_RGB, &p, &e), 0);
    return p;
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
static struct picture enlarged(struct fixture *f, const struct picture *p, int factor)
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
    struct fixture *f = *state;
    struct picture small = picture_of(f, "prompt = a\nseed = 5\nsize = 64x64\n");
    struct picture large = picture_of(f, "prompt = a\nseed = 5\n");
    struct picture expected = enlarged(f, &small, 2);
    struct picture filtered = picture_of(f, "prompt = a\nseed = 5\nprofile = filtered\n");
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
    struct fixture *f = *state;
    struct picture small = picture_of(f, "prompt = a\nseed = 5\nsize = 64x64\n");
    struct picture large = picture_of(f, "prompt = a\nseed = 5\nsize = 200x200\n");
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
    struct fixture *f = *state;
    struct run r;
    run_one(f, &r, MODALITY_VIDEO, "prompt = a\nseed = 5\nreturn_format = png\n");
    assert_string_equal(r.error.text, "");
    assert_int_equal(r.output_count, 3);
    assert_int_equal(r.outputs[2].width, 128);
    assert_int_equal(r.outputs[2].generated_width, 64);
    run_free(&r);
}

static void a_result_that_cannot_be_enlarged_in_memory_is_refused_before_it_is_drawn(void **state)
{
    struct fixture *f = *state;
    struct err e;
    struct run r;
    models_free(f->models);
    assert_int_equal(
        models_new(&f->generator, &(struct omni_device){.name = "cpu"}, 1 << 20, 2, &f->models, &e),
        0);
    run_one(f, &r, MODALITY_IMAGE, "prompt = a\nsize = 256x256\nprofile = filtered\n");
    assert_int_equal(r.state, JOB_DONE); /* a filter needs next to nothing */
    run_free(&r);
    f->script.generates = 0;
    run_one(f, &r, MODALITY_IMAGE, "prompt = a\nsize = 256x256\n");
    assert_int_equal(r.state, JOB_FAILED);
    assert_non_null(strstr(r.error.text, "the result needs "));
    assert_int_equal(f->script.generates, 0);
    run_free(&r);
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static void a_square_stands_in_the_middle_and_its_edges_go_on(void **state)
{
    (void)state;
    struct picture in, out;
    struct err e = {0};
    int width, height;
    assert_int_equal(picture_new(&in, 2, 2, 2), 0);
    for (size_t i = 0; i < 2 * picture_frame_bytes(&in); i++)
        picture_frame(&in, 0)[i] = (uint8_t)i;
    size_fit(&in, 7, 4, &width, &height);
    assert_int_equal(width, 4);
    assert_int_equal(height, 4);
    assert_int_equal(size_extend(&in, 5, 3, &out, &e), 0);
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
        TEST(a_result_that_cannot_be_enlarged_in_memory_is_refused_before_it_is_drawn),
        TEST(missing_networks_are_told_when_the_registry_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
