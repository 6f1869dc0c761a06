/* What libraries leave over: bias, activation, and fp32 again. */
#include "kernels/kernel.h"
#include "kernels/library.h"

template <class Z>
__global__ void finish(float *y, const Z *z, const float *bias, int64_t n, int64_t channels,
                       enum activation act)
{
    for (int64_t i = grid_thread(); i < n; i += grid_threads())
        y[i] = gpu_act(to_float(z[i]) + (bias ? bias[i % channels] : 0.0f), act);
}

/* Four neighbours of one pixel or row; everything is aligned for it. */
template <class Z>
__global__ void finish4(float *y, const Z *z, const float *bias, int64_t n, int64_t channels,
                        enum activation act)
{
    for (int64_t i = grid_thread() * 4; i < n; i += grid_threads() * 4) {
        float v[4], b[4] = {};
        load4(v, z + i);
        if (bias)
            load4(b, bias + i % channels);
        GPU_UNROLL
        for (int e = 0; e < 4; e++)
            v[e] = gpu_act(v[e] + b[e], act);
        store4(y + i, v);
    }
}

template <class Z>
static void run(struct cuda *c, float *y, const void *from, const float *bias, int64_t n,
                int64_t channels, enum activation act)
{
    const Z *z = static_cast<const Z *>(from);
    if (channels % 4 == 0 && n % 4 == 0 && is_aligned(y, 16) && is_aligned(z, 4 * sizeof(Z)) &&
        is_aligned(bias, 16))
        LAUNCH(blocks_for(n / 4), BLOCK_THREADS, 0, c->stream, finish4<Z>)
    (y, z, bias, n, channels, act);
    else LAUNCH(blocks_for(n), BLOCK_THREADS, 0, c->stream, finish<Z>)(y, z, bias, n, channels,
                                                                       act);
}

void cuda_finish(struct cuda *c, float *y, const void *z, enum dtype type, const float *bias,
                 int64_t n, int64_t channels, enum activation act)
{
    if (type == DTYPE_BF16)
        run<bf16>(c, y, z, bias, n, channels, act);
    else
        run<float>(c, y, z, bias, n, channels, act);
}
