/* Known answers of model parts: a part is opened from generated weights in a folder of its own,
 * run, and compared with a few numbers that the reference classes gave. */
#ifndef TESTS_KNOWN_H
#define TESTS_KNOWN_H

#include "det.h"
#include "engine/backend.h"
#include "engine/checkpoint.h"

/* Of a tensor: count, mean, population deviation, first and last values. */
struct expected {
    size_t count;
    double mean, deviation;
    float first[5], last[3];
};
void assert_expected(const float *x, size_t n, const struct expected *e);

/* A part with its backend (fp32, two threads) and context. */
struct bench {
    char folder[64];
    struct backend *backend;
    struct part part;
    struct ops *o;
};
/* Writes `p` (and frees it) with `config` and opens it; fails the test on error. */
void bench_open(struct bench *b, struct det_part *p, const char *stem, const char *config);
void bench_close(struct bench *b);
/* The tensor's values, which the caller frees. */
float *values(struct bench *b, const struct tensor *t, size_t *n);
/* The generated input of that name. */
struct tensor *input(struct bench *b, const char *name, int rank, const int64_t *dims);
void check(struct bench *b, const struct tensor *t, const struct expected *e);

/* op_permute's axes between [B, C, H, W] and [B, H, W, C]. */
extern const int to_last[4], to_first[4];

#endif
