#include "det.h"

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"

static uint64_t fnv(const char *s)
{
    uint64_t h = 0xcbf29ce484222325u;
    while (*s)
        h = (h ^ (unsigned char)*s++) * 0x100000001b3u;
    return h;
}

void det_uniform(const char *name, double *u, size_t n)
{
    uint64_t h = fnv(name);
    for (size_t i = 0; i < n; i++) {
        uint64_t z = h + (i + 1) * 0x9E3779B97F4A7C15u;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        z ^= z >> 31;
        u[i] = (double)(z >> 40) / 16777216.0;
    }
}

static bool ends(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

/* value = base + spread·(u - 0.5) */
static void rule(const char *name, int rank, const int64_t *dims, double *base, double *spread)
{
    double fan_in = 1;
    for (int i = 1; i < rank; i++)
        fan_in *= (double)dims[i];
    *base = 0;
    *spread = 0.2;
    if (ends(name, "num_batches_tracked"))
        *spread = 0;
    else if (ends(name, "running_var"))
        *base = *spread = 1;
    else if (ends(name, "running_mean"))
        *spread = 1;
    else if (ends(name, "gamma") || (rank == 1 && ends(name, "weight")))
        *base = 1;
    else if (rank > 1)
        *spread = 2 * sqrt(3 / fan_in);
}

static size_t elements(int rank, const int64_t *dims)
{
    size_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= (size_t)dims[i];
    return n;
}

static void fill(const char *name, double base, double spread, float *out, size_t n)
{
    AUTO_FREE double *u = malloc(n * sizeof(*u));
    det_uniform(name, u, n);
    for (size_t i = 0; i < n; i++)
        out[i] = (float)(base + spread * (u[i] - 0.5));
}

void det_weight(const char *name, int rank, const int64_t *dims, float *out)
{
    double base, spread;
    rule(name, rank, dims, &base, &spread);
    fill(name, base, spread, out, elements(rank, dims));
}

void det_input(const char *name, float *out, size_t n)
{
    fill(name, 0, 2 * sqrt(3), out, n);
}

void det_moments(const float *x, size_t n, double *mean, double *deviation)
{
    double sum = 0, square = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i];
    *mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        square += ((double)x[i] - *mean) * ((double)x[i] - *mean);
    *deviation = sqrt(square / (double)n);
}

/* ---- parts ---- */

#define MAX_TENSORS 1024

struct det_tensor {
    char name[160];
    int rank;
    int64_t dims[5];
    float *data;
};

struct det_part {
    struct det_tensor tensors[MAX_TENSORS];
    int count;
};

struct det_part *det_part_new(void)
{
    return calloc(1, sizeof(struct det_part));
}

void det_part_add(struct det_part *p, int rank, const int64_t *dims, const char *fmt, ...)
{
    if (p->count == MAX_TENSORS)
        abort();
    struct det_tensor *t = &p->tensors[p->count++];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(t->name, sizeof(t->name), fmt, ap);
    va_end(ap);
    t->rank = rank;
    memcpy(t->dims, dims, (size_t)rank * sizeof(*dims));
    t->data = malloc(elements(rank, dims) * sizeof(float));
    det_weight(t->name, rank, dims, t->data);
}

float *det_part_data(struct det_part *p, const char *name, size_t *count)
{
    for (int i = 0; i < p->count; i++)
        if (strcmp(p->tensors[i].name, name) == 0) {
            *count = elements(p->tensors[i].rank, p->tensors[i].dims);
            return p->tensors[i].data;
        }
    return NULL;
}

static void header_add(struct str *s, const struct det_tensor *t, size_t *offset)
{
    size_t bytes = elements(t->rank, t->dims) * sizeof(float);
    str_addf(s, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", s->len > 1 ? "," : "", t->name);
    for (int i = 0; i < t->rank; i++)
        str_addf(s, "%s%lld", i ? "," : "", (long long)t->dims[i]);
    str_addf(s, "],\"data_offsets\":[%zu,%zu]}", *offset, *offset + bytes);
    *offset += bytes;
}

static int write_tensors(const struct det_part *p, const char *path)
{
    AUTO_STR struct str header = {0};
    size_t offset = 0;
    str_add(&header, "{");
    for (int i = 0; i < p->count; i++)
        header_add(&header, &p->tensors[i], &offset);
    str_add(&header, "}");
    while (header.len % 8)
        str_addc(&header, ' ');
    AUTO_FILE FILE *f = fopen(path, "wb");
    uint64_t length = header.len;
    if (!f || header.failed || fwrite(&length, 8, 1, f) != 1 ||
        fwrite(header.data, header.len, 1, f) != 1)
        return -1;
    for (int i = 0; i < p->count; i++)
        if (fwrite(p->tensors[i].data,
                   elements(p->tensors[i].rank, p->tensors[i].dims) * sizeof(float), 1, f) != 1)
            return -1;
    return 0;
}

int det_part_write(struct det_part *p, const char *folder, const char *stem, const char *config)
{
    AUTO_STR struct str path = {0};
    AUTO_STR struct str weights = {0};
    str_addf(&path, "%s/config.json", folder);
    str_addf(&weights, "%s/%s.safetensors", folder, stem);
    int rc = file_mkdirs(folder, NULL);
    AUTO_FILE FILE *f = rc == 0 ? fopen(path.data, "w") : NULL;
    if (!f || fputs(config, f) < 0)
        rc = -1;
    if (rc == 0)
        rc = write_tensors(p, weights.data);
    for (int i = 0; i < p->count; i++)
        free(p->tensors[i].data);
    free(p);
    return rc;
}
