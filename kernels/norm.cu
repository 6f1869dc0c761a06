/* Normalisations: RMSNorm, LayerNorm and its modulated form by rows; GroupNorm in two phases. */
#include "kernels/kernel.h"

/* ---- rows ---- */

#define SHORT_ROW 1024 /* elements that a warp does by itself; longer rows take a block */

struct row_norm {
    struct rows rows;
    void *y;
    bool narrow_x, narrow_y;
    const float *w, *b;         /* [C] or NULL */
    const float *shift, *scale; /* [B|1, C] or NULL */
    int64_t shift_pitch, scale_pitch, rows_per_item;
    float eps;
};

template <bool Warp> __device__ __forceinline__ float row_sum(float x)
{
    if constexpr (Warp)
        return warp_sum(x);
    else
        return block_sum(x);
}

__device__ __forceinline__ float affine_at(const row_norm &n, int64_t item, int64_t i, float v)
{
    if (n.w)
        v *= n.w[i];
    if (n.scale)
        v *= 1.0f + n.scale[item * n.scale_pitch + i];
    if (n.b)
        v += n.b[i];
    if (n.shift)
        v += n.shift[item * n.shift_pitch + i];
    return v;
}

/* A row's threads take elements in strides, four at a time where rows are aligned; the row stays in
 * the caches between its passes. `Centred`: the mean is taken off first (LayerNorm). */
template <bool Centred, bool Warp, int Wide> __global__ void norm_rows(row_norm n)
{
    int64_t threads = Warp ? GPU_WARP : blockDim.x, per_block = blockDim.x / threads;
    int64_t row = (int64_t)blockIdx.x * per_block + threadIdx.x / threads;
    if (row >= n.rows.count) /* whole warps or blocks */
        return;
    int64_t first = threadIdx.x % threads * Wide, step = threads * Wide, width = n.rows.width;
    int64_t x = rows_offset(n.rows, row), y = row * width;
    float mean = 0.0f, square = 0.0f, v[Wide];
    if constexpr (Centred) {
        for (int64_t i = first; i < width; i += step) {
            load_some<Wide>(v, n.rows.data, x + i, n.narrow_x);
            for (int e = 0; e < Wide; e++)
                mean += v[e];
        }
        mean = row_sum<Warp>(mean) / (float)width;
    }
    for (int64_t i = first; i < width; i += step) {
        load_some<Wide>(v, n.rows.data, x + i, n.narrow_x);
        for (int e = 0; e < Wide; e++)
            square += (v[e] - mean) * (v[e] - mean);
    }
    float r = 1.0f / sqrtf(row_sum<Warp>(square) / (float)width + n.eps);
    int64_t item = row / n.rows_per_item;
    for (int64_t i = first; i < width; i += step) {
        load_some<Wide>(v, n.rows.data, x + i, n.narrow_x);
        GPU_UNROLL
        for (int e = 0; e < Wide; e++)
            v[e] = affine_at(n, item, i + e, (v[e] - mean) * r);
        store_some<Wide>(n.y, y + i, n.narrow_y, v);
    }
}

template <bool Centred> static void run_rows(struct ops *o, const char *name, const row_norm &n)
{
    struct cuda *c = cuda_here(o);
    bool by4 = n.rows.by4 && is_aligned(n.y, 16);
    if (n.rows.width <= SHORT_ROW) {
        unsigned blocks =
            (unsigned)((n.rows.count + BLOCK_THREADS / GPU_WARP - 1) / (BLOCK_THREADS / GPU_WARP));
        if (by4)
            LAUNCH_SYNC(blocks, BLOCK_THREADS, 0, c->stream, norm_rows<Centred, true, 4>)(n);
        else
            LAUNCH_SYNC(blocks, BLOCK_THREADS, 0, c->stream, norm_rows<Centred, true, 1>)(n);
    } else {
        unsigned blocks = (unsigned)n.rows.count;
        if (by4)
            LAUNCH_SYNC(blocks, BLOCK_THREADS, 0, c->stream, norm_rows<Centred, false, 4>)(n);
        else
            LAUNCH_SYNC(blocks, BLOCK_THREADS, 0, c->stream, norm_rows<Centred, false, 1>)(n);
    }
    cuda_launched(o, name);
}

static const float *floats(const struct tensor *t)
{
    return t ? static_cast<const float *>(t->data) : nullptr;
}

