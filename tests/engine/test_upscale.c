/* Networks that enlarge pictures: what they give against PyTorch, in bands and in several passes.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "../support/golden.h"
#include "../support/pictures.h"
#include "../support/scratch.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "engine/backend.h"
#include "engine/omni.h"
#include "engine/upscale/network.h"

#define GOLDEN "tests/engine/golden/upscale"
/* The picture of tests/reference/golden_upscale.py. */
#define WIDTH  23
#define HEIGHT 37
#define K      5

static const struct omni_load_options options = {
    .device = "cpu", .precision = OMNI_FP32, .threads = 2};

static int setup(void **state)
{
    if (scratch_setup(state))
        return -1;
    golden_write_parts(GOLDEN, *state);
    return 0;
}

static struct omni_upscaler *open_upscaler(const char *folder)
{
    struct omni_upscaler *u;
    struct err e;
    if (omni_upscaler_load(folder, &options, &u, &e))
        fail_msg("%s", e.text);
    return u;
}

/* ---- against PyTorch ---- */

static float *expected_of(const char *part, size_t values)
{
    char path[128];
    struct err e;
    char *bytes;
    size_t size;
    snprintf(path, sizeof path, GOLDEN "/%s.f32", part);
    if (file_read(AT_FDCWD, path, 1 << 24, &bytes, &size, &e))
        fail_msg("%s", e.text);
    assert_int_equal(size, values * sizeof(float));
    return (float *)(void *)bytes;
}

/* The picture with its edge pixels repeated twice. */
static float *bordered(void)
{
    const int w = WIDTH + 4, h = HEIGHT + 4;
    float *out = calloc((size_t)(w * h * 3), sizeof *out);
    struct picture p = picture_by_formula(WIDTH, HEIGHT, K);
    for (int i = 0; i < w * h * 3; i++) {
        int x = i / 3 % w - 2, y = i / 3 / w - 2;
        x = x < 0 ? 0 : x >= WIDTH ? WIDTH - 1 : x;
        y = y < 0 ? 0 : y >= HEIGHT ? HEIGHT - 1 : y;
        out[i] = (float)p.rgb[(y * WIDTH + x) * 3 + i % 3] / 255;
    }
    picture_free(&p);
    return out;
}

static double relative_distance(const float *got, const float *expected, int scale)
{
    double difference = 0, size = 0;
    int side = WIDTH * scale;
    for (int y = 0; y < HEIGHT * scale; y++)
        for (int x = 0; x < side; x++)
            for (int c = 0; c < 3; c++) {
                int at = (y / scale * WIDTH + x / scale) * 3 * scale * scale;
                double v = got[at + c * scale * scale + y % scale * scale + x % scale];
                double want = expected[(y * side + x) * 3 + c];
                difference += (v - want) * (v - want);
                size += want * want;
            }
    return sqrt(difference / size);
}

static void check_network(const char *folder, const char *name, struct backend *b)
{
    char path[128];
    struct part p;
    struct upscale_network *n;
    struct err e = {0};
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(part_open(&p, path, name, UPSCALE_STEM, &e), 0);
    p.loader.backend = b;
    p.loader.compute = DTYPE_F32;
    if (upscale_network_load(&p, &n, &e))
        fail_msg("%s", e.text);
    int scale = upscale_network_scale(n);
    size_t values = (size_t)(WIDTH * HEIGHT * 3 * scale * scale);
    AUTO_FREE float *in = bordered(), *expected = expected_of(name, values);
    AUTO_FREE float *got = calloc(values, sizeof *got);
    struct ops *o = ops_new(b, DTYPE_F32, 64 << 20, &e);
    struct tensor *x = op_from_host(o, DTYPE_F32, SHAPE(1, HEIGHT + 4, WIDTH + 4, 3), in);
    x = upscale_network_run(n, o, x);
    if (op_to_host(o, x, got, values * sizeof *got)) {
        ops_error(o, &e);
        fail_msg("%s", e.text);
    }
    double distance = relative_distance(got, expected, scale);
    print_message("# %s: relative distance %.2g\n", name, distance);
    assert_true(distance <= 1e-4);
    ops_free(o);
    upscale_network_free(n);
    part_close(&p);
}

static void networks_give_what_torch_gives(void **state)
{
    struct backend *b;
    assert_int_equal(cpu_backend_new(2, &b, NULL), 0);
    for (int i = 0; i < UPSCALE_NETWORKS; i++)
        check_network(*state, upscale_parts[i], b);
    backend_free(b);
}

/* ---- whole pictures ---- */

struct taken {
    struct picture frames[4];
    int count, stop_at;
    bool cancelled;
};

