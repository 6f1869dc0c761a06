/* What requests may ask of pictures, and what becomes of them. */
#include <errno.h>
#include <stdint.h>

#include "engine/request.h"

#define MIN_REFERENCE 64 /* pixels a side */
#define MAX_ASPECT    8

static int check_picture(const struct picture *p, const char *what, struct err *e)
{
    if (p->rgb && p->width > 0 && p->height > 0 && p->frames > 0)
        return 0;
    return err_set(e, -EINVAL, "the %s holds no pixels", what);
}

/* What the model was trained to read beside a drawing. */
static int check_reference(const struct omni_model *m, const struct picture *p, int index,
                           struct err *e)
{
    int width, height;
    if (p->width < MIN_REFERENCE || p->height < MIN_REFERENCE)
        return err_set(e, -EINVAL, "picture %d has %dx%d pixels; this model reads %dx%d at least",
                       index + 1, p->width, p->height, MIN_REFERENCE, MIN_REFERENCE);
    picture_reference_size(p, m->traits.size_multiple, &width, &height);
    if (p->width > (int64_t)p->height * MAX_ASPECT || p->height > (int64_t)p->width * MAX_ASPECT ||
        width < 1 || height < 1)
        return err_set(e, -EINVAL,
                       "picture %d has %dx%d pixels; this model reads none that is more than %d "
                       "times as long as it is wide",
                       index + 1, p->width, p->height, MAX_ASPECT);
    return 0;
}

static int check_pictures(const struct omni_model *m, const struct omni_request *r, struct err *e)
{
    bool reads =
        r->mode == OMNI_IMAGE_TO_IMAGE || r->mode == OMNI_INPAINT || r->mode == OMNI_IMAGE_TO_VIDEO;
    int most = !reads                                                          ? 0
               : m->traits.images.references && r->mode != OMNI_IMAGE_TO_VIDEO ? PASS_REFERENCES
                                                                               : 1;
    if (r->image_count < reads || r->image_count > most)
        return err_set(e, -EINVAL, "mode %s reads %s%d picture%s with this model, but %d %s given",
                       request_mode_name(r->mode), most > 1 ? "1 to " : "", most,
                       most == 1 ? "" : "s", r->image_count, r->image_count == 1 ? "is" : "are");
    if (!r->mask != (r->mode != OMNI_INPAINT))
        return r->mask ? err_set(e, -EINVAL, "mode %s has no use for a mask",
                                 request_mode_name(r->mode))
                       : err_set(e, -EINVAL,
                                 "mode inpaint needs a mask: a picture that is white "
                                 "where shall be drawn anew");
    for (int i = 0; i < r->image_count; i++)
        if (check_picture(&r->images[i], "picture", e) != 0)
            return e->code;
    return r->mask ? check_picture(r->mask, "mask", e) : 0;
}

static int check_strength(const struct omni_request *r, struct resolved_request *q, struct err *e)
{
    if (!(r->strength >= 0 && r->strength <= 1))
        return err_set(e, -EINVAL, "strength %g is not between 0 and 1", r->strength);
    q->first = schedule_start(&q->schedule, q->steps, r->strength);
    if (q->first < q->steps)
        return 0;
    return err_set(e, -EINVAL,
                   "strength %g of %d steps leaves none to draw; raise the strength or the steps",
                   r->strength, q->steps);
}

int request_plan_pictures(const struct omni_model *m, const struct omni_request *r,
                          struct resolved_request *q, struct err *e)
{
    const struct image_traits *t = &m->traits.images;
    bool inpaint = r->mode == OMNI_INPAINT, clip = r->mode == OMNI_IMAGE_TO_VIDEO;
    struct image_use *u = &q->images;
    if (check_pictures(m, r, e) != 0 || r->image_count == 0)
        return e->code;
    u->as_drawn = clip && t->first_frame;
    u->references = (clip ? t->first_frame : t->references) ? r->image_count : 0;
    u->beside = inpaint && t->beside;
    u->blend = (clip && !t->first_frame) || (inpaint && !t->beside);
    /* noise schedules never reach pure noise, so their pipelines take it where all is redrawn */
    u->start = inpaint ? q->schedule.flow || r->strength < 1 : !u->references;
    u->source = u->start || u->blend;
    for (int i = inpaint; i < u->references && !u->as_drawn; i++)
        if (check_reference(m, &r->images[i], i, e) != 0)
            return e->code;
    return inpaint || u->start ? check_strength(r, q, e) : 0;
}

bool request_pictures_alike(const struct omni_model *m, const struct resolved_request *a,
                            const struct resolved_request *b)
{
    int multiple = m->traits.size_multiple;
    if (a->first != b->first || a->images.start != b->images.start ||
        a->images.references != b->images.references)
        return false;
    for (int i = a->images.source; i < a->images.references && !a->images.as_drawn; i++) {
        int size[2][2];
        picture_reference_size(&a->ask->images[i], multiple, &size[0][0], &size[0][1]);
        picture_reference_size(&b->ask->images[i], multiple, &size[1][0], &size[1][1]);
        if (size[0][0] != size[1][0] || size[0][1] != size[1][1])
            return false;
    }
    return true;
}
