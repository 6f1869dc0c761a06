/* JSON configs of a checkpoint, read strictly: a key has the type and range that is asked for, or
 * the error names file, key, what was found and what was expected. (jansson underneath) */
#ifndef OMNI_CONFIG_H
#define OMNI_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct config;

/* At most 16 MiB, depth bounded, no key twice, an object at the top. `path` is kept for messages.
 */
int config_open(const char *path, struct config **out, struct err *e);
/* The same from memory; `name` is what messages call it. */
int config_parse(const char *name, const char *text, size_t size, struct config **out,
                 struct err *e);
void config_close(struct config *c);
const char *config_path(const struct config *c);
bool config_has(const struct config *c, const char *key);  /* present and not null */
bool config_null(const struct config *c, const char *key); /* present and null */

/* Sticky: the first failure is kept and config_error returns it. Keys may be dotted
 * ("rope_parameters.rope_theta", "layers.2" of an array). A missing key (or null) gives `fallback`;
 * CONFIG_REQUIRED as fallback makes it an error. A refused value gives `fallback` (or `low`), so
 * that code up to the check of config_error never sees a number outside of its range. */
#define CONFIG_REQUIRED INT64_MIN
int64_t config_int(struct config *c, const char *key, int64_t fallback, int64_t low, int64_t high);
double config_float(struct config *c, const char *key, double fallback, double low, double high);
bool config_bool(struct config *c, const char *key, bool fallback);
/* Borrowed; NULL fallback allowed. */
const char *config_string(struct config *c, const char *key, const char *fallback);
/* The array's length, -1 where there is none; element i of an array of ints, of strings. */
int config_length(const struct config *c, const char *key);
int64_t config_int_at(struct config *c, const char *key, int i, int64_t low, int64_t high);
const char *config_string_at(struct config *c, const char *key, int i);
int config_error(const struct config *c, struct err *e);

#endif
