/* The keeper: one thread that makes committed transactions durable a few seconds later and moves
 * the log into the database file, so that no one else ever waits for a disk. It sleeps while
 * nothing is written. */
#ifndef OMNIFS_STORE_KEEPER_H
#define OMNIFS_STORE_KEEPER_H

#include <sqlite3.h>

#include "base/err.h"

struct keeper;

/* `database`: path of the database file, already in WAL mode. */
int keeper_start(const char *database, struct keeper **out, struct err *e);
void keeper_stop(struct keeper *k); /* NULL is fine */
/* A transaction was committed; the log has `pages` pages now. Never blocks for long. */
void keeper_committed(struct keeper *k, int pages);
/* fdatasync of the log, by the caller's thread; 0 or negative errno. */
int keeper_sync(struct keeper *k);

#endif
