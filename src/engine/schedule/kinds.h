/* What the scheduler kinds share behind schedule.h. A kind is one entry here and one line in the
 * table of schedule.c; its file fills the rows of a schedule. */
#ifndef OMNI_SCHEDULE_KINDS_H
#define OMNI_SCHEDULE_KINDS_H

#include "engine/schedule/schedule.h"

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF /* the numbers agree with numpy's and torch's, which fuse nothing */
#endif

/* What is to be made. Rows before `first` need their table entries (sigma, timestep), no program.
 */
struct schedule_order {
    const struct schedule_config *config;
    const struct noise_table *table; /* NULL when the config says flow */
    int steps;                       /* as asked for */
    int first;
    double mu;
};

struct schedule_kind {
    const char *word;       /* of `scheduler =` and schedule_config.kind */
    const char *class_name; /* `_class_name` of scheduler_config.json */
    bool fits_flow, fits_noise;
    /* What the class takes where the file says nothing. */
    enum schedule_spacing spacing;
    enum schedule_betas betas;
    double beta_start, beta_end;
    bool ignores_zero_snr;
    /* Rows of a schedule of `steps`; NULL: `steps`. -EINVAL for what this kind cannot do. */
    int (*rows)(const struct schedule_config *c, int steps, struct err *e);
    /* Fills the arrays, which are zeroed and as long as all rows, and s->initial_noise; s->steps is
     * the number of rows. */
    int (*make)(const struct schedule_order *o, struct schedule *s, struct err *e);
};

extern const struct schedule_kind schedule_flow_euler, schedule_euler, schedule_euler_a,
    schedule_dpmpp_2m, schedule_dpmpp_2m_karras, schedule_ddim, schedule_pndm, schedule_unipc,
    schedule_lcm;

/* Reads all options but `kind`. 0, or -ENOTSUP with a sentence; the config's own error is left to
 * the caller. `flow_class`: the class knows nothing but flow matching. */
int schedule_options_read(struct config *c, bool flow_class, struct schedule_config *out,
                          struct err *e);

/* ---- rows ---- */

/* Opens the next update of a row; terms are added to it. Terms that count for nothing are left out,
 * so that a slot that was never written is never read. */
struct schedule_update *step_update(struct schedule_step *row, enum schedule_slot to);
void update_add(struct schedule_update *u, enum schedule_slot from, double coefficient);

/* The finished picture x0 = latent · x + model · prediction. */
struct estimate {
    double latent, model;
};
/* For x = signal · x0 + noise · ε. */
struct estimate estimate_x0(enum schedule_prediction p, double signal, double noise);
void step_estimate(struct schedule_step *row, struct estimate x0);

/* Gives a row of the kinds that know only timesteps its time, and the mixture at ᾱ of that time.
 * -EINVAL when the table has no such time. */
int step_at(const struct schedule_order *o, struct schedule *s, int row, int timestep,
            struct err *e);
/* ᾱ at `timestep`; before the table's begin what set_alpha_to_one says: 1, or the first entry. */
float alpha_before(const struct schedule_order *o, int timestep, bool to_one);

#endif
