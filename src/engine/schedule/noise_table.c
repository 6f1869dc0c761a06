/* Betas, their products, and what is read from them. The places where torch and numpy round to fp32
 * are kept, since a sigma is a quotient of small differences. */
#include "engine/schedule/noise_table.h"

#include <math.h>
#include <stdlib.h>

#define KARRAS_RHO 7.0

/* torch.linspace: fp32 fused multiply-add, counted from the nearer end. */
static float torch_linspace(float start, float end, int i, int n)
{
    if (n == 1)
        return start;
    float step = (end - start) / (float)(n - 1);
    return i < n / 2 ? fmaf(step, (float)i, start) : fmaf(-step, (float)(n - 1 - i), end);
}

/* numpy.linspace(start, end, n)[i]. */
static double numpy_linspace(double start, double end, int i, int n)
{
    if (n > 1 && i == n - 1)
        return end;
    return n == 1 ? start : i * ((end - start) / (n - 1)) + start;
}

/* The cosine rule's ᾱ at t = 0 … 1 (Nichol and Dhariwal 2021, eq. 17). */
static double cosine_alpha(double t)
{
    double c = cos((t + 0.008) / 1.008 * M_PI / 2);
    return c * c;
}

static float beta_at(enum schedule_betas rule, double start, double end, int i, int n)
{
    float root;
    switch (rule) {
    case BETAS_SCALED_LINEAR:
        root = torch_linspace((float)sqrt(start), (float)sqrt(end), i, n);
        return root * root;
    case BETAS_COSINE:
        return (float)fmin(1 - cosine_alpha((i + 1.0) / n) / cosine_alpha((double)i / n), 0.999);
    default:
        return torch_linspace((float)start, (float)end, i, n);
    }
}

/* alphas[i] holds 1 - beta; each becomes the product of all up to it. torch.cumprod keeps the
 * product of fp32 numbers in double. */
static void multiply_up(float *alphas, int n)
{
    double product = 1;
    for (int i = 0; i < n; i++) {
        product *= alphas[i];
        alphas[i] = (float)product;
    }
}

/* Shifts and stretches sqrt(ᾱ) so that the last is 0 and the first stays (Lin et al. 2024,
 * algorithm 1). The way back through betas is diffusers', and its rounding. */
static void rescale_to_zero(float *alphas, int n)
{
    float first = sqrtf(alphas[0]), last = sqrtf(alphas[n - 1]), before = 1;
    float stretch = first / (first - last);
    for (int i = 0; i < n; i++) {
        float root = (sqrtf(alphas[i]) - last) * stretch, bar = root * root;
        float beta = 1 - (i ? bar / before : bar);
        alphas[i] = 1 - beta;
        before = bar;
    }
    multiply_up(alphas, n);
}

int noise_table_make(const struct schedule_config *c, const struct schedule_kind *k,
                     struct noise_table *out, struct err *e)
{
    int n = c->train_timesteps;
    enum schedule_betas rule = c->betas ? c->betas : k->betas;
    double start = c->beta_start > 0 ? c->beta_start : k->beta_start;
    double end = c->beta_end > 0 ? c->beta_end : k->beta_end;
    *out = (struct noise_table){.count = n,
                                .alphas = malloc((size_t)n * sizeof(float)),
                                .sigmas = malloc((size_t)n * sizeof(float))};
    if (!out->alphas || !out->sigmas) {
        noise_table_free(out);
        return err_nomem(e);
    }
    for (int i = 0; i < n; i++)
        out->alphas[i] = 1 - beta_at(rule, start, end, i, n);
    multiply_up(out->alphas, n);
    if (c->zero_snr && n > 1)
        rescale_to_zero(out->alphas, n);
    for (int i = 0; i < n; i++) {
        /* The sigma of no signal at all would be infinite: the smallest fp16 number stands in. */
        float a = c->zero_snr && i == n - 1 ? 0x1p-24f : out->alphas[i];
        out->sigmas[i] = sqrtf((1 - a) / a);
    }
    return 0;
}

void noise_table_free(struct noise_table *t)
{
    free(t->alphas);
    free(t->sigmas);
    *t = (struct noise_table){0};
}

double noise_table_sigma(const struct noise_table *t, double timestep)
{
    if (timestep <= 0)
        return t->sigmas[0];
    if (timestep >= t->count - 1)
        return t->sigmas[t->count - 1];
    int i = (int)timestep;
    double low = t->sigmas[i], slope = (double)t->sigmas[i + 1] - low;
    return slope * (timestep - i) + low;
}

double noise_table_time(const struct noise_table *t, double sigma)
{
    double wanted = log(fmax(sigma, 1e-10));
    int low = 0, end = t->count - 1; /* the last entry but one that is no larger */
    if (t->count < 2)
        return 0;
    while (end - low > 1) {
        int middle = low + (end - low) / 2;
        if (wanted >= (double)logf(t->sigmas[middle]))
            low = middle;
        else
            end = middle;
    }
    float a = logf(t->sigmas[low]), b = logf(t->sigmas[low + 1]);
    double w = ((double)a - wanted) / (double)(a - b);
    w = fmin(fmax(w, 0), 1);
    return (1 - w) * low + w * (low + 1);
}

void timesteps_spaced(enum schedule_spacing spacing, const struct schedule_config *c, int n,
                      bool one_more, double *out)
{
    int total = c->train_timesteps, points = one_more ? n + 1 : n;
    double ratio = (double)total / n, step = (total - ratio) - total;
    for (int i = 0; i < n; i++) {
        int from_end = points - 1 - i;
        switch (spacing) {
        case SPACING_TRAILING: /* numpy.arange: the step is rounded once, and may give a stray entry
                                  below 0 at the end, which is left out */
            out[i] = rint(total + i * step) - 1;
            break;
        case SPACING_LEADING:
            out[i] = (double)(total / points) * from_end + c->steps_offset;
            break;
        default:
            out[i] = numpy_linspace(0, total - 1, from_end, points);
        }
    }
}

void sigmas_exponential(double low, double high, int n, double *out)
{
    double from = log(high), to = log(low);
    for (int i = 0; i < n; i++)
        out[i] = exp(numpy_linspace(from, to, i, n));
}

void sigmas_karras(double low, double high, int n, double *out)
{
    double to = pow(low, 1 / KARRAS_RHO), from = pow(high, 1 / KARRAS_RHO);
    for (int i = 0; i < n; i++)
        out[i] = pow(from + numpy_linspace(0, 1, i, n) * (to - from), KARRAS_RHO);
}
