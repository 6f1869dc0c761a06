#include "engine/device.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/cpu/parallel.h"
#include "engine/omni.h"

static int open_cpu(int threads, struct device *d, struct err *e)
{
    snprintf(d->name, sizeof(d->name), "cpu");
    return cpu_backend_new(threads, &d->backend, e);
}

/* ---- the library of the CUDA backend ---- */

static const struct cuda_exports *provided; /* by a test */

/* ISO C has no cast from object to function pointers. */
static void find_symbol(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, sizeof(symbol));
}

/* *handle: to dlclose, or NULL. */
static int library_open(struct cuda_exports *l, void **handle, struct err *e)
{
    *handle = NULL;
    if (provided) {
        *l = *provided;
        return 0;
    }
    void *h = dlopen(CUDA_BACKEND_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!h)
        return err_set(e, -ENODEV, "CUDA devices need %s, which does not open: %s",
                       CUDA_BACKEND_LIBRARY, dlerror());
    find_symbol(h, CUDA_BACKEND_SYMBOL, &l->backend_new);
    find_symbol(h, CUDA_COUNT_SYMBOL, &l->device_count);
    if (!l->backend_new) {
        dlclose(h);
        return err_set(e, -ENODEV, "%s does not export %s: it belongs to another version",
                       CUDA_BACKEND_LIBRARY, CUDA_BACKEND_SYMBOL);
    }
    *handle = h;
    return 0;
}

void device_provide(const struct cuda_exports *l)
{
    provided = l;
}

/* How many open, up to the first that does not. */
static int count_by_opening(const struct cuda_exports *l)
{
    struct backend *b;
    int n = 0;
    for (; n < OMNI_MAX_DEVICES && l->backend_new(n, &b, NULL) == 0; n++)
        backend_free(b);
    return n;
}

int device_cuda_count(struct err *e)
{
    struct cuda_exports l = {0};
    void *handle;
    if (library_open(&l, &handle, e) != 0)
        return 0;
    int n = l.device_count ? l.device_count() : count_by_opening(&l);
    if (handle)
        dlclose(handle);
    return n < 0 ? 0 : n > OMNI_MAX_DEVICES ? OMNI_MAX_DEVICES : n;
}

static int open_cuda(int index, struct device *d, struct err *e)
{
    struct cuda_exports l = {0};
    snprintf(d->name, sizeof(d->name), "cuda:%d", index);
    int rc = library_open(&l, &d->library, e);
    if (rc != 0)
        rc = err_prefix(e, "device %s", d->name);
    else
        rc = l.backend_new(index, &d->backend, e);
    if (rc != 0)
        device_close(d);
    return rc;
}

/* ---- words ---- */

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

/* One device, without auto. */
static int open_one(const char *word, int threads, struct device *d, struct err *e)
{
    *d = (struct device){0};
    if (strcmp(word, "cpu") == 0)
        return open_cpu(threads, d, e);
    int index = cuda_index(word);
    if (index >= 0)
        return open_cuda(index, d, e);
    return err_set(e, -EINVAL, "device '%s' is not known; expected auto, cpu or cuda:N", word);
}

int device_open(const char *word, int threads, struct device *d, struct err *e)
{
    struct omni_device first;
    int count = 0, rc = 0;
    *d = (struct device){0};
    if (word && *word && strcmp(word, "auto") != 0)
        return open_one(word, threads, d, e);
    rc = omni_device_list(word, &first, 1, &count, e);
    return rc ? rc : open_one(first.name, threads, d, e);
}

void device_close(struct device *d)
{
    if (d->backend)
        backend_free(d->backend);
    if (d->library)
        dlclose(d->library);
    *d = (struct device){0};
}

int device_error(const struct device *d, int code)
{
    bool (*lost)(struct backend *) = d->backend ? d->backend->ops->lost : NULL;
    if (code && lost && lost(d->backend))
        return BACKEND_LOST;
    bool never = lost || !d->backend || strcmp(d->name, "cpu") == 0;
    return code == BACKEND_LOST && never ? -EIO : code;
}

/* ---- lists ---- */

struct listing {
    struct omni_device *out;
    int max, count;
};

static int list_one(struct listing *l, const char *word, struct err *e)
{
    struct device d;
    int rc = open_one(word, 0, &d, e);
    if (rc != 0)
        return rc;
    struct omni_device *y = &l->out[l->count];
    *y = (struct omni_device){0};
    memcpy(y->name, d.name, sizeof(y->name));
    for (int i = 0; i < l->count && rc == 0; i++)
        if (strcmp(l->out[i].name, y->name) == 0)
            rc = err_set(e, -EINVAL, "device %s is named twice", y->name);
    if (d.backend->ops->memory &&
        d.backend->ops->memory(d.backend, &y->memory_free, &y->memory_total) != 0)
        y->memory_free = y->memory_total = 0;
    device_close(&d);
    l->count += rc == 0;
    return rc;
}

static int list_best(struct listing *l, struct err *e)
{
    for (int i = 0, n = device_cuda_count(NULL); i < n && l->count < l->max; i++) {
        char word[32];
        snprintf(word, sizeof(word), "cuda:%d", i);
        list_one(l, word, NULL);
    }
    return l->count ? 0 : list_one(l, "cpu", e);
}

static int list_words(struct listing *l, const char *list, struct err *e)
{
    int rc = 0;
    AUTO_FREE char *copy = strdup(list);
    char *rest = copy;
    if (!copy)
        return err_nomem(e);
    for (char *word; rc == 0 && l->count < l->max && (word = strsep(&rest, ","));)
        rc = list_one(l, str_trim(word), e);
    return rc;
}

int omni_device_list(const char *list, struct omni_device *out, int max, int *count, struct err *e)
{
    struct listing l = {out, max, 0};
    if (!list || !*list)
        list = getenv("OMNIFS_DEVICE");
    int rc =
        !list || !*list || strcmp(list, "auto") == 0 ? list_best(&l, e) : list_words(&l, list, e);
    *count = rc == 0 ? l.count : 0;
    return rc;
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
