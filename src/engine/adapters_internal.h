/* Between the two halves of adapters.h: matching (adapters.c) and arithmetic (patch.c). */
#ifndef OMNI_ADAPTERS_INTERNAL_H
#define OMNI_ADAPTERS_INTERNAL_H

#include "engine/checkpoint.h"
#include "engine/weights/lora.h"
#include "engine/weights/rename.h"

/* What one LoRA does to one weight. */
struct term {
    int part;      /* of the checkpoint */
    size_t weight; /* of the part's loader.owned */
    int file;      /* of the set */
    const struct lora_module *module;
    const struct weights_entry *diff; /* added as it is; NULL: the pair's product is */
    float scale;
    bool original; /* matched by the authors' naming, not the model's own */
    enum rename_change change;
    int third;
};

/* A weight that is not the checkpoint's own at present. */
struct patch {
    int part;
    size_t weight;
    void *host;     /* its values, NULL where the backend needs them no more */
    uint64_t bytes; /* resident */
};

struct patch_job {
    const struct weight_loader *loader;
    const struct term *terms; /* [count], all of one weight */
    size_t count;
    bool (*cancelled)(void *ctx);
    void *ctx;
};

/* Bytes of weight i when it is patched. */
uint64_t patch_bytes(const struct weight_loader *l, size_t weight);
/* Replaces a weight by its sum with the terms; fills host and bytes of `out`, whose earlier host
 * memory the caller frees. */
int patch_make(const struct patch_job *j, struct patch *out, struct err *e);
/* Gives weight i its own values back. */
int patch_undo(const struct weight_loader *l, size_t weight, struct err *e);
/* Does the term fit the weight? -EINVAL with a sentence. */
int patch_check(const struct weight_loader *l, const struct term *t, struct err *e);

#endif
