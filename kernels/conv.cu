/* conv2d as an implicit product: row m of the left matrix is the window of output pixel m, gathered
 * while it is loaded; the filters are [Co, kh·kw·Ci], as weight.c keeps them. No buffer of windows
 * is ever made. */
#include <errno.h>

#include "kernels/product.h"

struct windows {
    const float *x;
    int64_t item_pitch, row_pitch, pixel_pitch; /* elements */
    int height, width, channels, out_height, out_width, kernel_width, stride, top, left;
    bool by4; /* four channels can be read at a time */

    struct row {
        const float *item; /* NULL: beyond the last pixel */
        int y, x;          /* the window's corner, in x; may lie outside */
        __device__ __forceinline__ float one(const windows &w, int tap, int channel) const
        {
            int at_y = y + tap / w.kernel_width, at_x = x + tap % w.kernel_width;
            if (at_y < 0 || at_y >= w.height || at_x < 0 || at_x >= w.width)
                return 0.0f;
            return item[at_y * w.row_pitch + at_x * w.pixel_pitch + channel];
        }
        __device__ __forceinline__ void four(float out[4], const windows &w, int tap,
                                             int channel) const
        {
            int at_y = y + tap / w.kernel_width, at_x = x + tap % w.kernel_width;
            if (at_y < 0 || at_y >= w.height || at_x < 0 || at_x >= w.width) {
                out[0] = out[1] = out[2] = out[3] = 0.0f;
                return;
            }
            load4(out, item + at_y * w.row_pitch + at_x * w.pixel_pitch + channel);
        }
        __device__ __forceinline__ void load(float out[UNIT], const windows &w, int64_t k,
                                             int64_t end) const
        {
            int tap = (int)k / w.channels, channel = (int)k % w.channels;
            GPU_UNROLL
            for (int e = 0; e < UNIT; e += 4) {
                if (w.by4) {
                    if (item && k + e < end)
                        four(out + e, w, tap, channel);
                    else
                        out[e] = out[e + 1] = out[e + 2] = out[e + 3] = 0.0f;
                    channel += 4;
                } else {
                    for (int i = e; i < e + 4; i++) {
                        out[i] = item && k + i < end ? one(w, tap, channel) : 0.0f;
                        if (++channel == w.channels) {
                            channel = 0;
                            tap++;
                        }
                    }
                }
                if (channel == w.channels) {
                    channel = 0;
                    tap++;
                }
            }
        }
    };
    __device__ __forceinline__ row find(int64_t i, int64_t count) const
    {
        if (i >= count)
            return {nullptr, 0, 0};
        int64_t column = i % out_width, line = i / out_width;
        return {x + line / out_height * item_pitch, (int)(line % out_height) * stride - top,
                (int)column * stride - left};
    }
};

static windows windows_of(const struct tensor *y, const struct tensor *x, const struct tensor *w,
                          int stride, const int pad[4])
{
    windows v = {};
    v.x = static_cast<const float *>(x->data);
    v.item_pitch = x->strides[0];
    v.row_pitch = x->strides[1];
    v.pixel_pitch = x->strides[2];
    v.height = (int)x->dims[1];
    v.width = (int)x->dims[2];
    v.channels = (int)x->dims[3];
    v.out_height = (int)y->dims[1];
    v.out_width = (int)y->dims[2];
    v.kernel_width = (int)w->dims[3];
    v.stride = stride;
    v.top = pad[0];
    v.left = pad[2];
    v.by4 = is_aligned(x->data, 16) && x->dims[3] % 4 == 0;
    for (int i = 0; i < 3; i++)
        v.by4 = v.by4 && (x->dims[i] == 1 || x->strides[i] % 4 == 0);
    return v;
}

void cuda_conv2d(struct ops *o, struct tensor *y, const struct tensor *x, const struct tensor *w,
                 const struct tensor *bias, int stride, const int pad[4], enum activation act)
{
    struct cuda *c = cuda_of(ops_backend(o));
    if (c->library.conv2d && c->library.conv2d(c, o, y, x, w, bias, stride, pad, act)) {
        cuda_launched(o, "conv2d");
        return;
    }
    product p = {};
    p.n = w->dims[0];
    p.k = w->dims[1] * w->dims[2] * w->dims[3];
    p.m = tensor_elements(y) / p.n;
    if (!w->prepared || p.k > INT32_MAX || p.m > INT64_C(1) << 36) {
        ops_fail(o, -EINVAL, "conv2d: %s: the filter is no weight, or too large", c->base.name);
        return;
    }
    if (ops_planning(o))
        return;
    p.w = w->data;
    p.pitch = p.k;
    p.w_by4 = p.k % 4 == 0;
    p.bias = bias ? static_cast<const float *>(bias->data) : nullptr;
    p.y = y->data;
    p.act = act;
    windows v = windows_of(y, x, w, stride, pad);
    c = cuda_here(o);
    if (w->dtype == DTYPE_BF16)
        run_product<windows, bf16>(c, p, v, ops_compute(o));
    else
        run_product<windows, float>(c, p, v, ops_compute(o));
    cuda_launched(o, "conv2d");
}
