/* Rows of the tree: reading, making, listing and changing nodes. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "store/tree_internal.h"

#define NODE_COLUMNS                                                                               \
    "id,parent,name,mode,uid,gid,rdev,length(target),subfolders,atime,mtime,ctime,artifact,origin"

enum {
    FOLDER_BYTES = 4096, /* shown as a folder's size */
    LIST_BATCH = 64,
};

int64_t tree_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static struct timespec time_of(int64_t ns)
{
    int64_t sec = ns / 1000000000, rest = ns % 1000000000;
    if (rest < 0) { /* before 1970 */
        sec--;
        rest += 1000000000;
    }
    return (struct timespec){.tv_sec = sec, .tv_nsec = rest};
}

/* Saturates at the years 1677 and 2262, which is what the column can hold. */
static int64_t ns_of(struct timespec t)
{
    int64_t ns;
    if (__builtin_mul_overflow((int64_t)t.tv_sec, (int64_t)1000000000, &ns) ||
        __builtin_add_overflow(ns, (int64_t)t.tv_nsec, &ns))
        return t.tv_sec < 0 ? INT64_MIN : INT64_MAX;
    return ns;
}

int tree_check_name(const char *name)
{
    size_t n = strlen(name);
    if (n == 0 || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
        return -EINVAL;
    return n > TREE_NAME_MAX ? -ENAMETOOLONG : 0;
}

/* ---- reading ---- */

static void read_row(sqlite3_stmt *s, struct node *n)
{
    *n = (struct node){.id = sqlite3_column_int64(s, 0), .parent = sqlite3_column_int64(s, 1)};
    const void *name = sqlite3_column_blob(s, 2);
    int len = sqlite3_column_bytes(s, 2);
    if (name && n->parent > 0 && len <= TREE_NAME_MAX)
        memcpy(n->name, name, (size_t)len);
    struct stat *st = &n->st;
    st->st_ino = (ino_t)n->id;
    st->st_mode = (mode_t)sqlite3_column_int64(s, 3);
    st->st_uid = (uid_t)sqlite3_column_int64(s, 4);
    st->st_gid = (gid_t)sqlite3_column_int64(s, 5);
    st->st_rdev = (dev_t)sqlite3_column_int64(s, 6);
    st->st_size = sqlite3_column_int64(s, 7);
    st->st_nlink = n->parent != 0;
    st->st_blksize = 4096;
    if (S_ISDIR(st->st_mode)) {
        st->st_size = FOLDER_BYTES;
        st->st_blocks = FOLDER_BYTES / 512;
        if (n->parent)
            st->st_nlink = 2 + (nlink_t)sqlite3_column_int64(s, 8);
    }
    st->st_atim = time_of(sqlite3_column_int64(s, 9));
    st->st_mtim = time_of(sqlite3_column_int64(s, 10));
    st->st_ctim = time_of(sqlite3_column_int64(s, 11));
    n->artifact = sqlite3_column_int(s, 12) != 0;
    const char *origin = (const char *)sqlite3_column_text(s, 13);
    snprintf(n->origin, sizeof n->origin, "%s", origin ? origin : "");
    if (n->parent < 0) /* the root, which is not an entry of itself */
        n->parent = TREE_ROOT;
}

static int one_row(struct tree *t, sqlite3_stmt *s, struct node *out)
{
    int r = db_row(t->db, s);
    if (r == 1)
        read_row(s, out);
    sqlite3_reset(s);
    return r < 0 ? r : r == 1 ? 0 : -ENOENT;
}

int tree_row_by_name(struct tree *t, int64_t parent, const char *name, struct node *out)
{
    if (parent <= 0) /* unlinked nodes have no names */
        return -ENOENT;
    sqlite3_stmt *s =
        db_sql(t->db, "SELECT " NODE_COLUMNS " FROM node WHERE parent=?1 AND name=?2");
    sqlite3_bind_int64(s, 1, parent);
    sqlite3_bind_blob(s, 2, name, (int)strlen(name), SQLITE_STATIC);
    return one_row(t, s, out);
}

int tree_row_by_id(struct tree *t, int64_t id, struct node *out)
{
    sqlite3_stmt *s = db_sql(t->db, "SELECT " NODE_COLUMNS " FROM node WHERE id=?1");
    sqlite3_bind_int64(s, 1, id);
    return one_row(t, s, out);
}

int tree_lookup(struct tree *t, int64_t parent, const char *name, struct node *out)
{
    if (strlen(name) > TREE_NAME_MAX)
        return -ENAMETOOLONG;
    db_lock(t->db);
    int r = tree_row_by_name(t, parent, name, out);
    db_unlock(t->db);
    if (!r)
        tree_data_stat(t, out);
    return r;
}

int tree_get(struct tree *t, int64_t id, struct node *out)
{
    db_lock(t->db);
    int r = tree_row_by_id(t, id, out);
    db_unlock(t->db);
    if (!r)
        tree_data_stat(t, out);
    return r == -ENOENT ? -ESTALE : r;
}

int tree_readlink(struct tree *t, int64_t id, char *buf, size_t size)
{
    if (size == 0)
        return -EINVAL;
    db_lock(t->db);
    sqlite3_stmt *s = db_sql(t->db, "SELECT target FROM node WHERE id=?1 AND target IS NOT NULL");
    sqlite3_bind_int64(s, 1, id);
    int r = db_row(t->db, s);
    if (r == 1) {
        const void *target = sqlite3_column_blob(s, 0);
        size_t n = (size_t)sqlite3_column_bytes(s, 0);
        if (n > size - 1)
            n = size - 1;
        if (n)
            memcpy(buf, target, n);
        buf[n] = '\0';
    }
    db_unlock(t->db);
    return r < 0 ? r : r == 1 ? 0 : -EINVAL;
}

static int read_batch(struct tree *t, int64_t parent, int64_t after, struct node *batch)
{
    db_lock(t->db);
    sqlite3_stmt *s = db_sql(t->db, "SELECT " NODE_COLUMNS " FROM node INDEXED BY node_parent"
                                    " WHERE parent=?1 AND id>?2 ORDER BY id LIMIT ?3");
    sqlite3_bind_int64(s, 1, parent);
    sqlite3_bind_int64(s, 2, after);
    sqlite3_bind_int(s, 3, LIST_BATCH);
    int count = 0, r;
    while ((r = db_row(t->db, s)) == 1 && count < LIST_BATCH)
        read_row(s, &batch[count++]);
    db_unlock(t->db);
    return r < 0 ? r : count;
}

int tree_list(struct tree *t, int64_t parent, int64_t after,
              bool (*each)(void *ctx, const struct node *n), void *ctx)
{
    if (parent <= 0)
        return 0;
    AUTO_FREE struct node *batch = malloc(LIST_BATCH * sizeof *batch);
    if (!batch)
        return -ENOMEM;
    int count;
    do {
        count = read_batch(t, parent, after, batch);
        for (int i = 0; i < count; i++) {
            tree_data_stat(t, &batch[i]);
            if (!each(ctx, &batch[i]))
                return 0;
            after = batch[i].id;
        }
    } while (count == LIST_BATCH);
    return count < 0 ? count : 0;
}

/* ---- making ---- */

int tree_check_folder(struct tree *t, int64_t id)
{
    struct node n;
    int r = tree_row_by_id(t, id, &n);
    if (r)
        return r;
    return !S_ISDIR(n.st.st_mode) ? -ENOTDIR : n.parent == 0 ? -ENOENT : 0;
}

int tree_entries_changed(struct tree *t, int64_t id, int subfolders)
{
    sqlite3_stmt *s = db_sql(t->db, "UPDATE node SET mtime=?2,ctime=?2,subfolders=subfolders+?3"
                                    " WHERE id=?1");
    sqlite3_bind_int64(s, 1, id);
    sqlite3_bind_int64(s, 2, tree_now());
    sqlite3_bind_int(s, 3, subfolders);
    return db_run(t->db, s);
}

int tree_insert(struct tree *t, const struct node *n, const char *target)
{
    sqlite3_stmt *s =
        db_sql(t->db, "INSERT INTO node(id,parent,name,mode,uid,gid,rdev,target,atime,mtime,ctime,"
                      "artifact,origin) VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?9,?9,?10,?11)");
    sqlite3_bind_int64(s, 1, n->id);
    sqlite3_bind_int64(s, 2, n->parent);
    sqlite3_bind_blob(s, 3, n->name, (int)strlen(n->name), SQLITE_STATIC);
    sqlite3_bind_int64(s, 4, n->st.st_mode);
    sqlite3_bind_int64(s, 5, n->st.st_uid);
    sqlite3_bind_int64(s, 6, n->st.st_gid);
    sqlite3_bind_int64(s, 7, (int64_t)n->st.st_rdev);
    if (target)
        sqlite3_bind_blob(s, 8, target, (int)strlen(target), SQLITE_STATIC);
    sqlite3_bind_int64(s, 9, tree_now());
    sqlite3_bind_int(s, 10, n->artifact);
    if (n->artifact)
        sqlite3_bind_text(s, 11, n->origin, -1, SQLITE_STATIC);
    return db_run(t->db, s);
}

static int insert_into_folder(struct tree *t, struct node *n, const char *target)
{
    int r = db_begin(t->db);
    if (r)
        return r;
    r = tree_check_folder(t, n->parent);
    if (!r)
        r = tree_insert(t, n, target);
    if (!r)
        r = tree_entries_changed(t, n->parent, S_ISDIR(n->st.st_mode));
    if (!r)
        r = tree_row_by_id(t, n->id, n);
    if (r) {
        db_rollback(t->db);
        return r;
    }
    return db_commit(t->db);
}

int tree_make(struct tree *t, int64_t parent, const char *name, mode_t mode, uid_t uid, gid_t gid,
              dev_t rdev, const char *target, struct node *out)
{
    int r = tree_check_name(name);
    if (r)
        return r;
    int64_t id = tree_take_id(t);
    if (id < 0)
        return (int)id;
    *out = (struct node){.id = id, .parent = parent};
    memcpy(out->name, name, strlen(name));
    out->st.st_mode = mode;
    out->st.st_uid = uid;
    out->st.st_gid = gid;
    out->st.st_rdev = rdev;
    if (S_ISREG(mode) && (r = tree_data_create(t, id)))
        return r;
    r = insert_into_folder(t, out, target);
    if (r && S_ISREG(mode))
        tree_data_remove(t, id);
    if (!r)
        tree_data_stat(t, out);
    return r;
}

/* ---- changing ---- */

static int set_row(struct tree *t, const struct node *n)
{
    sqlite3_stmt *s = db_sql(
        t->db, "UPDATE node SET mode=?2,uid=?3,gid=?4,atime=?5,mtime=?6,ctime=?7 WHERE id=?1");
    sqlite3_bind_int64(s, 1, n->id);
    sqlite3_bind_int64(s, 2, n->st.st_mode);
    sqlite3_bind_int64(s, 3, n->st.st_uid);
    sqlite3_bind_int64(s, 4, n->st.st_gid);
    sqlite3_bind_int64(s, 5, ns_of(n->st.st_atim));
    sqlite3_bind_int64(s, 6, ns_of(n->st.st_mtim));
    sqlite3_bind_int64(s, 7, tree_now());
    return db_run(t->db, s);
}

static int change_row(struct tree *t, int64_t id, int valid, const struct stat *st, bool *regular)
{
    struct node n;
    int r = tree_row_by_id(t, id, &n);
    if (r)
        return r == -ENOENT ? -ESTALE : r;
    if (valid & TREE_SET_MODE)
        n.st.st_mode = (n.st.st_mode & S_IFMT) | (st->st_mode & 07777);
    if (valid & TREE_SET_UID)
        n.st.st_uid = st->st_uid;
    if (valid & TREE_SET_GID)
        n.st.st_gid = st->st_gid;
    *regular = S_ISREG(n.st.st_mode);
    if (valid & TREE_SET_ATIME && !*regular)
        n.st.st_atim = st->st_atim;
    if (valid & TREE_SET_MTIME && !*regular)
        n.st.st_mtim = st->st_mtim;
    return set_row(t, &n);
}

int tree_set(struct tree *t, int64_t id, int valid, const struct stat *st)
{
    bool regular = false;
    int r = db_begin(t->db);
    if (r)
        return r;
    r = change_row(t, id, valid, st, &regular);
    if (r) {
        db_rollback(t->db);
        return r;
    }
    r = db_commit(t->db);
    if (r || !regular || !(valid & (TREE_SET_ATIME | TREE_SET_MTIME)))
        return r;
    const struct timespec omit = {.tv_nsec = UTIME_OMIT};
    const struct timespec times[2] = {valid & TREE_SET_ATIME ? st->st_atim : omit,
                                      valid & TREE_SET_MTIME ? st->st_mtim : omit};
    return tree_data_set_times(t, id, times);
}

int tree_touch(struct tree *t, int64_t id)
{
    db_lock(t->db);
    int r = tree_entries_changed(t, id, 0);
    db_unlock(t->db);
    return r;
}