void cuda_rms_norm(struct ops *o, struct tensor *y, const struct tensor *x, const struct tensor *w,
                   float eps)
{
    if (ops_planning(o))
        return;
    row_norm n = {
        rows_of(x), y->data, is_narrow(x), is_narrow(y), floats(w), nullptr, nullptr, nullptr, 0,
        0,          1,       eps};
    run_rows<false>(o, "rms_norm", n);
}

static int64_t item_pitch(const struct tensor *t)
{
    return t && t->dims[0] > 1 ? t->strides[0] : 0;
}

void cuda_layer_norm(struct ops *o, struct tensor *y, const struct tensor *x,
                     const struct tensor *w, const struct tensor *b, const struct tensor *shift,
                     const struct tensor *scale, float eps)
{
    if (ops_planning(o))
        return;
    row_norm n = {
        rows_of(x),    y->data,       is_narrow(x),      is_narrow(y),      floats(w), floats(b),
        floats(shift), floats(scale), item_pitch(shift), item_pitch(scale), 1,         eps};
    n.rows_per_item = x->rank > 1 ? n.rows.count / x->dims[0] : 1;
    run_rows<true>(o, "layer_norm", n);
}

/* ---- groups: sums ----
 *
 * Doubles, in an order that no split changes: pixels of a stretch of a row, one thread a channel;
 * the stretches and channels of a row and group, one warp; rows from the top to the bottom. */

#define STRETCH 64 /* pixels */

/* What OPS_GROUP_SUM bytes hold. */
struct group_sum {
    double count, sum, square;
};
static_assert(sizeof(struct group_sum) <= OPS_GROUP_SUM, "sums need more room");

struct group_job {
    struct rows pixels;
    int64_t items, height, width, channels, groups, stretches;
    double *parts; /* [items · height · stretches, 2, channels] */
    double *lines; /* [items · height, groups, 2] */
    unsigned char *sums;
};

__global__ void sum_stretches(group_job j)
{
    for (int64_t i = grid_thread(); i < j.items * j.height * j.stretches * j.channels;
         i += grid_threads()) {
        int64_t channel = i % j.channels, unit = i / j.channels;
        int64_t line = unit / j.stretches, first = unit % j.stretches * STRETCH;
        int64_t last = first + STRETCH < j.width ? first + STRETCH : j.width;
        double sum = 0, square = 0;
        for (int64_t p = first; p < last; p++) {
            double v = (double)j.pixels.data[rows_offset(j.pixels, line * j.width + p) + channel];
            sum += v;
            square += v * v;
        }
        j.parts[unit * 2 * j.channels + channel] = sum;
        j.parts[(unit * 2 + 1) * j.channels + channel] = square;
    }
}

/* One warp a row of pixels and group. */
__global__ void sum_lines(group_job j)
{
    int64_t warp = grid_thread() / GPU_WARP, lane = threadIdx.x % GPU_WARP;
    int64_t size = j.channels / j.groups, line = warp / j.groups, group = warp % j.groups;
    if (line >= j.items * j.height)
        return;
    double sum = 0, square = 0;
    for (int64_t i = lane; i < j.stretches * size; i += GPU_WARP) {
        int64_t unit = line * j.stretches + i / size, channel = group * size + i % size;
        sum += j.parts[unit * 2 * j.channels + channel];
        square += j.parts[(unit * 2 + 1) * j.channels + channel];
    }
    sum = warp_sum(sum);
    square = warp_sum(square);
    if (lane == 0) {
        j.lines[warp * 2] = sum;
        j.lines[warp * 2 + 1] = square;
    }
}

__global__ void add_lines(group_job j)
{
    int64_t i = grid_thread(), item = i / j.groups, group = i % j.groups;
    if (item >= j.items)
        return;
    struct group_sum *at = reinterpret_cast<struct group_sum *>(j.sums + i * OPS_GROUP_SUM);
    struct group_sum s = *at;
    const double *line = j.lines + (item * j.height * j.groups + group) * 2;
    GPU_UNROLL
    for (int64_t row = 0; row < j.height; row++) {
        s.sum += line[row * j.groups * 2];
        s.square += line[row * j.groups * 2 + 1];
    }
    s.count += (double)(j.height * j.width * (j.channels / j.groups));
    *at = s;
}

