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

static int crop_center(const struct picture *in, int width, int height, struct picture *out,
                       struct err *e)
{
    int code = picture_new(out, width, height, in->frames);
    if (code)
        return err_set(e, code, "no room for a picture of %dx%d", width, height);
    size_t from_row = (size_t)in->width * 3, to_row = (size_t)width * 3;
    size_t left = (size_t)((in->width - width) / 2) * 3, top = (size_t)((in->height - height) / 2);
    for (int f = 0; f < in->frames; f++)
        for (int y = 0; y < height; y++)
            memcpy(picture_frame(out, f) + (size_t)y * to_row,
                   picture_frame(in, f) + (top + (size_t)y) * from_row + left, to_row);
    return 0;
}

int size_cover(const struct picture *in, int width, int height, enum media_scale how,
               struct picture *out, struct err *e)
{
    double scale = fmax((double)width / in->width, (double)height / in->height);
    double w = fmax(width, round(in->width * scale)), h = fmax(height, round(in->height * scale));
    if (w > 65535 || h > 65535)
        return err_set(e, -EINVAL, "a picture of %dx%d is too long and thin for %dx%d", in->width,
                       in->height, width, height);
    if ((int)w == width && (int)h == height)
        return media_resize(in, width, height, how, out, e);
    struct picture scaled = {0};
    int code = media_resize(in, (int)w, (int)h, how, &scaled, e);
    if (!code)
        code = crop_center(&scaled, width, height, out, e);
    picture_free(&scaled);
    return code;
}

void size_fit(const struct picture *in, int width, int height, int *fit_width, int *fit_height)
{
    double scale = fmin((double)width / in->width, (double)height / in->height);
    *fit_width = (int)fmin(width, fmax(1, round(in->width * scale)));
    *fit_height = (int)fmin(height, fmax(1, round(in->height * scale)));
}

/* A row of `width` pixels with `row` of `in_width` in it, its ends continued. */
static void extend_row(uint8_t *to, int width, const uint8_t *row, int in_width)
{
    int left = (width - in_width) / 2;
    for (int x = 0; x < left; x++)
        memcpy(to + 3 * (size_t)x, row, 3);
    memcpy(to + 3 * (size_t)left, row, 3 * (size_t)in_width);
    for (int x = left + in_width; x < width; x++)
        memcpy(to + 3 * (size_t)x, row + 3 * (size_t)(in_width - 1), 3);
}

int size_extend(const struct picture *in, int width, int height, struct picture *out, struct err *e)
{
    int code = picture_new(out, width, height, in->frames);
    if (code)
        return err_set(e, code, "no room for a picture of %dx%d", width, height);
    int top = (height - in->height) / 2;
    for (int f = 0; f < in->frames; f++)
        for (int y = 0; y < height; y++) {
            int from = y < top ? 0 : y - top < in->height ? y - top : in->height - 1;
            extend_row(picture_frame(out, f) + 3 * (size_t)y * (size_t)width, width,
                       picture_frame(in, f) + 3 * (size_t)from * (size_t)in->width, in->width);
        }
    return 0;
}
