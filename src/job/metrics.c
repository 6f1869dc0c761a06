#include "job/metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/gpus.h"
#include "base/version.h"

static const double bounds[] = {0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1,   2.5,
                                5,     10,   30,   60,  120,  300, 600, 1800};
#define BUCKETS ARRAY_LEN(bounds)

struct histogram {
    uint64_t buckets[BUCKETS]; /* not cumulative */
    uint64_t count;
    double sum;
};

/* The rows of the stage histogram: the stages, and the wait before and the whole. */
enum { ROW_QUEUE = STAGE_COUNT, ROW_TOTAL, ROWS };

struct metrics {
    pthread_mutex_t lock;
    uint64_t jobs[MODALITY_COUNT][JOB_BLOCKED + 1]; /* by final state */
    struct histogram rows[ROWS];
    uint64_t pictures, frames, output_bytes, batches, batched_jobs, out_of_memory;
};

struct metrics *metrics_new(void)
{
    struct metrics *m = calloc(1, sizeof *m);
    if (m)
        pthread_mutex_init(&m->lock, NULL);
    return m;
}

void metrics_free(struct metrics *m)
{
    if (m)
        pthread_mutex_destroy(&m->lock);
    free(m);
}

static void observe(struct histogram *h, double seconds)
{
    size_t i = 0;
    while (i < BUCKETS && seconds > bounds[i])
        i++;
    if (i < BUCKETS)
        h->buckets[i]++;
    h->count++;
    h->sum += seconds;
}

void metrics_run(struct metrics *m, const struct run *r)
{
    pthread_mutex_lock(&m->lock);
    m->jobs[r->modality][r->state]++;
    if (r->started_ms) {
        for (int s = 0; s < STAGE_COUNT; s++)
            observe(&m->rows[s], r->timings.stage[s]);
        observe(&m->rows[ROW_QUEUE], r->timings.queue);
        observe(&m->rows[ROW_TOTAL], r->timings.total);
    }
    for (int i = 0; i < r->output_count; i++) {
        m->pictures++;
        m->frames += (uint64_t)r->outputs[i].frames;
        m->output_bytes += r->outputs[i].bytes;
    }
    if (r->error.code == -ENOMEM)
        m->out_of_memory++;
    pthread_mutex_unlock(&m->lock);
}

void metrics_batch(struct metrics *m, int jobs)
{
    pthread_mutex_lock(&m->lock);
    m->batches++;
    m->batched_jobs += (uint64_t)jobs;
    pthread_mutex_unlock(&m->lock);
}

/* ---- Prometheus ---- */

