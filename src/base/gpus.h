/* The machine's NVIDIA GPUs as the driver's management library (NVML) sees them. The library is
 * opened at run time: no GPU and no driver is needed to build or to run. */
#ifndef OMNIFS_BASE_GPUS_H
#define OMNIFS_BASE_GPUS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define GPUS_MAX 32

struct gpu {
    char name[96];         /* "NVIDIA H200"; "" where the driver does not say */
    uint64_t memory, used; /* bytes, by all processes; memory 0: unknown */
    int busy;              /* percent of the last moment, -1: unknown */
};

/* In the order of their PCI addresses, as nvidia-smi numbers them. */
struct gpus {
    char driver[80]; /* "580.95.05" */
    struct gpu list[GPUS_MAX];
    int count;
};

/* Reads them, or hands out what was read less than a second ago; thread-safe. -ENODEV: there is no
 * such library, so no driver; -EIO: the library does not work, with its reason. Then nothing is in
 * `g`. OMNIFS_NVML names another file than libnvidia-ml.so.1. */
int gpus_read(struct gpus *g, struct err *e);
/* "NVIDIA H200, 12 GB of 151 GB used, 3 % busy" into out[size]. */
void gpu_describe(const struct gpu *g, char *out, size_t size);

#endif
