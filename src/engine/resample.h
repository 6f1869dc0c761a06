/* Pictures at other sizes, byte for byte as Pillow makes them: the original pipelines see their
 * pictures through its Lanczos filter. Source: python-pillow/Pillow, src/libImaging/Resample.c. */
#ifndef OMNI_RESAMPLE_H
#define OMNI_RESAMPLE_H

#include "base/err.h"
#include "base/picture.h"

/* The first frame of `in` at width x height, by a Lanczos window of three lobes; the caller frees
 * `out`. -EINVAL (no pixels, sizes), -ENOMEM. */
int resample_lanczos(const struct picture *in, int width, int height, struct picture *out,
                     struct err *e);
/* Cuts width x height (at most in's own) out of the middle. */
int resample_center(const struct picture *in, int width, int height, struct picture *out,
                    struct err *e);

#endif
