/* UniPC (Zhao et al. 2023): each evaluation first corrects the step that led to it, then predicts
 * the next, orders 1 to 3. Along the noise table's sigmas, or along shifted flow-matching sigmas.
 * Source: diffusers/schedulers/scheduling_unipc_multistep.py. */
#include "engine/schedule/multistep.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

enum { MAX_ORDER = MULTISTEP_MAX_ORDER };

/* Solves Σ_j m[i][j]·x[j] = b[i] for n ≤ 3 by elimination; x in b. The rows are powers of distinct
 * numbers, so no pivot vanishes; if one did, the result is not finite, which the caller finds. */
static void solve(double m[MAX_ORDER][MAX_ORDER], double b[MAX_ORDER], int n)
{
    for (int k = 0; k < n; k++)
        for (int i = k + 1; i < n; i++) {
            double f = m[i][k] / m[k][k];
            for (int j = k; j < n; j++)
                m[i][j] -= f * m[k][j];
            b[i] -= f * b[k];
        }
    for (int k = n - 1; k >= 0; k--) {
        for (int j = k + 1; j < n; j++)
            b[k] -= m[k][j] * b[j];
        b[k] /= m[k][k];
    }
}

/* One solver step between two rows: x = x_ratio·x + base·m[0] + Σ weight[k]·m[k], m[0] being the
 * estimate of row `from`, m[k] that of row from - k; the corrector's own is in `next`. */
struct solution {
    double x_ratio, weights[MAX_ORDER], next;
};

static struct solution solver_step(const struct schedule_order *o, const struct schedule *s,
                                   int from, int order, bool corrector)
{
    bool flow = o->config->flow;
    struct noise_point to = noise_point(flow, s->sigmas[from + 1]);
    struct noise_point at = noise_point(flow, s->sigmas[from]);
    float hh = -(to.lambda - at.lambda), shrink = expm1f(hh);
    float size = o->config->solver == SOLVER_BH1 ? hh : shrink;
    struct solution r = {.x_ratio = to.sigma / at.sigma, .weights = {-(to.alpha * shrink)}};

    /* Where the known estimates lie, in steps from `from`; the new one lies at 1. */
    double rk[MAX_ORDER] = {0}, rho[MAX_ORDER] = {0};
    for (int k = 1; k < order; k++)
        rk[k - 1] = (noise_point(flow, s->sigmas[from - k]).lambda - at.lambda) / -hh;
    rk[order - 1] = 1;

    double m[MAX_ORDER][MAX_ORDER], factorial = 1;
    float phi = shrink / hh - 1;
    for (int i = 0; i < order; i++) {
        for (int j = 0; j < order; j++)
            m[i][j] = pow(rk[j], i);
        rho[i] = phi * factorial / size;
        factorial *= i + 2;
        phi = phi / hh - (float)(1 / factorial);
    }
    int unknowns = corrector ? order : order - 1;
    if (unknowns == 1)
        rho[0] = 0.5; /* the rule for few terms, in both directions */
    else
        solve(m, rho, unknowns);

    double scale = -(double)(to.alpha * size);
    for (int k = 1; k < order; k++) {
        r.weights[k] = scale * rho[k - 1] / rk[k - 1];
        r.weights[0] -= r.weights[k];
    }
    if (corrector) {
        r.next = scale * rho[order - 1];
        r.weights[0] -= r.next;
    }
    return r;
}

/* Flow sigmas in double, as numpy has them. */
static void flow_tables(const struct schedule_order *o, struct schedule *s)
{
    const struct schedule_config *c = o->config;
    double end = 1.0 / c->train_timesteps, step = (end - 1.0) / s->steps, sigma = 0;
    double shift = c->linear_shift ? o->mu : exp(o->mu);
    for (int i = 0; i < s->steps; i++) {
        sigma = i * step + 1.0;
        sigma = c->dynamic ? shift / (shift + (1 / sigma - 1))
                           : c->shift * sigma / (1 + (c->shift - 1) * sigma);
        if (i == 0 && fabs(sigma - 1) < 1e-6)
            sigma -= 1e-6; /* ln(1 - sigma) has to stay finite */
        s->sigmas[i] = (float)sigma;
        s->timesteps[i] = (float)trunc(sigma * c->train_timesteps);
    }
    s->sigmas[s->steps] = c->final_sigma_min ? (float)sigma : 0;
    s->initial_noise = 1;
}

static int tables(const struct schedule_order *o, struct schedule *s, struct err *e)
{
    const struct schedule_config *c = o->config;
    if (c->flow) {
        flow_tables(o, s);
        return 0;
    }
    float last = c->final_sigma_min ? o->table->sigmas[0] : 0;
    return multistep_tables(o, c->karras, true, last, s, e);
}

static int order_at(const struct schedule_order *o, const struct schedule *s, int i)
{
    int order = o->config->solver_order, left = s->steps - i, done = i - o->first;
    if (o->config->lower_order_final && left < order)
        order = left;
    return order < done + 1 ? order : done + 1;
}

/* `base` ← or x_ratio·base + the weighted estimates of row `from` and before. */
static void add_solution(struct schedule_update *u, enum schedule_slot base, struct solution r,
                         int from, int order, int size)
{
    update_add(u, base, r.x_ratio);
    for (int k = 0; k < order; k++)
        update_add(u, multistep_slot(from - k, size), r.weights[k]);
}

static int make(const struct schedule_order *o, struct schedule *s, struct err *e)
{
    if (tables(o, s, e) != 0)
        return e->code;
    /* The corrector needs one estimate more than the predictor; behind them the latent that the
     * last prediction began from. */
    int size = o->config->solver_order + 1, before = 0;
    enum schedule_slot began = (enum schedule_slot)(SLOT_0 + size);
    for (int i = o->first; i < s->steps; i++) {
        struct schedule_step *row = &s->at[i];
        multistep_open(o, s, i, multistep_slot(i, size));
        struct schedule_update *corrected = step_update(row, began);
        if (i == o->first) {
            update_add(corrected, SLOT_X, 1);
        } else {
            struct solution r = solver_step(o, s, i - 1, before, true);
            add_solution(corrected, began, r, i - 1, before, size);
            update_add(corrected, multistep_slot(i, size), r.next);
        }
        before = order_at(o, s, i);
        add_solution(step_update(row, SLOT_X), began, solver_step(o, s, i, before, false), i,
                     before, size);
    }
    return 0;
}

const struct schedule_kind schedule_unipc = {
    .word = "unipc",
    .class_name = "UniPCMultistepScheduler",
    .fits_flow = true,
    .fits_noise = true,
    .spacing = SPACING_LINSPACE,
    .betas = BETAS_LINEAR,
    .beta_start = 0.0001,
    .beta_end = 0.02,
    .make = make,
};
