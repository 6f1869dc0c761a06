/* Finished files appear through the mount itself, because only that fires inotify.
 *
 * One thread has each file created by name in our own mount, by the hand (hand.h). The CREATE
 * handler recognises the hand (publisher_is_caller), takes the finished file from publisher_slot
 * and links it into the tree: the file is complete when its name appears, and no byte crosses FUSE.
 * Artifacts come first, metadata.json last. Handlers never wait for this thread, and it holds no
 * lock across a system call on the mount; so neither can block the other. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "fs/fs.h"
#include "fs/hand.h"
#include "fs/placing.h"

#define SLOW_SECONDS  10   /* a publish that takes longer is worth a line in the log */
#define RETRY_SECONDS 2.0  /* when the store is full */
#define MOUNT_SECONDS 0.02 /* while the mount is being made */
#define METADATA      "metadata.json"
#define PREVIEW       "preview.png"

struct preview {
    int64_t folder;
    char job_id[ID_SIZE];
    char path[512];
    char origin[40]; /* each preview is another file */
    struct preview *next;
};

struct retry {
    struct publication publication;
    double due;
    struct retry *next;
};

struct publisher {
    struct fs *fs;
    const char *mountpoint;
    struct hand *hand; /* from publisher_start on */
    pthread_t thread, watchdog;
    atomic_int tid; /* the hand's */
    pthread_mutex_t lock;
    pthread_cond_t wake, watch;
    bool started; /* the threads; for the thread that starts and stops them */
    bool woken, stop, watch_stop;
    uint64_t preview_serial;
    struct preview *previews; /* at most one a folder */
    struct retry *retries;    /* the thread's own */

    /* What is being published now. */
    struct placing placing;
    bool busy;
    double since;
    char working_on[ID_SIZE];
};

bool publisher_is_caller(struct fs *fs, const struct fuse_ctx *caller)
{
    /* The kernel puts the caller's thread id here, which no other process can have. */
    return fs->publisher && caller->pid > 0 && caller->pid == atomic_load(&fs->publisher->tid);
}

bool publisher_slot(struct fs *fs, int64_t parent, const char *name, struct publish_slot *out)
{
    return placing_take(&fs->publisher->placing, parent, name, out);
}

/* ---- the files of a job ---- */

#define RENAME_RETRIES 16

/* Goes to the folder by the name it has now. A rename may fall between asking for the name and
 * opening it: the hand compares inode numbers. */
static int enter(struct publisher *p, int64_t folder)
{
    int r = -ENOENT;
    for (int i = 0; r == -ENOENT && i < RENAME_RETRIES; i++) {
        struct node n;
        enum modality modality;
        char path[TREE_NAME_MAX + 32];
        if (tree_get(p->fs->tree, folder, &n) || !fs_is_job_folder(&n) ||
            !fs_modality_of(n.parent, &modality))
            return -ENOENT;
        snprintf(path, sizeof path, "%s/%s", modality_names[modality], n.name);
        r = hand_enter(p->hand, path, folder);
    }
    return r;
}

static void remove_stale(struct publisher *p, int64_t folder, const char *name)
{
    struct node n;
    if (!tree_lookup(p->fs->tree, folder, name, &n) && n.artifact)
        hand_unlink(p->hand, name);
}

static int publish_files(struct publisher *p, const struct publication *b)
{
    for (int last = 0; last < 2; last++) {
        for (int i = 0; i < b->count; i++) {
            struct publication_file *file = &b->files[i];
            if ((strcmp(file->name, METADATA) == 0) != last)
                continue;
            struct placed_file f = {file->name, file->path, b->id, b->uid, b->gid};
            int r = place_file(&p->placing, p->hand, b->folder, &f);
            if (r)
                return r;
        }
        if (last)
            break;
        for (int i = 0; i < b->stale_count; i++)
            remove_stale(p, b->folder, b->stale[i]);
        remove_stale(p, b->folder, PREVIEW);
    }
    return 0;
}

static int publish(struct publisher *p, const struct publication *b)
{
    int r = enter(p, b->folder);
    if (!r) {
        r = publish_files(p, b);
        hand_leave(p->hand);
    }
    /* The folder was removed while its files appeared. */
    struct node n;
    if (r && r != -ENOTCONN && (tree_get(p->fs->tree, b->folder, &n) || !n.parent))
        return -ENOENT;
    return r == -ENOTDIR || r == -ESTALE ? -ENOENT : r == -ECONNABORTED ? -ENOTCONN : r;
}

static void begin(struct publisher *p, const char *id)
{
    pthread_mutex_lock(&p->lock);
    p->busy = true;
    p->since = clock_seconds();
    memcpy(p->working_on, id, ID_SIZE);
    pthread_cond_signal(&p->watch);
    pthread_mutex_unlock(&p->lock);
}

