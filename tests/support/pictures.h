/* Pictures for tests: a scene with gradients, edges, texture and motion, and how far two are
 * apart. */
#ifndef OMNIFS_TESTS_PICTURES_H
#define OMNIFS_TESTS_PICTURES_H

#include "base/picture.h"

/* Draws a clip; each frame differs a little from the one before. The caller frees it. */
struct picture scene(int width, int height, int frames);
/* Peak signal-to-noise ratio in dB of frame `i` of two clips of one size; 99 when equal. */
double psnr(const struct picture *a, const struct picture *b, int i);
/* The least of all frames. */
double psnr_least(const struct picture *a, const struct picture *b);

#endif
