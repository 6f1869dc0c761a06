/* Pointwise operations: each a function of the values of one place in all inputs. */
#include "kernels/kernel.h"

/* y = body(x0, x1, …): operand 0 of the walk is y, which may be one of the inputs; `narrow`: bits
 * of the operands that are bf16. */
template <class Body, int N, int Wide>
__global__ void pointwise(walk<N> w, unsigned narrow, Body body)
{
    for (int64_t i = grid_thread() * Wide; i < w.count; i += grid_threads() * Wide) {
        int64_t at[N];
        float in[N][Wide], out[Wide];
        walk_at(w, i, at);
        GPU_UNROLL
        for (int k = 1; k < N; k++)
            load_some<Wide>(in[k], w.data[k], at[k], narrow >> k & 1);
        GPU_UNROLL
        for (int e = 0; e < Wide; e++) {
            float x[N];
            for (int k = 1; k < N; k++)
                x[k - 1] = in[k][e];
            out[e] = body(x);
        }
        store_some<Wide>(w.data[0], at[0], narrow & 1, out);
    }
}

template <class Body, int N>
static void run(struct ops *o, const char *name, const struct tensor *const (&t)[N], Body body)
{
    size_t sizes[N];
    unsigned narrow = 0;
    if (ops_planning(o))
        return;
    struct cuda *c = cuda_here(o);
    walk<N> w = walk_of(t);
    for (int k = 0; k < N; k++) {
        sizes[k] = dtype_size(t[k]->dtype);
        narrow |= (unsigned)is_narrow(t[k]) << k;
    }
    if (walk_by4(w, sizes))
        LAUNCH(blocks_for(w.count / 4), BLOCK_THREADS, 0, c->stream, pointwise<Body, N, 4>)
    (w, narrow, body);
    else LAUNCH(blocks_for(w.count), BLOCK_THREADS, 0, c->stream, pointwise<Body, N, 1>)(w, narrow,
                                                                                         body);
    cuda_launched(o, name);
}

/* ---- act, glu ---- */

struct act_body {
    enum activation act;
    __device__ float operator()(const float *x) const
    {
        return gpu_act(x[0], act);
    }
};

void cuda_act(struct ops *o, struct tensor *y, const struct tensor *x, enum activation act)
{
    run(o, "act", {y, x}, act_body{act});
}

struct glu_body {
    enum activation act;
    __device__ float operator()(const float *x) const
    {
        return gpu_act(x[0], act) * x[1];
    }
};

void cuda_glu(struct ops *o, struct tensor *y, const struct tensor *gate,
              const struct tensor *value, enum activation act)
{
    run(o, "glu", {y, gate, value}, glu_body{act});
}

/* ---- add, mul, affine ---- */

struct add_body {
    __device__ float operator()(const float *x) const
    {
        return x[0] + x[1];
    }
};

void cuda_add(struct ops *o, struct tensor *y, const struct tensor *a, const struct tensor *b)
{
    run(o, "add", {y, a, b}, add_body{});
}

struct mul_body {
    __device__ float operator()(const float *x) const
    {
        return x[0] * x[1];
    }
};

void cuda_mul(struct ops *o, struct tensor *y, const struct tensor *a, const struct tensor *b)
{
    run(o, "mul", {y, a, b}, mul_body{});
}

struct affine_body {
    float scale, offset, low, high;
    __device__ float operator()(const float *x) const
    {
        float v = x[0] * scale + offset;
        v = v < low ? low : v;
        return v > high ? high : v; /* NaN passes both */
    }
};

void cuda_affine(struct ops *o, struct tensor *y, const struct tensor *x, float scale, float offset,
                 float low, float high)
{
    run(o, "affine", {y, x}, affine_body{scale, offset, low, high});
}

/* ---- in place: gated_add_to, combine_to ---- */

struct gated_add_body {
    __device__ float operator()(const float *x) const
    {
        return x[0] + x[2] * x[1];
    }
};

void cuda_gated_add_to(struct ops *o, struct tensor *x, const struct tensor *gate,
                       const struct tensor *y)
{
    if (!gate) {
        run(o, "add_to", {x, x, y}, add_body{});
        return;
    }
    struct tensor wide = *gate; /* [B|1, C] seen as [B|1, 1, C] */
    wide.rank = 3;
    wide.dims[1] = 1;
    wide.dims[2] = gate->dims[1];
    wide.strides[2] = gate->strides[1];
    run(o, "gated_add_to", {x, x, y, &wide}, gated_add_body{});
}

template <int Count> struct combine_body {
    float factor[Count];
    __device__ float operator()(const float *x) const
    {
        float sum = factor[0] * x[0];
        for (int k = 1; k < Count; k++)
            sum += factor[k] * x[k];
        return sum;
    }
};

template <int Count>
static void combine(struct ops *o, struct tensor *x, const struct tensor *const *terms,
                    const float *coefficients, int count)
{
    if constexpr (Count > 1)
        if (count < Count) {
            combine<Count - 1>(o, x, terms, coefficients, count);
            return;
        }
    const struct tensor *t[Count + 1] = {x};
    combine_body<Count> body;
    for (int k = 0; k < Count; k++) {
        t[k + 1] = terms[k];
        body.factor[k] = coefficients[k];
    }
    run(o, "combine_to", t, body);
}

void cuda_combine_to(struct ops *o, struct tensor *x, const struct tensor *const *terms,
                     const float *coefficients, int count)
{
    combine<OPS_MAX_TERMS>(o, x, terms, coefficients, count);
}
