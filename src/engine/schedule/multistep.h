/* What DPM-Solver++ and UniPC share: steps along λ = ln α − ln σ over the last estimates of x0. */
#ifndef OMNI_SCHEDULE_MULTISTEP_H
#define OMNI_SCHEDULE_MULTISTEP_H

#include "engine/schedule/noise_table.h"

#define MULTISTEP_MAX_ORDER 3

/* A sigma as the signal and the noise of x = alpha · x0 + sigma · ε; lambda is infinite at 0. */
struct noise_point {
    float alpha, sigma, lambda;
};
struct noise_point noise_point(bool flow, float sigma);

/* Fills timesteps and sigmas, Karras' if `karras`, with `final_sigma` at the end. Timesteps are
 * whole: rounded, or cut off. */
int multistep_tables(const struct schedule_order *o, bool karras, bool round_times,
                     float final_sigma, struct schedule *s, struct err *e);

/* The ring of estimates x0: that of row `i`, in a ring of `size`. */
enum schedule_slot multistep_slot(int i, int size);

/* Fills everything of a row but its steps, and opens it by storing the estimate of x0 in `slot`. */
void multistep_open(const struct schedule_order *o, struct schedule *s, int row,
                    enum schedule_slot slot);

#endif
