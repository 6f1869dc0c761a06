#include "engine/device.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/cpu/parallel.h"

static int open_cpu(int threads, struct device *d, struct err *e)
{
    snprintf(d->name, sizeof(d->name), "cpu");
    return cpu_backend_new(threads, &d->backend, e);
}

static int open_cuda(int index, struct device *d, struct err *e)
{
    snprintf(d->name, sizeof(d->name), "cuda:%d", index);
    d->library = dlopen(CUDA_BACKEND_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!d->library)
        return err_set(e, -ENODEV, "device %s needs %s, which does not open: %s", d->name,
                       CUDA_BACKEND_LIBRARY, dlerror());
    cuda_backend_new_fn *make = NULL;
    void *symbol = dlsym(d->library, CUDA_BACKEND_SYMBOL);
    memcpy(&make, &symbol, sizeof(make)); /* ISO C has no cast from object to function pointers */
    int rc = make ? make(index, &d->backend, e)
                  : err_set(e, -ENODEV, "%s does not export %s: it belongs to another version",
                            CUDA_BACKEND_LIBRARY, CUDA_BACKEND_SYMBOL);
    if (rc != 0)
        device_close(d);
    return rc;
}

/* "cuda" or "cuda:N" with N of at most three digits; -1 for other words. */
static int cuda_index(const char *word)
{
    int64_t n = 0;
    if (strncmp(word, "cuda", 4) != 0)
        return -1;
    if (word[4] == '\0')
        return 0;
    if (word[4] != ':' || strlen(word) > 8 || parse_i64(word + 5, &n) != 0 || n < 0)
        return -1;
    return (int)n;
}

int device_open(const char *word, int threads, struct device *d, struct err *e)
{
    *d = (struct device){0};
    if (!word || !*word)
        word = getenv("OMNIFS_DEVICE");
    if (!word || !*word)
        return open_cuda(0, d, NULL) == 0 ? 0 : open_cpu(threads, d, e);
    if (strcmp(word, "cpu") == 0)
        return open_cpu(threads, d, e);
    int index = cuda_index(word);
    if (index >= 0)
        return open_cuda(index, d, e);
    return err_set(e, -EINVAL, "device '%s' is not known; expected cpu or cuda:N", word);
}

void device_close(struct device *d)
{
    if (d->backend)
        backend_free(d->backend);
    if (d->library)
        dlclose(d->library);
    *d = (struct device){0};
}

/* The processor's name as the kernel gives it; "" where it gives none. */
static void processor_name(char *out, size_t size)
{
    char line[256];
    AUTO_FILE FILE *f = fopen("/proc/cpuinfo", "re");
    out[0] = '\0';
    while (f && fgets(line, sizeof(line), f)) {
        char *colon = strchr(line, ':');
        if (!colon || strncmp(line, "model name", 10) != 0)
            continue;
        snprintf(out, size, "%s", str_trim(colon + 1));
        return;
    }
}

void device_describe(const struct device *d, char *out, size_t size)
{
    char name[80];
    if (strcmp(d->name, "cpu") != 0) {
        snprintf(out, size, "%s", d->backend->name);
        return;
    }
    processor_name(name, sizeof(name));
    snprintf(out, size, "cpu: %s, %d CPUs, fastest in %s", name[0] ? name : "unknown processor",
             cpu_parallel_available(),
             cpu_fastest_compute(d->backend) == DTYPE_BF16 ? "bf16" : "fp32");
}
