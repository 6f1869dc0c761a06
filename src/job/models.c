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

#define SHARE_OF_MEMORY 0.7 /* of the machine, where the operator names no budget */
#define SCAN_DEPTH      3

struct model {
    char id[512];
    char parts[PROFILE_PARTS][512]; /* as in struct profile */
    enum omni_precision precision;
    void *handle; /* NULL: not loaded */
    struct omni_model_info info;
    uint64_t weight_bytes;
    uint64_t used;      /* order of use */
    struct err failure; /* code 0: none */
    uint64_t stamp;     /* of the files when it failed */
};

struct models {
    struct generator generator;
    char device[32];
    uint64_t budget;
    int threads;
    uint64_t clock;
    struct upscalers upscalers;
    struct model **list; /* only ever grows: pointers to models stay valid */
    int count;
    /* Guards what the reports read; the worker alone writes. */
    pthread_mutex_t lock;
};

int models_new(const struct generator *g, const char *device, uint64_t budget, int threads,
               struct models **out, struct err *e)
{
    struct models *m = calloc(1, sizeof *m);
    if (!m)
        return err_nomem(e);
    m->generator = *g;
    snprintf(m->device, sizeof m->device, "%s", device ? device : "");
    bool own_memory = !strncmp(m->device, "cuda", 4); /* Omni knows that one better */
    m->budget = budget       ? budget
                : own_memory ? UINT64_MAX
                             : (uint64_t)(SHARE_OF_MEMORY * (double)memory_total());
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

void models_free(struct models *m)
{
    if (!m)
        return;
    for (int i = 0; i < m->count; i++) {
        unload(m, m->list[i]);
        free(m->list[i]);
    }
    free(m->list);
    upscalers_free(&m->upscalers);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

uint64_t models_budget(const struct models *m)
{
    return m->budget;
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
            sum += m->list[i]->weight_bytes;
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

/* What the model's weights take when one half of them sleeps (omni_load_options.memory). */
static uint64_t saved_by_turns(const struct model *model)
{
    uint64_t least = model ? model->info.least_weight_bytes : 0;
    return least && least < model->info.weight_bytes ? model->info.weight_bytes - least : 0;
}

/* Unloads other models than `keep` until `bytes` fit beside what stays, at the last with `keep`
 * itself in memory by turns; false: they never do. */
static bool make_room(struct models *m, const struct model *keep, uint64_t bytes)
{
    for (;;) {
        uint64_t used = loaded_bytes(m, NULL);
        if (used <= m->budget && bytes <= m->budget - used)
            return true;
        struct model *victim = least_recently_used(m, keep);
        used -= saved_by_turns(keep);
        if (!victim)
            return used <= m->budget && bytes <= m->budget - used;
        log_info("unloading the model %s to make room", victim->id);
        unload(m, victim);
    }
}

static int no_room(const struct models *m, const char *what, uint64_t needed, uint64_t taken,
                   struct err *e)
{
    char need[24], have[24], budget[24];
    uint64_t left = m->budget > taken ? m->budget - taken : 0;
    return err_set(e, -ENOMEM,
                   "%s needs %s of memory and %s are available of the %s that omnifs may use; ask "
                   "for less, or raise memory in [devices] of registry.ini",
                   what, format_bytes(needed, need), format_bytes(left, have),
                   format_bytes(m->budget, budget));
}

/* ---- loading ---- */

struct scan {
    uint64_t weight_bytes; /* of checkpoint files */
    uint64_t stamp;        /* changes when a file is added, removed, grown or touched */
};

static bool is_weight_file(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && (!strcmp(dot, ".safetensors") || !strcmp(dot, ".gguf"));
}

static void scan_file(const struct stat *st, const char *name, struct scan *s)
{
    if (is_weight_file(name))
        s->weight_bytes += (uint64_t)st->st_size;
    /* a sum: the order of readdir is no matter */
    s->stamp += ((uint64_t)st->st_ino * 31 + (uint64_t)st->st_size) * 1000003 +
                (uint64_t)st->st_mtim.tv_sec * 1009 + (uint64_t)st->st_mtim.tv_nsec;
}

static void scan_folder(int dirfd, const char *path, int depth, struct scan *s)
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
                scan_folder(fd, entry->d_name, depth - 1, s);
            continue;
        }
        scan_file(&st, entry->d_name, s);
    }
    closedir(d);
}

