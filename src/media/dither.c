#include "media/dither.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int clamp(int v)
{
    return v < 0 ? 0 : v > 255 ? 255 : v;
}

/* Bayer's 8 x 8 order of thresholds: interleaved bits of x ^ y and y, reversed. */
static int bayer(int x, int y)
{
    int a = x ^ y, v = 0;
    for (int bit = 0; bit < 3; bit++)
        v = v << 2 | (a >> bit & 1) << 1 | (y >> bit & 1);
    return v; /* 0..63 */
}

/* The same offset at the same place in every frame: what does not move does not flicker. */
static void ordered(struct palette_finder *f, double height_of_step, const uint8_t *rgb, int width,
                    int height, const uint8_t *keep, uint8_t *indices)
{
    int offset[8][8];
    for (int y = 0; y < 8; y++)
        for (int x = 0; x < 8; x++)
            offset[y][x] = (int)lrint((bayer(x, y) - 31.5) / 64 * height_of_step);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++, rgb += 3, indices++) {
            if (keep && *keep++)
                continue;
            int o = offset[y & 7][x & 7];
            *indices = (uint8_t)palette_nearest(f, clamp(rgb[0] + o), clamp(rgb[1] + o),
                                                clamp(rgb[2] + o));
        }
}

/* One pixel of error diffusion. here and below: errors times 16 of this row and the next, each with
 * a pixel of margin; `step` is the way the row is walked. */
static void diffuse(struct palette_finder *f, const uint8_t *px, int *here, int *below, int step,
                    uint8_t *index)
{
    int want[3];
    for (int c = 0; c < 3; c++)
        want[c] = clamp(px[c] + (here[c] + (here[c] >= 0 ? 8 : -8)) / 16);
    *index = (uint8_t)palette_nearest(f, want[0], want[1], want[2]);
    for (int c = 0; c < 3; c++) { /* R. Floyd, L. Steinberg, 1976: 7 3 5 1 sixteenths */
        int error = want[c] - f->palette->rgb[*index][c];
        here[c + 3 * step] += error * 7;
        below[c - 3 * step] += error * 3;
        below[c] += error * 5;
        below[c + 3 * step] += error;
    }
}

/* Rows in alternating directions, so that errors do not wander to one side. */
static int diffused(struct palette_finder *f, const uint8_t *rgb, int width, int height,
                    const uint8_t *keep, uint8_t *indices)
{
    size_t row = ((size_t)width + 2) * 3;
    int *errors = calloc(row * 2, sizeof *errors);
    if (!errors)
        return -ENOMEM;
    for (int y = 0; y < height; y++) {
        int *here = errors + (y % 2 ? row : 0), *below = errors + (y % 2 ? 0 : row);
        int step = y % 2 ? -1 : 1;
        memset(below, 0, row * sizeof *errors);
        for (int i = 0; i < width; i++) {
            size_t x = (size_t)(step > 0 ? i : width - 1 - i);
            size_t at = (size_t)y * (size_t)width + x;
            if (!keep || !keep[at])
                diffuse(f, rgb + at * 3, here + (x + 1) * 3, below + (x + 1) * 3, step,
                        &indices[at]);
        }
    }
    free(errors);
    return 0;
}

int dither_frame(struct palette_finder *f, enum media_dither how, const uint8_t *rgb, int width,
                 int height, const uint8_t *keep, uint8_t *indices)
{
    int r = 0;
    if (how == MEDIA_DITHER_FLOYD && !f->palette->exact)
        r = diffused(f, rgb, width, height, keep, indices);
    else
        ordered(f, how == MEDIA_DITHER_NONE || f->palette->exact ? 0 : palette_spacing(f->palette),
                rgb, width, height, keep, indices);
    return f->lists.failed ? -ENOMEM : r;
}
