/* LoRA files: low-rank changes of a model's weights, W + weight · scale · up · down, in a
 * .safetensors file under the names of whatever trained it.
 *
 * A file is read into modules: one pair of matrices (or one plain difference) each, under a key
 * that does not depend on the style of the file. Which weights of a model they belong to is
 * lora_names.h's business. Nothing in the file is trusted. */
#ifndef OMNI_LORA_H
#define OMNI_LORA_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "engine/weights/file.h"

struct lora_module {
    /* The module's path with '_' for '.', without prefix: "double_blocks_0_img_attn_qkv". */
    const char *key;
    const char *name; /* as in the file, for messages; owned */
    const char *part; /* "text_encoder", "text_encoder_2", or "" for what denoises */
    const struct weights_entry *down, *up; /* [rank, in, …], [out, rank, …]; both or none */
    const struct weights_entry *diff;      /* added as it is to the weight … */
    const struct weights_entry *diff_bias; /* … or the bias; may be NULL */
    float scale;                           /* alpha / rank */
};

struct lora {
    struct weights_file file;
    struct lora_module *modules; /* sorted by part and key */
    size_t count;
    size_t other;            /* tensors that belong to no module, and … */
    const char *first_other; /* … the name of the first */
};

/* -EINVAL for a file that is not what it seems, -ENOTSUP for kinds of LoRA that are not known
 * (DoRA, LoHa, LoKr …); the sentence names file and tensor. */
int lora_open(const char *path, struct lora *out, struct err *e);
/* The same over bytes that outlive `out`; `path` is what messages call them. */
int lora_parse(const char *path, const void *bytes, size_t size, struct lora *out, struct err *e);
void lora_close(struct lora *l);
/* The model that a LoRA seems to be made for, by its names: "FLUX.2", "a model of another kind". */
const char *lora_made_for(const struct lora *l);
/* The tensor as fp32: `count` values from element `first` on. */
void lora_values(const struct weights_entry *t, size_t first, size_t count, float *out);

#endif
