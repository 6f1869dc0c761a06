/* The database under the store: nesting, errors, one owner, durability. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "store/db.h"

static const char *const tables[] = {
    "CREATE TABLE t(k INTEGER PRIMARY KEY, v TEXT)",
    "ALTER TABLE t ADD COLUMN w INTEGER DEFAULT 7",
};

struct fixture {
    char store[64];
    struct db *db;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct err e = {0};
    /* in memory where possible: hundreds of syncs say nothing about the code */
    snprintf(f->store, sizeof f->store, "%s/omnifs-db-XXXXXX",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(f->store) || db_open(f->store, &f->db, &e) ||
        db_schema(f->db, "test", tables, 1, &e)) {
        print_error("%s\n", e.text);
        return -1;
    }
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    db_close(f->db);
    file_remove_tree(AT_FDCWD, f->store);
    free(f);
    return 0;
}

static void reopen(struct fixture *f)
{
    struct err e = {0};
    db_close(f->db);
    f->db = NULL;
    if (db_open(f->store, &f->db, &e))
        fail_msg("%s", e.text);
}

static int put(struct db *d, int k, const char *v)
{
    sqlite3_stmt *s = db_sql(d, "INSERT INTO t(k,v) VALUES(?1,?2)");
    sqlite3_bind_int(s, 1, k);
    sqlite3_bind_text(s, 2, v, -1, SQLITE_STATIC);
    return db_run(d, s);
}

static int count(struct db *d)
{
    db_lock(d);
    sqlite3_stmt *s = db_sql(d, "SELECT count(*) FROM t");
    int n = db_row(d, s) == 1 ? sqlite3_column_int(s, 0) : -1;
    db_unlock(d);
    return n;
}

static void an_inner_commit_is_kept_only_with_the_outer_one(void **state)
{
    struct db *d = ((struct fixture *)*state)->db;
    assert_int_equal(db_begin(d), 0);
    assert_int_equal(put(d, 1, "a"), 0);
    assert_int_equal(db_begin(d), 0);
    assert_int_equal(put(d, 2, "b"), 0);
    assert_int_equal(db_commit(d), 0);
    db_rollback(d);
    assert_int_equal(count(d), 0);
}

static void an_inner_rollback_undoes_everything(void **state)
{
    struct db *d = ((struct fixture *)*state)->db;
    assert_int_equal(db_begin(d), 0);
    assert_int_equal(put(d, 1, "a"), 0);
    assert_int_equal(db_begin(d), 0);
    db_rollback(d);
    assert_int_equal(db_commit(d), -ECANCELED);
    assert_int_equal(count(d), 0);
    assert_int_equal(db_begin(d), 0); /* and the next one is not affected */
    assert_int_equal(put(d, 1, "a"), 0);
    assert_int_equal(db_commit(d), 0);
    assert_int_equal(count(d), 1);
}

static void a_broken_uniqueness_leaves_the_transaction_usable(void **state)
{
    struct db *d = ((struct fixture *)*state)->db;
    assert_int_equal(db_begin(d), 0);
    assert_int_equal(put(d, 1, "a"), 0);
    assert_int_equal(put(d, 1, "b"), -EEXIST);
    assert_int_equal(put(d, 2, "c"), 0);
    assert_int_equal(db_commit(d), 0);
    assert_int_equal(count(d), 2);
}

static void bad_sql_is_an_error_and_no_crash(void **state)
{
    struct db *d = ((struct fixture *)*state)->db;
    db_lock(d);
    sqlite3_stmt *s = db_sql(d, "SELECT nothing FROM nowhere");
    assert_null(s);
    sqlite3_bind_int(s, 1, 1);
    assert_int_equal(db_run(d, s), -EIO);
    db_unlock(d);
}

static void migrations_run_once_and_in_order(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    assert_int_equal(db_begin(f->db), 0);
    assert_int_equal(put(f->db, 1, "a"), 0);
    assert_int_equal(db_commit(f->db), 0);
    assert_int_equal(db_schema(f->db, "test", tables, 2, &e), 0);
    assert_int_equal(db_schema(f->db, "test", tables, 2, &e), 0);
    reopen(f);
    db_lock(f->db);
    sqlite3_stmt *s = db_sql(f->db, "SELECT w FROM t WHERE k=1");
    assert_int_equal(db_row(f->db, s), 1);
    assert_int_equal(sqlite3_column_int(s, 0), 7);
    db_unlock(f->db);
    assert_int_equal(db_schema(f->db, "test", tables, 1, &e), -EPROTO);
    assert_non_null(strstr(e.text, "newer omnifs"));
}

