#include "store/db.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "store/keeper.h"

#define APPLICATION_ID 0x4F4D4E46 /* "OMNF": file(1) and we can tell whose it is */
#define FORMAT_VERSION 1          /* of the file as a whole; floors have their own versions */

enum {
    BUSY_MS = 5000,        /* someone looks at the database with another tool */
    LOG_PAGES_MAX = 16384, /* 64 MiB: then a writer waits until the log is emptied */
    PATH_SIZE = 4096,
};

struct statement {
    const char *literal; /* the key is the address: literals do not move */
    sqlite3_stmt *stmt;
    bool used; /* handed out since the outermost lock */
};

struct db {
    sqlite3 *sqlite;
    struct keeper *keeper;
    pthread_mutex_t lock; /* recursive */
    int lock_depth;
    int tx_depth;
    bool tx_broken;          /* an inner part was rolled back */
    int tx_error;            /* first error inside the transaction */
    int log_pages;           /* after the last commit */
    struct statement *cache; /* open addressing, `cache_size` a power of two */
    size_t cache_size, cache_count;
    size_t *used; /* indices into cache */
    size_t used_count;
    int lock_fd;
    char path[PATH_SIZE];
};

/* ---- errors ---- */

static int code_of(struct db *d, int rc)
{
    switch (rc & 0xFF) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return 0;
    case SQLITE_CONSTRAINT:
        return -EEXIST;
    case SQLITE_FULL:
        return -ENOSPC;
    case SQLITE_NOMEM:
        return -ENOMEM;
    case SQLITE_IOERR: {
        int sys = sqlite3_system_errno(d->sqlite);
        return sys == ENOSPC || sys == EDQUOT ? -ENOSPC : -EIO;
    }
    default:
        return -EIO;
    }
}

static int failed(struct db *d, int rc, const char *sql)
{
    int code = code_of(d, rc);
    if (code != -EEXIST)
        log_error("%s: %s (%s)", d->path, sqlite3_errmsg(d->sqlite), sql);
    if (d->tx_depth && !d->tx_error)
        d->tx_error = code;
    return code;
}

static int exec(struct db *d, const char *sql)
{
    int rc = sqlite3_exec(d->sqlite, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : failed(d, rc, sql);
}

/* ---- opening ---- */

static int take_lock(struct db *d, const char *store, struct err *e)
{
    char path[PATH_SIZE];
    if (snprintf(path, sizeof path, "%s/lock", store) >= (int)sizeof path)
        return err_set(e, -ENAMETOOLONG, "%s: the store's path is too long", store);
    d->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (d->lock_fd < 0)
        return err_set(e, -errno, "%s: %s", path, strerror(errno));
    char pid[24] = "";
    if (flock(d->lock_fd, LOCK_EX | LOCK_NB)) {
        if (errno != EWOULDBLOCK)
            return err_set(e, -errno, "%s: %s", path, strerror(errno));
        ssize_t n = pread(d->lock_fd, pid, sizeof pid - 1, 0);
        pid[n > 0 ? strcspn(pid, "\n") : 0] = '\0';
        return err_set(e, -EBUSY,
                       "%s is in use by process %s; unmount that one first or name another store",
                       store, *pid ? pid : "?");
    }
    int n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(d->lock_fd, 0) || pwrite(d->lock_fd, pid, (size_t)n, 0) != n)
        return err_set(e, -EIO, "%s cannot be written: %s", path, strerror(errno));
    return 0;
}

static int damaged(struct db *d, const char *what, struct err *e)
{
    return err_set(e, -EIO,
                   "%s is damaged (%s); restore it from a backup, or move the store away to start "
                   "with an empty one",
                   d->path, what);
}

static int pragma_int(struct db *d, const char *sql, int *out)
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(d->sqlite, sql, -1, &s, NULL);
    if (rc == SQLITE_OK && (rc = sqlite3_step(s)) == SQLITE_ROW)
        *out = sqlite3_column_int(s, 0);
    sqlite3_finalize(s);
    return rc == SQLITE_ROW ? 0 : rc == SQLITE_DONE ? SQLITE_ERROR : rc;
}