static void end(struct publisher *p)
{
    pthread_mutex_lock(&p->lock);
    p->busy = false;
    pthread_mutex_unlock(&p->lock);
}

/* Later, when there may be room or the mount answers again. Takes the publication over. */
static void postpone(struct publisher *p, struct publication *b, double seconds)
{
    struct retry *again = malloc(sizeof *again);
    if (!again) {
        log_write(LOG_LEVEL_ERROR, b->id, "no memory; delivered at the next start");
        publication_free(b);
        return;
    }
    *again = (struct retry){*b, clock_seconds() + seconds, NULL};
    struct retry **at = &p->retries;
    while (*at)
        at = &(*at)->next;
    *at = again;
}

static bool worth_retrying(int r)
{
    return r == -ENOSPC || r == -EDQUOT || r == -ENOMEM || r == -EMFILE || r == -ENFILE ||
           r == -EINTR || r == -EAGAIN;
}

static void drop_preview(struct publisher *p, int64_t folder)
{
    pthread_mutex_lock(&p->lock);
    for (struct preview **at = &p->previews; *at; at = &(*at)->next)
        if ((*at)->folder == folder) {
            struct preview *old = *at;
            *at = old->next;
            unlink(old->path);
            free(old);
            break;
        }
    pthread_mutex_unlock(&p->lock);
}

/* False when the mount is gone. Takes the publication over. */
static bool deliver(struct publisher *p, struct publication *b, bool again)
{
    drop_preview(p, b->folder);
    begin(p, b->id);
    int r = publish(p, b);
    end(p);
    if (r == -ENOTCONN) {
        log_write(LOG_LEVEL_INFO, b->id, "the mount is gone; delivered at the next start");
        publication_free(b);
        return false;
    }
    if (worth_retrying(r)) {
        if (!again && r != -EAGAIN)
            log_write(LOG_LEVEL_ERROR, b->id,
                      "cannot deliver the results: %s; trying again every %g s", strerror(-r),
                      RETRY_SECONDS);
        postpone(p, b, r == -EAGAIN ? MOUNT_SECONDS : RETRY_SECONDS);
        return true;
    }
    if (r && r != -ENOENT)
        log_write(LOG_LEVEL_ERROR, b->id, "cannot deliver into the job folder: %s%s", strerror(-r),
                  (r == -EACCES || r == -EPERM) && geteuid() != 0
                      ? " (omnifs does not run as root, and the folder's owner does not let it "
                        "write: chmod the folder, or mount as that user or as root)"
                      : "");
    jobs_published(p->fs->jobs, b->id, r);
    publication_free(b);
    return true;
}

/* ---- previews ---- */

void publisher_preview(struct fs *fs, int64_t folder, const char *job_id, const char *path)
{
    struct publisher *p = fs->publisher;
    struct preview *new = p ? calloc(1, sizeof *new) : NULL;
    if (!new) {
        unlink(path);
        return;
    }
    new->folder = folder;
    strncpy(new->job_id, job_id, sizeof new->job_id - 1);
    pthread_mutex_lock(&p->lock);
    /* Taken by another name at once: the worker writes the next one to the same path. */
    int n = snprintf(new->path, sizeof new->path, "%s.%llu", path,
                     (unsigned long long)++p->preview_serial);
    snprintf(new->origin, sizeof new->origin, "preview-%llu",
             (unsigned long long)p->preview_serial);
    bool ok = !p->stop && n < (int)sizeof new->path && !rename(path, new->path);
    if (ok) {
        struct preview **at = &p->previews;
        while (*at && (*at)->folder != folder)
            at = &(*at)->next;
        if (*at) { /* the one before was not shown in time */
            struct preview *old = *at;
            *at = old->next;
            unlink(old->path);
            free(old);
        }
        new->next = p->previews;
        p->previews = new;
        p->woken = true;
        pthread_cond_signal(&p->wake);
    }
    pthread_mutex_unlock(&p->lock);
    if (!ok) {
        unlink(path);
        free(new);
    }
}

static void show_preview(struct publisher *p, struct preview *w)
{
    struct job_view v;
    if (!jobs_view(p->fs->jobs, w->folder, &v) && !strcmp(v.id, w->job_id) &&
        v.state == JOB_RUNNING) {
        struct node n;
        struct placed_file f = {PREVIEW, w->path, w->origin, v.uid, 0};
        begin(p, w->job_id);
        if (!tree_get(p->fs->tree, w->folder, &n) && !enter(p, w->folder)) {
            f.gid = n.st.st_gid;
            place_file(&p->placing, p->hand, w->folder, &f);
            hand_leave(p->hand);
        }
        end(p);
    }
    unlink(w->path);
}

/* ---- the thread ---- */

static struct preview *take_preview(struct publisher *p)
{
    pthread_mutex_lock(&p->lock);
    struct preview *w = p->previews;
    if (w)
        p->previews = w->next;
    pthread_mutex_unlock(&p->lock);
    return w;
}

