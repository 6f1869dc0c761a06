/* The CUDA backend: life, memory, and the table of kernels. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/device.h"
#include "kernels/cuda.h"
#include "kernels/library.h"

/* ---- errors ---- */

/* What breaks a context comes back with every call, and then is no call's own failure. */
static bool cuda_lost(struct backend *b)
{
    struct cuda *c = cuda_of(b);
    for (int i = 0; i < 2; i++)
        if (!driver_use(c->index) && !driver_wait(c->stream))
            return false;
    return true;
}

int cuda_error(struct cuda *c, int code, const char *what, struct err *e)
{
    uint64_t left = 0, total = 0;
    if (!driver_is_out_of_memory(code))
        return err_set(e, cuda_lost(&c->base) ? BACKEND_LOST : -EIO, "%s: %s: %s", c->base.name,
                       what, driver_text(code));
    c->out_of_memory++;
    (void)driver_memory(&left, &total);
    return err_set(e, -ENOMEM, "%s: %s: %llu of %llu MB are free", c->base.name, what,
                   (unsigned long long)(left >> 20), (unsigned long long)(total >> 20));
}

void cuda_fail(struct ops *o, struct cuda *c, int code, const char *what)
{
    struct err e = {0};
    int rc = code ? cuda_error(c, code, what, &e) : 0;
    if (rc)
        ops_fail(o, rc, "%s", e.text);
}

/* ---- memory ---- */

static void *cuda_alloc(struct backend *b, size_t bytes)
{
    struct cuda *c = cuda_of(b);
    void *p = NULL;
    int code = driver_use(c->index);
    if (!code)
        code = driver_alloc(c->stream, bytes, &p);
    c->out_of_memory += driver_is_out_of_memory(code);
    return code ? NULL : p;
}

static void cuda_release(struct backend *b, void *p, size_t bytes)
{
    struct cuda *c = cuda_of(b);
    (void)bytes;
    (void)driver_use(c->index);
    (void)driver_free(c->stream, p);
}

static int cuda_memory(struct backend *b, uint64_t *free_bytes, uint64_t *total)
{
    struct cuda *c = cuda_of(b);
    int code = driver_use(c->index);
    if (!code)
        code = driver_memory(free_bytes, total);
    return code ? -EIO : 0;
}

static int staging_new(struct staging *s)
{
    int code = 0;
    for (int i = 0; i < STAGING_SLOTS && !code; i++) {
        void *memory = NULL;
        code = driver_pinned_alloc(STAGING_BYTES, &memory);
        s->memory[i] = memory;
        if (!code)
            code = driver_event_new(&s->event[i]);
    }
    return code;
}

static void staging_free(struct staging *s)
{
    for (int i = 0; i < STAGING_SLOTS; i++) {
        if (s->event[i])
            (void)driver_event_free(s->event[i]);
        (void)driver_pinned_free(s->memory[i]);
    }
}

/* Small pieces share a slot, so that the host hardly ever waits; large ones go through all slots
 * in turn. */
int cuda_put(struct cuda *c, void *to, const void *host, size_t bytes)
{
    struct staging *s = &c->staging;
    int code = driver_use(c->index);
    pthread_mutex_lock(&c->lock);
    while (bytes > 0 && !code) {
        size_t room = STAGING_BYTES - s->used, n = bytes < room ? bytes : room;
        if (s->used > 0 && bytes > room) { /* the next slot takes more of it at once */
            code = driver_event_record(s->event[s->slot], c->stream);
            s->slot = (s->slot + 1) % STAGING_SLOTS;
            s->used = 0;
            if (!code)
                code = driver_event_wait(s->event[s->slot]);
            continue;
        }
        memcpy(s->memory[s->slot] + s->used, host, n);
        code = driver_to_device(c->stream, to, s->memory[s->slot] + s->used, n);
        s->used += (n + 63) & ~(size_t)63;
        s->used = s->used < STAGING_BYTES ? s->used : STAGING_BYTES;
        to = (char *)to + n;
        host = (const char *)host + n;
        bytes -= n;
    }
    pthread_mutex_unlock(&c->lock);
    return code;
}

