/* What libraries leave over: bias, activation, another type. */
#include "kernels/kernel.h"
#include "kernels/library.h"

struct finishing {
    void *y;
    const void *z;
    bool narrow_y, narrow_z; /* bf16 */
    const float *bias;       /* [channels] or NULL */
    int64_t n, channels;
    enum activation act;
};

/* `Wide` neighbours of one pixel or row. */
template <int Wide> __global__ void finish(finishing f)
{
    for (int64_t i = grid_thread() * Wide; i < f.n; i += grid_threads() * Wide) {
        float v[Wide], b[Wide] = {};
        load_some<Wide>(v, f.z, i, f.narrow_z);
        if (f.bias)
            load_some<Wide>(b, f.bias, i % f.channels, false);
        GPU_UNROLL
        for (int e = 0; e < Wide; e++)
            v[e] = gpu_act(v[e] + b[e], f.act);
        store_some<Wide>(f.y, i, f.narrow_y, v);
    }
}

void cuda_finish(struct cuda *c, void *y, enum dtype y_type, const void *z, enum dtype type,
                 const float *bias, int64_t n, int64_t channels, enum activation act)
{
    finishing f = {y, z, y_type == DTYPE_BF16, type == DTYPE_BF16, bias, n, channels, act};
    if (channels % 4 == 0 && n % 4 == 0 && is_aligned(y, 16) && is_aligned(z, 16) &&
        is_aligned(bias, 16))
        LAUNCH(blocks_for(n / 4), BLOCK_THREADS, 0, c->stream, finish<4>)(f);
    else
        LAUNCH(blocks_for(n), BLOCK_THREADS, 0, c->stream, finish<1>)(f);
}
