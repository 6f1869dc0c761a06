#include "job/enlarge.h"

#include <errno.h>
#include <math.h>

#include "job/size.h"

struct enlarging {
    struct run *r;
    const struct picture *in;
    struct picture *out;
    struct picture middle; /* one frame, where the background is continued around it */
    enum media_scale how;
};

static bool on_cancelled(void *ctx)
{
    const struct enlarging *g = ctx;
    return run_cancelled(g->r);
}

/* A frame that may be enlarged already, at the size that is wanted. */
static int on_frame(void *ctx, int index, const struct picture *frame, struct err *e)
{
    struct enlarging *g = ctx;
    struct run *r = g->r;
    int code;
    if (!g->middle.rgb)
        code = size_cover_frame(frame, g->how, g->out, index, e);
    else if (!(code = size_cover_frame(frame, g->how, &g->middle, 0, e)))
        code = size_extend_frame(&g->middle, g->out, index, e);
    if (!code)
        run_progress(r, STAGE_POSTPROCESS, ++r->frames_done, r->frames_total);
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
    return r->profile->native_only && r->profile->native[0].width > 0 &&
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

int run_enlarge_bytes(struct run *r, int from_width, int from_height, uint64_t *bytes,
                      struct err *e)
{
    struct omni_upscaler *u;
    int width, height, factor;
    *bytes = 0;
    enlarged_size(r, from_width, from_height, &width, &height);
    int code = find_networks(r, from_width, from_height, width, height, &u, &factor, e);
    if (!code && factor > 1)
        code = omni_upscale_plan(u, from_width, from_height, factor, bytes, e);
    if (width != r->request.width || height != r->request.height)
        *bytes += 3 * (uint64_t)width * (uint64_t)height;
    return code;
}

static int by_networks(struct enlarging *g, const struct omni_upscaler *u, int factor,
                       struct err *e)
{
    const struct omni_upscale job = {g->in, factor, g, on_cancelled, on_frame};
    g->how = MEDIA_LANCZOS;
    g->r->upscaler = *omni_upscaler_info(u);
    g->r->upscaler_factor = factor;
    return omni_upscale(u, &job, e);
}

static int by_filter(struct enlarging *g, struct err *e)
{
    int code = 0;
    g->how = g->r->profile->upscaler;
    for (int f = 0; f < g->in->frames && !code; f++) {
        const struct picture frame = {g->in->width, g->in->height, 1, picture_frame(g->in, f)};
        code = on_cancelled(g) ? err_set(e, -ECANCELED, "cancelled") : on_frame(g, f, &frame, e);
    }
    return code;
}

int run_enlarge(struct run *r, struct picture *p, struct err *e)
{
    const struct request *q = &r->request;
    struct picture out = {0};
    struct enlarging g = {.r = r, .in = p, .out = &out};
    struct omni_upscaler *u;
    int width, height, factor;
    if (p->width == q->width && p->height == q->height)
        return 0;
    enlarged_size(r, p->width, p->height, &width, &height);
    int code = find_networks(r, p->width, p->height, width, height, &u, &factor, e);
    if (code)
        return code;
    code = picture_new(&out, q->width, q->height, p->frames);
    if (!code && (width != q->width || height != q->height))
        code = picture_new(&g.middle, width, height, 1);
    if (code)
        err_set(e, code, "no room for %dx%d pixels and %d frames", q->width, q->height, p->frames);
    else
        code = factor > 1 ? by_networks(&g, u, factor, e) : by_filter(&g, e);
    picture_free(&g.middle);
    picture_free(code ? &out : p);
    if (!code)
        *p = out;
    return code;
}
