/* Walks: one loop over several tensors of one shape, whatever their strides.
 *
 * Axes that lie densely in every operand are merged, the rest is cut into spans along the innermost
 * axis, and the spans are shared among the threads. Operand 0 is usually the result. */
#ifndef OMNI_CPU_WALK_H
#define OMNI_CPU_WALK_H

#include "engine/backend.h"

#define WALK_OPERANDS (OPS_MAX_TERMS + 1)

struct walk {
    int operands, rank;
    int64_t dims[TENSOR_MAX_RANK + 1];
    int64_t strides[WALK_OPERANDS][TENSOR_MAX_RANK + 1]; /* bytes */
    int64_t sizes[WALK_OPERANDS];                        /* bytes an element */
    char *data[WALK_OPERANDS];
};

struct span {
    const void *ctx;
    char *p[WALK_OPERANDS];
    int64_t step[WALK_OPERANDS]; /* bytes between elements: the element's size in dense walks */
    int64_t n;
};

void walk_start(struct walk *w, int rank, const int64_t *dims);
/* `strides` in elements of `size` bytes; 0 repeats. Returns false when the walk is full. */
bool walk_add_raw(struct walk *w, void *data, const int64_t *strides, size_t size);
/* A tensor of the walk's shape, or one that broadcasts to it over leading axes. */
bool walk_add(struct walk *w, const struct tensor *t);
/* Calls `body` for every span. `dense`: the spans' elements are neighbours in every operand. */
void walk_run(struct walk *w, int threads, bool dense, void (*body)(const struct span *s),
              const void *ctx);

#endif
