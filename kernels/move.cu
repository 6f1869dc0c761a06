/* Moves: copies of any strides between any two float types, and zeros. */
#include "kernels/kernel.h"

template <class To, class From, int Wide> __global__ void copy(walk<2> w)
{
    for (int64_t i = grid_thread() * Wide; i < w.count; i += grid_threads() * Wide) {
        int64_t at[2];
        walk_at(w, i, at);
        To *to = static_cast<To *>(w.data[0]) + at[0];
        const From *from = static_cast<const From *>(w.data[1]) + at[1];
        GPU_UNROLL
        for (int e = 0; e < Wide; e++)
            to[e] = from_float<To>(to_float(from[e]));
    }
}

/* The same for bits of one size: `Wide` elements are one word. */
template <class Word, int Wide> __global__ void copy_words(walk<2> w, int size)
{
    for (int64_t i = grid_thread() * Wide; i < w.count; i += grid_threads() * Wide) {
        int64_t at[2];
        walk_at(w, i, at);
        *reinterpret_cast<Word *>(static_cast<char *>(w.data[0]) + at[0] * size) =
            *reinterpret_cast<const Word *>(static_cast<const char *>(w.data[1]) + at[1] * size);
    }
}

template <class To, class From> static void copy_cast(struct cuda *c, const walk<2> &w)
{
    if (walk_by4(w, {sizeof(To), sizeof(From)}))
        LAUNCH(blocks_for(w.count / 4), BLOCK_THREADS, 0, c->stream, copy<To, From, 4>)(w);
    else
        LAUNCH(blocks_for(w.count), BLOCK_THREADS, 0, c->stream, copy<To, From, 1>)(w);
}

template <class Four, class One> static void copy_same(struct cuda *c, const walk<2> &w)
{
    int size = (int)sizeof(One);
    if (walk_by4(w, {sizeof(One), sizeof(One)}))
        LAUNCH(blocks_for(w.count / 4), BLOCK_THREADS, 0, c->stream, copy_words<Four, 4>)
    (w, size);
    else LAUNCH(blocks_for(w.count), BLOCK_THREADS, 0, c->stream, copy_words<One, 1>)(w, size);
}

template <class To> static void copy_to(struct cuda *c, const walk<2> &w, enum dtype from)
{
    if (from == DTYPE_F32)
        copy_cast<To, float>(c, w);
    else if (from == DTYPE_BF16)
        copy_cast<To, bf16>(c, w);
    else
        copy_cast<To, f16>(c, w);
}

static void copy_any(struct cuda *c, const walk<2> &w, enum dtype to, enum dtype from)
{
    if (to == from && dtype_size(to) == 4)
        copy_same<uint4, uint32_t>(c, w);
    else if (to == from && dtype_size(to) == 2)
        copy_same<uint2, uint16_t>(c, w);
    else if (to == from)
        copy_same<uint32_t, uint8_t>(c, w);
    else if (to == DTYPE_F32)
        copy_to<float>(c, w, from);
    else if (to == DTYPE_BF16)
        copy_to<bf16>(c, w, from);
    else
        copy_to<f16>(c, w, from);
}

void cuda_copy(struct ops *o, struct tensor *y, const struct tensor *x)
{
    if (ops_planning(o))
        return;
    copy_any(cuda_here(o), walk_of<2>({y, x}), y->dtype, x->dtype);
    cuda_launched(o, "copy");
}

void cuda_fill_zero(struct ops *o, struct tensor *y)
{
    if (ops_planning(o))
        return;
    struct cuda *c = cuda_here(o);
    size_t bytes = (size_t)tensor_elements(y) * dtype_size(y->dtype);
    cuda_fail(o, c, driver_fill(c->stream, y->data, 0, bytes), "zeros");
}

/* ---- weights ---- */

static struct tensor dense(void *data, int64_t rows, int64_t columns, int64_t depth)
{
    struct tensor t = {};
    t.rank = 3;
    t.dims[0] = rows;
    t.dims[1] = columns;
    t.dims[2] = depth;
    t.strides[0] = columns * depth;
    t.strides[1] = depth;
    t.strides[2] = 1;
    t.data = data;
    return t;
}

void cuda_convert(struct cuda *c, void *to, enum dtype to_type, const void *from,
                  enum dtype from_type, int64_t n)
{
    struct tensor y = dense(to, 1, 1, n), x = dense(const_cast<void *>(from), 1, 1, n);
    copy_any(c, walk_of<2>({&y, &x}), to_type, from_type);
}

void cuda_convert_filter(struct cuda *c, void *to, enum dtype to_type, const void *from,
                         enum dtype from_type, int64_t co, int64_t ci, int64_t taps)
{
    struct tensor y = dense(to, co, taps, ci), x = dense(const_cast<void *>(from), co, taps, ci);
    x.strides[1] = 1;
    x.strides[2] = taps;
    copy_any(c, walk_of<2>({&y, &x}), to_type, from_type);
}
