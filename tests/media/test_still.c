/* Stills: what is written comes back, with its parameters, whole or not at all. */
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

static const enum media_format stills[] = {MEDIA_PNG, MEDIA_JPEG, MEDIA_WEBP, MEDIA_GIF};
enum { STILLS = sizeof stills / sizeof *stills };

static const int sizes[][2] = {{1, 1}, {1, 7}, {3, 1}, {17, 33}, {255, 64}, {640, 481}};
enum { SIZES = sizeof sizes / sizeof *sizes };

static struct str encode(const struct picture *p, const struct media_options *o)
{
    struct str out = {0};
    struct err e = {0};
    int r = media_encode(p, o, &out, &e);
    if (r)
        fail_msg("%s", e.text);
    return out;
}

static struct picture decode(const struct str *s)
{
    struct picture p;
    struct media_limits l;
    struct err e = {0};
    media_limits_init(&l);
    if (media_decode_image(s->data, s->len, "test", &l, MEDIA_READ_RGB, &p, &e))
        fail_msg("%s", e.text);
    return p;
}

static void assert_round_trip(enum media_format format, bool lossless, double least_db)
{
    for (int i = 0; i < SIZES; i++) {
        struct picture p = scene(sizes[i][0], sizes[i][1], 1);
        struct media_options o;
        media_options_init(&o, format);
        o.lossless = lossless;
        struct str s = encode(&p, &o);
        struct picture back = decode(&s);
        assert_int_equal(back.width, p.width);
        assert_int_equal(back.height, p.height);
        assert_int_equal(back.frames, 1);
        /* in a few pixels each is an edge of colour, which lossy formats blur */
        if (psnr(&p, &back, 0) < (p.width < 16 && least_db < 99 ? 15 : least_db))
            fail_msg("%dx%d: %.1f dB", p.width, p.height, psnr(&p, &back, 0));
        str_free(&s);
        picture_free(&p);
        picture_free(&back);
    }
}

static void png_gives_back_the_same_pixels(void **state)
{
    (void)state;
    assert_round_trip(MEDIA_PNG, false, 99);
}

static void lossless_webp_gives_back_the_same_pixels(void **state)
{
    (void)state;
    assert_round_trip(MEDIA_WEBP, true, 99);
}

static void jpeg_and_webp_stay_close(void **state)
{
    (void)state;
    assert_round_trip(MEDIA_JPEG, false, 34);
    assert_round_trip(MEDIA_WEBP, false, 27);
}

static void better_quality_is_closer_and_larger(void **state)
{
    (void)state;
    struct picture p = scene(320, 200, 1);
    for (int k = 0; k < 2; k++) {
        double last_db = 0;
        size_t last_bytes = 0;
        for (int q = 10; q <= 100; q += 30) {
            struct media_options o;
            media_options_init(&o, k ? MEDIA_WEBP : MEDIA_JPEG);
            o.quality = q;
            struct str s = encode(&p, &o);
            struct picture back = decode(&s);
            assert_true(psnr(&p, &back, 0) > last_db);
            assert_true(s.len > last_bytes);
            last_db = psnr(&p, &back, 0);
            last_bytes = s.len;
            str_free(&s);
            picture_free(&back);
        }
    }
    picture_free(&p);
}

static void the_same_picture_gives_the_same_bytes(void **state)
{
    (void)state;
    struct picture p = scene(333, 200, 1);
    for (int i = 0; i < STILLS; i++) {
        struct media_options o;
        media_options_init(&o, stills[i]);
        o.parameters = "a cat";
        struct str a = encode(&p, &o), b = encode(&p, &o);
        assert_int_equal(a.len, b.len);
        assert_memory_equal(a.data, b.data, a.len);
        str_free(&a);
        str_free(&b);
    }
    picture_free(&p);
}

static bool contains(const struct str *s, const void *bytes, size_t n)
{
    return memmem(s->data, s->len, bytes, n) != NULL;
}

static void ascii_parameters_of_png_are_a_text_chunk_and_others_an_international_one(void **state)
{
    (void)state;
    struct picture p = scene(8, 8, 1);
    struct media_options o;
    media_options_init(&o, MEDIA_PNG);
    o.parameters = "a cat\nSteps: 4, Seed: 1";
    o.software = "omnifs 1";
    struct str s = encode(&p, &o);
    assert_true(contains(&s, "tEXtparameters\0a cat\nSteps: 4, Seed: 1", 38));
    assert_true(contains(&s, "tEXtSoftware\0omnifs 1", 21));
    assert_true(contains(&s, "sRGB", 4));
    str_free(&s);
    o.parameters = "ein Kätzchen";
    s = encode(&p, &o);
    assert_true(contains(&s, "iTXtparameters\0\0\0\0\0ein K\xc3\xa4tzchen", 32));
    str_free(&s);
    picture_free(&p);
}

static void parameters_of_jpeg_and_webp_are_a_utf16_user_comment(void **state)
{
    (void)state;
    static const char comment[] =
        "UNICODE\0\0a\0 \0c\0a\0t\0,\0 \x30\x6d\x30\x53\0 \xd8\x3d\xdc\x08";
    struct picture p = scene(8, 8, 1);
    for (int i = 0; i < 2; i++) {
        struct media_options o;
        media_options_init(&o, i ? MEDIA_WEBP : MEDIA_JPEG);
        o.parameters = "a cat, ねこ 🐈";
        o.software = "om"; /* short enough to sit inside its entry */
        struct str s = encode(&p, &o);
        assert_true(contains(&s, comment, sizeof comment - 1));
        assert_true(contains(&s, "MM\0*\0\0\0\10\0\2\1\x31\0\2\0\0\0\3om\0\0", 22));
        struct picture back = decode(&s);
        assert_int_equal(back.width, 8);
        picture_free(&back);
        str_free(&s);
    }
    picture_free(&p);
}

