/* Pictures that a request gives by name. */
#ifndef OMNIFS_JOB_REFERENCE_H
#define OMNIFS_JOB_REFERENCE_H

#include "job/run.h"
#include "media/media.h"

/* How pictures of this request may be read: within the memory that is left beside its model. */
void reference_limits(const struct run *r, struct media_limits *limits);
/* Reads the file `name` of the job folder; at width x height (cut evenly where the shape differs),
 * or at its own size where they are 0. The caller frees `out`. -EINVAL, -ENOENT …, -ENOMEM. */
int reference_read(const struct run *r, const char *name, enum media_read_as as, int width,
                   int height, struct picture *out, struct err *e);
/* A mode that keeps the size of what it is given, unless another is asked for: here it is known.
 * -EINVAL: over the profile's; `what` begins the sentence ("photo.png has"), `advice` ends it. */
int reference_size(struct run *r, const char *what, int width, int height, const char *advice,
                   struct err *e);
/* Reads what the model shall see into r->references and r->mask. */
int references_read(struct run *r, struct err *e);
/* Inpaint: puts the given picture back into every delivered one where the mask is black, to the
 * pixel; shades of gray mix the two. */
int references_keep(struct run *r, struct err *e);

#endif
