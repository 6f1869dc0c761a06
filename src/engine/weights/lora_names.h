/* Under which names LoRA files know a weight: a table from the names of the weights that a model
 * really loaded, each also in the naming of the model's authors (naming.h). */
#ifndef OMNI_LORA_NAMES_H
#define OMNI_LORA_NAMES_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "engine/weights/rename.h"

struct lora_name {
    char *key;                 /* the module's path with '_' for '.', as lora_module.key */
    size_t weight;             /* the caller's number of the weight */
    bool original;             /* not the model's own name */
    enum rename_change change; /* AS_IS, THIRD or SWAP: which rows of a LoRA are the weight's */
    int third;
};

struct lora_names {
    struct lora_name *list; /* sorted by key after lora_names_sort() */
    size_t count, cap;
};

/* Adds all names of the tensor `name` ("transformer_blocks.0.attn.to_q.weight"); what does not end
 * in ".weight" has none. 0 or -ENOMEM. */
int lora_names_add(struct lora_names *n, const char *name, size_t weight, struct err *e);
void lora_names_sort(struct lora_names *n);
/* The first of the names that equal `key`; *count of them lie side by side. NULL: none. */
const struct lora_name *lora_names_find(const struct lora_names *n, const char *key, size_t *count);
void lora_names_free(struct lora_names *n);

#endif
