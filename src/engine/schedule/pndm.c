/* Pseudo numerical methods (Liu et al. 2022): a linear multistep of order 4 over the predictions,
 * entered by a repeated first step, or, without skip_prk_steps, by three Runge-Kutta steps.
 * Source: diffusers/schedulers/scheduling_pndm.py. */
#include "engine/schedule/noise_table.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/cleanup.h"

/* The ring of the last four predictions is SLOT_0 … SLOT_3. */
#define SLOT_START SLOT_4 /* the latent that the current step began from */
#define SLOT_SUM   SLOT_5 /* of a Runge-Kutta step */
enum { RING = 4, PRK_ROWS = 12 };

static enum schedule_slot ring(int stored)
{
    return (enum schedule_slot)(SLOT_0 + stored % RING);
}

static bool skips(const struct schedule_config *c)
{
    return c->skip_prk == SWITCH_ON;
}

static int rows(const struct schedule_config *c, int steps, struct err *e)
{
    if (steps > c->train_timesteps)
        return err_set(e, -EINVAL, "scheduler pndm takes at most %d steps, %d are asked for",
                       c->train_timesteps, steps);
    if (skips(c))
        return steps == 1 ? 1 : steps + 1;
    if (steps < RING)
        return err_set(e, -EINVAL,
                       "scheduler pndm without skip_prk_steps needs at least %d steps, %d are "
                       "asked for",
                       RING, steps);
    return PRK_ROWS + steps - 3;
}

/* The timestep of a row, from the falling list of `steps` timesteps. */
static int time_at(const struct schedule_order *o, const double *times, int row)
{
    int between = o->config->train_timesteps / o->steps;
    if (skips(o->config))
        return (int)rint(times[row > 1 ? row - 1 : row]);
    if (row >= PRK_ROWS)
        return (int)rint(times[row - PRK_ROWS + 3]);
    /* Each Runge-Kutta step asks at its start, twice in the middle, and at its end. */
    int step = row / 4, phase = row % 4;
    return (int)rint(times[step + (phase == 0 ? 0 : 1)]) +
           (phase == 1 || phase == 2) * (between / 2);
}

/* x ← the latent `sample` moved between two timesteps by Σ weight · prediction (eq. 11). */
struct transfer {
    double sample, prediction;
};

static struct transfer transfer(const struct schedule_order *o, int from, int to)
{
    float a = alpha_before(o, from, o->config->alpha_to_one == SWITCH_ON);
    float b = alpha_before(o, to, o->config->alpha_to_one == SWITCH_ON);
    double scale = sqrtf(b / a);
    float below = a * sqrtf(1 - b) + sqrtf(a * (1 - a) * b);
    double moved = -(double)(b - a) / below;
    if (o->config->prediction == PREDICT_V)
        return (struct transfer){scale + moved * sqrtf(1 - a), moved * sqrtf(a)};
    return (struct transfer){scale, moved};
}

static void move(struct schedule_step *row, struct transfer t, enum schedule_slot sample,
                 const enum schedule_slot *from, const double *weights, int count)
{
    struct schedule_update *x = step_update(row, SLOT_X);
    update_add(x, sample, t.sample);
    for (int i = 0; i < count; i++)
        update_add(x, from[i], t.prediction * weights[i]);
}

static void keep(struct schedule_step *row, enum schedule_slot to, enum schedule_slot from)
{
    update_add(step_update(row, to), from, 1);
}

/* The c-th call; call 1 repeats the first interval with the mean of both predictions and does not
 * enter the history. */
static void multistep(const struct schedule_order *o, struct schedule_step *row, int t, int call,
                      int stored)
{
    static const double weights[RING][RING] = {
        {1},
        {3.0 / 2, -1.0 / 2},
        {23.0 / 12, -16.0 / 12, 5.0 / 12},
        {55.0 / 24, -59.0 / 24, 37.0 / 24, -9.0 / 24},
    };
    int between = o->config->train_timesteps / o->steps;
    if (call == 1) {
        static const double half[2] = {0.5, 0.5};
        const enum schedule_slot both[2] = {SLOT_MODEL, ring(0)};
        move(row, transfer(o, t + between, t), SLOT_START, both, half, 2);
        return;
    }
    keep(row, ring(stored), SLOT_MODEL);
    if (call == 0)
        keep(row, SLOT_START, SLOT_X);
    enum schedule_slot from[RING];
    int count = stored + 1 < RING ? stored + 1 : RING;
    for (int i = 0; i < count; i++)
        from[i] = ring(stored - i);
    move(row, transfer(o, t, t - between), SLOT_X, from, weights[count - 1], count);
}

/* A list that begins later still counts its calls from 0, and takes the start of each step from the
 * head of the whole list. */
static void runge_kutta(const struct schedule_order *o, const struct schedule *s, int call)
{
    static const double thirds[2] = {1, 1.0 / 6};
    static const double one = 1;
    static const enum schedule_slot ends[2] = {SLOT_SUM, SLOT_MODEL};
    static const enum schedule_slot model = SLOT_MODEL;
    struct schedule_step *row = &s->at[o->first + call];
    int half = o->config->train_timesteps / o->steps / 2, phase = call % 4;
    int from = (int)s->timesteps[call - phase];
    int to = (int)s->timesteps[o->first + call] - (phase % 2 ? 0 : half);
    struct transfer t = transfer(o, from, to);
    if (phase == 3) {
        move(row, t, SLOT_START, ends, thirds, 2);
        return;
    }
    struct schedule_update *sum = step_update(row, SLOT_SUM);
    if (phase != 0)
        update_add(sum, SLOT_SUM, 1);
    update_add(sum, SLOT_MODEL, phase == 0 ? 1.0 / 6 : 1.0 / 3);
    if (phase == 0) {
        keep(row, ring(call / 4), SLOT_MODEL);
        keep(row, SLOT_START, SLOT_X);
    }
    move(row, t, SLOT_START, &model, &one, 1);
}

static int make(const struct schedule_order *o, struct schedule *s, struct err *e)
{
    const struct schedule_config *c = o->config;
    if (c->prediction == PREDICT_SAMPLE)
        return err_set(e, -ENOTSUP, "scheduler pndm does not take prediction_type 'sample'");
    AUTO_FREE double *times = malloc((size_t)o->steps * sizeof(*times));
    if (!times)
        return err_nomem(e);
    timesteps_spaced(c->spacing ? c->spacing : schedule_pndm.spacing, c, o->steps, false, times);
    s->initial_noise = 1;
    for (int i = 0; i < s->steps; i++) {
        if (step_at(o, s, i, time_at(o, times, i), e) != 0)
            return e->code;
        step_estimate(&s->at[i], estimate_x0(c->prediction, s->at[i].clean, s->at[i].noise));
    }
    for (int i = o->first; i < s->steps; i++) {
        int call = i - o->first;
        if (!skips(c) && call < PRK_ROWS)
            runge_kutta(o, s, call);
        else if (!skips(c))
            multistep(o, &s->at[i], (int)s->timesteps[i], call, call - PRK_ROWS + 3);
        else
            multistep(o, &s->at[i], (int)s->timesteps[i], call, call > 1 ? call - 1 : 0);
    }
    return 0;
}

const struct schedule_kind schedule_pndm = {
    .word = "pndm",
    .class_name = "PNDMScheduler",
    .fits_noise = true,
    .spacing = SPACING_LEADING,
    .betas = BETAS_LINEAR,
    .beta_start = 0.0001,
    .beta_end = 0.02,
    .ignores_zero_snr = true,
    .rows = rows,
    .make = make,
};
