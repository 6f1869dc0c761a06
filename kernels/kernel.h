/* What the .cu files share: tensors as kernels see them, loops over tensors of any strides, and
 * activations. */
#ifndef OMNI_KERNEL_H
#define OMNI_KERNEL_H

#include "kernels/cuda.h"
#include "kernels/gpu.h"

#define BLOCK_THREADS 256
#define GRID_MOST     (1 << 20) /* blocks: threads of larger work take turns */

/* The backend of the running operation, its device made current. */
inline struct cuda *cuda_here(struct ops *o)
{
    struct cuda *c = cuda_of(ops_backend(o));
    cuda_fail(o, c, driver_use(c->index), "the device");
    return c;
}

/* After every operation's launches. */
inline void cuda_launched(struct ops *o, const char *operation)
{
    struct cuda *c = cuda_of(ops_backend(o));
    int code = driver_launched();
    if (!code && c->waits && !ops_planning(o))
        code = driver_wait(c->stream);
    cuda_fail(o, c, code, operation);
}

inline unsigned blocks_for(int64_t threads, int64_t block = BLOCK_THREADS)
{
    int64_t n = (threads + block - 1) / block;
    return (unsigned)(n < 1 ? 1 : n < GRID_MOST ? n : GRID_MOST);
}

inline bool is_aligned(const void *p, size_t bytes)
{
    return reinterpret_cast<uintptr_t>(p) % bytes == 0;
}

