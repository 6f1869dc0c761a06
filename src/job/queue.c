#include "job/queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"

/* States are stored as the numbers of enum job_state. */
#define QUEUED     "0"
#define RUNNING    "1"
#define PUBLISHING "2"
_Static_assert(JOB_QUEUED == 0 && JOB_RUNNING == 1 && JOB_PUBLISHING == 2 && JOB_BLOCKED == 6,
               "the database holds these numbers");

static const char *const schema[] = {
    "CREATE TABLE jobs ("
    " seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
    " folder INTEGER NOT NULL, folder_name TEXT NOT NULL, modality INTEGER NOT NULL,"
    " uid INTEGER NOT NULL, gid INTEGER NOT NULL,"
    " state INTEGER NOT NULL, outcome INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,"
    " profile TEXT NOT NULL, priority INTEGER NOT NULL, pictures INTEGER NOT NULL,"
    " key TEXT NOT NULL, digest TEXT NOT NULL,"
    " ready INTEGER NOT NULL, gone INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL,"
    " created INTEGER NOT NULL, started INTEGER NOT NULL DEFAULT 0,"
    " finished INTEGER NOT NULL DEFAULT 0, changed INTEGER NOT NULL, text BLOB NOT NULL);"
    "CREATE INDEX jobs_folder ON jobs (folder, seq);"
    "CREATE INDEX jobs_state ON jobs (state, seq);"
    "CREATE TABLE job_files (job TEXT NOT NULL, position INTEGER NOT NULL, name TEXT NOT NULL,"
    " PRIMARY KEY (job, position)) WITHOUT ROWID;"
    "CREATE TABLE job_events (job TEXT NOT NULL, at INTEGER NOT NULL, text TEXT NOT NULL);"
    "CREATE INDEX job_events_job ON job_events (job);"
    "CREATE TRIGGER jobs_deleted AFTER DELETE ON jobs BEGIN"
    " DELETE FROM job_files WHERE job = old.id;"
    " DELETE FROM job_events WHERE job = old.id; END;"
    /* `served` grows with every claim: the least was served longest ago */
    "CREATE TABLE job_users (uid INTEGER PRIMARY KEY, served INTEGER NOT NULL);",
    "ALTER TABLE jobs ADD COLUMN lost TEXT NOT NULL DEFAULT '';",
};

int queue_open(struct db *d, struct err *e)
{
    return db_schema(d, "job", schema, (int)ARRAY_LEN(schema), e);
}

/* ---- rows ---- */

#define COLUMNS                                                                                    \
    "seq, id, folder, folder_name, modality, uid, gid, state, outcome, attempts, profile,"         \
    " priority, pictures, key, digest, ready, gone, error, created, started, finished, changed,"   \
    " lost"

static void column_text(sqlite3_stmt *s, int i, char *out, size_t size)
{
    const char *text = (const char *)sqlite3_column_text(s, i);
    snprintf(out, size, "%s", text ? text : "");
}

static void read_row(sqlite3_stmt *s, struct queue_job *j)
{
    *j = (struct queue_job){.seq = sqlite3_column_int64(s, 0),
                            .folder = sqlite3_column_int64(s, 2),
                            .modality = (enum modality)sqlite3_column_int(s, 4),
                            .uid = (uid_t)sqlite3_column_int64(s, 5),
                            .gid = (gid_t)sqlite3_column_int64(s, 6),
                            .state = (enum job_state)sqlite3_column_int(s, 7),
                            .outcome = (enum job_state)sqlite3_column_int(s, 8),
                            .attempts = sqlite3_column_int(s, 9),
                            .priority = sqlite3_column_int(s, 11),
                            .pictures = sqlite3_column_int(s, 12),
                            .ready = sqlite3_column_int(s, 15) != 0,
                            .gone = sqlite3_column_int(s, 16) != 0,
                            .created_ms = sqlite3_column_int64(s, 18),
                            .started_ms = sqlite3_column_int64(s, 19),
                            .finished_ms = sqlite3_column_int64(s, 20),
                            .changed_ms = sqlite3_column_int64(s, 21)};
    column_text(s, 1, j->id, sizeof j->id);
    column_text(s, 3, j->folder_name, sizeof j->folder_name);
    column_text(s, 10, j->profile, sizeof j->profile);
    column_text(s, 13, j->key, sizeof j->key);
    column_text(s, 14, j->digest, sizeof j->digest);
    column_text(s, 17, j->error, sizeof j->error);
    column_text(s, 22, j->lost, sizeof j->lost);
}

