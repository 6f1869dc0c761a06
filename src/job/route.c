/* Stage 2: which model draws it, at which size, and from which files. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/cleanup.h"
#include "job/enlarge.h"
#include "job/loras.h"
#include "job/modes.h"
#include "job/outpaint.h"
#include "job/reference.h"
#include "job/run.h"
#include "job/size.h"

/* The record outlives the model, which may be unloaded before it is written. */
static void keep_info(struct run *r, const struct omni_model_info *info)
{
    r->info = *info;
    const char **strings[] = {&r->info.family, &r->info.variant, &r->info.precision,
                              &r->info.device};
    for (size_t i = 0; i < ARRAY_LEN(strings); i++) {
        snprintf(r->info_strings[i], sizeof r->info_strings[i], "%s",
                 *strings[i] ? *strings[i] : "");
        *strings[i] = r->info_strings[i];
    }
}

/* A long clip at its full size, or enlarging it, may need more than the model itself: known before
 * any work. */
static int result_room(struct run *r, struct err *e)
{
    const struct request *q = &r->request;
    uint64_t pixels = (uint64_t)q->width * (uint64_t)q->height * 3, more;
    int code = run_enlarge_bytes(r, r->draw_width, r->draw_height, q->frames, &more, e);
    if (code)
        return code;
    pixels *= (uint64_t)q->frames * (uint64_t)q->count;
    return models_room(r->models, r->model, pixels + more, e);
}

/* ---- sizes of files ---- */

/* A mode that keeps the size of what it is given: here it is known. */
static int take_own_size(struct run *r, const char *name, int width, int height, const char *advice,
                         struct err *e)
{
    struct request *q = &r->request;
    const struct profile *p = r->profile;
    if (!q->width) {
        q->width = width;
        q->height = height;
    }
    if (q->width <= p->max_width && q->height <= p->max_height)
        return 0;
    return err_set(e, -EINVAL, "%s %dx%d pixels, over max_resolution %dx%d of %s; set a smaller %s",
                   name, q->width, q->height, p->max_width, p->max_height, p->name, advice);
}

static int take_canvas_size(struct run *r, struct err *e)
{
    char what[300];
    int width, height;
    int code = outpaint_size(r, &width, &height, e);
    snprintf(what, sizeof what, "%s with expand has", r->request.images[0]);
    return code ? code : take_own_size(r, what, width, height, "expand or size", e);
}

/* ---- clips ---- */

/* The first `frames` frames at another rate: every one is the nearest one of the clip. */
static int resample(const struct picture *clip, double from_fps, double to_fps, int frames,
                    struct picture *out, struct err *e)
{
    int code = picture_new(out, clip->width, clip->height, frames);
    if (code)
        return err_set(e, code, "no room for %d frames", frames);
    for (int f = 0; f < out->frames; f++) {
        int from = (int)fmin(clip->frames - 1, floor((f + 0.5) * from_fps / to_fps));
        memcpy(picture_frame(out, f), picture_frame(clip, from), picture_frame_bytes(clip));
    }
    return 0;
}

/* How many frames are wanted of a clip that has `there` at the rate of the result. */
static int choose_frames(const struct run *r, double there, int *frames, struct err *e)
{
    const struct request *q = &r->request;
    double wanted = q->line[KEY_SECONDS]  ? fmax(1, round(q->seconds * q->fps))
                    : q->line[KEY_FRAMES] ? q->frames
                                          : there;
    if (wanted > there)
        return err_set(e, -EINVAL,
                       "%s has %.0f frames at %g frames a second, fewer than the %.0f that are "
                       "asked for",
                       q->video, there, q->fps, wanted);
    if (wanted > r->profile->max_frames)
        return err_set(
            e, -EINVAL, "%s: %.0f frames are over max_frames %d of %s; set a smaller fps%s",
            q->video, wanted, r->profile->max_frames, r->profile->name,
            q->mode == MODE_EDIT_VIDEO ? ", or frames or seconds for its beginning" : "");
    *frames = (int)wanted;
    return 0;
}

