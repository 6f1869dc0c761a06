/* Sizes of pictures against Pillow's (tests/reference/resample.py). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../support/pictures.h"
#include "base/cleanup.h"
#include "engine/resample.h"

static const struct {
    int width, height, to_width, to_height;
    uint64_t fnv;
} known[] = {
    {64, 48, 20, 31, 0x1c8e378f526a6dbe},        {33, 21, 100, 50, 0x88bc655bbeea6536},
    {30, 60, 32, 48, 0x09801565d4c70edf},        {40, 90, 39, 10, 0xbe4fd46769d370bc},
    {90, 40, 10, 39, 0x2345c988566bc518},        {50, 50, 50, 20, 0x978312ec2ff0a3e2},
    {50, 50, 20, 50, 0x188aa132dd60f815},        {1, 1, 7, 5, 0xb23ad2de44750609},
    {300, 2, 3, 200, 0x211496a978c9535b},        {16, 16, 16, 16, 0x91dae9f3a41ec705},
    {1200, 1000, 1121, 934, 0x3098b027e644cd17},
};

static uint64_t fnv(const uint8_t *bytes, size_t n)
{
    uint64_t h = 0xcbf29ce484222325;
    for (size_t i = 0; i < n; i++)
        h = (h ^ bytes[i]) * 0x100000001b3;
    return h;
}

static void lanczos_gives_the_bytes_of_pillow(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        struct picture in = picture_by_formula(known[i].width, known[i].height, 1), out;
        struct err e = {0};
        assert_int_equal(resample_lanczos(&in, known[i].to_width, known[i].to_height, &out, &e), 0);
        assert_int_equal(out.width, known[i].to_width);
        assert_int_equal(out.height, known[i].to_height);
        if (fnv(out.rgb, picture_frame_bytes(&out)) != known[i].fnv)
            fail_msg("%dx%d to %dx%d differs", in.width, in.height, out.width, out.height);
        picture_free(&in);
        picture_free(&out);
    }
}

static void the_middle_is_cut_out_with_the_odd_pixel_behind(void **state)
{
    (void)state;
    struct picture in = picture_by_formula(9, 7, 0), out;
    struct err e = {0};
    assert_int_equal(resample_center(&in, 4, 2, &out, &e), 0);
    for (int y = 0; y < 2; y++)
        assert_memory_equal(out.rgb + (size_t)y * 12, in.rgb + ((size_t)(y + 2) * 9 + 2) * 3, 12);
    picture_free(&in);
    picture_free(&out);
}

static void sizes_that_are_none_are_refused(void **state)
{
    static const int bad[][2] = {{0, 5}, {5, 0}, {-3, 5}, {70000, 5}};
    (void)state;
    struct picture in = picture_by_formula(8, 8, 0), empty = {0}, out;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err e = {0};
        assert_true(resample_lanczos(&in, bad[i][0], bad[i][1], &out, &e) < 0);
        assert_true(e.text[0]);
        assert_null(out.rgb);
    }
    struct err e = {0};
    assert_int_equal(resample_lanczos(&empty, 4, 4, &out, &e), -EINVAL);
    picture_free(&in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lanczos_gives_the_bytes_of_pillow),
        cmocka_unit_test(the_middle_is_cut_out_with_the_odd_pixel_behind),
        cmocka_unit_test(sizes_that_are_none_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
