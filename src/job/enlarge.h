/* From the size that there is to the size that is asked for, as the profile says: by its networks
 * and a filter for what they leave, or by a filter alone. */
#ifndef OMNIFS_JOB_ENLARGE_H
#define OMNIFS_JOB_ENLARGE_H

#include "job/run.h"

/* Is it drawn at the profile's native size, whatever size is asked for? (native_only; what starts
 * from pictures has their aspect.) */
bool run_draws_native(const struct run *r);
/* Every frame gets the request's size. What was drawn for it covers it, and what stands over is cut
 * evenly; what was drawn natively fits into it, its background continued around it. Says its
 * progress as part of postprocessing. -ECANCELED, -ENOMEM, -EINVAL. */
int run_enlarge(struct run *r, struct picture *p, struct err *e);
/* Bytes that run_enlarge will use beyond the result for a clip of width x height, known before any
 * work. */
int run_enlarge_bytes(struct run *r, int width, int height, uint64_t *bytes, struct err *e);

#endif
