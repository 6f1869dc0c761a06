/* Building the rows of a schedule. */
#include "engine/schedule/kinds.h"

#include <errno.h>
#include <math.h>

#include "engine/schedule/noise_table.h"

struct schedule_update *step_update(struct schedule_step *row, enum schedule_slot to)
{
    struct schedule_update *u = &row->update[row->updates++];
    *u = (struct schedule_update){.to = to};
    return u;
}

void update_add(struct schedule_update *u, enum schedule_slot from, double coefficient)
{
    if (coefficient == 0)
        return;
    u->from[u->count] = from;
    u->coefficient[u->count++] = (float)coefficient;
}

struct estimate estimate_x0(enum schedule_prediction p, double signal, double noise)
{
    switch (p) {
    case PREDICT_V:
        return (struct estimate){signal, -noise};
    case PREDICT_SAMPLE:
        return (struct estimate){0, 1};
    case PREDICT_FLOW:
        return (struct estimate){1, -noise};
    default:
        return (struct estimate){1 / signal, -noise / signal};
    }
}

void step_estimate(struct schedule_step *row, struct estimate x0)
{
    row->x0_latent = (float)x0.latent;
    row->x0_model = (float)x0.model;
}

int step_at(const struct schedule_order *o, struct schedule *s, int row, int timestep,
            struct err *e)
{
    if (timestep < 0 || timestep >= o->table->count)
        return err_set(e, -EINVAL,
                       "scheduler %s: timestep %d of %d steps is not between 0 and %d, which the "
                       "model was trained on; use fewer steps",
                       o->config->kind, timestep, o->steps, o->table->count - 1);
    float alpha = o->table->alphas[timestep];
    s->timesteps[row] = (float)timestep;
    s->at[row].input_scale = 1;
    s->at[row].clean = sqrtf(alpha);
    s->at[row].noise = sqrtf(1 - alpha);
    return 0;
}

float alpha_before(const struct schedule_order *o, int timestep, bool to_one)
{
    if (timestep >= o->table->count)
        return NAN; /* found by the check of all coefficients */
    if (timestep >= 0)
        return o->table->alphas[timestep];
    return to_one ? 1 : o->table->alphas[0];
}
