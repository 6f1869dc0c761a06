#include "job/enlarge.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "job/size.h"

struct enlarging {
    struct run *r;
    const struct picture *in;
    struct picture *out;
};

static bool on_cancelled(void *ctx)
{
    const struct enlarging *g = ctx;
    return run_cancelled(g->r);
}

/* A frame that the networks enlarged, at the size that is wanted. */
static int on_frame(void *ctx, int index, const struct picture *large, struct err *e)
{
    const struct enlarging *g = ctx;
    struct run *r = g->r;
    int code = size_cover_frame(large, MEDIA_LANCZOS, g->out, index, e);
    if (!code && r->hooks && r->hooks->progress)
        r->hooks->progress(r->hooks->ctx, r, STAGE_POSTPROCESS, index + 1, g->in->frames, -1);
    return code;
}

/* The networks, and how many times they should enlarge; 1: a filter is enough. */
static int find_networks(struct run *r, int from_width, int from_height, int width, int height,
                         struct omni_upscaler **u, int *factor, struct err *e)
{
    *u = NULL;
    *factor = 1;
    if (!*r->profile->upscaler_model || (from_width >= width && from_height >= height))
        return 0;
    int code = models_upscaler(r->models, r->profile, u, e);
    if (!code)
        *factor = omni_upscaler_factor(
            *u, fmax((double)width / from_width, (double)height / from_height));
    return code;
}

bool run_draws_native(const struct run *r)
{
    enum job_mode mode = r->request.mode;
    return r->profile->native_only && r->profile->native_width > 0 &&
           (mode == MODE_TEXT_TO_IMAGE || mode == MODE_TEXT_TO_VIDEO);
}

/* How large a picture is when nothing is left but to continue its background. */
static void enlarged_size(const struct run *r, int from_width, int from_height, int *width,
                          int *height)
{
    *width = r->request.width;
    *height = r->request.height;
    if (run_draws_native(r))
        size_fit(from_width, from_height, *width, *height, width, height);
}

int run_enlarge_bytes(struct run *r, int from_width, int from_height, int frames, uint64_t *bytes,
                      struct err *e)
{
    const struct request *q = &r->request;
    struct omni_upscaler *u;
    int width, height, factor;
    *bytes = 0;
    enlarged_size(r, from_width, from_height, &width, &height);
    int code = find_networks(r, from_width, from_height, width, height, &u, &factor, e);
    if (!code && factor > 1)
        code = omni_upscale_plan(u, from_width, from_height, factor, bytes, e);
    if (code || (width == q->width && height == q->height))
        return code;
    /* the result is made once the networks are done, and beside what they made */
    uint64_t before = 3 * (uint64_t)width * (uint64_t)height * (uint64_t)frames;
    uint64_t later = 3 * (uint64_t)q->width * (uint64_t)q->height * (uint64_t)frames - before;
    *bytes = *bytes > later + before ? *bytes - later : before;
    return 0;
}

static int by_networks(struct run *r, const struct omni_upscaler *u, int factor,
                       const struct picture *in, int width, int height, struct picture *out,
                       struct err *e)
{
    struct enlarging g = {r, in, out};
    const struct omni_upscale job = {in, factor, &g, on_cancelled, on_frame};
    int code = picture_new(out, width, height, in->frames);
    if (code)
        return err_set(e, code, "no room for %dx%d pixels and %d frames", width, height,
                       in->frames);
    code = omni_upscale(u, &job, e);
    if (code)
        picture_free(out);
    return code;
}

static void replace(struct picture *p, const struct picture *by)
{
    picture_free(p);
    *p = *by;
}

static int cover(struct run *r, struct picture *p, int width, int height, struct err *e)
{
    struct omni_upscaler *u;
    struct picture out;
    int factor;
    if (p->width == width && p->height == height)
        return 0;
    int code = find_networks(r, p->width, p->height, width, height, &u, &factor, e);
    if (!code)
        code = factor > 1 ? by_networks(r, u, factor, p, width, height, &out, e)
                          : size_cover(p, width, height, r->profile->upscaler, &out, e);
    if (code)
        return code;
    if (factor > 1) {
        r->upscaler = *omni_upscaler_info(u);
        r->upscaler_factor = factor;
    }
    replace(p, &out);
    return 0;
}

int run_enlarge(struct run *r, struct picture *p, struct err *e)
{
    const struct request *q = &r->request;
    struct picture whole;
    int width, height;
    enlarged_size(r, p->width, p->height, &width, &height);
    int code = cover(r, p, width, height, e);
    if (code || (width == q->width && height == q->height))
        return code;
    code = size_extend(p, q->width, q->height, &whole, e);
    if (!code)
        replace(p, &whole);
    return code;
}
