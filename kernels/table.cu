/* Operations that move values by position: rotary embedding, rows of a table, embedded times. */
#include "kernels/kernel.h"

/* ---- rope ---- */

struct rotation {
    const void *x;
    const float *cos, *sin;
    void *y;
    bool narrow_x, narrow_y;
    int64_t strides[3];                 /* of items, tokens, heads of x */
    int64_t cos_pitch, sin_pitch;       /* of tokens */
    int64_t tokens, heads, half, count; /* pairs of all */
    bool interleaved;
};

__global__ void rope(rotation r)
{
    for (int64_t i = grid_thread(); i < r.count; i += grid_threads()) {
        int64_t pair = i % r.half, row = i / r.half;
        int64_t head = row % r.heads, place = row / r.heads;
        int64_t token = place % r.tokens, item = place / r.tokens;
        int64_t first = r.interleaved ? 2 * pair : pair;
        int64_t second = r.interleaved ? first + 1 : first + r.half;
        int64_t x = item * r.strides[0] + token * r.strides[1] + head * r.strides[2];
        int64_t y = row * 2 * r.half;
        float a, b;
        load_some<1>(&a, r.x, x + first, r.narrow_x);
        load_some<1>(&b, r.x, x + second, r.narrow_x);
        float c = r.cos[token * r.cos_pitch + pair], s = r.sin[token * r.sin_pitch + pair];
        float turned[2] = {a * c - b * s, b * c + a * s};
        store_some<1>(r.y, y + first, r.narrow_y, &turned[0]);
        store_some<1>(r.y, y + second, r.narrow_y, &turned[1]);
    }
}

void cuda_rope(struct ops *o, struct tensor *y, const struct tensor *x, const struct tensor *cos,
               const struct tensor *sin, bool interleaved)
{
    if (ops_planning(o))
        return;
    struct cuda *c = cuda_here(o);
    rotation r = {x->data,
                  static_cast<const float *>(cos->data),
                  static_cast<const float *>(sin->data),
                  y->data,
                  is_narrow(x),
                  is_narrow(y),
                  {x->strides[0], x->strides[1], x->strides[2]},
                  cos->strides[0],
                  sin->strides[0],
                  x->dims[1],
                  x->dims[2],
                  x->dims[3] / 2,
                  tensor_elements(x) / 2,
                  interleaved};
    LAUNCH(blocks_for(r.count), BLOCK_THREADS, 0, c->stream, rope)(r);
    cuda_launched(o, "rope");
}

/* ---- embedding ---- */

struct lookup {
    const void *table;
    const int32_t *ids;
    float *y;
    int64_t pitch, length, width; /* of the table: elements a row, rows, columns */
    int64_t item_pitch, tokens;   /* of ids */
    int64_t count;                /* elements of y */
    int32_t *notes;
};

/* An id outside the table is noted, and its row is zero. */
template <class T> __global__ void embedding(lookup l)
{
    for (int64_t i = grid_thread(); i < l.count; i += grid_threads()) {
        int64_t column = i % l.width, row = i / l.width;
        int32_t id = l.ids[row / l.tokens * l.item_pitch + row % l.tokens];
        bool inside = id >= 0 && id < l.length;
        if (!inside && column == 0) {
            l.notes[NOTE_OUTSIDE] = 1;
            l.notes[NOTE_ID] = id;
        }
        l.y[i] = inside ? to_float(static_cast<const T *>(l.table)[id * l.pitch + column]) : 0.0f;
    }
}

void cuda_embedding(struct ops *o, struct tensor *y, const struct tensor *table,
                    const struct tensor *ids)
{
    if (ops_planning(o))
        return;
    struct cuda *c = cuda_here(o);
    lookup l = {table->data,
                static_cast<const int32_t *>(ids->data),
                static_cast<float *>(y->data),
                table->strides[0],
                table->dims[0],
                table->dims[1],
                ids->strides[0],
                ids->dims[1],
                tensor_elements(y),
                c->notes};
    unsigned blocks = blocks_for(l.count);
    if (table->dtype == DTYPE_F32)
        LAUNCH(blocks, BLOCK_THREADS, 0, c->stream, embedding<float>)(l);
    else if (table->dtype == DTYPE_BF16)
        LAUNCH(blocks, BLOCK_THREADS, 0, c->stream, embedding<bf16>)(l);
    else
        LAUNCH(blocks, BLOCK_THREADS, 0, c->stream, embedding<f16>)(l);
    cuda_launched(o, "embedding");
}

/* ---- timestep_embedding ---- */

/* Rounded to fp32 at each step as the reference does (diffusers get_timestep_embedding). */
__global__ void timestep_embedding(float *y, const float *t, int64_t pitch, int64_t half,
                                   int64_t count, bool cos_first, float shift)
{
    for (int64_t i = grid_thread(); i < count; i += grid_threads()) {
        int64_t k = i % half, row = i / half;
        float exponent = -9.210340371976184f * (float)k / ((float)half - shift);
        float angle = t[row * pitch] * expf(exponent);
        float *first = y + row * 2 * half + k;
        first[0] = cos_first ? cosf(angle) : sinf(angle);
        first[half] = cos_first ? sinf(angle) : cosf(angle);
    }
}

void cuda_timestep_embedding(struct ops *o, struct tensor *y, const struct tensor *t,
                             bool cos_first, float shift)
{
    if (ops_planning(o))
        return;
    struct cuda *c = cuda_here(o);
    int64_t half = y->dims[1] / 2, count = y->dims[0] * half;
    LAUNCH(blocks_for(count), BLOCK_THREADS, 0, c->stream, timestep_embedding)
    (static_cast<float *>(y->data), static_cast<const float *>(t->data), t->strides[0], half, count,
     cos_first, shift);
    cuda_launched(o, "timestep_embedding");
}
