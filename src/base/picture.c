#include "base/picture.h"

#include <errno.h>
#include <stdlib.h>

int picture_new(struct picture *p, int width, int height, int frames)
{
    *p = (struct picture){0};
    if (width <= 0 || height <= 0 || frames <= 0 || width > 65536 || height > 65536 ||
        frames > 100000)
        return -EINVAL;
    size_t bytes = (size_t)width * (size_t)height * 3;
    if (__builtin_mul_overflow(bytes, (size_t)frames, &bytes) || bytes > (size_t)1 << 40)
        return -EINVAL;
    uint8_t *rgb = calloc(1, bytes);
    if (!rgb)
        return -ENOMEM;
    *p = (struct picture){width, height, frames, rgb};
    return 0;
}

void picture_free(struct picture *p)
{
    free(p->rgb);
    *p = (struct picture){0};
}
