/* Devices: from the word in `device =` to an open backend. The CUDA backend is a library of its own
 * that is opened only when asked for. */
#ifndef OMNI_DEVICE_H
#define OMNI_DEVICE_H

#include <stddef.h>

#include "base/err.h"
#include "engine/backend.h"

struct device {
    char name[32];           /* "cpu", "cuda:0" */
    struct backend *backend; /* owned */
    void *library;           /* of the backend, NULL for the built-in one */
};

/* NULL or "": OMNIFS_DEVICE, else "cuda:0" where that opens, else "cpu". -EINVAL for other words,
 * -ENODEV when the device is not there, with the reason. */
int device_open(const char *word, int threads, struct device *d, struct err *e);
void device_close(struct device *d);
/* "cpu: AMD EPYC, 2 CPUs, fastest in bf16" into out[size]. */
void device_describe(const struct device *d, char *out, size_t size);

/* What libomni_cuda.so exports under CUDA_BACKEND_SYMBOL. */
#define CUDA_BACKEND_LIBRARY "libomni_cuda.so"
#define CUDA_BACKEND_SYMBOL  "omni_cuda_backend_new"
typedef int cuda_backend_new_fn(int index, struct backend **out, struct err *e);

#endif
