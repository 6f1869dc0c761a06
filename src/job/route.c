/* Stage 2: which model draws it, at which size, and from which files. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/cleanup.h"
#include "job/clip.h"
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

/* A long clip at its full size, or enlarging it, may need more than the model itself, and so may a
 * clip that is given: known before any of them is worked on. `width` x `height`: before it is
 * enlarged. */
static int result_room(struct run *r, int width, int height, struct err *e)
{
    const struct request *q = &r->request;
    bool converted = q->width == width && q->height == height && !job_mode_draws(q->mode);
    uint64_t frames = (uint64_t)q->frames, given = 0, more;
    int code = run_enlarge_bytes(r, width, height, &more, e);
    if (code)
        return code;
    if (q->video && !converted) /* else it becomes the result */
        given = 3 * (uint64_t)width * (uint64_t)height * frames;
    frames *= (uint64_t)q->count;
    return models_room(r->models, r->model,
                       3 * (uint64_t)q->width * (uint64_t)q->height * frames + given + more, e);
}

/* ---- sizes of files ---- */

static int take_canvas_size(struct run *r, struct err *e)
{
    char what[300];
    int width, height;
    int code = outpaint_size(r, &width, &height, e);
    snprintf(what, sizeof what, "%s with expand has", r->request.images[0]);
    return code ? code : reference_size(r, what, width, height, "expand or size", e);
}

/* ---- without a model ---- */

/* A clip that becomes a GIF. What makes it smaller does so while it is read. */
static int route_clip(struct run *r, struct err *e)
{
    const struct request *q = &r->request;
    const struct media_info *clip = &r->given_clip;
    int code = clip_plan(r, e);
    if (code)
        return code;
    bool smaller = q->width <= clip->width && q->height <= clip->height;
    int width = smaller ? q->width : clip->width, height = smaller ? q->height : clip->height;
    code = result_room(r, width, height, e);
    return code ? code : clip_read(r, width, height, r->profile->upscaler, e);
}

static int route_picture(struct run *r, struct err *e)
{
    const struct request *q = &r->request;
    const char *name = q->images[0];
    char what[300];
    int code = reference_read(r, name, MEDIA_READ_RGB, 0, 0, &r->clip, e);
    if (code)
        return code;
    const struct picture *p = &r->clip;
    snprintf(what, sizeof what, "%s at scale %g has", name, q->scale);
    double width = fmin(round(p->width * q->scale), 1e6);
    double height = fmin(round(p->height * q->scale), 1e6);
    code = reference_size(r, what, (int)width, (int)height, "scale", e);
    return code ? code : result_room(r, p->width, p->height, e);
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
    int code = find_model(r, e);
    if (!code && q->mode == MODE_OUTPAINT)
        code = take_canvas_size(r, e);
    if (!code && q->mode == MODE_EDIT_VIDEO)
        code = clip_plan(r, e);
    if (code)
        return code;
    struct native_size native = profile_native(r->profile, q->width, q->height);
    if (run_draws_native(r)) {
        r->draw_width = native.width;
        r->draw_height = native.height;
    } else {
        size_to_draw(q->width, q->height, native.width, native.height, r->info.size_multiple,
                     &r->draw_width, &r->draw_height);
    }
    code = result_room(r, r->draw_width, r->draw_height, e);
    if (!code && q->mode == MODE_EDIT_VIDEO)
        code = clip_read(r, r->draw_width, r->draw_height, MEDIA_LANCZOS, e);
    return code ? code : references_read(r, e);
}

int stage_route(struct run *r, struct err *e)
{
    if (run_spares_references(r, e))
        return e->code;
    switch (r->request.mode) {
    case MODE_UPSCALE:
        return route_picture(r, e);
    case MODE_VIDEO_TO_GIF:
        return route_clip(r, e);
    default:
        return route_to_model(r, e);
    }
}
