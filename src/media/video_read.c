/* MP4, WebM and GIF in, by FFmpeg's libraries: first a walk over the packets, which finds the
 * number of frames and what is cut; then the frames. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <libavcodec/avcodec.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>

#include "base/cleanup.h"
#include "media/video.h"

/* What is open while a clip is read; zero-initialised, freed by `finish`. */
struct reader {
    const struct source *s;
    struct err *e;
    enum media_format format;
    struct memory_io memory;
    AVIOContext *io;
    AVFormatContext *file;
    AVStream *stream;
    AVCodecContext *codec;
    struct SwsContext *convert;
    AVFrame *frame, *held; /* the one that was decoded, and the one before */
    AVPacket *packet;
    uint8_t *rgba;  /* [height, width, 4] of one frame */
    int64_t *times; /* of the frames, while they are counted */
};

static const struct {
    const char *demuxer;
    enum AVCodecID codecs[5]; /* those a clip of this kind may use; a hostile one names stranger */
} kinds[MEDIA_FORMAT_COUNT] = {
    [MEDIA_MP4] = {"mov", {AV_CODEC_ID_H264, AV_CODEC_ID_HEVC, AV_CODEC_ID_MPEG4, AV_CODEC_ID_AV1}},
    [MEDIA_WEBM] = {"matroska",
                    {AV_CODEC_ID_VP9, AV_CODEC_ID_VP8, AV_CODEC_ID_AV1, AV_CODEC_ID_H264}},
    [MEDIA_GIF] = {"gif", {AV_CODEC_ID_GIF}},
};

static int damaged(const struct reader *d, const char *why)
{
    return err_set(d->e, -EINVAL, "%s is not a whole %s file: %s", d->s->name,
                   media_format_info(d->format)->name, why);
}

static int refuse_open(AVFormatContext *file, AVIOContext **io, const char *url, int flags,
                       AVDictionary **options)
{
    (void)file;
    (void)io;
    (void)url;
    (void)flags;
    (void)options;
    return AVERROR(EACCES);
}

static bool known_codec(const struct reader *d)
{
    enum AVCodecID id = d->stream->codecpar->codec_id;
    for (size_t i = 0; i < sizeof kinds->codecs / sizeof *kinds->codecs; i++)
        if (id != AV_CODEC_ID_NONE && kinds[d->format].codecs[i] == id)
            return true;
    return false;
}

static int open_file(struct reader *d)
{
    char text[AV_TEXT_SIZE];
    d->memory = (struct memory_io){.bytes = d->s->bytes, .size = d->s->size};
    d->io = media_memory_open(&d->memory);
    d->file = avformat_alloc_context();
    if (!d->io || !d->file)
        return err_nomem(d->e);
    d->file->pb = d->io;
    d->file->io_open = refuse_open;
    d->file->flags |= AVFMT_FLAG_CUSTOM_IO;
    d->file->max_streams = 32;
    int code =
        avformat_open_input(&d->file, "", av_find_input_format(kinds[d->format].demuxer), NULL);
    if (code < 0)
        return damaged(d, media_av_text(code, text));
    int best = av_find_best_stream(d->file, AVMEDIA_TYPE_VIDEO, -1, -1, NULL, 0);
    if (best < 0)
        return damaged(d, "there is no video in it");
    d->stream = d->file->streams[best];
    for (unsigned i = 0; i < d->file->nb_streams; i++)
        if (d->file->streams[i] != d->stream)
            d->file->streams[i]->discard = AVDISCARD_ALL;
    if (!known_codec(d))
        return err_set(d->e, -EINVAL,
                       "%s is compressed as %s; H.264, HEVC, VP8, VP9, AV1 and MPEG-4 are read",
                       d->s->name, avcodec_get_name(d->stream->codecpar->codec_id));
    return media_check_size(d->s, d->stream->codecpar->width, d->stream->codecpar->height, d->e);
}

/* An EBML variable-size number at *at: its length is told by the first set bit; all ones is
 * "unknown" and comes back as the greatest size. False when it is cut. */
