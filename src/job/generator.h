/* The engine behind a small interface, so that jobs do not care what draws: Omni in the program, a
 * fast deterministic stub in tests. The functions mean what their namesakes in engine/omni.h say;
 * `model` is what load made. A model is used by one thread at a time. */
#ifndef OMNIFS_JOB_GENERATOR_H
#define OMNIFS_JOB_GENERATOR_H

#include "engine/omni.h"

struct generator {
    void *ctx; /* handed to load */
    int (*load)(void *ctx, const char *path, const struct omni_load_options *options, void **model,
                struct err *e);
    const struct omni_model_info *(*info)(const void *model);
    int (*plan)(void *model, const struct omni_request *requests, int count, uint64_t *bytes,
                struct err *e);
    int (*generate)(void *model, const struct omni_request *requests, int count,
                    const struct omni_callbacks *callbacks, struct omni_result *results,
                    struct omni_timings *timings, struct err *e);
    void (*free)(void *model);
    /* omni_device_list. NULL: names mean nothing to this generator. */
    int (*devices)(void *ctx, const char *list, struct omni_device *out, int max, int *count,
                   struct err *e);
};

extern const struct generator generator_omni;

#endif
