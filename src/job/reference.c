#include "job/reference.h"

#include <errno.h>
#include <stdlib.h>

#include "job/modes.h"
#include "job/outpaint.h"
#include "job/size.h"

void reference_limits(const struct run *r, struct media_limits *limits)
{
    media_limits_init(limits);
    limits->max_memory = models_left(r->models, r->model);
}

int reference_read(const struct run *r, const char *name, enum media_read_as as, int width,
                   int height, struct picture *out, struct err *e)
{
    struct media_limits limits;
    struct picture whole = {0};
    reference_limits(r, &limits);
    int code = media_read_image(r->in_fd, name, &limits, as, &whole, e);
    if (code || !width) {
        *out = whole;
        return code;
    }
    code = size_cover(&whole, width, height, as == MEDIA_READ_MASK ? MEDIA_BILINEAR : MEDIA_LANCZOS,
                      out, e);
    picture_free(&whole);
    return code ? err_prefix(e, "%s", name) : 0;
}

int reference_size(struct run *r, const char *what, int width, int height, const char *advice,
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
                   what, q->width, q->height, p->max_width, p->max_height, p->name, advice);
}

/* ---- for the model ---- */

/* Does the model read image `index` beside the drawing, at its own size? */
static bool reads_beside(const struct run *r, int index)
{
    enum omni_mode mode = mode_info(r->request.mode)->engine;
    return r->info.reads_references &&
           (mode == OMNI_IMAGE_TO_IMAGE || (mode == OMNI_INPAINT && index > 0));
}

/* A picture of the drawing's shape goes to the model as it is: the engine makes it the drawing's
 * size as the original pipelines do, to the byte. */
static int read_for_model(struct run *r, const char *name, enum media_read_as as,
                          struct picture *out, struct err *e)
{
    int code = reference_read(r, name, as, 0, 0, out, e);
    if (!code && size_same_shape(out, r->draw_width, r->draw_height))
        return models_room(r->models, r->model, picture_frame_bytes(out), e);
    picture_free(out);
    return code ? code : reference_read(r, name, as, r->draw_width, r->draw_height, out, e);
}

static int read_image(struct run *r, int index, struct err *e)
{
    struct picture *p = &r->references[index];
    if (r->request.mode == MODE_OUTPAINT && index == 0)
        return outpaint_read(r, r->draw_width, r->draw_height, p, &r->mask, e);
    if (!reads_beside(r, index))
        return read_for_model(r, r->request.images[index], MEDIA_READ_RGB, p, e);
    int code = reference_read(r, r->request.images[index], MEDIA_READ_RGB, 0, 0, p, e);
    if (!code)
        code = models_room(r->models, r->model, picture_frame_bytes(p), e);
    return code;
}

static bool strength_is_idle(const struct run *r)
{
    enum omni_mode mode = run_engine_mode(r);
    return mode == OMNI_IMAGE_TO_VIDEO ? r->info.reads_first_frame
                                       : mode == OMNI_IMAGE_TO_IMAGE && reads_beside(r, 0);
}

int references_read(struct run *r, struct err *e)
{
    const struct request *q = &r->request;
    if (q->image_count && !(r->references = calloc((size_t)q->image_count, sizeof *r->references)))
        return err_nomem(e);
    int code = 0;
    for (; r->reference_count < q->image_count && !code; r->reference_count++)
        code = read_image(r, r->reference_count, e);
    if (!code && q->mask)
        code = read_for_model(r, q->mask, MEDIA_READ_MASK, &r->mask, e);
    if (!code && q->line[KEY_STRENGTH] > 0 && strength_is_idle(r))
        run_note(r, "strength has no effect: this model reads pictures beside the drawing");
    return code;
}

/* ---- for the user ---- */

static uint8_t mixed(int given, int drawn, int whiteness)
{
    return (uint8_t)((given * (255 - whiteness) + drawn * whiteness + 127) / 255);
}

static int read_kept(const struct run *r, struct picture *given, struct picture *mask,
                     struct err *e)
{
    const struct request *q = &r->request;
    if (q->mode == MODE_OUTPAINT)
        return outpaint_read(r, q->width, q->height, given, mask, e);
    int code = reference_read(r, q->images[0], MEDIA_READ_RGB, q->width, q->height, given, e);
    return code ? code : reference_read(r, q->mask, MEDIA_READ_MASK, q->width, q->height, mask, e);
}

int references_keep(struct run *r, struct err *e)
{
    const struct request *q = &r->request;
    struct picture given = {0}, mask = {0};
    if (q->mode != MODE_INPAINT && q->mode != MODE_OUTPAINT)
        return 0;
    int code = read_kept(r, &given, &mask, e);
    for (int i = 0; i < r->picture_count && !code; i++) {
        uint8_t *p = r->pictures[i].rgb;
        for (size_t k = 0; k < picture_frame_bytes(&given); k++)
            p[k] = mixed(given.rgb[k], p[k], mask.rgb[k]);
    }
    picture_free(&given);
    picture_free(&mask);
    return code;
}
