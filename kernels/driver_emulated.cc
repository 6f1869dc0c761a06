/* driver.h with plain memory, and with the failures that tests ask for. Work is done at once. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/driver.h"
#include "kernels/emulated.h"

enum { OK, NO_MEMORY, LOST, NO_DEVICE };

#define DEVICES 2 /* so that several are tested */

#define MEMORY (UINT64_C(1) << 40)

struct block {
    void *p;
    size_t bytes;
    bool guarded;
};

static struct {
    struct block *blocks; /* device memory */
    size_t count, room;
    bool guard, lost;
    int fail_alloc, calls_left, launch_error; /* calls_left -1: never lost */
    uint64_t used;                            /* bytes of device memory */
    int slow, asked;                          /* emulated_set_slow; how often since the last */
    uint64_t passed;                          /* events that were passed */
    struct emulated_counts counts;
} gpu = {nullptr, 0, 0, false, false, 0, -1, 0, 0, 0, 0, 0, {}};

struct CUevent_st {
    uint64_t number; /* of its last record among all; 0: none */
};

/* One call or kernel at a time, whichever thread it comes from. */
static pthread_mutex_t the_lock = PTHREAD_MUTEX_INITIALIZER;
struct held {
    held()
    {
        pthread_mutex_lock(&the_lock);
    }
    ~held()
    {
        pthread_mutex_unlock(&the_lock);
    }
};

/* ---- switches ---- */

void emulated_set_guard(bool on)
{
    gpu.guard = on;
}

void emulated_fail_alloc(int n)
{
    gpu.fail_alloc = n;
}

void emulated_lose_device(int calls)
{
    gpu.calls_left = calls;
    gpu.lost = false;
    gpu.launch_error = OK;
}

void emulated_set_slow(int asks)
{
    gpu.slow = asks;
    gpu.asked = 0;
    gpu.passed = gpu.counts.events;
}

struct emulated_counts emulated_counts(void)
{
    struct emulated_counts counts = gpu.counts;
    counts.ahead = counts.events - gpu.passed;
    return counts;
}

/* One more call: false when the device is lost. */
static bool here(void)
{
    if (gpu.calls_left == 0)
        gpu.lost = true;
    if (gpu.calls_left > 0)
        gpu.calls_left--;
    return !gpu.lost;
}

static void protect(int rights)
{
    for (size_t i = 0; i < gpu.count; i++)
        if (gpu.blocks[i].guarded && mprotect(gpu.blocks[i].p, gpu.blocks[i].bytes, rights) != 0)
            abort();
}

bool emulated_enter_device(void)
{
    pthread_mutex_lock(&the_lock);
    gpu.counts.launches++;
    if (!here()) {
        gpu.launch_error = LOST;
        pthread_mutex_unlock(&the_lock);
        return false;
    }
    protect(PROT_READ | PROT_WRITE);
    return true;
}

void emulated_leave_device(void)
{
    protect(PROT_NONE);
    pthread_mutex_unlock(&the_lock);
}

/* ---- driver.h ---- */

int driver_count(int *count)
{
    *count = DEVICES;
    return OK;
}

int driver_describe(int index, struct driver_device *d)
{
    *d = driver_device{};
    snprintf(d->name, sizeof d->name, "emulated GPU");
    d->major = 9;
    d->multiprocessors = 4;
    d->memory = MEMORY;
    return index >= 0 && index < DEVICES ? OK : NO_DEVICE;
}

int driver_use(int index)
{
    return index >= 0 && index < DEVICES ? OK : NO_DEVICE;
}

int driver_stream_new(gpu_stream *s)
{
    *s = reinterpret_cast<gpu_stream>(malloc(1));
    return *s ? OK : NO_MEMORY;
}

int driver_stream_free(gpu_stream s)
{
    free(s);
    return OK;
}

int driver_wait(gpu_stream s)
{
    (void)s;
    held lock;
    gpu.counts.waits++;
    gpu.passed = gpu.counts.events;
    return here() ? OK : LOST;
}

int driver_launched(void)
{
    held lock;
    int code = gpu.launch_error;
    gpu.launch_error = gpu.lost ? LOST : OK;
    return code;
}