bool cuda_settle(struct ops *o, struct cuda *c, int32_t notes[NOTE_COUNT])
{
    static const char what[] = "the work so far";
    size_t bytes = NOTE_COUNT * sizeof *notes;
    pthread_mutex_lock(&c->lock);
    int code = driver_to_host(c->stream, c->answers, c->notes, bytes);
    if (!code)
        code = driver_wait(c->stream);
    memcpy(notes, c->answers, bytes);
    pthread_mutex_unlock(&c->lock);
    cuda_fail(o, c, code, what);
    if (!code && notes[NOTE_OUTSIDE]) {
        (void)driver_fill(c->stream, c->notes, 0, bytes);
        ops_fail(o, -EINVAL, "embedding: id %d is outside the table", notes[NOTE_ID]);
        return false;
    }
    return !code;
}

static void cuda_upload(struct ops *o, struct tensor *y, const void *host, size_t bytes)
{
    struct cuda *c = cuda_of(ops_backend(o));
    cuda_fail(o, c, cuda_put(c, y->data, host, bytes), "a copy to the device");
}

/* Results are small next to what made them: the runtime's own staging will do. */
static void cuda_download(struct ops *o, void *host, const struct tensor *x, size_t bytes)
{
    struct cuda *c = cuda_of(ops_backend(o));
    int32_t notes[NOTE_COUNT];
    int code = driver_use(c->index);
    if (!code)
        code = driver_to_host(c->stream, host, x->data, bytes);
    cuda_fail(o, c, code, "a copy from the device");
    if (!code)
        (void)cuda_settle(o, c, notes);
}

#define MOVE_PIECES 16

/* From the end that the other range does not reach, in pieces as long as their distance. */
static int move_in_pieces(struct cuda *c, char *to, const char *from, size_t bytes, size_t distance)
{
    int code = 0;
    for (size_t done = 0; done < bytes && !code;) {
        size_t n = bytes - done < distance ? bytes - done : distance;
        size_t at = to < from ? done : bytes - done - n;
        code = driver_copy(c->stream, to + at, from + at, n);
        done += n;
    }
    return code;
}

static void cuda_move(struct ops *o, void *to, const void *from, size_t bytes)
{
    struct cuda *c = cuda_of(ops_backend(o));
    size_t distance = (uintptr_t)to < (uintptr_t)from ? (uintptr_t)from - (uintptr_t)to
                                                      : (uintptr_t)to - (uintptr_t)from;
    void *between = NULL;
    int code = driver_use(c->index);
    if (code || distance == 0) {
        cuda_fail(o, c, code, "a copy on the device");
        return;
    }
    if (bytes / distance > MOVE_PIECES && driver_alloc(c->stream, bytes, &between) == 0) {
        code = driver_copy(c->stream, between, from, bytes);
        if (!code)
            code = driver_copy(c->stream, to, between, bytes);
        (void)driver_free(c->stream, between);
    } else {
        code = move_in_pieces(c, to, from, bytes, distance);
    }
    cuda_fail(o, c, code, "a copy on the device");
}

/* ---- the host ahead of the device ---- */

/* What a cancel waits for at most, and far below a step. */
#define STEP_POLL_NS 200000

static void cuda_step_end(struct ops *o)
{
    struct cuda *c = cuda_of(ops_backend(o));
    int code = driver_use(c->index);
    bool passed = false;
    pthread_mutex_lock(&c->lock);
    gpu_event before = c->step[c->last_step], now = c->step[!c->last_step];
    if (!code)
        code = driver_event_record(now, c->stream);
    c->last_step = !c->last_step;
    pthread_mutex_unlock(&c->lock);
    while (!code && !(code = driver_event_passed(before, &passed)) && !passed &&
           !ops_cancelled(o)) {
        struct timespec pause = {0, STEP_POLL_NS};
        nanosleep(&pause, NULL);
    }
    cuda_fail(o, c, code, "the step before");
}

/* ---- life ---- */

