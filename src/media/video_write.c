/* MP4 (H.264) and WebM (VP9) by FFmpeg's libraries.
 *
 * Both are 4:2:0, BT.709, limited range, and tagged so. The number of threads is fixed, the muxers
 * are asked for exactness and no time is stored: the same frames give the same bytes. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <libavcodec/avcodec.h>
#include <libavutil/opt.h>
#include <libswscale/swscale.h>

#include "media/video.h"

struct encoder_option {
    const char *name, *value;
};

/* An encoder that may be on this system. `best` and `worst` are its constant quality at 100 and 1:
 * linear between, which in both codecs is near to linear in decibels. */
struct video_encoder {
    enum media_format format;
    const char *name;
    double best, worst;
    struct encoder_option options[8];
};

static const struct video_encoder encoders[] = {
    {MEDIA_MP4, "libx264", 12, 46, {{"preset", "fast"}, {"profile", "high"}}},
    {MEDIA_MP4, "libopenh264", 0, 0, {{"allow_skip_frames", "0"}}},
    {MEDIA_WEBM,
     "libvpx-vp9",
     15,
     60,
     {{"deadline", "good"},
      {"cpu-used", "5"},
      {"row-mt", "1"},
      {"tile-columns", "1"},
      {"auto-alt-ref", "1"},
      {"lag-in-frames", "16"}}},
};

enum { THREADS = 4 };

/* What is open while a clip is written; zero-initialised, freed by `finish`. */
struct writer {
    const struct picture *p;
    const struct media_options *o;
    struct err *e;
    struct memory_io memory;
    AVFormatContext *file;
    AVStream *stream;
    AVCodecContext *codec;
    struct SwsContext *convert;
    AVFrame *frame;
    AVPacket *packet;
    uint8_t *rgb; /* one frame with even sides, and slack behind it */
};

static int fail(const struct writer *w, const char *what, int code)
{
    char text[AV_TEXT_SIZE];
    if (code == AVERROR(ENOMEM))
        return err_nomem(w->e);
    return err_set(w->e, -EIO, "%s: %s failed: %s", media_format_info(w->o->format)->name, what,
                   media_av_text(code, text));
}

/* x264 needs the whole bit rate named when it has no constant quality (openh264): a generous one,
 * by area and rate. */
static int64_t bit_rate(const struct writer *w)
{
    double bits_a_pixel = 0.02 + 0.28 * w->o->quality / 100;
    return (int64_t)(bits_a_pixel * w->codec->width * w->codec->height * fmax(w->o->fps, 1));
}

static void set_quality(const struct writer *w, const struct video_encoder *v)
{
    if (v->worst == 0) {
        w->codec->bit_rate = bit_rate(w);
        return;
    }
    double crf = v->worst + (v->best - v->worst) * (w->o->quality - 1) / 99;
    /* x264 takes fractions, VP9 whole numbers */
    av_opt_set_double(w->codec->priv_data, "crf", v->format == MEDIA_WEBM ? round(crf) : crf, 0);
}

static int open_codec(struct writer *w, const struct video_encoder *v, const AVCodec *codec)
{
    AVCodecContext *c = w->codec = avcodec_alloc_context3(codec);
    if (!c)
        return AVERROR(ENOMEM);
    AVRational rate = media_frame_rate(w->o->fps);
    c->width = w->p->width + w->p->width % 2;
    c->height = w->p->height + w->p->height % 2;
    c->time_base = av_inv_q(rate);
    c->framerate = rate;
    c->pix_fmt = AV_PIX_FMT_YUV420P;
    c->sample_aspect_ratio = (AVRational){1, 1};
    c->color_range = AVCOL_RANGE_MPEG;
    c->colorspace = AVCOL_SPC_BT709;
    c->color_primaries = AVCOL_PRI_BT709;
    c->color_trc = AVCOL_TRC_BT709;
    c->chroma_sample_location = AVCHROMA_LOC_LEFT;
    c->thread_count = THREADS;
    c->flags |= AV_CODEC_FLAG_BITEXACT;
    if (w->file->oformat->flags & AVFMT_GLOBALHEADER)
        c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    for (const struct encoder_option *o = v->options; o->name; o++)
        av_opt_set(c->priv_data, o->name, o->value, 0);
    set_quality(w, v);
    return avcodec_open2(c, codec, NULL);
}

