/* Between the two halves of adapters.h: matching (adapters.c) and arithmetic (patch.c). */
#ifndef OMNI_ADAPTERS_INTERNAL_H
#define OMNI_ADAPTERS_INTERNAL_H

#include "engine/checkpoint.h"
#include "engine/weights/lora.h"
#include "engine/weights/rename.h"

/* What one LoRA does to one weight. */
struct term {
    int part;      /* of the checkpoint */
    size_t weight; /* of the part's loader.list */
    int file;      /* of the set */
    const struct lora_module *module;
    const struct weights_entry *diff; /* added as it is; NULL: the pair's product is */
    float scale;
    bool original; /* matched by the authors' naming, not the model's own */
    enum rename_change change;
    int third;
};

struct patch_job {
    const struct weight_loader *loader;
    const struct term *terms; /* [count], all of one weight */
    size_t count;
    bool (*cancelled)(void *ctx);
    void *ctx;
};

/* The values of a weight summed with the terms, in `type`, into `out`. */
int patch_values(const struct patch_job *j, enum dtype type, void *out, struct err *e);
/* Does the term fit the weight? -EINVAL with a sentence. */
int patch_check(const struct weight_loader *l, const struct term *t, struct err *e);

#endif
