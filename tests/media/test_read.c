/* Reading what other programs write: every PNG layout, gray and ink JPEGs, orientation, alpha,
 * masks, animations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jpeglib.h>
#include <png.h>
#include <webp/encode.h>

#include "../support/pictures.h"
#include "media/exif.h"
#include "media/media.h"

static struct picture decode(const void *bytes, size_t n, enum media_read_as as)
{
    struct picture p;
    struct media_limits l;
    struct err e = {0};
    media_limits_init(&l);
    if (media_decode_image(bytes, n, "test", &l, as, &p, &e))
        fail_msg("%s", e.text);
    return p;
}

static void assert_pixel(const struct picture *p, int x, int y, int r, int g, int b, int within)
{
    const uint8_t *px = p->rgb + ((size_t)y * (size_t)p->width + (size_t)x) * 3;
    if (abs(px[0] - r) > within || abs(px[1] - g) > within || abs(px[2] - b) > within)
        fail_msg("(%d,%d) is %d %d %d, not %d %d %d", x, y, px[0], px[1], px[2], r, g, b);
}

/* ---- PNG ---- */

static void append_png(png_structp png, png_bytep data, size_t n)
{
    str_addn(png_get_io_ptr(png), data, n);
}

static void flush_png(png_structp png)
{
    (void)png;
}

/* A PNG of 4 x 2 pixels: rows of raw bytes in the given layout. */
static struct str make_png(int depth, int colour, int interlace, const char *rows, size_t row)
{
    struct str out = {0};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_set_write_fn(png, &out, append_png, flush_png);
    png_set_IHDR(png, info, 4, 2, depth, colour, interlace, 0, 0);
    if (colour == PNG_COLOR_TYPE_PALETTE) {
        png_color palette[3] = {{255, 0, 0}, {0, 255, 0}, {0, 0, 255}};
        png_byte alpha[2] = {255, 0};
        png_set_PLTE(png, info, palette, 3);
        png_set_tRNS(png, info, alpha, 2, NULL);
    }
    png_write_info(png, info);
    int passes = png_set_interlace_handling(png);
    while (passes--)
        for (int y = 0; y < 2; y++)
            png_write_row(png, (png_const_bytep)rows + (size_t)y * row);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    return out;
}

static void every_layout_of_png_becomes_rgb(void **state)
{
    (void)state;
    static const struct {
        int depth, colour;
        size_t row;
        const char *rows;
        int want[4]; /* at (1, 0): r g b; at (3, 1): r */
    } cases[] = {
        {1, PNG_COLOR_TYPE_GRAY, 1, "\x40\x10", {255, 255, 255, 255}},
        {2, PNG_COLOR_TYPE_GRAY, 1, "\x10\x02", {85, 85, 85, 170}},
        {8, PNG_COLOR_TYPE_GRAY, 4, "\0\x64\0\0\0\0\0\xC8", {100, 100, 100, 200}},
        {16,
         PNG_COLOR_TYPE_GRAY,
         8,
         "\0\0\x64\x64\0\0\0\0\0\0\0\0\0\0\xC8\xC8",
         {100, 100, 100, 200}},
        {8, PNG_COLOR_TYPE_PALETTE, 4, "\0\1\2\0\0\0\0\0", {255, 255, 255, 255}}, /* clear */
        {8, PNG_COLOR_TYPE_PALETTE, 4, "\0\2\0\0\0\0\0\2", {0, 0, 255, 0}},
        {8,
         PNG_COLOR_TYPE_GRAY_ALPHA,
         8,
         "\0\0\x64\xFF\0\0\0\0\0\0\0\0\0\0\0\xFF",
         {100, 100, 100, 0}},
        {8,
         PNG_COLOR_TYPE_RGB_ALPHA,
         16,
         "\0\0\0\0\0\x64\xC8\x80\0\0\0\0\0\0\0\0"
         "\0\0\0\0\0\0\0\0\0\0\0\0\x32\0\0\xFF",
         {127, 177, 227, 50}},
        {16,
         PNG_COLOR_TYPE_RGB,
         24,
         "\0\0\0\0\0\0\x0A\x0A\x14\x14\x1E\x1E\0\0\0\0\0\0\0\0\0\0\0\0"
         "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xFF\xFF\0\0\0\0",
         {10, 20, 30, 255}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int interlace = 0; interlace < 2; interlace++) {
            struct str s =
                make_png(cases[i].depth, cases[i].colour, interlace, cases[i].rows, cases[i].row);
            struct picture p = decode(s.data, s.len, MEDIA_READ_RGB);
            assert_pixel(&p, 1, 0, cases[i].want[0], cases[i].want[1], cases[i].want[2], 0);
            assert_int_equal(p.rgb[(4 + 3) * 3], cases[i].want[3]);
            picture_free(&p);
            str_free(&s);
        }
}

static void a_mask_is_luma_and_clear_is_black(void **state)
{
    (void)state;
    struct str s = make_png(8, PNG_COLOR_TYPE_RGB_ALPHA, 0,
                            "\xFF\xFF\xFF\xFF\xFF\0\0\xFF\xFF\xFF\xFF\0\0\xFF\0\xFF"
                            "\0\0\xFF\xFF\xFF\xFF\xFF\x80\0\0\0\xFF\0\0\0\0",
                            16);
    static const int want[8] = {255, 76, 0, 150, 29, 128, 0, 0};
    struct picture p = decode(s.data, s.len, MEDIA_READ_MASK);
    for (int i = 0; i < 8; i++)
        assert_pixel(&p, i % 4, i / 4, want[i], want[i], want[i], 0);
    picture_free(&p);
    str_free(&s);
}

/* ---- JPEG ---- */

/* A JPEG of 16 x 8 pixels, left half `a`, right half `b`, with an optional EXIF block. */
static struct str make_jpeg(int channels, J_COLOR_SPACE space, J_COLOR_SPACE stored,
                            const uint8_t *a, const uint8_t *b, const struct str *exif)
{
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr errors;
    unsigned char *bytes = NULL;
    unsigned long size = 0;
    uint8_t row[16 * 4];
    for (int x = 0; x < 16; x++)
        memcpy(row + x * channels, x < 8 ? a : b, (size_t)channels);
    c.err = jpeg_std_error(&errors);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &bytes, &size);
    c.image_width = 16;
    c.image_height = 8;
    c.input_components = channels;
    c.in_color_space = space;
    jpeg_set_defaults(&c);
    jpeg_set_colorspace(&c, stored);
    jpeg_set_quality(&c, 100, TRUE);
    jpeg_start_compress(&c, TRUE);
    if (exif)
        jpeg_write_marker(&c, JPEG_APP0 + 1, (JOCTET *)exif->data, (unsigned)exif->len);
    JSAMPROW rows = row;
    while (c.next_scanline < 8)
        jpeg_write_scanlines(&c, &rows, 1);
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    struct str out = {0};
    str_addn(&out, bytes, size);
    free(bytes);
    return out;
}

