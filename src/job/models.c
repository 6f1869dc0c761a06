#include "job/models.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "job/registry.h"
#include "job/upscalers.h"

#define SHARE_OF_MEMORY 0.7  /* of the machine, where the operator names no budget */
#define SHARE_OF_DEVICE 0.95 /* of what is free on a device with memory of its own */
#define SCAN_DEPTH      3

struct model {
    char id[512];
    char parts[PROFILE_PARTS][512]; /* as in struct profile */
    enum omni_precision precision;
    void *handle; /* NULL: not loaded */
    struct omni_model_info info;
    uint64_t resident_bytes; /* of weights, after its last request */
    uint64_t used;           /* order of use */
    struct err failure;      /* code 0: none */
    uint64_t stamp;          /* of the files when it failed */
};

struct models {
    struct generator generator;
    struct omni_device device;
    uint64_t budget;
    int threads;
    uint64_t clock;
    struct upscalers upscalers;
    struct model **list; /* only ever grows: pointers to models stay valid */
    int count;
    uint64_t out_of_memory; /* times */
    struct err lost;        /* code 0: the device works */
    /* Guards what the reports read; the worker alone writes. */
    pthread_mutex_t lock;
};

/* What is free of a device's own memory when it is opened is ours, but for what its libraries take
 * on the way. */
static uint64_t budget_of(const struct omni_device *d, uint64_t asked)
{
    if (!d->memory_total)
        return asked ? asked : (uint64_t)(SHARE_OF_MEMORY * (double)memory_total());
    uint64_t own = (uint64_t)(SHARE_OF_DEVICE * (double)d->memory_free);
    return asked && asked < own ? asked : own;
}

int models_new(const struct generator *g, const struct omni_device *device, uint64_t budget,
               int threads, struct models **out, struct err *e)
{
    struct models *m = calloc(1, sizeof *m);
    if (!m)
        return err_nomem(e);
    m->generator = *g;
    if (device)
        m->device = *device;
    m->budget = budget_of(&m->device, budget);
    m->threads = threads;
    pthread_mutex_init(&m->lock, NULL);
    *out = m;
    return 0;
}

static void unload(struct models *m, struct model *model)
{
    void *handle = model->handle;
    pthread_mutex_lock(&m->lock);
    model->handle = NULL;
    pthread_mutex_unlock(&m->lock);
    if (handle)
        m->generator.free(handle);
}

/* Every model but `keep` (may be NULL). */
static void unload_all(struct models *m, const struct model *keep)
{
    for (int i = 0; i < m->count; i++)
        if (m->list[i] != keep)
            unload(m, m->list[i]);
}

void models_unload(struct models *m)
{
    unload_all(m, NULL);
}

