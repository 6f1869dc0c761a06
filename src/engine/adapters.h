/* LoRAs in force: which weights of a model are replaced by W + Σ weight · scale · up · down, and
 * the way back to the checkpoint's own.
 *
 * Only tensors that a LoRA touches are made anew, in the type of products; what they were before is
 * read again from the checkpoint's file. Equal sets follow each other without any work. */
#ifndef OMNI_ADAPTERS_H
#define OMNI_ADAPTERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/omni.h"

struct adapters;
struct omni_model;

struct adapters *adapters_new(struct omni_model *m); /* NULL without memory */
void adapters_free(struct adapters *a);              /* before the model's weights */
/* Opens and matches a set of LoRAs, unless it is the one that was asked for last. A LoRA that fits
 * nothing in the model, or not its shapes, is an error that names it. Weights stay as they are. */
int adapters_want(struct adapters *a, const struct omni_lora *loras, int count, struct err *e);
/* Bytes that adapters_apply will take beyond those taken now. */
uint64_t adapters_more_bytes(const struct adapters *a);
/* Puts the wanted set in force; the empty set gives back the checkpoint's own bits. `cancelled`
 * (may be NULL) is asked between and within tensors. After an error no set is in force, and the
 * next call starts over. */
int adapters_apply(struct adapters *a, bool (*cancelled)(void *), void *ctx, struct err *e);
/* What became of the wanted set, for results: its length, reports into out[OMNI_MAX_LORAS]. */
int adapters_report(const struct adapters *a, struct omni_lora_report *out);

#endif
