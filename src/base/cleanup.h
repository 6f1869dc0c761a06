/* Scope-bound ownership: `AUTO_FREE char *s = …;` is freed when the scope ends, so every error
 * path can simply return. */
#ifndef OMNIFS_BASE_CLEANUP_H
#define OMNIFS_BASE_CLEANUP_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free(void *p)
{
    free(*(void **)p);
}
static inline void cleanup_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}
static inline void cleanup_file(FILE **f)
{
    if (*f)
        fclose(*f);
}

#define AUTO_FREE __attribute__((cleanup(cleanup_free)))
#define AUTO_FD   __attribute__((cleanup(cleanup_fd)))
#define AUTO_FILE __attribute__((cleanup(cleanup_file)))

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#endif
