/* What the thread behind a request is doing, as far as /proc tells. */
#ifndef OMNIFS_FS_CALLER_H
#define OMNIFS_FS_CALLER_H

#include <stdbool.h>
#include <sys/types.h>

/* Is this thread inside open(O_CREAT | O_EXCL)? FUSE's LOOKUP does not say what it is for. False
 * when it cannot be found out (another user's thread seen by an unprivileged daemon, another pid
 * namespace, openat2). */
bool caller_creates_exclusively(pid_t tid);

#endif
