/* What a scheduler kind is; one file and one line in the table of schedule.c each. */
#ifndef OMNI_SCHEDULE_KINDS_H
#define OMNI_SCHEDULE_KINDS_H

#include "engine/schedule/schedule.h"

struct schedule_kind {
    const char *word;       /* of `scheduler =` and schedule_config.kind */
    const char *class_name; /* `_class_name` of scheduler_config.json */
    /* Fills the options of this kind; failures stick to `c`, or go to `e`. */
    int (*read)(struct config *c, struct schedule_config *out, struct err *e);
    /* Fills s->sigmas and s->timesteps, already allocated for s->steps. */
    int (*make)(const struct schedule_config *c, double mu, struct schedule *s, struct err *e);
};

extern const struct schedule_kind schedule_flow_euler;

#endif
