/* What writing and reading clips share: memory as a file, quiet libraries, frame rates. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "media/video.h"

#include <libavutil/log.h>
#include <libavutil/mem.h>

enum { IO_BUFFER = 1 << 16, GAP_MOST = 1 << 28 };

static int read_bytes(void *opaque, uint8_t *to, int n)
{
    struct memory_io *m = opaque;
    const uint8_t *bytes = m->out ? (const uint8_t *)m->out->data : m->bytes;
    size_t size = m->out ? m->out->len : m->size;
    if (m->at >= size)
        return AVERROR_EOF;
    size_t take = size - m->at < (size_t)n ? size - m->at : (size_t)n;
    memcpy(to, bytes + m->at, take);
    m->at += take;
    return (int)take;
}

/* Writes over what is there, then appends; a gap that a seek left is zeros, as in a file. */
static int write_bytes(void *opaque, uint8_t *from, int n)
{
    struct memory_io *m = opaque;
    size_t size = (size_t)n, over = 0;
    while (m->out->len < m->at && !m->out->failed)
        str_addc(m->out, '\0');
    if (m->out->failed)
        return AVERROR(ENOMEM);
    if (m->at < m->out->len) {
        over = m->out->len - m->at < size ? m->out->len - m->at : size;
        memcpy(m->out->data + m->at, from, over);
    }
    str_addn(m->out, from + over, size - over);
    m->at += size;
    return m->out->failed ? AVERROR(ENOMEM) : n;
}

static int64_t seek_bytes(void *opaque, int64_t offset, int whence)
{
    struct memory_io *m = opaque;
    int64_t size = (int64_t)(m->out ? m->out->len : m->size);
    whence &= ~AVSEEK_FORCE;
    if (whence == AVSEEK_SIZE)
        return size;
    int64_t base = whence == SEEK_CUR ? (int64_t)m->at : whence == SEEK_END ? size : 0;
    int64_t at;
    /* the end may be passed by a writer, which moves its data back to make room */
    int64_t most = m->out ? size + GAP_MOST : size;
    if (__builtin_add_overflow(base, offset, &at) || at < 0 || at > most)
        return AVERROR(EINVAL);
    m->at = (size_t)at;
    return at;
}

AVIOContext *media_memory_open(struct memory_io *m)
{
    uint8_t *buffer = av_malloc(IO_BUFFER);
    bool writing = m->out && !m->bytes;
    AVIOContext *io = buffer ? avio_alloc_context(buffer, IO_BUFFER, writing, m, read_bytes,
                                                  writing ? write_bytes : NULL, seek_bytes)
                             : NULL;
    if (!io)
        av_free(buffer);
    return io;
}

void media_memory_close(AVIOContext **io)
{
    if (!*io)
        return;
    av_freep(&(*io)->buffer);
    avio_context_free(io);
}

static void on_log(void *context, int level, const char *fmt, va_list ap)
{
    if (level > AV_LOG_WARNING || log_threshold() < LOG_LEVEL_DEBUG)
        return;
    char line[512];
    int prefix = 1;
    av_log_format_line(context, level, fmt, ap, line, sizeof line, &prefix);
    line[strcspn(line, "\r\n")] = '\0';
    log_debug("%s", line);
}

static void set_callback(void)
{
    av_log_set_callback(on_log);
}

void media_av_quiet(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, set_callback);
}

char *media_av_text(int code, char out[AV_TEXT_SIZE])
{
    if (av_strerror(code, out, AV_TEXT_SIZE))
        snprintf(out, AV_TEXT_SIZE, "error %d", code);
    return out;
}

AVRational media_frame_rate(double fps)
{
    double ntsc = round(fps * 1.001);
    if (fabs(ntsc * 1000 / 1001 - fps) < 5e-4 && fabs(round(fps) - fps) > 5e-4)
        return (AVRational){(int)ntsc * 1000, 1001};
    return av_d2q(fps, 100000);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Encoders make one long frame of several that are alike: then the average says little. */
double media_clip_rate(double *stays, size_t count)
{
    double sum = 0;
    qsort(stays, count, sizeof *stays, by_value);
    for (size_t i = 0; i < count; i++)
        sum += stays[i];
    double usual = count ? stays[count / 4] : 0;
    if (usual > 0 && stays[count - 1] > 1.5 * usual)
        return 1 / usual;
    return sum > 0 ? (double)count / sum : 0;
}

int media_wants(const struct media_frames *frames, int index, double end, struct err *e)
{
    return frames->wants ? frames->wants(frames->user, index, end, e) : 1;
}