static bool read_vint(const struct source *s, size_t *at, uint64_t *value)
{
    if (*at >= s->size || !s->bytes[*at])
        return false;
    int more = __builtin_clz(s->bytes[*at]) - 24;
    uint64_t v = s->bytes[*at] & (0x7Fu >> more), ones = 0x7Fu >> more;
    if (s->size - *at <= (size_t)more)
        return false;
    for (int i = 1; i <= more; i++) {
        v = v << 8 | s->bytes[*at + (size_t)i];
        ones = ones << 8 | 0xFF;
    }
    *at += (size_t)more + 1;
    *value = v == ones ? UINT64_MAX : v;
    return true;
}

/* Header, then one segment that says how long it is. */
static bool webm_ends(const struct source *s)
{
    size_t at = 4;
    uint64_t size;
    if (!read_vint(s, &at, &size) || size > s->size - at || s->size - at - size < 5)
        return false;
    at += (size_t)size + 4;
    return read_vint(s, &at, &size) && (size == UINT64_MAX || size <= s->size - at);
}

/* A trailer byte, maybe with padding after it. */
static bool gif_ends(const struct source *s)
{
    size_t n = s->size;
    while (n && s->bytes[n - 1] == 0)
        n--;
    return n && s->bytes[n - 1] == 0x3B;
}

/* The libraries make the best of a cut file; here it is an error. (MP4 counts its frames.) */
static bool has_end(const struct reader *d)
{
    return d->format == MEDIA_GIF ? gif_ends(d->s) : d->format != MEDIA_WEBM || webm_ends(d->s);
}

/* Is it a frame to see? VP8 has frames that only others refer to, in packets of their own (RFC
 * 6386, 9.1: show_frame). */
static bool is_shown(const struct reader *d)
{
    const AVPacket *p = d->packet;
    bool vp8 = d->stream->codecpar->codec_id == AV_CODEC_ID_VP8;
    return !(p->flags & AV_PKT_FLAG_DISCARD) && !(vp8 && p->size > 0 && !(p->data[0] & 0x10));
}

/* What the packets of a file say. */
struct count {
    int64_t frames, timed, end; /* frames with a time, which lie in d->times */
};

static int count_packet(struct reader *d, struct count *c)
{
    const AVPacket *p = d->packet;
    int64_t at = p->pts != AV_NOPTS_VALUE ? p->pts : p->dts;
    if (p->flags & AV_PKT_FLAG_CORRUPT)
        return AVERROR_INVALIDDATA;
    if (!is_shown(d))
        return 0;
    if (c->frames++ == d->s->limits->max_frames)
        return media_check_frames(d->s, 1, 1, c->frames, d->e);
    if (at == AV_NOPTS_VALUE || at <= -(INT64_MAX / 4) || at >= INT64_MAX / 4)
        return 0;
    if ((c->timed & (c->timed - 1)) == 0) { /* a power of two: full */
        int64_t *more = av_realloc_array(d->times, (size_t)c->timed * 2 + 1, sizeof *more);
        if (!more)
            return err_nomem(d->e);
        d->times = more;
    }
    d->times[c->timed++] = at;
    int64_t end = p->duration > 0 && p->duration < INT64_MAX / 4 ? at + p->duration : at;
    c->end = end > c->end ? end : c->end;
    return 0;
}

