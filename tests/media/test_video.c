/* MP4, WebM and animated WebP: read by FFmpeg's libraries as a player would. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <libavformat/avformat.h>
#include <libavutil/pixdesc.h>

#include "../support/pictures.h"
#include "base/file.h"
#include "media/media.h"
#include "../support/scratch.h"

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

/* What a player that opens the file finds. */
struct seen {
    enum AVCodecID codec;
    int format, range, space, primaries, transfer, width, height;
    double fps, seconds;
    char comment[256];
};

static struct seen look(const struct str *s, const char *ending)
{
    char pattern[32], path[SCRATCH_SIZE];
    struct seen seen = {0};
    snprintf(pattern, sizeof pattern, "omnifs-media-XXXXXX.%s", ending);
    scratch_name(path, pattern);
    int fd = mkstemps(path, (int)strlen(ending) + 1);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, s->data, s->len), s->len);
    close(fd);
    AVFormatContext *f = NULL;
    assert_int_equal(avformat_open_input(&f, path, NULL, NULL), 0);
    assert_true(avformat_find_stream_info(f, NULL) >= 0);
    assert_int_equal(f->nb_streams, 1);
    const AVCodecParameters *c = f->streams[0]->codecpar;
    seen = (struct seen){c->codec_id,
                         c->format,
                         (int)c->color_range,
                         (int)c->color_space,
                         (int)c->color_primaries,
                         (int)c->color_trc,
                         c->width,
                         c->height,
                         av_q2d(f->streams[0]->avg_frame_rate),
                         (double)f->duration / AV_TIME_BASE,
                         {0}};
    const AVDictionaryEntry *comment = av_dict_get(f->metadata, "comment", NULL, 0);
    if (comment)
        strncpy(seen.comment, comment->value, sizeof seen.comment - 1);
    avformat_close_input(&f);
    unlink(path);
    return seen;
}

static const struct {
    enum media_format format;
    enum AVCodecID codec;
    const char *ending;
} videos[] = {{MEDIA_MP4, AV_CODEC_ID_H264, "mp4"}, {MEDIA_WEBM, AV_CODEC_ID_VP9, "webm"}};

static void a_player_finds_codec_colours_rate_length_and_parameters(void **state)
{
    (void)state;
    struct picture p = scene(160, 90, 12);
    for (int i = 0; i < 2; i++) {
        struct media_options o;
        media_options_init(&o, videos[i].format);
        o.parameters = "a cat, ねこ\nSteps: 4";
        struct str s = encode(&p, &o);
        struct seen seen = look(&s, videos[i].ending);
        assert_int_equal(seen.codec, videos[i].codec);
        assert_int_equal(seen.format, AV_PIX_FMT_YUV420P);
        assert_int_equal(seen.range, AVCOL_RANGE_MPEG);
        assert_int_equal(seen.space, AVCOL_SPC_BT709);
        assert_int_equal(seen.primaries, AVCOL_PRI_BT709);
        assert_int_equal(seen.transfer, AVCOL_TRC_BT709);
        assert_true(seen.width == 160 && seen.height == 90);
        assert_true(fabs(seen.fps - 12) < 0.01);
        assert_true(fabs(seen.seconds - 1) < 0.01);
        assert_string_equal(seen.comment, o.parameters);
        str_free(&s);
    }
    picture_free(&p);
}

static void mp4_begins_with_its_index_so_that_it_plays_while_it_loads(void **state)
{
    (void)state;
    struct picture p = scene(160, 90, 12);
    struct media_options o;
    media_options_init(&o, MEDIA_MP4);
    struct str s = encode(&p, &o);
    const char *moov = memmem(s.data, s.len, "moov", 4), *mdat = memmem(s.data, s.len, "mdat", 4);
    assert_true(moov && mdat && moov < mdat);
    assert_null(memmem(mdat + 4, (size_t)(s.data + s.len - mdat - 4), "moov", 4));
    str_free(&s);
    picture_free(&p);
}

static void decoded_frames_are_close_and_in_order(void **state)
{
    (void)state;
    static const enum media_format formats[] = {MEDIA_MP4, MEDIA_WEBM, MEDIA_WEBP};
    struct picture p = scene(192, 108, 8);
    for (int i = 0; i < 3; i++) {
        struct media_options o;
        double fps;
        media_options_init(&o, formats[i]);
        struct str s = encode(&p, &o);
        struct picture back = decode(&s, &fps);
        assert_int_equal(back.frames, 8);
        if (psnr_least(&p, &back) < 31)
            fail_msg("format %d: %.1f dB", formats[i], psnr_least(&p, &back));
        assert_true(fabs(fps - 12) < 0.05);
        picture_free(&back);
        str_free(&s);
    }
    picture_free(&p);
}

