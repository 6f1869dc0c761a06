#include "job/size.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
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

int size_cover_frame(const struct picture *in, enum media_scale how, struct picture *out, int index,
                     struct err *e)
{
    int width = out->width, height = out->height;
    double scale = fmax((double)width / in->width, (double)height / in->height);
    double w = fmax(width, round(in->width * scale)), h = fmax(height, round(in->height * scale));
    struct picture scaled = {0};
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
 * mean of those around it, so that no streaks run to the edge. `step`: bytes between neighbours. */
struct side {
    const uint8_t *pixels;
    size_t step;
    int count, radius;
};

static void continue_side(const struct side *s, int i, int distance, uint8_t to[3])
{
    int first = i > s->radius ? i - s->radius : 0;
    int last = i + s->radius < s->count ? i + s->radius : s->count - 1;
    for (int c = 0; c < 3; c++) {
        int sum = 0, n = last - first + 1, own = s->pixels[(size_t)i * s->step + (size_t)c];
        for (int k = first; k <= last; k++)
            sum += s->pixels[(size_t)k * s->step + (size_t)c];
        int share = distance < s->radius ? distance : s->radius; /* of the mean, in radii */
        to[c] = s->radius ? (uint8_t)((own * (s->radius - share) + sum * share / n) / s->radius)
                          : (uint8_t)own;
    }
}

static void extend_frame(const uint8_t *in, int in_width, int in_height, uint8_t *out, int width,
                         int height)
{
    size_t row = 3 * (size_t)in_width;
    int left = (width - in_width) / 2, top = (height - in_height) / 2;
    int radius = in_height < 512 ? in_height / 16 : 32;
    struct side sides[] = {{in, row, in_height, radius},
                           {in + row - 3, row, in_height, radius},
                           {in, 3, in_width, radius},
                           {in + row * (size_t)(in_height - 1), 3, in_width, radius}};
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++, out += 3) {
            int u = x - left, v = y - top;
            int across = u < 0 ? -u : u >= in_width ? u - in_width + 1 : 0;
            int down = v < 0 ? -v : v >= in_height ? v - in_height + 1 : 0;
            u = u < 0 ? 0 : u < in_width ? u : in_width - 1;
            v = v < 0 ? 0 : v < in_height ? v : in_height - 1;
            if (down)
                continue_side(&sides[y < top ? 2 : 3], u, down, out);
            else if (across)
                continue_side(&sides[x < left ? 0 : 1], v, across, out);
            else
                memcpy(out, in + (size_t)v * row + 3 * (size_t)u, 3);
        }
}

int size_extend(const struct picture *in, int width, int height, struct picture *out, struct err *e)
{
    int code = picture_new(out, width, height, in->frames);
    if (code)
        return err_set(e, code, "no room for a picture of %dx%d", width, height);
    for (int f = 0; f < in->frames; f++)
        extend_frame(picture_frame(in, f), in->width, in->height, picture_frame(out, f), width,
                     height);
    return 0;
}