static void cuda_destroy(struct backend *b)
{
    struct cuda *c = cuda_of(b);
    (void)driver_use(c->index);
    if (c->library.close)
        c->library.close(c);
    if (c->stream)
        (void)driver_wait(c->stream);
    (void)driver_free(c->stream, c->notes);
    (void)driver_pinned_free(c->answers);
    staging_free(&c->staging);
    for (int i = 0; i < 2; i++)
        (void)driver_event_free(c->step[i]);
    if (c->stream)
        (void)driver_stream_free(c->stream);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static const struct backend_ops cuda_ops = {
    .destroy = cuda_destroy,
    .alloc = cuda_alloc,
    .release = cuda_release,
    .memory = cuda_memory,
    .lost = cuda_lost,
    .weight_prepare = cuda_weight_prepare,
    .weight_release = cuda_weight_release,
    .weight_bytes = cuda_weight_bytes,
    .weight_mapped = cuda_weight_mapped,
    .upload = cuda_upload,
    .download = cuda_download,
    .fill_zero = cuda_fill_zero,
    .copy = cuda_copy,
    .move = cuda_move,
    .linear = cuda_linear,
    .conv2d = cuda_conv2d,
    .attention = cuda_attention,
    .rms_norm = cuda_rms_norm,
    .layer_norm = cuda_layer_norm,
    .group_sums_add = cuda_group_sums_add,
    .group_norm_rows = cuda_group_norm_rows,
    .act = cuda_act,
    .glu = cuda_glu,
    .add = cuda_add,
    .mul = cuda_mul,
    .affine = cuda_affine,
    .gated_add_to = cuda_gated_add_to,
    .combine_to = cuda_combine_to,
    .rope = cuda_rope,
    .embedding = cuda_embedding,
    .timestep_embedding = cuda_timestep_embedding,
    .upsample_nearest = cuda_upsample_nearest,
    .all_finite = cuda_all_finite,
    .to_u8 = cuda_to_u8,
    .step_end = cuda_step_end,
    .finite_note = cuda_finite_note,
};

static int open_device(struct cuda *c, int index, struct err *e)
{
    int count = 0, code = driver_count(&count);
    if (code || count == 0)
        return err_set(e, -ENODEV, "there is no CUDA device: %s",
                       code ? driver_text(code) : "the driver knows none");
    if (index >= count)
        return err_set(e, -ENODEV, "there is no device cuda:%d, only cuda:0 to cuda:%d", index,
                       count - 1);
    code = driver_describe(index, &c->device);
    if (!code && c->device.major < 8)
        return err_set(e, -ENODEV,
                       "cuda:%d, %s, is of compute capability %d.%d; 8.0 and later are supported",
                       index, c->device.name, c->device.major, c->device.minor);
    if (!code)
        code = driver_use(index);
    return code ? err_set(e, -ENODEV, "cuda:%d does not open: %s", index, driver_text(code)) : 0;
}

static int take_resources(struct cuda *c)
{
    void *notes = NULL, *answers = NULL;
    int code = driver_stream_new(&c->stream);
    if (!code)
        code = staging_new(&c->staging);
    for (int i = 0; i < 2 && !code; i++)
        code = driver_event_new(&c->step[i]);
    if (!code)
        code = driver_alloc(c->stream, NOTE_COUNT * sizeof *c->notes, &notes);
    if (!code)
        code = driver_pinned_alloc(NOTE_COUNT * sizeof *c->answers, &answers);
    if (!code)
        code = driver_fill(c->stream, notes, 0, NOTE_COUNT * sizeof *c->notes);
    c->notes = notes;
    c->answers = answers;
    return code;
}

#define EXPORTED __attribute__((visibility("default")))
EXPORTED cuda_backend_new_fn omni_cuda_backend_new;
EXPORTED cuda_device_count_fn omni_cuda_device_count;

int omni_cuda_device_count(void)
{
    int count = 0;
    return driver_count(&count) ? 0 : count;
}

int omni_cuda_backend_new(int index, struct backend **out, struct err *e)
{
    struct cuda *c = calloc(1, sizeof *c);
    *out = NULL;
    if (!c)
        return err_nomem(e);
    pthread_mutex_init(&c->lock, NULL);
    c->index = index;
    c->base.name = c->name;
    c->base.ops = &cuda_ops;
    c->base.narrow = true;
    const char *waits = getenv("OMNIFS_CUDA_WAIT");
    c->waits = waits && strcmp(waits, "1") == 0;
    int rc = open_device(c, index, e);
    if (rc) {
        pthread_mutex_destroy(&c->lock);
        free(c);
        return rc;
    }
    snprintf(c->name, sizeof c->name, "cuda:%d: %s", index, c->device.name);
    int code = take_resources(c);
    if (code) {
        rc = driver_is_out_of_memory(code)
                 ? cuda_error(c, code, "opening the device", e)
                 : err_set(e, BACKEND_LOST, "%s does not open: %s", c->name, driver_text(code));
        cuda_destroy(&c->base);
        return rc;
    }
    if (c->device.runtime > 0) /* the emulation has none */
        cuda_library_open(c);
    *out = &c->base;
    return 0;
}