void queue_job_free(struct queue_job *j)
{
    free(j->text);
    j->text = NULL;
}

static int read_text(struct db *d, struct queue_job *j)
{
    sqlite3_stmt *s = db_sql(d, "SELECT text FROM jobs WHERE seq = ?1");
    sqlite3_bind_int64(s, 1, j->seq);
    int row = db_row(d, s);
    if (row < 1)
        return row ? row : -ENOENT;
    j->size = (size_t)sqlite3_column_bytes(s, 0);
    j->text = malloc(j->size + 1);
    if (!j->text)
        return -ENOMEM;
    if (j->size)
        memcpy(j->text, sqlite3_column_blob(s, 0), j->size);
    j->text[j->size] = '\0';
    return 0;
}

/* One row of a query, -ENOENT for none. With the lock held. */
static int one_row(struct db *d, sqlite3_stmt *s, struct queue_job *out)
{
    int row = db_row(d, s);
    if (row == 1)
        read_row(s, out);
    return row == 1 ? 0 : row ? row : -ENOENT;
}

static void bind_text(sqlite3_stmt *s, int i, const char *text)
{
    sqlite3_bind_text(s, i, text, -1, SQLITE_TRANSIENT);
}

/* Ends a transaction by its result. */
static int end(struct db *d, int code)
{
    if (!code)
        return db_commit(d);
    db_rollback(d);
    return code;
}

/* A statement with one text parameter, run. */
static int run_for(struct db *d, sqlite3_stmt *s, const char *id)
{
    bind_text(s, 1, id);
    return db_run(d, s);
}

/* ---- adding ---- */

static int supersede(struct db *d, int64_t folder)
{
    sqlite3_stmt *s = db_sql(d, "DELETE FROM jobs WHERE folder = ?1 AND state = " QUEUED);
    sqlite3_bind_int64(s, 1, folder);
    int code = db_run(d, s);
    if (code)
        return code;
    s = db_sql(d, "UPDATE jobs SET gone = 1 WHERE folder = ?1 AND state = " RUNNING);
    sqlite3_bind_int64(s, 1, folder);
    return db_run(d, s);
}

static int insert(struct db *d, const struct queue_job *j)
{
    sqlite3_stmt *s = db_sql(
        d, "INSERT INTO jobs (id, folder, folder_name, modality, uid, gid, state, outcome, profile,"
           " priority, pictures, key, digest, ready, error, created, changed, text)"
           " VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,0,?14,?15,?15,?16)");
    bind_text(s, 1, j->id);
    sqlite3_bind_int64(s, 2, j->folder);
    bind_text(s, 3, j->folder_name);
    sqlite3_bind_int(s, 4, (int)j->modality);
    sqlite3_bind_int64(s, 5, j->uid);
    sqlite3_bind_int64(s, 6, j->gid);
    sqlite3_bind_int(s, 7, (int)j->state);
    sqlite3_bind_int(s, 8, (int)j->outcome);
    bind_text(s, 9, j->profile);
    sqlite3_bind_int(s, 10, j->priority);
    sqlite3_bind_int(s, 11, j->pictures);
    bind_text(s, 12, j->key);
    bind_text(s, 13, j->digest);
    bind_text(s, 14, j->error);
    sqlite3_bind_int64(s, 15, j->created_ms);
    sqlite3_bind_blob64(s, 16, j->size ? j->text : "", j->size, SQLITE_TRANSIENT);
    return db_run(d, s);
}

int queue_insert(struct db *d, const struct queue_job *j)
{
    int code = db_begin(d);
    if (code)
        return code;
    code = supersede(d, j->folder);
    if (!code)
        code = insert(d, j);
    return end(d, code);
}

/* ---- looking up ---- */

int queue_latest(struct db *d, int64_t folder, struct queue_job *out)
{
    db_lock(d);
    sqlite3_stmt *s = db_sql(d, "SELECT " COLUMNS " FROM jobs WHERE folder = ?1 AND gone = 0"
                                " ORDER BY seq DESC LIMIT 1");
    sqlite3_bind_int64(s, 1, folder);
    int code = one_row(d, s, out);
    db_unlock(d);
    return code;
}

