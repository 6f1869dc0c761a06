/* The backend's products by NVIDIA's libraries (vendor.h): what stands behind struct cuda_products.
 *
 * Of a matrix in e4m3 the other operand is rounded to that, an item at a time (fp8.cu). Where
 * products are computed in bf16, operands are first rounded to it into scratch, as the own kernels
 * do on their way; sums and results stay fp32, but results of convolutions and attention, which the
 * libraries give in bf16. A masked attention, fp32 attention, and fp32 products of weights that are
 * not fp32 stay with the own kernels, and so do products of few rows. */
#ifndef OMNI_KERNELS_LIBRARY_H
#define OMNI_KERNELS_LIBRARY_H

#include "kernels/cuda.h"
#include "kernels/vendor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Opens what there is for the backend's device; where there is nothing, nothing changes. */
void cuda_library_open(struct cuda *c);
/* Puts `v` (whose owner it becomes) behind the backend's hooks. */
void cuda_library_use(struct cuda *c, struct vendor *v);

/* finish.cu: y[n] = act(z[n] + bias[n % channels]), dense; both are f32 or bf16, z may be y where
 * their types agree; bias may be NULL. */
void cuda_finish(struct cuda *c, void *y, enum dtype y_type, const void *z, enum dtype type,
                 const float *bias, int64_t n, int64_t channels, enum activation act);

#ifdef __cplusplus
}
#endif

#endif
