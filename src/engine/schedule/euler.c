/* Euler steps along sigma, where the latent is x = x0 + σ·ε and the model sees x / sqrt(σ² + 1);
 * `euler_a` steps further down and adds noise to come back up (Karras et al. 2022, algorithm 1;
 * k-diffusion's ancestral sampling).
 * Source: diffusers/schedulers/scheduling_euler_discrete.py,
 * scheduling_euler_ancestral_discrete.py.
 */
#include "engine/schedule/noise_table.h"

#include <math.h>
#include <stdlib.h>

#include "base/cleanup.h"

/* x0 from the unscaled latent and the prediction. */
static struct estimate estimate(enum schedule_prediction p, float sigma)
{
    float square = sigma * sigma + 1;
    switch (p) {
    case PREDICT_V:
        return (struct estimate){1 / square, -sigma / sqrtf(square)};
    case PREDICT_SAMPLE:
        return (struct estimate){0, 1};
    default:
        return (struct estimate){1, -sigma};
    }
}

/* Between two sigmas by a rule of their own, not by timesteps? */
static bool spread(const struct schedule_config *c, bool plain)
{
    return (c->karras || c->exponential) && !plain;
}

/* sigmas[0 … n]: those of the timesteps, log_linear or Karras', then the end. */
static void fill_sigmas(const struct schedule_order *o, bool plain, const double *times, int n,
                        double *sigmas)
{
    const struct schedule_config *c = o->config;
    const struct noise_table *t = o->table;
    float top = logf(t->sigmas[t->count - 1]), bottom = logf(t->sigmas[0]);
    bool log_linear = c->log_linear && !plain;
    for (int i = 0; i < n; i++)
        sigmas[i] = log_linear ? expf((float)(top + (double)i / n * ((double)bottom - (double)top)))
                               : noise_table_sigma(t, times[i]);
    double last = log_linear ? t->sigmas[0] : sigmas[n - 1];
    sigmas[n] = c->final_sigma_min && !plain ? t->sigmas[0] : 0;
    if (spread(c, plain))
        (c->karras ? sigmas_karras
                   : sigmas_exponential)(c->sigma_min > 0 ? c->sigma_min : last,
                                         c->sigma_max > 0 ? c->sigma_max : sigmas[0], n, sigmas);
    else if (log_linear)
        sigmas[n] = t->sigmas[0]; /* log_linear has n + 1 sigmas of its own */
}

static int fill_tables(const struct schedule_order *o, const struct schedule_kind *k, bool plain,
                       struct schedule *s, struct err *e)
{
    const struct schedule_config *c = o->config;
    int n = s->steps;
    AUTO_FREE double *times = malloc((size_t)n * sizeof(*times));
    AUTO_FREE double *sigmas = malloc(((size_t)n + 1) * sizeof(*sigmas));
    if (!times || !sigmas)
        return err_nomem(e);
    enum schedule_spacing spacing = c->spacing ? c->spacing : k->spacing;
    timesteps_spaced(spacing, c, n, false, times);
    for (int i = 0; i < n; i++)
        times[i] = (float)times[i]; /* before the sigmas are read off */
    fill_sigmas(o, plain, times, n, sigmas);
    for (int i = 0; i <= n; i++)
        s->sigmas[i] = (float)sigmas[i];
    for (int i = 0; i < n; i++)
        s->timesteps[i] =
            (float)(spread(c, plain) ? noise_table_time(o->table, sigmas[i]) : times[i]);
    float highest = s->sigmas[0];
    s->initial_noise = spacing == SPACING_LEADING ? sqrtf(highest * highest + 1) : highest;
    return 0;
}

/* x moves from row i's sigma to `to` along (x - x0)/σ. */
static struct schedule_update *fill_row(const struct schedule_order *o, struct schedule *s, int i,
                                        float to)
{
    struct schedule_step *row = &s->at[i];
    float sigma = s->sigmas[i];
    struct estimate x0 = estimate(o->config->prediction, sigma);
    double amount = ((double)to - sigma) / sigma;
    row->input_scale = 1 / sqrtf(sigma * sigma + 1);
    row->clean = 1;
    row->noise = sigma;
    step_estimate(row, x0);
    struct schedule_update *x = step_update(row, SLOT_X);
    update_add(x, SLOT_X, 1 + amount * (1 - x0.latent));
    update_add(x, SLOT_MODEL, -amount * x0.model);
    return x;
}

static int make(const struct schedule_order *o, struct schedule *s, struct err *e)
{
    if (fill_tables(o, &schedule_euler, false, s, e) != 0)
        return e->code;
    for (int i = o->first; i < s->steps; i++)
        fill_row(o, s, i, s->sigmas[i + 1]);
    return 0;
}

/* The last step adds no noise; diffusers draws some and multiplies it by 0. */
static int make_ancestral(const struct schedule_order *o, struct schedule *s, struct err *e)
{
    if (fill_tables(o, &schedule_euler_a, true, s, e) != 0)
        return e->code;
    for (int i = o->first; i < s->steps; i++) {
        float from = s->sigmas[i], to = s->sigmas[i + 1];
        float up = sqrtf(to * to * (from * from - to * to) / (from * from));
        float down = sqrtf(to * to - up * up);
        update_add(fill_row(o, s, i, down), SLOT_NOISE, up);
    }
    return 0;
}

const struct schedule_kind schedule_euler = {
    .word = "euler",
    .class_name = "EulerDiscreteScheduler",
    .fits_noise = true,
    .spacing = SPACING_LINSPACE,
    .betas = BETAS_LINEAR,
    .beta_start = 0.0001,
    .beta_end = 0.02,
    .make = make,
};

const struct schedule_kind schedule_euler_a = {
    .word = "euler_a",
    .class_name = "EulerAncestralDiscreteScheduler",
    .fits_noise = true,
    .spacing = SPACING_LINSPACE,
    .betas = BETAS_LINEAR,
    .beta_start = 0.0001,
    .beta_end = 0.02,
    .make = make_ancestral,
};
