/* JSON for people: an object as indented `key: value` lines. */
#ifndef OMNIFS_CLI_OUTLINE_H
#define OMNIFS_CLI_OUTLINE_H

#include <jansson.h>

#include "base/str.h"

/* Adds `value` with every line indented by `indent` blanks. Keys read as words ("weight_bytes" →
 * "weight bytes: 1.2 GB"); keys that end in "bytes" are sizes; arrays of plain values are one line,
 * arrays of objects one block each. */
void outline(struct str *out, const json_t *value, int indent);

#endif
