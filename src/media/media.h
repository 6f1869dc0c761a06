/* Files in and out: pictures and clips become PNG, JPEG, WebP, MP4, WebM and GIF, and come back.
 *
 * Writing is deterministic (the same pixels and options give the same bytes) and atomic. Reading
 * takes files of strangers: the format is found from the content, sizes are checked against limits
 * before anything is allocated, and a damaged file is an error, never a partial picture.
 *
 * Every function is thread-safe; there is no state between calls. */
#ifndef OMNIFS_MEDIA_MEDIA_H
#define OMNIFS_MEDIA_MEDIA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/picture.h"
#include "base/str.h"

/* ---- formats ---- */

enum media_format { MEDIA_PNG, MEDIA_JPEG, MEDIA_WEBP, MEDIA_MP4, MEDIA_WEBM, MEDIA_GIF };
#define MEDIA_FORMAT_COUNT 6

struct media_format_info {
    const char *name;      /* as in return_format: "jpeg" */
    const char *extension; /* without the dot: "jpg" */
    const char *mime;      /* "image/jpeg" */
    bool still;            /* can hold one picture by nature */
    bool clip;             /* can hold several frames in one file */
};

/* The row of `format`; never NULL for a value of the enum, NULL otherwise. */
const struct media_format_info *media_format_info(enum media_format format);
/* "png", "jpeg", "jpg", "webp", "mp4", "webm", "gif" (any case); 0 or -EINVAL. */
int media_format_parse(const char *text, enum media_format *out);
/* NULL-terminated names, for "did you mean" and lists in messages. */
const char *const *media_format_names(void);
/* Format of a file from its first bytes (16 suffice; AVIF, TIFF … are unknown): 0 or -EINVAL. */
int media_format_sniff(const void *bytes, size_t size, enum media_format *out);

/* How a GIF's palette is spread. AUTO: bayer for clips (stays still between frames, so files stay
 * small), floyd for one picture. */
enum media_dither { MEDIA_DITHER_AUTO, MEDIA_DITHER_NONE, MEDIA_DITHER_BAYER, MEDIA_DITHER_FLOYD };

/* "none", "bayer", "floyd", "auto" (any case); 0 or -EINVAL. */
int media_dither_parse(const char *text, enum media_dither *out);
const char *media_dither_name(enum media_dither dither);

/* ---- writing ---- */

/* Called after each frame; a value other than 0 stops the write with -ECANCELED. */
typedef int media_progress_fn(void *user, int frames_done, int frames);

struct media_options {
    enum media_format format;
    int quality;                 /* 1..100; GIF: how small a change of a pixel is still stored */
    double fps;                  /* frames a second of a clip: 0.01..1000, need not be whole */
    int loop;                    /* GIF and WebP clips: 0 for ever, n plays n times (n <= 65535) */
    int palette;                 /* GIF: most colours, 2..256 */
    enum media_dither dither;    /* GIF */
    bool lossless;               /* WebP: exact pixels; quality then is effort */
    const char *parameters;      /* A1111 "parameters" text, UTF-8, or NULL; borrowed */
    const char *software;        /* program name and version to record, UTF-8, or NULL; borrowed */
    media_progress_fn *progress; /* may be NULL */
    void *user;                  /* passed to progress */
};

/* Defaults: quality 90, 12 fps, for ever, 256 colours, AUTO dither, lossy, no texts. */
void media_options_init(struct media_options *o, enum media_format format);

/* Encodes `p` into `out`, which is appended to (left as it was on an error). PNG and JPEG take one
 * frame; WebP, GIF, MP4 and WebM any number. Odd sizes in MP4 and WebM: the last column or row is
 * repeated once, as 4:2:0 needs even sizes, and nothing is scaled or lost. MP4 tags and converts as
 * BT.709, limited range. GIF keeps time in 1/100 s: delays alternate so that the whole is exact,
 * and above 50 frames a second frames are left out, since viewers slow down shorter delays. -EINVAL
 * (options out of range, several frames in a still format, too large for the format), -ENOSYS (no
 * encoder on this system), -ENOMEM, -ECANCELED, -EIO. */
int media_encode(const struct picture *p, const struct media_options *o, struct str *out,
                 struct err *e);

/* media_encode into dirfd/name by a synced temporary file and a rename, so that `name` is either
 * the old file or the whole new one, also after a power cut. Also the errors of open, write,
 * rename. */
