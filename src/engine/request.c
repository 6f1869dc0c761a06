#include "engine/request.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"

#define MAX_SIDE     16384 /* pixels */
#define MAX_GUIDANCE 1000
#define MAX_PROMPT   ((size_t)1 << 20) /* bytes */

static const char *const mode_names[] = {
    [OMNI_TEXT_TO_IMAGE] = "text_to_image",
    [OMNI_IMAGE_TO_IMAGE] = "image_to_image",
    [OMNI_INPAINT] = "inpaint",
    [OMNI_TEXT_TO_VIDEO] = "text_to_video",
    [OMNI_IMAGE_TO_VIDEO] = "image_to_video",
};

const char *request_mode_name(enum omni_mode mode)
{
    return mode_names[mode];
}

static int check_mode(const struct omni_model *m, const struct omni_request *r, struct err *e)
{
    if ((size_t)r->mode >= ARRAY_LEN(mode_names))
        return err_set(e, -EINVAL, "mode %d does not exist", (int)r->mode);
    if (m->traits.modes >> r->mode & 1)
        return 0;
    AUTO_STR struct str known = {0};
    for (size_t i = 0; i < ARRAY_LEN(mode_names); i++)
        if (m->traits.modes >> i & 1)
            str_addf(&known, "%s%s", known.len ? ", " : "", mode_names[i]);
    return err_set(e, -EINVAL, "mode %s is not possible with this model (%s); it can do %s",
                   mode_names[r->mode], m->family->name, str_cstr(&known));
}

static int check_text(const char *name, const char *text, struct err *e)
{
    size_t n = strlen(text);
    if (n > MAX_PROMPT)
        return err_set(e, -EINVAL, "the %s has %zu bytes, at most %zu are read", name, n,
                       MAX_PROMPT);
    if (!utf8_valid(text, n))
        return err_set(e, -EINVAL, "the %s is not valid UTF-8", name);
    return 0;
}

static int check_side(const struct omni_model *m, const char *name, int pixels, struct err *e)
{
    int multiple = m->traits.size_multiple;
    if (pixels < 1 || pixels > MAX_SIDE)
        return err_set(e, -EINVAL, "%s %d is not between %d and %d", name, pixels, multiple,
                       MAX_SIDE);
    if (pixels % multiple == 0)
        return 0;
    int below = pixels / multiple * multiple;
    if (below == 0)
        return err_set(e, -EINVAL,
                       "%s %d is not a multiple of %d, which this model needs; the nearest "
                       "is %d",
                       name, pixels, multiple, multiple);
    return err_set(e, -EINVAL,
                   "%s %d is not a multiple of %d, which this model needs; the nearest are "
                   "%d and %d",
                   name, pixels, multiple, below, below + multiple);
}

static int check_frames(const struct omni_model *m, const struct omni_request *r, struct err *e)
{
    bool video = r->mode == OMNI_TEXT_TO_VIDEO || r->mode == OMNI_IMAGE_TO_VIDEO;
    int most = video ? m->traits.max_frames : 1;
    if (r->frames >= 1 && r->frames <= most)
        return 0;
    return err_set(e, -EINVAL,
                   "frames %d is not between 1 and %d, which is possible in mode %s with "
                   "this model",
                   r->frames, most, mode_names[r->mode]);
}

static int fill_numbers(const struct omni_model *m, const struct omni_request *r,
                        struct resolved_request *out, struct err *e)
{
    const struct family_traits *t = &m->traits;
    out->steps = r->steps == 0 ? t->default_steps : r->steps;
    if (out->steps < 1 || out->steps > SCHEDULE_MAX_STEPS)
        return err_set(e, -EINVAL, "steps %d is not between 1 and %d", r->steps,
                       SCHEDULE_MAX_STEPS);
    out->guidance = isnan(r->guidance) ? t->default_guidance : r->guidance;
    if (!(out->guidance >= 0 && out->guidance <= MAX_GUIDANCE))
        return err_set(e, -EINVAL, "guidance %g is not between 0 and %d", r->guidance,
                       MAX_GUIDANCE);
    out->factor = out->guidance + t->guidance_offset;
    out->guided = t->guided && out->factor > 1;
    out->schedule = m->schedule;
    if (r->mode == OMNI_INPAINT && m->family->correct_inpaint)
        m->family->correct_inpaint(&out->schedule);
    if (!r->scheduler)
        return 0;
    return schedule_swap(&out->schedule, r->scheduler, e);
}

static int check_loras(const struct omni_request *r, struct err *e)
{
    if (r->lora_count < 0 || r->lora_count > OMNI_MAX_LORAS)
        return err_set(e, -EINVAL, "%d LoRAs are not possible, at most %d are", r->lora_count,
                       OMNI_MAX_LORAS);
    for (int i = 0; i < r->lora_count; i++)
        if (!isfinite((float)r->loras[i].weight))
            return err_set(e, -EINVAL, "%s: the weight %g is not a number to multiply with",
                           r->loras[i].path, r->loras[i].weight);
    return 0;
}

static bool same_loras(const struct omni_request *a, const struct omni_request *b)
{
    for (int i = 0; i < a->lora_count && i < b->lora_count; i++)
        if (strcmp(a->loras[i].path, b->loras[i].path) != 0 ||
            a->loras[i].weight != b->loras[i].weight)
            return false;
    return a->lora_count == b->lora_count;
}

static int resolve(const struct omni_model *m, const struct omni_request *r,
                   struct resolved_request *out, struct err *e)
{
    *out = (struct resolved_request){.ask = r};
    if (!r->prompt)
        return err_set(e, -EINVAL, "the request has no prompt");
    if (check_mode(m, r, e) != 0 || check_text("prompt", r->prompt, e) != 0 ||
        (r->negative_prompt && check_text("negative prompt", r->negative_prompt, e) != 0) ||
        check_side(m, "width", r->width, e) != 0 || check_side(m, "height", r->height, e) != 0 ||
        check_frames(m, r, e) != 0 || check_loras(r, e) != 0 || fill_numbers(m, r, out, e) != 0)
        return e->code;
    if (request_plan_pictures(m, r, out, e) != 0)
        return e->code;
    return m->family->shape(m->state, r, &out->latent, e);
}

static int check_alike(const struct omni_model *m, const struct resolved_request *a,
                       const struct resolved_request *b, int index, struct err *e)
{
    const struct omni_request *x = a->ask, *y = b->ask;
    const char *differs = x->mode != y->mode                                ? "mode"
                          : x->width != y->width || x->height != y->height  ? "size"
                          : x->frames != y->frames                          ? "frames"
                          : x->loop != y->loop                              ? "loop"
                          : a->steps != b->steps                            ? "steps"
                          : strcmp(a->schedule.kind, b->schedule.kind) != 0 ? "scheduler"
                          : !same_loras(x, y)                               ? "LoRAs"
                                                                            : NULL;
    if (!differs && !request_pictures_alike(m, a, b))
        differs = "strength or pictures";
    return differs ? err_set(e, -EINVAL, "request %d of the batch differs from the first in %s",
                             index, differs)
                   : 0;
}

int requests_resolve(const struct omni_model *m, const struct omni_request *requests, int count,
                     struct resolved_request *out, struct err *e)
{
    if (count < 1 || count > REQUEST_MAX_BATCH)
        return err_set(e, -EINVAL, "a batch of %d requests is not possible, 1 to %d are", count,
                       REQUEST_MAX_BATCH);
    for (int i = 0; i < count; i++)
        if (resolve(m, &requests[i], &out[i], e) != 0 ||
            check_alike(m, &out[0], &out[i], i, e) != 0)
            return e->code;
    return 0;
}
