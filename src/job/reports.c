/* The files of .omnifs/: what an operator or a user may want to know, as text. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/version.h"
#include "job/jobs_internal.h"

/* ---- version ---- */

static int report_version(struct jobs *j, uid_t uid, struct str *out)
{
    (void)j;
    (void)uid;
    str_addf(out, "omnifs %s (%s)\n", omnifs_version, omnifs_commit);
    return 0;
}

/* ---- profiles ---- */

/* Can the profile's model be used, as far as is known without loading it? */
static bool profile_available(struct jobs *j, const struct profile *p, struct err *why)
{
    char path[REGISTRY_PATH_SIZE];
    if (model_find(p->model, path, why))
        return false;
    for (int i = 0; i < j->worker_count; i++)
        if (!j->workers[i].lost && models_available(j->workers[i].models, p, why))
            return true;
    return false;
}

static int report_profiles(struct jobs *j, uid_t uid, struct str *out)
{
    (void)uid;
    struct registry *r = jobs_registry(j);
    for (int i = 0; i < r->profile_count; i++) {
        const struct profile *p = &r->profiles[i];
        struct err why = {0};
        str_addf(out, "%-16s %-6s %-20s %dx%d", p->name, modality_names[p->modality], p->model,
                 p->width, p->height);
        if (profile_available(j, p, &why))
            str_add(out, "  available\n");
        else
            str_addf(out, "  unavailable: %s\n", why.text);
    }
    registry_unref(r);
    return 0;
}

/* ---- models ---- */

static bool is_model(const char *folder, const char *name)
{
    char path[REGISTRY_PATH_SIZE];
    struct stat st;
    const char *dot = strrchr(name, '.');
    if (name[0] == '.')
        return false;
    if (dot && (!strcmp(dot, ".safetensors") || !strcmp(dot, ".gguf")))
        return true;
    int n = snprintf(path, sizeof path, "%s/%s/model_index.json", folder, name);
    return n > 0 && n < (int)sizeof path && !stat(path, &st);
}

static void list_folder(void *ctx, const char *folder)
{
    DIR *d = opendir(folder);
    for (struct dirent *entry; d && (entry = readdir(d));)
        if (is_model(folder, entry->d_name))
            str_addf(ctx, "%-20s in %s\n", entry->d_name, folder);
    if (d)
        closedir(d);
}

static void report_worker_models(struct worker *w, struct str *out)
{
    struct models_report *rows = NULL;
    int count = 0;
    char bytes[24];
    if (models_report(w->models, &rows, &count))
        return;
    for (int i = 0; i < count; i++) {
        const struct models_report *m = &rows[i];
        if (m->loaded)
            str_addf(out, "%-20s loaded: %s, %s on %s, %s\n", m->id, m->family, m->precision,
                     m->device, format_bytes(m->weight_bytes, bytes));
        else if (*m->error)
            str_addf(out, "%-20s unavailable: %s\n", m->id, m->error);
    }
    free(rows);
}

static int report_models(struct jobs *j, uid_t uid, struct str *out)
{
    (void)uid;
    model_search_path(list_folder, out);
    for (int i = 0; i < j->worker_count; i++)
        report_worker_models(&j->workers[i], out);
    return 0;
}

/* ---- queue ---- */

struct queue_report {
    struct jobs *jobs;
    uid_t uid;
    struct str *out;
    int others;
};

static void report_job(void *ctx, const struct queue_job *q)
{
    struct queue_report *r = ctx;
    struct live l;
    if (r->uid != 0 && r->uid != q->uid) {
        r->others++;
        return;
    }
    str_addf(r->out, "%s %s/%s ", q->id, modality_names[q->modality], q->folder_name);
    struct job_view v = {.state = q->state, .eta = -1};
    if (q->state == JOB_QUEUED)
        queue_position(r->jobs->db, q, &v.position);
    else if (q->state == JOB_RUNNING && live_find(r->jobs, q->id, &l)) {
        v.stage = l.stage;
        v.done = l.done;
        v.total = l.total;
        v.eta = l.eta;
    }
    job_status_line(&v, r->out);
    str_addc(r->out, '\n');
}