int queue_get(struct db *d, const char *id, struct queue_job *out)
{
    db_lock(d);
    sqlite3_stmt *s = db_sql(d, "SELECT " COLUMNS " FROM jobs WHERE id = ?1");
    bind_text(s, 1, id);
    int code = one_row(d, s, out);
    db_unlock(d);
    return code;
}

bool queue_has(struct db *d, const char *id)
{
    struct queue_job j;
    return queue_get(d, id, &j) != -ENOENT; /* in doubt: yes */
}

int queue_active(struct db *d, int64_t but_folder, uid_t uid, int *all, int *user)
{
    *all = *user = 0;
    db_lock(d);
    sqlite3_stmt *s = db_sql(d, "SELECT count(*), coalesce(sum(uid = ?2), 0) FROM jobs"
                                " WHERE state IN (" QUEUED "," RUNNING ") AND gone = 0"
                                " AND folder <> ?1");
    sqlite3_bind_int64(s, 1, but_folder);
    sqlite3_bind_int64(s, 2, uid);
    int row = db_row(d, s);
    if (row == 1) {
        *all = sqlite3_column_int(s, 0);
        *user = sqlite3_column_int(s, 1);
    }
    db_unlock(d);
    return row < 0 ? row : 0;
}

/* Users take turns: before the k-th job of a user come k - 1 of his own, and of every other user as
 * many as he has, but at most k, or k - 1 where that user's turn comes later. */
int queue_position(struct db *d, const struct queue_job *j, int *position)
{
    db_lock(d);
    sqlite3_stmt *s = db_sql(
        d, "WITH mine(k, served, first) AS (SELECT count(*),"
           "  coalesce((SELECT served FROM job_users WHERE uid = ?1), 0), min(seq)"
           "  FROM jobs WHERE state = 0 AND uid = ?1 AND priority = ?2 AND seq <= ?3),"
           " others(n, served, first) AS (SELECT count(*),"
           "  coalesce((SELECT served FROM job_users u WHERE u.uid = jobs.uid), 0), min(seq)"
           "  FROM jobs WHERE state = 0 AND priority = ?2 AND uid <> ?1 GROUP BY uid)"
           " SELECT mine.k + coalesce((SELECT sum(min(n, mine.k -"
           "   ((others.served, others.first) > (mine.served, mine.first)))) FROM others), 0)"
           "  + (SELECT count(*) FROM jobs WHERE state = 0 AND priority > ?2) FROM mine");
    sqlite3_bind_int64(s, 1, j->uid);
    sqlite3_bind_int(s, 2, j->priority);
    sqlite3_bind_int64(s, 3, j->seq);
    int row = db_row(d, s);
    *position = row == 1 ? sqlite3_column_int(s, 0) : 0;
    db_unlock(d);
    return row < 0 ? row : 0;
}

int queue_counts(struct db *d, int64_t counts[JOB_BLOCKED + 1])
{
    memset(counts, 0, (JOB_BLOCKED + 1) * sizeof *counts);
    db_lock(d);
    sqlite3_stmt *s = db_sql(d, "SELECT state, count(*) FROM jobs WHERE gone = 0 GROUP BY state");
    int row;
    while ((row = db_row(d, s)) == 1) {
        int state = sqlite3_column_int(s, 0);
        if (state >= 0 && state <= JOB_BLOCKED)
            counts[state] = sqlite3_column_int64(s, 1);
    }
    db_unlock(d);
    return row;
}

int queue_each_active(struct db *d, void (*each)(void *ctx, const struct queue_job *j), void *ctx)
{
    db_lock(d);
    sqlite3_stmt *s = db_sql(d, "SELECT " COLUMNS " FROM jobs WHERE state IN (0, 1, 2) AND gone = 0"
                                " ORDER BY seq LIMIT 10000");
    int row;
    while ((row = db_row(d, s)) == 1) {
        struct queue_job j;
        read_row(s, &j);
        each(ctx, &j);
    }
    db_unlock(d);
    return row;
}

/* ---- claiming ---- */

#define IN_TURN                                                                                    \
    " ORDER BY priority DESC,"                                                                     \
    " coalesce((SELECT served FROM job_users u WHERE u.uid = jobs.uid), 0), seq"

