/* Schedulers as small pure functions. What diffusers spreads over stateful classes is here a table:
 * one row a model evaluation, with what the model is told, how its input is scaled, and the step as
 * a few linear combinations of tensors, which the caller carries out with op_combine_to().
 *
 *     schedule_make(&config, steps, mu, &s, e);
 *     x = s.initial_noise · noise
 *     for i in 0 … s.steps - 1:
 *         MODEL = model(s.at[i].input_scale · x, s.timesteps[i])
 *         NOISE = randn, if s.at[i].draws
 *         CUT = clamp(x0_latent · x + x0_model · MODEL, -cut, cut), if s.at[i].cut
 *         for each s.at[i].update[k]: its slot = Σ coefficient · slot
 *
 * A picture to start from: first = schedule_start(&config, steps, strength); schedule_make_from
 * with it gives the rest of the list with a fresh history; x = clean·picture + noise·randn with the
 * two numbers of schedule_noised(&s, 0, …). Inpainting blends that mixture in after step i with the
 * numbers of schedule_noised(&s, i + 1, …), which for the last step are 1 and 0.
 *
 * Numbers and their rounding are those of diffusers 0.42, schedulers/scheduling_*.py. */
#ifndef OMNI_SCHEDULE_H
#define OMNI_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/config.h"

enum { SCHEDULE_MAX_STEPS = 1000 };

/* ---- options ---- */

/* 0 stands for an option that the file does not state: each kind has its own default. */
enum schedule_betas { BETAS_DEFAULT, BETAS_LINEAR, BETAS_SCALED_LINEAR, BETAS_COSINE };
enum schedule_spacing { SPACING_DEFAULT, SPACING_LINSPACE, SPACING_LEADING, SPACING_TRAILING };
enum schedule_prediction { PREDICT_EPSILON, PREDICT_V, PREDICT_SAMPLE, PREDICT_FLOW };
enum schedule_solver { SOLVER_DEFAULT, SOLVER_MIDPOINT, SOLVER_HEUN, SOLVER_BH1, SOLVER_BH2 };
enum schedule_switch { SWITCH_DEFAULT, SWITCH_OFF, SWITCH_ON };

/* All that scheduler_config.json may state, whatever its class: the keys go along when another kind
 * is swapped in, as with diffusers' from_config. */
struct schedule_config {
    char kind[24]; /* "flow_euler"; see schedule_swap */
    int train_timesteps;
    bool flow; /* the model was trained by flow matching: it runs from noise to picture in a line */

    /* flow matching */
    double shift, base_shift, max_shift;
    int base_tokens, max_tokens;
    bool dynamic;      /* shift by mu, which depends on the picture's size, instead of by `shift` */
    bool linear_shift; /* by mu itself, else by exp(mu) */

    /* noise tables */
    enum schedule_betas betas;
    double beta_start, beta_end; /* 0: the kind's own */
    bool zero_snr;               /* rescale_betas_zero_snr */
    enum schedule_prediction prediction;
    enum schedule_spacing spacing;
    int steps_offset;
    enum schedule_switch alpha_to_one; /* set_alpha_to_one */
    enum schedule_switch clip_sample;  /* the estimate of the finished picture is cut … */
    double clip_range;                 /* … to ± this */

    /* sigmas */
    bool karras, exponential, log_linear;
    double sigma_min, sigma_max; /* of Euler's Karras sigmas; 0: the table's ends */
    bool final_sigma_min;        /* final_sigmas_type sigma_min: the last step stops short of 0 */

    /* solvers */
    int solver_order; /* 1 … 3 */
    enum schedule_solver solver;
    bool lower_order_final, euler_at_final;
    enum schedule_switch skip_prk; /* skip_prk_steps */
    int original_steps;            /* LCM */
    double timestep_scaling;
};

/* From scheduler/scheduler_config.json; unknown classes are an error that names the class, options
 * that would change the numbers in a way not implemented here are an error that names the option.
 */
