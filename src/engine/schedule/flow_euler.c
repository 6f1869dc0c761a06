/* Flow matching with Euler steps: x ← x + (σ[i+1] − σ[i])·v, σ falling from 1 to 0.
 * Source: diffusers/schedulers/scheduling_flow_match_euler_discrete.py, with the sigmas that its
 * pipelines hand in. */
#include "engine/schedule/kinds.h"

#include <errno.h>
#include <math.h>

/* numpy.linspace(1, 1/n, n)[i], rounded to fp32. */
static float raw_sigma(int i, int n)
{
    double last = 1.0 / n;
    if (i == n - 1)
        return (float)last;
    double step = (last - 1.0) / (n - 1);
    return (float)(i * step + 1.0);
}

/* Every operation in fp32, constants rounded to fp32 first, as numpy does with Python's floats. */
static float shift_static(float sigma, double shift)
{
    float s = (float)shift, s1 = (float)(shift - 1);
    return s * sigma / (1 + s1 * sigma);
}

static float shift_dynamic(float sigma, double mu, bool linear)
{
    float m = (float)(linear ? mu : exp(mu));
    return m / (m + (1 / sigma - 1));
}

static int make(const struct schedule_order *o, struct schedule *s, struct err *e)
{
    const struct schedule_config *c = o->config;
    (void)e;
    for (int i = 0; i < s->steps; i++) {
        float sigma = raw_sigma(i, s->steps);
        s->sigmas[i] = c->dynamic ? shift_dynamic(sigma, o->mu, c->linear_shift)
                                  : shift_static(sigma, c->shift);
        s->timesteps[i] = s->sigmas[i] * (float)c->train_timesteps;
    }
    s->initial_noise = 1;
    for (int i = o->first; i < s->steps; i++) {
        struct schedule_step *row = &s->at[i];
        float sigma = s->sigmas[i];
        row->input_scale = 1;
        row->clean = 1 - sigma;
        row->noise = sigma;
        step_estimate(row, estimate_x0(PREDICT_FLOW, 1 - sigma, sigma));
        struct schedule_update *x = step_update(row, SLOT_X);
        update_add(x, SLOT_X, 1);
        update_add(x, SLOT_MODEL, s->sigmas[i + 1] - sigma);
    }
    return 0;
}

const struct schedule_kind schedule_flow_euler = {
    .word = "flow_euler",
    .class_name = "FlowMatchEulerDiscreteScheduler",
    .fits_flow = true,
    .make = make,
};

double schedule_linear_mu(const struct schedule_config *c, int64_t tokens)
{
    double slope = (c->max_shift - c->base_shift) / (c->max_tokens - c->base_tokens);
    return (double)tokens * slope + (c->base_shift - slope * c->base_tokens);
}

double flux2_empirical_mu(int64_t tokens, int steps)
{
    double n = (double)tokens;
    double at_200_steps = 0.00016927 * n + 0.45666666;
    if (tokens > 4300)
        return at_200_steps;
    double at_10_steps = 8.73809524e-05 * n + 1.89833333;
    double slope = (at_200_steps - at_10_steps) / 190.0;
    return slope * steps + (at_200_steps - 200.0 * slope);
}
