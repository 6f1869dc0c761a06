/* GIF by giflib: one palette for the whole clip; after the first frame only what changed is stored,
 * cropped to its rectangle, the rest of it transparent. */
#include <errno.h>
#include <gif_lib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "media/codec.h"
#include "media/dither.h"

/* Shorter delays (centiseconds) are slowed down to ten by browsers. */
enum { LEAST_DELAY = 2, NO_TRANSPARENT = -1 };

struct rect {
    int left, top, width, height;
};

/* What is open while a clip is written; zero-initialised, freed by `finish`. */
struct writer {
    const struct picture *p;
    const struct media_options *o;
    struct err *e;
    GifFileType *file;
    struct palette palette;
    struct palette_finder finder;
    int transparent; /* its index */
    uint8_t *shown;  /* [height, width] indices on the screen before this frame */
    uint8_t *next;   /* [height, width] after it */
    uint8_t *from;   /* [height, width, 3] the colours `shown` was drawn from */
    uint8_t *keep;   /* [height, width] pixels this frame leaves alone */
    GifPixelType *line;
};

static int write_bytes(GifFileType *file, const GifByteType *bytes, int n)
{
    struct str *out = file->UserData;
    str_addn(out, bytes, (size_t)n);
    return out->failed ? 0 : n;
}

static int fail(const struct writer *w)
{
    const char *why = GifErrorString(w->file->Error);
    return err_set(w->e, -EIO, "GIF: %s", why ? why : "writing failed");
}

/* The time at which frame `i` starts, centiseconds: each rounded for itself, so that 12 frames a
 * second get 8, 9, 8 … and the whole lasts as long as it should. */
static int64_t start_of(const struct writer *w, int i)
{
    return llround(i * 100.0 / w->o->fps);
}

/* The frame to show after `i`: the next that leaves `i` its least delay. */
static int frame_after(const struct writer *w, int i)
{
    int next = i + 1;
    while (next < w->p->frames && start_of(w, next) - start_of(w, i) < LEAST_DELAY)
        next++;
    return next;
}

static int make_palette(struct writer *w)
{
    size_t pixels = (size_t)w->p->width * (size_t)w->p->height;
    bool clip = w->p->frames > 1;
    int most =
        clip && w->o->palette == 256 ? 255 : w->o->palette; /* room for the transparent one */
    if (palette_make(w->p->rgb, pixels * (size_t)w->p->frames, most, &w->palette) ||
        palette_finder_init(&w->finder, &w->palette))
        return err_nomem(w->e);
    w->transparent = clip ? w->palette.colours : NO_TRANSPARENT;
    w->shown = malloc(pixels);
    w->next = malloc(pixels);
    w->from = malloc(pixels * 3);
    w->keep = malloc(pixels);
    w->line = malloc((size_t)w->p->width);
    return w->shown && w->next && w->from && w->keep && w->line ? 0 : err_nomem(w->e);
}

static int write_screen(struct writer *w)
{
    int used = w->palette.colours + (w->transparent != NO_TRANSPARENT), size = 2;
    while (size < used)
        size *= 2;
    ColorMapObject *map = GifMakeMapObject(size, NULL);
    if (!map)
        return err_nomem(w->e);
    for (int i = 0; i < w->palette.colours; i++)
        map->Colors[i] =
            (GifColorType){w->palette.rgb[i][0], w->palette.rgb[i][1], w->palette.rgb[i][2]};
    EGifSetGifVersion(w->file, true);
    int ok = EGifPutScreenDesc(w->file, w->p->width, w->p->height, 8, 0, map);
    GifFreeMapObject(map);
    return ok == GIF_OK ? 0 : fail(w);
}

/* NETSCAPE2.0 counts repeats after the first time, 0 for ever; played once is no extension. */
static int write_loop(struct writer *w)
{
    int repeats = w->o->loop ? w->o->loop - 1 : 0;
    uint8_t block[3] = {1, (uint8_t)repeats, (uint8_t)(repeats >> 8)};
    if (w->p->frames == 1 || w->o->loop == 1)
        return 0;
    bool ok = EGifPutExtensionLeader(w->file, APPLICATION_EXT_FUNC_CODE) == GIF_OK &&
              EGifPutExtensionBlock(w->file, 11, "NETSCAPE2.0") == GIF_OK &&
              EGifPutExtensionBlock(w->file, sizeof block, block) == GIF_OK &&
              EGifPutExtensionTrailer(w->file) == GIF_OK;
    return ok ? 0 : fail(w);
}

/* A pixel is kept while its colour is within what the quality allows of the colour it was drawn
 * from: noise is not stored again, and errors cannot add up. */
static void find_kept(struct writer *w, const uint8_t *rgb)
{
    size_t pixels = (size_t)w->p->width * (size_t)w->p->height;
    int most = (100 - w->o->quality) / 4;
    const uint8_t *from = w->from;
    for (size_t i = 0; i < pixels; i++, rgb += 3, from += 3)
        w->keep[i] = abs(rgb[0] - from[0]) <= most && abs(rgb[1] - from[1]) <= most &&
                     abs(rgb[2] - from[2]) <= most;
}

/* The rectangle of what differs between `shown` and `next`; one pixel when nothing does, because
 * the frame's time must still pass. */