static bool take_retry(struct publisher *p, struct publication *out)
{
    struct retry *first = p->retries;
    if (!first || first->due > clock_seconds())
        return false;
    *out = first->publication;
    p->retries = first->next;
    free(first);
    return true;
}

/* Results before previews. False when the mount is gone. */
static bool work(struct publisher *p)
{
    struct publication b;
    for (;;) {
        bool again = take_retry(p, &b);
        if (again || jobs_next_publication(p->fs->jobs, &b)) {
            if (!deliver(p, &b, again))
                return false;
            continue;
        }
        struct preview *w = take_preview(p);
        if (!w)
            return true;
        show_preview(p, w);
        free(w);
    }
}

static struct timespec timespec_at(double seconds)
{
    struct timespec t = {.tv_sec = (time_t)seconds};
    t.tv_nsec = (long)((seconds - (double)t.tv_sec) * 1e9);
    return t;
}

static void *run(void *arg)
{
    struct publisher *p = arg;
    bool connected = true, stop = false;
    while (connected && !stop) {
        pthread_mutex_lock(&p->lock);
        while (!p->woken && !p->stop && !(p->retries && p->retries->due <= clock_seconds())) {
            if (p->retries) {
                struct timespec due = timespec_at(p->retries->due);
                pthread_cond_timedwait(&p->wake, &p->lock, &due);
            } else {
                pthread_cond_wait(&p->wake, &p->lock);
            }
        }
        p->woken = false;
        stop = p->stop;
        pthread_mutex_unlock(&p->lock);
        connected = work(p); /* once more after stop: what is finished is delivered */
    }
    return NULL;
}

/* A publish can be slow because the kernel holds the folder (a huge listing, a stuck client): say
 * so, since from outside the job seems to hang in `publishing`. */
static void *watch(void *arg)
{
    struct publisher *p = arg;
    pthread_mutex_lock(&p->lock);
    while (!p->watch_stop) {
        if (!p->busy) {
            pthread_cond_wait(&p->watch, &p->lock);
            continue;
        }
        double since = p->since;
        struct timespec late = timespec_at(since + SLOW_SECONDS);
        int r = pthread_cond_timedwait(&p->watch, &p->lock, &late);
        if (r == ETIMEDOUT && p->busy && p->since == since) {
            log_write(LOG_LEVEL_WARN, p->working_on,
                      "publishing takes more than %d s: something holds the job folder",
                      SLOW_SECONDS);
            p->since = clock_seconds(); /* and again after as long */
        }
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void destroy(struct publisher *p)
{
    for (struct preview *w; (w = p->previews);) {
        p->previews = w->next;
        unlink(w->path);
        free(w);
    }
    for (struct retry *r; (r = p->retries);) {
        p->retries = r->next;
        publication_free(&r->publication);
        free(r);
    }
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->watch);
    pthread_mutex_destroy(&p->lock);
    placing_destroy(&p->placing);
    free(p);
}

static void stop_watchdog(struct publisher *p)
{
    pthread_mutex_lock(&p->lock);
    p->watch_stop = true;
    pthread_cond_signal(&p->watch);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->watchdog, NULL);
}

int publisher_new(struct fs *fs, const char *mountpoint)
{
    struct publisher *p = calloc(1, sizeof *p);
    if (!p)
        return -ENOMEM;
    p->fs = fs;
    p->mountpoint = mountpoint;
    placing_init(&p->placing, fs->tree);
    p->woken = true; /* a crash may have left results to deliver */
    pthread_mutex_init(&p->lock, NULL);
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(&p->wake, &a);
    pthread_cond_init(&p->watch, &a);
    pthread_condattr_destroy(&a);
    fs->publisher = p;
    return 0;
}

int publisher_start(struct fs *fs)
{
    struct publisher *p = fs->publisher;
    int r = hand_new(p->mountpoint, &p->hand);
    if (r)
        return r;
    atomic_store(&p->tid, hand_tid(p->hand));
    r = -pthread_create(&p->watchdog, NULL, watch, p);
    if (r)
        return r;
    r = -pthread_create(&p->thread, NULL, run, p);
    if (r)
        stop_watchdog(p);
    p->started = !r;
    return r;
}

void publisher_wake(struct fs *fs)
{
    struct publisher *p = fs->publisher;
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->woken = true;
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

void publisher_stop(struct fs *fs)
{
    struct publisher *p = fs->publisher;
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
    if (p->started) {
        p->started = false;
        pthread_join(p->thread, NULL);
        stop_watchdog(p);
    }
    atomic_store(&p->tid, 0); /* the kernel may give the id to someone else */
    hand_free(p->hand);
    p->hand = NULL;
}

void publisher_free(struct fs *fs)
{
    struct publisher *p = fs->publisher;
    if (!p)
        return;
    publisher_stop(fs);
    fs->publisher = NULL;
    destroy(p);
}
