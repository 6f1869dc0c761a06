/* The folder we mount on: is it usable, is something mounted there, was it left behind by a daemon
 * that died? */
#ifndef OMNIFS_FS_MOUNTPOINT_H
#define OMNIFS_FS_MOUNTPOINT_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

#define MOUNT_TYPE "fuse.omnifs"

struct mount_entry {
    char path[PATH_MAX];
    char type[64];         /* "fuse.omnifs" */
    char source[PATH_MAX]; /* fsname */
    long user_id;          /* of who mounted it; -1 when not said */
};

/* Calls each(ctx, entry) for every line of /proc/self/mountinfo, until it returns other than 0;
 * returns that, or a negative errno when the table cannot be read. */
int mount_entry_each(int (*each)(void *ctx, const struct mount_entry *entry), void *ctx);

/* What is mounted on `path` (absolute, no symlinks): the topmost entry of /proc/self/mountinfo.
 * -ENOENT when nothing is. */
int mount_entry_find(const char *path, struct mount_entry *out);

/* mountinfo's octal escapes ("\040" is a blank) undone, in place. */
void mount_unescape(char *field);

/* The absolute path of a mount point, even when stat(2) of it fails because its daemon is dead. */
int mountpoint_resolve(const char *dir, char path[PATH_MAX], struct err *e);

/* Makes `path` ready to be mounted on: removes the mount of a dead omnifs, refuses a missing
 * folder, a file, a folder that is in use as a mount, and one with files in it unless `nonempty`.
 */
int mountpoint_prepare(const char *path, bool nonempty, struct err *e);

/* Unmounts, by umount2(2) when allowed to, else by fusermount3. `lazy`: at once, whoever uses it.
 */
int mountpoint_unmount(const char *path, bool lazy, struct err *e);

#endif
