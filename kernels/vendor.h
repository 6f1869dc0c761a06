/* Products, convolutions and attention by NVIDIA's libraries, opened at run time.
 *
 * Nothing here knows tensors: shapes and strides in elements, device addresses, a stream. Each
 * function returns false when it did nothing (no library, no headers when this was built, a shape
 * or type that the library does not do, a failure): the caller then uses its own kernel. While
 * planning, the addresses are NULL and the answer is the one that a run will get; a run needs
 * VENDOR_WORKSPACE bytes of scratch, 256-byte aligned, whatever the shape.
 *
 * Items never influence each other: the libraries only ever see one item, in a call that is the
 * same for one and for many. The same call gives the same bits in every process: algorithms are
 * deterministic and are the heuristics' first choice, or the choice written down in a file
 * (choices.h). */
#ifndef OMNI_KERNELS_VENDOR_H
#define OMNI_KERNELS_VENDOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

struct vendor; /* of one device; its functions may be called from several threads */

/* What cuBLAS recommends for Hopper. */
#define VENDOR_WORKSPACE ((size_t)32 << 20)

/* Measures what `stream` does between start and stop; stop waits for it. */
struct vendor_clock {
    void *ctx;
    bool (*start)(void *ctx, void *stream);
    double (*stop)(void *ctx, void *stream); /* seconds; negative: it failed */
};

/* Opens what is there for the current device; NULL when none is, or when OMNIFS_CUDA_LIBRARIES is
 * "none". With `clock` (copied) and OMNIFS_CUDA_CHOICES=FILE the algorithms of products are chosen
 * by measuring once and written into that file; `device` names the device in it. */
struct vendor *vendor_open(const char *device, const struct vendor_clock *clock);
void vendor_close(struct vendor *v);
/* "cuBLASLt 13.1.0, cuDNN 9.19.0", "none"; never NULL. */
const char *vendor_text(const struct vendor *v);

enum vendor_type { VENDOR_F32, VENDOR_BF16, VENDOR_F16, VENDOR_E4M3 };

/* What the library could not do in the same pass, for the caller to do on y: first the bias, then
 * the activation. */
struct vendor_left {
    bool bias, act;
};

/* y[items, rows, n] = act(x[items, rows, k] · w[n, k]ᵀ + bias[n]); x_item and x_row are the
 * distances of items and rows, the last axis is dense. E4M3: x and w are multiplied by
 * x_scale[items] and *w_scale (fp32, on the device); y is BF16, F16 or F32 then. */
struct vendor_linear {
    int64_t items, rows, n, k;
    int64_t x_item, x_row, w_row, y_item, y_row;
    enum vendor_type type, y_type, bias_type; /* of x and w, y, bias */
    const void *x, *w, *bias;
    bool has_bias; /* while planning, bias is NULL */
    void *y;
    const float *x_scale, *w_scale;
    enum activation act;
};
bool vendor_linear(struct vendor *v, const struct vendor_linear *l, void *workspace, void *stream,
                   struct vendor_left *left);

/* y[items, ho, wo, co] = act(conv(x[items, h, w, ci]) + bias[co]) with all axes dense; the weights
 * are [co, kh, kw, ci]; pad = {top, bottom, left, right}. All but the bias have one type. */
struct vendor_conv {
    int64_t items, h, w, ci, co, kh, kw, ho, wo, stride;
    int pad[4];
    enum vendor_type type, bias_type;
    const void *x, *weights, *bias;
    bool has_bias;
    void *y;
    enum activation act;
};
bool vendor_conv(struct vendor *v, const struct vendor_conv *c, void *workspace, void *stream,
                 struct vendor_left *left);

/* y[items, tq, heads, d] = attention of q (shaped as y) over k and v [items, tk, groups, d], BF16
 * or F16; causal: query i sees keys 0 … i. Distances of items, positions and heads; d is dense. */
struct vendor_strides {
    int64_t item, position, head;
};
struct vendor_attention {
    int64_t items, tq, tk, heads, groups, d;
    struct vendor_strides qs, ks, vs, ys;
    enum vendor_type type;
    const void *q, *k, *v;
    void *y;
    float scale;
    bool causal;
};
bool vendor_attention(struct vendor *v, const struct vendor_attention *a, void *workspace,
                      void *stream);

#ifdef __cplusplus
}
#endif
#endif