void cuda_group_sums_add(struct ops *o, struct tensor *sums, const struct tensor *x)
{
    group_job j = {rows_of(x),
                   x->dims[0],
                   x->dims[1],
                   x->dims[2],
                   x->dims[3],
                   sums->dims[1],
                   (x->dims[2] + STRETCH - 1) / STRETCH,
                   nullptr,
                   nullptr,
                   static_cast<unsigned char *>(sums->data)};
    int64_t units = j.items * j.height * j.stretches, lines = j.items * j.height * j.groups;
    j.parts =
        static_cast<double *>(ops_scratch(o, (size_t)(units * 2 * j.channels) * sizeof(double)));
    j.lines = static_cast<double *>(ops_scratch(o, (size_t)(lines * 2) * sizeof(double)));
    if (ops_planning(o) || !j.parts || !j.lines)
        return;
    struct cuda *c = cuda_here(o);
    LAUNCH(blocks_for(units * j.channels), BLOCK_THREADS, 0, c->stream, sum_stretches)(j);
    LAUNCH_SYNC((unsigned)((lines * GPU_WARP + BLOCK_THREADS - 1) / BLOCK_THREADS), BLOCK_THREADS,
                0, c->stream, sum_lines)
    (j);
    LAUNCH((unsigned)((j.items * j.groups + GPU_WARP - 1) / GPU_WARP), GPU_WARP, 0, c->stream,
           add_lines)
    (j);
    cuda_launched(o, "group_sums_add");
}

/* ---- groups: norm ---- */

struct group_scale {
    const unsigned char *sums;
    const float *w, *b;
    float *factors; /* [items, 2, channels]: y = act(x · factor + offset) */
    int64_t items, channels, groups;
    double eps;
};

__global__ void take_factors(group_scale s)
{
    int64_t i = grid_thread(), item = i / s.channels, channel = i % s.channels;
    if (item >= s.items)
        return;
    int64_t group = channel / (s.channels / s.groups);
    const struct group_sum *sum = reinterpret_cast<const struct group_sum *>(
        s.sums + (item * s.groups + group) * OPS_GROUP_SUM);
    double mean = sum->sum / sum->count, variance = sum->square / sum->count - mean * mean;
    double r = 1.0 / sqrt((variance < 0 ? 0 : variance) + s.eps); /* NaN stays */
    double f = r * (double)(s.w ? s.w[channel] : 1.0f);
    float *factor = s.factors + item * 2 * s.channels + channel;
    factor[0] = (float)f;
    factor[s.channels] = (float)((double)(s.b ? s.b[channel] : 0.0f) - mean * f);
}

template <int Wide>
__global__ void norm_groups(struct rows pixels, float *y, const float *factors, int64_t per_item,
                            enum activation act)
{
    int64_t channels = pixels.width, count = pixels.count * channels;
    for (int64_t i = grid_thread() * Wide; i < count; i += grid_threads() * Wide) {
        int64_t pixel = i / channels, channel = i % channels;
        const float *x = pixels.data + rows_offset(pixels, pixel) + channel;
        const float *f = factors + pixel / per_item * 2 * channels + channel;
        float v[Wide];
        if constexpr (Wide == 4)
            load4(v, x);
        else
            v[0] = *x;
        GPU_UNROLL
        for (int e = 0; e < Wide; e++)
            v[e] = gpu_act(v[e] * f[e] + f[channels + e], act);
        if constexpr (Wide == 4)
            store4(y + i, v);
        else
            y[i] = v[0];
    }
}

void cuda_group_norm_rows(struct ops *o, struct tensor *y, const struct tensor *x,
                          const struct tensor *sums, const struct tensor *w, const struct tensor *b,
                          float eps, enum activation act)
{
    group_scale s = {static_cast<const unsigned char *>(sums->data),
                     floats(w),
                     floats(b),
                     nullptr,
                     x->dims[0],
                     x->dims[3],
                     sums->dims[1],
                     (double)eps};
    s.factors =
        static_cast<float *>(ops_scratch(o, (size_t)(s.items * 2 * s.channels) * sizeof(float)));
    if (ops_planning(o) || !s.factors)
        return;
    struct cuda *c = cuda_here(o);
    struct rows pixels = rows_of(x);
    int64_t count = tensor_elements(x), per_item = x->dims[1] * x->dims[2];
    float *out = static_cast<float *>(y->data);
    LAUNCH((unsigned)((s.items * s.channels + BLOCK_THREADS - 1) / BLOCK_THREADS), BLOCK_THREADS, 0,
           c->stream, take_factors)
    (s);
    if (pixels.by4 && is_aligned(out, 16))
        LAUNCH(blocks_for(count / 4), BLOCK_THREADS, 0, c->stream, norm_groups<4>)
    (pixels, out, s.factors, per_item, act);
    else LAUNCH(blocks_for(count), BLOCK_THREADS, 0, c->stream,
                norm_groups<1>)(pixels, out, s.factors, per_item, act);
    cuda_launched(o, "group_norm_rows");
}
