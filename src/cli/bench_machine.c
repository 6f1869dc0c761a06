/* The machine's part of `omnifs bench`: what the best products and copies reach here. What the
 * engine does is given as a part of these. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "cli/bench.h"
#include "engine/backend.h"
#include "engine/cpu/cpu.h"

#define ROUNDS     5
#define COPY_BYTES (256u << 20)

static void row(json_t *rows, const char *what, double value, const char *unit)
{
    json_array_append_new(rows,
                          json_pack("{s:s, s:f, s:s}", "what", what, "value", value, "unit", unit));
}

/* The best GFLOP/s of x·wᵀ with both side x side; 0 when it cannot run. The best and not the
 * median, as this is the ceiling that others are measured against. */
static double product_rate(struct backend *backend, enum dtype compute, int64_t side, struct err *e)
{
    const size_t count = (size_t)side * (size_t)side, bytes = count * sizeof(float);
    const int64_t dims[] = {side, side};
    AUTO_FREE float *data = malloc(bytes);
    struct tensor *w = NULL;
    struct ops *o = data ? ops_new(backend, compute, 16 * bytes, e) : NULL;
    double best = 0;
    if (!o)
        return 0;
    for (size_t i = 0; i < count; i++)
        data[i] = (float)(i % 251) / 251;
    if (tensor_weight_new(backend, DTYPE_F32, 2, dims, data, compute, &w, e) == 0) {
        struct tensor *x = op_from_host(o, DTYPE_F32, 2, dims, data);
        for (int i = 0; i < 4 * ROUNDS; i++) {
            ops_mark mark = ops_push(o);
            double start = clock_seconds();
            op_linear(o, x, w, NULL, ACT_NONE);
            double rate = 2.0 * (double)count * (double)side / (clock_seconds() - start) / 1e9;
            ops_pop(o, mark);
            best = rate > best ? rate : best;
        }
    }
    if (ops_error(o, e))
        best = 0;
    tensor_weight_free(w);
    ops_free(o);
    return best;
}

/* The best over sizes that fit in the caches and sizes that do not. */
static double peak(struct backend *backend, enum dtype compute, struct err *e)
{
    static const int64_t sides[] = {256, 512, 1024, 2048};
    double best = 0;
    for (size_t i = 0; i < ARRAY_LEN(sides) && !e->code; i++) {
        double rate = product_rate(backend, compute, sides[i], e);
        best = rate > best ? rate : best;
    }
    return best;
}

/* GB/s read and written together by one thread. */
static double copy_rate(void)
{
    AUTO_FREE char *from = malloc(COPY_BYTES);
    AUTO_FREE char *to = malloc(COPY_BYTES);
    double rates[ROUNDS] = {0};
    if (!from || !to)
        return 0;
    memset(from, 1, COPY_BYTES);
    for (int i = -1; i < ROUNDS; i++) {
        double start = clock_seconds();
        memcpy(to, from, COPY_BYTES);
        if (i >= 0)
            rates[i] = 2.0 * COPY_BYTES / (clock_seconds() - start) / 1e9;
        from[0] = to[COPY_BYTES - 1]; /* the copy has a use, so it happens */
    }
    return bench_median(rates, ROUNDS);
}

int bench_machine(struct bench *b, json_t *rows, struct err *e)
{
    struct backend *backend = NULL;
    if (cpu_backend_new(0, &backend, e))
        return e->code;
    b->peak_fp32 = peak(backend, DTYPE_F32, e);
    if (!e->code && cpu_of(backend)->has_bf16)
        b->peak_bf16 = peak(backend, DTYPE_BF16, e);
    row(rows, "best square product, fp32", b->peak_fp32, "GFLOP/s");
    if (b->peak_bf16 > 0)
        row(rows, "best square product, bf16", b->peak_bf16, "GFLOP/s");
    row(rows, "copy by one thread, read and written", copy_rate(), "GB/s");
    backend_free(backend);
    return e->code;
}
