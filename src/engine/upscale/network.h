/* Super-resolution networks, class OmniUpscaler: a 3x3 filter to C channels, residual blocks
 * x + conv2(silu(conv1(x))) of 3x3 filters, a 3x3 filter to scale² pixels for each one, which are
 * added to the bicubic enlargement (torch's interpolate, edges repeated).
 *
 * config.json: scale (2 … 4), channels, blocks, and cubic, the a of the bicubic enlargement (-0.75;
 * interpolate with antialias has -0.5). Tensors: conv_in, blocks.N.conv1, blocks.N.conv2,
 * conv_out, each .weight and .bias. */
#ifndef OMNI_UPSCALE_NETWORK_H
#define OMNI_UPSCALE_NETWORK_H

#include "base/err.h"
#include "engine/checkpoint.h"
#include "engine/ops.h"

#define UPSCALE_CLASS "OmniUpscaler"
#define UPSCALE_STEM  "diffusion_pytorch_model"
/* Where a checkpoint has them: the first must be there to enlarge with it, the other may be. */
#define UPSCALE_NETWORKS 2
extern const char *const upscale_parts[UPSCALE_NETWORKS];

struct upscale_network;

/* `p`, with backend and compute of its loader set, outlives the network. */
int upscale_network_load(struct part *p, struct upscale_network **out, struct err *e);
void upscale_network_free(struct upscale_network *n);
/* Opens network `i` of a checkpoint, shapes only, and asks for all its tensors; false where there
 * is none. What is wrong with it is in `e`; part_close(p) in any case of true. */
bool upscale_network_look(struct checkpoint *c, int i, struct part *p, struct err *e);
int upscale_network_scale(const struct upscale_network *n);
int upscale_network_channels(const struct upscale_network *n);
/* Rows and columns of the picture around a pixel that its result depends on, each way. */
int upscale_network_reach(const struct upscale_network *n);

/* How many more rows and columns than its own the network is given on every side: those beside
 * them, or where the picture ends, its last ones again. */
#define UPSCALE_BORDER 2
/* [1, h + 4, w + 4, 3] in 0 … 1 → [1, h, w, 3·scale²], not clamped: channel c·scale² + y·scale + x
 * is colour c of pixel (y, x) in the place of the one that was. Outside of the h x w the filters
 * see zeros. */
struct tensor *upscale_network_run(const struct upscale_network *n, struct ops *o,
                                   const struct tensor *bordered);

/* Bytes of a map of features in a band, otherwise than usual: to compare, not to draw. */
struct omni_upscaler;
void upscale_set_band(struct omni_upscaler *u, int64_t bytes);

#endif
