#include "engine/schedule/multistep.h"

#include <math.h>
#include <stdlib.h>

#include "base/cleanup.h"

struct noise_point noise_point(bool flow, float sigma)
{
    struct noise_point p = {.alpha = 1 - sigma, .sigma = sigma};
    if (!flow) {
        p.alpha = 1 / sqrtf(sigma * sigma + 1);
        p.sigma = sigma * p.alpha;
    }
    p.lambda = logf(p.alpha) - logf(p.sigma);
    return p;
}

int multistep_tables(const struct schedule_order *o, bool karras, bool round_times,
                     float final_sigma, struct schedule *s, struct err *e)
{
    const struct noise_table *t = o->table;
    const struct schedule_config *c = o->config;
    int n = s->steps;
    AUTO_FREE double *times = malloc((size_t)n * sizeof(*times));
    AUTO_FREE double *sigmas = malloc((size_t)n * sizeof(*sigmas));
    if (!times || !sigmas)
        return err_nomem(e);
    if (karras || c->exponential) {
        (karras ? sigmas_karras : sigmas_exponential)(t->sigmas[0], t->sigmas[t->count - 1], n,
                                                      sigmas);
        for (int i = 0; i < n; i++)
            times[i] = noise_table_time(t, sigmas[i]);
    } else {
        timesteps_spaced(c->spacing ? c->spacing : SPACING_LINSPACE, c, n, true, times);
        for (int i = 0; i < n; i++)
            sigmas[i] = noise_table_sigma(t, rint(times[i]));
    }
    for (int i = 0; i < n; i++) {
        s->timesteps[i] =
            (float)(round_times && (karras || !c->exponential) ? rint(times[i]) : trunc(times[i]));
        s->sigmas[i] = (float)sigmas[i];
    }
    s->sigmas[n] = final_sigma;
    s->initial_noise = 1;
    return 0;
}

enum schedule_slot multistep_slot(int i, int size)
{
    return (enum schedule_slot)(SLOT_0 + i % size);
}

void multistep_open(const struct schedule_order *o, struct schedule *s, int i,
                    enum schedule_slot slot)
{
    struct schedule_step *row = &s->at[i];
    struct noise_point p = noise_point(o->config->flow, s->sigmas[i]);
    struct estimate x0 = estimate_x0(o->config->prediction, p.alpha, p.sigma);
    row->input_scale = 1;
    row->clean = p.alpha;
    row->noise = p.sigma;
    step_estimate(row, x0);
    struct schedule_update *m = step_update(row, slot);
    update_add(m, SLOT_X, x0.latent);
    update_add(m, SLOT_MODEL, x0.model);
}
