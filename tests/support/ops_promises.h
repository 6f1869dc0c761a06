/* What holds of a backend's operations beside their values. */
#ifndef TESTS_OPS_PROMISES_H
#define TESTS_OPS_PROMISES_H

#include "engine/backend.h"

/* A bit of everything gives an item the same bits alone, in a batch, and again. */
void promise_same_bits(struct backend *b, enum dtype compute);
/* A query that may see no key gets zeros. */
void promise_hidden_keys_give_zeros(struct backend *b, enum dtype compute);
void promise_nan_is_never_hidden(struct backend *b, enum dtype compute);

#endif