/* A wrong matrix or range shows here as errors of 5 to 20 levels. */
static void flat_colours_come_back_within_rounding(void **state)
{
    (void)state;
    static const uint8_t colours[][3] = {{0, 0, 0},      {255, 255, 255}, {128, 128, 128},
                                         {255, 0, 0},    {0, 255, 0},     {0, 0, 255},
                                         {200, 150, 30}, {30, 90, 160}};
    for (size_t c = 0; c < sizeof colours / sizeof *colours; c++)
        for (int i = 0; i < 2; i++) {
            struct picture p = {0};
            struct media_options o;
            double fps;
            assert_int_equal(picture_new(&p, 64, 48, 2), 0);
            for (int k = 0; k < 64 * 48 * 2; k++)
                memcpy(p.rgb + 3 * k, colours[c], 3);
            media_options_init(&o, videos[i].format);
            struct str s = encode(&p, &o);
            struct picture back = decode(&s, &fps);
            for (int ch = 0; ch < 3; ch++)
                if (abs(back.rgb[(64 * 20 + 30) * 3 + ch] - colours[c][ch]) > 3)
                    fail_msg("%s: colour %zu channel %d: %d", videos[i].ending, c, ch,
                             back.rgb[(64 * 20 + 30) * 3 + ch]);
            picture_free(&back);
            picture_free(&p);
            str_free(&s);
        }
}

static void clips_of_one_and_two_frames_play_for_their_time(void **state)
{
    (void)state;
    for (int frames = 1; frames <= 2; frames++)
        for (int i = 0; i < 2; i++) {
            struct picture p = scene(64, 48, frames);
            struct media_options o;
            double fps;
            media_options_init(&o, videos[i].format);
            o.fps = 4;
            struct str s = encode(&p, &o);
            struct picture back = decode(&s, &fps);
            assert_int_equal(back.frames, frames);
            assert_true(psnr_least(&p, &back) > 30);
            assert_true(fabs(look(&s, videos[i].ending).seconds - frames * 0.25) < 0.01);
            picture_free(&back);
            picture_free(&p);
            str_free(&s);
        }
}

static void odd_sizes_get_one_more_column_or_row(void **state)
{
    (void)state;
    static const int sizes[][2] = {{65, 48}, {64, 49}, {63, 47}, {1, 1}, {3, 17}};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
        for (int i = 0; i < 2; i++) {
            struct picture p = scene(sizes[k][0], sizes[k][1], 2);
            struct media_options o;
            double fps;
            media_options_init(&o, videos[i].format);
            struct str s = encode(&p, &o);
            struct picture back = decode(&s, &fps);
            assert_int_equal(back.width, (p.width + 1) / 2 * 2);
            assert_int_equal(back.height, (p.height + 1) / 2 * 2);
            double sum = 0;
            for (int y = 0; y < p.height; y++)
                for (int x = 0; x < p.width * 3; x++)
                    sum += abs(p.rgb[y * p.width * 3 + x] - back.rgb[y * back.width * 3 + x]);
            assert_true(sum / (p.width * p.height * 3) < (p.width < 16 ? 40 : 6));
            picture_free(&back);
            picture_free(&p);
            str_free(&s);
        }
}

static void any_rate_is_kept_exactly(void **state)
{
    (void)state;
    static const struct {
        double fps, exact;
    } rates[] = {{24, 24},
                 {23.976, 24000.0 / 1001},
                 {29.97, 30000.0 / 1001},
                 {12.5, 12.5},
                 {7.3, 7.3},
                 {60, 60},
                 {0.5, 0.5},
                 {120, 120},
                 {1.0 / 3, 1.0 / 3}};
    struct picture p = scene(32, 32, 6);
    for (size_t k = 0; k < sizeof rates / sizeof *rates; k++) {
        struct media_options o;
        double fps;
        media_options_init(&o, MEDIA_MP4);
        o.fps = rates[k].fps;
        struct str s = encode(&p, &o);
        struct picture back = decode(&s, &fps);
        if (fabs(fps - rates[k].exact) > 1e-4 * rates[k].exact)
            fail_msg("%g became %.9g", rates[k].fps, fps);
        assert_true(fabs(look(&s, "mp4").fps - rates[k].exact) < 1e-3 * rates[k].exact);
        picture_free(&back);
        str_free(&s);
    }
    picture_free(&p);
}

