/* Between the list of tensors and the loader: which tensors a model asked for. */
#ifndef OMNI_WEIGHTS_USAGE_H
#define OMNI_WEIGHTS_USAGE_H

#include "engine/weights/weights.h"

/* weights_find that also marks the tensor as used. */
const struct weights_entry *weights_use(struct weights *w, const char *name);
struct synthetic;
/* Where tensors come from that no file has; NULL for weights from files. */
struct synthetic *weights_made(const struct weights *w);

#endif
