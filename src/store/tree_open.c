/* The tree's start and end: schema, fixed folders, ids, recovery after a crash, accounting. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "store/tree_internal.h"

/* Ids are reserved on disk in blocks, so that not even power loss brings one back. */
#define ID_BLOCK ((int64_t)1 << 20)

static const char *const schema[] = {
    "CREATE TABLE node("
    " id INTEGER PRIMARY KEY,"
    " parent INTEGER NOT NULL," /* 0: unlinked, -1: the root's */
    " name BLOB NOT NULL,"
    " mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL, rdev INTEGER NOT NULL,"
    " target BLOB,"
    " subfolders INTEGER NOT NULL DEFAULT 0,"
    " atime INTEGER NOT NULL, mtime INTEGER NOT NULL, ctime INTEGER NOT NULL,"
    " artifact INTEGER NOT NULL DEFAULT 0, origin TEXT);"
    "CREATE UNIQUE INDEX node_name ON node(parent, name);"
    "CREATE INDEX node_parent ON node(parent);" /* in order of ids, for listings */
    "CREATE TABLE xattr(node INTEGER NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL,"
    " PRIMARY KEY(node, name)) WITHOUT ROWID;"
    "CREATE TABLE tree("
    " one INTEGER PRIMARY KEY CHECK(one = 1),"
    " next_id INTEGER NOT NULL," /* never handed out yet, from here on */
    " bytes INTEGER NOT NULL,"   /* of all data files; right only when clean */
    " clean INTEGER NOT NULL);"
    "INSERT INTO tree VALUES(1, 4096, 0, 1);",
};

static const struct fixed {
    int64_t id, parent;
    const char *name;
    mode_t mode;
} fixed[] = {
    {TREE_ROOT, -1, "", S_IFDIR | 0555},
    {TREE_IMAGE, TREE_ROOT, "image", S_IFDIR | 0755},
    {TREE_VIDEO, TREE_ROOT, "video", S_IFDIR | 0755},
    {TREE_GIF, TREE_ROOT, "gif", S_IFDIR | 0755},
};

static int make_fixed(struct tree *t)
{
    int r = db_begin(t->db);
    if (r)
        return r;
    for (size_t i = 0; !r && i < ARRAY_LEN(fixed); i++) {
        struct node n = {.id = fixed[i].id, .parent = fixed[i].parent};
        snprintf(n.name, sizeof n.name, "%s", fixed[i].name);
        n.st.st_mode = fixed[i].mode;
        n.st.st_uid = geteuid();
        n.st.st_gid = getegid();
        r = tree_insert(t, &n, NULL);
        if (!r && n.parent > 0)
            r = tree_entries_changed(t, n.parent, 1);
        else if (r == -EEXIST)
            r = 0;
    }
    if (r) {
        db_rollback(t->db);
        return r;
    }
    return db_commit(t->db);
}

/* ---- the one row of `tree` ---- */

struct state {
    int64_t next_id, bytes;
    bool clean;
};

static int read_state(struct tree *t, struct state *out)
{
    db_lock(t->db);
    sqlite3_stmt *s = db_sql(t->db, "SELECT next_id,bytes,clean FROM tree WHERE one=1");
    int r = db_row(t->db, s);
    if (r == 1)
        *out = (struct state){sqlite3_column_int64(s, 0), sqlite3_column_int64(s, 1),
                              sqlite3_column_int(s, 2) != 0};
    db_unlock(t->db);
    return r < 0 ? r : r == 1 && out->next_id >= TREE_FIRST_ID && out->bytes >= 0 ? 0 : -EIO;
}

static int write_state(struct tree *t, const struct state *state)
{
    db_lock(t->db);
    sqlite3_stmt *s = db_sql(t->db, "UPDATE tree SET next_id=?1,bytes=?2,clean=?3 WHERE one=1");
    sqlite3_bind_int64(s, 1, state->next_id);
    sqlite3_bind_int64(s, 2, state->bytes);
    sqlite3_bind_int(s, 3, state->clean);
    int r = db_run(t->db, s);
    db_unlock(t->db);
    return r ? r : db_sync(t->db);
}

/* ---- ids ---- */

static int reserve_up_to(struct tree *t, int64_t id)
{
    db_lock(t->db);
    int64_t reserved = atomic_load(&t->reserved_id);
    int r = 0;
    if (id >= reserved) { /* else another thread was faster */
        reserved = id + ID_BLOCK;
        sqlite3_stmt *s = db_sql(t->db, "UPDATE tree SET next_id=?1 WHERE one=1");
        sqlite3_bind_int64(s, 1, reserved);
        r = db_run(t->db, s);
        if (!r)
            r = db_sync(t->db); /* once in a million files */
        if (!r)
            atomic_store(&t->reserved_id, reserved);
    }
    db_unlock(t->db);
    return r;
}

int64_t tree_take_id(struct tree *t)
{
    int64_t id = atomic_fetch_add(&t->next_id, 1);
    if (id >= atomic_load(&t->reserved_id)) {
        int r = reserve_up_to(t, id);
        if (r)
            return r;
    }
    return id;
}

/* ---- start ---- */

