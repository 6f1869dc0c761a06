/* CUDA devices for machines without one: the CPU's kernels under the names cuda:0 …, with memory of
 * their own, a queue that the host runs ahead of as far as anyone can tell, and failures on demand.
 */
#ifndef TESTS_FAKE_DEVICE_H
#define TESTS_FAKE_DEVICE_H

#include <stdatomic.h>

#include "engine/device.h"

#define FAKE_DEVICES 3
#define FAKE_STEPS   64

struct fake_device {
    /* what to do */
    atomic_int refuse_arenas;  /* so many arenas more are refused */
    atomic_int refuse_weights; /* so many weights more */
    atomic_int lose_at;        /* lost with the n-th product from now; 0: never */
    atomic_bool lost;          /* nothing works any more */
    atomic_bool hold;          /* products wait as long as this is set */
    atomic_bool deaf;          /* even when they are cancelled */
    atomic_int poison_step;    /* products of this step (from 1) give NaN; 0: never */
    atomic_ullong memory_free, memory_total;

    /* what was done */
    atomic_int opened; /* backends that are open */
    atomic_int arenas, products, steps;
    atomic_int held;                 /* products that had to wait */
    atomic_int waits;                /* the host waited for a result */
    atomic_int waits_at[FAKE_STEPS]; /* the same at the end of step i */
};
extern struct fake_device fake_devices[FAKE_DEVICES];

/* From here on there are `count` devices, each as new, with 1 GiB of memory; 0: as without this. */
void fake_devices_use(int count);
/* Does their library have CUDA_COUNT_SYMBOL? */
void fake_devices_count(bool counts);

#endif
