/* Names of the tree: unlink, rmdir, rename, adopt. Each is one transaction. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "store/tree_internal.h"

/* Ends the transaction that the caller began. */
static int finish(struct tree *t, int r)
{
    if (r) {
        db_rollback(t->db);
        return r;
    }
    return db_commit(t->db);
}

/* The node has no name any more; as a child of 0 its id is its name, which is unique. */
static int orphan(struct tree *t, const struct node *n)
{
    sqlite3_stmt *s =
        db_sql(t->db, "UPDATE node SET parent=0,name=CAST(id AS BLOB),ctime=?2 WHERE id=?1");
    sqlite3_bind_int64(s, 1, n->id);
    sqlite3_bind_int64(s, 2, tree_now());
    int r = db_run(t->db, s);
    return r ? r : tree_entries_changed(t, n->parent, -(int)S_ISDIR(n->st.st_mode));
}

static int check_empty(struct tree *t, int64_t id)
{
    sqlite3_stmt *s = db_sql(t->db, "SELECT 1 FROM node WHERE parent=?1 LIMIT 1");
    sqlite3_bind_int64(s, 1, id);
    int r = db_row(t->db, s);
    sqlite3_reset(s);
    return r == 1 ? -ENOTEMPTY : r;
}

static int remove_name(struct tree *t, int64_t parent, const char *name, bool folder, int64_t *id)
{
    struct node n;
    int r = tree_row_by_name(t, parent, name, &n);
    if (r)
        return r;
    if (n.id < TREE_FIRST_ID)
        return -EPERM;
    if (folder && !S_ISDIR(n.st.st_mode))
        return -ENOTDIR;
    if (!folder && S_ISDIR(n.st.st_mode))
        return -EISDIR;
    if (folder && (r = check_empty(t, n.id)))
        return r;
    *id = n.id;
    return orphan(t, &n);
}

int tree_unlink(struct tree *t, int64_t parent, const char *name, int64_t *id)
{
    int r = db_begin(t->db);
    return r ? r : finish(t, remove_name(t, parent, name, false, id));
}

int tree_rmdir(struct tree *t, int64_t parent, const char *name, int64_t *id)
{
    int r = db_begin(t->db);
    return r ? r : finish(t, remove_name(t, parent, name, true, id));
}

/* ---- rename ---- */

/* -EINVAL when `folder` is `id` or lies below it. */
static int check_not_below(struct tree *t, int64_t id, int64_t folder)
{
    struct node n = {.id = folder};
    while (n.id != TREE_ROOT) {
        if (n.id == id)
            return -EINVAL;
        int r = tree_row_by_id(t, n.id, &n);
        if (r)
            return r;
        if (n.parent == 0)
            return -ENOENT;
        n.id = n.parent;
    }
    return 0;
}

static int place(struct tree *t, int64_t id, int64_t parent, const char *name)
{
    sqlite3_stmt *s = db_sql(t->db, "UPDATE node SET parent=?2,name=?3,ctime=?4 WHERE id=?1");
    sqlite3_bind_int64(s, 1, id);
    sqlite3_bind_int64(s, 2, parent);
    sqlite3_bind_blob(s, 3, name, (int)strlen(name), SQLITE_STATIC);
    sqlite3_bind_int64(s, 4, tree_now());
    return db_run(t->db, s);
}

static int move(struct tree *t, const struct node *n, int64_t parent, const char *name)
{
    int folder = S_ISDIR(n->st.st_mode);
    int r = place(t, n->id, parent, name);
    if (!r)
        r = tree_entries_changed(t, n->parent, -folder);
    return r ? r : tree_entries_changed(t, parent, folder);
}

static int exchange(struct tree *t, const struct node *a, const struct node *b)
{
    int r = 0;
    if (S_ISDIR(b->st.st_mode))
        r = check_not_below(t, b->id, a->parent);
    char hold[32]; /* two rows cannot have one name, not even for a moment */
    snprintf(hold, sizeof hold, "%lld", (long long)a->id);
    if (!r)
        r = place(t, a->id, 0, hold);
    if (!r)
        r = move(t, b, a->parent, a->name);
    return r ? r : move(t, a, b->parent, b->name);
}

