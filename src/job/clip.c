#include "job/clip.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "job/reference.h"
#include "job/size.h"

#define CLIP_FRAMES 100000 /* that are counted in a file */

/* ---- what is wanted ---- */

/* The clip's own, unless another is asked for. One without times has the profile's. */
static int choose_rate(struct run *r, struct err *e)
{
    struct request *q = &r->request;
    if (!q->line[KEY_FPS])
        q->fps = r->given_clip.fps > 0 ? r->given_clip.fps : r->profile->fps;
    if (q->fps >= REQUEST_MIN_FPS && q->fps <= REQUEST_MAX_FPS)
        return 0;
    return err_set(e, -EINVAL, "%s has %g frames a second; set fps, between %g and %g", q->video,
                   q->fps, REQUEST_MIN_FPS, REQUEST_MAX_FPS);
}

/* How many frames are wanted of a clip that has `there` at the rate of the result. */
static int choose_frames(struct run *r, double there, struct err *e)
{
    struct request *q = &r->request;
    double wanted = q->line[KEY_SECONDS]  ? fmax(1, round(q->seconds * q->fps))
                    : q->line[KEY_FRAMES] ? q->frames
                                          : there;
    if (wanted > there)
        return err_set(e, -EINVAL,
                       "%s has %.0f frames at %g frames a second, fewer than the %.0f that are "
                       "asked for",
                       q->video, there, q->fps, wanted);
    if (wanted > r->profile->max_frames)
        return err_set(e, -EINVAL,
                       "%s: %.0f frames are over max_frames %d of %s; set a smaller fps, or frames "
                       "or seconds for its beginning",
                       q->video, wanted, r->profile->max_frames, r->profile->name);
    q->frames = (int)wanted;
    return 0;
}

static void limits_of_a_frame(const struct run *r, struct media_limits *limits)
{
    reference_limits(r, limits);
    limits->max_frames = CLIP_FRAMES;
}

int clip_plan(struct run *r, struct err *e)
{
    const struct request *q = &r->request;
    struct media_info *clip = &r->given_clip;
    struct media_limits limits;
    char what[300];
    limits_of_a_frame(r, &limits);
    int code = media_probe(r->in_fd, q->video, &limits, clip, e);
    if (!code && !media_format_info(clip->format)->clip)
        return err_set(e, -EINVAL, "%s is a %s picture; a clip (MP4, WebM, GIF, WebP) is needed",
                       q->video, media_format_info(clip->format)->name);
    snprintf(what, sizeof what, "%s has", q->video);
    if (!code)
        code = reference_size(r, what, clip->width, clip->height, "size", e);
    if (!code)
        code = choose_rate(r, e);
    if (code)
        return code;
    double there = clip->seconds > 0 ? fmax(1, round(clip->seconds * q->fps)) : clip->frames;
    return choose_frames(r, there, e);
}

/* ---- taking it ---- */

struct taking {
    struct run *r;
    enum media_scale how;
    int taken;  /* frames of the result */
    double end; /* of the frame that is wanted, seconds */
};

/* Every frame of the result is the one that is seen in the middle of its time: is the next of them
 * before `end`? */
static bool comes_before(const struct taking *t, double end)
{
    const struct run *r = t->r;
    return t->taken < r->clip.frames && (t->taken + 0.5) / r->request.fps < end;
}

static int wants(void *ctx, int index, double end, struct err *e)
{
    struct taking *t = ctx;
    if (run_cancelled(t->r))
        return err_set(e, -ECANCELED, "cancelled");
    bool timed = t->r->given_clip.seconds > 0 || end == INFINITY;
    t->end = timed ? end : (index + 1) / t->r->request.fps;
    return comes_before(t, t->end);
}

static int take(void *ctx, int index, const struct picture *frame, struct err *e)
{
    struct taking *t = ctx;
    struct run *r = t->r;
    (void)index;
    for (; comes_before(t, t->end); t->taken++) {
        int code = size_cover_frame(frame, t->how, &r->clip, t->taken, e);
        if (code)
            return code;
    }
    run_progress(r, STAGE_ROUTE, t->taken, r->clip.frames);
    return t->taken == r->clip.frames;
}

int clip_read(struct run *r, int width, int height, enum media_scale how, struct err *e)
{
    const struct request *q = &r->request;
    struct taking t = {.r = r, .how = how};
    const struct media_frames frames = {&t, wants, take};
    struct media_limits limits;
    int code = picture_new(&r->clip, width, height, q->frames);
    if (code)
        return err_set(e, code, "%s: no room for %d frames", q->video, q->frames);
    limits_of_a_frame(r, &limits);
    return media_each_frame(r->in_fd, q->video, &limits, &frames, e);
}
