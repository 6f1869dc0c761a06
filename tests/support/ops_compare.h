/* Every operation of a backend against plain loops in double precision, over shapes, dtypes and
 * strides. The cases know no backend, so that each can be held to the same comparison. */
#ifndef TESTS_OPS_COMPARE_H
#define TESTS_OPS_COMPARE_H

#include "engine/backend.h"

/* How an operand lies in memory: dense, or a view of a larger tensor. */
enum layout { DENSE, INNER_VIEW, OUTER_VIEW, BOTH_VIEW, LAYOUTS };

/* What a case works with. */
struct compare {
    struct backend *backend;
    enum dtype compute;
    enum layout layout; /* of the operands of the case at hand */
    const char *name;   /* of the case, for messages */
    struct ops *o;
    uint64_t seed;
};

/* A tensor and the same values in doubles, dense. */
struct value {
    struct tensor *t;
    double *v;
    int64_t n, dims[TENSOR_MAX_RANK];
    int rank;
    void *host; /* weights: what stays mapped */
};

struct compare_case {
    const char *name;
    void (*run)(struct compare *c);
    bool large; /* too much work for a backend that is emulated */
};
extern const struct compare_case compare_products[], compare_others[]; /* end with a NULL name */

/* Runs all cases on `b`, each with dense operands and with every kind of view. */
void compare_all(struct backend *b, enum dtype compute);
/* The same without the large ones. */
void compare_small(struct backend *b, enum dtype compute);

/* ---- for cases ---- */

/* Uniform values of variance 1, in the layout of the case. */
struct value value_new(struct compare *c, int rank, const int64_t *dims);
/* The same, dense, whatever the layout of the case (vectors, in-place results). */
struct value value_dense(struct compare *c, int rank, const int64_t *dims);
/* A weight of dtype `d`, prepared; the doubles are what the dtype holds. */
struct value weight_new(struct compare *c, enum dtype d, int rank, const int64_t *dims);
/* The same, for looking rows up. */
struct value table_new(struct compare *c, enum dtype d, int64_t rows, int64_t columns);
/* The same, which the backend keeps in e4m3. */
struct value fp8_weight_new(struct compare *c, enum dtype d, int64_t rows, int64_t columns);
/* Frees the doubles and, of a weight, all of it; tensors in the arena go with their scope. */
void value_free(struct value *x);

/* y is expected[n] to a relative L2 error of `tolerance`; frees nothing. */
void compare_result(struct compare *c, const struct tensor *y, const double *expected, int64_t n,
                    double tolerance);
/* Of products in the compute type at hand: fp32 2e-6, bf16 2e-2 (some results are sums of three
 * terms that nearly cancel). */
double product_tolerance(const struct compare *c);
double reference_act(double x, enum activation act);
/* dtype rounding: x as bf16 or f16 bits and back. */
uint16_t half_bits(enum dtype d, double x);
double half_value(enum dtype d, uint16_t bits);

#endif
