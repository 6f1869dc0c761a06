/* The operations' part of `omnifs bench`: every shape a step is made of, beside oneDNN alone and
 * the machine's measured peak. */
#include "cli/bench.h"
#include "engine/backend.h"
#include "engine/bench.h"

struct table_of_ops {
    const struct bench *bench;
    json_t *rows;
};

static bool add_row(void *ctx, const struct omni_bench_row *r)
{
    const struct table_of_ops *t = ctx;
    double peak = r->compute == DTYPE_BF16 ? t->bench->peak_bf16 : t->bench->peak_fp32;
    json_array_append_new(t->rows,
                          json_pack("{s:s, s:s, s:s, s:f, s:f, s:f, s:f, s:f}", "operation", r->op,
                                    "shape", r->shape, "compute", dtype_name(r->compute), "ms",
                                    r->seconds * 1e3, "GFLOP/s", r->gflops, "GB/s", r->gbytes,
                                    "% of peak", peak > 0 ? 100 * r->gflops / peak : 0,
                                    "% of oneDNN", 100 * r->of_library));
    return true;
}

int bench_operations(struct bench *b, json_t *rows, struct err *e)
{
    struct backend *backend = NULL;
    if (cpu_backend_new(0, &backend, e))
        return e->code;
    struct table_of_ops t = {b, rows};
    int rc = omni_bench_ops(backend, 0, add_row, &t, e);
    backend_free(backend);
    return rc;
}
