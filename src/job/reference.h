/* Pictures that a request gives by name. */
#ifndef OMNIFS_JOB_REFERENCE_H
#define OMNIFS_JOB_REFERENCE_H

#include "job/run.h"

/* Reads the file `name` of the job folder; at width x height (cut evenly where the shape differs),
 * or at its own size where they are 0. The caller frees `out`. -EINVAL, -ENOENT …, -ENOMEM. */
int reference_read(const struct run *r, const char *name, enum media_read_as as, int width,
                   int height, struct picture *out, struct err *e);
/* Reads what the model shall see into r->references and r->mask. */
int references_read(struct run *r, struct err *e);
/* Inpaint: puts the given picture back into every delivered one where the mask is black, to the
 * pixel; shades of gray mix the two. */
int references_keep(struct run *r, struct err *e);

#endif