int schedule_config_read(const char *path, struct schedule_config *out, struct err *e);
int schedule_config_parse(struct config *c, struct schedule_config *out, struct err *e);
/* The words of `scheduler =`; -EINVAL with the list of what there is. */
int schedule_kind_check(const char *kind, struct err *e);
/* Swaps another kind in; the options stay. -EINVAL for an unknown word, and for a kind that does
 * not fit how the model was trained, with the list of those that do. */
int schedule_swap(struct schedule_config *c, const char *kind, struct err *e);

/* ---- programs ---- */

enum schedule_slot {
    SLOT_X,     /* the latent */
    SLOT_MODEL, /* this step's guided prediction */
    SLOT_NOISE, /* fresh randn: only in steps that draw */
    SLOT_CUT,   /* the finished picture as the model sees it now, cut to ± cut: only in steps that
                   cut */
    SLOT_0,     /* history from here on, kept between steps; written before it is read */
    SLOT_1,
    SLOT_2,
    SLOT_3,
    SLOT_4,
    SLOT_5,
    SLOT_COUNT
};
enum { SCHEDULE_MAX_UPDATES = 4, SCHEDULE_MAX_TERMS = 6 };

/* to = Σ coefficient[i] · from[i]; `to` may stand among its terms. At most one term is
 * SLOT_MODEL. */
struct schedule_update {
    enum schedule_slot to;
    int count; /* 1 … SCHEDULE_MAX_TERMS */
    enum schedule_slot from[SCHEDULE_MAX_TERMS];
    float coefficient[SCHEDULE_MAX_TERMS];
};

struct schedule_step {
    float input_scale;         /* the model sees input_scale · latent */
    float x0_latent, x0_model; /* the finished picture as the model sees it now (for previews):
                                  x0_latent · SLOT_X + x0_model · SLOT_MODEL, before the updates */
    float clean, noise;        /* see schedule_noised */
    bool draws;                /* needs SLOT_NOISE */
    float cut;                 /* of SLOT_CUT; 0: not needed */
    int updates;               /* 1 … SCHEDULE_MAX_UPDATES, in order */
    struct schedule_update update[SCHEDULE_MAX_UPDATES];
};

struct schedule {
    int steps;                /* evaluations of the model; pndm has more than were asked for */
    float *sigmas;            /* [steps + 1]; 0 in the kinds that know only timesteps */
    float *timesteps;         /* [steps]: what the model is told */
    struct schedule_step *at; /* [steps] */
    float initial_noise;      /* the latent of pure noise is initial_noise · randn */
    int slots;                /* history slots in use: SLOT_0 … SLOT_0 + slots - 1 */
};

/* `steps` from 1 to SCHEDULE_MAX_STEPS. `mu` is used when the config is dynamic (see
 * flux2_empirical_mu). -EINVAL with what this kind can do. */
int schedule_make(const struct schedule_config *c, int steps, double mu, struct schedule *out,
                  struct err *e);
/* The same list without its first `first` entries, and with a history that begins there. */
int schedule_make_from(const struct schedule_config *c, int steps, int first, double mu,
                       struct schedule *out, struct err *e);
void schedule_free(struct schedule *s);
/* Which entry image_to_image of `strength` 0 … 1 starts at: strength · steps are left. `steps` when
 * the strength is too small for a single one. The reference pipelines round up for flow matching
 * and down for the others. */
int schedule_start(const struct schedule_config *c, int steps, double strength);
/* A clean latent as it looks where step 0 … s->steps begins (s->steps: the end) is
 * clean · latent + noise · randn. */
void schedule_noised(const struct schedule *s, int step, float *clean, float *noise);
/* FLUX.2's rule for mu from the number of noise tokens and steps
 * (diffusers/pipelines/flux2/pipeline_flux2_klein.py, compute_empirical_mu). */
double flux2_empirical_mu(int64_t tokens, int steps);
/* FLUX.1's, which Z-Image has too: a line through (base_tokens, base_shift) and (max_tokens,
 * max_shift) (diffusers/pipelines/flux/pipeline_flux.py, calculate_shift). */
double schedule_linear_mu(const struct schedule_config *c, int64_t tokens);

#endif
