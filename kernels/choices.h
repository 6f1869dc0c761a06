/* Measured choices, in a text file: the same machine then makes the same choice in every process,
 * and so the same bits. A line is `KEY VALUE` in hexadecimal after the stamp of what the choice
 * belongs to (library version, device). Lines of other stamps stay; broken lines are skipped. */
#ifndef OMNI_KERNELS_CHOICES_H
#define OMNI_KERNELS_CHOICES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct choices;

#define CHOICE_SIZE 64 /* bytes of a value */

/* Reads the file, which may be missing; NULL: memory. */
struct choices *choices_open(const char *path, const char *stamp);
void choices_free(struct choices *c);
bool choices_find(const struct choices *c, uint64_t key, uint8_t value[CHOICE_SIZE]);
/* Remembers, and appends to the file; false when the file could not be written. */
bool choices_add(struct choices *c, uint64_t key, const uint8_t value[CHOICE_SIZE]);

#endif
