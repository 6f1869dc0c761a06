/* Timings of operations: what a product reaches through op_linear, against oneDNN alone on the same
 * shape, and the other operations that a step is made of. */
#ifndef OMNI_BENCH_H
#define OMNI_BENCH_H

#include "engine/ops.h"

struct omni_bench_row {
    const char *op;    /* "linear", "attention", "conv2d", "rms_norm" … */
    const char *shape; /* "104x256 · 256x768" */
    enum dtype compute;
    double seconds;    /* of one call, the best of some */
    double gflops;     /* 10⁹ operations a second; 0 where bytes count */
    double gbytes;     /* 10⁹ bytes read and written a second */
    double of_library; /* share of what oneDNN alone reaches, 0 … 1; 0: not compared */
};

/* Runs every shape of the list in fp32 and bf16 on CPU backend `b`, calling `row` after each; `row`
 * false ends it early. `seconds`: about how long each shape is measured (0: 0.2). Needs about 1 GB.
 */
int omni_bench_ops(struct backend *b, double seconds,
                   bool (*row)(void *ctx, const struct omni_bench_row *r), void *ctx,
                   struct err *e);

/* Seconds that oneDNN alone needs for a linear, conv or attention, of which omni_callbacks told
 * kind and shape; what that means for each: cpu/alone.h. */
int omni_bench_library(struct backend *b, enum dtype compute, const char *kind, const char *shape,
                       double *seconds, struct err *e);

#endif
