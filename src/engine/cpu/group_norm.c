/* GroupNorm over channels-last pictures, with the activation in the same pass.
 *
 * Sums are taken in doubles over bands of pixels whose number depends on the picture alone, so that
 * neither threads nor batch change a bit. */
#include <math.h>

#include "engine/cpu/cpu.h"
#include "engine/cpu/simd.h"

#define BAND 256 /* pixels summed on their own */

struct group_job {
    const struct tensor *x, *y;
    struct rows rows; /* pixels */
    int64_t pixels, bands;
    int groups;
    const float *w, *b;
    float eps;
    enum activation act;
    double *sums;   /* [B, bands, 2, C] */
    float *factors; /* [B, 2, C]: y = act(x · factor + offset) */
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
    const struct group_job *j = ctx;
    int64_t c = j->rows.width;
    (void)worker;
    for (int64_t unit = begin; unit < end; unit++) {
        int64_t item = unit / j->bands, first = unit % j->bands * BAND;
        int64_t last = first + BAND < j->pixels ? first + BAND : j->pixels;
        double *sum = j->sums + unit * 2 * c;
        memset(sum, 0, (size_t)(2 * c) * sizeof *sum);
        for (int64_t i = first; i < last; i++)
            add_pixel(sum, sum + c,
                      (const float *)j->x->data + rows_offset(&j->rows, item * j->pixels + i), c);
    }
}

/* Turns the bands of one item and one group into factors and offsets of its channels. */
static void fold_group(const struct group_job *j, int64_t item, int group)
{
    int64_t c = j->rows.width, size = c / j->groups, first = group * size;
    double sum = 0, square = 0, n = (double)(j->pixels * size);
    for (int64_t band = 0; band < j->bands; band++) {
        const double *s = j->sums + (item * j->bands + band) * 2 * c;
        for (int64_t i = first; i < first + size; i++) {
            sum += s[i];
            square += s[c + i];
        }
    }
    double mean = sum / n, variance = square / n - mean * mean;
    double r = 1.0 / sqrt((variance > 0 ? variance : variance < 0 ? 0 : variance) + (double)j->eps);
    float *factor = j->factors + item * 2 * c, *offset = factor + c;
    for (int64_t i = first; i < first + size; i++) {
        double f = r * (double)(j->w ? j->w[i] : 1.0f);
        factor[i] = (float)f;
        offset[i] = (float)((double)(j->b ? j->b[i] : 0.0f) - mean * f);
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
    const struct group_job *j = ctx;
    int64_t c = j->rows.width;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        const float *factor = j->factors + i / j->pixels * 2 * c;
        scale_pixel((float *)j->y->data + i * c,
                    (const float *)j->x->data + rows_offset(&j->rows, i), factor, factor + c, c,
                    j->act);
    }
}

void cpu_group_norm(struct ops *o, struct tensor *y, const struct tensor *x, int groups,
                    const struct tensor *w, const struct tensor *b, float eps, enum activation act)
{
    int64_t items = x->dims[0], c = x->dims[3];
    struct group_job j = {.x = x,
                          .y = y,
                          .rows = rows_of(x),
                          .groups = groups,
                          .eps = eps,
                          .act = act,
                          .w = w ? w->data : NULL,
                          .b = b ? b->data : NULL};
    j.pixels = x->dims[1] * x->dims[2];
    j.bands = (j.pixels + BAND - 1) / BAND;
    j.sums = ops_scratch(o, (size_t)(items * j.bands * 2 * c) * sizeof(double));
    j.factors = ops_scratch(o, (size_t)(items * 2 * c) * sizeof(float));
    if (ops_planning(o) || !j.sums || !j.factors)
        return;
    int threads = cpu_threads(y);
    cpu_parallel(threads, items * j.bands, 1, sum_task, &j);
    for (int64_t item = 0; item < items; item++)
        for (int g = 0; g < groups; g++)
            fold_group(&j, item, g);
    cpu_parallel(threads, j.rows.count, 1 + 16384 / c, scale_task, &j);
}
