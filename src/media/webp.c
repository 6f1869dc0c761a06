/* WebP by libwebp: stills and animations, both ways, with EXIF. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <webp/decode.h>
#include <webp/demux.h>
#include <webp/encode.h>
#include <webp/mux.h>

#include "base/cleanup.h"
#include "media/codec.h"
#include "media/exif.h"

/* libwebp's effort 0..6. Measured at 1024 x 1024: 2 takes half of the default's (4) time for a few
 * percent more bytes. */
enum { EFFORT_STILL = 2, EFFORT_CLIP = 2 };

static int configure(WebPConfig *c, const struct media_options *o, int effort, struct err *e)
{
    int ok = WebPConfigInit(c);
    if (o->lossless)
        ok = ok && WebPConfigLosslessPreset(c, effort);
    c->quality = (float)o->quality;
    c->method = effort;
    c->thread_level = 1;
    c->exact = 1;
    return ok && WebPValidateConfig(c) ? 0
                                       : err_set(e, -EINVAL, "WebP refuses quality %d", o->quality);
}

static int import(WebPPicture *w, const struct picture *p, int frame, bool lossless, struct err *e)
{
    if (!WebPPictureInit(w))
        return err_set(e, -ENOSYS, "this libwebp differs from the one omnifs was built with");
    w->width = p->width;
    w->height = p->height;
    w->use_argb = lossless;
    return WebPPictureImportRGB(w, picture_frame(p, frame), p->width * 3) ? 0 : err_nomem(e);
}

static int append(const uint8_t *bytes, size_t size, void *out)
{
    str_addn(out, bytes, size);
    return !((struct str *)out)->failed;
}

static int write_result(const uint8_t *bytes, size_t size, const WebPPicture *w)
{
    return append(bytes, size, w->custom_ptr);
}

static int encode_still(const struct picture *p, const struct media_options *o, struct str *made,
                        struct err *e)
{
    WebPConfig config;
    WebPPicture w;
    int r = configure(&config, o, EFFORT_STILL, e);
    if (r)
        return r;
    r = import(&w, p, 0, o->lossless, e);
    w.writer = write_result;
    w.custom_ptr = made;
    if (!r && !WebPEncode(&config, &w))
        r = err_set(e, -EIO, "the WebP encoder stopped with error %d", (int)w.error_code);
    WebPPictureFree(&w);
    return r;
}

/* Milliseconds of the start of frame `i`, rounded each for itself so that errors never add up. */
static int start_ms(int i, double fps)
{
    return (int)fmin(round(i * 1000.0 / fps), 1e9);
}

static int add_frames(WebPAnimEncoder *enc, const WebPConfig *config, const struct picture *p,
                      const struct media_options *o, struct err *e)
{
    for (int i = 0; i < p->frames; i++) {
        WebPPicture w;
        int r = import(&w, p, i, true, e); /* the animation encoder compares ARGB */
        if (!r && !WebPAnimEncoderAdd(enc, &w, start_ms(i, o->fps), config))
            r = err_set(e, -EIO, "WebP frame %d: %s", i, WebPAnimEncoderGetError(enc));
        WebPPictureFree(&w);
        if (!r && o->progress && o->progress(o->user, i + 1, p->frames))
            r = err_set(e, -ECANCELED, "writing WebP was cancelled after frame %d of %d", i + 1,
                        p->frames);
        if (r)
            return r;
    }
    return WebPAnimEncoderAdd(enc, NULL, start_ms(p->frames, o->fps), NULL)
               ? 0
               : err_set(e, -EIO, "WebP: %s", WebPAnimEncoderGetError(enc));
}

