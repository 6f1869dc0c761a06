/* GroupNorm over channels-last pictures in two phases: sums of rows, and rows normed by them with
 * the activation in the same pass.
 *
 * Sums are taken in doubles over stretches of a row of pixels, and added from the top to the
 * bottom, so that neither threads nor batch nor the rows of a call change a bit. */
#include <math.h>
#include <string.h>

#include "engine/cpu/cpu.h"
#include "engine/cpu/simd.h"

#define STRETCH 256 /* pixels of a row summed on their own */

/* What OPS_GROUP_SUM bytes hold. */
struct group_sum {
    double count, sum, square;
};
_Static_assert(sizeof(struct group_sum) <= OPS_GROUP_SUM, "sums need more room");

/* ---- sums ---- */

struct sum_job {
    const struct tensor *x;
    struct rows rows; /* pixels */
    int64_t width, stretches /* of a row */, units /* of an item */;
    int64_t groups;
    double *sums; /* [B, units, 2, C] */
};

CPU_CLONES static void add_pixel(double *restrict sum, double *restrict square,
                                 const float *restrict x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double v = x[i];
        sum[i] += v;
        square[i] += v * v;
    }
}

static void sum_task(void *ctx, int worker, int64_t begin, int64_t end)
{
    const struct sum_job *j = ctx;
    int64_t c = j->rows.width;
    (void)worker;
    for (int64_t unit = begin; unit < end; unit++) {
        int64_t row = unit / j->stretches, first = unit % j->stretches * STRETCH;
        int64_t last = first + STRETCH < j->width ? first + STRETCH : j->width;
        double *sum = j->sums + unit * 2 * c;
        memset(sum, 0, (size_t)(2 * c) * sizeof *sum);
        for (int64_t i = first; i < last; i++)
            add_pixel(sum, sum + c,
                      (const float *)j->x->data + rows_offset(&j->rows, row * j->width + i), c);
    }
}

/* Adds the units of one item and one group. */
static void fold_group(const struct sum_job *j, int64_t item, int64_t group, unsigned char *at)
{
    int64_t c = j->rows.width, size = c / j->groups, first = group * size;
    struct group_sum y;
    memcpy(&y, at, sizeof y);
    for (int64_t unit = 0; unit < j->units; unit++) {
        const double *s = j->sums + (item * j->units + unit) * 2 * c;
        for (int64_t i = first; i < first + size; i++) {
            y.sum += s[i];
            y.square += s[c + i];
        }
    }
    y.count += (double)(j->x->dims[1] * j->x->dims[2] * size);
    memcpy(at, &y, sizeof y);
}

void cpu_group_sums_add(struct ops *o, struct tensor *sums, const struct tensor *x)
{
    int64_t items = x->dims[0], c = x->dims[3];
    struct sum_job j = {.x = x, .rows = rows_of(x), .width = x->dims[2], .groups = sums->dims[1]};
    j.stretches = (j.width + STRETCH - 1) / STRETCH;
    j.units = x->dims[1] * j.stretches;
    j.sums = ops_scratch(o, (size_t)(items * j.units * 2 * c) * sizeof(double));
    if (ops_planning(o) || !j.sums)
        return;
    cpu_parallel(cpu_threads(x), items * j.units, 1, sum_task, &j);
    for (int64_t item = 0; item < items; item++)
        for (int64_t g = 0; g < j.groups; g++)
            fold_group(&j, item, g,
                       (unsigned char *)sums->data + (item * j.groups + g) * OPS_GROUP_SUM);
}

/* ---- norm ---- */

struct scale_job {
    const struct tensor *x, *y;
    struct rows rows; /* pixels */
    int64_t pixels;   /* of an item */
    float *factors;   /* [B, 2, C]: y = act(x · factor + offset) */
    enum activation act;
};

/* Factors and offsets of the channels of one item. */
static void take_factors(float *factor, const unsigned char *sums, int64_t c, int64_t groups,
                         const float *w, const float *b, double eps)
{
    int64_t size = c / groups;
    float *offset = factor + c;
    for (int64_t g = 0; g < groups; g++) {
        struct group_sum s;
        memcpy(&s, sums + g * OPS_GROUP_SUM, sizeof s);
        double mean = s.sum / s.count, variance = s.square / s.count - mean * mean;
        double r = 1.0 / sqrt((variance < 0 ? 0 : variance) + eps); /* NaN stays */
        for (int64_t i = g * size; i < (g + 1) * size; i++) {
            double f = r * (double)(w ? w[i] : 1.0f);
            factor[i] = (float)f;
            offset[i] = (float)((double)(b ? b[i] : 0.0f) - mean * f);
        }
    }
}

CPU_CLONES static void scale_pixel(float *restrict y, const float *restrict x,
                                   const float *restrict factor, const float *restrict offset,
                                   int64_t n, enum activation act)
{
#define CASE(a)                                                                                    \
    for (int64_t i = 0; i < n; i++)                                                                \
        y[i] = simd_act(x[i] * factor[i] + offset[i], a);
    SIMD_ACT_SWITCH(act, CASE)
#undef CASE
}

static void scale_task(void *ctx, int worker, int64_t begin, int64_t end)
{
    const struct scale_job *j = ctx;
    int64_t c = j->rows.width;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        const float *factor = j->factors + i / j->pixels * 2 * c;
        scale_pixel((float *)j->y->data + i * c,
                    (const float *)j->x->data + rows_offset(&j->rows, i), factor, factor + c, c,
                    j->act);
    }
}

void cpu_group_norm_rows(struct ops *o, struct tensor *y, const struct tensor *x,
                         const struct tensor *sums, const struct tensor *w, const struct tensor *b,
                         float eps, enum activation act)
{
    int64_t items = x->dims[0], c = x->dims[3], groups = sums->dims[1];
    struct scale_job j = {
        .x = x, .y = y, .rows = rows_of(x), .pixels = x->dims[1] * x->dims[2], .act = act};
    j.factors = ops_scratch(o, (size_t)(items * 2 * c) * sizeof(float));
    if (ops_planning(o) || !j.factors)
        return;
    for (int64_t item = 0; item < items; item++)
        take_factors(j.factors + item * 2 * c,
                     (const unsigned char *)sums->data + item * groups * OPS_GROUP_SUM, c, groups,
                     w ? w->data : NULL, b ? b->data : NULL, (double)eps);
    cpu_parallel(cpu_threads(y), j.rows.count, 1 + 16384 / c, scale_task, &j);
}
