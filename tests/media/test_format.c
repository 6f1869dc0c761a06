/* Formats by name, ending and content; refusals of options before anything is encoded. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../support/pictures.h"
#include "media/media.h"

static void every_format_is_found_by_its_name_and_its_ending(void **state)
{
    (void)state;
    for (int i = 0; i < MEDIA_FORMAT_COUNT; i++) {
        const struct media_format_info *f = media_format_info((enum media_format)i);
        enum media_format found;
        assert_string_equal(media_format_names()[i], f->name);
        assert_int_equal(media_format_parse(f->name, &found), 0);
        assert_int_equal(found, i);
        assert_int_equal(media_format_parse(f->extension, &found), 0);
        assert_int_equal(found, i);
        assert_true(f->still || f->clip);
    }
    enum media_format found;
    assert_null(media_format_names()[MEDIA_FORMAT_COUNT]);
    assert_int_equal(media_format_parse("WebP", &found), 0);
    assert_int_equal(media_format_parse("tiff", &found), -EINVAL);
    assert_int_equal(media_format_parse("", &found), -EINVAL);
    assert_null(media_format_info((enum media_format)99));
}

static void dithers_are_found_by_name(void **state)
{
    (void)state;
    enum media_dither d;
    for (int i = MEDIA_DITHER_AUTO; i <= MEDIA_DITHER_FLOYD; i++) {
        assert_int_equal(media_dither_parse(media_dither_name((enum media_dither)i), &d), 0);
        assert_int_equal(d, i);
    }
    assert_int_equal(media_dither_parse("random", &d), -EINVAL);
    assert_null(media_dither_name((enum media_dither)7));
}

static void content_tells_the_format_and_strangers_are_unknown(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        int format; /* -1: unknown */
    } cases[] = {
        {"\x89PNG\r\n\x1a\n", 8, MEDIA_PNG},
        {"\x89PNG\r\n\x1a", 7, -1},
        {"\xff\xd8\xff\xe0", 4, MEDIA_JPEG},
        {"RIFF\0\0\0\0WEBPVP8 ", 16, MEDIA_WEBP},
        {"RIFF\0\0\0\0WAVEfmt ", 16, -1},
        {"XIFF\0\0\0\0WEBPVP8 ", 16, -1},
        {"GIF89a", 6, MEDIA_GIF},
        {"GIF87a", 6, MEDIA_GIF},
        {"GIF90a", 6, -1},
        {"\x1a\x45\xdf\xa3", 4, MEDIA_WEBM},
        {"\0\0\0\x20"
         "ftypisom",
         12, MEDIA_MP4},
        {"\0\0\0\x20"
         "ftypavif",
         12, -1},
        {"BM", 2, -1},
        {"", 0, -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        enum media_format f = MEDIA_PNG;
        int r = media_format_sniff(cases[i].bytes, cases[i].n, &f);
        assert_int_equal(r, cases[i].format < 0 ? -EINVAL : 0);
        if (!r)
            assert_int_equal(f, cases[i].format);
    }
}

static void options_out_of_range_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *word;
        enum media_format format;
        int quality, loop, palette, frames;
        double fps;
        const char *text;
    } cases[] = {
        {"quality", MEDIA_JPEG, 0, 0, 256, 1, 12, NULL},
        {"quality", MEDIA_JPEG, 101, 0, 256, 1, 12, NULL},
        {"fps", MEDIA_MP4, 90, 0, 256, 2, 0, NULL},
        {"fps", MEDIA_GIF, 90, 0, 256, 2, -5, NULL},
        {"fps", MEDIA_WEBM, 90, 0, 256, 2, 1e9, NULL},
        {"loop", MEDIA_GIF, 90, -1, 256, 2, 12, NULL},
        {"loop", MEDIA_WEBP, 90, 65536, 256, 2, 12, NULL},
        {"palette", MEDIA_GIF, 90, 0, 1, 2, 12, NULL},
        {"palette", MEDIA_GIF, 90, 0, 257, 2, 12, NULL},
        {"2 frames", MEDIA_PNG, 90, 0, 256, 2, 12, NULL},
        {"2 frames", MEDIA_JPEG, 90, 0, 256, 2, 12, NULL},
        {"UTF-8", MEDIA_PNG, 90, 0, 256, 1, 12, "caf\xe9"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct picture p = scene(8, 8, cases[i].frames);
        struct media_options o;
        struct err e = {0};
        struct str out = {0};
        media_options_init(&o, cases[i].format);
        o.quality = cases[i].quality;
        o.loop = cases[i].loop;
        o.palette = cases[i].palette;
        o.fps = cases[i].fps;
        o.parameters = cases[i].text;
        assert_int_equal(media_encode(&p, &o, &out, &e), -EINVAL);
        assert_non_null(strstr(e.text, cases[i].word));
        assert_int_equal(out.len, 0);
        str_free(&out);
        picture_free(&p);
    }
}

static void a_size_the_format_cannot_hold_is_refused(void **state)
{
    (void)state;
    struct picture p = {0};
    struct media_options o;
    struct err e = {0};
    struct str out = {0};
    assert_int_equal(picture_new(&p, 16384, 1, 1), 0);
    media_options_init(&o, MEDIA_WEBP);
    assert_int_equal(media_encode(&p, &o, &out, &e), -EINVAL);
    assert_non_null(strstr(e.text, "16384x1 is too large for webp"));
    picture_free(&p);
    assert_int_equal(media_encode(&p, &o, &out, &e), -EINVAL);
    assert_non_null(strstr(e.text, "no pixels"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_is_found_by_its_name_and_its_ending),
        cmocka_unit_test(dithers_are_found_by_name),
        cmocka_unit_test(content_tells_the_format_and_strangers_are_unknown),
        cmocka_unit_test(options_out_of_range_are_refused_by_name),
        cmocka_unit_test(a_size_the_format_cannot_hold_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