static int by_time(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Duration and rate from the times of the frames, which come in the order they are decoded in. */
static int measure(struct reader *d, struct count *c, struct media_info *info)
{
    double unit = av_q2d(d->stream->time_base);
    int64_t n = c->timed;
    AUTO_FREE double *stays = malloc(((size_t)n + 1) * sizeof *stays);
    if (!stays)
        return err_nomem(d->e);
    qsort(d->times, (size_t)n, sizeof *d->times, by_time);
    int64_t first = n ? d->times[0] : 0, last = n ? d->times[n - 1] : 0;
    if (c->end <= last && n > 1) /* the last frame's duration is unknown */
        c->end = last + (last - first) / (n - 1);
    for (int64_t i = 0; i < n; i++)
        stays[i] = (double)((i + 1 < n ? d->times[i + 1] : c->end) - d->times[i]) * unit;
    info->seconds = n && c->end > first ? (double)(c->end - first) * unit : 0;
    info->fps = info->seconds > 0 ? media_clip_rate(stays, (size_t)n) : 0;
    return 0;
}

/* Counts packets and their time. Unread after this: the caller opens the file anew. */
static int walk(struct reader *d, struct media_info *info)
{
    struct count c = {.end = INT64_MIN};
    int code, r = 0;
    d->packet = av_packet_alloc();
    if (!d->packet)
        return err_nomem(d->e);
    while (!r && (code = av_read_frame(d->file, d->packet)) >= 0) {
        if (d->packet->stream_index == d->stream->index)
            r = count_packet(d, &c);
        av_packet_unref(d->packet);
    }
    if (r && r != AVERROR_INVALIDDATA)
        return r;
    if (r || c.frames == 0 || code != AVERROR_EOF || !has_end(d) ||
        (d->stream->nb_frames > 0 && d->format == MEDIA_MP4 && c.frames < d->stream->nb_frames))
        return damaged(d, "it is damaged or ends too early");
    info->format = d->format;
    info->width = d->stream->codecpar->width;
    info->height = d->stream->codecpar->height;
    info->frames = (int)c.frames;
    return measure(d, &c, info);
}

static void finish(struct reader *d)
{
    av_packet_free(&d->packet);
    av_frame_free(&d->frame);
    av_frame_free(&d->held);
    sws_freeContext(d->convert);
    avcodec_free_context(&d->codec);
    avformat_close_input(&d->file);
    media_memory_close(&d->io);
    av_freep(&d->rgba);
    av_freep(&d->times);
}

int media_video_probe(const struct source *s, enum media_format format, struct media_info *info,
                      struct err *e)
{
    struct reader d = {.s = s, .e = e, .format = format};
    media_av_quiet();
    int r = open_file(&d);
    if (!r)
        r = walk(&d, info);
    finish(&d);
    return r;
}

static int open_codec(struct reader *d)
{
    const AVCodecParameters *par = d->stream->codecpar;
    const AVCodec *codec = avcodec_find_decoder(par->codec_id);
    if (!codec)
        return err_set(d->e, -ENOSYS, "%s: this system's libavcodec cannot read %s", d->s->name,
                       avcodec_get_name(par->codec_id));
    d->codec = avcodec_alloc_context3(codec);
    d->frame = av_frame_alloc();
    d->held = av_frame_alloc();
    d->packet = av_packet_alloc();
    size_t pixels = (size_t)par->width * (size_t)par->height;
    d->rgba = av_malloc(pixels * 4 + MEDIA_SWS_SLACK);
    if (!d->codec || !d->frame || !d->held || !d->packet || !d->rgba)
        return err_nomem(d->e);
    if (avcodec_parameters_to_context(d->codec, par) < 0)
        return damaged(d, "its stream is described badly");
    d->codec->err_recognition = AV_EF_EXPLODE | AV_EF_CRCCHECK;
    d->codec->max_pixels = (int64_t)d->s->limits->max_pixels + 64 * 16384; /* blocks overhang */
    d->codec->thread_count = 0;
    if (avcodec_open2(d->codec, codec, NULL) < 0)
        return damaged(d, "its stream is described badly");
    return 0;
}

/* A decoded frame as RGBA in d->rgba, by the colours it is tagged with (untagged: BT.709 from
 * 720 lines on, BT.601 below, as players do). */
static int convert(struct reader *d, const AVFrame *f)
{
    int width = d->stream->codecpar->width, height = d->stream->codecpar->height;
    if (f->width != width || f->height != height)
        return damaged(d, "its frames change size");
    d->convert = sws_getCachedContext(
        d->convert, width, height, (enum AVPixelFormat)f->format, width, height, AV_PIX_FMT_RGBA,
        SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT, NULL, NULL, NULL);
    if (!d->convert)
        return damaged(d, "its pixels have an unknown layout");
    int space = f->colorspace == AVCOL_SPC_UNSPECIFIED
                    ? (height >= 720 ? SWS_CS_ITU709 : SWS_CS_ITU601)
                    : (int)f->colorspace;
    sws_setColorspaceDetails(d->convert, sws_getCoefficients(space),
                             f->color_range == AVCOL_RANGE_JPEG,
                             sws_getCoefficients(SWS_CS_DEFAULT), 1, 0, 1 << 16, 1 << 16);
    uint8_t *to[4] = {d->rgba};
    int stride[4] = {width * 4};
    if (sws_scale(d->convert, (const uint8_t *const *)f->data, f->linesize, 0, height, to,
                  stride) != height)
        return damaged(d, "a frame could not be converted");
    return 0;
}

/* The next frame in d->frame: 1, 0 at the end, or an error. */
static int next_frame(struct reader *d)
{
    for (;;) {
        int code = avcodec_receive_frame(d->codec, d->frame);
        if (code == AVERROR_EOF)
            return 0;
        if (code >= 0)
            return 1;
        if (code != AVERROR(EAGAIN))
            return damaged(d, "a frame cannot be decoded");
        do {
            av_packet_unref(d->packet);
            code = av_read_frame(d->file, d->packet);
        } while (code >= 0 && d->packet->stream_index != d->stream->index);
        code = avcodec_send_packet(d->codec, code >= 0 ? d->packet : NULL);
        if (code < 0 && code != AVERROR_EOF)
            return damaged(d, "a frame cannot be decoded");
    }
}

/* The frame that is held, once it is known when the next one begins: 0, 1 when no more is asked
 * for, or an error. */
static int give(struct reader *d, int index, double end, struct picture *one,
                const struct media_frames *frames)
{
    int r = media_wants(frames, index, end, d->e);
    if (r <= 0)
        return r;
    r = convert(d, d->held);
    if (r)
        return r;
    media_blend(d->rgba, (size_t)one->width * (size_t)one->height, 255, one->rgb);
    return frames->take(frames->user, index, one, d->e);
}

static int each_frame(struct reader *d, struct picture *one, const struct media_frames *frames)
{
    double unit = av_q2d(d->stream->time_base), end = 0;
    int64_t first = AV_NOPTS_VALUE;
    int r, i = 0;
    while ((r = next_frame(d)) > 0) {
        int64_t at = d->frame->best_effort_timestamp;
        first = first == AV_NOPTS_VALUE ? at : first;
        end = at == AV_NOPTS_VALUE ? end : ((double)at - (double)first) * unit;
        if (i && (r = give(d, i - 1, end, one, frames)))
            return r < 0 ? r : 0;
        av_frame_unref(d->held);
        av_frame_move_ref(d->held, d->frame);
        i++;
    }
    if (r < 0)
        return r;
    if (i == 0)
        return damaged(d, "there is no frame in it");
    r = give(d, i - 1, INFINITY, one, frames);
    return r < 0 ? r : 0;
}

int media_video_frames(const struct source *s, enum media_format format,
                       const struct media_frames *frames, struct err *e)
{
    struct reader d = {.s = s, .e = e, .format = format};
    struct picture one = {0};
    media_av_quiet();
    int r = open_file(&d);
    if (!r)
        r = open_codec(&d);
    if (!r && picture_new(&one, d.stream->codecpar->width, d.stream->codecpar->height, 1))
        r = err_nomem(e);
    if (!r)
        r = each_frame(&d, &one, frames);
    picture_free(&one);
    finish(&d);
    return r;
}

int media_clip_first_frame(const struct source *s, struct raster *out, struct err *e)
{
    struct reader d = {.s = s, .e = e, .format = MEDIA_GIF};
    media_av_quiet();
    int r = open_file(&d);
    if (!r && !has_end(&d))
        r = damaged(&d, "it ends too early");
    if (!r)
        r = open_codec(&d);
    if (!r)
        r = media_raster_new(out, s, d.stream->codecpar->width, d.stream->codecpar->height, e);
    if (!r && (r = next_frame(&d)) == 0)
        r = damaged(&d, "there is no frame in it");
    if (r > 0)
        r = convert(&d, d.frame);
    if (r == 0) {
        memcpy(out->rgba, d.rgba, (size_t)out->width * (size_t)out->height * 4);
        r = 0;
    }
    finish(&d);
    return r;
}