static int make_shards(struct tree *t)
{
    for (unsigned i = 0; i < TREE_SHARDS; i++) {
        char name[8];
        snprintf(name, sizeof name, "%02x", i);
        if (mkdirat(t->data_fd, name, 0700) && errno != EEXIST)
            return -errno;
    }
    return fsync(t->data_fd) ? -errno : 0;
}

static int open_data(struct tree *t)
{
    AUTO_FD int store = open(t->store, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (store < 0)
        return -errno;
    bool made = !mkdirat(store, "data", 0700);
    if (!made && errno != EEXIST)
        return -errno;
    t->data_fd = openat(store, "data", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (t->data_fd < 0 || (made && fsync(store)))
        return -errno;
    return faccessat(t->data_fd, "ff", F_OK, 0) ? make_shards(t) : 0;
}

/* Nodes that were unlinked but open when the last run ended. */
static int purge_orphans(struct tree *t)
{
    for (int64_t id = 0;;) {
        db_lock(t->db);
        sqlite3_stmt *s = db_sql(t->db, "SELECT id FROM node INDEXED BY node_parent"
                                        " WHERE parent=0 AND id>?1 ORDER BY id LIMIT 1");
        sqlite3_bind_int64(s, 1, id);
        int r = db_row(t->db, s);
        id = r == 1 ? sqlite3_column_int64(s, 0) : 0;
        db_unlock(t->db);
        if (r != 1)
            return r;
        tree_purge(t, id);
    }
}

static int recover(struct tree *t)
{
    struct state state;
    int r = read_state(t, &state);
    if (r)
        return r;
    uint64_t bytes = (uint64_t)state.bytes;
    if (!state.clean && (r = tree_data_recover(t, &bytes)))
        return r;
    atomic_store(&t->bytes, bytes);
    atomic_store(&t->next_id, state.next_id);
    atomic_store(&t->reserved_id, state.next_id + ID_BLOCK);
    state = (struct state){.next_id = state.next_id + ID_BLOCK, .bytes = (int64_t)bytes};
    r = write_state(t, &state);
    return r ? r : purge_orphans(t);
}

int tree_open(struct db *d, const char *store, struct tree **out, struct err *e)
{
    struct tree *t = calloc(1, sizeof *t);
    if (!t || !(t->store = strdup(store))) {
        free(t);
        return err_nomem(e);
    }
    t->db = d;
    t->data_fd = -1;
    int r = db_schema(d, "tree", schema, (int)ARRAY_LEN(schema), e);
    if (!r) {
        r = make_fixed(t);
        if (!r)
            r = open_data(t);
        if (!r)
            r = recover(t);
        if (r)
            err_set(e, r, "%s: the store's files cannot be opened: %s", store, strerror(-r));
    }
    if (r) {
        if (t->data_fd >= 0)
            close(t->data_fd);
        free(t->store);
        free(t);
        return r;
    }
    *out = t;
    return 0;
}

void tree_close(struct tree *t)
{
    if (!t)
        return;
    struct state state = {.next_id = atomic_load(&t->next_id),
                          .bytes = (int64_t)atomic_load(&t->bytes),
                          .clean = true};
    int r = write_state(t, &state);
    if (r)
        log_warn("%s: the next start will count all files again: %s", t->store, strerror(-r));
    close(t->data_fd);
    free(t->store);
    free(t);
}

const char *tree_store_path(const struct tree *t)
{
    return t->store;
}

/* ---- end of a node, accounting ---- */

static int delete_rows(struct tree *t, int64_t id, bool *regular)
{
    struct node n;
    int r = tree_row_by_id(t, id, &n);
    if (r || n.parent != 0)
        return r;
    *regular = S_ISREG(n.st.st_mode);
    sqlite3_stmt *s = db_sql(t->db, "DELETE FROM node WHERE id=?1");
    sqlite3_bind_int64(s, 1, id);
    r = db_run(t->db, s);
    if (r)
        return r;
    s = db_sql(t->db, "DELETE FROM xattr WHERE node=?1");
    sqlite3_bind_int64(s, 1, id);
    return db_run(t->db, s);
}

void tree_purge(struct tree *t, int64_t id)
{
    bool regular = false;
    if (db_begin(t->db))
        return; /* the next start purges it */
    if (delete_rows(t, id, &regular)) {
        db_rollback(t->db);
        return;
    }
    if (!db_commit(t->db) && regular)
        tree_charge(t, -(int64_t)tree_data_remove(t, id));
}

uint64_t tree_bytes_used(struct tree *t)
{
    return atomic_load(&t->bytes);
}

void tree_set_limit(struct tree *t, uint64_t bytes)
{
    atomic_store(&t->limit, bytes);
}

int tree_charge(struct tree *t, int64_t more)
{
    uint64_t limit = atomic_load(&t->limit), used = atomic_load(&t->bytes), sum;
    do {
        if (more < 0)
            sum = used > (uint64_t)-more ? used - (uint64_t)-more : 0;
        else if (__builtin_add_overflow(used, (uint64_t)more, &sum) ||
                 (more > 0 && limit && sum > limit))
            return -EDQUOT;
    } while (!atomic_compare_exchange_weak(&t->bytes, &used, sum));
    return 0;
}
