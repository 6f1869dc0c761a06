/* The tree: every folder and file behind the mount, by persistent 64-bit ids that are never reused.
 *
 * Names, owners, modes and xattrs are rows of the database; the bytes of regular files lie in
 * STORE/data/XX/ID, and so do their size, mtime and atime. Ids below TREE_FIRST_ID are fixed (root,
 * modality folders, virtual files). An unlinked node stays (parent 0) while it is open or looked
 * up, and is purged at the next start. All functions are safe from any thread and return 0 or a
 * negative errno. */
#ifndef OMNIFS_STORE_TREE_H
#define OMNIFS_STORE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/err.h"
#include "store/db.h"

#define TREE_ROOT     1
#define TREE_IMAGE    2
#define TREE_VIDEO    3
#define TREE_GIF      4
#define TREE_FIRST_ID 4096
#define TREE_NAME_MAX 255

struct tree;

struct node {
    int64_t id, parent; /* parent 0: unlinked */
    char name[TREE_NAME_MAX + 1];
    struct stat st;  /* complete: ino, mode, nlink, uid, gid, size, blocks, times */
    bool artifact;   /* made by a job: read-only, immutable under this id */
    char origin[40]; /* artifacts: id of the run that made it */
};

int tree_open(struct db *d, const char *store, struct tree **out, struct err *e);
void tree_close(struct tree *t);
const char *tree_store_path(const struct tree *t);

int tree_lookup(struct tree *t, int64_t parent, const char *name, struct node *out);
int tree_get(struct tree *t, int64_t id, struct node *out); /* -ESTALE when it is no more */
/* Makes a file, folder, symlink (target) or special file; data files are created empty. */
int tree_make(struct tree *t, int64_t parent, const char *name, mode_t mode, uid_t uid, gid_t gid,
              dev_t rdev, const char *target, struct node *out);
/* Links the finished file `path` (same filesystem, fsynced) as a read-only artifact, in place of
 * whatever file has that name: one transaction. `path` stays. `replaced`: the old node's id or 0.
 */
int tree_adopt(struct tree *t, int64_t parent, const char *name, const char *path, uid_t uid,
               gid_t gid, mode_t mode, const char *origin, struct node *out, int64_t *replaced);
int tree_unlink(struct tree *t, int64_t parent, const char *name, int64_t *id);
int tree_rmdir(struct tree *t, int64_t parent, const char *name, int64_t *id);
/* flags: 0, RENAME_NOREPLACE, RENAME_EXCHANGE. `moved`: the node; `replaced`: what was there, or 0.
 */
int tree_rename(struct tree *t, int64_t parent, const char *name, int64_t new_parent,
                const char *new_name, unsigned flags, int64_t *moved, int64_t *replaced);
int tree_readlink(struct tree *t, int64_t id, char *buf, size_t size);
/* Entries of a folder with id > `after`, in a stable order; calls `each` without the lock and
 * stops when it returns false. The order is that of ids, so entries made meanwhile are no trouble.
 */
int tree_list(struct tree *t, int64_t parent, int64_t after,
              bool (*each)(void *ctx, const struct node *n), void *ctx);
/* A new descriptor of the node's data. */
int tree_open_data(struct tree *t, int64_t id, int flags);
/* Attributes: those whose bit is set in `valid` (TREE_SET_*). */
enum {
    TREE_SET_MODE = 1,
    TREE_SET_UID = 2,
    TREE_SET_GID = 4,
    TREE_SET_ATIME = 8,
    TREE_SET_MTIME = 16
};
int tree_set(struct tree *t, int64_t id, int valid, const struct stat *st);
/* Sets a folder's mtime and ctime to now (virtual entries appeared). */
int tree_touch(struct tree *t, int64_t id);
int tree_xattr_get(struct tree *t, int64_t id, const char *name, void *buf,
                   size_t size); /* length */
int tree_xattr_set(struct tree *t, int64_t id, const char *name, const void *v, size_t n,
                   int flags);
int tree_xattr_list(struct tree *t, int64_t id, char *buf, size_t size); /* length */
int tree_xattr_remove(struct tree *t, int64_t id, const char *name);
/* The node, its data's name and everything committed survive power loss from here on. The bytes of
 * a regular file are the caller's to fsync first. */
int tree_sync(struct tree *t, int64_t id);
/* Drops an unlinked node for good (last forget and last release are done). */
void tree_purge(struct tree *t, int64_t id);
/* Bytes of user files and artifacts as accounted (sizes, not blocks); limit 0: none. Whoever grows
 * or shrinks a data file charges the difference; making, adopting and purging nodes charge by
 * themselves. tree_charge returns -EDQUOT when `more` > 0 would pass the limit. */
uint64_t tree_bytes_used(struct tree *t);
void tree_set_limit(struct tree *t, uint64_t bytes);
int tree_charge(struct tree *t, int64_t more);

#endif
