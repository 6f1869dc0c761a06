/* Stage 2: which model draws it, at which size, and from which files. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/cleanup.h"
#include "job/enlarge.h"
#include "job/loras.h"
#include "job/modes.h"
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
    int code = run_enlarge_bytes(r, r->draw_width, r->draw_height, q->width, q->height, &more, e);
    if (code)
        return code;
    pixels *= (uint64_t)q->frames * (uint64_t)q->count;
    return models_room(r->models, r->model, pixels + more, e);
}

static int route_to_model(struct run *r, struct err *e)
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
    size_to_draw(q->width, q->height, p->native_width, p->native_height, r->info.size_multiple,
                 &r->draw_width, &r->draw_height);
    code = result_room(r, e);
    return code ? code : references_read(r, e);
}

/* ---- video_to_gif ---- */

/* Every frame of the result is the nearest one of the clip. */
static int resample(const struct picture *clip, double from_fps, double to_fps, int max_frames,
                    struct picture *out, struct err *e)
{
    double frames = fmax(1, round(clip->frames * to_fps / from_fps));
    if (frames > max_frames)
        return err_set(e, -EINVAL, "%.0f frames are over max_frames %d", frames, max_frames);
    int code = picture_new(out, clip->width, clip->height, (int)frames);
    if (code)
        return err_set(e, code, "no room for %.0f frames", frames);
    for (int f = 0; f < out->frames; f++) {
        int from = (int)fmin(clip->frames - 1, floor((f + 0.5) * from_fps / to_fps));
        memcpy(picture_frame(out, f), picture_frame(clip, from), picture_frame_bytes(clip));
    }
    return 0;
}

static int route_clip(struct run *r, struct err *e)
{
    struct request *q = &r->request;
    struct media_limits limits;
    media_limits_init(&limits);
    if (limits.max_frames > 4 * r->profile->max_frames)
        limits.max_frames = 4 * r->profile->max_frames; /* fps may thin them out */
    struct picture clip = {0};
    double fps;
    int code = media_read_clip(r->in_fd, q->video, &limits, &clip, &fps, e);
    if (code)
        return code;
    if (!q->line[KEY_FPS])
        q->fps = fps;
    if (!q->width) { /* no size was asked for: the clip's own */
        q->width = clip.width;
        q->height = clip.height;
    }
    if (q->width > r->profile->max_width || q->height > r->profile->max_height)
        code = err_set(e, -EINVAL,
                       "%s has %dx%d pixels, over max_resolution %dx%d of %s; set a smaller size",
                       q->video, q->width, q->height, r->profile->max_width, r->profile->max_height,
                       r->profile->name);
    else {
        code = resample(&clip, fps, q->fps, r->profile->max_frames, &r->clip, e);
        if (code)
            err_prefix(e, "%s", q->video);
    }
    q->frames = r->clip.frames;
    picture_free(&clip);
    return code;
}

int stage_route(struct run *r, struct err *e)
{
    return job_mode_draws(r->request.mode) ? route_to_model(r, e) : route_clip(r, e);
}
