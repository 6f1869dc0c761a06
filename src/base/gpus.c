#include "base/gpus.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "base/symbols.h"

/* The part of NVML's interface that is used, as its reference gives it; 0 is success. */
typedef void *nvml_device;
struct nvml_memory {
    unsigned long long total, free, used;
};
struct nvml_utilization {
    unsigned gpu, memory; /* percent */
};
struct nvml {
    int (*init)(void);
    int (*driver_version)(char *text, unsigned size);
    int (*count)(unsigned *count);
    int (*by_index)(unsigned index, nvml_device *d);
    int (*name)(nvml_device d, char *text, unsigned size);
    int (*memory)(nvml_device d, struct nvml_memory *m);
    int (*utilization)(nvml_device d, struct nvml_utilization *u);
    const char *(*error_string)(int code);
};
static const char *const nvml_names[] = {
    "Init_v2",
    "SystemGetDriverVersion",
    "DeviceGetCount_v2",
    "DeviceGetHandleByIndex_v2",
    "DeviceGetName",
    "DeviceGetMemoryInfo",
    "DeviceGetUtilizationRates",
    "ErrorString",
};

/* The library stays open; what was read, or why nothing was, stays for a moment: the files that
 * show it are rendered for every stat. */
#define FRESH_SECONDS 1.0
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct nvml nvml;
static bool working;
static double read_at; /* 0: never */
static struct gpus last;
static struct err last_error;

static int open_library(struct err *e)
{
    const char *file = getenv("OMNIFS_NVML");
    file = file && *file ? file : "libnvidia-ml.so.1";
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return err_set(e, -ENODEV, "there is no NVIDIA driver that can be asked: %s", dlerror());
    const char *missing = symbols_find(library, "nvml", nvml_names, ARRAY_LEN(nvml_names), &nvml);
    int rc = 0, code;
    if (missing)
        rc = err_set(e, -EIO, "%s has no nvml%s: its driver is too old", file, missing);
    else if ((code = nvml.init()) != 0)
        rc = err_set(e, -EIO, "the NVIDIA driver does not answer: %s", nvml.error_string(code));
    if (rc != 0)
        dlclose(library);
    return rc;
}

/* What one device does not tell is left unknown. */
static void read_one(unsigned index, struct gpu *g)
{
    nvml_device d;
    struct nvml_memory m;
    struct nvml_utilization u;
    *g = (struct gpu){.busy = -1};
    if (nvml.by_index(index, &d) != 0)
        return;
    if (nvml.name(d, g->name, sizeof(g->name)) != 0)
        g->name[0] = '\0';
    if (nvml.memory(d, &m) == 0) {
        g->memory = m.total;
        g->used = m.used;
    }
    if (nvml.utilization(d, &u) == 0)
        g->busy = (int)u.gpu;
}

static int read_all(struct gpus *g, struct err *e)
{
    unsigned count = 0;
    int code = nvml.count(&count);
    if (code != 0)
        return err_set(e, -EIO, "the NVIDIA driver does not count its GPUs: %s",
                       nvml.error_string(code));
    if (nvml.driver_version(g->driver, sizeof(g->driver)) != 0)
        g->driver[0] = '\0';
    g->count = count < GPUS_MAX ? (int)count : GPUS_MAX;
    for (int i = 0; i < g->count; i++)
        read_one((unsigned)i, &g->list[i]);
    return 0;
}

static void refresh(void)
{
    last = (struct gpus){0};
    last_error = (struct err){0};
    if (!working && open_library(&last_error) != 0)
        return;
    working = true;
    if (read_all(&last, &last_error) != 0)
        last = (struct gpus){0};
}

int gpus_read(struct gpus *g, struct err *e)
{
    pthread_mutex_lock(&lock);
    double now = clock_seconds();
    if (read_at == 0 || now - read_at >= FRESH_SECONDS) {
        refresh();
        read_at = now;
    }
    *g = last;
    int rc = last_error.code;
    if (rc != 0)
        err_set(e, rc, "%s", last_error.text);
    pthread_mutex_unlock(&lock);
    return rc;
}

void gpu_describe(const struct gpu *g, char *out, size_t size)
{
    char used[24], all[24];
    AUTO_STR struct str s = {0};
    str_add(&s, g->name[0] ? g->name : "a GPU that does not answer");
    if (g->memory)
        str_addf(&s, ", %s of %s used", format_bytes(g->used, used), format_bytes(g->memory, all));
    if (g->busy >= 0)
        str_addf(&s, ", %d %% busy", g->busy);
    snprintf(out, size, "%s", str_cstr(&s));
}