static int mark_claimed(struct db *d, struct queue_job *j)
{
    j->state = JOB_RUNNING;
    j->attempts++;
    j->started_ms = clock_wall_ms();
    sqlite3_stmt *s = db_sql(d, "UPDATE jobs SET state = " RUNNING ", attempts = attempts + 1,"
                                " started = ?2, changed = ?2 WHERE seq = ?1");
    sqlite3_bind_int64(s, 1, j->seq);
    sqlite3_bind_int64(s, 2, j->started_ms);
    int code = db_run(d, s);
    if (code)
        return code;
    s = db_sql(d, "INSERT INTO job_users (uid, served)"
                  " VALUES (?1, (SELECT coalesce(max(served), 0) + 1 FROM job_users))"
                  " ON CONFLICT (uid) DO UPDATE SET served = excluded.served");
    sqlite3_bind_int64(s, 1, j->uid);
    code = db_run(d, s);
    return code ? code : read_text(d, j);
}

/* Others with the first one's key, as long as the batch holds them. */
static int add_mates(struct db *d, int pictures, struct queue_job *out, int max, int *count)
{
    sqlite3_stmt *s = db_sql(d, "SELECT " COLUMNS " FROM jobs WHERE state = " QUEUED
                                " AND key = ?1 AND seq <> ?2" IN_TURN);
    bind_text(s, 1, out[0].key);
    sqlite3_bind_int64(s, 2, out[0].seq);
    int row = 0;
    pictures -= out[0].pictures;
    while (*count < max && pictures > 0 && (row = db_row(d, s)) == 1) {
        read_row(s, &out[*count]);
        pictures -= out[*count].pictures;
        if (pictures < 0)
            break;
        ++*count;
    }
    return row < 0 ? row : 0;
}

int queue_claim(struct db *d, int pictures, struct queue_job *out, int max)
{
    int count = 0, code = db_begin(d);
    if (code)
        return code;
    code = one_row(
        d, db_sql(d, "SELECT " COLUMNS " FROM jobs WHERE state = " QUEUED IN_TURN " LIMIT 1"),
        &out[0]);
    if (!code) {
        count = 1;
        code = mark_claimed(d, &out[0]); /* first: then it is others' turn to ride along */
        if (!code && *out[0].key)
            code = add_mates(d, pictures, out, max, &count);
    }
    for (int i = 1; i < count && !code; i++)
        code = mark_claimed(d, &out[i]);
    bool none = code == -ENOENT && !count;
    code = none ? (db_rollback(d), 0) : end(d, code);
    if (code)
        for (int i = 0; i < count; i++)
            queue_job_free(&out[i]);
    return code ? code : count;
}

int queue_release(struct db *d, const char *id)
{
    int code = db_begin(d);
    if (code)
        return code;
    code = run_for(d,
                   db_sql(d, "UPDATE jobs SET state = " QUEUED ", attempts = attempts - 1,"
                             " started = 0 WHERE id = ?1 AND state = " RUNNING),
                   id);
    if (!code)
        code = run_for(d, db_sql(d, "DELETE FROM jobs WHERE id = ?1 AND gone = 1"), id);
    return end(d, code);
}

int queue_requeue(struct db *d, const char *id, const char *why)
{
    struct queue_job j;
    int code = db_begin(d);
    if (code)
        return code;
    code = queue_get(d, id, &j);
    if (!code && (j.state != JOB_RUNNING || *j.lost))
        code = -ENOENT;
    bool gone = !code && j.gone;
    if (gone)
        code = run_for(d, db_sql(d, "DELETE FROM jobs WHERE id = ?1"), id);
    else if (!code) {
        sqlite3_stmt *s = db_sql(d, "UPDATE jobs SET state = " QUEUED ", attempts = attempts - 1,"
                                    " started = 0, lost = ?2, changed = ?3 WHERE id = ?1");
        bind_text(s, 1, id);
        bind_text(s, 2, why);
        sqlite3_bind_int64(s, 3, clock_wall_ms());
        code = db_run(d, s);
    }
    code = end(d, code);
    return !code && gone ? -ENOENT : code;
}

/* ---- ending ---- */

