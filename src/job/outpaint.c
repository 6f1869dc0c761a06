#include "job/outpaint.h"

#include <errno.h>
#include <string.h>

#include "job/reference.h"
#include "job/size.h"

enum { LEFT, TOP, RIGHT, BOTTOM };

static int grow(const struct run *r, int width, int height, int *canvas_width, int *canvas_height,
                struct err *e)
{
    const int *expand = r->request.expand;
    int64_t w = (int64_t)width + expand[LEFT] + expand[RIGHT];
    int64_t h = (int64_t)height + expand[TOP] + expand[BOTTOM];
    if (w > 65535 || h > 65535)
        return err_set(e, -EINVAL,
                       "%s with expand would have %lldx%lld pixels; at most 65535 each "
                       "way are possible",
                       r->request.images[0], (long long)w, (long long)h);
    *canvas_width = (int)w;
    *canvas_height = (int)h;
    return 0;
}

int outpaint_size(const struct run *r, int *width, int *height, struct err *e)
{
    struct media_limits limits;
    struct media_info info;
    reference_limits(r, &limits);
    int code = media_probe(r->in_fd, r->request.images[0], &limits, &info, e);
    return code ? code : grow(r, info.width, info.height, width, height, e);
}

/* Back and forth between 0 and n - 1, as in a mirror. */
static int mirrored(int i, int n)
{
    int at = i % (2 * n);
    at += at < 0 ? 2 * n : 0;
    return at < n ? at : 2 * n - 1 - at;
}

static void fill(const struct picture *in, int left, int top, struct picture *canvas,
                 struct picture *mask)
{
    for (int y = 0; y < canvas->height; y++) {
        const uint8_t *row =
            in->rgb + (size_t)mirrored(y - top, in->height) * (size_t)in->width * 3;
        bool inside = y >= top && y - top < in->height;
        for (int x = 0; x < canvas->width; x++) {
            size_t at = ((size_t)y * (size_t)canvas->width + (size_t)x) * 3;
            bool kept = inside && x >= left && x - left < in->width;
            memcpy(canvas->rgb + at, row + (size_t)mirrored(x - left, in->width) * 3, 3);
            memset(mask->rgb + at, kept ? 0 : 255, 3);
        }
    }
}

static int make(const struct run *r, const struct picture *in, struct picture *canvas,
                struct picture *mask, struct err *e)
{
    int width = 0, height = 0;
    int code = grow(r, in->width, in->height, &width, &height, e);
    if (code)
        return code;
    code = picture_new(canvas, width, height, 1);
    if (!code)
        code = picture_new(mask, width, height, 1);
    if (code)
        return err_set(e, code, "no room for a picture of %dx%d", width, height);
    fill(in, r->request.expand[LEFT], r->request.expand[TOP], canvas, mask);
    return 0;
}

int outpaint_read(const struct run *r, int width, int height, struct picture *canvas,
                  struct picture *mask, struct err *e)
{
    struct media_limits limits;
    struct picture in = {0}, whole = {0}, whole_mask = {0};
    *canvas = *mask = (struct picture){0};
    reference_limits(r, &limits);
    int code = media_read_image(r->in_fd, r->request.images[0], &limits, MEDIA_READ_RGB, &in, e);
    if (!code)
        code = make(r, &in, &whole, &whole_mask, e);
    picture_free(&in);
    if (!code)
        code = size_cover(&whole, width, height, MEDIA_LANCZOS, canvas, e);
    if (!code)
        code = size_cover(&whole_mask, width, height, MEDIA_BILINEAR, mask, e);
    picture_free(&whole);
    picture_free(&whole_mask);
    if (code) {
        picture_free(canvas);
        picture_free(mask);
    }
    return code;
}
