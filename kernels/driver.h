/* What the backend needs of a GPU's runtime, and no more. driver_cuda.cu gives it with the CUDA
 * runtime, driver_emulated.cc with plain memory; one of the two is linked.
 *
 * Functions return 0 or the runtime's own code, whose text is driver_text. Work on a stream runs in
 * order and after the call returned; what says "waits" does not return before it is done. */
#ifndef OMNI_DRIVER_H
#define OMNI_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct CUstream_st *gpu_stream;
typedef struct CUevent_st *gpu_event;

struct driver_device {
    char name[64];       /* "NVIDIA H200" */
    int major, minor;    /* compute capability: 9, 0 */
    int multiprocessors; /* of the device */
    uint64_t memory;     /* bytes */
    double bandwidth;    /* bytes a second to memory, as the data sheet counts; 0: unknown */
    double clock;        /* Hz of the multiprocessors; 0: unknown */
    int driver, runtime; /* versions: 13000 is 13.0 */
};

/* How many devices there are; 0 with a code when there is no driver. */
int driver_count(int *count);
int driver_describe(int index, struct driver_device *d);
/* Makes the device this thread's own. Cheap when it is. */
int driver_use(int index);

int driver_stream_new(gpu_stream *s);
int driver_stream_free(gpu_stream s);
/* Waits for all work so far. */
int driver_wait(gpu_stream s);
/* The code of a launch that failed since the last call, or 0. */
int driver_launched(void);

/* Device memory from the device's pool, in the stream's order. */
int driver_alloc(gpu_stream s, size_t bytes, void **out);
int driver_free(gpu_stream s, void *p);
/* Of this thread's device; what its pool keeps for the next that asks is free. */
int driver_memory(uint64_t *free_bytes, uint64_t *total);
bool driver_is_out_of_memory(int code);

/* Host memory that the device copies from and to by itself. */
int driver_pinned_alloc(size_t bytes, void **out);
int driver_pinned_free(void *p);

/* `host` must stay until the stream has come here. */
int driver_to_device(gpu_stream s, void *to, const void *host, size_t bytes);
int driver_to_host(gpu_stream s, void *host, const void *from, size_t bytes);
/* No overlap. */
int driver_copy(gpu_stream s, void *to, const void *from, size_t bytes);
int driver_fill(gpu_stream s, void *p, int byte, size_t bytes);

int driver_event_new(gpu_event *e);
int driver_event_free(gpu_event e);
int driver_event_record(gpu_event e, gpu_stream s);
/* Waits until the stream has come to the place of the last record; at once when there is none. */
int driver_event_wait(gpu_event e);
/* Has the stream come there? Does not wait. */
int driver_event_passed(gpu_event e, bool *passed);
/* Milliseconds between two events that both have passed. */
int driver_event_between(gpu_event from, gpu_event to, float *ms);

const char *driver_text(int code);

#ifdef __cplusplus
}
#endif

#endif
