/* Inside the media folder: what each format's file offers to media_encode and media_read_*.
 *
 * An encoder appends to `out`; options were checked by the caller. A decoder gives a raster: RGBA
 * as the file has it, not yet upright, not yet flattened. */
#ifndef OMNIFS_MEDIA_CODEC_H
#define OMNIFS_MEDIA_CODEC_H

#include "media/media.h"

/* One decoded still. */
struct raster {
    int width, height;
    int orientation; /* EXIF 1..8; 1 is upright */
    uint8_t *rgba;   /* [height, width, 4], alpha not premultiplied, heap, owned */
};

/* A file in memory and how it may be read. */
struct source {
    const uint8_t *bytes;
    size_t size;
    const char *name; /* for messages */
    const struct media_limits *limits;
};

typedef int media_encode_fn(const struct picture *p, const struct media_options *o, struct str *out,
                            struct err *e);
media_encode_fn media_png_encode, media_jpeg_encode, media_webp_encode, media_gif_encode,
    media_video_encode;

typedef int media_decode_fn(const struct source *s, struct raster *out, struct err *e);
media_decode_fn media_png_decode, media_jpeg_decode, media_webp_decode, media_clip_first_frame;

/* -EFBIG with a sentence when a frame of this size is over the limits; -EINVAL when not positive.
 * Decoders call it with the header's size, before they allocate. */
int media_check_size(const struct source *s, int64_t width, int64_t height, struct err *e);
/* As media_check_size, for all frames of a clip together. */
int media_check_frames(const struct source *s, int width, int height, int64_t frames,
                       struct err *e);
/* media_check_size, then zeroed pixels for it. */
int media_raster_new(struct raster *r, const struct source *s, int64_t width, int64_t height,
                     struct err *e);
void media_raster_free(struct raster *r);
/* Upright and opaque, as a picture; `r` is unchanged. */
int media_flatten(const struct raster *r, enum media_read_as as, struct picture *out,
                  struct err *e);
/* Lays width * height RGBA pixels over `background` (0 black, 255 white) as RGB. */
void media_blend(const uint8_t *rgba, size_t pixels, int background, uint8_t *rgb);

/* The rate of a clip from how long each of its frames stays, in seconds; reorders them. 0: it has
 * no times. */
double media_clip_rate(double *stays, size_t count);

/* Frames of an animated WebP; as media_each_frame. */
int media_webp_frames(const struct source *s, const struct media_frames *frames, struct err *e);
/* Is the frame wanted? As media_frames.wants. */
int media_wants(const struct media_frames *frames, int index, double end, struct err *e);
int media_webp_probe(const struct source *s, struct media_info *info, struct err *e);

#endif
