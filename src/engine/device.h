/* Devices: from the word in `use =` to an open backend. The CUDA backend is a library of its own
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

/* One device of a list as omni_device_list() takes it: NULL or "" and "auto" mean the first that
 * opens. -EINVAL for other words, -ENODEV when the device is not there, with the reason. */
int device_open(const char *word, int threads, struct device *d, struct err *e);
void device_close(struct device *d);
/* What a failure on the device is: BACKEND_LOST when it is gone, and never else (file systems that
 * cannot map files use the same number), or `code`. */
int device_error(const struct device *d, int code);
/* "cpu: AMD EPYC, 2 CPUs, fastest in bf16" into out[size]. */
void device_describe(const struct device *d, char *out, size_t size);
/* How many CUDA devices the backend's library sees; 0 without a library, with the reason. */
int device_cuda_count(struct err *e);

/* What libomni_cuda.so exports: the functions behind `struct cuda_exports`. */
#define CUDA_BACKEND_LIBRARY "libomni_cuda.so"
#define CUDA_BACKEND_SYMBOL  "omni_cuda_backend_new"
#define CUDA_COUNT_SYMBOL    "omni_cuda_device_count"
/* -ENODEV: there is no device `index`, or it does not work, with the reason. */
typedef int cuda_backend_new_fn(int index, struct backend **out, struct err *e);
/* Devices that the driver shows, 0 … count - 1 for the function above; 0 without a driver. A
 * library without this function is asked for one device after the other. */
typedef int cuda_device_count_fn(void);

struct cuda_exports {
    cuda_backend_new_fn *backend_new;
    cuda_device_count_fn *device_count;
};
/* For tests: these functions in place of the library's. NULL: the library's again. */
void device_provide(const struct cuda_exports *l);

#endif