int media_write(int dirfd, const char *name, const struct picture *p, const struct media_options *o,
                struct err *e);

/* Each frame as a still `frame-0001.EXT` … in dirfd (five digits from 10000 frames on); options
 * name a still format. On an error the frames written so far stay. */
int media_write_frames(int dirfd, const struct picture *p, const struct media_options *o,
                       struct err *e);
#define MEDIA_FRAME_NAME_SIZE 32
/* The name of frame `index` (from 0) of `frames` into out[MEDIA_FRAME_NAME_SIZE]; returns out. */
char *media_frame_name(int index, int frames, enum media_format format, char *out);

/* ---- reading ---- */

struct media_limits {
    int max_width, max_height; /* pixels */
    uint64_t max_pixels;       /* width * height of one frame */
    size_t max_bytes;          /* of the file */
    int max_frames;            /* clips; more is an error */
    uint64_t max_clip_pixels;  /* width * height * frames of a clip that is read as a whole */
    uint64_t max_memory;       /* bytes of pixels while one frame is decoded; 0: any */
};

/* 16384 x 16384, 64 Mpixel, 256 MiB, 1000 frames, 512 Mpixel a clip (1.5 GiB of memory). */
void media_limits_init(struct media_limits *l);

enum media_read_as {
    MEDIA_READ_RGB,  /* colours; alpha is laid over white */
    MEDIA_READ_MASK, /* BT.601 luma in all three channels; alpha over black: clear means "keep" */
};

/* Reads PNG, JPEG, WebP or GIF (the first frame of an animation) as one 8-bit sRGB frame, upright
 * (EXIF orientation applied). Gray, palette, 16-bit and CMYK files are converted. `name` is the
 * path below dirfd; a link at its end is not followed. The caller frees `out`.
 * -ENOENT …, -EFBIG (over a limit), -EINVAL (not such a file, damaged, truncated), -ENOMEM. */
int media_read_image(int dirfd, const char *name, const struct media_limits *limits,
                     enum media_read_as as, struct picture *out, struct err *e);
/* The same from memory; `name` is for messages. */
int media_decode_image(const void *bytes, size_t size, const char *name,
                       const struct media_limits *limits, enum media_read_as as,
                       struct picture *out, struct err *e);

/* What a file holds. PNG and JPEG are decoded to be sure that they are whole; of clips all packets
 * are seen and none decoded. */
struct media_info {
    enum media_format format;
    int width, height; /* upright */
    int frames;        /* 1 for a still */
    double fps;        /* the average, or that of the usual frame where some stay longer; 0 for a
                          still and where there are no times */
    double seconds;    /* duration, 0 for a still */
};
int media_probe(int dirfd, const char *name, const struct media_limits *limits,
                struct media_info *info, struct err *e);

/* Reads an MP4, WebM, GIF or animated WebP as frames of equal duration; *fps is the average rate
 * (frames over duration). No file but this one is ever opened. Errors as media_read_image. */
int media_read_clip(int dirfd, const char *name, const struct media_limits *limits,
                    struct picture *out, double *fps, struct err *e);
/* The same from memory. */
int media_decode_clip(const void *bytes, size_t size, const char *name,
                      const struct media_limits *limits, struct picture *out, double *fps,
                      struct err *e);

/* The frames of a clip that media_probe found whole, one after the other and never all in memory.
 */
struct media_frames {
    void *user;
    /* May be NULL. 1: frame `index` is wanted; 0: not, which saves the work of making it pixels; a
     * negative errno ends the call. The next frame begins `end` seconds after the first one (the
     * last: INFINITY). */
    int (*wants)(void *user, int index, double end, struct err *e);
    /* Takes it, borrowed. Other than 0 ends the call, which returns it when it is negative. */
    int (*take)(void *user, int index, const struct picture *frame, struct err *e);
};
/* Only the limits of a frame count. */
int media_each_frame(int dirfd, const char *name, const struct media_limits *limits,
                     const struct media_frames *frames, struct err *e);

/* ---- sizes ---- */

enum media_scale { MEDIA_LANCZOS, MEDIA_BICUBIC, MEDIA_BILINEAR, MEDIA_NEAREST };

/* Every frame of `in` at width x height; the caller frees `out`. -EINVAL (sizes), -ENOMEM. */
int media_resize(const struct picture *in, int width, int height, enum media_scale how,
                 struct picture *out, struct err *e);

#endif
