/* What attention is made of, on one thread with operands in cache: small dense products C[m, n]
 * (+)= A[m, k] · B[k, n], and rows of scores that become weights. Written once with vector types
 * and compiled for each instruction set; the table for this machine is chosen at run time. */
#ifndef OMNI_CPU_TILE_H
#define OMNI_CPU_TILE_H

#include <stdbool.h>
#include <stdint.h>

#define TILE_COLUMNS   16 /* n is a multiple of this */
#define TILE_MOST_ROWS 8  /* of any kernel's block */

/* B lies in panels, each read from end to end while its block of C is in registers: `columns` of
 * the kernel wide, the last one as wide as what is left. The panel of column c begins at element
 * c · depth and holds f32 [depth, width], or bf16 [depth/2, width, 2]: pairs along k together. */
struct tile_product {
    int64_t m, n, k; /* m: a multiple of the kernel's rows */
    const void *a;   /* [m, k], lda elements a row; bf16: up to even k, zeros behind odd ones */
    const void *b;
    float *c; /* [m, ldc] */
    int64_t lda, ldc;
    int64_t depth; /* ≥ k */
    bool add;      /* C += */
};

struct tile_kernels {
    const char *name;
    int rows, columns; /* of the block of C that is kept in registers */
    void (*f32)(const struct tile_product *p);
    void (*bf16)(const struct tile_product *p); /* NULL: not on this machine */

    /* Rows of n scores, n a multiple of TILE_COLUMNS. The largest; NaNs are passed over. */
    float (*maximum)(const float *x, int64_t n);
    /* y = 2^(x - maximum) for x ≤ maximum, exactly 0 below 2^-126, so that -INFINITY weighs
     * nothing; the sum of what was not rounded, which carries a NaN on. y may be x in f32. */
    float (*weights_f32)(void *y, const float *x, int64_t n, float maximum);
    float (*weights_bf16)(void *y, const float *x, int64_t n, float maximum); /* or NULL */
};
/* Those that run on this machine, the fastest first, at most `max` of them; how many. */
int tile_kernels_here(struct tile_kernels *out, int max);

#endif