static int take(void *ctx, int index, const struct picture *large, struct err *e)
{
    struct taken *t = ctx;
    assert_int_equal(index, t->count);
    assert_int_equal(large->frames, 1);
    struct picture *p = &t->frames[t->count++];
    assert_int_equal(picture_new(p, large->width, large->height, 1), 0);
    memcpy(p->rgb, large->rgb, picture_frame_bytes(p));
    return t->stop_at == t->count ? err_set(e, -EIO, "the disk is full") : 0;
}

static bool is_cancelled(void *ctx)
{
    return ((const struct taken *)ctx)->cancelled;
}

static int enlarge(const struct omni_upscaler *u, const struct picture *in, int factor,
                   struct taken *t, struct err *e)
{
    const struct omni_upscale job = {in, factor, t, is_cancelled, take};
    return omni_upscale(u, &job, e);
}

static void forget(struct taken *t)
{
    for (int i = 0; i < t->count; i++)
        picture_free(&t->frames[i]);
    *t = (struct taken){0};
}

static void pixels_lie_where_torch_puts_them(void **state)
{
    struct omni_upscaler *u = open_upscaler(*state);
    AUTO_FREE float *expected = expected_of("upscaler", WIDTH * HEIGHT * 48);
    struct picture p = picture_by_formula(WIDTH, HEIGHT, K);
    struct taken t = {0};
    struct err e;
    assert_int_equal(enlarge(u, &p, 4, &t, &e), 0);
    assert_int_equal(t.frames[0].width, 4 * WIDTH);
    assert_int_equal(t.frames[0].height, 4 * HEIGHT);
    int off = 0;
    for (int i = 0; i < WIDTH * HEIGHT * 48; i++) {
        float v = expected[i] < 0 ? 0 : expected[i] > 1 ? 1 : expected[i];
        assert_true(fabsf(v * 255 - t.frames[0].rgb[i]) < 0.51f);
        off += t.frames[0].rgb[i] > 0 && t.frames[0].rgb[i] < 255;
    }
    assert_true(off > 1000); /* they are not all black or white */
    forget(&t);
    picture_free(&p);
    omni_upscaler_free(u);
}

static void bands_give_what_the_whole_gives(void **state)
{
    struct omni_upscaler *u = open_upscaler(*state);
    struct picture p = scene(40, 150, 1);
    struct taken whole = {0}, banded = {0};
    uint64_t all, less;
    struct err e;
    assert_int_equal(enlarge(u, &p, 2, &whole, &e), 0);
    assert_int_equal(omni_upscale_plan(u, 40, 150, 2, &all, &e), 0);
    upscale_set_band(u, 1);
    assert_int_equal(enlarge(u, &p, 2, &banded, &e), 0);
    assert_int_equal(omni_upscale_plan(u, 40, 150, 2, &less, &e), 0);
    assert_true(less < all);
    assert_memory_equal(whole.frames[0].rgb, banded.frames[0].rgb,
                        picture_frame_bytes(&whole.frames[0]));
    forget(&whole);
    forget(&banded);
    picture_free(&p);
    omni_upscaler_free(u);
}

static void memory_is_bound_by_the_width_alone(void **state)
{
    struct omni_upscaler *u = open_upscaler(*state);
    uint64_t some, more;
    struct err e;
    assert_int_equal(omni_upscale_plan(u, 1000, 8000, 2, &some, &e), 0);
    assert_int_equal(omni_upscale_plan(u, 1000, 16000, 2, &more, &e), 0);
    assert_int_equal(more - some, (uint64_t)2000 * 16000 * 3); /* the enlarged picture */
    omni_upscaler_free(u);
}

static void frames_of_a_clip_are_enlarged_as_alone(void **state)
{
    struct omni_upscaler *u = open_upscaler(*state);
    struct picture clip = scene(24, 16, 3);
    struct taken together = {0};
    struct err e;
    assert_int_equal(enlarge(u, &clip, 8, &together, &e), 0);
    assert_int_equal(together.count, 3);
    assert_int_equal(together.frames[2].width, 192);
    for (int f = 0; f < 3; f++) {
        const struct picture frame = {24, 16, 1, picture_frame(&clip, f)};
        struct taken alone = {0};
        assert_int_equal(enlarge(u, &frame, 8, &alone, &e), 0);
        assert_memory_equal(alone.frames[0].rgb, together.frames[f].rgb, 192 * 128 * 3);
        forget(&alone);
    }
    forget(&together);
    picture_free(&clip);
    omni_upscaler_free(u);
}

static void the_rest_of_an_enlargement_is_a_filters(void **state)
{
    static const struct {
        double times;
        int factor;
    } cases[] = {{0.5, 1}, {1, 1}, {1.1, 2}, {2, 2}, {3, 2}, {3.1, 4}, {5.33, 4}, {8, 8}, {16, 16}};
    struct omni_upscaler *u = open_upscaler(*state);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(omni_upscaler_factor(u, cases[i].times), cases[i].factor);
    omni_upscaler_free(u);
}

