/* Encoding: checks of the options, the table of encoders, and files that appear whole. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "media/codec.h"

static const struct {
    media_encode_fn *encode;
    int max_side; /* pixels, by the format's own fields or its library */
} encoders[MEDIA_FORMAT_COUNT] = {
    [MEDIA_PNG] = {media_png_encode, 65536},    [MEDIA_JPEG] = {media_jpeg_encode, 65500},
    [MEDIA_WEBP] = {media_webp_encode, 16383},  [MEDIA_MP4] = {media_video_encode, 16384},
    [MEDIA_WEBM] = {media_video_encode, 16384}, [MEDIA_GIF] = {media_gif_encode, 65535},
};

static int check_number(const char *what, double v, double least, double most, struct err *e)
{
    if (v >= least && v <= most)
        return 0;
    return err_set(e, -EINVAL, "%s %g is outside %g to %g", what, v, least, most);
}

static int check_text(const char *what, const char *text, struct err *e)
{
    if (!text || utf8_valid(text, strlen(text)))
        return 0;
    return err_set(e, -EINVAL, "the %s text to write into the file is not UTF-8", what);
}

static int check(const struct picture *p, const struct media_options *o, struct err *e)
{
    const struct media_format_info *f = media_format_info(o->format);
    if (!f)
        return err_set(e, -EINVAL, "format number %d is unknown", (int)o->format);
    if (!p->rgb || p->width <= 0 || p->height <= 0 || p->frames <= 0)
        return err_set(e, -EINVAL, "there are no pixels to write as %s", f->name);
    if (p->frames > 1 && !f->clip)
        return err_set(e, -EINVAL, "%d frames do not fit in one %s file; write a file a frame",
                       p->frames, f->name);
    int most = encoders[o->format].max_side;
    if (p->width > most || p->height > most)
        return err_set(e, -EINVAL, "%dx%d is too large for %s, which holds at most %dx%d", p->width,
                       p->height, f->name, most, most);
    int r = check_number("quality", o->quality, 1, 100, e);
    if (!r && f->clip)
        r = check_number("fps", o->fps, 0.01, 1000, e);
    if (!r && f->clip)
        r = check_number("loop", o->loop, 0, 65535, e);
    if (!r && o->format == MEDIA_GIF)
        r = check_number("palette", o->palette, 2, 256, e);
    if (!r && !media_dither_name(o->dither))
        r = err_set(e, -EINVAL, "dither number %d is unknown", (int)o->dither);
    if (!r)
        r = check_text("parameters", o->parameters, e);
    if (!r)
        r = check_text("software", o->software, e);
    return r;
}

int media_encode(const struct picture *p, const struct media_options *o, struct str *out,
                 struct err *e)
{
    int r = check(p, o, e);
    if (r)
        return r;
    size_t before = out->len;
    r = encoders[o->format].encode(p, o, out, e);
    if (!r && out->failed)
        r = err_nomem(e);
    if (r && out->data) {
        out->len = before;
        out->data[before] = '\0';
    }
    return r;
}

int media_write(int dirfd, const char *name, const struct picture *p, const struct media_options *o,
                struct err *e)
{
    AUTO_STR struct str bytes = {0};
    int r = media_encode(p, o, &bytes, e);
    if (r)
        return err_prefix(e, "%s", name);
    return file_write_atomic(dirfd, name, bytes.data, bytes.len, e);
}

char *media_frame_name(int index, int frames, enum media_format format, char *out)
{
    const struct media_format_info *f = media_format_info(format);
    snprintf(out, MEDIA_FRAME_NAME_SIZE, "frame-%0*d.%s", frames > 9999 ? 5 : 4, index + 1,
             f ? f->extension : "bin");
    return out;
}

int media_write_frames(int dirfd, const struct picture *p, const struct media_options *o,
                       struct err *e)
{
    struct media_options still = *o;
    still.progress = NULL;
    for (int i = 0; i < p->frames; i++) {
        char name[MEDIA_FRAME_NAME_SIZE];
        struct picture one = {p->width, p->height, 1, picture_frame(p, i)};
        int r =
            media_write(dirfd, media_frame_name(i, p->frames, o->format, name), &one, &still, e);
        if (!r && o->progress && o->progress(o->user, i + 1, p->frames))
            r = err_set(e, -ECANCELED, "writing frames was cancelled after %d of %d", i + 1,
                        p->frames);
        if (r)
            return r;
    }
    return 0;
}
