/* Reading: the file into memory within its limit, the format by content, then its decoder. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "media/codec.h"
#include "media/exif.h"
#include "media/video.h"

static media_decode_fn *const stills[MEDIA_FORMAT_COUNT] = {
    [MEDIA_PNG] = media_png_decode,
    [MEDIA_JPEG] = media_jpeg_decode,
    [MEDIA_WEBP] = media_webp_decode,
    [MEDIA_GIF] = media_clip_first_frame,
};

static int load(int dirfd, const char *name, const struct media_limits *limits, char **bytes,
                size_t *size, struct err *e)
{
    AUTO_FD int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && errno == ELOOP)
        return err_set(e, -ELOOP, "%s is a link; a file is needed", name);
    if (fd < 0)
        return err_set(e, -errno, "%s: %s", name, strerror(errno));
    return file_read_fd(fd, name, limits->max_bytes, bytes, size, e);
}

static int sniff(const struct source *s, enum media_format *format, struct err *e)
{
    if (s->size > s->limits->max_bytes)
        return err_set(e, -EFBIG, "%s has %zu bytes; at most %zu are read", s->name, s->size,
                       s->limits->max_bytes);
    if (s->size == 0)
        return err_set(e, -EINVAL, "%s is empty", s->name);
    if (media_format_sniff(s->bytes, s->size, format))
        return err_set(
            e, -EINVAL,
            "%s is in no known format; PNG, JPEG, WebP, GIF, MP4 and WebM are read: convert "
            "it to one of them",
            s->name);
    return 0;
}

int media_decode_image(const void *bytes, size_t size, const char *name,
                       const struct media_limits *limits, enum media_read_as as,
                       struct picture *out, struct err *e)
{
    struct source s = {bytes, size, name, limits};
    struct raster raster = {0};
    enum media_format format;
    *out = (struct picture){0};
    int r = sniff(&s, &format, e);
    if (r)
        return r;
    if (!stills[format])
        return err_set(e, -EINVAL, "%s is a %s video; a picture (PNG, JPEG, WebP, GIF) is needed",
                       name, media_format_info(format)->name);
    r = stills[format](&s, &raster, e);
    if (!r)
        r = media_flatten(&raster, as, out, e);
    media_raster_free(&raster);
    return r;
}

int media_read_image(int dirfd, const char *name, const struct media_limits *limits,
                     enum media_read_as as, struct picture *out, struct err *e)
{
    AUTO_FREE char *bytes = NULL;
    size_t size = 0;
    *out = (struct picture){0};
    int r = load(dirfd, name, limits, &bytes, &size, e);
    return r ? r : media_decode_image(bytes, size, name, limits, as, out, e);
}

static int probe_clip(const struct source *s, enum media_format format, struct media_info *info,
                      struct err *e)
{
    return format == MEDIA_WEBP ? media_webp_probe(s, info, e)
                                : media_video_probe(s, format, info, e);
}

static int each_frame(const struct source *s, enum media_format format,
                      const struct media_frames *frames, struct err *e)
{
    return format == MEDIA_WEBP ? media_webp_frames(s, frames, e)
                                : media_video_frames(s, format, frames, e);
}

static int sniff_clip(const struct source *s, enum media_format *format, struct err *e)
{
    int r = sniff(s, format, e);
    if (r || media_format_info(*format)->clip)
        return r;
    return err_set(e, -EINVAL, "%s is a %s picture; a clip (MP4, WebM, GIF, WebP) is needed",
                   s->name, media_format_info(*format)->name);
}

struct collection {
    struct picture *clip;
    int count;
};

static int collect(void *user, int index, const struct picture *frame, struct err *e)
{
    struct collection *c = user;
    (void)e;
    if (index == c->clip->frames)
        return 1;
    memcpy(picture_frame(c->clip, index), frame->rgb, picture_frame_bytes(frame));
    c->count = index + 1;
    return 0;
}

int media_decode_clip(const void *bytes, size_t size, const char *name,
                      const struct media_limits *limits, struct picture *out, double *fps,
                      struct err *e)
{
    struct source s = {bytes, size, name, limits};
    struct collection c = {out, 0};
    const struct media_frames all = {.user = &c, .take = collect};
    struct media_info info = {0};
    enum media_format format;
    *out = (struct picture){0};
    *fps = 0;
    int r = sniff_clip(&s, &format, e);
    if (!r)
        r = probe_clip(&s, format, &info, e);
    if (!r)
        r = media_check_frames(&s, info.width, info.height, info.frames, e);
    if (!r && picture_new(out, info.width, info.height, info.frames))
        r = err_nomem(e);
    if (!r)
        r = each_frame(&s, format, &all, e);
    if (r) {
        picture_free(out);
        return r;
    }
    out->frames = c.count; /* a packet may hold half of an interlaced frame, or say "as before" */
    *fps = info.seconds > 0 ? c.count / info.seconds : 0;
    return 0;
}

int media_read_clip(int dirfd, const char *name, const struct media_limits *limits,
                    struct picture *out, double *fps, struct err *e)
{
    AUTO_FREE char *bytes = NULL;
    size_t size = 0;
    *out = (struct picture){0};
    *fps = 0;
    int r = load(dirfd, name, limits, &bytes, &size, e);
    return r ? r : media_decode_clip(bytes, size, name, limits, out, fps, e);
}

int media_each_frame(int dirfd, const char *name, const struct media_limits *limits,
                     const struct media_frames *frames, struct err *e)
{
    AUTO_FREE char *bytes = NULL;
    enum media_format format;
    size_t size = 0;
    int r = load(dirfd, name, limits, &bytes, &size, e);
    struct source s = {(const uint8_t *)bytes, size, name, limits};
    if (!r)
        r = sniff_clip(&s, &format, e);
    return r ? r : each_frame(&s, format, frames, e);
}

int media_probe(int dirfd, const char *name, const struct media_limits *limits,
                struct media_info *info, struct err *e)
{
    AUTO_FREE char *bytes = NULL;
    size_t size = 0;
    *info = (struct media_info){0};
    int r = load(dirfd, name, limits, &bytes, &size, e);
    struct source s = {(const uint8_t *)bytes, size, name, limits};
    if (!r)
        r = sniff(&s, &info->format, e);
    if (r)
        return r;
    if (media_format_info(info->format)->clip)
        return probe_clip(&s, info->format, info, e);
    /* PNG and JPEG: the header alone would not tell a damaged file. */
    struct picture p;
    r = media_decode_image(bytes, size, name, limits, MEDIA_READ_RGB, &p, e);
    info->width = p.width;
    info->height = p.height;
    info->frames = r ? 0 : 1;
    picture_free(&p);
    return r;
}
