/* GIF: what a viewer shows is what was drawn, for as long as it should. Decoded by FFmpeg's
 * libraries through media_decode_clip; the block structure is read here. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/pictures.h"
#include "media/media.h"

static struct str encode(const struct picture *p, const struct media_options *o)
{
    struct str out = {0};
    struct err e = {0};
    if (media_encode(p, o, &out, &e))
        fail_msg("%s", e.text);
    return out;
}

static struct picture decode(const struct str *s, double *fps)
{
    struct picture p;
    struct media_limits l;
    struct err e = {0};
    media_limits_init(&l);
    if (media_decode_clip(s->data, s->len, "test", &l, &p, fps, &e))
        fail_msg("%s", e.text);
    return p;
}

/* What the blocks of a GIF say. */
struct blocks {
    int frames, colours; /* entries of the global table */
    int delays[64];      /* centiseconds */
    int areas[64];       /* pixels stored a frame */
    int disposals[64];
    int loops; /* of NETSCAPE2.0, -1 when absent */
    char comment[256];
};

static size_t skip_blocks(const uint8_t *b, size_t at)
{
    while (b[at])
        at += b[at] + 1u;
    return at + 1;
}

static size_t read_extension(const uint8_t *b, size_t at, struct blocks *out)
{
    if (b[at + 1] == 0xF9) {
        out->disposals[out->frames] = b[at + 3] >> 2 & 7;
        out->delays[out->frames] = b[at + 4] | b[at + 5] << 8;
    } else if (b[at + 1] == 0xFF && !memcmp(b + at + 3, "NETSCAPE2.0", 11)) {
        out->loops = b[at + 16] | b[at + 17] << 8;
    } else if (b[at + 1] == 0xFE) {
        memcpy(out->comment, b + at + 3, b[at + 2]);
    }
    return skip_blocks(b, at + 2);
}

static struct blocks read_blocks(const struct str *s)
{
    struct blocks out = {.loops = -1};
    const uint8_t *b = (const uint8_t *)s->data;
    assert_memory_equal(b, "GIF89a", 6);
    assert_true(b[10] & 0x80);
    out.colours = 2 << (b[10] & 7);
    size_t at = 13 + 3 * (size_t)out.colours;
    while (b[at] != 0x3B) {
        assert_true(at < s->len && out.frames < 64);
        if (b[at] == 0x21) {
            at = read_extension(b, at, &out);
            continue;
        }
        assert_int_equal(b[at], 0x2C);
        assert_int_equal(b[at + 9], 0); /* no local table, not interlaced */
        out.areas[out.frames++] = (b[at + 5] | b[at + 6] << 8) * (b[at + 7] | b[at + 8] << 8);
        at = skip_blocks(b, at + 11);
    }
    assert_int_equal(at + 1, s->len);
    return out;
}

static void a_clip_lasts_as_long_as_its_frames_at_any_rate(void **state)
{
    (void)state;
    static const double rates[] = {0.5, 1,  7,     8,  10,   12, 15, 23.976,
                                   24,  25, 29.97, 30, 33.3, 48, 50};
    struct picture p = scene(24, 16, 24);
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        struct media_options o;
        media_options_init(&o, MEDIA_GIF);
        o.fps = rates[i];
        struct str s = encode(&p, &o);
        struct blocks b = read_blocks(&s);
        int total = 0;
        assert_int_equal(b.frames, 24);
        for (int k = 0; k < 24; k++) {
            assert_true(fabs(b.delays[k] - 100 / rates[i]) < 1);
            total += b.delays[k];
        }
        assert_int_equal(total, lround(2400 / rates[i]));
        str_free(&s);
    }
    picture_free(&p);
}

static void twelve_frames_a_second_alternate_eight_and_nine(void **state)
{
    (void)state;
    static const int want[6] = {8, 9, 8, 8, 9, 8};
    struct picture p = scene(8, 8, 6);
    struct media_options o;
    media_options_init(&o, MEDIA_GIF);
    struct str s = encode(&p, &o);
    struct blocks b = read_blocks(&s);
    for (int i = 0; i < 6; i++)
        assert_int_equal(b.delays[i], want[i]);
    str_free(&s);
    picture_free(&p);
}

/* Browsers slow delays below two centiseconds down to ten. */
static void rates_over_fifty_lose_frames_but_no_time(void **state)
{
    (void)state;
    struct picture p = scene(8, 8, 60);
    for (double fps = 60; fps <= 240; fps *= 2) {
        struct media_options o;
        media_options_init(&o, MEDIA_GIF);
        o.fps = fps;
        struct str s = encode(&p, &o);
        struct blocks b = read_blocks(&s);
        int total = 0;
        for (int i = 0; i < b.frames; i++) {
            assert_true(b.delays[i] >= 2);
            total += b.delays[i];
        }
        assert_in_range(total, lround(6000 / fps), lround(6000 / fps) + 1);
        str_free(&s);
    }
    picture_free(&p);
}

