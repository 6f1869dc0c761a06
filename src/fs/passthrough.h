/* Passthrough: the kernel reads an artifact straight from the store's file, as fast as the disk or
 * the page cache gives it (Linux 6.9, needs CAP_SYS_ADMIN).
 *
 * libfuse 3.14 does not know it, but its custom I/O hooks let us do all three steps ourselves: ask
 * for it in the reply to INIT, register files with an ioctl, answer OPEN with a raw reply. Where
 * the kernel says no once, it is off for the life of the mount and files are spliced. */
#ifndef OMNIFS_FS_PASSTHROUGH_H
#define OMNIFS_FS_PASSTHROUGH_H

#include <fuse_lowlevel.h>

struct fs;
struct passthrough;

/* After fuse_session_mount and before the loop, whose userdata must be `fs`. `store`: where the
 * files lie. 0, or a negative errno with *out NULL: go on without. */
int passthrough_new(struct fs *fs, const char *store, struct passthrough **out);
void passthrough_free(struct passthrough *pt);
/* A backing id for the open file `fd`, to be closed by passthrough_close; 0: read through us. `pt`
 * may be NULL. */
int passthrough_open(struct passthrough *pt, int fd);
void passthrough_close(struct passthrough *pt, int backing);
/* Answers OPEN; as fuse_reply_open. */
int passthrough_reply_open(fuse_req_t req, uint64_t fh, int backing);

#endif
