/* Devices and their workers: one a device, and what happens when one is lost. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "job/jobs_internal.h"

static int list_named(const struct registry_devices *d, struct omni_device *out, int max)
{
    int count = d->count < max ? d->count : max;
    for (int i = 0; i < count; i++) {
        out[i] = (struct omni_device){0};
        memcpy(out[i].name, d->names[i], sizeof out[i].name);
    }
    return count;
}

int devices_find(const struct generator *g, const struct registry_devices *d,
                 struct omni_device *out, int max, int *count, struct err *e)
{
    if (!g->devices) {
        *count = list_named(d, out, max);
        if (!*count)
            out[(*count)++] = (struct omni_device){0}; /* its own choice */
        return 0;
    }
    AUTO_STR struct str list = {0};
    for (int i = 0; i < d->count; i++)
        str_addf(&list, "%s%s", i ? "," : "", d->names[i]);
    if (list.failed)
        return err_nomem(e);
    return g->devices(g->ctx, d->count ? list.data : NULL, out, max, count, e);
}

/* The worker is seen by others from here on; its thread is still to be started. */
static int add_worker(struct jobs *j, const struct omni_device *device, struct err *e)
{
    struct worker *w = &j->workers[j->worker_count];
    struct registry *r = jobs_registry(j);
    w->jobs = j;
    int code =
        models_new(&j->generator, device, r->devices.memory, r->devices.threads, &w->models, e);
    registry_unref(r);
    if (!code)
        j->worker_count++;
    return code;
}

int devices_make_workers(struct jobs *j, struct err *e)
{
    struct omni_device found[REGISTRY_MAX_DEVICES];
    int count = 0;
    int code =
        devices_find(&j->generator, &j->registry->devices, found, REGISTRY_MAX_DEVICES, &count, e);
    for (int i = 0; i < count && !code; i++) {
        code = add_worker(j, &found[i], e);
        if (!code && *found[i].name)
            log_info("drawing on %s", found[i].name);
    }
    return code;
}

/* ---- a lost device ---- */

static bool others_work(struct jobs *j)
{
    for (int i = 0; i < j->worker_count; i++)
        if (!j->workers[i].lost)
            return true;
    return false;
}

static bool stopping(struct jobs *j)
{
    pthread_mutex_lock(&j->lock);
    bool yes = j->stopping;
    pthread_mutex_unlock(&j->lock);
    return yes;
}

static void start_cpu(struct jobs *j)
{
    static const struct omni_device cpu = {.name = "cpu"};
    struct err e = {0};
    int at = j->worker_count, code = add_worker(j, &cpu, &e);
    if (!code)
        log_warn("no device is left: drawing on the CPU until the next start");
    else
        log_error("the CPU cannot take over: %s", e.text);
    while (!code && worker_start(&j->workers[at]) && !stopping(j)) {
        struct timespec pause = {1, 0};
        nanosleep(&pause, NULL); /* there is no other way to go on */
    }
}

void devices_fail_over(struct worker *w)
{
    struct jobs *j = w->jobs;
    models_unload(w->models); /* what it held of the machine's memory is needed elsewhere */
    pthread_mutex_lock(&j->lock);
    w->lost = true; /* under the lock: of several that are lost at once, one is the last */
    bool last = !others_work(j);
    pthread_mutex_unlock(&j->lock);
    if (last)
        start_cpu(j);
    jobs_wake_workers(j);
}

/* ---- reports ---- */

static const char *name_of(const struct worker *w)
{
    const char *name = models_device(w->models);
    return *name ? name : "default";
}

void devices_summary(struct jobs *j, struct str *out)
{
    for (int i = 0; i < j->worker_count; i++) {
        struct worker *w = &j->workers[i];
        struct err why = {0};
        char loaded[24], budget[24];
        str_addf(out, "device %s: ", name_of(w));
        if (models_lost(w->models, &why))
            str_addf(out, "lost, %d jobs queued again (%s)", w->requeued, why.text);
        else
            str_addf(out, "models %s of %s", format_bytes(models_loaded_bytes(w->models), loaded),
                     format_bytes(models_budget(w->models), budget));
        str_addf(out, ", out of memory %" PRIu64 " times\n", models_out_of_memory(w->models));
    }
}

enum row { ROW_UP, ROW_OUT_OF_MEMORY, ROW_REQUEUED, ROWS };

static uint64_t value_of(struct worker *w, enum row row)
{
    return row == ROW_UP              ? !models_lost(w->models, NULL)
           : row == ROW_OUT_OF_MEMORY ? models_out_of_memory(w->models)
                                      : (uint64_t)w->requeued;
}

void devices_prometheus(struct jobs *j, struct str *out)
{
    static const struct {
        const char *name, *type, *help;
    } rows[ROWS] = {
        [ROW_UP] = {"omnifs_device_up", "gauge", "1 while the device works, 0 once it was lost."},
        [ROW_OUT_OF_MEMORY] = {"omnifs_device_out_of_memory_total", "counter",
                               "Times that a device had no memory for what the plan let in."},
        [ROW_REQUEUED] = {"omnifs_device_requeued_jobs_total", "counter",
                          "Jobs queued again because their device was lost."},
    };
    for (int k = 0; k < ROWS; k++) {
        str_addf(out, "# HELP %s %s\n# TYPE %s %s\n", rows[k].name, rows[k].help, rows[k].name,
                 rows[k].type);
        for (int i = 0; i < j->worker_count; i++)
            str_addf(out, "%s{device=\"%s\"} %" PRIu64 "\n", rows[k].name, name_of(&j->workers[i]),
                     value_of(&j->workers[i], (enum row)k));
    }
}
