/* Sizes: constant colours stay, edges stay where they are, every frame is done. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/pictures.h"
#include "media/media.h"

static struct picture resize(const struct picture *p, int width, int height, enum media_scale how)
{
    struct picture out;
    struct err e = {0};
    if (media_resize(p, width, height, how, &out, &e))
        fail_msg("%s", e.text);
    assert_int_equal(out.width, width);
    assert_int_equal(out.height, height);
    assert_int_equal(out.frames, p->frames);
    return out;
}

static void a_constant_colour_stays_exactly_what_it_was(void **state)
{
    (void)state;
    static const uint8_t colours[][3] = {{0, 0, 0},   {255, 255, 255}, {255, 0, 0},    {0, 255, 0},
                                         {0, 0, 255}, {1, 2, 3},       {127, 128, 129}};
    static const int sizes[][2] = {{64, 64}, {17, 5}, {3, 3}, {1, 1}, {200, 7}};
    for (size_t c = 0; c < sizeof colours / sizeof *colours; c++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (int how = MEDIA_LANCZOS; how <= MEDIA_NEAREST; how++) {
                struct picture p = scene(16, 16, 1);
                for (int i = 0; i < 16 * 16; i++)
                    memcpy(p.rgb + 3 * i, colours[c], 3);
                struct picture out = resize(&p, sizes[s][0], sizes[s][1], (enum media_scale)how);
                for (int i = 0; i < out.width * out.height * 3; i++)
                    assert_in_range(out.rgb[i] + 1, colours[c][i % 3], colours[c][i % 3] + 2);
                picture_free(&out);
                picture_free(&p);
            }
}

static void there_and_back_is_nearly_the_same_picture(void **state)
{
    (void)state;
    struct picture p = scene(96, 64, 2);
    struct picture big = resize(&p, 384, 256, MEDIA_LANCZOS);
    struct picture back = resize(&big, 96, 64, MEDIA_LANCZOS);
    assert_true(psnr_least(&p, &back) > 38);
    picture_free(&p);
    picture_free(&big);
    picture_free(&back);
}

static void every_frame_is_resized(void **state)
{
    (void)state;
    struct picture p = scene(64, 48, 3);
    struct picture all = resize(&p, 100, 75, MEDIA_BICUBIC);
    for (int i = 0; i < 3; i++) {
        struct picture one = {64, 48, 1, picture_frame(&p, i)};
        struct picture alone = resize(&one, 100, 75, MEDIA_BICUBIC);
        assert_memory_equal(alone.rgb, picture_frame(&all, i), picture_frame_bytes(&all));
        picture_free(&alone);
    }
    picture_free(&p);
    picture_free(&all);
}

static void an_edge_stays_in_the_middle(void **state)
{
    (void)state;
    struct picture p = {0};
    assert_int_equal(picture_new(&p, 8, 8, 1), 0);
    for (int i = 0; i < 64; i++)
        memset(p.rgb + 3 * i, i % 8 < 4 ? 0 : 255, 3);
    struct picture big = resize(&p, 80, 80, MEDIA_BILINEAR);
    const uint8_t *row = big.rgb + 40 * 80 * 3;
    assert_true(row[33 * 3] < 10 && row[46 * 3] > 245);
    assert_in_range(row[39 * 3] + row[40 * 3], 250, 260); /* symmetric about it */
    picture_free(&p);
    picture_free(&big);
}

static void impossible_sizes_are_refused(void **state)
{
    (void)state;
    struct picture p = scene(8, 8, 1), out, none = {0};
    struct err e = {0};
    assert_int_equal(media_resize(&p, 0, 8, MEDIA_LANCZOS, &out, &e), -EINVAL);
    assert_int_equal(media_resize(&p, 8, -1, MEDIA_LANCZOS, &out, &e), -EINVAL);
    assert_int_equal(media_resize(&p, 1 << 20, 8, MEDIA_LANCZOS, &out, &e), -EINVAL);
    assert_non_null(strstr(e.text, "1048576x8"));
    assert_int_equal(media_resize(&p, 8, 8, (enum media_scale)9, &out, &e), -EINVAL);
    assert_int_equal(media_resize(&none, 8, 8, MEDIA_LANCZOS, &out, &e), -EINVAL);
    assert_null(out.rgb);
    picture_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_constant_colour_stays_exactly_what_it_was),
        cmocka_unit_test(there_and_back_is_nearly_the_same_picture),
        cmocka_unit_test(every_frame_is_resized),
        cmocka_unit_test(an_edge_stays_in_the_middle),
        cmocka_unit_test(impossible_sizes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
