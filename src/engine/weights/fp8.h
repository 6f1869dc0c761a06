/* 8-bit floats of safetensors files, and the scales that stand beside them.
 *
 * Sources: P. Micikevicius et al. 2022, FP8 formats for deep learning (arXiv 2209.05433): E4M3 has
 * no infinities and one NaN, E5M2 is the upper byte of a half. Names of scales as published files
 * have them: comfyanonymous/ComfyUI, comfy/ops.py (`scale_weight` with a tensor called
 * `scaled_fp8`; `weight_scale`). */
#ifndef OMNI_FP8_H
#define OMNI_FP8_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/weights/file.h"

void fp8_expand_e4m3(const void *values, int64_t count, float *out);
void fp8_expand_e5m2(const void *values, int64_t count, float *out);

/* Does fp8_take_scales take a tensor of this name off the list? */
bool fp8_is_scale(const char *name);
/* NAME.scale_weight or NAME.weight_scale, one number, becomes the `scale` of NAME.weight. They, the
 * scales of inputs and the markers leave the list. -ENOTSUP for scales by row or block, -EINVAL for
 * one that is no positive number, belongs to nothing, or stands beside a weight of other type. */
int fp8_take_scales(struct weights_file *f, struct err *e);

#endif
