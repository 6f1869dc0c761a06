/* Flow matching with Euler steps: x ← x + (σ[i+1] − σ[i])·v, σ falling from 1 to 0. */
#include "engine/schedule/kinds.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/cleanup.h"

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF /* the sigmas agree with numpy's, which fuses nothing */
#endif

/* Options of the class that reshape the sigmas and that no supported family uses. */
static const char *const unsupported[] = {
    "invert_sigmas",   "use_karras_sigmas",   "use_exponential_sigmas",
    "use_beta_sigmas", "stochastic_sampling",
};

static int read_options(struct config *c, struct schedule_config *out, struct err *e)
{
    for (size_t i = 0; i < ARRAY_LEN(unsupported); i++)
        if (config_bool(c, unsupported[i], false))
            return err_set(e, -ENOTSUP, "%s: %s is true, which is not supported", config_path(c),
                           unsupported[i]);
    if (config_float(c, "shift_terminal", 0, 0, 1) != 0)
        return err_set(e, -ENOTSUP, "%s: shift_terminal is set, which is not supported",
                       config_path(c));
    out->train_timesteps = (int)config_int(c, "num_train_timesteps", 1000, 1, 1000000);
    out->shift = config_float(c, "shift", 1, 1e-3, 1e3);
    out->dynamic = config_bool(c, "use_dynamic_shifting", false);
    out->base_shift = config_float(c, "base_shift", 0.5, -100, 100);
    out->max_shift = config_float(c, "max_shift", 1.15, -100, 100);
    out->base_tokens = (int)config_int(c, "base_image_seq_len", 256, 1, INT32_MAX);
    out->max_tokens = (int)config_int(c, "max_image_seq_len", 4096, 1, INT32_MAX);
    const char *rule = config_string(c, "time_shift_type", "exponential");
    if (out->dynamic && strcmp(rule, "exponential") != 0)
        return err_set(e, -ENOTSUP, "%s: time_shift_type is '%.40s', expected 'exponential'",
                       config_path(c), rule);
    return 0;
}

/* numpy.linspace(1, 1/n, n)[i], rounded to fp32. */
static float raw_sigma(int i, int n)
{
    double last = 1.0 / n;
    if (i == n - 1)
        return (float)last;
    double step = (last - 1.0) / (n - 1);
    return (float)(i * step + 1.0);
}

/* Every operation in fp32, constants rounded to fp32 first, as numpy does with Python's floats. */
static float shift_static(float sigma, double shift)
{
    float s = (float)shift, s1 = (float)(shift - 1);
    return s * sigma / (1 + s1 * sigma);
}

static float shift_dynamic(float sigma, double mu)
{
    float m = (float)exp(mu);
    return m / (m + (1 / sigma - 1));
}

static int make(const struct schedule_config *c, double mu, struct schedule *s, struct err *e)
{
    if (c->dynamic && !(fabs(mu) <= 50))
        return err_set(e, -EINVAL, "mu is %g, expected a number from -50 to 50", mu);
    for (int i = 0; i < s->steps; i++) {
        float sigma = raw_sigma(i, s->steps);
        s->sigmas[i] = c->dynamic ? shift_dynamic(sigma, mu) : shift_static(sigma, c->shift);
        s->timesteps[i] = s->sigmas[i] * (float)c->train_timesteps;
    }
    s->sigmas[s->steps] = 0;
    return 0;
}

const struct schedule_kind schedule_flow_euler = {
    .word = "flow_euler",
    .class_name = "FlowMatchEulerDiscreteScheduler",
    .read = read_options,
    .make = make,
};

double flux2_empirical_mu(int64_t tokens, int steps)
{
    double n = (double)tokens;
    double at_200_steps = 0.00016927 * n + 0.45666666;
    if (tokens > 4300)
        return at_200_steps;
    double at_10_steps = 8.73809524e-05 * n + 1.89833333;
    double slope = (at_200_steps - at_10_steps) / 190.0;
    return slope * steps + (at_200_steps - 200.0 * slope);
}
