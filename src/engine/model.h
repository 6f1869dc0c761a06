/* A loaded model, as the files behind omni.h share it. */
#ifndef OMNI_MODEL_H
#define OMNI_MODEL_H

#include "engine/adapters.h"
#include "engine/checkpoint.h"
#include "engine/device.h"
#include "engine/models/family.h"
#include "engine/omni.h"
#include "engine/prompt_cache.h"
#include "engine/schedule/schedule.h"

struct omni_model {
    struct device device;
    struct checkpoint checkpoint;
    const struct family *family;
    void *state; /* the family's */
    struct family_traits traits;
    struct schedule_config schedule;
    struct prompt_cache *prompts;
    struct adapters *adapters;
    uint64_t memory; /* bytes for weights and work together; 0: no bound */
    struct omni_model_info info;
};

/* omni_model_load; with `shapes_only` no weight is read, and the model is good for plans alone.
 * What was opened before a failure stays in *m, for inspection: model_close frees it. */
int model_open(struct omni_model *m, const char *path, const struct omni_load_options *options,
               bool shapes_only, struct err *e);
void model_close(struct omni_model *m);
/* The code of `e`, made what device_error() says. */
int model_error(const struct omni_model *m, struct err *e);
/* What inspection opens a model with: shapes need no device but the CPU. Of `stated` (may be NULL)
 * the parts count. */
struct omni_load_options options_for_looking(const struct omni_load_options *stated);
/* The type of products that a precision means on a device (of fp8: of all others). */
int model_compute(const struct device *d, enum omni_precision p, enum dtype *out, struct err *e);

#endif
