/* The formats by name, by file ending, by content, and the defaults of options. */
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "media/media.h"

static const struct media_format_info formats[MEDIA_FORMAT_COUNT] = {
    [MEDIA_PNG] = {"png", "png", "image/png", true, false},
    [MEDIA_JPEG] = {"jpeg", "jpg", "image/jpeg", true, false},
    [MEDIA_WEBP] = {"webp", "webp", "image/webp", true, true},
    [MEDIA_MP4] = {"mp4", "mp4", "video/mp4", false, true},
    [MEDIA_WEBM] = {"webm", "webm", "video/webm", false, true},
    [MEDIA_GIF] = {"gif", "gif", "image/gif", true, true},
};

static const char *const format_names[] = {"png", "jpeg", "webp", "mp4", "webm", "gif", NULL};

static const char *const dither_names[] = {
    [MEDIA_DITHER_AUTO] = "auto",
    [MEDIA_DITHER_NONE] = "none",
    [MEDIA_DITHER_BAYER] = "bayer",
    [MEDIA_DITHER_FLOYD] = "floyd",
};

const struct media_format_info *media_format_info(enum media_format format)
{
    return (unsigned)format < MEDIA_FORMAT_COUNT ? &formats[format] : NULL;
}

const char *const *media_format_names(void)
{
    return format_names;
}

int media_format_parse(const char *text, enum media_format *out)
{
    for (int i = 0; i < MEDIA_FORMAT_COUNT; i++)
        if (!strcasecmp(text, formats[i].name) || !strcasecmp(text, formats[i].extension)) {
            *out = (enum media_format)i;
            return 0;
        }
    return -EINVAL;
}

int media_dither_parse(const char *text, enum media_dither *out)
{
    for (size_t i = 0; i < ARRAY_LEN(dither_names); i++)
        if (!strcasecmp(text, dither_names[i])) {
            *out = (enum media_dither)i;
            return 0;
        }
    return -EINVAL;
}

const char *media_dither_name(enum media_dither dither)
{
    return (unsigned)dither < ARRAY_LEN(dither_names) ? dither_names[dither] : NULL;
}

int media_format_sniff(const void *bytes, size_t size, enum media_format *out)
{
    static const struct {
        size_t at;
        const char *magic;
        size_t n;
        enum media_format format;
    } magics[] = {
        {0, "\x89PNG\r\n\x1a\n", 8, MEDIA_PNG},
        {0, "\xff\xd8\xff", 3, MEDIA_JPEG},
        {8, "WEBP", 4, MEDIA_WEBP},
        {0, "GIF87a", 6, MEDIA_GIF},
        {0, "GIF89a", 6, MEDIA_GIF},
        {0, "\x1a\x45\xdf\xa3", 4, MEDIA_WEBM},
        {4, "ftyp", 4, MEDIA_MP4},
    };
    const char *b = bytes;
    for (size_t i = 0; i < ARRAY_LEN(magics); i++) {
        if (size < magics[i].at + magics[i].n ||
            memcmp(b + magics[i].at, magics[i].magic, magics[i].n))
            continue;
        /* Still pictures (AVIF, HEIC) share MP4's container; their brand tells. */
        if (magics[i].format == MEDIA_MP4 && size >= 12 &&
            (!memcmp(b + 8, "avi", 3) || !memcmp(b + 8, "hei", 3) || !memcmp(b + 8, "mif", 3)))
            return -EINVAL;
        if (magics[i].format == MEDIA_WEBP && memcmp(b, "RIFF", 4))
            continue;
        *out = magics[i].format;
        return 0;
    }
    return -EINVAL;
}

void media_options_init(struct media_options *o, enum media_format format)
{
    *o = (struct media_options){
        .format = format,
        .quality = 90,
        .fps = 12,
        .palette = 256,
    };
}

void media_limits_init(struct media_limits *l)
{
    *l = (struct media_limits){
        .max_width = 16384,
        .max_height = 16384,
        .max_pixels = (uint64_t)64 << 20,
        .max_bytes = (size_t)256 << 20,
        .max_frames = 1000,
        .max_clip_pixels = (uint64_t)512 << 20,
    };
}
