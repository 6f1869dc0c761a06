/* prompt.ini as lines: sections, keys, values with continuation lines, and nothing else.
 *
 * Not inih, which registry.ini uses: its packaged build cuts lines at 200 bytes, takes what follows
 * " ;" for a comment, and tells no line numbers; a prompt is one line of any length in which ';' is
 * text. */
#ifndef OMNIFS_JOB_PROMPT_INI_H
#define OMNIFS_JOB_PROMPT_INI_H

#include <stddef.h>

#include "base/err.h"

struct ini_entry {
    int line;            /* of the key */
    const char *section; /* "" above the first section */
    const char *key, *value;
};

/* Calls each() for every `key = value` in order; a value other than 0 stops and is returned. Text
 * that is not UTF-8 or has a line that is neither section, key nor comment is -EINVAL with
 * "where:line: …". Sections and keys are not interpreted. */
int prompt_ini_parse(const char *text, size_t size, const char *where,
                     int (*each)(void *ctx, const struct ini_entry *entry, struct err *e),
                     void *ctx, struct err *e);

#endif
