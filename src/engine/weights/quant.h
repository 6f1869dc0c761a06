/* Block formats of GGUF: rows of values in blocks that share scales. Sources: ggml-org/ggml,
 * ggml-common.h (layouts), ggml-quants.c (values). Little-endian. */
#ifndef OMNI_QUANT_H
#define OMNI_QUANT_H

#include <stddef.h>
#include <stdint.h>

#include "engine/ops.h"

struct quant_type {
    uint32_t id;      /* in a GGUF file */
    const char *name; /* "Q4_K" */
    int block_values; /* 1: not in blocks */
    size_t block_bytes;
    bool plain; /* stored as `dtype` */
    enum dtype dtype;
    /* `values` is a multiple of block_values; NULL for plain types and those not supported. */
    void (*expand)(const void *blocks, int64_t values, float *out);
};

/* NULL for an unknown id. */
const struct quant_type *quant_find(uint32_t id);

#define QUANT_LARGEST_BLOCK 256 /* values; every block_values divides it */

/* Whole blocks, expanded, times `scale` (0: as they are) and rounded to `dtype` (F32 or BF16). */
void quant_values(void (*expand)(const void *blocks, int64_t values, float *out), float scale,
                  const void *blocks, size_t bytes, int64_t values, enum dtype dtype, void *out);

#endif