static int encode_clip(const struct picture *p, const struct media_options *o, struct str *made,
                       struct err *e)
{
    WebPConfig config;
    WebPAnimEncoderOptions options;
    int r = configure(&config, o, EFFORT_CLIP, e);
    if (r)
        return r;
    if (!WebPAnimEncoderOptionsInit(&options))
        return err_set(e, -ENOSYS, "this libwebpmux differs from the one omnifs was built with");
    options.anim_params.loop_count = o->loop;
    options.anim_params.bgcolor = 0xFFFFFFFF;
    options.kmin = 9; /* libwebp's advice for lossy: a whole frame now and then, for seeking */
    options.kmax = 17;
    WebPAnimEncoder *enc = WebPAnimEncoderNew(p->width, p->height, &options);
    if (!enc)
        return err_nomem(e);
    r = add_frames(enc, &config, p, o, e);
    WebPData data = {0};
    if (!r && !WebPAnimEncoderAssemble(enc, &data))
        r = err_set(e, -EIO, "WebP: %s", WebPAnimEncoderGetError(enc));
    if (!r)
        str_addn(made, data.bytes, data.size);
    WebPDataClear(&data);
    WebPAnimEncoderDelete(enc);
    return r;
}

static int add_exif(const struct str *made, const struct str *exif, struct str *out, struct err *e)
{
    WebPData file = {(const uint8_t *)made->data, made->len}, whole = {0};
    WebPData chunk = {(const uint8_t *)exif->data, exif->len};
    WebPMux *mux = WebPMuxCreate(&file, 0);
    int r = mux && WebPMuxSetChunk(mux, "EXIF", &chunk, 0) == WEBP_MUX_OK &&
                    WebPMuxAssemble(mux, &whole) == WEBP_MUX_OK
                ? 0
                : err_set(e, -EIO, "the parameters could not be put into the WebP file");
    if (!r)
        str_addn(out, whole.bytes, whole.size);
    WebPDataClear(&whole);
    WebPMuxDelete(mux);
    return r;
}

int media_webp_encode(const struct picture *p, const struct media_options *o, struct str *out,
                      struct err *e)
{
    AUTO_STR struct str made = {0}, exif = {0};
    int r = p->frames > 1 ? encode_clip(p, o, &made, e) : encode_still(p, o, &made, e);
    if (r)
        return r;
    exif_build(&exif, o->software, o->parameters);
    if (made.failed || exif.failed)
        return err_nomem(e);
    if (exif.len)
        return add_exif(&made, &exif, out, e);
    str_addn(out, made.data, made.len);
    return 0;
}

static int damaged(const struct source *s, struct err *e)
{
    return err_set(e, -EINVAL, "%s is not a whole WebP file: it is damaged or ends too early",
                   s->name);
}

/* The container's own size: a file cut within a chunk that pixels do not need is still cut. */
static bool is_cut(const struct source *s)
{
    const uint8_t *b = s->bytes;
    if (s->size < 12)
        return true;
    uint64_t riff = b[4] | (uint64_t)b[5] << 8 | (uint64_t)b[6] << 16 | (uint64_t)b[7] << 24;
    return riff + 8 > s->size;
}

/* The size and kind from the header; refuses what is cut or over the limits. */
static int open_checked(const struct source *s, WebPBitstreamFeatures *f, struct err *e)
{
    if (is_cut(s) || WebPGetFeatures(s->bytes, s->size, f) != VP8_STATUS_OK)
        return damaged(s, e);
    return media_check_size(s, f->width, f->height, e);
}

static WebPAnimDecoder *open_clip(const struct source *s, WebPAnimInfo *info)
{
    WebPAnimDecoderOptions options;
    if (!WebPAnimDecoderOptionsInit(&options))
        return NULL;
    options.color_mode = MODE_RGBA;
    WebPData data = {s->bytes, s->size};
    WebPAnimDecoder *dec = WebPAnimDecoderNew(&data, &options);
    if (dec && !WebPAnimDecoderGetInfo(dec, info)) {
        WebPAnimDecoderDelete(dec);
        dec = NULL;
    }
    return dec;
}

static int read_orientation(const struct source *s)
{
    WebPData data = {s->bytes, s->size};
    WebPDemuxer *demux = WebPDemux(&data);
    WebPChunkIterator it;
    int orientation = 1;
    if (demux && WebPDemuxGetChunk(demux, "EXIF", 1, &it)) {
        orientation = exif_orientation(it.chunk.bytes, it.chunk.size);
        WebPDemuxReleaseChunkIterator(&it);
    }
    WebPDemuxDelete(demux);
    return orientation;
}

