/* A picture on a larger canvas: what lies around it is drawn, with the mask of an inpainting. */
#ifndef OMNIFS_JOB_OUTPAINT_H
#define OMNIFS_JOB_OUTPAINT_H

#include "job/run.h"

/* Width and height of the first image with what `expand` adds. Errors of the file. */
int outpaint_size(const struct run *r, int *width, int *height, struct err *e);
/* The canvas (around the picture its mirror image, for strengths below 1 to start from) and the
 * mask, white where there was nothing, both covering width x height. The caller frees both. */
int outpaint_read(const struct run *r, int width, int height, struct picture *canvas,
                  struct picture *mask, struct err *e);

#endif
