/* Warm upscalers of one device: the networks that profiles name as their `upscaler`. They are
 * small (megabytes) and stay once they were used. Used by one worker thread. */
#ifndef OMNIFS_JOB_UPSCALERS_H
#define OMNIFS_JOB_UPSCALERS_H

#include "engine/omni.h"
#include "job/registry.h"

struct upscalers {
    struct upscaler {
        char id[512];
        enum omni_precision precision;
        struct omni_upscaler *networks;
    } * list;
    int count;
};

/* The networks of a profile with an upscaler_model, loaded if need be. */
int upscalers_get(struct upscalers *u, const struct profile *p, const char *device, int threads,
                  struct omni_upscaler **out, struct err *e);
uint64_t upscalers_bytes(const struct upscalers *u); /* of all weights */
void upscalers_free(struct upscalers *u);

#endif