static void loops_mean_times_played(void **state)
{
    (void)state;
    static const struct {
        int loop, frames, want;
    } cases[] = {{0, 2, 0}, {1, 2, -1}, {2, 2, 1}, {65535, 2, 65534}, {0, 1, -1}, {5, 1, -1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct picture p = scene(8, 8, cases[i].frames);
        struct media_options o;
        media_options_init(&o, MEDIA_GIF);
        o.loop = cases[i].loop;
        struct str s = encode(&p, &o);
        assert_int_equal(read_blocks(&s).loops, cases[i].want);
        str_free(&s);
        picture_free(&p);
    }
}

static void parameters_are_the_comment(void **state)
{
    (void)state;
    struct picture p = scene(8, 8, 2);
    struct media_options o;
    media_options_init(&o, MEDIA_GIF);
    o.parameters = "a cat, ねこ\nSteps: 4";
    struct str s = encode(&p, &o);
    assert_string_equal(read_blocks(&s).comment, o.parameters);
    str_free(&s);
    picture_free(&p);
}

static void decoded_frames_are_close_with_every_dither(void **state)
{
    (void)state;
    static const double least[] = {[MEDIA_DITHER_AUTO] = 28,
                                   [MEDIA_DITHER_NONE] = 31,
                                   [MEDIA_DITHER_BAYER] = 28,
                                   [MEDIA_DITHER_FLOYD] = 28};
    struct picture p = scene(161, 93, 6);
    for (int d = MEDIA_DITHER_AUTO; d <= MEDIA_DITHER_FLOYD; d++) {
        struct media_options o;
        double fps;
        media_options_init(&o, MEDIA_GIF);
        o.dither = (enum media_dither)d;
        struct str s = encode(&p, &o);
        struct picture back = decode(&s, &fps);
        assert_int_equal(back.frames, 6);
        assert_int_equal(back.width, 161);
        if (psnr_least(&p, &back) < least[d])
            fail_msg("dither %d: %.1f dB", d, psnr_least(&p, &back));
        assert_true(fabs(fps - 12) < 1e-6);
        picture_free(&back);
        str_free(&s);
    }
    picture_free(&p);
}

static int count_colours(const struct picture *p)
{
    uint32_t seen[300];
    int n = 0;
    size_t pixels = picture_frame_bytes(p) / 3 * (size_t)p->frames;
    for (size_t i = 0; i < pixels; i++) {
        uint32_t c =
            (uint32_t)p->rgb[3 * i] << 16 | (uint32_t)p->rgb[3 * i + 1] << 8 | p->rgb[3 * i + 2];
        int k = 0;
        while (k < n && seen[k] != c)
            k++;
        if (k == n && n < 299)
            seen[n++] = c;
    }
    return n;
}

static void no_more_colours_are_used_than_asked_for(void **state)
{
    (void)state;
    static const int palettes[] = {2, 3, 4, 5, 16, 31, 64, 128, 255, 256};
    struct picture p = scene(80, 50, 3);
    double last = 0;
    for (size_t i = 0; i < sizeof palettes / sizeof *palettes; i++) {
        struct media_options o;
        double fps;
        media_options_init(&o, MEDIA_GIF);
        o.palette = palettes[i];
        o.dither = MEDIA_DITHER_NONE;
        struct str s = encode(&p, &o);
        struct picture back = decode(&s, &fps);
        assert_in_range(count_colours(&back), palettes[i] / 2, palettes[i]);
        double db = psnr_least(&p, &back);
        assert_true(db > last - 0.2);
        last = db;
        picture_free(&back);
        str_free(&s);
    }
    picture_free(&p);
}

/* Few colours: each exactly, whatever the dither, even two that are nearly alike. */
static void a_drawing_of_few_colours_is_exact(void **state)
{
    (void)state;
    static const uint8_t colours[5][3] = {
        {0, 0, 0}, {1, 0, 0}, {255, 255, 255}, {254, 1, 77}, {9, 200, 3}};
    struct picture p = {0};
    assert_int_equal(picture_new(&p, 37, 21, 4), 0);
    for (int i = 0; i < 37 * 21 * 4; i++)
        memcpy(p.rgb + 3 * i, colours[(i / 11 + i / 777) % 5], 3);
    for (int d = MEDIA_DITHER_AUTO; d <= MEDIA_DITHER_FLOYD; d++)
        for (int quality = 100; quality >= 90; quality -= 10) {
            struct media_options o;
            double fps;
            media_options_init(&o, MEDIA_GIF);
            o.dither = (enum media_dither)d;
            o.quality = quality;
            o.palette = 5;
            struct str s = encode(&p, &o);
            struct picture back = decode(&s, &fps);
            if (quality == 100)
                assert_memory_equal(back.rgb, p.rgb, picture_frame_bytes(&p) * 4);
            else
                assert_true(psnr_least(&p, &back) > 50); /* black may stay where 1, 0, 0 follows */
            picture_free(&back);
            str_free(&s);
        }
    picture_free(&p);
}

static void only_what_moves_is_stored(void **state)
{
    (void)state;
    struct picture p = {0}, still = scene(120, 80, 1);
    struct media_options o;
    assert_int_equal(picture_new(&p, 120, 80, 4), 0);
    for (int f = 0; f < 4; f++) {
        memcpy(picture_frame(&p, f), still.rgb, picture_frame_bytes(&p));
        for (int y = 30; f != 2 && y < 40; y++) /* a square that moves; frame 2 is frame 1 again */
            memset(picture_frame(&p, f) + (y * 120 + 20 + 10 * f) * 3, 255, 30);
    }
    memcpy(picture_frame(&p, 2), picture_frame(&p, 1), picture_frame_bytes(&p));
    media_options_init(&o, MEDIA_GIF);
    struct str s = encode(&p, &o);
    struct blocks b = read_blocks(&s);
    assert_int_equal(b.areas[0], 120 * 80);
    assert_in_range(b.areas[1], 100, 20 * 10);
    assert_int_equal(b.areas[2], 1);
    assert_in_range(b.areas[3], 100, 30 * 10);
    for (int i = 0; i < 4; i++)
        assert_int_equal(b.disposals[i], 1);
    double fps;
    struct picture back = decode(&s, &fps);
    assert_true(psnr_least(&p, &back) > 28);
    picture_free(&back);
    picture_free(&p);
    picture_free(&still);
    str_free(&s);
}

/* A slow fade moves each pixel by less a frame than quality lets pass; it must arrive anyway. */
static void small_changes_do_not_add_up_to_a_wrong_picture(void **state)
{
    (void)state;
    struct picture p = {0};
    struct media_options o;
    double fps;
    assert_int_equal(picture_new(&p, 32, 32, 60), 0);
    for (int f = 0; f < 60; f++)
        memset(picture_frame(&p, f), 40 + 2 * f, picture_frame_bytes(&p));
    media_options_init(&o, MEDIA_GIF);
    o.quality = 80; /* lets 5 levels pass */
    struct str s = encode(&p, &o);
    struct picture back = decode(&s, &fps);
    for (int f = 0; f < 60; f++)
        assert_in_range(picture_frame(&back, f)[0], 40 + 2 * f - 6, 40 + 2 * f + 6);
    picture_free(&back);
    picture_free(&p);
    str_free(&s);
}

static int stop(void *user, int done, int frames)
{
    (void)user;
    (void)frames;
    return done >= 2;
}

static void a_cancelled_clip_is_no_file(void **state)
{
    (void)state;
    static const enum media_format clips[] = {MEDIA_GIF, MEDIA_WEBP, MEDIA_MP4, MEDIA_WEBM};
    struct picture p = scene(32, 32, 4);
    for (int i = 0; i < 4; i++) {
        struct media_options o;
        struct str out = {0};
        struct err e = {0};
        media_options_init(&o, clips[i]);
        o.progress = stop;
        assert_int_equal(media_encode(&p, &o, &out, &e), -ECANCELED);
        assert_non_null(strstr(e.text, "cancelled after frame 2 of 4"));
        assert_int_equal(out.len, 0);
        str_free(&out);
    }
    picture_free(&p);
}

static void the_same_clip_gives_the_same_bytes(void **state)
{
    (void)state;
    struct picture p = scene(90, 70, 5);
    struct media_options o;
    media_options_init(&o, MEDIA_GIF);
    struct str a = encode(&p, &o), b = encode(&p, &o);
    assert_int_equal(a.len, b.len);
    assert_memory_equal(a.data, b.data, a.len);
    str_free(&a);
    str_free(&b);
    picture_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_clip_lasts_as_long_as_its_frames_at_any_rate),
        cmocka_unit_test(twelve_frames_a_second_alternate_eight_and_nine),
        cmocka_unit_test(rates_over_fifty_lose_frames_but_no_time),
        cmocka_unit_test(loops_mean_times_played),
        cmocka_unit_test(parameters_are_the_comment),
        cmocka_unit_test(decoded_frames_are_close_with_every_dither),
        cmocka_unit_test(no_more_colours_are_used_than_asked_for),
        cmocka_unit_test(a_drawing_of_few_colours_is_exact),
        cmocka_unit_test(only_what_moves_is_stored),
        cmocka_unit_test(small_changes_do_not_add_up_to_a_wrong_picture),
        cmocka_unit_test(a_cancelled_clip_is_no_file),
        cmocka_unit_test(the_same_clip_gives_the_same_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