static void a_call_ends_when_it_is_cancelled_or_nobody_takes_the_result(void **state)
{
    struct omni_upscaler *u = open_upscaler(*state);
    struct picture clip = scene(24, 16, 3);
    struct taken t = {.stop_at = 2};
    struct err e;
    assert_int_equal(enlarge(u, &clip, 2, &t, &e), -EIO);
    assert_string_equal(e.text, "the disk is full");
    assert_int_equal(t.count, 2);
    forget(&t);
    t.cancelled = true;
    assert_int_equal(enlarge(u, &clip, 2, &t, &e), -ECANCELED);
    assert_int_equal(t.count, 0);
    assert_int_equal(enlarge(u, &clip, 7, &t, &e), -EINVAL);
    assert_string_equal(e.text, "this upscaler does not enlarge 7 times");
    picture_free(&clip);
    omni_upscaler_free(u);
}

/* ---- what a folder holds ---- */

static void the_sum_changes_with_the_files_of_either_network(void **state)
{
    char path[128], sums[3][65];
    for (int i = 0; i < 3; i++) {
        struct omni_upscaler *u = open_upscaler(*state);
        memcpy(sums[i], omni_upscaler_info(u)->sha256, sizeof sums[i]);
        omni_upscaler_free(u);
        snprintf(path, sizeof path, "%s/%s/config.json", (const char *)*state,
                 upscale_parts[i % UPSCALE_NETWORKS]);
        FILE *f = fopen(path, "a");
        assert_non_null(f);
        fputs("\n", f);
        fclose(f);
    }
    assert_int_equal(strlen(sums[0]), 64);
    assert_string_not_equal(sums[0], sums[1]);
    assert_string_not_equal(sums[1], sums[2]);
}

static void expect_refused(const char *folder, const char *sentence)
{
    struct omni_upscaler *u;
    struct err e = {0};
    if (omni_upscaler_load(folder, &options, &u, &e) == 0)
        fail_msg("accepted: %s", sentence);
    if (!strstr(e.text, sentence))
        fail_msg("expected '%s', found '%s'", sentence, e.text);
}

static void write_config(const char *folder, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/upscaler/config.json", folder);
    scratch_write(path, text);
}

/* The last test: it spoils the folder. */
static void what_is_wrong_with_a_network_is_said(void **state)
{
    const char *folder = *state;
    char path[128];
    snprintf(path, sizeof path, "%s/upscaler_x2", folder);
    file_remove_tree(AT_FDCWD, path);
    struct omni_upscaler *u = open_upscaler(folder);
    assert_int_equal(omni_upscaler_factor(u, 2), 4); /* it can do without the other one */
    omni_upscaler_free(u);
    write_config(folder, "{\"_class_name\": \"OmniUpscaler\", \"scale\": 4, \"channels\": 12, "
                         "\"blocks\": 4}");
    expect_refused(folder, "tensor 'blocks.3.conv1.weight' is missing");
    write_config(folder, "{\"_class_name\": \"OmniUpscaler\", \"scale\": 3, \"channels\": 12, "
                         "\"blocks\": 3}");
    expect_refused(folder, "tensor 'conv_out.weight' has shape [48, 12, 3, 3], expected "
                           "[27, 12, 3, 3]");
    write_config(folder, "{\"_class_name\": \"OmniUpscaler\", \"scale\": 9, \"channels\": 12, "
                         "\"blocks\": 3}");
    expect_refused(folder, "scale");
    write_config(folder, "{\"_class_name\": \"OmniUpscaler\", \"scale\": 4}");
    expect_refused(folder, "channels");
    write_config(folder, "{\"_class_name\": \"AutoencoderTiny\"}");
    expect_refused(folder, "the class 'AutoencoderTiny' is no upscaler, expected OmniUpscaler");
    snprintf(path, sizeof path, "%s/upscaler", folder);
    file_remove_tree(AT_FDCWD, path);
    expect_refused(folder, "upscaler/config.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(networks_give_what_torch_gives),
        cmocka_unit_test(pixels_lie_where_torch_puts_them),
        cmocka_unit_test(bands_give_what_the_whole_gives),
        cmocka_unit_test(memory_is_bound_by_the_width_alone),
        cmocka_unit_test(frames_of_a_clip_are_enlarged_as_alone),
        cmocka_unit_test(the_rest_of_an_enlargement_is_a_filters),
        cmocka_unit_test(a_call_ends_when_it_is_cancelled_or_nobody_takes_the_result),
        cmocka_unit_test(the_sum_changes_with_the_files_of_either_network),
        cmocka_unit_test(what_is_wrong_with_a_network_is_said),
    };
    return cmocka_run_group_tests(tests, setup, scratch_teardown);
}
