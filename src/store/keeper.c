#include "store/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

enum {
    SYNC_SECONDS = 5,        /* what a local filesystem's journal gives too */
    CHECKPOINT_PAGES = 1000, /* 4 MiB of log */
};

struct keeper {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    bool stop, dirty;
    int pages;
    int log_fd;
    sqlite3 *db; /* a connection of its own: a checkpoint here blocks no writer */
};

static bool due(const struct keeper *k)
{
    return k->stop || k->pages >= CHECKPOINT_PAGES;
}

/* Waits until there is work; false at the end. Returns with the lock held. */
static bool wait_for_work(struct keeper *k, bool *checkpoint)
{
    while (!k->dirty && !k->stop)
        pthread_cond_wait(&k->wake, &k->lock);
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += SYNC_SECONDS;
    while (!due(k) && pthread_cond_timedwait(&k->wake, &k->lock, &until) != ETIMEDOUT)
        ;
    *checkpoint = k->pages >= CHECKPOINT_PAGES;
    k->pages = 0;
    k->dirty = false;
    return !k->stop;
}

static void *keep(void *arg)
{
    struct keeper *k = arg;
    bool checkpoint;
    pthread_mutex_lock(&k->lock);
    while (wait_for_work(k, &checkpoint)) {
        pthread_mutex_unlock(&k->lock);
        int r = keeper_sync(k);
        if (r)
            log_error("the store's log cannot be written to disk: %s", strerror(-r));
        else if (checkpoint)
            sqlite3_wal_checkpoint_v2(k->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
        pthread_mutex_lock(&k->lock);
    }
    pthread_mutex_unlock(&k->lock);
    return NULL;
}

static int open_database(const char *path, sqlite3 **out)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX;
    /* A connection that never read does not know of the log, and would checkpoint nothing. */
    return sqlite3_open_v2(path, out, flags, NULL) == SQLITE_OK &&
                   sqlite3_exec(*out, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL) ==
                       SQLITE_OK
               ? 0
               : -EIO;
}

static int open_log(const char *database)
{
    char path[4200];
    snprintf(path, sizeof path, "%s-wal", database);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int keeper_start(const char *database, struct keeper **out, struct err *e)
{
    struct keeper *k = calloc(1, sizeof *k);
    if (!k)
        return err_nomem(e);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&k->wake, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&k->lock, NULL);

    k->log_fd = open_log(database);
    int r = k->log_fd < 0 ? k->log_fd : 0;
    if (!r)
        r = open_database(database, &k->db);
    if (!r)
        r = -pthread_create(&k->thread, NULL, keep, k);
    if (r) {
        if (k->log_fd >= 0)
            close(k->log_fd);
        sqlite3_close(k->db);
        pthread_cond_destroy(&k->wake);
        pthread_mutex_destroy(&k->lock);
        free(k);
        return err_set(e, r, "%s: the log cannot be opened: %s", database, strerror(-r));
    }
    *out = k;
    return 0;
}

void keeper_stop(struct keeper *k)
{
    if (!k)
        return;
    pthread_mutex_lock(&k->lock);
    k->stop = true;
    pthread_cond_signal(&k->wake);
    pthread_mutex_unlock(&k->lock);
    pthread_join(k->thread, NULL);
    close(k->log_fd);
    sqlite3_close(k->db);
    pthread_cond_destroy(&k->wake);
    pthread_mutex_destroy(&k->lock);
    free(k);
}

void keeper_committed(struct keeper *k, int pages)
{
    pthread_mutex_lock(&k->lock);
    bool wake = !k->dirty || (pages >= CHECKPOINT_PAGES && k->pages < CHECKPOINT_PAGES);
    k->dirty = true;
    k->pages = pages;
    if (wake)
        pthread_cond_signal(&k->wake);
    pthread_mutex_unlock(&k->lock);
}

int keeper_sync(struct keeper *k)
{
    return fdatasync(k->log_fd) ? -errno : 0;
}