static int write_files(struct db *d, const char *id, const char (*names)[64], int count)
{
    int code = run_for(d, db_sql(d, "DELETE FROM job_files WHERE job = ?1"), id);
    for (int i = 0; i < count && !code; i++) {
        sqlite3_stmt *s = db_sql(d, "INSERT INTO job_files VALUES (?1, ?2, ?3)");
        bind_text(s, 1, id);
        sqlite3_bind_int(s, 2, i);
        bind_text(s, 3, names[i]);
        code = db_run(d, s);
    }
    return code;
}

static int set_publishing(struct db *d, const char *id, enum job_state outcome, const char *error,
                          bool ready)
{
    sqlite3_stmt *s = db_sql(d, "UPDATE jobs SET state = " PUBLISHING ", outcome = ?2, error = ?3,"
                                " ready = ?4, finished = ?5, changed = ?5 WHERE id = ?1");
    bind_text(s, 1, id);
    sqlite3_bind_int(s, 2, (int)outcome);
    bind_text(s, 3, error);
    sqlite3_bind_int(s, 4, ready);
    sqlite3_bind_int64(s, 5, clock_wall_ms());
    return db_run(d, s);
}

int queue_finish(struct db *d, const char *id, enum job_state outcome, const char *error,
                 const char (*names)[64], int count)
{
    struct queue_job j;
    int code = db_begin(d);
    if (code)
        return code;
    code = queue_get(d, id, &j);
    bool gone = !code && j.gone;
    if (gone)
        code = run_for(d, db_sql(d, "DELETE FROM jobs WHERE id = ?1"), id);
    else if (!code)
        code = set_publishing(d, id, outcome, error, true);
    if (!code && !gone)
        code = write_files(d, id, names, count);
    code = end(d, code);
    return !code && gone ? -ENOENT : code;
}

int queue_refuse(struct db *d, const char *id, enum job_state outcome, const char *error)
{
    struct queue_job j;
    int code = db_begin(d);
    if (code)
        return code;
    code = queue_get(d, id, &j);
    if (!code)
        code = j.state == JOB_QUEUED ? set_publishing(d, id, outcome, error, false) : -ENOENT;
    return end(d, code);
}

int queue_unready(struct db *d, struct queue_job *out)
{
    db_lock(d);
    int code = one_row(d,
                       db_sql(d, "SELECT " COLUMNS " FROM jobs WHERE state = " PUBLISHING
                                 " AND ready = 0 AND gone = 0 ORDER BY seq LIMIT 1"),
                       out);
    if (!code)
        code = read_text(d, out);
    db_unlock(d);
    return code;
}

int queue_set_ready(struct db *d, const char *id, const char (*names)[64], int count)
{
    int code = db_begin(d);
    if (code)
        return code;
    code = run_for(d, db_sql(d, "UPDATE jobs SET ready = 1 WHERE id = ?1"), id);
    if (!code)
        code = write_files(d, id, names, count);
    return end(d, code);
}

/* ---- publishing ---- */

int queue_publishable(struct db *d, int64_t after, struct queue_job *out)
{
    db_lock(d);
    sqlite3_stmt *s = db_sql(d, "SELECT " COLUMNS " FROM jobs WHERE state = " PUBLISHING
                                " AND ready = 1 AND gone = 0 AND seq > ?1 ORDER BY seq LIMIT 1");
    sqlite3_bind_int64(s, 1, after);
    int code = one_row(d, s, out);
    db_unlock(d);
    return code;
}

/* The names a query gives, as a heap array. */
static int read_names(struct db *d, sqlite3_stmt *s, char (**names)[64], int *count)
{
    int row;
    *names = NULL;
    *count = 0;
    while ((row = db_row(d, s)) == 1) {
        char(*more)[64] = realloc(*names, (size_t)(*count + 1) * sizeof **names);
        if (!more)
            return -ENOMEM;
        *names = more;
        column_text(s, 0, more[(*count)++], 64);
    }
    return row;
}

