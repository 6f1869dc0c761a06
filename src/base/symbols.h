/* Functions of libraries that are opened at run time, as tables: a struct of function pointers and
 * the list of their names in the same order. */
#ifndef OMNIFS_BASE_SYMBOLS_H
#define OMNIFS_BASE_SYMBOLS_H

#include <stddef.h>

/* Fills the `count` pointers of `table` with prefix + names[i]. The first name that the library
 * lacks, or NULL: all are there. */
const char *symbols_find(void *library, const char *prefix, const char *const *names, size_t count,
                         void *table);

#endif
