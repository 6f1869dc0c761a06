/* Results in bf16 (ops_set_results) against the same operations in fp32. */
#ifndef TESTS_OPS_NARROW_H
#define TESTS_OPS_NARROW_H

#include "engine/backend.h"

/* Every operation that has them, with operands in bf16, dense and as views, gives what it gives in
 * fp32 from the same numbers, rounded: to a relative L2 error of `tolerance`; 0: bit by bit. */
void promise_narrow_results(struct backend *b, double tolerance);

#endif
