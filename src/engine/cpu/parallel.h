/* Threads of the CPU backend: one fork-join loop over OpenMP, serial where it is compiled out. */
#ifndef OMNI_CPU_PARALLEL_H
#define OMNI_CPU_PARALLEL_H

#include <stdint.h>

/* Works on items begin … end-1. `worker` is below the loop's thread count, for scratch. */
typedef void (*cpu_task)(void *ctx, int worker, int64_t begin, int64_t end);

/* Splits n items into at most `threads` equal runs of at least `grain` items, one a worker. The
 * split depends on nothing else, so that results never depend on timing. */
void cpu_parallel(int threads, int64_t n, int64_t grain, cpu_task task, void *ctx);

/* Makes library code that asks OpenMP itself (oneDNN) use as many threads, from this thread on. */
void cpu_parallel_limit(int threads);

/* CPUs this process may use. */
int cpu_parallel_available(void);

#endif
