/* From the size that there is to the size that is asked for, as the profile says: by its networks
 * and a filter for what they leave, or by a filter alone. */
#ifndef OMNIFS_JOB_ENLARGE_H
#define OMNIFS_JOB_ENLARGE_H

#include "job/run.h"

/* Every frame covers width x height then; what stands over is cut evenly. Says its progress as
 * part of postprocessing. -ECANCELED, -ENOMEM, -EINVAL. */
int run_enlarge(struct run *r, struct picture *p, int width, int height, struct err *e);
/* Is it drawn at the profile's native size, whatever size is asked for? (native_only; what starts
 * from pictures has their aspect.) */
bool run_draws_native(const struct run *r);
/* The size that was asked for: enlarged as far as it fits, its background continued around it where
 * it was drawn in another aspect. */
int run_enlarge_native(struct run *r, struct picture *p, int width, int height, struct err *e);
/* Bytes that run_enlarge will use beyond the result, known before any work. */
int run_enlarge_bytes(struct run *r, int from_width, int from_height, int width, int height,
                      uint64_t *bytes, struct err *e);

#endif
