/* The emulation's switches, for tests (C and C++). */
#ifndef OMNI_EMULATED_H
#define OMNI_EMULATED_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* In which order the threads of a block run between two barriers. A result that depends on it has
 * a race. */
enum emulated_order { EMULATED_FORWARD, EMULATED_BACKWARD, EMULATED_RANDOM };
void emulated_set_order(enum emulated_order order, uint64_t seed);

/* Device memory is out of reach for the host except while a kernel or a copy runs: a host that
 * reads it crashes, as it would with a GPU. For memory made from now on. */
void emulated_set_guard(bool on);
/* The n-th allocation from now on (1: the next) fails; 0: none. */
void emulated_fail_alloc(int n);
/* The device is lost after `calls` more calls and stays so; -1: it comes back. */
void emulated_lose_device(int calls);
/* Work is done at once, and events are passed where they are recorded. With `asks` above 0 the
 * host sees a device that is slower: it passes one event more each time that it was asked so often
 * for one that it had not passed, or all when the host waits. */
void emulated_set_slow(int asks);
/* Launches, allocations that are not freed, waits for the device, events recorded and bytes copied
 * from the host so far; `ahead`: events that the device has not passed. */
struct emulated_counts {
    uint64_t launches, live, waits, events, carried, ahead;
};
struct emulated_counts emulated_counts(void);

/* ---- between emulated.cc and driver_emulated.cc ---- */

/* Opens device memory to the host, or closes it; false when the device is lost: no kernel runs. */
bool emulated_enter_device(void);
void emulated_leave_device(void);

#ifdef __cplusplus
}
#endif

#endif
