/* The parts of the embedded model, each alone, on real weights and a real prompt: the text
 * encoder's gates are steep, and what it never says to the transformer has no meaning there. From
 * the repository's root. */
#ifndef TESTS_MINI_PARTS_H
#define TESTS_MINI_PARTS_H

#include <stddef.h>

#include "engine/omni.h"
#include "engine/ops.h"

/* A part's result [*n] on a device (as device_open has it) in a type of products; the caller frees
 * it. */
typedef float *mini_part(const char *device, enum dtype compute, size_t *n);
mini_part mini_text_encoder, mini_transformer, mini_encoder, mini_decoder;

/* The relative L2 distance of a part's result on `device` in bf16 from the CPU's in fp32. */
double mini_part_error(mini_part *part, const char *device);

/* A square picture of one step on a device; the caller frees it. It takes the memory planned. */
struct picture mini_picture(const char *device, enum omni_precision precision, int side);
/* The relative L2 distance of two first frames of one size. */
double mini_picture_error(const struct picture *a, const struct picture *b);

#endif
