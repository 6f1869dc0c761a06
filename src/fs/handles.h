/* What the kernel holds of the tree: how often it looked up a node, which files are open, how long
 * the files that are being written are (so that growth is charged before it happens), and the one
 * backing id that all opens of an artifact share.
 *
 * A node without a name is purged when the last lookup is forgotten and the last open released.
 * Nodes that the kernel does not hold have no entry. One mutex; nothing slow happens under it. */
#ifndef OMNIFS_FS_HANDLES_H
#define OMNIFS_FS_HANDLES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "store/tree.h"

struct handles;
struct passthrough;

/* An open regular file: what fi->fh points to. */
struct open_file {
    int64_t id;
    int fd;
    bool writer;
    enum { COUNTED_NOT, COUNTED_SPLICED, COUNTED_PASSTHROUGH } counted; /* by handles_backing */
    int64_t told;         /* job folder that was told of a writer; 0: none */
    atomic_uint era;      /* when `role` was found out; see handles_era */
    _Atomic int64_t role; /* see events.c */
    struct open_file *prev, *next;
};

int handles_new(struct tree *tree, struct handles **out);
/* After the session's end: closes what is still open and purges what has no name. */
void handles_free(struct handles *h);

void handles_lookup(struct handles *h, int64_t id);
void handles_forget(struct handles *h, int64_t id, uint64_t count);
/* The node lost its name: purges it now or when the kernel lets go. */
void handles_unlinked(struct handles *h, int64_t id);

/* Registers an open file (taken over) of `size` bytes; NULL when memory is short (fd stays the
 * caller's). */
struct open_file *handles_open(struct handles *h, int64_t id, int fd, bool writer, int64_t size);
/* Closes and frees it. */
void handles_release(struct handles *h, struct passthrough *pt, struct open_file *f);

/* Charges the store for a change of size before it is made. `now` is the size as the caller sees
 * it, which counts only when no writer has the file open. -EDQUOT. */
int handles_grow(struct handles *h, int64_t id, int64_t now, int64_t at_least);
int handles_resize(struct handles *h, int64_t id, int64_t now, int64_t exactly);

/* The backing id for another open of an artifact: > 0, or 0 when it must be read through us. An
 * inode cannot be opened both ways at once (the kernel answers EIO), so the first open decides. */
int handles_backing(struct handles *h, struct passthrough *pt, struct open_file *f);

/* Changes with every rename: what is known about names of open files must be found out again. */
unsigned handles_era(const struct handles *h);
void handles_new_era(struct handles *h);

#endif
