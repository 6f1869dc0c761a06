#include "pictures.h"

#include <math.h>
#include <stdlib.h>

static uint8_t level(double v)
{
    return (uint8_t)fmin(fmax(lrint(v), 0), 255);
}

struct picture scene(int width, int height, int frames)
{
    struct picture p;
    if (picture_new(&p, width, height, frames))
        abort();
    uint8_t *px = p.rgb;
    for (int f = 0; f < frames; f++)
        for (int y = 0; y < height; y++)
            for (int x = 0; x < width; x++, px += 3) {
                double u = (double)x / width, v = (double)y / height;
                double wave = sin(7 * u + 2 * sin(4 * v)), cross = cos(9 * v + 2 * sin(5 * u));
                double cx = u - 0.2 - 0.02 * f, cy = v - 0.5;
                double disc = cx * cx + cy * cy < 0.03 ? 60 : 0;
                double grain = 6 * sin(x * 0.7) * sin(y * 0.9);
                px[0] = level(128 + 80 * wave + disc + grain);
                px[1] = level(120 + 70 * cross - disc + grain);
                px[2] = level(140 + 50 * wave * cross + disc / 2 + grain);
            }
    return p;
}

struct picture picture_by_formula(int width, int height, int k)
{
    struct picture p;
    if (picture_new(&p, width, height, 1))
        abort();
    uint8_t *px = p.rgb;
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < 3; c++)
                *px++ = (uint8_t)(5 * x + 3 * y + 37 * c + 11 * k);
    return p;
}

struct picture mask_by_formula(int width, int height, int k)
{
    struct picture p = picture_by_formula(width, height, k);
    for (int i = 0; i < width * height; i++) {
        uint8_t *px = p.rgb + (size_t)i * 3;
        px[0] = k >= 0 ? px[0] : i % width >= width / 2 ? UINT8_MAX : 0;
        px[1] = px[2] = px[0];
    }
    return p;
}

double psnr(const struct picture *a, const struct picture *b, int i)
{
    size_t n = picture_frame_bytes(a);
    const uint8_t *x = picture_frame(a, i), *y = picture_frame(b, i);
    double sum = 0;
    for (size_t k = 0; k < n; k++)
        sum += (x[k] - y[k]) * (x[k] - y[k]);
    return sum > 0 ? 10 * log10(255.0 * 255.0 * (double)n / sum) : 99;
}

double psnr_least(const struct picture *a, const struct picture *b)
{
    double least = 99;
    for (int i = 0; i < a->frames; i++)
        least = fmin(least, psnr(a, b, i));
    return least;
}
