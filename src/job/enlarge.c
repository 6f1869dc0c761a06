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
    struct picture sized = {0};
    int code = size_cover(large, g->out->width, g->out->height, MEDIA_LANCZOS, &sized, e);
    if (code)
        return code;
    memcpy(picture_frame(g->out, index), sized.rgb, picture_frame_bytes(&sized));
    picture_free(&sized);
    if (r->hooks && r->hooks->progress)
        r->hooks->progress(r->hooks->ctx, r, STAGE_POSTPROCESS, index + 1, g->in->frames, -1);
    return 0;
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

int run_enlarge_bytes(struct run *r, int from_width, int from_height, int width, int height,
                      uint64_t *bytes, struct err *e)
{
    struct omni_upscaler *u;
    int factor, code = find_networks(r, from_width, from_height, width, height, &u, &factor, e);
    *bytes = 0;
    if (code || factor == 1)
        return code;
    return omni_upscale_plan(u, from_width, from_height, factor, bytes, e);
}

static int by_networks(struct run *r, const struct omni_upscaler *u, int factor,
                       const struct picture *in, struct picture *out, struct err *e)
{
    struct enlarging g = {r, in, out};
    const struct omni_upscale job = {in, factor, &g, on_cancelled, on_frame};
    int code = omni_upscale(u, &job, e);
    if (code)
        picture_free(out);
    return code;
}

int run_enlarge(struct run *r, struct picture *p, int width, int height, struct err *e)
{
    struct omni_upscaler *u;
    struct picture out = {0};
    int factor;
    if (p->width == width && p->height == height)
        return 0;
    int code = find_networks(r, p->width, p->height, width, height, &u, &factor, e);
    if (code)
        return code;
    if (factor == 1)
        code = size_cover(p, width, height, r->profile->upscaler, &out, e);
    else if ((code = picture_new(&out, width, height, p->frames)))
        err_set(e, code, "no room for %dx%d pixels and %d frames", width, height, p->frames);
    else
        code = by_networks(r, u, factor, p, &out, e);
    if (code)
        return code;
    picture_free(p);
    *p = out;
    return 0;
}

bool run_draws_native(const struct run *r)
{
    enum job_mode mode = r->request.mode;
    return r->profile->native_only && r->profile->native_width > 0 &&
           (mode == MODE_TEXT_TO_IMAGE || mode == MODE_TEXT_TO_VIDEO);
}

int run_enlarge_native(struct run *r, struct picture *p, int width, int height, struct err *e)
{
    struct picture whole = {0};
    int fit_width, fit_height;
    size_fit(p, width, height, &fit_width, &fit_height);
    int code = run_enlarge(r, p, fit_width, fit_height, e);
    if (code || (p->width == width && p->height == height))
        return code;
    code = size_extend(p, width, height, &whole, e);
    if (code)
        return code;
    picture_free(p);
    *p = whole;
    return 0;
}
