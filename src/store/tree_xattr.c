/* Extended attributes: small values beside the row, limited in sum as on other filesystems. */
#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

#include "store/tree_internal.h"

enum {
    XATTR_NAME_BYTES = 255,
    XATTR_NODE_BYTES = 65536, /* names and values of one node */
};

/* Copies `n` bytes out; size 0 asks for the length only. */
static int give(const void *from, size_t n, void *buf, size_t size)
{
    if (size && n > size)
        return -ERANGE;
    if (size && n)
        memcpy(buf, from, n);
    return (int)n;
}

int tree_xattr_get(struct tree *t, int64_t id, const char *name, void *buf, size_t size)
{
    db_lock(t->db);
    sqlite3_stmt *s = db_sql(t->db, "SELECT value FROM xattr WHERE node=?1 AND name=?2");
    sqlite3_bind_int64(s, 1, id);
    sqlite3_bind_text(s, 2, name, -1, SQLITE_STATIC);
    int r = db_row(t->db, s);
    if (r == 1)
        r = give(sqlite3_column_blob(s, 0), (size_t)sqlite3_column_bytes(s, 0), buf, size);
    else if (r == 0)
        r = -ENODATA;
    db_unlock(t->db);
    return r;
}

int tree_xattr_list(struct tree *t, int64_t id, char *buf, size_t size)
{
    db_lock(t->db);
    sqlite3_stmt *s = db_sql(t->db, "SELECT name FROM xattr WHERE node=?1 ORDER BY name");
    sqlite3_bind_int64(s, 1, id);
    size_t used = 0;
    int r;
    while ((r = db_row(t->db, s)) == 1) {
        size_t n = (size_t)sqlite3_column_bytes(s, 0) + 1;
        if (size && used + n > size) {
            r = -ERANGE;
            break;
        }
        if (size)
            memcpy(buf + used, sqlite3_column_text(s, 0), n);
        used += n;
    }
    db_unlock(t->db);
    return r < 0 ? r : (int)used;
}

static int run_on(struct tree *t, sqlite3_stmt *s, int64_t id, const char *name, const void *v,
                  size_t n)
{
    sqlite3_bind_int64(s, 1, id);
    sqlite3_bind_text(s, 2, name, -1, SQLITE_STATIC);
    if (v)
        sqlite3_bind_blob64(s, 3, v, n, SQLITE_STATIC);
    return db_run(t->db, s);
}

static int bytes_of_others(struct tree *t, int64_t id, const char *name, int64_t *bytes)
{
    sqlite3_stmt *s = db_sql(t->db, "SELECT coalesce(sum(length(CAST(name AS BLOB))+length(value)),"
                                    "0) FROM xattr WHERE node=?1 AND name<>?2");
    sqlite3_bind_int64(s, 1, id);
    sqlite3_bind_text(s, 2, name, -1, SQLITE_STATIC);
    int r = db_row(t->db, s);
    *bytes = r == 1 ? sqlite3_column_int64(s, 0) : 0;
    sqlite3_reset(s);
    return r < 0 ? r : 0;
}

static int changed(struct tree *t, int64_t id)
{
    sqlite3_stmt *s = db_sql(t->db, "UPDATE node SET ctime=?2 WHERE id=?1");
    sqlite3_bind_int64(s, 1, id);
    sqlite3_bind_int64(s, 2, tree_now());
    return db_run(t->db, s);
}

static int set_value(struct tree *t, int64_t id, const char *name, const void *v, size_t n,
                     int flags)
{
    struct node node;
    int64_t others;
    int r = tree_row_by_id(t, id, &node);
    if (r)
        return r == -ENOENT ? -ESTALE : r;
    int have = tree_xattr_get(t, id, name, NULL, 0);
    if (have < 0 && have != -ENODATA)
        return have;
    if (flags & XATTR_CREATE && have >= 0)
        return -EEXIST;
    if (flags & XATTR_REPLACE && have < 0)
        return have;
    r = bytes_of_others(t, id, name, &others);
    if (r)
        return r;
    if ((uint64_t)others + strlen(name) + n > XATTR_NODE_BYTES)
        return -ENOSPC;
    r = run_on(t,
               db_sql(t->db, "INSERT INTO xattr(node,name,value) VALUES(?1,?2,?3)"
                             " ON CONFLICT(node,name) DO UPDATE SET value=?3"),
               id, name, n ? v : "", n);
    return r ? r : changed(t, id);
}

int tree_xattr_set(struct tree *t, int64_t id, const char *name, const void *v, size_t n, int flags)
{
    if (strlen(name) > XATTR_NAME_BYTES)
        return -ERANGE;
    if (n > XATTR_NODE_BYTES)
        return -E2BIG;
    int r = db_begin(t->db);
    if (r)
        return r;
    r = set_value(t, id, name, v, n, flags);
    if (r) {
        db_rollback(t->db);
        return r;
    }
    return db_commit(t->db);
}

int tree_xattr_remove(struct tree *t, int64_t id, const char *name)
{
    int r = db_begin(t->db);
    if (r)
        return r;
    r = tree_xattr_get(t, id, name, NULL, 0);
    if (r >= 0)
        r = run_on(t, db_sql(t->db, "DELETE FROM xattr WHERE node=?1 AND name=?2"), id, name, NULL,
                   0);
    if (!r)
        r = changed(t, id);
    if (r) {
        db_rollback(t->db);
        return r;
    }
    return db_commit(t->db);
}
