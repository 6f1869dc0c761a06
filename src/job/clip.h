/* The clip that a request gives: what is wanted of it is known before a frame is decoded, and its
 * frames are taken one by one, so that only what is wanted is ever in memory. */
#ifndef OMNIFS_JOB_CLIP_H
#define OMNIFS_JOB_CLIP_H

#include "job/run.h"

/* Fills in size, rate and number of frames of the request, and r->given_clip. Errors of the file;
 * -EINVAL: fewer frames than are asked for, or over a limit of the profile. */
int clip_plan(struct run *r, struct err *e);
/* The wanted frames into r->clip, each covering width x height by `how`. Says its progress as part
 * of the route. -ECANCELED, -ENOMEM, -EINVAL. */
int clip_read(struct run *r, int width, int height, enum media_scale how, struct err *e);

#endif
