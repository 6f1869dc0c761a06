/* Pixels to palette indices, with the error of too few colours spread over the neighbourhood. */
#ifndef OMNIFS_MEDIA_DITHER_H
#define OMNIFS_MEDIA_DITHER_H

#include "media/media.h"
#include "media/palette.h"

/* Indices [height, width] for one RGB frame; where keep[i] is set, indices[i] stays as it is (keep
 * may be NULL). `how` is not AUTO. 0 or -ENOMEM. */
int dither_frame(struct palette_finder *f, enum media_dither how, const uint8_t *rgb, int width,
                 int height, const uint8_t *keep, uint8_t *indices);

#endif
