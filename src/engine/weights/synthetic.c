#include "engine/weights/synthetic.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "engine/weights/half.h"

#define PERIOD ((size_t)32 << 20) /* bytes that repeat */
#define SPAN   ((size_t)2 << 30)  /* bytes of the largest tensor */
#define SCALES 24                 /* matrices: values are within 2^-scale */
enum { NORM = SCALES, SMALL, KINDS };

struct made {
    struct weights_entry entry;
    struct made *next;
};

struct synthetic {
    char *path;
    void *spans[KINDS]; /* [SPAN]: the same PERIOD bytes all along; NULL until asked for */
    struct made *entries;
};

struct synthetic *synthetic_new(const char *path)
{
    struct synthetic *s = calloc(1, sizeof *s);
    if (s && !(s->path = strdup(path))) {
        free(s);
        return NULL;
    }
    return s;
}

void synthetic_free(struct synthetic *s)
{
    if (!s)
        return;
    for (int i = 0; i < KINDS; i++)
        if (s->spans[i])
            munmap(s->spans[i], SPAN);
    for (struct made *m = s->entries, *next; m; m = next) {
        next = m->next;
        free((char *)m->entry.name);
        free(m);
    }
    free(s->path);
    free(s);
}

/* ---- values ---- */

static struct formula formula_of(int kind)
{
    return (struct formula){.base = kind == NORM ? 1.0f : 0.0f,
                            .scale = kind < SCALES ? ldexpf(1, -kind) : 0.02f,
                            .seed = (uint32_t)(kind + 1) * 0x9E3779B9u,
                            .period = PERIOD / sizeof(uint16_t)};
}

static void fill(uint16_t *out, int kind)
{
    struct formula f = formula_of(kind);
    for (int64_t i = 0; i < f.period; i++)
        out[i] = float_to_bfloat(formula_value(&f, (uint32_t)i));
}

/* One stretch of memory, seen again and again from `span` on. */
static int repeat(int fd, char *span)
{
    for (size_t at = 0; at < SPAN; at += PERIOD)
        if (mmap(span + at, PERIOD, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
            return -errno;
    return 0;
}

static int make_span(int kind, void **out, struct err *e)
{
    AUTO_FD int fd = memfd_create("omni-synthetic", MFD_CLOEXEC);
    void *first = MAP_FAILED, *span = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, (off_t)PERIOD) == 0)
        first = mmap(NULL, PERIOD, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (first != MAP_FAILED) {
        fill(first, kind);
        munmap(first, PERIOD);
        span = mmap(NULL, SPAN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    if (span == MAP_FAILED || repeat(fd, span)) {
        if (span != MAP_FAILED)
            munmap(span, SPAN);
        return err_set(e, -ENOMEM, "not enough memory for synthetic weights: %s", strerror(errno));
    }
    *out = span;
    return 0;
}

/* ---- tensors ---- */

/* Uniform values within ±2^-scale have the variance 4^-scale / 3, which should be 1/fan-in. */
static int kind_of(const char *name, int rank, const int64_t *dims)
{
    const char *dot = strrchr(name, '.');
    if (rank < 2)
        return dot && strcmp(dot, ".weight") == 0 ? NORM : SMALL;
    double fan_in = 1;
    for (int i = 1; i < rank; i++)
        fan_in *= (double)dims[i];
    int scale = (int)lround(log2(fan_in / 3) / 2);
    return scale < 0 ? 0 : scale < SCALES ? scale : SCALES - 1;
}

const struct weights_entry *synthetic_entry(struct synthetic *s, const char *name, int rank,
                                            const int64_t *dims, struct err *e)
{
    size_t bytes = sizeof(uint16_t);
    int kind = kind_of(name, rank, dims);
    for (int i = 0; i < rank; i++)
        if (dims[i] < 1 || __builtin_mul_overflow(bytes, (size_t)dims[i], &bytes) || bytes > SPAN) {
            err_set(e, -EINVAL, "%s: tensor '%s' would be over %zu bytes", s->path, name, SPAN);
            return NULL;
        }
    if (!s->spans[kind] && make_span(kind, &s->spans[kind], e) != 0)
        return NULL;
    struct made *m = calloc(1, sizeof *m);
    char *copy = m ? strdup(name) : NULL;
    if (!copy) {
        free(m);
        err_nomem(e);
        return NULL;
    }
    m->entry = (struct weights_entry){.name = copy,
                                      .file = s->path,
                                      .stored = "BF16",
                                      .usable = true,
                                      .dtype = DTYPE_BF16,
                                      .rank = rank,
                                      .formula = formula_of(kind),
                                      .data = s->spans[kind],
                                      .bytes = bytes};
    memcpy(m->entry.dims, dims, (size_t)rank * sizeof *dims);
    m->next = s->entries;
    s->entries = m;
    return &m->entry;
}