/* Fresh device memory holds anything: here NaN. */
int driver_alloc(gpu_stream s, size_t bytes, void **out)
{
    (void)s;
    held lock;
    *out = nullptr;
    if (!here())
        return LOST;
    if (gpu.fail_alloc > 0 && --gpu.fail_alloc == 0)
        return NO_MEMORY;
    if (gpu.count == gpu.room) {
        size_t room = gpu.room ? 2 * gpu.room : 64;
        void *grown = realloc(static_cast<void *>(gpu.blocks), room * sizeof *gpu.blocks);
        if (!grown)
            return NO_MEMORY;
        gpu.blocks = static_cast<struct block *>(grown);
        gpu.room = room;
    }
    struct block b = {nullptr, bytes, gpu.guard};
    if (b.guarded) {
        b.p = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (b.p == MAP_FAILED)
            return NO_MEMORY;
    } else if (posix_memalign(&b.p, 256, bytes) != 0) {
        return NO_MEMORY;
    } else {
        memset(b.p, 0xFF, bytes < (16u << 20) ? bytes : (16u << 20));
    }
    gpu.blocks[gpu.count++] = b;
    gpu.used += bytes;
    gpu.counts.live++;
    *out = b.p;
    return OK;
}

int driver_free(gpu_stream s, void *p)
{
    (void)s;
    held lock;
    for (size_t i = 0; p && i < gpu.count; i++) {
        struct block b = gpu.blocks[i];
        if (b.p != p)
            continue;
        gpu.blocks[i] = gpu.blocks[--gpu.count];
        gpu.used -= b.bytes;
        gpu.counts.live--;
        if (b.guarded)
            munmap(p, b.bytes);
        else
            free(p);
        return OK;
    }
    if (p)
        abort(); /* freed twice, or never given */
    return OK;
}

int driver_memory(uint64_t *free_bytes, uint64_t *total)
{
    held lock;
    *free_bytes = MEMORY - gpu.used;
    *total = MEMORY;
    return here() ? OK : LOST;
}

bool driver_is_out_of_memory(int code)
{
    return code == NO_MEMORY;
}

int driver_pinned_alloc(size_t bytes, void **out)
{
    *out = malloc(bytes);
    return *out ? OK : NO_MEMORY;
}

int driver_pinned_free(void *p)
{
    free(p);
    return OK;
}

static int move_bytes(void *to, const void *from, size_t bytes)
{
    held lock;
    if (!here())
        return LOST;
    protect(PROT_READ | PROT_WRITE);
    memcpy(to, from, bytes);
    protect(PROT_NONE);
    return OK;
}

int driver_to_device(gpu_stream s, void *to, const void *host, size_t bytes)
{
    (void)s;
    gpu.counts.carried += bytes;
    return move_bytes(to, host, bytes);
}

int driver_to_host(gpu_stream s, void *host, const void *from, size_t bytes)
{
    (void)s;
    return move_bytes(host, from, bytes);
}

int driver_copy(gpu_stream s, void *to, const void *from, size_t bytes)
{
    (void)s;
    return move_bytes(to, from, bytes);
}

int driver_fill(gpu_stream s, void *p, int byte, size_t bytes)
{
    (void)s;
    held lock;
    if (!here())
        return LOST;
    protect(PROT_READ | PROT_WRITE);
    memset(p, byte, bytes);
    protect(PROT_NONE);
    return OK;
}

int driver_event_new(gpu_event *e)
{
    *e = static_cast<gpu_event>(calloc(1, sizeof **e));
    return *e ? OK : NO_MEMORY;
}

int driver_event_free(gpu_event e)
{
    free(e);
    return OK;
}

int driver_event_record(gpu_event e, gpu_stream s)
{
    (void)s;
    held lock;
    e->number = ++gpu.counts.events;
    if (!gpu.slow)
        gpu.passed = e->number;
    return here() ? OK : LOST;
}

int driver_event_wait(gpu_event e)
{
    held lock;
    if (gpu.passed < e->number)
        gpu.passed = e->number;
    return here() ? OK : LOST;
}

int driver_event_passed(gpu_event e, bool *passed)
{
    held lock;
    if (gpu.passed < e->number && ++gpu.asked >= gpu.slow) {
        gpu.asked = 0;
        gpu.passed++;
    }
    *passed = gpu.passed >= e->number;
    return here() ? OK : LOST;
}

int driver_event_between(gpu_event from, gpu_event to, float *ms)
{
    (void)from, (void)to;
    *ms = 0;
    return OK;
}

const char *driver_text(int code)
{
    static const char *const texts[] = {"no error", "out of memory", "the device was lost",
                                        "invalid device ordinal"};
    return code >= 0 && code <= NO_DEVICE ? texts[code] : "unknown error";
}
