#include "engine/cpu/walk.h"

#include <string.h>

#include "engine/cpu/parallel.h"

#define SPAN_MAX       8192  /* elements: long rows are shared among threads too */
#define PARALLEL_GRAIN 16384 /* elements: less is not worth waking a thread */

void walk_start(struct walk *w, int rank, const int64_t *dims)
{
    w->operands = 0;
    w->rank = rank;
    memcpy(w->dims, dims, (size_t)rank * sizeof *dims);
}

bool walk_add_raw(struct walk *w, void *data, const int64_t *strides, size_t size)
{
    if (w->operands == WALK_OPERANDS)
        return false;
    for (int i = 0; i < w->rank; i++)
        w->strides[w->operands][i] = strides[i] * (int64_t)size;
    w->sizes[w->operands] = (int64_t)size;
    w->data[w->operands++] = data;
    return true;
}

bool walk_add(struct walk *w, const struct tensor *t)
{
    int64_t strides[TENSOR_MAX_RANK] = {0};
    for (int i = 0, skip = w->rank - t->rank; i < t->rank; i++)
        strides[skip + i] = t->dims[i] == 1 ? 0 : t->strides[i];
    return walk_add_raw(w, t->data, strides, dtype_size(t->dtype));
}

/* Merges axis i into i + 1 where every operand allows it, and drops axes of one entry. */
static void merge_axes(struct walk *w)
{
    int kept = 0;
    for (int i = 0; i < w->rank; i++) {
        if (w->dims[i] == 1)
            continue;
        bool joins = kept > 0;
        for (int k = 0; joins && k < w->operands; k++)
            joins = w->strides[k][kept - 1] == w->strides[k][i] * w->dims[i];
        int at = joins ? kept - 1 : kept++;
        w->dims[at] = joins ? w->dims[at] * w->dims[i] : w->dims[i];
        for (int k = 0; k < w->operands; k++)
            w->strides[k][at] = w->strides[k][i];
    }
    w->rank = kept;
}

struct walk_job {
    const struct walk *walk;
    void (*body)(const struct span *);
    const void *ctx;
    int64_t chunk, chunks; /* elements in a span, spans in an innermost row */
};

static void walk_task(void *ctx, int worker, int64_t begin, int64_t end)
{
    const struct walk_job *job = ctx;
    const struct walk *w = job->walk;
    (void)worker;
    for (int64_t unit = begin; unit < end; unit++) {
        int64_t start = unit % job->chunks * job->chunk, rest = unit / job->chunks;
        int64_t left = w->dims[w->rank - 1] - start;
        struct span s = {.ctx = job->ctx, .n = left < job->chunk ? left : job->chunk};
        for (int k = 0; k < w->operands; k++) {
            s.step[k] = w->strides[k][w->rank - 1];
            s.p[k] = w->data[k] + start * s.step[k];
        }
        for (int i = w->rank - 2; i >= 0; rest /= w->dims[i--])
            for (int k = 0; k < w->operands; k++)
                s.p[k] += rest % w->dims[i] * w->strides[k][i];
        job->body(&s);
    }
}

static bool innermost_dense(const struct walk *w)
{
    for (int k = 0; k < w->operands; k++)
        if (w->strides[k][w->rank - 1] != w->sizes[k])
            return false;
    return true;
}

void walk_run(struct walk *w, int threads, bool dense, void (*body)(const struct span *s),
              const void *ctx)
{
    merge_axes(w);
    if (w->rank == 0 || (dense && !innermost_dense(w))) { /* spans of one element always work */
        w->dims[w->rank] = 1;
        for (int k = 0; k < w->operands; k++)
            w->strides[k][w->rank] = w->sizes[k];
        w->rank++;
    }
    struct walk_job job = {.walk = w, .body = body, .ctx = ctx};
    int64_t inner = w->dims[w->rank - 1], outer = 1;
    job.chunk = inner < SPAN_MAX ? inner : SPAN_MAX;
    job.chunks = (inner + job.chunk - 1) / job.chunk;
    for (int i = 0; i < w->rank - 1; i++)
        outer *= w->dims[i];
    cpu_parallel(threads, outer * job.chunks, (PARALLEL_GRAIN + job.chunk - 1) / job.chunk,
                 walk_task, &job);
}
