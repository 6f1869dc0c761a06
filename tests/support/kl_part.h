/* Generated weights of an AutoencoderKL: two levels, 8 and 16 wide, KL_LATENT channels. */
#ifndef TESTS_KL_PART_H
#define TESTS_KL_PART_H

#include "det.h"

enum { KL_LATENT = 4 };

/* Both halves, with `layers` residual blocks a level in the encoder and one more in the decoder. */
struct det_part *kl_part(int layers);
/* The decoder alone; `names` of the attention's q, k, v and out. */
void kl_add_decoder(struct det_part *p, int layers, const char *const names[4]);

#endif