static struct rect find_changed(const struct writer *w)
{
    int left = w->p->width, right = -1, top = w->p->height, bottom = -1;
    for (int y = 0; y < w->p->height; y++) {
        const uint8_t *a = w->shown + (size_t)y * (size_t)w->p->width;
        const uint8_t *b = w->next + (size_t)y * (size_t)w->p->width;
        if (!memcmp(a, b, (size_t)w->p->width))
            continue;
        top = y < top ? y : top;
        bottom = y;
        for (int x = 0; x < w->p->width; x++)
            if (a[x] != b[x]) {
                left = x < left ? x : left;
                right = x > right ? x : right;
            }
    }
    if (bottom < 0)
        return (struct rect){0, 0, 1, 1};
    return (struct rect){left, top, right - left + 1, bottom - top + 1};
}

static int write_pixels(struct writer *w, struct rect area, bool whole)
{
    if (EGifPutImageDesc(w->file, area.left, area.top, area.width, area.height, false, NULL) !=
        GIF_OK)
        return fail(w);
    for (int y = area.top; y < area.top + area.height; y++) {
        size_t at = (size_t)y * (size_t)w->p->width + (size_t)area.left;
        for (int x = 0; x < area.width; x++, at++)
            w->line[x] =
                whole || w->next[at] != w->shown[at] ? w->next[at] : (GifPixelType)w->transparent;
        if (EGifPutLine(w->file, w->line, area.width) != GIF_OK)
            return fail(w);
    }
    return 0;
}

/* How long the frame stays, and which index lets the one before it through. */
static int write_control(struct writer *w, int64_t delay, int transparent)
{
    GraphicsControlBlock control = {
        .DisposalMode = DISPOSE_DO_NOT,
        .DelayTime = (int)(delay > 65535 ? 65535 : delay),
        .TransparentColor = transparent,
    };
    GifByteType block[4];
    EGifGCBToExtension(&control, block);
    return EGifPutExtension(w->file, GRAPHICS_EXT_FUNC_CODE, sizeof block, block) == GIF_OK
               ? 0
               : fail(w);
}

/* What the screen shows after this frame, into w->next, and what it was drawn from. */
static int draw(struct writer *w, const uint8_t *rgb, bool first, enum media_dither how)
{
    size_t pixels = (size_t)w->p->width * (size_t)w->p->height;
    if (first) {
        memset(w->keep, 0, pixels);
    } else {
        find_kept(w, rgb);
        memcpy(w->next, w->shown, pixels);
    }
    for (size_t k = 0; k < pixels; k++)
        if (!w->keep[k])
            memcpy(w->from + 3 * k, rgb + 3 * k, 3);
    int r = dither_frame(&w->finder, how, rgb, w->p->width, w->p->height, w->keep, w->next);
    return r ? err_nomem(w->e) : 0;
}

static int write_frame(struct writer *w, int i, int64_t delay, enum media_dither how)
{
    bool first = i == 0, clip = w->p->frames > 1;
    int r = draw(w, picture_frame(w->p, i), first, how);
    if (!r && clip)
        r = write_control(w, delay, first ? NO_TRANSPARENT_COLOR : w->transparent);
    if (r)
        return r;
    struct rect whole = {0, 0, w->p->width, w->p->height};
    r = write_pixels(w, first ? whole : find_changed(w), first);
    uint8_t *old = w->shown;
    w->shown = w->next;
    w->next = old;
    return r;
}

static int write_frames(struct writer *w)
{
    int frames = w->p->frames;
    enum media_dither how = w->o->dither;
    if (how == MEDIA_DITHER_AUTO)
        how = frames > 1 ? MEDIA_DITHER_BAYER : MEDIA_DITHER_FLOYD;
    for (int i = 0; i < frames;) {
        int next = frame_after(w, i);
        int64_t delay = start_of(w, next) - start_of(w, i);
        int r = write_frame(w, i, delay < LEAST_DELAY ? LEAST_DELAY : delay, how);
        if (!r && w->o->progress && w->o->progress(w->o->user, next, frames))
            r = err_set(w->e, -ECANCELED, "writing GIF was cancelled after frame %d of %d", next,
                        frames);
        if (r)
            return r;
        i = next;
    }
    return 0;
}

static int finish(struct writer *w, int r)
{
    int code = 0;
    if (EGifCloseFile(w->file, &code) != GIF_OK && !r)
        r = err_set(w->e, -EIO, "GIF: finishing the file failed with error %d", code);
    palette_finder_free(&w->finder);
    free(w->shown);
    free(w->next);
    free(w->from);
    free(w->keep);
    free(w->line);
    return r;
}

int media_gif_encode(const struct picture *p, const struct media_options *o, struct str *out,
                     struct err *e)
{
    struct writer w = {.p = p, .o = o, .e = e};
    int code = 0;
    w.file = EGifOpen(out, write_bytes, &code);
    if (!w.file)
        return err_nomem(e);
    int r = make_palette(&w);
    if (!r)
        r = write_screen(&w);
    if (!r)
        r = write_loop(&w);
    if (!r && o->parameters && EGifPutComment(w.file, o->parameters) != GIF_OK)
        r = fail(&w);
    if (!r)
        r = write_frames(&w);
    return finish(&w, r);
}
