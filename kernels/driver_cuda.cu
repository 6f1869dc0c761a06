/* driver.h with the CUDA runtime. */
#include <cuda_runtime.h>
#include <stdio.h>

#include "kernels/driver.h"

extern "C" {

int driver_count(int *count)
{
    *count = 0;
    cudaError_t code = cudaGetDeviceCount(count);
    (void)cudaGetLastError();
    return code;
}

int driver_describe(int index, struct driver_device *d)
{
    cudaDeviceProp p;
    int memory_khz = 0, clock_khz = 0;
    cudaError_t code = cudaGetDeviceProperties(&p, index);
    if (code)
        return code;
    (void)cudaDeviceGetAttribute(&memory_khz, cudaDevAttrMemoryClockRate, index);
    (void)cudaDeviceGetAttribute(&clock_khz, cudaDevAttrClockRate, index);
    snprintf(d->name, sizeof d->name, "%.63s", p.name);
    d->major = p.major;
    d->minor = p.minor;
    d->multiprocessors = p.multiProcessorCount;
    d->memory = p.totalGlobalMem;
    d->bandwidth = 2e3 * memory_khz * (p.memoryBusWidth / 8); /* two transfers a cycle */
    d->clock = 1e3 * clock_khz;
    (void)cudaDriverGetVersion(&d->driver);
    (void)cudaRuntimeGetVersion(&d->runtime);
    return 0;
}

int driver_use(int index)
{
    static thread_local int current = -1;
    if (current == index)
        return 0;
    cudaError_t code = cudaSetDevice(index);
    current = code ? -1 : index;
    return code;
}

static cudaError_t pool_of_this_device(cudaMemPool_t *pool)
{
    int index = 0;
    cudaError_t code = cudaGetDevice(&index);
    return code ? code : cudaDeviceGetDefaultMemPool(pool, index);
}

/* Memory that is freed stays with the pool: the next arena takes it without asking the driver. */
static cudaError_t keep_memory(void)
{
    cudaMemPool_t pool;
    uint64_t all = UINT64_MAX;
    cudaError_t code = pool_of_this_device(&pool);
    return code ? code : cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all);
}

int driver_stream_new(gpu_stream *s)
{
    cudaError_t code = keep_memory();
    return code ? code : cudaStreamCreateWithFlags(s, cudaStreamNonBlocking);
}

int driver_stream_free(gpu_stream s)
{
    return cudaStreamDestroy(s);
}

int driver_wait(gpu_stream s)
{
    return cudaStreamSynchronize(s);
}

int driver_launched(void)
{
    return cudaGetLastError();
}

int driver_alloc(gpu_stream s, size_t bytes, void **out)
{
    *out = NULL;
    cudaError_t code = cudaMallocAsync(out, bytes, s);
    (void)cudaGetLastError(); /* too much is no lasting error */
    return code;
}

int driver_free(gpu_stream s, void *p)
{
    return p ? cudaFreeAsync(p, s) : cudaSuccess;
}

int driver_memory(uint64_t *free_bytes, uint64_t *total)
{
    size_t a = 0, b = 0;
    uint64_t reserved = 0, used = 0;
    cudaMemPool_t pool;
    cudaError_t code = cudaMemGetInfo(&a, &b);
    if (!code)
        code = pool_of_this_device(&pool);
    if (!code)
        code = cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &reserved);
    if (!code)
        code = cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used);
    *free_bytes = a + (reserved > used ? reserved - used : 0);
    *total = b;
    return code;
}

bool driver_is_out_of_memory(int code)
{
    return code == cudaErrorMemoryAllocation;
}

int driver_pinned_alloc(size_t bytes, void **out)
{
    return cudaMallocHost(out, bytes);
}

int driver_pinned_free(void *p)
{
    return p ? cudaFreeHost(p) : cudaSuccess;
}

int driver_to_device(gpu_stream s, void *to, const void *host, size_t bytes)
{
    return cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, s);
}

int driver_to_host(gpu_stream s, void *host, const void *from, size_t bytes)
{
    return cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, s);
}

int driver_copy(gpu_stream s, void *to, const void *from, size_t bytes)
{
    return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, s);
}

int driver_fill(gpu_stream s, void *p, int byte, size_t bytes)
{
    return cudaMemsetAsync(p, byte, bytes, s);
}

int driver_event_new(gpu_event *e)
{
    return cudaEventCreate(e);
}

int driver_event_free(gpu_event e)
{
    return e ? cudaEventDestroy(e) : cudaSuccess;
}

int driver_event_record(gpu_event e, gpu_stream s)
{
    return cudaEventRecord(e, s);
}

int driver_event_wait(gpu_event e)
{
    return cudaEventSynchronize(e);
}

int driver_event_passed(gpu_event e, bool *passed)
{
    cudaError_t code = cudaEventQuery(e);
    *passed = code == cudaSuccess;
    if (code != cudaErrorNotReady)
        return code;
    (void)cudaGetLastError(); /* that is an answer */
    return cudaSuccess;
}

int driver_event_between(gpu_event from, gpu_event to, float *ms)
{
    return cudaEventElapsedTime(ms, from, to);
}

const char *driver_text(int code)
{
    return cudaGetErrorString((cudaError_t)code);
}

} /* extern "C" */
