/* Pictures: upsampling, finished 8-bit pixels, and the check for NaN and infinity. */
#include "kernels/kernel.h"

/* ---- upsample_nearest ---- */

struct upsampling {
    const float *x;
    float *y;
    int64_t strides[3];                     /* of items, rows, pixels of x */
    int64_t height, width, channels, count; /* of y; elements of y */
    int factor;
};

template <int Wide> __global__ void upsample_nearest(upsampling u)
{
    for (int64_t i = grid_thread() * Wide; i < u.count; i += grid_threads() * Wide) {
        int64_t channel = i % u.channels, pixel = i / u.channels;
        int64_t column = pixel % u.width, line = pixel / u.width;
        int64_t row = line % u.height, item = line / u.height;
        const float *x = u.x + item * u.strides[0] + row / u.factor * u.strides[1] +
                         column / u.factor * u.strides[2] + channel;
        if constexpr (Wide == 4) {
            float v[4];
            load4(v, x);
            store4(u.y + i, v);
        } else {
            u.y[i] = *x;
        }
    }
}

void cuda_upsample_nearest(struct ops *o, struct tensor *y, const struct tensor *x, int factor)
{
    if (ops_planning(o))
        return;
    struct cuda *c = cuda_here(o);
    upsampling u = {static_cast<const float *>(x->data),
                    static_cast<float *>(y->data),
                    {x->strides[0], x->strides[1], x->strides[2]},
                    y->dims[1],
                    y->dims[2],
                    y->dims[3],
                    tensor_elements(y),
                    factor};
    if (rows_of(x).by4 && is_aligned(y->data, 16))
        LAUNCH(blocks_for(u.count / 4), BLOCK_THREADS, 0, c->stream, upsample_nearest<4>)(u);
    else
        LAUNCH(blocks_for(u.count), BLOCK_THREADS, 0, c->stream, upsample_nearest<1>)(u);
    cuda_launched(o, "upsample_nearest");
}

/* ---- to_u8 ---- */

__global__ void to_u8(walk<2> w, float scale, float offset)
{
    for (int64_t i = grid_thread(); i < w.count; i += grid_threads()) {
        int64_t at[2];
        walk_at(w, i, at);
        float v = static_cast<const float *>(w.data[1])[at[1]] * scale + offset;
        v = v < 0.0f ? 0.0f : v;
        v = v > 1.0f ? 1.0f : v;
        static_cast<uint8_t *>(w.data[0])[at[0]] =
            v == v ? (uint8_t)__float2int_rn(v * 255.0f) : (uint8_t)0;
    }
}

void cuda_to_u8(struct ops *o, struct tensor *y, const struct tensor *x, float scale, float offset)
{
    if (ops_planning(o))
        return;
    struct cuda *c = cuda_here(o);
    walk<2> w = walk_of<2>({y, x});
    LAUNCH(blocks_for(w.count), BLOCK_THREADS, 0, c->stream, to_u8)(w, scale, offset);
    cuda_launched(o, "to_u8");
}

/* ---- all_finite ---- */

/* flag[0] = min(flag[0], note): many threads may write, and all write the same. */
__global__ void find_infinite(walk<1> w, int32_t *flag, int32_t note)
{
    bool found = false;
    for (int64_t i = grid_thread(); i < w.count; i += grid_threads()) {
        int64_t at[1];
        walk_at(w, i, at);
        uint32_t bits = gpu_float_bits(static_cast<const float *>(w.data[0])[at[0]]);
        found = found || (bits & 0x7FFFFFFFu) >= 0x7F800000u;
    }
    if (found && note < *flag)
        *flag = note;
}

static void note_infinite(struct ops *o, int32_t *flag, const struct tensor *x, int32_t note)
{
    struct cuda *c = cuda_here(o);
    walk<1> w = walk_of<1>({x});
    LAUNCH(blocks_for(w.count), BLOCK_THREADS, 0, c->stream, find_infinite)(w, flag, note);
    cuda_launched(o, "all_finite");
}

void cuda_finite_note(struct ops *o, struct tensor *flag, const struct tensor *x, int32_t note)
{
    note_infinite(o, static_cast<int32_t *>(flag->data), x, note);
}

bool cuda_all_finite(struct ops *o, const struct tensor *x)
{
    struct cuda *c = cuda_of(ops_backend(o));
    int32_t *note = c->notes + NOTE_INFINITE, notes[NOTE_COUNT];
    note_infinite(o, note, x, -1);
    if (!cuda_settle(o, c, notes))
        return false;
    if (notes[NOTE_INFINITE])
        (void)driver_fill(c->stream, note, 0, sizeof *note);
    return !notes[NOTE_INFINITE];
}
