/* The keys of registry.ini: tables of names and setters, apart from how the file is read. */
#ifndef OMNIFS_JOB_REGISTRY_KEYS_H
#define OMNIFS_JOB_REGISTRY_KEYS_H

#include "job/registry.h"

/* Word lists that [safety] adds, read after the whole file is. */
struct registry_lists {
    char *paths[SAFETY_LEVELS]; /* heap or NULL: comma-separated */
};

/* What a section's keys write into. */
enum registry_section { SECTION_PROFILE, SECTION_LIMITS, SECTION_DEVICES, SECTION_SAFETY };

/* Sets `key` in the struct that belongs to the section (struct profile, registry_limits,
 * registry_devices, or registry_safety). *bit identifies the key within its section (to notice
 * repetitions). The sentence has no place in it. */
int registry_set(enum registry_section section, void *target, struct registry_lists *lists,
                 const char *key, const char *value, uint32_t *bit, struct err *e);
/* The defaults before a profile's keys are read; and after: what must be there, what must fit. */
void profile_init(struct profile *p, const char *name);
int profile_check(struct profile *p, uint32_t given, struct err *e);

#endif
