/* The omnifs mounts of this machine, from /proc/self/mountinfo. */
#ifndef OMNIFS_CLI_MOUNTS_H
#define OMNIFS_CLI_MOUNTS_H

#include <limits.h>

#include "base/err.h"

/* Calls each(ctx, path) for every omnifs mount point, until it returns other than 0; returns that,
 * or a negative errno when the table cannot be read. */
int mounts_each(int (*each)(void *ctx, const char *path), void *ctx);
/* The only mount there is; -ENOENT for none, -EINVAL with their names for several. */
int mounts_only(char path[PATH_MAX], struct err *e);

#endif
