#include "engine/schedule/schedule.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/schedule/noise_table.h"

static const struct schedule_kind *const kinds[] = {
    &schedule_flow_euler, &schedule_euler,           &schedule_euler_a,
    &schedule_dpmpp_2m,   &schedule_dpmpp_2m_karras, &schedule_ddim,
    &schedule_pndm,       &schedule_unipc,           &schedule_lcm,
};

/* ---- words and classes ---- */

static const struct schedule_kind *find_word(const char *word)
{
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (!strcmp(kinds[i]->word, word))
            return kinds[i];
    return NULL;
}

static const struct schedule_kind *find_class(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (!strcmp(kinds[i]->class_name, name))
            return kinds[i];
    return NULL;
}

static bool fits(const struct schedule_kind *k, bool flow)
{
    return flow ? k->fits_flow : k->fits_noise;
}

int schedule_kind_check(const char *kind, struct err *e)
{
    if (find_word(kind))
        return 0;
    AUTO_STR struct str names = {0};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        str_addf(&names, "%s%s", i ? ", " : "", kinds[i]->word);
    return err_set(e, -EINVAL, "scheduler '%.40s' is unknown; there is: %s", kind,
                   str_cstr(&names));
}

static int check_fit(const struct schedule_kind *k, bool flow, struct err *e)
{
    if (fits(k, flow))
        return 0;
    AUTO_STR struct str names = {0};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (fits(kinds[i], flow))
            str_addf(&names, "%s%s", names.len ? ", " : "", kinds[i]->word);
    return err_set(e, -EINVAL, "scheduler %s does not fit this model, which was trained %s; %s do",
                   k->word, flow ? "by flow matching" : "on a table of noise", str_cstr(&names));
}

int schedule_swap(struct schedule_config *c, const char *kind, struct err *e)
{
    const struct schedule_kind *k = find_word(kind);
    if (!k)
        return schedule_kind_check(kind, e);
    int code = check_fit(k, c->flow, e);
    if (code == 0)
        strcpy(c->kind, k->word);
    return code;
}

static int unknown_class(struct config *c, const char *name, struct err *e)
{
    AUTO_STR struct str names = {0};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (find_class(kinds[i]->class_name) == kinds[i])
            str_addf(&names, "%s%s", i ? ", " : "", kinds[i]->class_name);
    return err_set(e, -EINVAL, "%s: scheduler class '%.80s' is not supported; there is: %s",
                   config_path(c), name, str_cstr(&names));
}

int schedule_config_parse(struct config *c, struct schedule_config *out, struct err *e)
{
    *out = (struct schedule_config){0};
    const char *class_name = config_string(c, "_class_name", "");
    const struct schedule_kind *k = find_class(class_name);
    if (!k)
        return config_error(c, e) ? config_error(c, NULL) : unknown_class(c, class_name, e);
    int code = schedule_options_read(c, k->fits_flow && !k->fits_noise, out, e);
    if (config_error(c, NULL))
        return config_error(c, e);
    if (k == &schedule_dpmpp_2m && out->karras)
        k = &schedule_dpmpp_2m_karras;
    strcpy(out->kind, k->word);
    return code ? code : check_fit(k, out->flow, e);
}

int schedule_config_read(const char *path, struct schedule_config *out, struct err *e)
{
    struct config *c;
    int code = config_open(path, &c, e);
    if (code)
        return code;
    code = schedule_config_parse(c, out, e);
    config_close(c);
    return code;
}

/* ---- making ---- */

static int allocate(struct schedule *s, int rows, struct err *e)
{
    size_t n = (size_t)rows;
    *s = (struct schedule){.steps = rows,
                           .sigmas = calloc(n + 1, sizeof(*s->sigmas)),
                           .timesteps = calloc(n, sizeof(*s->timesteps)),
                           .at = calloc(n, sizeof(*s->at))};
    return s->sigmas && s->timesteps && s->at ? 0 : err_nomem(e);
}

static bool row_is_finite(const struct schedule *s, int i)
{
    const struct schedule_step *row = &s->at[i];
    bool good = isfinite(s->timesteps[i]) && isfinite(s->sigmas[i]) && isfinite(row->input_scale) &&
                isfinite(row->x0_latent) && isfinite(row->x0_model) && isfinite(row->clean) &&
                isfinite(row->noise) && isfinite(row->cut);
    for (int k = 0; k < row->updates; k++) {
        const struct schedule_update *u = &row->update[k];
        good = good && u->count > 0;
        for (int j = 0; j < u->count; j++)
            good = good && isfinite(u->coefficient[j]);
    }
    return good;
}

