#include "job/size.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static int round_up(int v, int multiple)
{
    return (v + multiple - 1) / multiple * multiple;
}

/* How unlike a candidate is: a wrong aspect is cut off and lost, a wrong area is only more or less
 * detail, so the aspect counts four times as much. */
static double misfit(double width, double height, double aspect, double area)
{
    return 4 * fabs(log(width / height / aspect)) + fabs(log(width * height / area));
}

void size_to_draw(int width, int height, int native_width, int native_height, int multiple,
                  int *draw_width, int *draw_height)
{
    if (multiple < 1)
        multiple = 1;
    *draw_width = round_up(width, multiple);
    *draw_height = round_up(height, multiple);
    double area = (double)native_width * native_height;
    if (area <= 0 || (double)width * height <= area)
        return;
    double aspect = (double)width / height, best = INFINITY;
    int widest = (int)(sqrt(area * aspect) * 1.5) + multiple;
    for (int w = multiple; w <= widest; w += multiple) {
        int below = (int)(w / aspect) / multiple * multiple;
        for (int h = below; h <= below + multiple; h += multiple) {
            if (h < multiple || misfit(w, h, aspect, area) >= best)
                continue;
            best = misfit(w, h, aspect, area);
            *draw_width = w;
            *draw_height = h;
        }
    }
}

static void crop_center(const struct picture *in, int width, int height, uint8_t *out)
{
    size_t from_row = (size_t)in->width * 3, to_row = (size_t)width * 3;
    size_t left = (size_t)((in->width - width) / 2) * 3, top = (size_t)((in->height - height) / 2);
    for (int y = 0; y < height; y++)
        memcpy(out + (size_t)y * to_row, in->rgb + (top + (size_t)y) * from_row + left, to_row);
}

/* What `in` has to become to cover a size. */
static void cover(const struct picture *in, int width, int height, double *w, double *h)
{
    double scale = fmax((double)width / in->width, (double)height / in->height);
    *w = fmax(width, round(in->width * scale));
    *h = fmax(height, round(in->height * scale));
}

bool size_same_shape(const struct picture *in, int width, int height)
{
    double w, h;
    cover(in, width, height, &w, &h);
    return w == width && h == height;
}

int size_cover_frame(const struct picture *in, enum media_scale how, struct picture *out, int index,
                     struct err *e)
{
    int width = out->width, height = out->height;
    struct picture scaled = {0};
    double w, h;
    cover(in, width, height, &w, &h);
    if (w > 65535 || h > 65535)
        return err_set(e, -EINVAL, "a picture of %dx%d is too long and thin for %dx%d", in->width,
                       in->height, width, height);
    if (in->width == width && in->height == height) {
        memcpy(picture_frame(out, index), in->rgb, picture_frame_bytes(in));
        return 0;
    }
    int code = media_resize(in, (int)w, (int)h, how, &scaled, e);
    if (!code)
        crop_center(&scaled, width, height, picture_frame(out, index));
    picture_free(&scaled);
    return code;
}

int size_cover(const struct picture *in, int width, int height, enum media_scale how,
               struct picture *out, struct err *e)
{
    int code = picture_new(out, width, height, in->frames);
    if (code)
        return err_set(e, code, "no room for %dx%d pixels and %d frames", width, height,
                       in->frames);
    for (int f = 0; f < in->frames && !code; f++) {
        const struct picture frame = {in->width, in->height, 1, picture_frame(in, f)};
        code = size_cover_frame(&frame, how, out, f, e);
    }
    if (code)
        picture_free(out);
    return code;
}

void size_fit(int in_width, int in_height, int width, int height, int *fit_width, int *fit_height)
{
    double scale = fmin((double)width / in_width, (double)height / in_height);
    *fit_width = (int)fmin(width, fmax(1, round(in_width * scale)));
    *fit_height = (int)fmin(height, fmax(1, round(in_height * scale)));
}

/* What a side of a picture continues as: its outermost pixel i, which at a distance becomes the
 * mean of those around it, so that no streaks run to the edge. */
struct side {
    const uint8_t *pixels;
    size_t step; /* bytes between neighbours */
    int count, radius;
    uint32_t *sums; /* [count + 1, 3] of the pixels before i; owned */
};

static int measure_side(struct side *s)
{
    s->sums = calloc((size_t)s->count + 1, 3 * sizeof *s->sums);
    if (!s->sums)
        return -ENOMEM;
    for (size_t i = 0; i < (size_t)s->count; i++)
        for (size_t c = 0; c < 3; c++)
            s->sums[3 * i + 3 + c] = s->sums[3 * i + c] + s->pixels[i * s->step + c];
    return 0;
}

static void continue_side(const struct side *s, int i, int distance, uint8_t to[3])
{
    int first = i > s->radius ? i - s->radius : 0;
    int end = i + s->radius < s->count ? i + s->radius + 1 : s->count;
    int share = distance < s->radius ? distance : s->radius; /* of the mean, in radii */
    for (int c = 0; c < 3; c++) {
        int sum = (int)(s->sums[3 * end + c] - s->sums[3 * first + c]);
        int own = s->pixels[(size_t)i * s->step + (size_t)c];
        to[c] =
            s->radius
                ? (uint8_t)((own * (s->radius - share) + sum * share / (end - first)) / s->radius)
                : (uint8_t)own;
    }
}

enum { LEFT, RIGHT, TOP, BOTTOM, SIDES };

static void extend(const struct picture *in, const struct side *sides, uint8_t *out, int width,
                   int height)
{
    size_t row = 3 * (size_t)in->width;
    int left = (width - in->width) / 2, top = (height - in->height) / 2;
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++, out += 3) {
            int u = x - left, v = y - top;
            int across = u < 0 ? -u : u >= in->width ? u - in->width + 1 : 0;
            int down = v < 0 ? -v : v >= in->height ? v - in->height + 1 : 0;
            u = u < 0 ? 0 : u < in->width ? u : in->width - 1;
            v = v < 0 ? 0 : v < in->height ? v : in->height - 1;
            if (down)
                continue_side(&sides[y < top ? TOP : BOTTOM], u, down, out);
            else if (across)
                continue_side(&sides[x < left ? LEFT : RIGHT], v, across, out);
            else
                memcpy(out, in->rgb + (size_t)v * row + 3 * (size_t)u, 3);
        }
}

int size_extend_frame(const struct picture *in, struct picture *out, int index, struct err *e)
{
    size_t row = 3 * (size_t)in->width;
    int radius = in->height < 512 ? in->height / 16 : 32, code = 0;
    struct side sides[SIDES] = {
        [LEFT] = {in->rgb, row, in->height, radius, NULL},
        [RIGHT] = {in->rgb + row - 3, row, in->height, radius, NULL},
        [TOP] = {in->rgb, 3, in->width, radius, NULL},
        [BOTTOM] = {in->rgb + row * (size_t)(in->height - 1), 3, in->width, radius, NULL},
    };
    for (int i = 0; i < SIDES && !code; i++)
        code = measure_side(&sides[i]);
    if (!code)
        extend(in, sides, picture_frame(out, index), out->width, out->height);
    for (int i = 0; i < SIDES; i++)
        free(sides[i].sums);
    return code ? err_nomem(e) : 0;
}
