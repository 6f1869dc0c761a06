/* Output filters: judge finished pictures before anyone sees them. The table of filters is empty in
 * this version, and what was not looked at is recorded as "not_checked", never as "allow". */
#ifndef OMNIFS_SAFETY_OUTPUT_FILTER_H
#define OMNIFS_SAFETY_OUTPUT_FILTER_H

#include "base/err.h"
#include "base/picture.h"
#include "safety/prompt_filter.h"

struct output_filter {
    const char *name; /* recorded as the rule that blocked */
    /* 0: *blocked is set; negative errno: cannot tell (counts as blocked). */
    int (*check)(const struct picture *p, enum safety_level level, bool *blocked, struct err *e);
};

/* NULL-terminated. */
extern const struct output_filter *const output_filters[];

/* "allow", "block" or "not_checked" (no filter, or level off); `rule` names the filter that
 * blocked. */
const char *output_filter_check(const struct output_filter *const *filters,
                                const struct picture *pictures, int count, enum safety_level level,
                                char rule[SAFETY_RULE_SIZE]);

#endif