static int check_replace(struct tree *t, const struct node *from, const struct node *over)
{
    if (over->id < TREE_FIRST_ID)
        return -EPERM;
    bool from_folder = S_ISDIR(from->st.st_mode), over_folder = S_ISDIR(over->st.st_mode);
    if (from_folder && !over_folder)
        return -ENOTDIR;
    if (!from_folder && over_folder)
        return -EISDIR;
    return over_folder ? check_empty(t, over->id) : 0;
}

struct rename {
    int64_t parent, new_parent;
    const char *name, *new_name;
    unsigned flags;
    struct node from, over; /* over.id 0: the new name is free */
};

static int rename_check(struct tree *t, struct rename *m)
{
    int r = tree_row_by_name(t, m->parent, m->name, &m->from);
    if (r)
        return r;
    if (m->from.id < TREE_FIRST_ID)
        return -EPERM;
    r = tree_row_by_name(t, m->new_parent, m->new_name, &m->over);
    if (r == -ENOENT && m->flags & RENAME_EXCHANGE)
        return r;
    if (r && r != -ENOENT)
        return r;
    if (r)
        m->over.id = 0;
    else if (m->flags & RENAME_NOREPLACE)
        return -EEXIST;
    r = tree_check_folder(t, m->new_parent);
    if (!r && S_ISDIR(m->from.st.st_mode))
        r = check_not_below(t, m->from.id, m->new_parent);
    return r;
}

static int rename_apply(struct tree *t, struct rename *m)
{
    int r = 0;
    if (m->from.id == m->over.id)
        return 0;
    if (m->flags & RENAME_EXCHANGE)
        return m->over.id < TREE_FIRST_ID ? -EPERM : exchange(t, &m->from, &m->over);
    if (m->over.id) {
        r = check_replace(t, &m->from, &m->over);
        if (!r)
            r = orphan(t, &m->over);
    }
    return r ? r : move(t, &m->from, m->new_parent, m->new_name);
}

int tree_rename(struct tree *t, int64_t parent, const char *name, int64_t new_parent,
                const char *new_name, unsigned flags, int64_t *moved, int64_t *replaced)
{
    if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE) ||
        flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
        return -EINVAL;
    int r = tree_check_name(new_name);
    if (r || (r = db_begin(t->db)))
        return r;
    struct rename m = {.parent = parent,
                       .name = name,
                       .new_parent = new_parent,
                       .new_name = new_name,
                       .flags = flags};
    r = rename_check(t, &m);
    if (!r)
        r = rename_apply(t, &m);
    r = finish(t, r);
    *moved = r ? 0 : m.from.id;
    *replaced = r || m.from.id == m.over.id ? 0 : m.over.id;
    return r;
}

/* ---- artifacts ---- */

static int adopt(struct tree *t, struct node *n, int64_t *replaced)
{
    struct node old;
    int r = tree_check_folder(t, n->parent);
    if (r)
        return r;
    r = tree_row_by_name(t, n->parent, n->name, &old);
    if (!r) {
        if (S_ISDIR(old.st.st_mode))
            return -EISDIR;
        *replaced = old.id;
        r = orphan(t, &old);
    } else if (r == -ENOENT) {
        r = 0;
    }
    if (!r)
        r = tree_insert(t, n, NULL);
    if (!r)
        r = tree_entries_changed(t, n->parent, 0);
    return r ? r : tree_row_by_id(t, n->id, n);
}

int tree_adopt(struct tree *t, int64_t parent, const char *name, const char *path, uid_t uid,
               gid_t gid, mode_t mode, const char *origin, struct node *out, int64_t *replaced)
{
    *replaced = 0;
    int r = tree_check_name(name);
    if (r)
        return r;
    int64_t id = tree_take_id(t);
    if (id < 0)
        return (int)id;
    *out = (struct node){.id = id, .parent = parent, .artifact = true};
    memcpy(out->name, name, strlen(name));
    snprintf(out->origin, sizeof out->origin, "%s", origin);
    out->st.st_mode = S_IFREG | (mode & 07777);
    out->st.st_uid = uid;
    out->st.st_gid = gid;
    r = tree_data_link(t, id, path);
    if (r)
        return r;
    r = db_begin(t->db);
    if (!r)
        r = finish(t, adopt(t, out, replaced));
    if (r) {
        *replaced = 0;
        tree_data_remove(t, id);
        return r;
    }
    tree_data_stat(t, out);
    atomic_fetch_add(&t->bytes, (uint64_t)out->st.st_size);
    return 0;
}
