/* Steps along the table's timesteps: `ddim` (Song et al. 2021, eq. 12 with eta 0) and `lcm` (Luo et
 * al. 2023: jump to the end, then back up with fresh noise).
 * Source: diffusers/schedulers/scheduling_ddim.py, scheduling_lcm.py. */
#include "engine/schedule/noise_table.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/cleanup.h"

#define LCM_SIGMA_DATA 0.5

/* ε from the latent and the prediction, where x = signal · x0 + noise · ε. */
static struct estimate estimate_noise(enum schedule_prediction p, double signal, double noise)
{
    switch (p) {
    case PREDICT_V:
        return (struct estimate){noise, signal};
    case PREDICT_SAMPLE:
        return (struct estimate){1 / noise, -signal / noise};
    default:
        return (struct estimate){0, 1};
    }
}

static int rows(const struct schedule_config *c, int steps, struct err *e)
{
    if (steps <= c->train_timesteps)
        return steps;
    return err_set(e, -EINVAL, "scheduler %s takes at most %d steps, %d are asked for", c->kind,
                   c->train_timesteps, steps);
}

static int make(const struct schedule_order *o, struct schedule *s, struct err *e)
{
    const struct schedule_config *c = o->config;
    bool to_one = c->alpha_to_one != SWITCH_OFF;
    AUTO_FREE double *times = malloc((size_t)s->steps * sizeof(*times));
    if (!times)
        return err_nomem(e);
    timesteps_spaced(c->spacing ? c->spacing : schedule_ddim.spacing, c, s->steps, false, times);
    s->initial_noise = 1;
    for (int i = 0; i < s->steps; i++) {
        struct schedule_step *row = &s->at[i];
        int t = (int)rint(times[i]);
        if (step_at(o, s, i, t, e) != 0)
            return e->code;
        struct estimate x0 = estimate_x0(c->prediction, row->clean, row->noise);
        struct estimate noise = estimate_noise(c->prediction, row->clean, row->noise);
        float before = alpha_before(o, t - c->train_timesteps / s->steps, to_one);
        double signal = sqrtf(before), rest = sqrtf(1 - before);
        step_estimate(row, x0);
        struct schedule_update *x = step_update(row, SLOT_X);
        if (c->clip_sample != SWITCH_OFF) { /* the class cuts where the file says nothing */
            row->cut = (float)c->clip_range;
            update_add(x, SLOT_CUT, signal);
            x0 = (struct estimate){0, 0};
        }
        update_add(x, SLOT_X, signal * x0.latent + rest * noise.latent);
        update_add(x, SLOT_MODEL, signal * x0.model + rest * noise.model);
    }
    return 0;
}

static int lcm_rows(const struct schedule_config *c, int steps, struct err *e)
{
    if (c->original_steps > c->train_timesteps)
        return err_set(e, -EINVAL,
                       "scheduler lcm: original_inference_steps is %d, expected at most %d",
                       c->original_steps, c->train_timesteps);
    if (steps <= c->original_steps)
        return steps;
    return err_set(e, -EINVAL, "scheduler lcm takes at most %d steps, %d are asked for",
                   c->original_steps, steps);
}

/* Step i's timestep: every so-many-th of those that the model was distilled with. */
static int lcm_time(const struct schedule_config *c, int i, int steps)
{
    double index = floor(i * ((double)c->original_steps / steps));
    return (c->original_steps - (int)index) * (c->train_timesteps / c->original_steps) - 1;
}

static int lcm_make(const struct schedule_order *o, struct schedule *s, struct err *e)
{
    const struct schedule_config *c = o->config;
    s->initial_noise = 1;
    for (int i = 0; i < s->steps; i++)
        if (step_at(o, s, i, lcm_time(c, i, s->steps), e) != 0)
            return e->code;
    for (int i = o->first; i < s->steps; i++) {
        struct schedule_step *row = &s->at[i];
        struct estimate x0 = estimate_x0(c->prediction, row->clean, row->noise);
        double time = s->timesteps[i] * c->timestep_scaling;
        double square = time * time + LCM_SIGMA_DATA * LCM_SIGMA_DATA;
        double skip = LCM_SIGMA_DATA * LCM_SIGMA_DATA / square, out = time / sqrt(square);
        bool last = i == s->steps - 1;
        double signal = last ? 1 : s->at[i + 1].clean;
        step_estimate(row, x0);
        struct schedule_update *x = step_update(row, SLOT_X);
        if (c->clip_sample == SWITCH_ON) {
            row->cut = (float)c->clip_range;
            update_add(x, SLOT_CUT, signal * out);
            x0 = (struct estimate){0, 0};
        }
        update_add(x, SLOT_X, signal * (out * x0.latent + skip));
        update_add(x, SLOT_MODEL, signal * out * x0.model);
        update_add(x, SLOT_NOISE, last ? 0 : s->at[i + 1].noise);
    }
    return 0;
}

const struct schedule_kind schedule_ddim = {
    .word = "ddim",
    .class_name = "DDIMScheduler",
    .fits_noise = true,
    .spacing = SPACING_LEADING,
    .betas = BETAS_LINEAR,
    .beta_start = 0.0001,
    .beta_end = 0.02,
    .rows = rows,
    .make = make,
};

const struct schedule_kind schedule_lcm = {
    .word = "lcm",
    .class_name = "LCMScheduler",
    .fits_noise = true,
    .spacing = SPACING_LEADING,
    .betas = BETAS_SCALED_LINEAR,
    .beta_start = 0.00085,
    .beta_end = 0.012,
    .rows = lcm_rows,
    .make = lcm_make,
};
