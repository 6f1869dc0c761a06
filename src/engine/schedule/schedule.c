#include "engine/schedule/schedule.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/schedule/kinds.h"

static const struct schedule_kind *const kinds[] = {&schedule_flow_euler};

/* The names there are, for messages. */
static const char *list(struct str *s, const char *(*name)(const struct schedule_kind *))
{
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        str_addf(s, "%s%s", i ? ", " : "", name(kinds[i]));
    return str_cstr(s);
}

static const char *word_of(const struct schedule_kind *k)
{
    return k->word;
}

static const char *class_of(const struct schedule_kind *k)
{
    return k->class_name;
}

static const struct schedule_kind *find(const char *name,
                                        const char *(*name_of)(const struct schedule_kind *))
{
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (!strcmp(name_of(kinds[i]), name))
            return kinds[i];
    return NULL;
}

int schedule_kind_check(const char *kind, struct err *e)
{
    if (find(kind, word_of))
        return 0;
    AUTO_STR struct str names = {0};
    return err_set(e, -EINVAL, "scheduler '%.40s' is unknown; there is: %s", kind,
                   list(&names, word_of));
}

int schedule_config_parse(struct config *c, struct schedule_config *out, struct err *e)
{
    *out = (struct schedule_config){0};
    const char *class_name = config_string(c, "_class_name", "");
    const struct schedule_kind *k = find(class_name, class_of);
    if (!k && !config_error(c, e)) {
        AUTO_STR struct str names = {0};
        return err_set(e, -EINVAL, "%s: scheduler class '%.80s' is not supported; there is: %s",
                       config_path(c), class_name, list(&names, class_of));
    }
    if (!k)
        return config_error(c, e);
    strcpy(out->kind, k->word);
    int code = k->read(c, out, e);
    return config_error(c, e) ? config_error(c, NULL) : code;
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

int schedule_make(const struct schedule_config *c, int steps, double mu, struct schedule *out,
                  struct err *e)
{
    *out = (struct schedule){0};
    const struct schedule_kind *k = find(c->kind, word_of);
    if (!k)
        return schedule_kind_check(c->kind, e);
    if (steps < 1 || steps > SCHEDULE_MAX_STEPS)
        return err_set(e, -EINVAL, "steps is %d, expected 1 to %d", steps, SCHEDULE_MAX_STEPS);
    struct schedule s = {.steps = steps,
                         .sigmas = calloc((size_t)steps + 1, sizeof(float)),
                         .timesteps = calloc((size_t)steps, sizeof(float))};
    int code = s.sigmas && s.timesteps ? k->make(c, mu, &s, e) : err_nomem(e);
    if (code)
        schedule_free(&s);
    else
        *out = s;
    return code;
}

void schedule_free(struct schedule *s)
{
    free(s->sigmas);
    free(s->timesteps);
    *s = (struct schedule){0};
}
