/* LoRAs in force: which weights of a model are W + Σ weight · scale · up · down instead of the
 * checkpoint's own.
 *
 * Such weights are made in the type of products whenever they wake (weights.h); those of the
 * checkpoint are read again from its file. Equal sets follow each other without any work. */
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
/* Puts the wanted set in force, the one that was asked for last: weights that it touches, or that
 * the set before touched, are asleep then, and wake with its values; without a set they wake with
 * the checkpoint's own bits. After an error no set is in force, and the next call starts over. */
int adapters_apply(struct adapters *a, struct err *e);
/* What became of the wanted set, for results: its length, reports into out[OMNI_MAX_LORAS]. */
int adapters_report(const struct adapters *a, struct omni_lora_report *out);

#endif
