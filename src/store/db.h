/* The store's database: one SQLite file (WAL) that holds the tree, the jobs and their events, so
 * that a change of folder and job is one transaction.
 *
 * One connection, one recursive lock. Statements are short (microseconds); no one holds the lock
 * over file I/O, a system call on the mount, or a callback. kill -9 never loses what was committed;
 * db_sync() makes it survive power loss too, and so do five quiet seconds. */
#ifndef OMNIFS_STORE_DB_H
#define OMNIFS_STORE_DB_H

#include <sqlite3.h>

#include "base/err.h"

struct db;

/* Opens STORE/omnifs.db (both made when missing, mode 0700 and 0600), checks that it is ours and
 * sound, and takes an advisory lock: -EBUSY names the process that has the store open. After a
 * fork only the child that opened it may use it. */
int db_open(const char *store, struct db **out, struct err *e);
void db_close(struct db *d);
/* Brings the tables of one floor up to date: steps[i] is the SQL that leads from version i to
 * i + 1. Steps are only ever appended. One transaction; -EPROTO when the file is from a newer
 * omnifs. */
int db_schema(struct db *d, const char *floor, const char *const *steps, int count, struct err *e);
void db_lock(struct db *d);
void db_unlock(struct db *d);

/* A cached prepared statement for a string literal; reset and unbound. Call with the lock held and
 * use it before unlocking (the outermost unlock resets it). NULL after an error that was logged;
 * binding to NULL is harmless and db_run(NULL) is -EIO. */
sqlite3_stmt *db_sql(struct db *d, const char *literal);
/* BEGIN IMMEDIATE … COMMIT; nests (inner pairs do nothing, but an inner rollback makes the
 * outermost commit fail with -ECANCELED). begin takes the lock when it returns 0; commit and
 * rollback release it, whatever they return. 0 or a negative errno (-ENOSPC when the disk is full,
 * else -EIO). */
int db_begin(struct db *d);
int db_commit(struct db *d);
void db_rollback(struct db *d);
/* Steps a statement that returns no row; 0 or a negative errno (-EEXIST for a broken uniqueness).
 */
int db_run(struct db *d, sqlite3_stmt *s);
/* Steps a query: 1 a row, 0 no more rows, negative errno. */
int db_row(struct db *d, sqlite3_stmt *s);
/* What is committed survives power loss from here on (fdatasync of the log). Never under the lock.
 */
int db_sync(struct db *d);

#endif
