/* Reading scheduler_config.json: every option that any kind knows, so that kinds can be swapped. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/schedule/kinds.h"

/* Options that would change the numbers in a way that is not implemented, when they are true … */
static const char *const unsupported_flags[] = {
    "invert_sigmas", "use_beta_sigmas", "use_lu_lambdas", "stochastic_sampling", "thresholding",
};
/* … when they hold any element … */
static const char *const unsupported_arrays[] = {"trained_betas", "disable_corrector"};
/* … or when they say anything else than one of two words. */
static const struct {
    const char *key, *words[2];
} required_words[] = {
    {"algorithm_type", {"dpmsolver++", "deis"}},
    {"timestep_type", {"discrete", "discrete"}},
    {"time_shift_type", {"exponential", "linear"}},
};

/* Words by the number of their enum; an empty word cannot be stated. */
static const char *const beta_words[] = {"", "linear", "scaled_linear", "squaredcos_cap_v2", NULL};
static const char *const spacing_words[] = {"", "linspace", "leading", "trailing", NULL};
static const char *const prediction_words[] = {"epsilon", "v_prediction", "sample",
                                               "flow_prediction", NULL};
static const char *const solver_words[] = {"", "midpoint", "heun", "bh1", "bh2", "logrho", NULL};
static const char *const final_words[] = {"zero", "sigma_min", NULL};
static const char *const interpolation_words[] = {"linear", "log_linear", NULL};

/* The number of the stated word, 0 where nothing is stated; the first failure stays in `e`. */
static int choice(struct config *c, const char *key, const char *const *words, struct err *e)
{
    const char *stated = config_string(c, key, NULL);
    if (!stated)
        return 0;
    for (int i = 0; words[i]; i++)
        if (*stated && !strcmp(words[i], stated))
            return i;
    AUTO_STR struct str known = {0};
    for (int i = 0; words[i]; i++)
        if (*words[i])
            str_addf(&known, "%s'%s'", known.len ? ", " : "", words[i]);
    if (!e->code)
        err_set(e, -ENOTSUP, "%s: %s is '%.40s', expected one of %s", config_path(c), key, stated,
                str_cstr(&known));
    return 0;
}

static enum schedule_switch stated_switch(struct config *c, const char *key)
{
    if (!config_has(c, key))
        return SWITCH_DEFAULT;
    return config_bool(c, key, false) ? SWITCH_ON : SWITCH_OFF;
}

static int check_supported(struct config *c, struct err *e)
{
    for (size_t i = 0; i < ARRAY_LEN(unsupported_flags); i++)
        if (config_bool(c, unsupported_flags[i], false))
            return err_set(e, -ENOTSUP, "%s: %s is true, which is not supported", config_path(c),
                           unsupported_flags[i]);
    for (size_t i = 0; i < ARRAY_LEN(unsupported_arrays); i++)
        if (config_length(c, unsupported_arrays[i]) > 0)
            return err_set(e, -ENOTSUP, "%s: %s has elements, which is not supported",
                           config_path(c), unsupported_arrays[i]);
    for (size_t i = 0; i < ARRAY_LEN(required_words); i++) {
        const char *const *words = required_words[i].words;
        const char *word = config_string(c, required_words[i].key, words[0]);
        if (strcmp(word, words[0]) != 0 && strcmp(word, words[1]) != 0)
            return err_set(e, -ENOTSUP, "%s: %s is '%.40s', expected '%s'", config_path(c),
                           required_words[i].key, word, words[0]);
    }
    if (config_float(c, "shift_terminal", 0, 0, 1) != 0)
        return err_set(e, -ENOTSUP, "%s: shift_terminal is set, which is not supported",
                       config_path(c));
    if (config_has(c, "lambda_min_clipped"))
        return err_set(e, -ENOTSUP, "%s: lambda_min_clipped is set, which is not supported",
                       config_path(c));
    if (!config_bool(c, "predict_x0", true))
        return err_set(e, -ENOTSUP, "%s: predict_x0 is false, which is not supported",
                       config_path(c));
    return 0;
}