static int pragma_text(struct db *d, const char *sql, char *out, size_t size)
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(d->sqlite, sql, -1, &s, NULL);
    if (rc == SQLITE_OK && (rc = sqlite3_step(s)) == SQLITE_ROW)
        snprintf(out, size, "%s", (const char *)sqlite3_column_text(s, 0));
    sqlite3_finalize(s);
    return rc == SQLITE_ROW ? 0 : rc == SQLITE_DONE ? SQLITE_ERROR : rc;
}

/* Is it ours, and of a format that we know? An empty file becomes ours. */
static int check_identity(struct db *d, struct err *e)
{
    int id = 0, version = 0, tables = 0;
    if (pragma_int(d, "PRAGMA application_id", &id) ||
        pragma_int(d, "PRAGMA user_version", &version) ||
        pragma_int(d, "SELECT count(*) FROM sqlite_schema", &tables))
        return damaged(d, sqlite3_errmsg(d->sqlite), e);
    if (id == 0 && version == 0 && tables == 0)
        return 0;
    if (id != APPLICATION_ID)
        return err_set(e, -EINVAL, "%s is not a store of omnifs; name another folder", d->path);
    if (version != FORMAT_VERSION)
        return err_set(e, -EPROTO, "%s has format %d, this omnifs reads %d; use a newer omnifs",
                       d->path, version, FORMAT_VERSION);
    char verdict[160] = "";
    if (pragma_text(d, "PRAGMA quick_check(1)", verdict, sizeof verdict))
        return damaged(d, sqlite3_errmsg(d->sqlite), e);
    return strcmp(verdict, "ok") ? damaged(d, verdict, e) : 0;
}

static int on_commit(void *ctx, sqlite3 *sqlite, const char *name, int pages)
{
    (void)sqlite;
    (void)name;
    struct db *d = ctx;
    d->log_pages = pages;
    if (d->keeper)
        keeper_committed(d->keeper, pages);
    return SQLITE_OK;
}

static int set_up(struct db *d, struct err *e)
{
    char mode[16] = "";
    sqlite3_busy_timeout(d->sqlite, BUSY_MS);
    int r = check_identity(d, e);
    if (r)
        return r;
    if (pragma_text(d, "PRAGMA journal_mode=WAL", mode, sizeof mode) || strcmp(mode, "wal"))
        return err_set(
            e, -EIO,
            "%s cannot keep a write-ahead log (journal mode '%s': %s); the store must be "
            "on a local, writable filesystem",
            d->path, mode, sqlite3_errmsg(d->sqlite));
    char sql[256];
    snprintf(sql, sizeof sql,
             "PRAGMA synchronous=NORMAL; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-2048;"
             "BEGIN IMMEDIATE; PRAGMA application_id=%d; PRAGMA user_version=%d;"
             "CREATE TABLE IF NOT EXISTS floor(name TEXT PRIMARY KEY, version INTEGER NOT NULL)"
             " WITHOUT ROWID; COMMIT",
             APPLICATION_ID, FORMAT_VERSION);
    r = exec(d, sql);
    if (r)
        return err_set(e, r, "%s cannot be written: %s", d->path, sqlite3_errmsg(d->sqlite));
    r = keeper_start(d->path, &d->keeper, e);
    sqlite3_wal_hook(d->sqlite, on_commit, d);
    return r;
}

/* Made here, because SQLite would make it readable by others. Closed before SQLite opens it: a
 * close(2) later would drop SQLite's POSIX locks on the file. */
static int make_private(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    close(fd);
    return 0;
}

static int open_files(struct db *d, const char *store, struct err *e)
{
    int r = file_mkdirs(store, e);
    if (r || (r = take_lock(d, store, e)))
        return r;
    if (snprintf(d->path, sizeof d->path, "%s/omnifs.db", store) >= (int)sizeof d->path - 8)
        return err_set(e, -ENAMETOOLONG, "%s: the store's path is too long", store);
    AUTO_FD int dir = open(store, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || (r = make_private(d->path)))
        return err_set(e, r ? r : -errno, "%s: %s", d->path, strerror(r ? -r : errno));
    if (sqlite3_open_v2(d->path, &d->sqlite, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) !=
        SQLITE_OK)
        return err_set(e, -EIO, "%s: %s", d->path, sqlite3_errmsg(d->sqlite));
    r = set_up(d, e);
    if (!r && fsync(dir)) /* the names of database and log */
        r = err_set(e, -errno, "%s: %s", store, strerror(errno));
    return r;
}

