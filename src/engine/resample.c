#include "engine/resample.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define LOBES    3
#define CHANNELS 3
/* Weights are whole numbers of 2^-FRACTION; 8 bits are the pixel's, two are room for overshoot. */
#define FRACTION (32 - 8 - 2)

static double sinc(double x)
{
    return x == 0 ? 1 : sin(x * M_PI) / (x * M_PI);
}

static double lanczos(double x)
{
    return x >= -LOBES && x < LOBES ? sinc(x) * sinc(x / LOBES) : 0;
}

/* For every output position: the first input position and the weights of those from there on. */
struct filter {
    int width; /* weights a row */
    int *first, *count;
    int32_t *weights; /* [outputs, width] */
};

static void filter_free(struct filter *f)
{
    free(f->first);
    free(f->weights);
}

static int32_t fixed(double weight)
{
    return (int32_t)(weight * (1 << FRACTION) + (weight < 0 ? -0.5 : 0.5));
}

static void fill_row(struct filter *f, int row, int from, double scale, double *exact)
{
    double stretch = fmax(scale, 1), reach = LOBES * stretch, center = (row + 0.5) * scale;
    double sum = 0;
    int first = (int)fmax(center - reach + 0.5, 0), end = (int)fmin(center + reach + 0.5, from);
    int count = end - first;
    for (int i = 0; i < count; i++)
        sum += exact[i] = lanczos((i + first - center + 0.5) / stretch);
    for (int i = 0; i < count; i++)
        f->weights[(size_t)row * (size_t)f->width + (size_t)i] =
            fixed(sum == 0 ? exact[i] : exact[i] / sum);
    f->first[row] = first;
    f->count[row] = count;
}

/* From `from` positions to `to`. */
static int filter_make(struct filter *f, int from, int to)
{
    double scale = (double)from / to;
    *f = (struct filter){.width = 2 * (int)ceil(LOBES * fmax(scale, 1)) + 1};
    AUTO_FREE double *exact = calloc((size_t)f->width, sizeof(*exact));
    f->first = calloc((size_t)to * 2, sizeof(*f->first));
    f->count = f->first ? f->first + to : NULL;
    f->weights = calloc((size_t)to, (size_t)f->width * sizeof(*f->weights));
    if (!exact || !f->first || !f->weights) {
        filter_free(f);
        return -ENOMEM;
    }
    for (int row = 0; row < to; row++)
        fill_row(f, row, from, scale, exact);
    return 0;
}

static uint8_t clip(int32_t sum)
{
    int32_t v = sum >> FRACTION;
    return (uint8_t)(v < 0 ? 0 : v > UINT8_MAX ? UINT8_MAX : v);
}

/* One output byte: `count` input bytes, `stride` apart. */
static uint8_t weigh(const uint8_t *in, size_t stride, const int32_t *weights, int count)
{
    int32_t sum = 1 << (FRACTION - 1);
    for (int i = 0; i < count; i++)
        sum += in[(size_t)i * stride] * weights[i];
    return clip(sum);
}

static void filter_rows(const struct filter *f, const struct picture *in, struct picture *out)
{
    size_t from = (size_t)in->width * CHANNELS;
    uint8_t *to = out->rgb;
    for (int y = 0; y < out->height; y++)
        for (int x = 0; x < out->width; x++)
            for (size_t c = 0; c < CHANNELS; c++)
                *to++ = weigh(in->rgb + (size_t)y * from + (size_t)f->first[x] * CHANNELS + c,
                              CHANNELS, f->weights + (size_t)x * (size_t)f->width, f->count[x]);
}

static void filter_columns(const struct filter *f, const struct picture *in, struct picture *out)
{
    size_t stride = (size_t)in->width * CHANNELS;
    uint8_t *to = out->rgb;
    for (int y = 0; y < out->height; y++)
        for (size_t x = 0; x < stride; x++)
            *to++ = weigh(in->rgb + (size_t)f->first[y] * stride + x, stride,
                          f->weights + (size_t)y * (size_t)f->width, f->count[y]);
}

/* One direction at a time, with bytes between the two: as Pillow does. */
static int resize_axis(const struct picture *in, int width, int height, struct picture *out)
{
    bool across = width != in->width;
    struct filter f;
    int code = picture_new(out, width, height, 1);
    if (code == 0)
        code = across ? filter_make(&f, in->width, width) : filter_make(&f, in->height, height);
    if (code != 0) {
        picture_free(out);
        return code;
    }
    (across ? filter_rows : filter_columns)(&f, in, out);
    filter_free(&f);
    return 0;
}

static int no_room(struct err *e, int code, int width, int height)
{
    return err_set(e, code, "no room for a picture of %dx%d pixels", width, height);
}

int resample_lanczos(const struct picture *in, int width, int height, struct picture *out,
                     struct err *e)
{
    struct picture between = {0};
    *out = (struct picture){0};
    if (!in->rgb || in->width < 1 || in->height < 1 || width < 1 || height < 1)
        return err_set(e, -EINVAL, "a picture of %dx%d cannot be made %dx%d", in->width, in->height,
                       width, height);
    /* Pillow's order: rows first, unless going down saves much more. */
    bool down_first = height < in->height && in->height - height > 2 * ((int64_t)in->width - width);
    int code = down_first ? resize_axis(in, in->width, height, &between)
                          : resize_axis(in, width, in->height, &between);
    if (code == 0)
        code = resize_axis(&between, width, height, out);
    picture_free(&between);
    return code ? no_room(e, code, width, height) : 0;
}

int resample_center(const struct picture *in, int width, int height, struct picture *out,
                    struct err *e)
{
    int code = picture_new(out, width, height, 1);
    if (code != 0)
        return no_room(e, code, width, height);
    size_t from = (size_t)in->width * CHANNELS, row = (size_t)width * CHANNELS;
    size_t left = (size_t)((in->width - width) / 2) * CHANNELS;
    size_t top = (size_t)((in->height - height) / 2);
    for (size_t y = 0; y < (size_t)height; y++)
        memcpy(out->rgb + y * row, in->rgb + (top + y) * from + left, row);
    return 0;
}