/* This thread among all of a grid of one dimension, and how many there are. */
__device__ __forceinline__ int64_t grid_thread()
{
    return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ int64_t grid_threads()
{
    return (int64_t)gridDim.x * blockDim.x;
}

/* ---- activations ---- */

__device__ __forceinline__ float gpu_sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

__device__ __forceinline__ float gpu_act(float x, enum activation act)
{
    switch (act) {
    case ACT_RELU:
        return x < 0.0f ? 0.0f : x;
    case ACT_SILU:
        return x * gpu_sigmoid(x);
    case ACT_GELU:
        return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    case ACT_GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case ACT_QUICK_GELU:
        return x * gpu_sigmoid(1.702f * x);
    case ACT_TANH:
        return tanhf(x);
    case ACT_SIGMOID:
        return gpu_sigmoid(x);
    case ACT_NONE:
        break;
    }
    return x;
}

/* ---- four floats at a time ---- */

__device__ __forceinline__ void load4(float out[4], const float *p) /* 16-byte aligned */
{
    float4 v = *reinterpret_cast<const float4 *>(p);
    out[0] = v.x;
    out[1] = v.y;
    out[2] = v.z;
    out[3] = v.w;
}
__device__ __forceinline__ void store4(float *p, const float in[4])
{
    *reinterpret_cast<float4 *>(p) = float4{in[0], in[1], in[2], in[3]};
}
__device__ __forceinline__ void store4(bf16 *p, const float in[4]) /* 8-byte aligned */
{
    *reinterpret_cast<uint2 *>(p) = uint2{bf16_pair(in[0], in[1]), bf16_pair(in[2], in[3])};
}
__device__ __forceinline__ void load4(float out[4], const bf16 *p) /* 8-byte aligned */
{
    uint2 v = *reinterpret_cast<const uint2 *>(p);
    out[0] = gpu_bits_float(v.x << 16);
    out[1] = gpu_bits_float(v.x & 0xFFFF0000u);
    out[2] = gpu_bits_float(v.y << 16);
    out[3] = gpu_bits_float(v.y & 0xFFFF0000u);
}
__device__ __forceinline__ void load4(float out[4], const f16 *p) /* 8-byte aligned */
{
    uint2 v = *reinterpret_cast<const uint2 *>(p);
    out[0] = to_float(f16{(uint16_t)v.x});
    out[1] = to_float(f16{(uint16_t)(v.x >> 16)});
    out[2] = to_float(f16{(uint16_t)v.y});
    out[3] = to_float(f16{(uint16_t)(v.y >> 16)});
}

__device__ __forceinline__ void load4(float out[4], const e4m3 *p) /* 4-byte aligned */
{
    uint32_t v = *reinterpret_cast<const uint32_t *>(p);
    GPU_UNROLL
    for (int e = 0; e < 4; e++)
        out[e] = to_float(e4m3{(uint8_t)(v >> (8 * e))});
}

/* ---- activations: f32, or `narrow`: bf16, the same for all threads ---- */

inline bool is_narrow(const struct tensor *t)
{
    return t->dtype == DTYPE_BF16;
}

/* `Wide` (1 or 4) elements from `at` on. */
template <int Wide>
__device__ __forceinline__ void load_some(float *out, const void *data, int64_t at, bool narrow)
{
    if constexpr (Wide == 4) {
        if (narrow)
            load4(out, static_cast<const bf16 *>(data) + at);
        else
            load4(out, static_cast<const float *>(data) + at);
    } else {
        out[0] = narrow ? to_float(static_cast<const bf16 *>(data)[at])
                        : static_cast<const float *>(data)[at];
    }
}
template <int Wide>
__device__ __forceinline__ void store_some(void *data, int64_t at, bool narrow, const float *in)
{
    if constexpr (Wide == 4) {
        if (narrow)
            store4(static_cast<bf16 *>(data) + at, in);
        else
            store4(static_cast<float *>(data) + at, in);
    } else if (narrow) {
        static_cast<bf16 *>(data)[at] = from_float<bf16>(in[0]);
    } else {
        static_cast<float *>(data)[at] = in[0];
    }
}

/* ---- the last axis as rows ---- */

/* Where each row of a tensor's last axis begins; leading axes that lie evenly are merged. */
struct rows {
    const float *data;
    int64_t count, width;
    int rank;
    int64_t dims[TENSOR_MAX_RANK], strides[TENSOR_MAX_RANK]; /* of the leading axes, elements */
    bool by4; /* four elements can be read at once, all along every row */
};

inline struct rows rows_of(const struct tensor *t)
{
    struct rows r = {};
    r.data = static_cast<const float *>(t->data);
    r.width = t->dims[t->rank - 1];
    r.count = 1;
    r.by4 = is_aligned(t->data, 4 * dtype_size(t->dtype)) && r.width % 4 == 0;
    for (int i = 0; i < t->rank - 1; i++) {
        int64_t n = t->dims[i], stride = t->strides[i];
        r.count *= n;
        if (n == 1)
            continue;
        r.by4 = r.by4 && stride % 4 == 0;
        int last = r.rank - 1;
        if (r.rank > 0 && r.strides[last] == stride * n) {
            r.dims[last] *= n;
            r.strides[last] = stride;
        } else {
            r.dims[r.rank] = n;
            r.strides[r.rank++] = stride;
        }
    }
    return r;
}

__device__ __forceinline__ int64_t rows_offset(const struct rows &r, int64_t i)
{
    int64_t offset = 0;
    for (int k = r.rank - 1; k > 0; i /= r.dims[k--])
        offset += i % r.dims[k] * r.strides[k];
    return r.rank > 0 ? offset + i * r.strides[0] : 0;
}

/* ---- walks: one loop over N tensors of one shape, whatever their strides ---- */

#define WALK_AXES (TENSOR_MAX_RANK + 1)

template <int N> struct walk {
    int rank;
    int64_t count;                 /* elements */
    int64_t dims[WALK_AXES];       /* merged where every operand allows it */
    int64_t strides[N][WALK_AXES]; /* elements; 0 repeats */
    void *data[N];
};

/* Every operand has the first one's shape, or broadcasts to it over leading axes. */
template <int N> inline walk<N> walk_of(const struct tensor *const (&t)[N])
{
    walk<N> w = {};
    w.count = 1;
    for (int k = 0; k < N; k++)
        w.data[k] = t[k]->data;
    for (int i = 0; i < t[0]->rank; i++) {
        int64_t n = t[0]->dims[i], step[N];
        if (n == 1)
            continue;
        for (int k = 0; k < N; k++) {
            int at = i - (t[0]->rank - t[k]->rank);
            step[k] = at < 0 || t[k]->dims[at] == 1 ? 0 : t[k]->strides[at];
        }
        bool joins = w.rank > 0;
        for (int k = 0; k < N; k++)
            joins = joins && w.strides[k][w.rank - 1] == step[k] * n;
        int axis = joins ? w.rank - 1 : w.rank++;
        w.dims[axis] = joins ? w.dims[axis] * n : n;
        for (int k = 0; k < N; k++)
            w.strides[k][axis] = step[k];
        w.count *= n;
    }
    if (w.rank == 0)
        w.dims[w.rank++] = 1;
    return w;
}

/* May four neighbours be read and written together? `size` bytes an element of each operand. */
template <int N> inline bool walk_by4(const walk<N> &w, const size_t (&size)[N])
{
    int last = w.rank - 1;
    bool fits = w.dims[last] % 4 == 0;
    for (int k = 0; k < N; k++) {
        fits = fits && w.strides[k][last] == 1 && is_aligned(w.data[k], 4 * size[k]);
        for (int i = 0; i < last; i++)
            fits = fits && w.strides[k][i] % 4 == 0;
    }
    return fits;
}

/* Offsets of element i in all operands. */
template <int N>
__device__ __forceinline__ void walk_at(const walk<N> &w, int64_t i, int64_t (&at)[N])
{
    for (int k = 0; k < N; k++)
        at[k] = 0;
    for (int axis = w.rank - 1; axis > 0; axis--) {
        int64_t part;
        if (w.count <= 0x7FFFFFFF) { /* division of 32 bits is several times faster */
            uint32_t n = (uint32_t)w.dims[axis], rest = (uint32_t)i;
            part = rest % n;
            i = rest / n;
        } else {
            part = i % w.dims[axis];
            i /= w.dims[axis];
        }
        for (int k = 0; k < N; k++)
            at[k] += part * w.strides[k][axis];
    }
    for (int k = 0; k < N; k++)
        at[k] += i * w.strides[k][0];
}

#endif
