/* What oneDNN alone reaches on a shape: the measure beside which the engine's own products stand.
 *
 * Operands lie ready in the product's type and in the order that oneDNN likes best; results are
 * f32. oneDNN 2 has no attention: there it is the composition of q·kᵀ, softmax and p·v, a head at a
 * time, with a buffer of all scores in the product's type and without masks. */
#ifndef OMNI_CPU_ALONE_H
#define OMNI_CPU_ALONE_H

#include "engine/cpu/dnn.h"

enum alone_kind { ALONE_LINEAR, ALONE_CONV, ALONE_ATTENTION };

struct alone_shape {
    enum alone_kind kind;
    int64_t m, k, n;                             /* linear: x[m, k] · w[n, k]ᵀ */
    int64_t batch, h, w, ci, co, kh, kw, ho, wo; /* convolution; stride and padding follow */
    int64_t heads, queries, keys, size;          /* attention; heads of all items */
};

/* Reads a shape as ops_set_trace tells it; `kind` is "linear", "conv" or "attention". */
bool alone_read(const char *kind, const char *text, struct alone_shape *out);

/* Seconds of the fastest of some calls that take about `budget` seconds, at least two. */
int alone_measure(struct dnn *d, int threads, enum dtype type, const struct alone_shape *s,
                  double budget, double *seconds, struct err *e);

#endif
