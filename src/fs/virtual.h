/* What virtual.c (names, attributes, text) and virtual_file.c (open files, wait, poll) share. */
#ifndef OMNIFS_FS_VIRTUAL_H
#define OMNIFS_FS_VIRTUAL_H

#include "base/str.h"
#include "fs/fs.h"

static inline int64_t virtual_folder(int64_t id)
{
    return id & VIRTUAL_BIT ? (id & ~VIRTUAL_BIT) >> 4 : 0;
}
static inline int virtual_kind(int64_t id)
{
    return id & VIRTUAL_BIT ? (int)(id & 15) : VIRTUAL_KINDS;
}

/* README.txt of the mount's root. */
extern const char virtual_readme[];

/* The whole text of a virtual file as `uid` may see it now. 0, -ESTALE, -ENOENT, -ENOMEM. */
int virtual_text(struct fs *fs, int64_t id, uid_t uid, struct str *out);

/* What reading `wait` gives once there is nothing to wait for: the final status line, or a line
 * that says there is no job. False: a job is active, or a prompt is being written. */
bool virtual_settled(struct fs *fs, int64_t folder, struct str *out);

#endif
