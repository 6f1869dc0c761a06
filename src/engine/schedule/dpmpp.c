/* DPM-Solver++ multistep (Lu et al. 2022), orders 1 to 3; the words say 2M, order 2 is the default.
 * Source: diffusers/schedulers/scheduling_dpmsolver_multistep.py. */
#include "engine/schedule/multistep.h"

#include <math.h>

/* Below this many steps lower_order_final counts. */
#define FEW_STEPS 15

static int order_at(const struct schedule_order *o, const struct schedule *s, int i)
{
    const struct schedule_config *c = o->config;
    bool few = c->lower_order_final && s->steps < FEW_STEPS;
    int done = i - o->first, order = c->solver_order < done + 1 ? c->solver_order : done + 1;
    if (i == s->steps - 1 && (c->euler_at_final || few || !c->final_sigma_min))
        return 1;
    return i == s->steps - 2 && few && order > 2 ? 2 : order;
}

/* Weights of the estimates m[0] (newest) … m[order - 1]: x = ratio·x + Σ weight·m. */
static void weigh(const struct schedule_order *o, const struct schedule *s, int i, int order,
                  double weights[MULTISTEP_MAX_ORDER])
{
    struct noise_point to = noise_point(false, s->sigmas[i + 1]);
    struct noise_point at = noise_point(false, s->sigmas[i]);
    float h = to.lambda - at.lambda, shrink = expf(-h) - 1;
    weights[0] = -(to.alpha * shrink);
    if (order == 1)
        return;
    struct noise_point before = noise_point(false, s->sigmas[i - 1]);
    float r0 = (at.lambda - before.lambda) / h;
    /* weight of the first difference quotient, and of the second */
    float d1 = to.alpha * (shrink / h + 1), d2 = 0, w = 0, r1 = 1;
    if (order == 2 && o->config->solver != SOLVER_HEUN)
        d1 = -0.5f * (to.alpha * shrink);
    if (order == 3) {
        struct noise_point oldest = noise_point(false, s->sigmas[i - 2]);
        r1 = (before.lambda - oldest.lambda) / h;
        d2 = -(to.alpha * ((shrink + h) / (h * h) - 0.5f));
        w = r0 / (r0 + r1);
    }
    /* D1 = a + w(a − b), D2 = (a − b)/(r0 + r1) with a = (m0 − m1)/r0 and b = (m1 − m2)/r1. */
    double second = order == 3 ? (double)d2 / (r0 + r1) : 0;
    double a = (d1 * (1.0 + w) + second) / r0, b = -((double)d1 * w + second) / r1;
    weights[0] += a;
    weights[1] = b - a;
    weights[2] = -b;
}

static int make_with(const struct schedule_order *o, bool karras, struct schedule *s, struct err *e)
{
    const struct schedule_config *c = o->config;
    /* The cosine table is too flat at its end for whole timesteps to come from rounding. */
    bool round_times = c->betas != BETAS_COSINE || !karras;
    float last = c->final_sigma_min ? o->table->sigmas[0] : 0;
    if (multistep_tables(o, karras, round_times, last, s, e) != 0)
        return e->code;
    for (int i = o->first; i < s->steps; i++) {
        int order = order_at(o, s, i), size = c->solver_order;
        double weights[MULTISTEP_MAX_ORDER];
        weigh(o, s, i, order, weights);
        multistep_open(o, s, i, multistep_slot(i, size));
        struct noise_point to = noise_point(false, s->sigmas[i + 1]);
        struct noise_point at = noise_point(false, s->sigmas[i]);
        struct schedule_update *x = step_update(&s->at[i], SLOT_X);
        update_add(x, SLOT_X, to.sigma / at.sigma);
        for (int k = 0; k < order; k++)
            update_add(x, multistep_slot(i - k, size), weights[k]);
    }
    return 0;
}

static int make(const struct schedule_order *o, struct schedule *s, struct err *e)
{
    return make_with(o, false, s, e);
}

static int make_karras(const struct schedule_order *o, struct schedule *s, struct err *e)
{
    return make_with(o, true, s, e);
}

const struct schedule_kind schedule_dpmpp_2m = {
    .word = "dpmpp_2m",
    .class_name = "DPMSolverMultistepScheduler",
    .fits_noise = true,
    .spacing = SPACING_LINSPACE,
    .betas = BETAS_LINEAR,
    .beta_start = 0.0001,
    .beta_end = 0.02,
    .make = make,
};

const struct schedule_kind schedule_dpmpp_2m_karras = {
    .word = "dpmpp_2m_karras",
    .class_name = "DPMSolverMultistepScheduler",
    .fits_noise = true,
    .spacing = SPACING_LINSPACE,
    .betas = BETAS_LINEAR,
    .beta_start = 0.0001,
    .beta_end = 0.02,
    .make = make_karras,
};