static int first_frame(const struct source *s, struct raster *out, struct err *e)
{
    WebPAnimInfo info;
    WebPAnimDecoder *dec = open_clip(s, &info);
    uint8_t *rgba = NULL;
    int end_ms, r = 0;
    if (!dec || info.canvas_width != (uint32_t)out->width ||
        info.canvas_height != (uint32_t)out->height || !WebPAnimDecoderGetNext(dec, &rgba, &end_ms))
        r = damaged(s, e);
    else
        memcpy(out->rgba, rgba, (size_t)out->width * (size_t)out->height * 4);
    WebPAnimDecoderDelete(dec);
    return r;
}

int media_webp_decode(const struct source *s, struct raster *out, struct err *e)
{
    WebPBitstreamFeatures f;
    int r = open_checked(s, &f, e);
    if (!r)
        r = media_raster_new(out, s, f.width, f.height, e);
    if (r)
        return r;
    size_t stride = (size_t)f.width * 4;
    if (f.has_animation)
        r = first_frame(s, out, e);
    else if (!WebPDecodeRGBAInto(s->bytes, s->size, out->rgba, stride * (size_t)f.height,
                                 (int)stride))
        r = damaged(s, e);
    out->orientation = read_orientation(s);
    return r;
}

static int each_frame(const struct source *s, WebPAnimDecoder *dec, struct picture *one,
                      const struct media_frames *frames, struct err *e)
{
    size_t pixels = (size_t)one->width * (size_t)one->height;
    int end_ms, r = 0;
    for (int i = 0, more = 1; !r && more; i++) {
        uint8_t *rgba = NULL;
        if (!WebPAnimDecoderGetNext(dec, &rgba, &end_ms))
            return damaged(s, e);
        more = WebPAnimDecoderHasMoreFrames(dec);
        r = media_wants(frames, i, more ? end_ms / 1000.0 : INFINITY, e);
        if (r <= 0)
            continue;
        media_blend(rgba, pixels, 255, one->rgb);
        r = frames->take(frames->user, i, one, e);
    }
    return r < 0 ? r : 0;
}

int media_webp_frames(const struct source *s, const struct media_frames *frames, struct err *e)
{
    WebPBitstreamFeatures f;
    int r = open_checked(s, &f, e);
    if (r)
        return r;
    WebPAnimInfo info;
    WebPAnimDecoder *dec = open_clip(s, &info);
    struct picture one = {0};
    if (!dec || info.canvas_width != (uint32_t)f.width || info.canvas_height != (uint32_t)f.height)
        r = damaged(s, e);
    else if (picture_new(&one, f.width, f.height, 1))
        r = err_nomem(e);
    else
        r = each_frame(s, dec, &one, frames, e);
    picture_free(&one);
    WebPAnimDecoderDelete(dec);
    return r;
}

static int probe_times(const WebPDemuxer *demux, struct media_info *info)
{
    AUTO_FREE double *stays = calloc((size_t)info->frames, sizeof *stays);
    WebPIterator it;
    int n = 0;
    if (!stays)
        return -ENOMEM;
    if (WebPDemuxGetFrame(demux, 1, &it)) {
        do {
            stays[n] = it.duration / 1000.0;
            info->seconds += stays[n++];
        } while (n < info->frames && WebPDemuxNextFrame(&it));
        WebPDemuxReleaseIterator(&it);
    }
    info->fps = media_clip_rate(stays, (size_t)n);
    return 0;
}

int media_webp_probe(const struct source *s, struct media_info *info, struct err *e)
{
    WebPBitstreamFeatures f;
    int r = open_checked(s, &f, e);
    if (r)
        return r;
    WebPData data = {s->bytes, s->size};
    WebPDemuxer *demux = WebPDemux(&data);
    if (!demux)
        return damaged(s, e);
    uint32_t frames = WebPDemuxGetI(demux, WEBP_FF_FRAME_COUNT);
    *info = (struct media_info){MEDIA_WEBP, f.width, f.height, (int)frames, 0, 0};
    if (frames < 1)
        r = damaged(s, e);
    else
        r = media_check_frames(s, 1, 1, frames, e);
    if (!r && f.has_animation && probe_times(demux, info))
        r = err_nomem(e);
    WebPDemuxDelete(demux);
    return r;
}
