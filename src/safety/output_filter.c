#include "safety/output_filter.h"

#include <stdio.h>

const struct output_filter *const output_filters[] = {NULL};

const char *output_filter_check(const struct output_filter *const *filters,
                                const struct picture *pictures, int count, enum safety_level level,
                                char rule[SAFETY_RULE_SIZE])
{
    rule[0] = '\0';
    if (!filters[0] || level == SAFETY_OFF)
        return "not_checked";
    for (; *filters; filters++)
        for (int i = 0; i < count; i++) {
            bool blocked = false;
            struct err e;
            if (!(*filters)->check(&pictures[i], level, &blocked, &e) && !blocked)
                continue;
            snprintf(rule, SAFETY_RULE_SIZE, "%s", (*filters)->name);
            return "block";
        }
    return "allow";
}