static void read_flow(struct config *c, bool flow_class, struct schedule_config *out)
{
    out->flow = flow_class || config_bool(c, "use_flow_sigmas", false);
    out->shift = config_float(c, flow_class ? "shift" : "flow_shift", 1, 1e-3, 1e3);
    out->dynamic = out->flow && config_bool(c, "use_dynamic_shifting", false);
    out->linear_shift = !strcmp(config_string(c, "time_shift_type", ""), "linear");
    out->base_shift = config_float(c, "base_shift", 0.5, -100, 100);
    out->max_shift = config_float(c, "max_shift", 1.15, -100, 100);
    out->base_tokens = (int)config_int(c, "base_image_seq_len", 256, 1, INT32_MAX);
    out->max_tokens = (int)config_int(c, "max_image_seq_len", 4096, 1, INT32_MAX);
}

static void read_noise(struct config *c, struct schedule_config *out, struct err *e)
{
    out->betas = (enum schedule_betas)choice(c, "beta_schedule", beta_words, e);
    out->beta_start = config_float(c, "beta_start", 0, 1e-9, 0.999);
    out->beta_end = config_float(c, "beta_end", 0, 1e-9, 0.999);
    out->zero_snr = config_bool(c, "rescale_betas_zero_snr", false);
    out->spacing = (enum schedule_spacing)choice(c, "timestep_spacing", spacing_words, e);
    out->steps_offset = (int)config_int(c, "steps_offset", 0, 0, out->train_timesteps - 1);
    out->alpha_to_one = stated_switch(c, "set_alpha_to_one");
    out->clip_sample = stated_switch(c, "clip_sample");
    out->clip_range = config_float(c, "clip_sample_range", 1, 1e-6, 1e6);
    out->karras = config_bool(c, "use_karras_sigmas", false);
    out->exponential = config_bool(c, "use_exponential_sigmas", false);
    out->log_linear = choice(c, "interpolation_type", interpolation_words, e) == 1;
    out->sigma_min = config_float(c, "sigma_min", 0, 1e-9, 1e6);
    out->sigma_max = config_float(c, "sigma_max", 0, 1e-9, 1e6);
    out->final_sigma_min = choice(c, "final_sigmas_type", final_words, e) == 1;
}

static void read_solver(struct config *c, struct schedule_config *out, struct err *e)
{
    int solver = choice(c, "solver_type", solver_words, e);
    out->solver = solver <= SOLVER_BH2 ? (enum schedule_solver)solver : SOLVER_DEFAULT;
    out->solver_order = (int)config_int(c, "solver_order", 2, 1, 3);
    out->lower_order_final = config_bool(c, "lower_order_final", true);
    out->euler_at_final = config_bool(c, "euler_at_final", false);
    out->skip_prk = stated_switch(c, "skip_prk_steps");
    out->original_steps = (int)config_int(c, "original_inference_steps", 50, 1, 1000000);
    out->timestep_scaling = config_float(c, "timestep_scaling", 10, 1e-6, 1e6);
}

int schedule_options_read(struct config *c, bool flow_class, struct schedule_config *out,
                          struct err *e)
{
    struct err fault = {0}; /* the first unknown word; `e` may hold an older failure */
    int code = check_supported(c, e);
    if (code)
        return code;
    out->train_timesteps = (int)config_int(c, "num_train_timesteps", 1000, 1, 1000000);
    read_flow(c, flow_class, out);
    read_noise(c, out, &fault);
    read_solver(c, out, &fault);
    out->prediction =
        (enum schedule_prediction)choice(c, "prediction_type", prediction_words, &fault);
    if (flow_class)
        out->prediction = PREDICT_FLOW;
    if (fault.code)
        return err_set(e, fault.code, "%s", fault.text);
    if (out->flow && (out->karras || out->exponential))
        return err_set(e, -ENOTSUP, "%s: %s is true, which is not supported for flow matching",
                       config_path(c),
                       out->karras ? "use_karras_sigmas" : "use_exponential_sigmas");
    if (!out->flow && out->prediction == PREDICT_FLOW)
        return err_set(e, -ENOTSUP,
                       "%s: prediction_type is 'flow_prediction' without "
                       "use_flow_sigmas, which is not supported",
                       config_path(c));
    return 0;
}
