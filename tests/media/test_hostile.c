/* Files of strangers: cut, overwritten, lying about their size, or something else entirely. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/pictures.h"
#include "base/file.h"
#include "media/media.h"
#include "../support/scratch.h"

static struct str make(enum media_format format, int width, int height, int frames)
{
    struct picture p = scene(width, height, frames);
    struct media_options o;
    struct str out = {0};
    struct err e = {0};
    media_options_init(&o, format);
    o.parameters = "a cat, ねこ";
    if (media_encode(&p, &o, &out, &e))
        fail_msg("%s", e.text);
    picture_free(&p);
    return out;
}

/* The file in memory of exactly its size, so that a read past its end is seen by ASan. */
static int decode(const char *bytes, size_t n, bool clip, const struct media_limits *l,
                  struct err *e)
{
    struct picture p;
    double fps;
    char *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, n);
    int r = clip ? media_decode_clip(copy, n, "test", l, &p, &fps, e)
                 : media_decode_image(copy, n, "test", l, MEDIA_READ_RGB, &p, e);
    if (r)
        assert_null(p.rgb);
    picture_free(&p);
    free(copy);
    return r;
}

static void assert_no_cut_is_read(enum media_format format, int frames, bool clip, size_t step)
{
    struct str s = make(format, 40, 24, frames);
    struct media_limits l;
    struct err e;
    media_limits_init(&l);
    if (decode(s.data, s.len, clip, &l, &e))
        fail_msg("whole file: %s", e.text);
    for (size_t n = 0; n < s.len; n = n + step < s.len || n == s.len - 1 ? n + step : s.len - 1) {
        e = (struct err){0};
        if (!decode(s.data, n, clip, &l, &e))
            fail_msg("format %d: %zu of %zu bytes were read as whole", format, n, s.len);
        assert_int_equal(e.code, -EINVAL);
        assert_non_null(strstr(e.text, "test"));
    }
    str_free(&s);
}

static void a_still_cut_anywhere_is_an_error(void **state)
{
    (void)state;
    assert_no_cut_is_read(MEDIA_PNG, 1, false, 1);
    assert_no_cut_is_read(MEDIA_JPEG, 1, false, 1);
    assert_no_cut_is_read(MEDIA_WEBP, 1, false, 1);
    assert_no_cut_is_read(MEDIA_GIF, 1, false, 3);
}

static void a_clip_cut_anywhere_is_an_error(void **state)
{
    (void)state;
    assert_no_cut_is_read(MEDIA_WEBP, 3, true, 7);
    assert_no_cut_is_read(MEDIA_GIF, 3, true, 7);
    assert_no_cut_is_read(MEDIA_MP4, 3, true, 7);
    assert_no_cut_is_read(MEDIA_WEBM, 3, true, 7);
}

/* Any result is right but a crash, a leak or a read outside (the sanitizers' build tells). */
static void overwritten_bytes_never_crash(void **state)
{
    (void)state;
    struct media_limits l;
    uint32_t seed = 1;
    media_limits_init(&l);
    l.max_pixels = 1 << 20;
    for (int f = 0; f < MEDIA_FORMAT_COUNT; f++) {
        bool clip = media_format_info((enum media_format)f)->clip;
        struct str s = make((enum media_format)f, 24, 16, clip ? 3 : 1);
        for (int i = 0; i < 150; i++) {
            char *copy = malloc(s.len);
            struct err e = {0};
            assert_non_null(copy);
            memcpy(copy, s.data, s.len);
            for (int k = 0; k < 3; k++) {
                seed = seed * 1664525 + 1013904223;
                copy[(seed >> 8) % s.len] = (char)seed;
            }
            int r = decode(copy, s.len, clip && i % 2, &l, &e);
            assert_true(r == 0 || e.text[0]);
            free(copy);
        }
        str_free(&s);
    }
}

/* A small file that claims 60000 x 60000 pixels: where its size stands, and how. */
static void claim(enum media_format format, char *b, size_t n)
{
    static const uint8_t be[2] = {0xEA, 0x60}, le[2] = {0x60, 0xEA};
    char *sof = memmem(b, n, "\xff\xc0", 2);
    switch (format) {
    case MEDIA_PNG: /* IHDR with its checksum */
        memcpy(b + 18, be, 2);
        memcpy(b + 22, be, 2);
        memcpy(b + 29, "\x0f\xb0\xe2\x15", 4);
        break;
    case MEDIA_JPEG:
        assert_non_null(sof);
        memcpy(sof + 5, be, 2);
        memcpy(sof + 7, be, 2);
        break;
    case MEDIA_WEBP: /* the canvas of VP8X, minus one, 24 bits */
        memcpy(b + 24, le, 2);
        memcpy(b + 27, le, 2);
        break;
    default:
        memcpy(b + 6, le, 2);
        memcpy(b + 8, le, 2);
    }
}

