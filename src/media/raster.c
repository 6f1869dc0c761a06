/* From what a file holds to what the engine takes: upright, opaque, RGB. */
#include <errno.h>
#include <stdlib.h>

#include "media/codec.h"

/* RGBA as it is decoded, and RGB. */
static int check_memory(const struct source *s, int64_t width, int64_t height, struct err *e)
{
    uint64_t bytes = (uint64_t)width * (uint64_t)height * 7;
    char need[24], most[24];
    if (!s->limits->max_memory || bytes <= s->limits->max_memory)
        return 0;
    return err_set(e, -EFBIG,
                   "%s is %lldx%lld pixels and needs %s of memory to be read; there are %s for it: "
                   "make it smaller, or raise memory in [devices] of registry.ini",
                   s->name, (long long)width, (long long)height, format_bytes(bytes, need),
                   format_bytes(s->limits->max_memory, most));
}

int media_check_size(const struct source *s, int64_t width, int64_t height, struct err *e)
{
    const struct media_limits *l = s->limits;
    if (width <= 0 || height <= 0)
        return err_set(e, -EINVAL, "%s says it is %lldx%lld pixels, which no picture is", s->name,
                       (long long)width, (long long)height);
    if (width > l->max_width || height > l->max_height)
        return err_set(e, -EFBIG, "%s is %lldx%lld pixels; at most %dx%d are read", s->name,
                       (long long)width, (long long)height, l->max_width, l->max_height);
    if ((uint64_t)width * (uint64_t)height > l->max_pixels)
        return err_set(e, -EFBIG, "%s is %lldx%lld = %lld pixels; at most %llu are read", s->name,
                       (long long)width, (long long)height, (long long)(width * height),
                       (unsigned long long)l->max_pixels);
    return check_memory(s, width, height, e);
}

int media_check_frames(const struct source *s, int width, int height, int64_t frames, struct err *e)
{
    const struct media_limits *l = s->limits;
    if (frames > l->max_frames)
        return err_set(e, -EFBIG, "%s has more than the %d frames that are read", s->name,
                       l->max_frames);
    /* media_check_size passed: a frame has fewer than 2^62 pixels */
    if ((uint64_t)width * (uint64_t)height > l->max_clip_pixels / (uint64_t)frames)
        return err_set(e, -EFBIG, "%s is %d frames of %dx%d pixels; at most %llu pixels are read",
                       s->name, (int)frames, width, height, (unsigned long long)l->max_clip_pixels);
    return 0;
}

int media_raster_new(struct raster *r, const struct source *s, int64_t width, int64_t height,
                     struct err *e)
{
    int code = media_check_size(s, width, height, e);
    if (code)
        return code;
    uint8_t *rgba = calloc((size_t)width * (size_t)height, 4);
    if (!rgba)
        return err_nomem(e);
    *r = (struct raster){(int)width, (int)height, 1, rgba};
    return 0;
}

void media_raster_free(struct raster *r)
{
    free(r->rgba);
    *r = (struct raster){0};
}

void media_blend(const uint8_t *rgba, size_t pixels, int background, uint8_t *rgb)
{
    for (size_t i = 0; i < pixels; i++, rgba += 4, rgb += 3) {
        int a = rgba[3];
        for (int c = 0; c < 3; c++)
            rgb[c] = (uint8_t)((rgba[c] * a + background * (255 - a) + 127) / 255);
    }
}

/* BT.601 luma in 1/65536, rounded: the weights Pillow's "L" and libjpeg use. */
static void to_luma(uint8_t *rgb, size_t pixels)
{
    for (size_t i = 0; i < pixels; i++, rgb += 3) {
        int y = (19595 * rgb[0] + 38470 * rgb[1] + 7471 * rgb[2] + 32768) >> 16;
        rgb[0] = rgb[1] = rgb[2] = (uint8_t)y;
    }
}

/* How to walk the stored picture so that it comes out upright, by EXIF orientation (EXIF 2.32,
 * tag 0x0112): are rows and columns exchanged, and is each stored axis walked backwards? */
static const struct {
    bool transpose, flip_x, flip_y;
} walks[9] = {
    [1] = {false, false, false}, [2] = {false, true, false}, [3] = {false, true, true},
    [4] = {false, false, true},  [5] = {true, false, false}, [6] = {true, false, true},
    [7] = {true, true, true},    [8] = {true, true, false},
};

static void turn(const struct raster *r, const struct picture *from, struct picture *to)
{
    int o = r->orientation;
    uint8_t *px = to->rgb;
    for (int y = 0; y < to->height; y++)
        for (int x = 0; x < to->width; x++, px += 3) {
            int sx = walks[o].transpose ? y : x;
            int sy = walks[o].transpose ? x : y;
            sx = walks[o].flip_x ? from->width - 1 - sx : sx;
            sy = walks[o].flip_y ? from->height - 1 - sy : sy;
            const uint8_t *s = from->rgb + ((size_t)sy * (size_t)from->width + (size_t)sx) * 3;
            px[0] = s[0];
            px[1] = s[1];
            px[2] = s[2];
        }
}

int media_flatten(const struct raster *r, enum media_read_as as, struct picture *out, struct err *e)
{
    struct picture flat;
    size_t pixels = (size_t)r->width * (size_t)r->height;
    if (picture_new(&flat, r->width, r->height, 1))
        return err_nomem(e);
    media_blend(r->rgba, pixels, as == MEDIA_READ_MASK ? 0 : 255, flat.rgb);
    if (as == MEDIA_READ_MASK)
        to_luma(flat.rgb, pixels);
    if (r->orientation <= 1 || r->orientation > 8) {
        *out = flat;
        return 0;
    }
    bool transpose = walks[r->orientation].transpose;
    int code =
        picture_new(out, transpose ? r->height : r->width, transpose ? r->width : r->height, 1);
    if (!code)
        turn(r, &flat, out);
    picture_free(&flat);
    return code ? err_nomem(e) : 0;
}