static void head(struct str *out, const char *name, const char *type, const char *help)
{
    str_addf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void number(struct str *out, const char *name, const char *type, const char *help, double v)
{
    head(out, name, type, help);
    str_addf(out, "%s %.17g\n", name, v);
}

static void write_jobs(const struct metrics *m, struct str *out)
{
    head(out, "omnifs_jobs_total", "counter", "Jobs ended since the start, by final state.");
    for (int k = 0; k < MODALITY_COUNT; k++)
        for (int s = JOB_DONE; s <= JOB_BLOCKED; s++)
            str_addf(out, "omnifs_jobs_total{modality=\"%s\",state=\"%s\"} %" PRIu64 "\n",
                     modality_names[k], job_state_names[s], m->jobs[k][s]);
}

static void write_histogram(const struct histogram *h, const char *name, const char *label,
                            struct str *out)
{
    uint64_t sum = 0;
    const char *comma = *label ? "," : "";
    for (size_t i = 0; i < BUCKETS; i++) {
        sum += h->buckets[i];
        str_addf(out, "%s_bucket{%s%sle=\"%g\"} %" PRIu64 "\n", name, label, comma, bounds[i], sum);
    }
    str_addf(out, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", name, label, comma, h->count);
    const char *open = *label ? "{" : "", *close = *label ? "}" : "";
    str_addf(out, "%s_sum%s%s%s %.9g\n", name, open, label, close, h->sum);
    str_addf(out, "%s_count%s%s%s %" PRIu64 "\n", name, open, label, close, h->count);
}

static void write_times(const struct metrics *m, struct str *out)
{
    char label[48];
    head(out, "omnifs_stage_seconds", "histogram", "Seconds of each stage of a job.");
    for (int s = 0; s < STAGE_COUNT; s++) {
        snprintf(label, sizeof label, "stage=\"%s\"", job_stage_names[s]);
        write_histogram(&m->rows[s], "omnifs_stage_seconds", label, out);
    }
    head(out, "omnifs_queue_seconds", "histogram", "Seconds a job waited.");
    write_histogram(&m->rows[ROW_QUEUE], "omnifs_queue_seconds", "", out);
    head(out, "omnifs_job_seconds", "histogram", "Seconds from the start of a job to its end.");
    write_histogram(&m->rows[ROW_TOTAL], "omnifs_job_seconds", "", out);
}

/* The whole GPUs, whoever uses them. */
static void write_gpus(struct str *out)
{
    struct gpus g;
    if (gpus_read(&g, NULL) != 0 || g.count == 0)
        return;
    head(out, "omnifs_gpu_info", "gauge", "A GPU of this machine and its driver; always 1.");
    for (int i = 0; i < g.count; i++)
        str_addf(out, "omnifs_gpu_info{gpu=\"%d\",name=\"%s\",driver=\"%s\"} 1\n", i,
                 g.list[i].name, g.driver);
    head(out, "omnifs_gpu_memory_bytes", "gauge", "Bytes of a GPU's memory.");
    for (int i = 0; i < g.count; i++)
        str_addf(out, "omnifs_gpu_memory_bytes{gpu=\"%d\"} %" PRIu64 "\n", i, g.list[i].memory);
    head(out, "omnifs_gpu_memory_used_bytes", "gauge", "Bytes that all processes use.");
    for (int i = 0; i < g.count; i++)
        str_addf(out, "omnifs_gpu_memory_used_bytes{gpu=\"%d\"} %" PRIu64 "\n", i, g.list[i].used);
    head(out, "omnifs_gpu_busy_ratio", "gauge", "Part of the last moment in which a GPU worked.");
    for (int i = 0; i < g.count; i++)
        if (g.list[i].busy >= 0)
            str_addf(out, "omnifs_gpu_busy_ratio{gpu=\"%d\"} %g\n", i, g.list[i].busy / 100.0);
}

void metrics_prometheus(struct metrics *m, const struct metrics_gauges *g, struct str *out)
{
    head(out, "omnifs_build_info", "gauge", "Version and commit; always 1.");
    str_addf(out, "omnifs_build_info{version=\"%s\",commit=\"%s\"} 1\n", omnifs_version,
             omnifs_commit);
    number(out, "omnifs_uptime_seconds", "gauge", "Seconds since the start.", g->uptime);
    head(out, "omnifs_queue_jobs", "gauge", "Jobs now, by state.");
    str_addf(out, "omnifs_queue_jobs{state=\"queued\"} %" PRId64 "\n", g->queued);
    str_addf(out, "omnifs_queue_jobs{state=\"running\"} %" PRId64 "\n", g->running);
    str_addf(out, "omnifs_queue_jobs{state=\"publishing\"} %" PRId64 "\n", g->publishing);
    number(out, "omnifs_models_loaded", "gauge", "Models in memory.", g->models_loaded);
    number(out, "omnifs_model_bytes", "gauge", "Bytes of the weights in memory.",
           (double)g->model_bytes);
    number(out, "omnifs_memory_budget_bytes", "gauge", "Bytes for models and work.",
           (double)g->budget_bytes);
    number(out, "process_resident_memory_bytes", "gauge", "Bytes of this process in memory.",
           (double)g->resident_bytes);
    pthread_mutex_lock(&m->lock);
    write_jobs(m, out);
    number(out, "omnifs_outputs_total", "counter", "Files made.", (double)m->pictures);
    number(out, "omnifs_frames_total", "counter", "Frames made; a picture is one.",
           (double)m->frames);
    number(out, "omnifs_output_bytes_total", "counter", "Bytes of files made.",
           (double)m->output_bytes);
    number(out, "omnifs_batches_total", "counter", "Batches drawn.", (double)m->batches);
    number(out, "omnifs_batched_jobs_total", "counter", "Jobs drawn in batches.",
           (double)m->batched_jobs);
    number(out, "omnifs_out_of_memory_total", "counter", "Jobs refused for want of memory.",
           (double)m->out_of_memory);
    write_times(m, out);
    pthread_mutex_unlock(&m->lock);
    write_gpus(out);
}

/* ---- for people ---- */

static double mean(const struct histogram *h)
{
    return h->count ? h->sum / (double)h->count : 0;
}

/* A line a GPU, or why there is none although there is a driver. */
static void summarise_gpus(struct str *out)
{
    struct gpus g;
    struct err e = {0};
    char line[192];
    if (gpus_read(&g, &e) == -EIO)
        str_addf(out, "gpus: %s\n", e.text);
    for (int i = 0; i < g.count; i++) {
        gpu_describe(&g.list[i], line, sizeof line);
        str_addf(out, "gpu %d: %s, driver %s\n", i, line, g.driver);
    }
}

void metrics_summary(struct metrics *m, const struct metrics_gauges *g, struct str *out)
{
    char bytes[24];
    pthread_mutex_lock(&m->lock);
    str_addf(out, "uptime %.0f s\n", g->uptime);
    str_addf(out, "jobs now: %" PRId64 " queued, %" PRId64 " running, %" PRId64 " publishing\n",
             g->queued, g->running, g->publishing);
    for (int k = 0; k < MODALITY_COUNT; k++) {
        const uint64_t *n = m->jobs[k];
        str_addf(out,
                 "%-5s %" PRIu64 " done, %" PRIu64 " failed, %" PRIu64 " cancelled, %" PRIu64
                 " blocked\n",
                 modality_names[k], n[JOB_DONE], n[JOB_FAILED], n[JOB_CANCELLED], n[JOB_BLOCKED]);
    }
    str_addf(out, "files %" PRIu64 ", frames %" PRIu64 ", %s\n", m->pictures, m->frames,
             format_bytes(m->output_bytes, bytes));
    str_addf(out, "mean seconds: queue %.3f, total %.3f", mean(&m->rows[ROW_QUEUE]),
             mean(&m->rows[ROW_TOTAL]));
    for (int s = 0; s < STAGE_COUNT; s++)
        str_addf(out, ", %s %.3f", job_stage_names[s], mean(&m->rows[s]));
    str_addc(out, '\n');
    pthread_mutex_unlock(&m->lock);
    summarise_gpus(out);
}
