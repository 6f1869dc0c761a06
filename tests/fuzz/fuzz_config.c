/* Configs of strangers: what is read is in the range that was asked for, or there is a sentence;
 * a scheduler config that is accepted, or that takes another kind, makes finite steps. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/config.h"
#include "engine/schedule/schedule.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ask_all(struct config *c)
{
    int64_t n = config_int(c, "num_layers", CONFIG_REQUIRED, 1, 64);
    double x = config_float(c, "rope_parameters.rope_theta", 10000, 1, 1e9);
    const char *s = config_string(c, "_class_name", NULL);
    config_bool(c, "is_distilled", false);
    if (n < 1 || n > 64 || !(x >= 1 && x <= 1e9) || (s && strlen(s) > (1 << 24)))
        abort();
    for (int i = -1; i <= config_length(c, "axes") && i < 100; i++) {
        int64_t axis = config_int_at(c, "axes", i, -5, 5);
        if (axis < -5 || axis > 5 || !config_string_at(c, "words", i))
            abort();
    }
}

static void check_step(const struct schedule *s, int i)
{
    const struct schedule_step *row = &s->at[i];
    if (!isfinite(s->timesteps[i]) || row->updates < 1 || row->updates > SCHEDULE_MAX_UPDATES)
        abort();
    for (int k = 0; k < row->updates; k++) {
        const struct schedule_update *u = &row->update[k];
        if (u->count < 1 || u->count > SCHEDULE_MAX_TERMS || (int)u->to >= SLOT_0 + s->slots)
            abort();
        for (int j = 0; j < u->count; j++)
            if (!isfinite(u->coefficient[j]) || (int)u->from[j] >= SLOT_0 + s->slots)
                abort();
    }
}

static void try_make(const struct schedule_config *options, int first)
{
    struct err e = {0};
    struct schedule s;
    if (schedule_make_from(options, 7, first, 1.5, &s, &e)) {
        if (!e.text[0])
            abort();
        return;
    }
    for (int i = 0; i < s.steps; i++) {
        check_step(&s, i);
        if (options->flow && !(s.sigmas[i] >= s.sigmas[i + 1]))
            abort();
    }
    schedule_free(&s);
}

static void try_schedule(struct config *c)
{
    static const char *const words[] = {"flow_euler",      "euler", "euler_a", "dpmpp_2m", "ddim",
                                        "dpmpp_2m_karras", "pndm",  "unipc",   "lcm"};
    struct schedule_config options;
    struct err e = {0};
    if (schedule_config_parse(c, &options, &e)) {
        if (!e.text[0])
            abort();
        return;
    }
    if (options.train_timesteps > 10000)
        return; /* only slow */
    try_make(&options, 0);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (schedule_swap(&options, words[i], &e) == 0)
            try_make(&options, (int)i % 3);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *c;
    struct err e = {0};
    if (config_parse("fuzz", (const char *)data, size, &c, &e)) {
        if (!e.text[0])
            abort();
        return 0;
    }
    try_schedule(c);
    ask_all(c);
    config_close(c);
    return 0;
}
