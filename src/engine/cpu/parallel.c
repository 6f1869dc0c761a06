#include "engine/cpu/parallel.h"

#include <sched.h>
#ifdef _OPENMP
#include <omp.h>
#endif

void cpu_parallel(int threads, int64_t n, int64_t grain, cpu_task task, void *ctx)
{
    if (n <= 0)
        return;
    int64_t most = grain > 1 ? n / grain : n;
    int workers = most < threads ? (int)most : threads;
#ifdef _OPENMP
    if (workers > 1) {
        /* Always the whole team: the runtime ends and starts threads when its size changes. */
#pragma omp parallel for num_threads(threads) schedule(static, 1)
        for (int i = 0; i < workers; i++)
            task(ctx, i, n * i / workers, n * (i + 1) / workers);
        return;
    }
#else
    (void)workers;
#endif
    task(ctx, 0, 0, n);
}

void cpu_parallel_limit(int threads)
{
#ifdef _OPENMP
    if (omp_get_max_threads() != threads)
        omp_set_num_threads(threads);
#else
    (void)threads;
#endif
}

int cpu_parallel_available(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n > 0 ? n : 1;
}