static void a_failed_migration_changes_nothing(void **state)
{
    struct fixture *f = *state;
    static const char *const broken[] = {"CREATE TABLE u(k)", "this is no SQL"};
    struct err e = {0};
    assert_true(db_schema(f->db, "broken", broken, 2, &e) < 0);
    static const char *const mended[] = {"CREATE TABLE u(k)"};
    assert_int_equal(db_schema(f->db, "broken", mended, 1, &e), 0);
}

static void a_second_process_is_told_who_has_the_store(void **state)
{
    struct fixture *f = *state;
    struct db *d;
    struct err e = {0};
    assert_int_equal(db_open(f->store, &d, &e), -EBUSY);
    char who[64];
    snprintf(who, sizeof who, "in use by process %ld", (long)getpid());
    assert_non_null(strstr(e.text, who));
}

static void the_files_are_private(void **state)
{
    struct fixture *f = *state;
    static const char *const names[] = {"omnifs.db", "omnifs.db-wal", "lock"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char path[128];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", f->store, names[i]);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 077, 0);
    }
}

/* Another program that looks at the database and leaves must not take the log with it. */
static void a_visitor_does_not_delete_the_log(void **state)
{
    struct fixture *f = *state;
    char path[128], wal[128];
    snprintf(path, sizeof path, "%s/omnifs.db", f->store);
    snprintf(wal, sizeof wal, "%s/omnifs.db-wal", f->store);
    assert_int_equal(db_begin(f->db), 0);
    assert_int_equal(put(f->db, 1, "a"), 0);
    assert_int_equal(db_commit(f->db), 0);
    pid_t child = fork();
    if (child == 0) {
        sqlite3 *visitor = NULL;
        if (sqlite3_open(path, &visitor) ||
            sqlite3_exec(visitor, "SELECT * FROM t", NULL, NULL, NULL))
            _exit(1);
        _exit(sqlite3_close(visitor) != SQLITE_OK);
    }
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    assert_int_equal(access(wal, F_OK), 0);
    assert_int_equal(count(f->db), 1);
}

static void open_expecting(const char *store, int code, const char *word)
{
    struct db *d = NULL;
    struct err e = {0};
    assert_int_equal(db_open(store, &d, &e), code);
    if (!strstr(e.text, word))
        fail_msg("'%s' is not in: %s", word, e.text);
}

static void write_db(const char *store, off_t at, const void *bytes, size_t n)
{
    char path[128];
    snprintf(path, sizeof path, "%s/omnifs.db", store);
    AUTO_FD int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(pwrite(fd, bytes, n, at), n);
}

static void damage_and_foreign_files_are_named(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 500; i++) {
        assert_int_equal(db_begin(f->db), 0);
        assert_int_equal(put(f->db, i, "a text that fills pages, so that there are some to break"),
                         0);
        assert_int_equal(db_commit(f->db), 0);
    }
    db_close(f->db);
    f->db = NULL;
    char rubbish[3000];
    memset(rubbish, 0xA5, sizeof rubbish);
    write_db(f->store, 3 * 4096, rubbish, sizeof rubbish);
    open_expecting(f->store, -EIO, "is damaged");
    write_db(f->store, 0, rubbish, sizeof rubbish);
    open_expecting(f->store, -EIO, "is damaged");

    char path[128];
    snprintf(path, sizeof path, "%s/omnifs.db", f->store);
    unlink(path);
    sqlite3 *other = NULL;
    sqlite3_open(path, &other);
    sqlite3_exec(other, "CREATE TABLE theirs(x)", NULL, NULL, NULL);
    sqlite3_close(other);
    open_expecting(f->store, -EINVAL, "not a store of omnifs");
}

static void a_path_that_is_no_folder_is_an_error(void **state)
{
    struct fixture *f = *state;
    char path[128];
    snprintf(path, sizeof path, "%s/lock/below", f->store);
    open_expecting(path, -ENOTDIR, "lock");
}

/* A child writes rows one transaction each and reports each commit; killed at any moment, all
 * reported rows are there. */
static void kill_9_loses_nothing_that_was_committed(void **state)
{
    struct fixture *f = *state;
    db_close(f->db);
    f->db = NULL;
    int last = -1;
    for (int round = 0; round < 12; round++) {
        int pipes[2];
        assert_int_equal(pipe(pipes), 0);
        pid_t child = fork();
        if (child == 0) {
            struct db *d;
            if (db_open(f->store, &d, NULL))
                _exit(1);
            for (int k = last + 1;; k++)
                if (db_begin(d) || put(d, k, "row") || db_commit(d) ||
                    write(pipes[1], &k, sizeof k) != sizeof k)
                    _exit(2);
        }
        close(pipes[1]);
        int k;
        for (int i = 0; i < 50 + 37 * round; i++)
            assert_int_equal(read(pipes[0], &k, sizeof k), sizeof k);
        kill(child, SIGKILL);
        while (read(pipes[0], &k, sizeof k) == sizeof k)
            ;
        close(pipes[0]);
        waitpid(child, NULL, 0);
        reopen(f);
        int rows = count(f->db);
        assert_true(rows == k + 1 || rows == k + 2); /* one may be committed and not reported */
        last = rows - 1;
        db_close(f->db);
        f->db = NULL;
    }
    reopen(f);
}

