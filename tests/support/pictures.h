/* Pictures for tests: a scene with gradients, edges, texture and motion, and how far two are
 * apart. */
#ifndef OMNIFS_TESTS_PICTURES_H
#define OMNIFS_TESTS_PICTURES_H

#include "base/picture.h"

/* Draws a clip; each frame differs a little from the one before. The caller frees it. */
struct picture scene(int width, int height, int frames);
/* Wrapping ramps: pixel (x, y), channel c is 5x + 3y + 37c + 11k mod 256. */
struct picture picture_by_formula(int width, int height, int k);
/* A mask: the right half white for k < 0, else the ramps of channel 0 in gray. */
struct picture mask_by_formula(int width, int height, int k);
/* Peak signal-to-noise ratio in dB of frame `i` of two clips of one size; 99 when equal. */
double psnr(const struct picture *a, const struct picture *b, int i);
/* The least of all frames. */
double psnr_least(const struct picture *a, const struct picture *b);

#endif