/* Formulas divide by what the options make 0 now and then: the same timestep twice, no signal at
 * all. diffusers goes on with NaN. */
static int check_rows(const struct schedule_order *o, const struct schedule *s, struct err *e)
{
    for (int i = o->first; i < s->steps; i++)
        if (!row_is_finite(s, i))
            return err_set(e, -EINVAL,
                           "scheduler %s cannot make %d steps with the options of this model: the "
                           "numbers of step %d (timestep %g) are not finite",
                           o->config->kind, o->steps, i + 1, (double)s->timesteps[i]);
    return 0;
}

/* Drops the rows before `first`, and notes what the others use. */
static void finish(struct schedule *s, int first)
{
    size_t left = (size_t)(s->steps - first);
    memmove(s->sigmas, s->sigmas + first, (left + 1) * sizeof(*s->sigmas));
    memmove(s->timesteps, s->timesteps + first, left * sizeof(*s->timesteps));
    memmove(s->at, s->at + first, left * sizeof(*s->at));
    s->steps = (int)left;
    for (int i = 0; i < s->steps; i++) {
        struct schedule_step *row = &s->at[i];
        for (int k = 0; k < row->updates; k++) {
            const struct schedule_update *u = &row->update[k];
            if (u->to >= SLOT_0 && (int)u->to - SLOT_0 >= s->slots)
                s->slots = (int)u->to - SLOT_0 + 1;
            for (int j = 0; j < u->count; j++)
                row->draws = row->draws || u->from[j] == SLOT_NOISE;
        }
    }
}

static int make(const struct schedule_kind *k, const struct schedule_order *o, struct schedule *s,
                struct err *e)
{
    int rows = k->rows ? k->rows(o->config, o->steps, e) : o->steps;
    if (rows < 0)
        return rows;
    if (o->first < 0 || o->first >= rows)
        return err_set(e, -EINVAL, "no step is left of %d: the strength is too small for so few",
                       o->steps);
    int code = allocate(s, rows, e);
    if (code == 0)
        code = k->make(o, s, e);
    if (code == 0)
        code = check_rows(o, s, e);
    if (code == 0)
        finish(s, o->first);
    return code;
}

int schedule_make_from(const struct schedule_config *c, int steps, int first, double mu,
                       struct schedule *out, struct err *e)
{
    struct err local = {0};
    struct schedule_config config = *c;
    struct noise_table table = {0};
    const struct schedule_kind *k = find_word(c->kind);
    e = e ? e : &local;
    *out = (struct schedule){0};
    if (!k)
        return schedule_kind_check(c->kind, e);
    if (c->flow && check_fit(k, true, e) != 0)
        return e->code;
    if (steps < 1 || steps > SCHEDULE_MAX_STEPS)
        return err_set(e, -EINVAL, "steps is %d, expected 1 to %d", steps, SCHEDULE_MAX_STEPS);
    if (c->dynamic && !(fabs(mu) <= 50))
        return err_set(e, -EINVAL, "mu is %g, expected a number from -50 to 50", mu);
    config.zero_snr = c->zero_snr && !k->ignores_zero_snr;
    bool tabled = k->fits_noise && !c->flow;
    int code = tabled ? noise_table_make(&config, k, &table, e) : 0;
    if (code == 0)
        code = make(k,
                    &(struct schedule_order){.config = &config,
                                             .table = tabled ? &table : NULL,
                                             .steps = steps,
                                             .first = first,
                                             .mu = mu},
                    out, e);
    noise_table_free(&table);
    if (code)
        schedule_free(out);
    return code;
}

int schedule_make(const struct schedule_config *c, int steps, double mu, struct schedule *out,
                  struct err *e)
{
    return schedule_make_from(c, steps, 0, mu, out, e);
}

void schedule_free(struct schedule *s)
{
    free(s->sigmas);
    free(s->timesteps);
    free(s->at);
    *s = (struct schedule){0};
}

/* ---- starting from a picture ---- */

int schedule_start(const struct schedule_config *c, int steps, double strength)
{
    double left = fmin(fmax(steps * strength, 0), steps);
    return c->flow ? (int)(steps - left) : steps - (int)left;
}

void schedule_noised(const struct schedule *s, int step, float *clean, float *noise)
{
    bool end = step >= s->steps;
    *clean = end ? 1 : s->at[step].clean;
    *noise = end ? 0 : s->at[step].noise;
}
