/* linear: products of rows with a matrix of weights.
 *
 * A library does it where there is one (cuda_products); else few rows an item go through dot
 * products, which read the matrix once and are bound by that, and more rows through tiles. The
 * choice looks at the rows of one item only, so that a batch gives each item its own bits. */
#include "kernels/product.h"

/* ---- rows of x ---- */

struct linear_rows {
    struct rows x;
    bool narrow; /* bf16 */
    struct row {
        int64_t at; /* below 0: beyond the last */
        __device__ __forceinline__ void load(float out[UNIT], const linear_rows &r, int64_t k,
                                             int64_t end) const
        {
            const float *wide = r.x.data + (at < 0 ? 0 : at);
            const bf16 *narrow = reinterpret_cast<const bf16 *>(r.x.data) + (at < 0 ? 0 : at);
            end = at < 0 ? 0 : end;
            if (r.narrow)
                load_unit(out, narrow, k, end, r.x.by4);
            else
                load_unit(out, wide, k, end, r.x.by4);
        }
    };
    __device__ __forceinline__ row find(int64_t i, int64_t count) const
    {
        return {i < count ? rows_offset(x, i) : -1};
    }
};

/* ---- few rows: a warp makes some elements of one column ---- */

#define FEW_ROWS  4 /* rows a warp works on: the weights are read once for all */
#define FEW_ITEMS 8 /* rows an item, up to which this is the faster way */
#define FEW_WARPS 8

template <class W> __global__ void dot_products(product p, linear_rows x)
{
    int lane = (int)threadIdx.x % GPU_WARP;
    int64_t column = (int64_t)blockIdx.x * FEW_WARPS + threadIdx.x / GPU_WARP;
    int64_t top = (int64_t)blockIdx.y * FEW_ROWS;
    float sum[FEW_ROWS] = {};
    if (column >= p.n) /* whole warps */
        return;
    for (int64_t k = lane * UNIT; k < p.k; k += GPU_WARP * UNIT) {
        float w[UNIT], v[UNIT];
        load_weight<W>(w, p, column, k);
        GPU_UNROLL
        for (int i = 0; i < FEW_ROWS; i++) {
            if (top + i >= p.m)
                break;
            x.find(top + i, p.m).load(v, x, k, p.k);
            GPU_UNROLL
            for (int e = 0; e < UNIT; e++)
                sum[i] += v[e] * w[e];
        }
    }
    GPU_UNROLL
    for (int i = 0; i < FEW_ROWS; i++) {
        float all = warp_sum(sum[i]);
        if (lane == 0)
            store_result(p, top + i, column, all);
    }
}

/* ---- choosing ---- */

/* Rows of x that belong together (ops.h). */
static int64_t rows_per_item(const struct tensor *x, int64_t rows)
{
    if (x->rank >= 3)
        return rows / x->dims[0];
    return rows <= 32 ? 1 : rows;
}

template <class W> static void run(struct ops *o, const product &p, const struct tensor *x)
{
    struct cuda *c = cuda_here(o);
    linear_rows rows = {rows_of(x), is_narrow(x)};
    if (rows_per_item(x, p.m) <= FEW_ITEMS && p.m <= 65535 * FEW_ROWS)
        LAUNCH_SYNC(dim3((unsigned)((p.n + FEW_WARPS - 1) / FEW_WARPS),
                         (unsigned)((p.m + FEW_ROWS - 1) / FEW_ROWS)),
                    FEW_WARPS * GPU_WARP, 0, c->stream, dot_products<W>)
    (p, rows);
    else run_product<linear_rows, W>(c, p, rows, ops_compute(o));
    cuda_launched(o, "linear");
}

void cuda_linear(struct ops *o, struct tensor *y, const struct tensor *x, const struct tensor *w,
                 const struct tensor *bias, enum activation act)
{
    struct cuda *c = cuda_of(ops_backend(o));
    if (c->library.linear && c->library.linear(c, o, y, x, w, bias, act)) {
        cuda_launched(o, "linear");
        return;
    }
    if (ops_planning(o))
        return;
    product p = {};
    p.n = w->dims[0];
    p.k = w->dims[1];
    p.m = tensor_elements(x) / p.k;
    p.w = w->data;
    p.pitch = w->strides[0];
    p.w_by4 = p.pitch % 4 == 0 && p.k % 4 == 0 && is_aligned(w->data, 4 * dtype_size(w->dtype));
    p.scale = cuda_weight_scale(w);
    p.bias = bias ? static_cast<const float *>(bias->data) : nullptr;
    p.y = y->data;
    p.narrow_y = is_narrow(y);
    p.act = act;
    if (w->dtype == DTYPE_F32)
        run<float>(o, p, x);
    else if (w->dtype == DTYPE_BF16)
        run<bf16>(o, p, x);
    else if (w->dtype == DTYPE_E4M3)
        run<e4m3>(o, p, x);
    else
        run<f16>(o, p, x);
}
