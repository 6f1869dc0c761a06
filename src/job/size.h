/* Sizes: what the model is asked to draw for a requested size, and how that becomes the requested
 * size again. */
#ifndef OMNIFS_JOB_SIZE_H
#define OMNIFS_JOB_SIZE_H

#include "base/err.h"
#include "base/picture.h"
#include "media/media.h"

/* The size to draw for a request of width x height: multiples of `multiple`, with nearly the same
 * aspect. Where the request has more pixels than native (0 x 0: none), about as many as native;
 * else just enough to cover the request. */
void size_to_draw(int width, int height, int native_width, int native_height, int multiple,
                  int *draw_width, int *draw_height);

/* Does size_cover cut nothing off? */
bool size_same_shape(const struct picture *in, int width, int height);
/* Scales every frame so that it covers width x height and cuts what stands over, evenly on both
 * sides. The caller frees `out`. -EINVAL, -ENOMEM. */
int size_cover(const struct picture *in, int width, int height, enum media_scale how,
               struct picture *out, struct err *e);
/* The same of one frame, into frame `index` of `out` and at its size. -EINVAL, -ENOMEM. */
int size_cover_frame(const struct picture *in, enum media_scale how, struct picture *out, int index,
                     struct err *e);

/* The largest size of that aspect that fits into width x height. */
void size_fit(int in_width, int in_height, int width, int height, int *fit_width, int *fit_height);

/* Frame `in` (one) in the middle of frame `index` of `out`, which is at least its size, with its
 * outermost pixels continued to the edges, smoother farther out. -ENOMEM. */
int size_extend_frame(const struct picture *in, struct picture *out, int index, struct err *e);

#endif
