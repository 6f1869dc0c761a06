/* Warm models of one device: loaded when first needed, kept, and unloaded least recently used first
 * when memory is short. Used by one worker thread; the reports may be asked from any thread. */
#ifndef OMNIFS_JOB_MODELS_H
#define OMNIFS_JOB_MODELS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "job/generator.h"

struct models;
struct model;

/* The devices of the registry as `g` finds them, at most the first `max`: what `use` names, else
 * OMNIFS_DEVICE, else the best there are. -EINVAL, -ENODEV: one that is named and does not open. */
struct registry_devices;
int devices_find(const struct generator *g, const struct registry_devices *d,
                 struct omni_device *out, int max, int *count, struct err *e);

/* `device` (copied) as devices_find() says; NULL: the generator's own choice. `budget`: bytes for
 * weights and work together; 0: from the machine, or from the device where that has memory of its
 * own, over which no budget goes. `threads` 0: all. */
int models_new(const struct generator *g, const struct omni_device *device, uint64_t budget,
               int threads, struct models **out, struct err *e);
void models_free(struct models *m);

/* The model of a profile, with the parts that it names, loaded if need be. A model that failed to
 * load fails again with the same sentence until its files change or models_retry(); not so where
 * the device was out of memory or lost (-ENODEV, see models_lost). */
struct profile;
int models_get(struct models *m, const struct profile *p, struct model **out, struct err *e);
/* Forgets failures (the registry was reloaded). */
void models_retry(struct models *m);
const struct omni_model_info *model_info(const struct model *m);

/* How many of `count` equal requests may be drawn at once within the budget, exactly, weights
 * included; unloads other models where that helps. `bytes`: planned for that many. -ENOMEM names
 * bytes needed and allowed; -EINVAL: the model cannot do this. */
int models_admit(struct models *m, struct model *model, const struct omni_request *requests,
                 int count, int *fit, uint64_t *bytes, struct err *e);
/* Is there room for `bytes` of pixels beside this model (NULL: none)? -ENOMEM names bytes needed
 * and allowed. */
int models_room(struct models *m, const struct model *model, uint64_t bytes, struct err *e);
/* Bytes that are left of the budget beside this model (NULL: none), other models unloaded. */
uint64_t models_left(const struct models *m, const struct model *model);
/* Draws what models_admit() let in, with what it `planned`. Where the device has no memory left all
 * the same, every other model is unloaded and the same is tried once more; then -ENOMEM names bytes
 * needed and free. */
int models_generate(struct models *m, struct model *model, const struct omni_request *requests,
                    int count, uint64_t planned, const struct omni_callbacks *callbacks,
                    struct omni_result *results, struct omni_timings *timings, struct err *e);

/* The device is gone: loading and drawing gave -ENODEV and will always do. `why` (may be NULL) has
 * the sentence. */
bool models_lost(struct models *m, struct err *why);
/* Unloads every model; only the models' own thread may ask for it. */
void models_unload(struct models *m);

/* The networks that enlarge for a profile with an upscaler_model, loaded if need be. */
struct omni_upscaler;
int models_upscaler(struct models *m, const struct profile *p, struct omni_upscaler **out,
                    struct err *e);

/* Does the profile's model load, as far as known? false: `why` has the sentence. */
bool models_available(struct models *m, const struct profile *p, struct err *why);
struct models_report {
    char id[256];
    char family[48], precision[16], device[32];
    uint64_t weight_bytes; /* in memory now */
    bool loaded;
    char error[480];
};
/* Copies of what is known about every model met so far; the caller frees. */
int models_report(struct models *m, struct models_report **out, int *count);
uint64_t models_budget(const struct models *m);
const char *models_device(const struct models *m); /* "cuda:0"; "": the generator's own choice */
/* How often the device had no memory for what the plan let in. */
uint64_t models_out_of_memory(struct models *m);
uint64_t models_loaded_bytes(struct models *m);

/* Bytes this process may use: the least of RAM and its control group's limit. */
uint64_t memory_total(void);
/* Bytes of this process that are in memory now. */
uint64_t memory_resident(void);
/* Bytes it could still get: the least of what the machine has available and of what is left of
 * memory_total(). */
uint64_t memory_available(void);

#endif
