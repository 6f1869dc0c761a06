/* The hand: one thread that makes the daemon's system calls on its own mount.
 *
 * It has a descriptor table of its own, without the session's descriptors. A thread that shares
 * them and dies inside such a call keeps the connection open and waits for an answer that nobody
 * gives: the process can then neither end nor be killed, and the mount hangs for ever. This one is
 * freed by the kernel, because the last descriptor of the connection goes with the other threads.
 *
 * Nothing here touches the store. Calls come from one thread at a time, wait for the hand, and
 * return 0 or a negative errno:
 *   -ENOTCONN  the mount is gone: what lies at its path now is not ours
 *   -EAGAIN    the mount is not there yet */
#ifndef OMNIFS_FS_HAND_H
#define OMNIFS_FS_HAND_H

#include <stdint.h>
#include <sys/types.h>

struct hand;

int hand_new(const char *mountpoint, struct hand **out);
void hand_free(struct hand *h);
/* The thread that the kernel names in the requests of these calls. */
pid_t hand_tid(const struct hand *h);

/* Goes into the folder `path` ("image/cat") if its inode number is `ino`, -ENOENT if not. The mount
 * is opened anew each time and must be left again, because an open folder makes umount fail. */
int hand_enter(struct hand *h, const char *path, int64_t ino);
void hand_leave(struct hand *h);
/* In the folder: */
int hand_create(struct hand *h, const char *name); /* -EEXIST */
int hand_unlink(struct hand *h, const char *name);
int hand_rename(struct hand *h, const char *name, const char *new_name); /* -EEXIST */

/* Runs fn(arg) in a thread of its own with an empty descriptor table (but 0, 1, 2), and waits: for
 * single calls on the mount. 0, or a negative errno when there is no thread. */
int hand_run_once(void (*fn)(void *arg), void *arg);

#endif
