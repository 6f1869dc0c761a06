/* Palettes: the search finds the true nearest, the palette is good, dithering keeps the mean. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/pictures.h"
#include "media/dither.h"
#include "media/palette.h"

static int distance(const uint8_t *c, int r, int g, int b)
{
    return 2 * (c[0] - r) * (c[0] - r) + 4 * (c[1] - g) * (c[1] - g) + 3 * (c[2] - b) * (c[2] - b);
}

static void the_search_finds_what_trying_all_finds(void **state)
{
    (void)state;
    for (int colours = 1; colours <= 256; colours += 51) {
        struct palette p = {.colours = colours};
        struct palette_finder f;
        uint32_t seed = (uint32_t)colours;
        for (int i = 0; i < colours * 3; i++) {
            seed = seed * 1664525 + 1013904223;
            p.rgb[i / 3][i % 3] = (uint8_t)(seed >> 24);
        }
        assert_int_equal(palette_finder_init(&f, &p), 0);
        for (int i = 0; i < 20000; i++) {
            seed = seed * 1664525 + 1013904223;
            int r = seed >> 24, g = seed >> 16 & 255, b = seed >> 8 & 255, least = INT32_MAX;
            for (int k = 0; k < colours; k++)
                least = distance(p.rgb[k], r, g, b) < least ? distance(p.rgb[k], r, g, b) : least;
            assert_int_equal(distance(p.rgb[palette_nearest(&f, r, g, b)], r, g, b), least);
        }
        palette_finder_free(&f);
    }
}

static double palette_error(const struct palette *p, const struct picture *in)
{
    struct palette_finder f;
    double sum = 0;
    size_t pixels = picture_frame_bytes(in) / 3;
    assert_int_equal(palette_finder_init(&f, p), 0);
    for (size_t i = 0; i < pixels; i++) {
        const uint8_t *px = in->rgb + 3 * i;
        sum +=
            distance(p->rgb[palette_nearest(&f, px[0], px[1], px[2])], px[0], px[1], px[2]) / 3.0;
    }
    palette_finder_free(&f);
    return sum / ((double)pixels * 3);
}

static void a_made_palette_is_far_better_than_an_even_one(void **state)
{
    (void)state;
    struct picture in = scene(200, 150, 1);
    struct palette even = {.colours = 252}, made;
    for (int i = 0; i < 252; i++) { /* 6 x 7 x 6 levels */
        even.rgb[i][0] = (uint8_t)(i / 42 * 255 / 5);
        even.rgb[i][1] = (uint8_t)(i / 6 % 7 * 255 / 6);
        even.rgb[i][2] = (uint8_t)(i % 6 * 255 / 5);
    }
    assert_int_equal(palette_make(in.rgb, 200 * 150, 252, &made), 0);
    assert_int_equal(made.colours, 252);
    assert_false(made.exact);
    assert_true(palette_error(&made, &in) * 8 < palette_error(&even, &in));
    picture_free(&in);
}

static void few_colours_are_taken_as_they_are(void **state)
{
    (void)state;
    uint8_t px[300 * 3];
    struct palette p;
    for (int i = 0; i < 300; i++) {
        px[3 * i] = (uint8_t)(i % 256);
        px[3 * i + 1] = (uint8_t)(i % 256 / 2);
        px[3 * i + 2] = 7;
    }
    assert_int_equal(palette_make(px, 300, 256, &p), 0);
    assert_true(p.exact);
    assert_int_equal(p.colours, 256);
    assert_int_equal(palette_make(px, 300, 255, &p), 0);
    assert_false(p.exact);
    assert_in_range(p.colours, 200, 255);
    assert_int_equal(palette_make(px, 1, 2, &p), 0);
    assert_true(p.exact && p.colours == 1);
}

/* 37 % gray in black and white: dithers keep the mean, none makes it black. */
static void dithering_keeps_the_mean(void **state)
{
    (void)state;
    struct palette p = {.colours = 2, .rgb = {{0, 0, 0}, {255, 255, 255}}};
    uint8_t *rgb = malloc(64 * 64 * 3), *indices = calloc(64, 64);
    assert_non_null(rgb);
    assert_non_null(indices);
    memset(rgb, 94, 64 * 64 * 3);
    static const struct {
        enum media_dither how;
        double least, most;
    } cases[] = {{MEDIA_DITHER_NONE, 0, 0},
                 {MEDIA_DITHER_BAYER, 0.34, 0.40},
                 {MEDIA_DITHER_FLOYD, 0.35, 0.39}};
    for (int i = 0; i < 3; i++) {
        struct palette_finder f;
        double mean = 0;
        assert_int_equal(palette_finder_init(&f, &p), 0);
        assert_int_equal(dither_frame(&f, cases[i].how, rgb, 64, 64, NULL, indices), 0);
        for (int k = 0; k < 64 * 64; k++)
            mean += indices[k] / 4096.0;
        if (mean < cases[i].least || mean > cases[i].most)
            fail_msg("dither %d: mean %.3f", cases[i].how, mean);
        palette_finder_free(&f);
    }
    free(rgb);
    free(indices);
}

static void kept_pixels_keep_their_index(void **state)
{
    (void)state;
    struct palette p = {.colours = 3, .rgb = {{0, 0, 0}, {255, 255, 255}, {255, 0, 0}}};
    uint8_t rgb[9 * 3] = {0}, keep[9] = {1, 0, 1, 0, 1, 0, 1, 0, 1};
    for (int how = MEDIA_DITHER_NONE; how <= MEDIA_DITHER_FLOYD; how++) {
        uint8_t indices[9] = {2, 2, 2, 2, 2, 2, 2, 2, 2};
        struct palette_finder f;
        assert_int_equal(palette_finder_init(&f, &p), 0);
        assert_int_equal(dither_frame(&f, (enum media_dither)how, rgb, 3, 3, keep, indices), 0);
        for (int i = 0; i < 9; i++)
            assert_int_equal(indices[i] == 2, keep[i]);
        palette_finder_free(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_search_finds_what_trying_all_finds),
        cmocka_unit_test(a_made_palette_is_far_better_than_an_even_one),
        cmocka_unit_test(few_colours_are_taken_as_they_are),
        cmocka_unit_test(dithering_keeps_the_mean),
        cmocka_unit_test(kept_pixels_keep_their_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
