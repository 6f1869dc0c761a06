/* Counters and histograms since the start, in Prometheus' terms. Thread-safe. */
#ifndef OMNIFS_JOB_METRICS_H
#define OMNIFS_JOB_METRICS_H

#include "base/str.h"
#include "job/jobs.h"
#include "job/run.h"

struct metrics;

struct metrics *metrics_new(void); /* NULL: memory */
void metrics_free(struct metrics *m);
/* A run ended. */
void metrics_run(struct metrics *m, const struct run *r);
void metrics_batch(struct metrics *m, int jobs);

/* What is not counted but measured at the moment. */
struct metrics_gauges {
    int64_t queued, running, publishing;
    int models_loaded;
    uint64_t model_bytes, budget_bytes;
    uint64_t resident_bytes;
    double uptime; /* seconds */
};
/* The text exposition format, version 0.0.4. */
void metrics_prometheus(struct metrics *m, const struct metrics_gauges *g, struct str *out);
/* For people: totals and mean times. */
void metrics_summary(struct metrics *m, const struct metrics_gauges *g, struct str *out);

#endif
