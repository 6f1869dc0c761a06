/* Configs of strangers: what is read is in the range that was asked for, or there is a sentence;
 * a scheduler config that is accepted makes finite sigmas that fall to 0. */
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

static void try_schedule(struct config *c)
{
    struct schedule_config options;
    struct err e = {0};
    struct schedule s;
    if (schedule_config_parse(c, &options, &e) || schedule_make(&options, 7, 1.5, &s, &e)) {
        if (!e.text[0])
            abort();
        return;
    }
    for (int i = 0; i < s.steps; i++)
        if (!isfinite(s.timesteps[i]) || !(s.sigmas[i] >= s.sigmas[i + 1]))
            abort();
    schedule_free(&s);
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