/* A checkpoint: a folder or a single file. */
static void scan_model(const char *path, struct scan *s)
{
    struct stat st;
    if (!stat(path, &st) && S_ISREG(st.st_mode))
        scan_file(&st, path, s);
    else
        scan_folder(AT_FDCWD, path, SCAN_DEPTH, s);
}

/* A part that lies elsewhere: a folder of its own, or one in a checkpoint. */
static void scan_part(const struct omni_part *part, struct scan *s)
{
    char inner[REGISTRY_PATH_SIZE];
    int n = snprintf(inner, sizeof inner, "%s/%s", part->path, part->name);
    bool within = n < (int)sizeof inner && !access(inner, F_OK);
    scan_folder(AT_FDCWD, within ? inner : part->path, SCAN_DEPTH, s);
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
                const struct profile_places *places, uint64_t estimate, struct err *e)
{
    struct omni_load_options options = {.device = *m->device ? m->device : NULL,
                                        .precision = model->precision,
                                        .threads = m->threads,
                                        .memory = m->budget == UINT64_MAX ? 0 : m->budget,
                                        .parts = places->list,
                                        .part_count = places->count};
    if (!make_room(m, NULL, estimate))
        return no_room(m, "loading the model", estimate, 0, e);
    void *handle = NULL;
    int code = m->generator.load(m->generator.ctx, path, &options, &handle, e);
    if (code)
        return code;
    pthread_mutex_lock(&m->lock);
    model->handle = handle;
    model->info = *m->generator.info(handle);
    model->weight_bytes = model->info.weight_bytes;
    model->failure.code = 0;
    pthread_mutex_unlock(&m->lock);
    log_info("loaded the model %s (%s)", model->id, model->info.family);
    return 0;
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
    if (!model->handle) {
        char path[REGISTRY_PATH_SIZE] = "";
        struct profile_places places;
        struct scan s = {0};
        struct err why = {0};
        int code = model_find(p->model, path, &why);
        if (!code)
            code = profile_places_find(p, &places, &why);
        if (!code)
            scan_model(path, &s);
        for (int i = 0; !code && i < places.count; i++)
            scan_part(&places.list[i], &s);
        if (!code && model->failure.code && model->stamp == s.stamp)
            why = model->failure;
        else if (code || load(m, model, path, &places, s.weight_bytes, &why)) {
            err_prefix(&why, "the model %s cannot be used", p->model);
            remember_failure(m, model, &why, s.stamp);
            log_error("%s", why.text);
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

int models_admit(struct models *m, struct model *model, const struct omni_request *requests,
                 int count, int *fit, uint64_t *bytes, struct err *e)
{
    for (int n = count;; n = (n + 1) / 2) {
        int code = m->generator.plan(model->handle, requests, n, bytes, e);
        if (code)
            return code;
        if (make_room(m, model, *bytes)) {
            *fit = n;
            return 0;
        }
        if (n == 1)
            return no_room(m, "this request", *bytes, model->weight_bytes, e);
    }
}

int models_room(struct models *m, const struct model *model, uint64_t bytes, struct err *e)
{
    if (make_room(m, model, bytes))
        return 0;
    return no_room(m, "the result", bytes, model ? model->weight_bytes : 0, e);
}

int models_generate(struct models *m, struct model *model, const struct omni_request *requests,
                    int count, const struct omni_callbacks *callbacks, struct omni_result *results,
                    struct omni_timings *timings, struct err *e)
{
    int code =
        m->generator.generate(model->handle, requests, count, callbacks, results, timings, e);
    pthread_mutex_lock(&m->lock);
    model->weight_bytes = m->generator.info(model->handle)->weight_bytes; /* LoRAs come and go */
    pthread_mutex_unlock(&m->lock);
    return code;
}

int models_upscaler(struct models *m, const struct profile *p, struct omni_upscaler **out,
                    struct err *e)
{
    pthread_mutex_lock(&m->lock); /* reports count their bytes */
    int code = upscalers_get(&m->upscalers, p, *m->device ? m->device : NULL, m->threads, out, e);
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
    r->weight_bytes = model->weight_bytes;
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