int queue_files(struct db *d, const struct queue_job *j, char (**names)[64], int *count,
                char (**stale)[64], int *stale_count)
{
    db_lock(d);
    sqlite3_stmt *s = db_sql(d, "SELECT name FROM job_files WHERE job = ?1 ORDER BY position");
    bind_text(s, 1, j->id);
    int code = read_names(d, s, names, count);
    s = db_sql(d, "SELECT DISTINCT name FROM job_files WHERE job IN"
                  " (SELECT id FROM jobs WHERE folder = ?1 AND seq < ?2) AND name NOT IN"
                  " (SELECT name FROM job_files WHERE job = ?3) ORDER BY name");
    sqlite3_bind_int64(s, 1, j->folder);
    sqlite3_bind_int64(s, 2, j->seq);
    bind_text(s, 3, j->id);
    *stale = NULL;
    *stale_count = 0;
    if (!code)
        code = read_names(d, s, stale, stale_count);
    db_unlock(d);
    if (code) {
        free(*names);
        free(*stale);
        *names = *stale = NULL;
    }
    return code;
}

int queue_published(struct db *d, const char *id)
{
    int code = db_begin(d);
    if (code)
        return code;
    sqlite3_stmt *s = db_sql(d, "UPDATE jobs SET state = outcome, changed = ?2 WHERE id = ?1"
                                " AND state = " PUBLISHING);
    bind_text(s, 1, id);
    sqlite3_bind_int64(s, 2, clock_wall_ms());
    code = db_run(d, s);
    if (!code)
        code = run_for(d,
                       db_sql(d, "DELETE FROM jobs WHERE state > " PUBLISHING " AND folder ="
                                 " (SELECT folder FROM jobs WHERE id = ?1) AND seq <"
                                 " (SELECT seq FROM jobs WHERE id = ?1)"),
                       id);
    return end(d, code);
}

int queue_forget(struct db *d, int64_t folder)
{
    int code = db_begin(d);
    if (code)
        return code;
    sqlite3_stmt *s = db_sql(d, "DELETE FROM jobs WHERE folder = ?1 AND state <> " RUNNING);
    sqlite3_bind_int64(s, 1, folder);
    code = db_run(d, s);
    if (!code) {
        s = db_sql(d, "UPDATE jobs SET gone = 1 WHERE folder = ?1");
        sqlite3_bind_int64(s, 1, folder);
        code = db_run(d, s);
    }
    return end(d, code);
}

int queue_delete(struct db *d, const char *id)
{
    int code = db_begin(d);
    return code ? code : end(d, run_for(d, db_sql(d, "DELETE FROM jobs WHERE id = ?1"), id));
}

int queue_recover(struct db *d, int attempts, const char *sentence)
{
    int code = db_begin(d);
    if (code)
        return code;
    code = db_run(d, db_sql(d, "DELETE FROM jobs WHERE gone = 1"));
    if (!code) {
        sqlite3_stmt *s = db_sql(d, "UPDATE jobs SET state = " PUBLISHING ", outcome = ?3,"
                                    " error = ?2, ready = 0, finished = ?4, changed = ?4"
                                    " WHERE state = " RUNNING " AND attempts >= ?1");
        sqlite3_bind_int(s, 1, attempts);
        bind_text(s, 2, sentence);
        sqlite3_bind_int(s, 3, JOB_FAILED);
        sqlite3_bind_int64(s, 4, clock_wall_ms());
        code = db_run(d, s);
    }
    if (!code)
        code = db_run(d, db_sql(d, "UPDATE jobs SET state = " QUEUED " WHERE state = " RUNNING));
    return end(d, code);
}

/* ---- events ---- */

int queue_event(struct db *d, const char *id, const char *text)
{
    db_lock(d);
    sqlite3_stmt *s = db_sql(d, "INSERT INTO job_events VALUES (?1, ?2, ?3)");
    bind_text(s, 1, id);
    sqlite3_bind_int64(s, 2, clock_wall_ms());
    bind_text(s, 3, text);
    int code = db_run(d, s);
    db_unlock(d);
    return code;
}

int queue_events(struct db *d, const char *id,
                 void (*each)(void *ctx, int64_t at_ms, const char *text), void *ctx)
{
    db_lock(d);
    sqlite3_stmt *s = db_sql(d, "SELECT at, text FROM job_events WHERE job = ?1 ORDER BY rowid");
    bind_text(s, 1, id);
    int row;
    while ((row = db_row(d, s)) == 1)
        each(ctx, sqlite3_column_int64(s, 0), (const char *)sqlite3_column_text(s, 1));
    db_unlock(d);
    return row;
}