static void gray_and_ink_jpegs_become_rgb(void **state)
{
    (void)state;
    static const uint8_t gray[2][1] = {{40}, {200}};
    /* as Adobe writes them: 255 is no ink. Left: half cyan; right: black half down */
    static const uint8_t inks[2][4] = {{128, 255, 255, 255}, {255, 255, 255, 128}};
    struct str s = make_jpeg(1, JCS_GRAYSCALE, JCS_GRAYSCALE, gray[0], gray[1], NULL);
    struct picture p = decode(s.data, s.len, MEDIA_READ_RGB);
    assert_pixel(&p, 2, 3, 40, 40, 40, 2);
    assert_pixel(&p, 13, 3, 200, 200, 200, 2);
    picture_free(&p);
    str_free(&s);
    for (int i = 0; i < 2; i++) {
        s = make_jpeg(4, JCS_CMYK, i ? JCS_YCCK : JCS_CMYK, inks[0], inks[1], NULL);
        p = decode(s.data, s.len, MEDIA_READ_RGB);
        assert_pixel(&p, 2, 3, 128, 255, 255, 3);
        assert_pixel(&p, 13, 3, 128, 128, 128, 3);
        picture_free(&p);
        str_free(&s);
    }
}

/* An EXIF block with the orientation alone, little or big end first. */
static struct str make_orientation(int value, bool big)
{
    struct str s = {0};
    uint8_t block[32] = "Exif\0\0II*\0\10\0\0\0\1\0\x12\1\3\0\1\0\0\0";
    block[24] = (uint8_t)value;
    if (big) {
        memcpy(block + 6, "MM\0*\0\0\0\10\0\1\1\x12\0\3\0\0\0\1\0", 19);
        block[24] = 0;
        block[25] = (uint8_t)value;
    }
    str_addn(&s, block, sizeof block);
    return s;
}

/* Red left, blue right as stored; where red is once the picture is upright. */
static void exif_orientation_turns_the_picture_upright(void **state)
{
    (void)state;
    static const uint8_t red[3] = {255, 0, 0}, blue[3] = {0, 0, 255};
    static const struct {
        int width, red_x, red_y;
    } want[9] = {
        [0] = {16, 0, 4}, /* no such value: as it is */
        [1] = {16, 0, 4}, [2] = {16, 15, 4}, [3] = {16, 15, 4}, [4] = {16, 0, 4},
        [5] = {8, 4, 0},  [6] = {8, 4, 0},   [7] = {8, 4, 15},  [8] = {8, 4, 15},
    };
    for (int o = 0; o <= 8; o++)
        for (int big = 0; big < 2; big++) {
            struct str exif = make_orientation(o, big);
            struct str s = make_jpeg(3, JCS_RGB, JCS_YCbCr, red, blue, &exif);
            struct picture p = decode(s.data, s.len, MEDIA_READ_RGB);
            assert_int_equal(p.width, want[o].width);
            assert_int_equal(p.height, 24 - want[o].width);
            assert_pixel(&p, want[o].red_x, want[o].red_y, 254, 0, 0, 8);
            assert_pixel(&p, p.width - 1 - want[o].red_x, p.height - 1 - want[o].red_y, 0, 0, 254,
                         8);
            picture_free(&p);
            str_free(&s);
            str_free(&exif);
        }
}

