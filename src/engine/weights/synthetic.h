/* Weights that come from nowhere: any name and shape that a loader asks for is there in bf16, with
 * the same values at every run. They draw nothing, but take the time that real ones take.
 *
 * Values repeat every few million (one stretch of memory, mapped again and again), so that a model
 * of any size needs no more memory than that. Matrices and filters have variance 1/fan-in, norms
 * are about 1, other vectors small: activations stay finite through any depth. */
#ifndef OMNI_WEIGHTS_SYNTHETIC_H
#define OMNI_WEIGHTS_SYNTHETIC_H

#include "engine/weights/weights.h"

struct synthetic;

/* `path` is what messages call them. NULL without memory. */
struct synthetic *synthetic_new(const char *path);
void synthetic_free(struct synthetic *s);
/* The tensor of that name; the entry and its data stay until synthetic_free. */
const struct weights_entry *synthetic_entry(struct synthetic *s, const char *name, int rank,
                                            const int64_t *dims, struct err *e);

#endif