void models_free(struct models *m)
{
    if (!m)
        return;
    unload_all(m, NULL);
    for (int i = 0; i < m->count; i++)
        free(m->list[i]);
    free(m->list);
    upscalers_free(&m->upscalers);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

uint64_t models_budget(const struct models *m)
{
    return m->budget;
}

const char *models_device(const struct models *m)
{
    return m->device.name;
}

const struct omni_model_info *model_info(const struct model *m)
{
    return &m->info;
}

static uint64_t loaded_bytes(const struct models *m, const struct model *but)
{
    uint64_t sum = upscalers_bytes(&m->upscalers);
    for (int i = 0; i < m->count; i++)
        if (m->list[i]->handle && m->list[i] != but)
            sum += m->list[i]->resident_bytes;
    return sum;
}

uint64_t models_loaded_bytes(struct models *m)
{
    pthread_mutex_lock(&m->lock);
    uint64_t sum = loaded_bytes(m, NULL);
    pthread_mutex_unlock(&m->lock);
    return sum;
}

/* ---- making room ---- */

static struct model *least_recently_used(const struct models *m, const struct model *but)
{
    struct model *oldest = NULL;
    for (int i = 0; i < m->count; i++)
        if (m->list[i]->handle && m->list[i] != but && (!oldest || m->list[i]->used < oldest->used))
            oldest = m->list[i];
    return oldest;
}

static bool fits(const struct models *m, uint64_t a, uint64_t b, uint64_t c)
{
    return a <= m->budget && b <= m->budget - a && c <= m->budget - a - b;
}

static uint64_t all_weights(const struct model *model) /* 0 without a model */
{
    return model ? model->info.weight_bytes : 0;
}

/* The weights of the model when its halves are in memory by turns (omni_load_options.memory). */
static uint64_t least_weights(const struct model *model)
{
    uint64_t least = model ? model->info.least_weight_bytes : 0;
    return least ? least : all_weights(model);
}

/* Unloads other models than `model` until all of its weights and `bytes` fit beside what stays, or,
 * when none is left, until they fit by turns; false, and nothing is unloaded: they never do. */
static bool make_room(struct models *m, const struct model *model, uint64_t bytes)
{
    if (!fits(m, least_weights(model), bytes, 0))
        return false;
    while (!fits(m, loaded_bytes(m, model), all_weights(model), bytes)) {
        struct model *victim = least_recently_used(m, model);
        if (!victim)
            break;
        log_info("unloading the model %s to make room", victim->id);
        unload(m, victim);
    }
    return true;
}

static int no_room(const struct models *m, const struct model *model, const char *what,
                   uint64_t bytes, struct err *e)
{
    char need[24], weights[24], budget[24], of_them[64] = "";
    uint64_t least = least_weights(model);
    if (least)
        snprintf(of_them, sizeof of_them, ", %s of them for the model's weights,",
                 format_bytes(least, weights));
    return err_set(e, -ENOMEM,
                   "%s needs %s of memory%s and omnifs may use %s; ask for less, or raise memory "
                   "in [devices] of registry.ini",
                   what, format_bytes(least + bytes, need), of_them,
                   format_bytes(m->budget, budget));
}

/* ---- trouble with the device ---- */

static const char *place(const struct models *m)
{
    return m->device.memory_total ? m->device.name : "this machine";
}

static uint64_t free_bytes(const struct models *m)
{
    struct omni_device now;
    int count = 0;
    if (!m->device.memory_total)
        return memory_available();
    int code = m->generator.devices(m->generator.ctx, m->device.name, &now, 1, &count, NULL);
    return code || !count ? 0 : now.memory_free;
}

/* Memory ran out although the plan fitted: others use the device too, or it is in pieces. */
static void note_full(struct models *m, const struct err *why)
{
    pthread_mutex_lock(&m->lock);
    m->out_of_memory++;
    pthread_mutex_unlock(&m->lock);
    log_warn("%s is out of memory: %s", place(m), why->text);
}

static int still_full(struct models *m, const char *what, uint64_t needed, struct err *e)
{
    char need[24], left[24];
    note_full(m, e);
    return err_set(e, -ENOMEM,
                   "%s needs %s of memory and %s has %s free, also at a second try without any "
                   "other model; ask for less, or try again when other programs use less",
                   what, format_bytes(needed, need), place(m), format_bytes(free_bytes(m), left));
}

/* Notes a loss; the CPU and a generator's own choice cannot be lost. */
static int check_lost(struct models *m, struct err *e)
{
    if (e->code != -ENODEV)
        return e->code;
    if (!*m->device.name || !strcmp(m->device.name, "cpu"))
        return e->code = -EIO;
    err_prefix(e, "the device %s was lost", m->device.name);
    log_error("%s", e->text);
    pthread_mutex_lock(&m->lock);
    m->lost = *e;
    pthread_mutex_unlock(&m->lock);
    return e->code;
}

bool models_lost(struct models *m, struct err *why)
{
    pthread_mutex_lock(&m->lock);
    bool lost = m->lost.code != 0;
    if (lost && why)
        *why = m->lost;
    pthread_mutex_unlock(&m->lock);
    return lost;
}

uint64_t models_out_of_memory(struct models *m)
{
    pthread_mutex_lock(&m->lock);
    uint64_t times = m->out_of_memory;
    pthread_mutex_unlock(&m->lock);
    return times;
}

/* ---- loading ---- */

/* Adds to a stamp that changes when a file is added, removed, grown or touched: a sum, as the order
 * of readdir is no matter. */
static void scan_file(const struct stat *st, uint64_t *stamp)
{
    *stamp += ((uint64_t)st->st_ino * 31 + (uint64_t)st->st_size) * 1000003 +
              (uint64_t)st->st_mtim.tv_sec * 1009 + (uint64_t)st->st_mtim.tv_nsec;
}

static void scan_folder(int dirfd, const char *path, int depth, uint64_t *stamp)
{
    int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (struct dirent *entry; (entry = readdir(d));) {
        struct stat st;
        if (entry->d_name[0] == '.' || fstatat(fd, entry->d_name, &st, 0))
            continue;
        if (S_ISDIR(st.st_mode)) {
            if (depth > 1)
                scan_folder(fd, entry->d_name, depth - 1, stamp);
            continue;
        }
        scan_file(&st, stamp);
    }
    closedir(d);
}

/* A checkpoint: a folder or a single file. */
static void scan_model(const char *path, uint64_t *stamp)
{
    struct stat st;
    if (!stat(path, &st) && S_ISREG(st.st_mode))
        scan_file(&st, stamp);
    else
        scan_folder(AT_FDCWD, path, SCAN_DEPTH, stamp);
}

/* A part that lies elsewhere: a folder of its own, or one in a checkpoint. */
static void scan_part(const struct omni_part *part, uint64_t *stamp)
{
    char inner[REGISTRY_PATH_SIZE];
    int n = snprintf(inner, sizeof inner, "%s/%s", part->path, part->name);
    bool within = n < (int)sizeof inner && !access(inner, F_OK);
    scan_folder(AT_FDCWD, within ? inner : part->path, SCAN_DEPTH, stamp);
}

static bool is_model_of(const struct model *model, const struct profile *p)
{
    return !strcmp(model->id, p->model) && !memcmp(model->parts, p->parts, sizeof model->parts);
}

static struct model *find_or_add(struct models *m, const struct profile *p)
{
    for (int i = 0; i < m->count; i++)
        if (is_model_of(m->list[i], p) && m->list[i]->precision == p->precision)
            return m->list[i];
    struct model *model = calloc(1, sizeof *model);
    pthread_mutex_lock(&m->lock);
    struct model **more = model ? realloc(m->list, (size_t)(m->count + 1) * sizeof *more) : NULL;
    if (more) {
        memcpy(model->id, p->model, sizeof model->id);
        memcpy(model->parts, p->parts, sizeof model->parts);
        model->precision = p->precision;
        m->list = more;
        m->list[m->count++] = model;
    }
    pthread_mutex_unlock(&m->lock);
    if (!more)
        free(model);
    return more ? model : NULL;
}

static int load(struct models *m, struct model *model, const char *path,
                const struct profile_places *places, struct err *e)
{
    const struct generator *g = &m->generator;
    struct omni_load_options options = {.device = *m->device.name ? m->device.name : NULL,
                                        .precision = model->precision,
                                        .threads = m->threads,
                                        .memory = m->budget,
                                        .parts = places->list,
                                        .part_count = places->count};
    void *handle = NULL;
    int code = g->load(g->ctx, path, &options, &handle, e);
    if (code)
        return check_lost(m, e);
    pthread_mutex_lock(&m->lock);
    model->handle = handle;
    model->info = *g->info(handle);
    model->resident_bytes = 0; /* weights are read when a request needs them */
    model->failure.code = 0;
    pthread_mutex_unlock(&m->lock);
    log_info("loaded the model %s (%s)%s%s", model->id, model->info.family,
             *m->device.name ? " on " : "", m->device.name);
    return 0;
}

/* Not what the device or the machine did, which says nothing of the files. */
static bool is_lasting(int code)
{
    return code != -ENODEV && code != -ENOMEM;
}

static void remember_failure(struct models *m, struct model *model, const struct err *why,
                             uint64_t stamp)
{
    pthread_mutex_lock(&m->lock);
    model->failure = *why;
    model->stamp = stamp;
    pthread_mutex_unlock(&m->lock);
}

int models_get(struct models *m, const struct profile *p, struct model **out, struct err *e)
{
    struct model *model = find_or_add(m, p);
    if (!model)
        return err_nomem(e);
    if (models_lost(m, e))
        return -ENODEV;
    if (!model->handle) {
        char path[REGISTRY_PATH_SIZE] = "";
        struct profile_places places;
        uint64_t stamp = 0;
        struct err why = {0};
        int code = model_find(p->model, path, &why);
        if (!code)
            code = profile_places_find(p, &places, &why);
        if (!code)
            scan_model(path, &stamp);
        for (int i = 0; !code && i < places.count; i++)
            scan_part(&places.list[i], &stamp);
        if (!code && model->failure.code && model->stamp == stamp)
            why = model->failure;
        else if (code || load(m, model, path, &places, &why)) {
            if (why.code != -ENODEV) {
                err_prefix(&why, "the model %s cannot be used", p->model);
                log_error("%s", why.text);
            }
            if (is_lasting(why.code))
                remember_failure(m, model, &why, stamp);
        }
        if (why.code)
            return err_set(e, why.code, "%s", why.text);
    }
    model->used = ++m->clock;
    *out = model;
    return 0;
}

void models_retry(struct models *m)
{
    pthread_mutex_lock(&m->lock);
    for (int i = 0; i < m->count; i++)
        m->list[i]->failure.code = 0;
    pthread_mutex_unlock(&m->lock);
}

/* ---- work ---- */

/* What planning and drawing change about the weights. */
static void take_info(struct models *m, struct model *model)
{
    pthread_mutex_lock(&m->lock);
    model->info = *m->generator.info(model->handle);
    model->resident_bytes = model->info.resident_bytes;
    pthread_mutex_unlock(&m->lock);
}

int models_admit(struct models *m, struct model *model, const struct omni_request *requests,
                 int count, int *fit, uint64_t *bytes, struct err *e)
{
    for (int n = count;; n = (n + 1) / 2) {
        int code = m->generator.plan(model->handle, requests, n, bytes, e);
        take_info(m, model);
        if (code)
            return code;
        if (make_room(m, model, *bytes)) {
            *fit = n;
            return 0;
        }
        if (n == 1)
            return no_room(m, model, "this request", *bytes, e);
    }
}

int models_room(struct models *m, const struct model *model, uint64_t bytes, struct err *e)
{
    bool weights_alone = least_weights(model) > m->budget; /* models_admit says what is needed */
    if (make_room(m, model, bytes) || (weights_alone && bytes <= m->budget))
        return 0;
    return no_room(m, model, "the result", bytes, e);
}

uint64_t models_left(const struct models *m, const struct model *model)
{
    uint64_t least = least_weights(model);
    return least < m->budget ? m->budget - least : m->budget;
}

int models_generate(struct models *m, struct model *model, const struct omni_request *requests,
                    int count, uint64_t planned, const struct omni_callbacks *callbacks,
                    struct omni_result *results, struct omni_timings *timings, struct err *e)
{
    const struct generator *g = &m->generator;
    int code = g->generate(model->handle, requests, count, callbacks, results, timings, e);
    if (code == -ENOMEM) {
        note_full(m, e);
        unload_all(m, model);
        code = g->generate(model->handle, requests, count, callbacks, results, timings, e);
    }
    take_info(m, model);
    if (code == -ENOMEM)
        return still_full(m, "this request", planned, e);
    return code == -ENODEV ? check_lost(m, e) : code;
}

int models_upscaler(struct models *m, const struct profile *p, struct omni_upscaler **out,
                    struct err *e)
{
    pthread_mutex_lock(&m->lock); /* reports count their bytes */
    int code = upscalers_get(&m->upscalers, p, *m->device.name ? m->device.name : NULL, m->threads,
                             out, e);
    pthread_mutex_unlock(&m->lock);
    return code;
}

/* ---- reports ---- */

bool models_available(struct models *m, const struct profile *p, struct err *why)
{
    bool available = true;
    pthread_mutex_lock(&m->lock);
    for (int i = 0; i < m->count; i++)
        if (is_model_of(m->list[i], p) && m->list[i]->failure.code) {
            *why = m->list[i]->failure;
            available = false;
        }
    pthread_mutex_unlock(&m->lock);
    return available;
}

static void fill_report(const struct model *model, struct models_report *r)
{
    *r = (struct models_report){.loaded = model->handle != NULL};
    snprintf(r->id, sizeof r->id, "%.255s", model->id);
    if (model->failure.code)
        snprintf(r->error, sizeof r->error, "%s", model->failure.text);
    if (!model->handle)
        return; /* the strings of info belong to the model */
    r->weight_bytes = model->resident_bytes;
    snprintf(r->family, sizeof r->family, "%s", model->info.family);
    snprintf(r->precision, sizeof r->precision, "%s", model->info.precision);
    snprintf(r->device, sizeof r->device, "%s", model->info.device);
}

int models_report(struct models *m, struct models_report **out, int *count)
{
    pthread_mutex_lock(&m->lock);
    *count = m->count;
    *out = calloc((size_t)m->count + 1, sizeof **out);
    for (int i = 0; *out && i < m->count; i++)
        fill_report(m->list[i], &(*out)[i]);
    pthread_mutex_unlock(&m->lock);
    return *out ? 0 : -ENOMEM;
}