static void better_quality_is_closer_and_larger(void **state)
{
    (void)state;
    struct picture p = scene(160, 96, 6);
    for (int i = 0; i < 2; i++) {
        double last_db = 0;
        size_t last_bytes = 0;
        for (int q = 1; q <= 100; q += 33) {
            struct media_options o;
            double fps;
            media_options_init(&o, videos[i].format);
            o.quality = q;
            struct str s = encode(&p, &o);
            struct picture back = decode(&s, &fps);
            assert_true(s.len > last_bytes);
            assert_true(psnr_least(&p, &back) > last_db);
            last_bytes = s.len;
            last_db = psnr_least(&p, &back);
            picture_free(&back);
            str_free(&s);
        }
    }
    picture_free(&p);
}

static void the_same_clip_gives_the_same_bytes(void **state)
{
    (void)state;
    static const enum media_format formats[] = {MEDIA_MP4, MEDIA_WEBM, MEDIA_WEBP};
    struct picture p = scene(320, 180, 10);
    for (int i = 0; i < 3; i++) {
        struct media_options o;
        media_options_init(&o, formats[i]);
        struct str a = encode(&p, &o);
        for (int again = 0; again < 4; again++) {
            struct str b = encode(&p, &o);
            assert_int_equal(a.len, b.len);
            assert_memory_equal(a.data, b.data, a.len);
            str_free(&b);
        }
        str_free(&a);
    }
    picture_free(&p);
}

static void probe_tells_what_each_file_holds(void **state)
{
    (void)state;
    char dir[SCRATCH_SIZE];
    assert_non_null(mkdtemp(scratch_name(dir, "omnifs-media-XXXXXX")));
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct media_limits l;
    media_limits_init(&l);
    for (int f = 0; f < MEDIA_FORMAT_COUNT; f++) {
        bool clip = media_format_info((enum media_format)f)->clip;
        struct picture p = scene(64, 48, clip ? 5 : 1);
        struct media_options o;
        struct media_info info;
        struct err e = {0};
        media_options_init(&o, (enum media_format)f);
        assert_int_equal(media_write(fd, "file", &p, &o, &e), 0);
        if (media_probe(fd, "file", &l, &info, &e))
            fail_msg("%s", e.text);
        assert_int_equal(info.format, f);
        assert_int_equal(info.width, 64);
        assert_int_equal(info.height, 48);
        assert_int_equal(info.frames, clip ? 5 : 1);
        assert_true(fabs(info.seconds - (clip ? 5 / 12.0 : 0)) < 0.011);
        assert_true(clip ? fabs(info.fps - 12) < 0.3 : info.fps == 0);
        picture_free(&p);
    }
    close(fd);
    assert_int_equal(file_remove_tree(AT_FDCWD, dir), 0);
}

static int count(void *user, int index, double end, struct err *e)
{
    int *frames = user;
    (void)e;
    assert_int_equal(index, (*frames)++);
    assert_true(index == 35 ? isinf(end) : fabs(end - (index + 1) / 12.0) < 0.002);
    return 0;
}

/* The clip has 36 frames, and more packets: VP8 frames that only others refer to. */
static void frames_that_are_never_shown_do_not_count(void **state)
{
    (void)state;
    static const char name[] = "tests/media/clips/vp8_hidden_frames.webm";
    struct media_limits l;
    struct media_info info;
    struct err e = {0};
    int frames = 0;
    const struct media_frames counted = {.user = &frames, .wants = count};
    media_limits_init(&l);
    assert_int_equal(media_probe(AT_FDCWD, name, &l, &info, &e), 0);
    assert_int_equal(info.frames, 36);
    assert_true(fabs(info.fps - 12) < 0.1);
    assert_int_equal(media_each_frame(AT_FDCWD, name, &l, &counted, &e), 0);
    assert_int_equal(frames, 36);
}

struct comparison {
    const struct picture *clip;
    int step, stop_at, code; /* every step-th is wanted; after stop_at of them it ends */
    int asked, seen;
};