static void *count_up(void *arg)
{
    struct db *d = arg;
    for (int i = 0; i < 300; i++) {
        if (db_begin(d))
            return "begin";
        sqlite3_stmt *s = db_sql(d, "SELECT v FROM t WHERE k=1");
        int v = db_row(d, s) == 1 ? sqlite3_column_int(s, 0) : 0;
        s = db_sql(d, "INSERT INTO t(k,v) VALUES(1,?1) ON CONFLICT(k) DO UPDATE SET v=?1");
        sqlite3_bind_int(s, 1, v + 1);
        if (db_run(d, s) || db_commit(d))
            return "commit";
        if (i % 50 == 0 && db_sync(d))
            return "sync";
    }
    return NULL;
}

static void transactions_of_threads_do_not_mix(void **state)
{
    struct db *d = ((struct fixture *)*state)->db;
    pthread_t threads[4];
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_up, d), 0);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        void *problem;
        pthread_join(threads[i], &problem);
        assert_null(problem);
    }
    db_lock(d);
    sqlite3_stmt *s = db_sql(d, "SELECT v FROM t WHERE k=1");
    assert_int_equal(db_row(d, s), 1);
    assert_int_equal(sqlite3_column_int(s, 0), 1200);
    db_unlock(d);
}

/* A forgotten SELECT keeps its snapshot; the log must be emptied all the same. */
static void the_log_does_not_grow_for_ever(void **state)
{
    struct fixture *f = *state;
    char wal[128], text[3000];
    struct stat st;
    snprintf(wal, sizeof wal, "%s/omnifs.db-wal", f->store);
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    for (int i = 0; i < 30000; i++) {
        assert_int_equal(db_begin(f->db), 0);
        assert_int_equal(put(f->db, i, text), 0);
        assert_int_equal(db_commit(f->db), 0);
        db_lock(f->db);
        assert_int_equal(db_row(f->db, db_sql(f->db, "SELECT v FROM t ORDER BY k")), 1);
        db_unlock(f->db);
    }
    assert_int_equal(stat(wal, &st), 0);
    assert_true(st.st_size < 70 << 20);
}

static void a_full_disk_is_enospc_and_the_store_stays_sound(void **state)
{
    struct fixture *f = *state;
    if (geteuid() != 0)
        skip(); /* a small disk has to be mounted */
    char small[128], text[4000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    snprintf(small, sizeof small, "%s/small", f->store);
    assert_int_equal(mkdir(small, 0700), 0);
    assert_int_equal(mount("none", small, "tmpfs", 0, "size=1500k"), 0);
    struct db *d;
    assert_int_equal(db_open(small, &d, NULL), 0);
    assert_int_equal(db_schema(d, "test", tables, 1, NULL), 0);
    int r = 0, kept = 0;
    while (!r && kept < 2000) {
        r = db_begin(d);
        if (r)
            break;
        r = put(d, kept, text);
        if (r)
            db_rollback(d);
        else
            r = db_commit(d);
        kept += r == 0;
    }
    assert_int_equal(r, -ENOSPC);
    assert_true(kept > 10);
    assert_int_equal(count(d), kept);
    db_close(d);
    assert_int_equal(mount("none", small, "tmpfs", MS_REMOUNT, "size=8m"), 0);
    assert_int_equal(db_open(small, &d, NULL), 0);
    assert_int_equal(count(d), kept);
    assert_int_equal(db_begin(d), 0);
    assert_int_equal(put(d, 100000, "again"), 0);
    assert_int_equal(db_commit(d), 0);
    db_close(d);
    assert_int_equal(umount(small), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_inner_commit_is_kept_only_with_the_outer_one),
        TEST(an_inner_rollback_undoes_everything),
        TEST(a_broken_uniqueness_leaves_the_transaction_usable),
        TEST(bad_sql_is_an_error_and_no_crash),
        TEST(migrations_run_once_and_in_order),
        TEST(a_failed_migration_changes_nothing),
        TEST(a_second_process_is_told_who_has_the_store),
        TEST(the_files_are_private),
        TEST(a_visitor_does_not_delete_the_log),
        TEST(damage_and_foreign_files_are_named),
        TEST(a_path_that_is_no_folder_is_an_error),
        TEST(kill_9_loses_nothing_that_was_committed),
        TEST(transactions_of_threads_do_not_mix),
        TEST(the_log_does_not_grow_for_ever),
        TEST(a_full_disk_is_enospc_and_the_store_stays_sound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
