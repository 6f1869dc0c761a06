/* Small dense products for attention: C[m, n] (+)= A[m, k] · B[k, n] on one thread, with operands
 * in cache. Written once with vector types and compiled for each instruction set; the table for
 * this machine is chosen at run time. */
#ifndef OMNI_CPU_TILE_H
#define OMNI_CPU_TILE_H

#include <stdbool.h>
#include <stdint.h>

#define TILE_ROWS    8  /* m is a multiple of this */
#define TILE_COLUMNS 16 /* n is a multiple of this */

struct tile_product {
    int64_t m, n, k;
    const void *a; /* [m, k], lda elements a row */
    const void *b; /* f32: [k, ldb]; bf16: [k/2, ldb, 2], pairs along k together, k even */
    float *c;      /* [m, ldc] */
    int64_t lda, ldb, ldc;
    bool add; /* C += */
};

struct tile_kernels {
    const char *name;
    void (*f32)(const struct tile_product *p);
    void (*bf16)(const struct tile_product *p); /* NULL: not on this machine */
};
/* Those that run on this machine, the fastest first, at most `max` of them; how many. */
int tile_kernels_here(struct tile_kernels *out, int max);

#endif
