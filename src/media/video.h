/* Clips by FFmpeg's libraries, inside the media folder. All of a file is in memory: the libraries
 * are given no name and no protocol, so a hostile clip can make them open nothing. */
#ifndef OMNIFS_MEDIA_VIDEO_H
#define OMNIFS_MEDIA_VIDEO_H

#include <libavformat/avformat.h>

#include "media/codec.h"

/* Frames of an MP4, WebM or GIF, and what it holds; as media_each_frame and media_probe. */
int media_video_frames(const struct source *s, enum media_format format,
                       const struct media_frames *frames, struct err *e);
int media_video_probe(const struct source *s, enum media_format format, struct media_info *info,
                      struct err *e);

/* A rational rate for `fps`: whole numbers and short decimals exactly, 23.976, 29.97 and 59.94 as
 * their n * 1000 / 1001. */
AVRational media_frame_rate(double fps);

/* Turns the libraries' own printing into debug lines of base/log.h; first thing in every entry. */
void media_av_quiet(void);

/* Bytes in memory as a file of libavformat. Read when `bytes` is set, else written to `out`,
 * seekable. */
struct memory_io {
    const uint8_t *bytes;
    size_t size, at;
    struct str *out;
};
AVIOContext *media_memory_open(struct memory_io *m);
void media_memory_close(AVIOContext **io);

/* Bytes that must follow the pixels given to swscale: its vector code loads whole registers and so
 * reads a little past the last row. */
#define MEDIA_SWS_SLACK 64

/* The text of an AVERROR into out[128]; returns out. */
char *media_av_text(int code, char out[128]);
#define AV_TEXT_SIZE 128

#endif