static int take_frames(struct run *r, const struct picture *clip, double fps, struct err *e)
{
    struct request *q = &r->request;
    char what[300];
    int frames = 0, code;
    if (!q->line[KEY_FPS])
        q->fps = fps;
    snprintf(what, sizeof what, "%s has", q->video);
    code = take_own_size(r, what, clip->width, clip->height, "size", e);
    if (!code)
        code = choose_frames(r, fmax(1, round(clip->frames * q->fps / fps)), &frames, e);
    if (code)
        return code;
    q->frames = frames;
    code = resample(clip, fps, q->fps, frames, &r->clip, e);
    return code ? err_prefix(e, "%s", q->video) : 0;
}

static int read_clip(struct run *r, struct err *e)
{
    struct media_limits limits;
    media_limits_init(&limits);
    if (limits.max_frames > 4 * r->profile->max_frames)
        limits.max_frames = 4 * r->profile->max_frames; /* fps may thin them out */
    struct picture clip = {0};
    double fps;
    int code = media_read_clip(r->in_fd, r->request.video, &limits, &clip, &fps, e);
    if (!code)
        code = take_frames(r, &clip, fps, e);
    picture_free(&clip);
    return code;
}

/* Its frames at the size that is drawn. */
static int size_frames(struct run *r, struct err *e)
{
    struct picture sized = {0};
    int code = size_cover(&r->clip, r->draw_width, r->draw_height, MEDIA_LANCZOS, &sized, e);
    if (code)
        return err_prefix(e, "%s", r->request.video);
    picture_free(&r->clip);
    r->clip = sized;
    return 0;
}

/* ---- upscale ---- */

static int route_picture(struct run *r, struct err *e)
{
    const struct request *q = &r->request;
    const char *name = q->images[0];
    char what[300];
    uint64_t more;
    int code = reference_read(r, name, MEDIA_READ_RGB, 0, 0, &r->clip, e);
    if (code)
        return code;
    const struct picture *p = &r->clip;
    snprintf(what, sizeof what, "%s at scale %g has", name, q->scale);
    double width = fmin(round(p->width * q->scale), 1e6);
    double height = fmin(round(p->height * q->scale), 1e6);
    code = take_own_size(r, what, (int)width, (int)height, "scale", e);
    if (!code)
        code = run_enlarge_bytes(r, p->width, p->height, 1, &more, e);
    if (!code)
        code = models_room(r->models, NULL, (uint64_t)q->width * (uint64_t)q->height * 3 + more, e);
    return code;
}

/* ---- with a model ---- */

static int find_model(struct run *r, struct err *e)
{
    struct request *q = &r->request;
    const struct profile *p = r->profile;
    int code = run_find_loras(r, e);
    if (!code)
        code = models_get(r->models, p, &r->model, e);
    if (code)
        return code;
    keep_info(r, model_info(r->model));
    request_complete(q, &r->info);
    if (q->steps > p->max_steps)
        return err_set(e, -EINVAL, "%s: the checkpoint's own %d steps are over max_steps %d of %s",
                       r->where, q->steps, p->max_steps, p->name);
    return 0;
}

static int route_to_model(struct run *r, struct err *e)
{
    const struct request *q = &r->request;
    const struct profile *p = r->profile;
    int code = find_model(r, e);
    if (!code && q->mode == MODE_OUTPAINT)
        code = take_canvas_size(r, e);
    if (!code && q->mode == MODE_EDIT_VIDEO)
        code = read_clip(r, e);
    if (code)
        return code;
    if (run_draws_native(r)) {
        r->draw_width = p->native_width;
        r->draw_height = p->native_height;
    } else {
        size_to_draw(q->width, q->height, p->native_width, p->native_height, r->info.size_multiple,
                     &r->draw_width, &r->draw_height);
    }
    code = result_room(r, e);
    if (!code && r->clip.rgb)
        code = size_frames(r, e);
    return code ? code : references_read(r, e);
}

int stage_route(struct run *r, struct err *e)
{
    switch (r->request.mode) {
    case MODE_UPSCALE:
        return route_picture(r, e);
    case MODE_VIDEO_TO_GIF:
        return read_clip(r, e);
    default:
        return route_to_model(r, e);
    }
}