static int every(void *user, int index, double end, struct err *e)
{
    struct comparison *c = user;
    (void)e;
    assert_int_equal(index, c->asked++);
    assert_true(index == 4 ? isinf(end) : fabs(end - (index + 1) / 12.0) < 0.011);
    return index % c->step == 0;
}

static int compare(void *user, int index, const struct picture *frame, struct err *e)
{
    struct comparison *c = user;
    (void)e;
    assert_int_equal(index, c->step * c->seen++);
    assert_memory_equal(frame->rgb, picture_frame(c->clip, index), picture_frame_bytes(frame));
    return c->seen == c->stop_at ? c->code : 0;
}

static struct comparison compared(int fd, const struct picture *whole, int step, int stop_at,
                                  int code, int expected)
{
    struct comparison c = {whole, step, stop_at, code, 0, 0};
    const struct media_frames frames = {&c, every, compare};
    struct media_limits l;
    struct err e = {0};
    media_limits_init(&l);
    assert_int_equal(media_each_frame(fd, "file", &l, &frames, &e), expected);
    return c;
}

static void frames_one_by_one_are_those_of_the_whole(void **state)
{
    (void)state;
    static const enum media_format formats[] = {MEDIA_MP4, MEDIA_WEBM, MEDIA_GIF, MEDIA_WEBP};
    char dir[SCRATCH_SIZE];
    assert_non_null(mkdtemp(scratch_name(dir, "omnifs-media-XXXXXX")));
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct media_limits l;
    media_limits_init(&l);
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
        struct picture p = scene(64, 48, 5), whole;
        struct media_options o;
        struct err e = {0};
        double fps;
        media_options_init(&o, formats[f]);
        assert_int_equal(media_write(fd, "file", &p, &o, &e), 0);
        assert_int_equal(media_read_clip(fd, "file", &l, &whole, &fps, &e), 0);
        assert_int_equal(compared(fd, &whole, 1, 0, 0, 0).seen, 5);
        assert_int_equal(compared(fd, &whole, 2, 0, 0, 0).seen, 3);
        assert_int_equal(compared(fd, &whole, 1, 2, 1, 0).asked, 2);
        assert_int_equal(compared(fd, &whole, 1, 3, -5, -5).seen, 3);
        picture_free(&p);
        picture_free(&whole);
    }
    close(fd);
    assert_int_equal(file_remove_tree(AT_FDCWD, dir), 0);
}

/* libwebp makes one frame that stays longer of several that are alike. */
static void the_rate_is_that_of_the_usual_frame(void **state)
{
    (void)state;
    char dir[SCRATCH_SIZE];
    assert_non_null(mkdtemp(scratch_name(dir, "omnifs-media-XXXXXX")));
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct picture p = scene(64, 48, 12);
    struct media_limits l;
    struct media_options o;
    struct media_info info;
    struct err e = {0};
    media_limits_init(&l);
    media_options_init(&o, MEDIA_WEBP);
    o.fps = 10;
    for (int i = 6; i < 12; i++)
        memcpy(picture_frame(&p, i), picture_frame(&p, 5), picture_frame_bytes(&p));
    assert_int_equal(media_write(fd, "file", &p, &o, &e), 0);
    assert_int_equal(media_probe(fd, "file", &l, &info, &e), 0);
    assert_int_equal(info.frames, 6);
    assert_true(fabs(info.seconds - 1.2) < 0.001);
    assert_true(fabs(info.fps - 10) < 0.001);
    picture_free(&p);
    close(fd);
    assert_int_equal(file_remove_tree(AT_FDCWD, dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_player_finds_codec_colours_rate_length_and_parameters),
        cmocka_unit_test(mp4_begins_with_its_index_so_that_it_plays_while_it_loads),
        cmocka_unit_test(decoded_frames_are_close_and_in_order),
        cmocka_unit_test(flat_colours_come_back_within_rounding),
        cmocka_unit_test(clips_of_one_and_two_frames_play_for_their_time),
        cmocka_unit_test(odd_sizes_get_one_more_column_or_row),
        cmocka_unit_test(any_rate_is_kept_exactly),
        cmocka_unit_test(better_quality_is_closer_and_larger),
        cmocka_unit_test(the_same_clip_gives_the_same_bytes),
        cmocka_unit_test(frames_that_are_never_shown_do_not_count),
        cmocka_unit_test(the_rate_is_that_of_the_usual_frame),
        cmocka_unit_test(frames_one_by_one_are_those_of_the_whole),
        cmocka_unit_test(probe_tells_what_each_file_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
