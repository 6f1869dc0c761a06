/* Weights by formula, made where they are needed. */
#include "kernels/kernel.h"

__global__ void by_formula(bf16 *to, formula f, int64_t n)
{
    for (int64_t i = grid_thread(); i < n; i += grid_threads())
        to[i] = from_float<bf16>(formula_value(&f, (uint32_t)(i % f.period)));
}

void cuda_by_formula(struct cuda *c, void *to, const struct formula *f, int64_t n)
{
    LAUNCH(blocks_for(n), BLOCK_THREADS, 0, c->stream, by_formula)
    (static_cast<bf16 *>(to), *f, n);
}
