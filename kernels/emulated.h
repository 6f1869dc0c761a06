/* The emulation's switches, for tests (C and C++). */
#ifndef OMNI_EMULATED_H
#define OMNI_EMULATED_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* In which order the threads of a block run between two barriers. A result that depends on it has
 * a race. */
enum emulated_order { EMULATED_FORWARD, EMULATED_BACKWARD, EMULATED_RANDOM };
void emulated_set_order(enum emulated_order order, uint64_t seed);

#ifdef __cplusplus
}
#endif

#endif
