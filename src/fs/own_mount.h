/* The daemon as a user of its own mount: opening a job folder so that nothing else can be hit. */
#ifndef OMNIFS_FS_OWN_MOUNT_H
#define OMNIFS_FS_OWN_MOUNT_H

#include <sys/types.h>

#include "fs/fs.h"

struct own_mount {
    const char *path;
    dev_t dev; /* of our mount; 0: not seen yet */
};

/* A descriptor (O_PATH) of the job folder with this node id, wherever it was renamed to. The mount
 * is opened anew each time, because a descriptor kept open would make umount fail with EBUSY.
 *   -ENOENT        the folder is gone, or is no job folder any more
 *   -ENOTCONN      the mount is gone: what lies at its path now is not ours
 *   -EAGAIN        our mount is not there yet
 *   others         as openat2(2) */
int own_mount_open(struct own_mount *m, struct fs *fs, int64_t folder);

#endif