/* All eight turns of a picture of which no two pixels are alike, against EXIF's own words. */
static void each_orientation_puts_row_0_and_column_0_where_exif_says(void **state)
{
    (void)state;
    static const char where[9][2] = {/* row 0 is at …, column 0 is at … */
                                     {0, 0},     {'t', 'l'}, {'t', 'r'}, {'b', 'r'}, {'b', 'l'},
                                     {'l', 't'}, {'r', 't'}, {'r', 'b'}, {'l', 'b'}};
    struct picture src = scene(5, 3, 1);
    for (int o = 1; o <= 8; o++) {
        struct media_options options;
        struct str s = {0}, exif = make_orientation(o, true), with = {0};
        struct err e;
        media_options_init(&options, MEDIA_PNG);
        assert_int_equal(media_encode(&src, &options, &s, &e), 0);
        png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
        png_set_write_fn(png, &with, append_png, flush_png);
        str_addn(&with, s.data, 33); /* signature and IHDR */
        png_write_chunk(png, (png_const_bytep) "eXIf", (png_const_bytep)exif.data + 6,
                        exif.len - 6);
        str_addn(&with, s.data + 33, s.len - 33);
        png_destroy_write_struct(&png, NULL);
        struct picture p = decode(with.data, with.len, MEDIA_READ_RGB);
        bool rows_stand = strchr("lr", where[o][0]) != NULL;
        for (int y = 0; y < src.height; y++)
            for (int x = 0; x < src.width; x++) {
                char row = where[o][0], column = where[o][1];
                int down = row == 't' ? y : src.height - 1 - y;
                int across = column == 'l' ? x : src.width - 1 - x;
                if (rows_stand) {
                    across = row == 'l' ? y : src.height - 1 - y;
                    down = column == 't' ? x : src.width - 1 - x;
                }
                const uint8_t *px = src.rgb + (y * src.width + x) * 3;
                assert_pixel(&p, across, down, px[0], px[1], px[2], 0);
            }
        picture_free(&p);
        str_free(&s);
        str_free(&with);
        str_free(&exif);
    }
    picture_free(&src);
}

static void a_damaged_exif_block_means_upright(void **state)
{
    (void)state;
    struct str s = make_orientation(6, true);
    assert_int_equal(exif_orientation((uint8_t *)s.data, s.len), 6);
    for (size_t n = 0; n < 26; n++) {
        char *cut = malloc(n + 1);
        assert_non_null(cut);
        memcpy(cut, s.data, n);
        assert_int_equal(exif_orientation((uint8_t *)cut, n), 1);
        free(cut);
    }
    memcpy(s.data + 10, "\xFF\xFF\xFF\xFF", 4); /* the block starts far outside */
    assert_int_equal(exif_orientation((uint8_t *)s.data, s.len), 1);
    str_free(&s);
}

/* ---- WebP and animations ---- */

static void alpha_of_webp_is_laid_over_white(void **state)
{
    (void)state;
    static const uint8_t rgba[2 * 4] = {200, 0, 0, 255, 0, 0, 0, 0};
    uint8_t *bytes = NULL;
    size_t n = WebPEncodeLosslessRGBA(rgba, 2, 1, 8, &bytes);
    struct picture p = decode(bytes, n, MEDIA_READ_RGB);
    assert_pixel(&p, 0, 0, 200, 0, 0, 0);
    assert_pixel(&p, 1, 0, 255, 255, 255, 0);
    picture_free(&p);
    WebPFree(bytes);
}

static void an_animation_read_as_a_picture_is_its_first_frame(void **state)
{
    (void)state;
    static const enum media_format formats[] = {MEDIA_WEBP, MEDIA_GIF};
    struct picture clip = scene(64, 40, 3);
    for (int i = 0; i < 2; i++) {
        struct media_options o;
        struct str s = {0};
        struct err e = {0};
        media_options_init(&o, formats[i]);
        assert_int_equal(media_encode(&clip, &o, &s, &e), 0);
        struct picture p = decode(s.data, s.len, MEDIA_READ_RGB);
        struct picture first = {64, 40, 1, clip.rgb}, last = {64, 40, 1, picture_frame(&clip, 2)};
        assert_int_equal(p.frames, 1);
        assert_true(psnr(&first, &p, 0) > 28);
        assert_true(psnr(&first, &p, 0) > psnr(&last, &p, 0) + 2);
        picture_free(&p);
        str_free(&s);
    }
    picture_free(&clip);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layout_of_png_becomes_rgb),
        cmocka_unit_test(a_mask_is_luma_and_clear_is_black),
        cmocka_unit_test(gray_and_ink_jpegs_become_rgb),
        cmocka_unit_test(exif_orientation_turns_the_picture_upright),
        cmocka_unit_test(each_orientation_puts_row_0_and_column_0_where_exif_says),
        cmocka_unit_test(a_damaged_exif_block_means_upright),
        cmocka_unit_test(alpha_of_webp_is_laid_over_white),
        cmocka_unit_test(an_animation_read_as_a_picture_is_its_first_frame),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
