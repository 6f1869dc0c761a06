/* Rotary position tables. A head's pairs are divided among axes (one for text, four for FLUX.2);
 * pair k of an axis with n dims turns by position · theta^(-2k/n). Angles in double, tables fp32.
 * Source: RoFormer, arXiv:2104.09864. */
#ifndef OMNI_ROPE_H
#define OMNI_ROPE_H

#include <stdint.h>

#include "engine/ops.h"

#define ROPE_MAX_AXES 4

struct rope {
    int axes;
    int dims[ROPE_MAX_AXES]; /* even; their sum is the head's size */
    double theta;
};

/* cos and sin [tokens, head/2] for positions [tokens, axes] (host; NULL while
 * planning). Failures stick to `o`. */
void rope_tables(struct ops *o, const struct rope *r, const float *positions, int64_t tokens,
                 struct tensor **cos, struct tensor **sin);

#endif
