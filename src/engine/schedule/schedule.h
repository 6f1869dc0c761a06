/* Schedulers as small pure functions: which sigmas, which timesteps, how a step moves the latent.
 * A step is a linear combination of tensors, so the update itself is op_combine_to().
 * Source of formulas: diffusers/schedulers/scheduling_flow_match_euler_discrete.py. */
#ifndef OMNI_SCHEDULE_H
#define OMNI_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/config.h"

enum { SCHEDULE_MAX_STEPS = 1000 };

struct schedule_config {
    char kind[24]; /* "flow_euler" */
    int train_timesteps;
    double shift, base_shift, max_shift;
    int base_tokens, max_tokens;
    bool dynamic; /* shift by mu, which depends on the picture's size, instead of by `shift` */
};

/* From scheduler/scheduler_config.json; unknown classes are an error that names the class, options
 * that would change the sigmas in a way not implemented here are an error that names the option. */
int schedule_config_read(const char *path, struct schedule_config *out, struct err *e);
int schedule_config_parse(struct config *c, struct schedule_config *out, struct err *e);
/* The words of `scheduler =`; -EINVAL with the list of what there is. */
int schedule_kind_check(const char *kind, struct err *e);

struct schedule {
    int steps;
    float *sigmas;    /* [steps + 1], last 0 */
    float *timesteps; /* [steps]: sigma · train_timesteps */
};
/* `steps` from 1 to SCHEDULE_MAX_STEPS. `mu` is used when the config is dynamic (see
 * flux2_empirical_mu). The sigmas are those of diffusers to the last bit. */
int schedule_make(const struct schedule_config *c, int steps, double mu, struct schedule *out,
                  struct err *e);
void schedule_free(struct schedule *s);
/* FLUX.2's rule for mu from the number of noise tokens and steps
 * (diffusers/pipelines/flux2/pipeline_flux2_klein.py, compute_empirical_mu). */
double flux2_empirical_mu(int64_t tokens, int steps);

#endif