/* The first encoder of the table that this system has and that opens. */
static int find_encoder(struct writer *w)
{
    int found = 0, code = 0;
    for (size_t i = 0; i < sizeof encoders / sizeof *encoders; i++) {
        const AVCodec *codec = NULL;
        if (encoders[i].format == w->o->format)
            codec = avcodec_find_encoder_by_name(encoders[i].name);
        if (!codec)
            continue;
        found++;
        code = open_codec(w, &encoders[i], codec);
        if (code >= 0)
            return 0;
        avcodec_free_context(&w->codec);
    }
    if (found)
        return fail(w, "opening the encoder", code);
    return err_set(w->e, -ENOSYS,
                   "this system's libavcodec has no %s encoder; install one with %s, or ask for "
                   "return_format = gif",
                   w->o->format == MEDIA_MP4 ? "H.264" : "VP9",
                   w->o->format == MEDIA_MP4 ? "libx264" : "libvpx-vp9");
}

/* Moving the index to the front makes the MP4 writer read what it wrote, by the file's name: it
 * gets the same memory instead. */
static int reopen_memory(AVFormatContext *file, AVIOContext **io, const char *url, int flags,
                         AVDictionary **options)
{
    (void)url;
    (void)options;
    struct writer *w = file->opaque;
    if (flags & AVIO_FLAG_WRITE)
        return AVERROR(EACCES);
    struct memory_io *again = av_mallocz(sizeof *again);
    if (!again)
        return AVERROR(ENOMEM);
    again->out = w->memory.out;
    again->bytes = (const uint8_t *)""; /* marks it as a reader */
    *io = media_memory_open(again);
    if (!*io)
        av_free(again);
    return *io ? 0 : AVERROR(ENOMEM);
}

static int close_memory(AVFormatContext *file, AVIOContext *io)
{
    (void)file;
    av_free(io->opaque);
    media_memory_close(&io);
    return 0;
}

static int open_file(struct writer *w)
{
    const char *muxer = media_format_info(w->o->format)->name;
    int code = avformat_alloc_output_context2(&w->file, NULL, muxer, NULL);
    if (code < 0)
        return fail(w, "opening the container", code);
    w->file->opaque = w;
    w->file->io_open = reopen_memory;
    w->file->io_close2 = close_memory;
    w->file->flags |= AVFMT_FLAG_BITEXACT | AVFMT_FLAG_CUSTOM_IO;
    w->file->pb = media_memory_open(&w->memory);
    w->stream = avformat_new_stream(w->file, NULL);
    if (!w->file->pb || !w->stream)
        return err_nomem(w->e);
    if (w->o->parameters)
        av_dict_set(&w->file->metadata, "comment", w->o->parameters, 0);
    return 0;
}

static int start_file(struct writer *w)
{
    int code = avcodec_parameters_from_context(w->stream->codecpar, w->codec);
    if (code < 0)
        return fail(w, "describing the stream", code);
    w->stream->time_base = w->codec->time_base;
    w->stream->avg_frame_rate = w->codec->framerate;
    w->stream->sample_aspect_ratio = w->codec->sample_aspect_ratio;
    AVDictionary *options = NULL;
    if (w->o->format == MEDIA_MP4)
        av_dict_set(&options, "movflags", "+faststart", 0);
    code = avformat_write_header(w->file, &options);
    av_dict_free(&options);
    return code < 0 ? fail(w, "writing the header", code) : 0;
}

static int open_converter(struct writer *w)
{
    int width = w->codec->width, height = w->codec->height;
    w->convert = sws_getContext(width, height, AV_PIX_FMT_RGB24, width, height, w->codec->pix_fmt,
                                SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INP |
                                    SWS_FULL_CHR_H_INT | SWS_BITEXACT,
                                NULL, NULL, NULL);
    if (!w->convert)
        return err_nomem(w->e);
    const int *bt709 = sws_getCoefficients(SWS_CS_ITU709);
    sws_setColorspaceDetails(w->convert, bt709, 1, bt709, 0, 0, 1 << 16, 1 << 16);
    w->frame = av_frame_alloc();
    w->packet = av_packet_alloc();
    if (!w->frame || !w->packet)
        return err_nomem(w->e);
    w->rgb = calloc(1, (size_t)width * (size_t)height * 3 + MEDIA_SWS_SLACK);
    return w->rgb ? 0 : err_nomem(w->e);
}

