/* The noise that a model was trained with, by timestep, and the timesteps that N steps visit. */
#ifndef OMNI_NOISE_TABLE_H
#define OMNI_NOISE_TABLE_H

#include "engine/schedule/kinds.h"

struct noise_table {
    int count;
    float *alphas; /* [count]: ᾱ, the picture's share of the variance; falls, to 0 with zero_snr */
    float *sigmas; /* [count]: sqrt((1 - ᾱ)/ᾱ), always finite */
};

int noise_table_make(const struct schedule_config *c, const struct schedule_kind *k,
                     struct noise_table *out, struct err *e);
void noise_table_free(struct noise_table *t);

/* sigma at a timestep between entries, or beyond the ends (numpy.interp). */
double noise_table_sigma(const struct noise_table *t, double timestep);
/* The timestep of a sigma: linear in ln sigma between entries. */
double noise_table_time(const struct noise_table *t, double sigma);

/* Fills out[n] with falling timesteps. With `one_more` the rules linspace and leading are those for
 * n + 1, without the last. Only linspace gives fractions. */
void timesteps_spaced(enum schedule_spacing spacing, const struct schedule_config *c, int n,
                      bool one_more, double *out);
/* Karras et al. 2022, eq. 5 with rho 7: out[n] from `high` to `low`. */
void sigmas_karras(double low, double high, int n, double *out);
/* The same with even steps of their logarithms. */
void sigmas_exponential(double low, double high, int n, double *out);

#endif