static int report_queue(struct jobs *j, uid_t uid, struct str *out)
{
    struct queue_report r = {j, uid, out, 0};
    int code = queue_each_active(j->db, report_job, &r);
    if (r.others)
        str_addf(out, "%d job%s of other users\n", r.others, r.others == 1 ? "" : "s");
    return code;
}

/* ---- limits ---- */

/* What every worker has: a request may come to any of them. */
static uint64_t smallest_budget(struct jobs *j)
{
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < j->worker_count; i++) {
        uint64_t budget = models_budget(j->workers[i].models);
        if (!j->workers[i].lost && budget < least)
            least = budget;
    }
    return least;
}

static int report_limits(struct jobs *j, uid_t uid, struct str *out)
{
    (void)uid;
    char store[24], request[24], budget[24];
    struct registry *r = jobs_registry(j);
    const struct registry_limits *l = &r->limits;
    str_addf(out, "queue %d\njobs_per_user %d\nstore_bytes %s\nrequest_bytes %s\nmemory %s\n",
             l->queue, l->jobs_per_user,
             l->store_bytes ? format_bytes(l->store_bytes, store) : "none",
             format_bytes(l->request_bytes, request), format_bytes(smallest_budget(j), budget));
    for (int i = 0; i < r->profile_count; i++) {
        const struct profile *p = &r->profiles[i];
        str_addf(out, "%s max_resolution %dx%d max_steps %d max_count %d", p->name, p->max_width,
                 p->max_height, p->max_steps, p->max_count);
        if (p->modality != MODALITY_IMAGE)
            str_addf(out, " max_frames %d", p->max_frames);
        str_addf(out, " timeout %g\n", p->timeout);
    }
    registry_unref(r);
    return 0;
}

/* ---- stats, metrics ---- */

static void measure(struct jobs *j, struct metrics_gauges *g)
{
    int64_t counts[JOB_BLOCKED + 1];
    queue_counts(j->db, counts);
    *g = (struct metrics_gauges){.queued = counts[JOB_QUEUED],
                                 .running = counts[JOB_RUNNING],
                                 .publishing = counts[JOB_PUBLISHING],
                                 .resident_bytes = memory_resident(),
                                 .uptime = (double)(clock_wall_ms() - j->started_ms) / 1e3};
    for (int i = 0; i < j->worker_count; i++) {
        struct models *m = j->workers[i].models;
        struct models_report *rows = NULL;
        int count = 0;
        if (!models_report(m, &rows, &count))
            for (int k = 0; k < count; k++)
                g->models_loaded += rows[k].loaded;
        free(rows);
        g->model_bytes += models_loaded_bytes(m);
        g->budget_bytes += j->workers[i].lost ? 0 : models_budget(m);
    }
}

static int report_stats(struct jobs *j, uid_t uid, struct str *out)
{
    (void)uid;
    struct metrics_gauges g;
    measure(j, &g);
    metrics_summary(j->metrics, &g, out);
    devices_summary(j, out);
    return 0;
}

static int report_metrics(struct jobs *j, uid_t uid, struct str *out)
{
    (void)uid;
    struct metrics_gauges g;
    measure(j, &g);
    metrics_prometheus(j->metrics, &g, out);
    devices_prometheus(j, out);
    return 0;
}

/* ---- the table ---- */

const char *const jobs_report_names[] = {"version", "profiles", "models",  "queue",
                                         "limits",  "stats",    "metrics", NULL};
static int (*const reports[])(struct jobs *j, uid_t uid, struct str *out) = {
    report_version, report_profiles, report_models,  report_queue,
    report_limits,  report_stats,    report_metrics,
};

int jobs_report(struct jobs *j, const char *name, uid_t uid, struct str *out)
{
    for (size_t i = 0; i < ARRAY_LEN(reports); i++)
        if (!strcmp(name, jobs_report_names[i])) {
            int code = reports[i](j, uid, out);
            return out->failed ? -ENOMEM : code;
        }
    return -ENOENT;
}