int db_open(const char *store, struct db **out, struct err *e)
{
    struct db *d = calloc(1, sizeof *d);
    if (!d)
        return err_nomem(e);
    d->lock_fd = -1;
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&d->lock, &attr);
    pthread_mutexattr_destroy(&attr);
    int r = open_files(d, store, e);
    if (r) {
        db_close(d);
        return r;
    }
    *out = d;
    return 0;
}

void db_close(struct db *d)
{
    if (!d)
        return;
    keeper_stop(d->keeper);
    for (size_t i = 0; i < d->cache_size; i++)
        sqlite3_finalize(d->cache[i].stmt);
    if (d->sqlite) {
        sqlite3_wal_hook(d->sqlite, NULL, NULL);
        sqlite3_close(d->sqlite);
    }
    free(d->cache);
    free(d->used);
    if (d->lock_fd >= 0)
        close(d->lock_fd);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

/* ---- schema ---- */

static int floor_version(struct db *d, const char *floor, int *version)
{
    sqlite3_stmt *s = db_sql(d, "SELECT version FROM floor WHERE name=?1");
    sqlite3_bind_text(s, 1, floor, -1, SQLITE_STATIC);
    int r = db_row(d, s);
    *version = r == 1 ? sqlite3_column_int(s, 0) : 0;
    sqlite3_reset(s);
    return r < 0 ? r : 0;
}

static int migrate(struct db *d, const char *floor, const char *const *steps, int count,
                   struct err *e)
{
    int version;
    int r = floor_version(d, floor, &version);
    if (!r && version > count)
        return err_set(e, -EPROTO,
                       "%s: the tables of '%s' have version %d, this omnifs knows %d; use a newer "
                       "omnifs",
                       d->path, floor, version, count);
    for (int i = version; !r && i < count; i++)
        r = exec(d, steps[i]);
    if (!r && version < count) {
        sqlite3_stmt *s = db_sql(d, "INSERT INTO floor(name,version) VALUES(?1,?2)"
                                    " ON CONFLICT(name) DO UPDATE SET version=?2");
        sqlite3_bind_text(s, 1, floor, -1, SQLITE_STATIC);
        sqlite3_bind_int(s, 2, count);
        r = db_run(d, s);
    }
    return r ? err_set(e, r, "%s: the tables of '%s' cannot be brought up to date: %s", d->path,
                       floor, sqlite3_errmsg(d->sqlite))
             : 0;
}

int db_schema(struct db *d, const char *floor, const char *const *steps, int count, struct err *e)
{
    int r = db_begin(d);
    if (r)
        return err_set(e, r, "%s cannot be written: %s", d->path, strerror(-r));
    r = migrate(d, floor, steps, count, e);
    if (r) {
        db_rollback(d);
        return r;
    }
    r = db_commit(d);
    return r ? err_set(e, r, "%s cannot be written: %s", d->path, strerror(-r)) : 0;
}

/* ---- lock and statements ---- */

void db_lock(struct db *d)
{
    pthread_mutex_lock(&d->lock);
    d->lock_depth++;
}

/* An unfinished SELECT would keep its snapshot, and the log could never be emptied. */
static void reset_used(struct db *d)
{
    for (size_t i = 0; i < d->used_count; i++) {
        struct statement *s = &d->cache[d->used[i]];
        s->used = false;
        sqlite3_reset(s->stmt);
        sqlite3_clear_bindings(s->stmt);
    }
    d->used_count = 0;
}

void db_unlock(struct db *d)
{
    if (d->lock_depth == 1)
        reset_used(d);
    d->lock_depth--;
    pthread_mutex_unlock(&d->lock);
}

static size_t slot_of(const struct statement *cache, size_t size, const char *literal)
{
    size_t i = ((uintptr_t)literal * 0x9E3779B97F4A7C15u >> 20) & (size - 1);
    while (cache[i].literal && cache[i].literal != literal)
        i = (i + 1) & (size - 1);
    return i;
}

static bool grow_cache(struct db *d)
{
    size_t size = d->cache_size ? 2 * d->cache_size : 128;
    struct statement *cache = calloc(size, sizeof *cache);
    size_t *used = malloc(size * sizeof *used);
    if (!cache || !used) {
        free(cache);
        free(used);
        return false;
    }
    size_t count = 0;
    for (size_t i = 0; i < d->cache_size; i++)
        if (d->cache[i].literal) {
            size_t to = slot_of(cache, size, d->cache[i].literal);
            cache[to] = d->cache[i];
            if (cache[to].used)
                used[count++] = to;
        }
    free(d->cache);
    free(d->used);
    d->cache = cache;
    d->used = used;
    d->used_count = count;
    d->cache_size = size;
    return true;
}

sqlite3_stmt *db_sql(struct db *d, const char *literal)
{
    if (2 * d->cache_count >= d->cache_size && !grow_cache(d))
        return NULL;
    size_t i = slot_of(d->cache, d->cache_size, literal);
    struct statement *s = &d->cache[i];
    if (!s->literal) {
        int rc =
            sqlite3_prepare_v3(d->sqlite, literal, -1, SQLITE_PREPARE_PERSISTENT, &s->stmt, NULL);
        if (rc != SQLITE_OK) {
            failed(d, rc, literal);
            return NULL;
        }
        s->literal = literal;
        d->cache_count++;
    }
    if (!s->used)
        d->used[d->used_count++] = i;
    s->used = true;
    sqlite3_reset(s->stmt);
    sqlite3_clear_bindings(s->stmt);
    return s->stmt;
}

int db_row(struct db *d, sqlite3_stmt *s)
{
    if (!s)
        return -EIO;
    int rc = sqlite3_step(s);
    if (rc == SQLITE_ROW)
        return 1;
    if (rc == SQLITE_DONE)
        return 0;
    int r = failed(d, rc, sqlite3_sql(s));
    return r ? r : -EIO;
}

int db_run(struct db *d, sqlite3_stmt *s)
{
    int r = db_row(d, s);
    sqlite3_reset(s);
    return r < 0 ? r : 0;
}

/* ---- transactions ---- */

int db_begin(struct db *d)
{
    db_lock(d);
    if (d->tx_depth == 0) {
        int r = db_run(d, db_sql(d, "BEGIN IMMEDIATE"));
        if (r) {
            db_unlock(d);
            return r;
        }
        d->tx_broken = false;
        d->tx_error = 0;
    }
    d->tx_depth++;
    return 0;
}

/* After some errors (a full disk) SQLite has rolled back by itself. */
static void roll_back(struct db *d)
{
    if (!sqlite3_get_autocommit(d->sqlite))
        db_run(d, db_sql(d, "ROLLBACK"));
}

/* The keeper cannot keep up with someone who writes without a pause: wait for it, and empty the log
 * while nobody can add to it. */
static void empty_log(struct db *d)
{
    if (d->log_pages <= LOG_PAGES_MAX || d->lock_depth > 1)
        return;
    reset_used(d);
    sqlite3_wal_checkpoint_v2(d->sqlite, NULL, SQLITE_CHECKPOINT_RESTART, NULL, NULL);
    d->log_pages = 0;
}

int db_commit(struct db *d)
{
    int r = 0;
    if (--d->tx_depth == 0) {
        if (d->tx_broken)
            r = -ECANCELED;
        else if (sqlite3_get_autocommit(d->sqlite))
            r = d->tx_error ? d->tx_error : -EIO;
        else
            r = db_run(d, db_sql(d, "COMMIT"));
        if (r)
            roll_back(d);
        else
            empty_log(d);
    }
    db_unlock(d);
    return r;
}

void db_rollback(struct db *d)
{
    d->tx_broken = true;
    if (--d->tx_depth == 0)
        roll_back(d);
    db_unlock(d);
}

int db_sync(struct db *d)
{
    return keeper_sync(d->keeper);
}
