/* A picture or a clip in memory: 8-bit sRGB, the only pixel form that travels between floors. */
#ifndef OMNIFS_BASE_PICTURE_H
#define OMNIFS_BASE_PICTURE_H

#include <stddef.h>
#include <stdint.h>

struct picture {
    int width, height; /* pixels */
    int frames;        /* 1 for a still picture */
    uint8_t *rgb;      /* [frames, height, width, 3], heap, owned */
};

/* Allocates zeroed pixels; 0, -EINVAL (sizes not positive or too large together), -ENOMEM. */
int picture_new(struct picture *p, int width, int height, int frames);
void picture_free(struct picture *p);
static inline size_t picture_frame_bytes(const struct picture *p)
{
    return (size_t)p->width * (size_t)p->height * 3;
}
static inline uint8_t *picture_frame(const struct picture *p, int frame)
{
    return p->rgb + (size_t)frame * picture_frame_bytes(p);
}

#endif