static void parameters_too_long_for_exif_are_in_comments_of_the_jpeg(void **state)
{
    (void)state;
    struct picture p = scene(8, 8, 1);
    struct media_options o;
    char *text = malloc(70001);
    assert_non_null(text);
    for (int i = 0; i < 70000; i++)
        text[i] = (char)('a' + i % 26);
    text[70000] = '\0';
    media_options_init(&o, MEDIA_JPEG);
    o.parameters = text;
    struct str s = encode(&p, &o);
    assert_true(contains(&s, text, 65533));
    assert_true(contains(&s, text + 65533, 70000 - 65533));
    struct picture back = decode(&s);
    assert_int_equal(back.width, 8);
    picture_free(&back);
    str_free(&s);
    free(text);
    picture_free(&p);
}

static int open_temp(char *dir)
{
    assert_non_null(mkdtemp(scratch_name(dir, "omnifs-media-XXXXXX")));
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static void close_temp(int fd, const char *dir)
{
    close(fd);
    assert_int_equal(file_remove_tree(AT_FDCWD, dir), 0);
}

static void a_failed_write_leaves_the_old_file_and_no_other(void **state)
{
    (void)state;
    char dir[SCRATCH_SIZE];
    int fd = open_temp(dir);
    struct picture p = scene(8, 8, 1);
    struct media_options o;
    struct err e = {0};
    media_options_init(&o, MEDIA_PNG);
    assert_int_equal(media_write(fd, "a.png", &p, &o, &e), 0);
    struct stat before, after;
    assert_int_equal(fstatat(fd, "a.png", &before, 0), 0);
    o.parameters = "\xff";
    assert_int_equal(media_write(fd, "a.png", &p, &o, &e), -EINVAL);
    assert_non_null(strstr(e.text, "a.png: "));
    assert_int_equal(fstatat(fd, "a.png", &after, 0), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_int_equal(before.st_size, after.st_size);
    assert_int_not_equal(fstatat(fd, "a.png.tmp", &after, 0), 0);
    assert_int_equal(media_write(fd, "missing/a.png", &p, &o, &e), -EINVAL);
    o.parameters = NULL;
    assert_int_equal(media_write(fd, "missing/a.png", &p, &o, &e), -ENOENT);
    picture_free(&p);
    close_temp(fd, dir);
}

static int stop_after_two(void *user, int done, int frames)
{
    assert_int_equal(frames, 3);
    *(int *)user = done;
    return done == 2;
}

static void frames_are_numbered_from_one_and_hold_each_frame(void **state)
{
    (void)state;
    char dir[SCRATCH_SIZE], name[MEDIA_FRAME_NAME_SIZE];
    int fd = open_temp(dir), done = 0;
    struct picture p = scene(16, 9, 3);
    struct media_options o;
    struct media_limits l;
    struct err e = {0};
    media_limits_init(&l);
    media_options_init(&o, MEDIA_PNG);
    assert_int_equal(media_write_frames(fd, &p, &o, &e), 0);
    assert_string_equal(media_frame_name(0, 3, MEDIA_PNG, name), "frame-0001.png");
    for (int i = 0; i < 3; i++) {
        struct picture back, want = {16, 9, 1, picture_frame(&p, i)};
        assert_int_equal(media_read_image(fd, media_frame_name(i, 3, MEDIA_PNG, name), &l,
                                          MEDIA_READ_RGB, &back, &e),
                         0);
        assert_true(psnr(&want, &back, 0) == 99);
        picture_free(&back);
    }
    o.progress = stop_after_two;
    o.user = &done;
    o.format = MEDIA_WEBP;
    assert_int_equal(media_write_frames(fd, &p, &o, &e), -ECANCELED);
    assert_int_equal(faccessat(fd, "frame-0002.webp", F_OK, 0), 0);
    assert_int_not_equal(faccessat(fd, "frame-0003.webp", F_OK, 0), 0);
    assert_string_equal(media_frame_name(9999, 20000, MEDIA_JPEG, name), "frame-10000.jpg");
    assert_string_equal(media_frame_name(0, 20000, MEDIA_JPEG, name), "frame-00001.jpg");
    picture_free(&p);
    close_temp(fd, dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(png_gives_back_the_same_pixels),
        cmocka_unit_test(lossless_webp_gives_back_the_same_pixels),
        cmocka_unit_test(jpeg_and_webp_stay_close),
        cmocka_unit_test(better_quality_is_closer_and_larger),
        cmocka_unit_test(the_same_picture_gives_the_same_bytes),
        cmocka_unit_test(ascii_parameters_of_png_are_a_text_chunk_and_others_an_international_one),
        cmocka_unit_test(parameters_of_jpeg_and_webp_are_a_utf16_user_comment),
        cmocka_unit_test(parameters_too_long_for_exif_are_in_comments_of_the_jpeg),
        cmocka_unit_test(a_failed_write_leaves_the_old_file_and_no_other),
        cmocka_unit_test(frames_are_numbered_from_one_and_hold_each_frame),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
