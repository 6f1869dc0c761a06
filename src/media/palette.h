/* Palettes for GIF: the best few colours for many pixels, and the nearest of them for any colour.
 *
 * Distances are squared RGB differences with weights for how well eyes tell each channel. */
#ifndef OMNIFS_MEDIA_PALETTE_H
#define OMNIFS_MEDIA_PALETTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

struct palette {
    int colours;
    bool exact; /* every pixel's colour is in it: dithering would only harm */
    uint8_t rgb[256][3];
};

/* At most `most` (1..256) colours for `pixels` RGB pixels: 0 or -ENOMEM. */
int palette_make(const uint8_t *rgb, size_t pixels, int most, struct palette *out);
/* Mean distance of a colour to its nearest neighbour, in levels of one channel: the height of the
 * steps that dithering has to bridge. */
double palette_spacing(const struct palette *p);

/* Finds exact nearest colours fast: colour space is cut into 32^3 cubes, and each, when first used,
 * gets the list of the colours that can be nearest to a point in it (P. Heckbert's locally sorted
 * search, "Color image quantization for frame buffer display", 1982). */
#define PALETTE_CUBES (32 * 32 * 32)
struct palette_finder {
    const struct palette *palette; /* borrowed */
    struct str lists;              /* each: how many minus one, then the indices */
    uint32_t *at; /* [PALETTE_CUBES] where a cube's list starts, plus 1; 0: none yet */
};

int palette_finder_init(struct palette_finder *f, const struct palette *p); /* 0 or -ENOMEM */
void palette_finder_free(struct palette_finder *f);
/* The index of the colour nearest to r, g, b (0..255). When memory runs out `lists.failed` is set.
 */
int palette_nearest(struct palette_finder *f, int r, int g, int b);

#endif
