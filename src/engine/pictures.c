/* Pictures of a request as the models read them: sizes, pixels and masks, to the byte as the
 * original pipelines prepare them.
 * Source: huggingface/diffusers, image_processor.py and pipelines/flux2/image_processor.py. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "engine/resample.h"
#include "engine/run.h"

#define REFERENCE_PIXELS (1024 * 1024)

static void cleanup_picture(struct picture *p)
{
    picture_free(p);
}
#define AUTO_PICTURE __attribute__((cleanup(cleanup_picture)))

/* ---- sizes ---- */

/* Before it is cut to multiples. */
static void reference_area(const struct picture *p, int *width, int *height)
{
    double pixels = (double)p->width * p->height;
    double scale = pixels > REFERENCE_PIXELS ? sqrt(REFERENCE_PIXELS / pixels) : 1;
    *width = (int)(p->width * scale);
    *height = (int)(p->height * scale);
}

void picture_reference_size(const struct picture *p, int multiple, int *width, int *height)
{
    reference_area(p, width, height);
    *width -= *width % multiple;
    *height -= *height % multiple;
}

/* ---- pixels ---- */

/* As Pillow's convert("L"): BT.601. */
static uint8_t luma(const uint8_t *rgb)
{
    return (uint8_t)((rgb[0] * 19595u + rgb[1] * 38470u + rgb[2] * 7471u + 0x8000u) >> 16);
}

static bool white(const struct picture *mask, size_t pixel)
{
    return luma(mask->rgb + pixel * 3) >= 128;
}

/* `p` sent to the device; `hidden` is NULL or a mask of the same size. */
static struct tensor *send(struct run *r, const struct picture *p, const struct picture *hidden)
{
    size_t pixels = (size_t)p->width * (size_t)p->height;
    AUTO_FREE float *values = malloc(pixels * 3 * sizeof(*values));
    if (!values) {
        ops_fail(r->o, -ENOMEM, "not enough memory for a picture of %dx%d", p->width, p->height);
        return NULL;
    }
    for (size_t i = 0; i < pixels * 3; i++)
        values[i] = hidden && white(hidden, i / 3) ? 0 : 2 * ((float)p->rgb[i] / 255) - 1;
    return op_from_host(r->o, DTYPE_F32, SHAPE(1, p->height, p->width, 3), values);
}

/* The step of `code` and `e` from here to the context. */
static bool failed(struct run *r, int code, const struct err *e)
{
    if (code != 0)
        ops_fail(r->o, code, "%s", e->text);
    return code != 0;
}

struct tensor *run_source(struct run *r, int i, bool masked)
{
    const struct omni_request *q = r->requests[i].ask;
    AUTO_PICTURE struct picture source = {0}, mask = {0};
    struct err e = {0};
    if (r->planning)
        return op_from_host(r->o, DTYPE_F32, SHAPE(1, q->height, q->width, 3), NULL);
    if (failed(r, resample_lanczos(&q->images[0], q->width, q->height, &source, &e), &e) ||
        (masked && failed(r, resample_lanczos(q->mask, q->width, q->height, &mask, &e), &e)))
        return NULL;
    return send(r, &source, masked ? &mask : NULL);
}

struct tensor *run_reference(struct run *r, int i, int k)
{
    const struct picture *p = &r->requests[i].ask->images[k];
    AUTO_PICTURE struct picture small = {0}, cut = {0};
    struct err e = {0};
    int width, height, small_width, small_height;
    reference_area(p, &small_width, &small_height);
    picture_reference_size(p, r->m->traits.size_multiple, &width, &height);
    if (r->planning)
        return op_from_host(r->o, DTYPE_F32, SHAPE(1, height, width, 3), NULL);
    if (failed(r, resample_lanczos(p, small_width, small_height, &small, &e), &e) ||
        failed(r, resample_center(&small, width, height, &cut, &e), &e))
        return NULL;
    return send(r, &cut, NULL);
}

/* ---- masks ---- */

/* How white the mask is at a position of the latent of `factor` pixels each way: at its corner, or
 * between the pixels around its middle. */
static float whiteness(const struct picture *mask, const int factor[2], int y, int x, bool smooth)
{
    size_t width = (size_t)mask->width;
    size_t top = (size_t)y * (size_t)factor[0], left = (size_t)x * (size_t)factor[1];
    if (!smooth)
        return white(mask, top * width + left);
    top += (size_t)(factor[0] - 1) / 2;
    left += (size_t)(factor[1] - 1) / 2;
    size_t down = factor[0] % 2 == 0, right = factor[1] % 2 == 0;
    return (float)(white(mask, top * width + left) + white(mask, top * width + left + right) +
                   white(mask, (top + down) * width + left) +
                   white(mask, (top + down) * width + left + right)) /
           4;
}

static void fill_mask(const struct run *r, int i, const struct picture *mask, size_t channels,
                      float *out)
{
    const struct omni_request *q = r->requests[i].ask;
    const struct latent_shape *l = &r->requests[i].latent;
    const int factor[2] = {q->height / l->height, q->width / l->width};
    bool smooth = r->m->traits.images.smooth_mask;
    for (int f = 0; f < l->frames; f++)
        for (int y = 0; y < l->height; y++)
            for (int x = 0; x < l->width; x++) {
                float v = mask->rgb ? whiteness(mask, factor, y, x, smooth) : f > 0;
                for (size_t c = 0; c < channels; c++)
                    *out++ = v;
            }
}

struct tensor *run_mask(struct run *r, int i, int channels)
{
    const struct omni_request *q = r->requests[i].ask;
    const struct latent_shape *l = &r->requests[i].latent;
    size_t n = (size_t)l->frames * (size_t)l->height * (size_t)l->width * (size_t)channels;
    AUTO_PICTURE struct picture mask = {0};
    AUTO_FREE float *values = NULL;
    struct err e = {0};
    if (!r->planning) {
        if (q->mask && failed(r, resample_lanczos(q->mask, q->width, q->height, &mask, &e), &e))
            return NULL;
        values = calloc(n, sizeof(*values));
        if (!values) {
            ops_fail(r->o, -ENOMEM, "not enough memory for a mask of %zu numbers", n);
            return NULL;
        }
        fill_mask(r, i, &mask, (size_t)channels, values);
    }
    return op_from_host(r->o, DTYPE_F32, SHAPE(1, l->frames, l->height, l->width, channels),
                        values);
}
