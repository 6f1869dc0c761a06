/* What the files of the tree share: tree_open.c (ids, start, recovery), tree_nodes.c (rows),
 * tree_names.c (unlink, rename, adopt), tree_data.c (bytes), tree_xattr.c.
 *
 * A regular file is made data first, row second, and dropped row first, data second: a crash
 * between the two leaves a data file without a row, which the next start removes. */
#ifndef OMNIFS_STORE_TREE_INTERNAL_H
#define OMNIFS_STORE_TREE_INTERNAL_H

#include <stdatomic.h>
#include <time.h>

#include "store/tree.h"

#define TREE_SHARDS 256 /* folders data/00 … data/ff, by the id's lowest byte */

struct tree {
    struct db *db;
    char *store;
    int data_fd; /* STORE/data */
    _Atomic int64_t next_id, reserved_id;
    atomic_uint_fast64_t bytes, limit;
    atomic_bool shard_dirty[TREE_SHARDS]; /* names not yet synced */
};

/* ---- tree_open.c ---- */

/* An id that was never handed out before, whatever crashed; negative errno on failure. */
int64_t tree_take_id(struct tree *t);

/* ---- tree_nodes.c ---- */

/* Kernel-coarse wall clock in nanoseconds: row times then never run ahead of data file times. */
int64_t tree_now(void);
/* Under the lock: the row of (parent, name) or of `id` without data attributes. -ENOENT. */
int tree_row_by_name(struct tree *t, int64_t parent, const char *name, struct node *out);
int tree_row_by_id(struct tree *t, int64_t id, struct node *out);
/* Under the lock: 0 when `id` is a folder that can take entries; -ENOENT, -ENOTDIR. */
int tree_check_folder(struct tree *t, int64_t id);
/* Under the lock: mtime and ctime of a folder are now; `subfolders` is added to its count. */
int tree_entries_changed(struct tree *t, int64_t id, int subfolders);
/* Under the lock: inserts the row that `n` describes. -EEXIST. */
int tree_insert(struct tree *t, const struct node *n, const char *target);
/* 0, -EINVAL ("", ".", "..", with '/') or -ENAMETOOLONG. */
int tree_check_name(const char *name);

/* ---- tree_data.c ---- */

int tree_data_create(struct tree *t, int64_t id);
int tree_data_link(struct tree *t, int64_t id, const char *path);
/* Fills size, blocks, atime, mtime and ctime of a regular file; nothing for others. */
void tree_data_stat(struct tree *t, struct node *n);
int tree_data_set_times(struct tree *t, int64_t id, const struct timespec times[2]);
/* Removes the data file; returns the bytes it had. */
uint64_t tree_data_remove(struct tree *t, int64_t id);
/* Counts the bytes of all data files and removes those without a row. */
int tree_data_recover(struct tree *t, uint64_t *bytes);

#endif