static void a_small_file_with_a_huge_picture_is_refused_by_its_header(void **state)
{
    (void)state;
    static const enum media_format formats[] = {MEDIA_PNG, MEDIA_JPEG, MEDIA_WEBP, MEDIA_GIF};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        struct str s = make(formats[i], 16, 16, formats[i] == MEDIA_WEBP ? 2 : 1);
        struct media_limits l;
        struct err e = {0};
        media_limits_init(&l);
        claim(formats[i], s.data, s.len);
        int r = decode(s.data, s.len, false, &l, &e);
        if (r != -EFBIG)
            fail_msg("format %d: %d %s", formats[i], r, e.text);
        assert_non_null(strstr(e.text, formats[i] == MEDIA_WEBP ? "60001x60001" : "60000x60000"));
        str_free(&s);
    }
}

static void each_limit_is_told_with_its_number(void **state)
{
    (void)state;
    struct str s = make(MEDIA_PNG, 40, 24, 1), clip = make(MEDIA_GIF, 40, 24, 4);
    struct media_limits l;
    struct err e = {0};
    media_limits_init(&l);
    l.max_width = 39;
    assert_int_equal(decode(s.data, s.len, false, &l, &e), -EFBIG);
    assert_non_null(strstr(e.text, "40x24 pixels; at most 39x"));
    media_limits_init(&l);
    l.max_pixels = 959;
    assert_int_equal(decode(s.data, s.len, false, &l, &e), -EFBIG);
    assert_non_null(strstr(e.text, "959"));
    l.max_pixels = 960;
    assert_int_equal(decode(s.data, s.len, false, &l, &e), 0);
    l.max_bytes = s.len - 1;
    assert_int_equal(decode(s.data, s.len, false, &l, &e), -EFBIG);
    media_limits_init(&l);
    l.max_frames = 3;
    assert_int_equal(decode(clip.data, clip.len, true, &l, &e), -EFBIG);
    assert_non_null(strstr(e.text, "3 frames"));
    l.max_frames = 4;
    l.max_clip_pixels = 40 * 24 * 4 - 1;
    assert_int_equal(decode(clip.data, clip.len, true, &l, &e), -EFBIG);
    assert_non_null(strstr(e.text, "4 frames of 40x24"));
    str_free(&s);
    str_free(&clip);
}

static void what_is_no_picture_is_refused_with_what_is_read(void **state)
{
    (void)state;
    struct media_limits l;
    struct err e = {0};
    struct str clip = make(MEDIA_MP4, 16, 16, 2), still = make(MEDIA_PNG, 16, 16, 1);
    media_limits_init(&l);
    assert_int_equal(decode("", 0, false, &l, &e), -EINVAL);
    assert_non_null(strstr(e.text, "empty"));
    assert_int_equal(decode("#!/bin/sh\n", 10, false, &l, &e), -EINVAL);
    assert_non_null(strstr(e.text, "PNG, JPEG, WebP"));
    assert_int_equal(decode(clip.data, clip.len, false, &l, &e), -EINVAL);
    assert_non_null(strstr(e.text, "mp4 video"));
    assert_int_equal(decode(still.data, still.len, true, &l, &e), -EINVAL);
    assert_non_null(strstr(e.text, "png picture"));
    str_free(&clip);
    str_free(&still);
}

static void links_folders_and_pipes_are_not_read(void **state)
{
    (void)state;
    char dir[SCRATCH_SIZE];
    assert_non_null(mkdtemp(scratch_name(dir, "omnifs-media-XXXXXX")));
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct str s = make(MEDIA_PNG, 4, 4, 1);
    struct picture p;
    struct media_limits l;
    struct err e = {0};
    media_limits_init(&l);
    assert_int_equal(file_write_atomic(fd, "real.png", s.data, s.len, &e), 0);
    assert_int_equal(symlinkat("real.png", fd, "link.png"), 0);
    assert_int_equal(mkfifoat(fd, "pipe.png", 0600), 0);
    assert_int_equal(media_read_image(fd, "real.png", &l, MEDIA_READ_RGB, &p, &e), 0);
    picture_free(&p);
    assert_int_equal(media_read_image(fd, "link.png", &l, MEDIA_READ_RGB, &p, &e), -ELOOP);
    assert_int_equal(media_read_image(fd, "pipe.png", &l, MEDIA_READ_RGB, &p, &e), -EINVAL);
    assert_int_equal(media_read_image(fd, ".", &l, MEDIA_READ_RGB, &p, &e), -EINVAL);
    assert_int_equal(media_read_image(fd, "none.png", &l, MEDIA_READ_RGB, &p, &e), -ENOENT);
    assert_null(p.rgb);
    str_free(&s);
    close(fd);
    assert_int_equal(file_remove_tree(AT_FDCWD, dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_still_cut_anywhere_is_an_error),
        cmocka_unit_test(a_clip_cut_anywhere_is_an_error),
        cmocka_unit_test(overwritten_bytes_never_crash),
        cmocka_unit_test(a_small_file_with_a_huge_picture_is_refused_by_its_header),
        cmocka_unit_test(each_limit_is_told_with_its_number),
        cmocka_unit_test(what_is_no_picture_is_refused_with_what_is_read),
        cmocka_unit_test(links_folders_and_pipes_are_not_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