/* Copies frame `i`, its last column and row once more where they were odd. */
static void copy_even(struct writer *w, int i)
{
    const uint8_t *from = picture_frame(w->p, i);
    size_t row = (size_t)w->p->width * 3, wide = (size_t)w->codec->width * 3;
    for (int y = 0; y < w->codec->height; y++) {
        uint8_t *to = w->rgb + (size_t)y * wide;
        memcpy(to, from + (size_t)(y < w->p->height ? y : w->p->height - 1) * row, row);
        if (wide > row)
            memcpy(to + row, to + row - 3, 3);
    }
}

static int fill_frame(struct writer *w, int i)
{
    AVFrame *f = w->frame;
    av_frame_unref(f);
    f->format = w->codec->pix_fmt;
    f->width = w->codec->width;
    f->height = w->codec->height;
    f->color_range = w->codec->color_range;
    f->colorspace = w->codec->colorspace;
    f->color_primaries = w->codec->color_primaries;
    f->color_trc = w->codec->color_trc;
    f->chroma_location = w->codec->chroma_sample_location;
    int code = av_frame_get_buffer(f, 0);
    if (code < 0)
        return code;
    copy_even(w, i);
    const uint8_t *rgb[4] = {w->rgb};
    int stride[4] = {f->width * 3};
    code = sws_scale(w->convert, rgb, stride, 0, f->height, f->data, f->linesize);
    f->pts = i;
    return code;
}

/* Sends one frame (NULL: no more) and writes what comes out. */
static int encode(struct writer *w, const AVFrame *frame)
{
    int code = avcodec_send_frame(w->codec, frame);
    while (code >= 0) {
        code = avcodec_receive_packet(w->codec, w->packet);
        if (code == AVERROR(EAGAIN) || code == AVERROR_EOF)
            return 0;
        if (code < 0)
            break;
        w->packet->duration = 1; /* a one-frame clip has no next frame to end it */
        av_packet_rescale_ts(w->packet, w->codec->time_base, w->stream->time_base);
        w->packet->stream_index = w->stream->index;
        code = av_interleaved_write_frame(w->file, w->packet);
    }
    return fail(w, "encoding", code);
}

static int write_frames(struct writer *w)
{
    int frames = w->p->frames;
    for (int i = 0; i < frames; i++) {
        int code = fill_frame(w, i);
        if (code < 0)
            return fail(w, "converting a frame", code);
        int r = encode(w, w->frame);
        if (r)
            return r;
        if (w->o->progress && w->o->progress(w->o->user, i + 1, frames))
            return err_set(w->e, -ECANCELED, "writing %s was cancelled after frame %d of %d",
                           media_format_info(w->o->format)->name, i + 1, frames);
    }
    int r = encode(w, NULL);
    int code = r ? 0 : av_write_trailer(w->file);
    return code < 0 ? fail(w, "finishing the file", code) : r;
}

static void finish(struct writer *w)
{
    AVIOContext *io = w->file ? w->file->pb : NULL;
    av_packet_free(&w->packet);
    av_frame_free(&w->frame);
    sws_freeContext(w->convert);
    avcodec_free_context(&w->codec);
    avformat_free_context(w->file);
    media_memory_close(&io);
    free(w->rgb);
}

int media_video_encode(const struct picture *p, const struct media_options *o, struct str *out,
                       struct err *e)
{
    AUTO_STR struct str bytes = {0};
    struct writer w = {.p = p, .o = o, .e = e, .memory = {.out = &bytes}};
    media_av_quiet();
    int r = open_file(&w);
    if (!r)
        r = find_encoder(&w);
    if (!r)
        r = start_file(&w);
    if (!r)
        r = open_converter(&w);
    if (!r)
        r = write_frames(&w);
    finish(&w);
    if (!r && bytes.failed)
        r = err_nomem(e);
    if (!r)
        str_addn(out, bytes.data, bytes.len);
    return r;
}
