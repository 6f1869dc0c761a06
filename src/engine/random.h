/* Noise: torch's CPU generator (MT19937), bit-compatible, so that a seed gives what diffusers
 * gives. Source: PyTorch ATen/native/cpu/DistributionTemplates.h, normal_fill. */
#ifndef OMNI_RANDOM_H
#define OMNI_RANDOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct random {
    uint32_t state[624];
    int next;
    bool has_spare; /* n < 16: the second value of a pair waits for the next call */
    double spare;
};

void random_seed(struct random *r, uint64_t seed); /* the low 32 bits count, as in torch */
/* torch.randn(n, generator=g): n ≥ 16 by blocks, n < 16 in doubles. */
void random_normal(struct random *r, float *out, size_t n);
/* torch.randn(n, dtype=torch.bfloat16) of torch ≥ 2.x, as fp32 values that bf16 holds exactly. */
void random_normal_bf16(struct random *r, float *out, size_t n);

#endif
