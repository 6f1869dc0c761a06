/* The CPU backend: life, memory, and the table of kernels. */
#include "engine/cpu/cpu.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"

#define THREADS_MAX 1024

static void cpu_destroy(struct backend *b)
{
    struct cpu *c = cpu_of(b);
    dnn_close(&c->dnn);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

/* Fresh pages cost a fault each; large ones cost fewer. */
static void *cpu_alloc(struct backend *b, size_t bytes)
{
    (void)b;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
#ifdef MADV_HUGEPAGE
    (void)madvise(p, bytes, MADV_HUGEPAGE); /* only advice */
#endif
    return p;
}

static void cpu_release(struct backend *b, void *p, size_t bytes)
{
    (void)b;
    munmap(p, bytes);
}

static const struct backend_ops cpu_ops = {
    .destroy = cpu_destroy,
    .alloc = cpu_alloc,
    .release = cpu_release,
    .weight_prepare = cpu_weight_prepare,
    .weight_release = cpu_weight_release,
    .weight_bytes = cpu_weight_bytes,
    .weight_mapped = cpu_weight_mapped,
    .upload = cpu_upload,
    .download = cpu_download,
    .fill_zero = cpu_fill_zero,
    .copy = cpu_copy,
    .move = cpu_move,
    .linear = cpu_linear,
    .conv2d = cpu_conv2d,
    .attention = cpu_attention,
    .rms_norm = cpu_rms_norm,
    .layer_norm = cpu_layer_norm,
    .group_sums_add = cpu_group_sums_add,
    .group_norm_rows = cpu_group_norm_rows,
    .act = cpu_act,
    .glu = cpu_glu,
    .add = cpu_add,
    .mul = cpu_mul,
    .affine = cpu_affine,
    .gated_add_to = cpu_gated_add_to,
    .combine_to = cpu_combine_to,
    .rope = cpu_rope,
    .embedding = cpu_embedding,
    .timestep_embedding = cpu_timestep_embedding,
    .upsample_nearest = cpu_upsample_nearest,
    .all_finite = cpu_all_finite,
    .to_u8 = cpu_to_u8,
};

static int choose_threads(int asked, int *out, struct err *e)
{
    const char *text = getenv("OMNIFS_THREADS");
    *out = asked > 0 ? asked : cpu_parallel_available();
    if (asked <= 0 && text && *text) {
        char *end;
        errno = 0;
        long n = strtol(text, &end, 10);
        if (errno || *end || n < 1 || n > THREADS_MAX)
            return err_set(e, -EINVAL, "OMNIFS_THREADS is \"%s\", expected a number from 1 to %d",
                           text, THREADS_MAX);
        *out = (int)n;
    }
    *out = *out > THREADS_MAX ? THREADS_MAX : *out;
    return 0;
}

/* A product that is limited by arithmetic, on one thread: others may be busy elsewhere, and a pause
 * of one would look like slow arithmetic. */
#define PROBE_ROWS  128
#define PROBE_SIDE  512
#define PROBE_CALLS 12

static struct dnn_shape probe_shape(enum dtype type)
{
    return (struct dnn_shape){.type = type,
                              .threads = 1,
                              .m = PROBE_ROWS,
                              .n = PROBE_SIDE,
                              .k = PROBE_SIDE,
                              .ldx = PROBE_SIDE,
                              .ldw = PROBE_SIDE,
                              .ldy = PROBE_SIDE};
}

int cpu_backend_new(int threads, struct backend **out, struct err *e)
{
    struct cpu *c = calloc(1, sizeof *c);
    *out = NULL;
    if (!c)
        return err_nomem(e);
    int rc = choose_threads(threads, &c->threads, e);
    if (!rc)
        rc = dnn_open(&c->dnn, e);
    if (rc) {
        free(c);
        return rc;
    }
    c->base.name = "cpu";
    c->base.ops = &cpu_ops;
    c->base.blocks = true;
    c->fastest = -1;
    pthread_mutex_init(&c->lock, NULL);
    struct dnn_shape shape = probe_shape(DTYPE_BF16);
    struct dnn_product *p = dnn_get(&c->dnn, &shape, NULL, NULL);
    c->has_bf16 = p && !strstr(dnn_implementation(p), "ref");
    dnn_put(&c->dnn, p);
    *out = &c->base;
    return 0;
}

/* Seconds of the best of some products; a huge number when it cannot be measured. */
static double probe_seconds(struct cpu *c, enum dtype type)
{
    struct dnn_shape shape = probe_shape(type);
    struct dnn_product *p = dnn_get(&c->dnn, &shape, NULL, NULL);
    size_t x_bytes = PROBE_ROWS * PROBE_SIDE * dtype_size(type);
    size_t w_bytes = PROBE_SIDE * PROBE_SIDE * dtype_size(type);
    size_t y_bytes = PROBE_ROWS * PROBE_SIDE * sizeof(float);
    char *memory = p ? calloc(1, x_bytes + w_bytes + y_bytes + dnn_scratch(p) + 64) : NULL;
    double best = 1e9;
    for (int i = 0; memory && i < PROBE_CALLS; i++) {
        char *y = memory + x_bytes + w_bytes;
        double start = clock_seconds();
        if (dnn_run(&c->dnn, p, memory, memory + x_bytes, NULL, (float *)(void *)y, y + y_bytes,
                    NULL))
            break;
        double seconds = clock_seconds() - start;
        best = seconds < best ? seconds : best;
    }
    free(memory);
    dnn_put(&c->dnn, p);
    return best;
}

enum dtype cpu_fastest_compute(struct backend *b)
{
    struct cpu *c = cpu_of(b);
    pthread_mutex_lock(&c->lock);
    if (c->fastest < 0) {
        bool bf16 = c->has_bf16 && probe_seconds(c, DTYPE_BF16) < 0.8 * probe_seconds(c, DTYPE_F32);
        c->fastest = bf16 ? DTYPE_BF16 : DTYPE_F32;
    }
    enum dtype fastest = (enum dtype)c->fastest;
    pthread_mutex_unlock(&c->lock);
    return fastest;
}
