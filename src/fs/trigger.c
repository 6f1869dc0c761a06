/* When is a folder submitted?
 *
 * A prompt is armed by the release of a writer, fsync, a rename onto prompt.ini or a rename of its
 * folder, never by FLUSH (a shell flushes before it writes). An armed folder is submitted when it
 * was quiet for the debounce time and no file in it is open for writing: `mv` and `cp -r` of a
 * prepared folder write the prompt before the references. Exactly-once is not decided here but by
 * jobs_submit, which knows the hash of what ran last; so arming once too often does no harm.
 *
 * Handlers only note events. One thread sleeps on a heap of due times and does the work. A folder
 * that has nothing pending has no entry. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "fs/fs.h"
#include "fs/timers.h"

#define PROMPT_NAME    "prompt.ini"
#define PROMPT_MAX     65536 /* bytes; one more is read so that jobs can refuse what is too long */
#define RETRY_SECONDS  0.25  /* while a reference is missing */
#define RESTLESS_LIMIT 10.0  /* a folder that is never quiet is submitted after this time */

struct pending {
    struct timer timer; /* first; timer.key is the folder */
    double last_event, armed_since;
    double waiting_since; /* for references; 0: not */
    int writers;          /* files of the folder open for writing */
    int failures;         /* of the store, in a row */
    bool dirty, armed, synced, cancelled, gone;
    bool busy; /* being submitted, without the lock */
};

struct trigger {
    struct fs *fs;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    bool stop;
    struct timers timers;
};

static double debounce(const struct trigger *t)
{
    return t->fs->options.debounce_ms / 1000.0;
}
static double grace(const struct trigger *t)
{
    return t->fs->options.grace_ms / 1000.0;
}

static struct pending *find(struct trigger *t, int64_t folder)
{
    return (struct pending *)timers_find(&t->timers, folder);
}

static struct pending *find_or_add(struct trigger *t, int64_t folder)
{
    struct pending *p = find(t, folder);
    if (p)
        return p;
    p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->timer.key = folder;
    if (timers_add(&t->timers, &p->timer)) {
        free(p);
        return NULL;
    }
    return p;
}

/* Sets when the entry is looked at next, or drops it when nothing is pending. */
static void schedule(struct trigger *t, struct pending *p, double now)
{
    if (p->busy)
        return;
    if (p->gone) {
        timers_set(&t->timers, &p->timer, now);
    } else if (!p->armed) {
        timers_unset(&t->timers, &p->timer);
        if (!p->dirty && !p->writers) {
            timers_remove(&t->timers, &p->timer);
            free(p);
        }
        return;
    } else if (p->writers && !p->synced) {
        /* An open file that nobody writes (a log the user redirects into the folder) must not hold
         * the job back for ever. */
        timers_set(&t->timers, &p->timer, p->last_event + grace(t));
    } else {
        double quiet = p->last_event + debounce(t);
        double limit = p->armed_since + RESTLESS_LIMIT;
        double due = quiet < limit ? quiet : limit;
        if (p->failures) {
            double pause = RETRY_SECONDS * (1 << (p->failures < 7 ? p->failures : 7));
            due = now + pause;
        } else if (p->waiting_since > 0 && due < now + RETRY_SECONDS) {
            due = now + RETRY_SECONDS;
        }
        timers_set(&t->timers, &p->timer, due);
    }
    pthread_cond_signal(&t->wake);
}

static void arm(struct pending *p, double now)
{
    if (!p->armed)
        p->armed_since = now;
    p->armed = true;
    p->gone = false;
}

static void apply(struct pending *p, enum trigger_event ev, double now)
{
    switch (ev) {
    case TRIGGER_WRITE_OPEN:
        p->writers++;
        break;
    case TRIGGER_WRITE_CLOSED:
        if (p->writers > 0)
            p->writers--;
        /* Written through a descriptor that was opened before the folder came here. */
        if (!p->writers && p->dirty)
            arm(p, now);
        break;
    case TRIGGER_TOUCHED:
        break;
    case TRIGGER_DIRTY:
        p->dirty = true;
        p->synced = false;
        p->waiting_since = 0;
        p->failures = 0;
        if (!p->writers) /* truncate(2): there is no close to wait for */
            arm(p, now);
        break;
    case TRIGGER_SYNCED:
        p->synced = true;
        arm(p, now);
        break;
    case TRIGGER_ARMED:
    case TRIGGER_MOVED_IN:
        p->waiting_since = 0;
        p->failures = 0;
        arm(p, now);
        break;
    case TRIGGER_GONE:
        p->gone = true;
        p->dirty = p->armed = p->synced = p->cancelled = false;
        p->writers = 0;
        break;
    case TRIGGER_CANCELLED:
        if (p->armed || p->dirty || p->busy)
            p->cancelled = true;
        break;
    }
    if (ev != TRIGGER_CANCELLED)
        p->last_event = now;
}

void trigger_event(struct fs *fs, int64_t folder, enum trigger_event ev)
{
    struct trigger *t = fs->trigger;
    if (!t)
        return;
    /* These matter only to a folder that has something pending already. */
    bool idle_too = ev != TRIGGER_TOUCHED && ev != TRIGGER_WRITE_CLOSED && ev != TRIGGER_CANCELLED;
    double now = clock_seconds();
    pthread_mutex_lock(&t->lock);
    struct pending *p = idle_too ? find_or_add(t, folder) : find(t, folder);
    if (p) {
        apply(p, ev, now);
        schedule(t, p, now);
    } else if (idle_too) {
        log_error("no memory to note a change of folder %lld; its prompt is looked at again at "
                  "the next start",
                  (long long)folder);
    }
    pthread_mutex_unlock(&t->lock);
}

bool trigger_pending(struct fs *fs, int64_t folder, bool *armed)
{
    struct trigger *t = fs->trigger;
    *armed = false;
    if (!t)
        return false;
    pthread_mutex_lock(&t->lock);
    const struct pending *p = find(t, folder);
    bool pending = p && !p->gone && (p->dirty || p->armed || p->busy);
    *armed = pending && (p->armed || p->busy);
    pthread_mutex_unlock(&t->lock);
    return pending;
}

/* ---- submission, in the trigger's thread and without the lock ---- */

struct reading {
    struct fs *fs;
    int64_t folder;
    uid_t uid;
    gid_t gid;
};

/* Would the requester be allowed to read this file? In a shared folder a prompt must not be a way
 * to see another user's private file. */
static bool readable(const struct node *n, uid_t uid, gid_t gid)
{
    mode_t m = n->st.st_mode;
    return uid == 0 || (n->st.st_uid == uid ? m & S_IRUSR : 0) ||
           (n->st.st_gid == gid ? m & S_IRGRP : 0) || (m & S_IROTH);
}

static int open_reference(void *ctx, const char *name)
{
    const struct reading *r = ctx;
    struct node n;
    int e = tree_lookup(r->fs->tree, r->folder, name, &n);
    if (e)
        return e;
    if (!S_ISREG(n.st.st_mode))
        return -EISDIR;
    if (!readable(&n, r->uid, r->gid))
        return -EACCES;
    return tree_open_data(r->fs->tree, n.id, O_RDONLY | O_CLOEXEC);
}

/* The text of a prompt, at most PROMPT_MAX + 1 bytes. */
static int read_prompt(struct fs *fs, const struct node *prompt, char **text, size_t *size)
{
    AUTO_FD int fd = tree_open_data(fs->tree, prompt->id, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fd;
    AUTO_FREE char *buf = malloc(PROMPT_MAX + 2);
    if (!buf)
        return -ENOMEM;
    size_t n = 0;
    while (n < PROMPT_MAX + 1) {
        ssize_t got = pread(fd, buf + n, PROMPT_MAX + 1 - n, (off_t)n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (!got)
            break;
        n += (size_t)got;
    }
    buf[n] = '\0';
    *text = buf;
    buf = NULL;
    *size = n;
    return 0;
}

static bool nothing_there(int r)
{
    return r == -ENOENT || r == -ESTALE || r == -ENOTDIR;
}

static int submit(struct fs *fs, int64_t folder, bool final, enum submit_result *result,
                  struct err *e)
{
    struct node n, prompt;
    *result = SUBMIT_EMPTY;
    int r = tree_get(fs->tree, folder, &n);
    if (!r && !fs_is_job_folder(&n))
        return 0;
    if (!r)
        r = tree_lookup(fs->tree, folder, PROMPT_NAME, &prompt);
    if (r)
        return nothing_there(r) ? 0 : err_set(e, r, "%s: %s", PROMPT_NAME, strerror(-r));
    if (!S_ISREG(prompt.st.st_mode)) {
        log_warn("%s/%s is not a regular file: no job", n.name, PROMPT_NAME);
        return 0;
    }
    AUTO_FREE char *text = NULL;
    size_t size = 0;
    r = read_prompt(fs, &prompt, &text, &size);
    if (r)
        return nothing_there(r) ? 0 : err_set(e, r, "%s/%s: %s", n.name, PROMPT_NAME, strerror(-r));
    struct reading reading = {fs, folder, prompt.st.st_uid, prompt.st.st_gid};
    struct job_submission s = {.folder = folder,
                               .uid = reading.uid,
                               .gid = reading.gid,
                               .text = text,
                               .size = size,
                               .open_file = open_reference,
                               .ctx = &reading,
                               .final = final};
    memcpy(s.folder_name, n.name, sizeof s.folder_name);
    if (!fs_modality_of(n.parent, &s.modality))
        return 0;
    return jobs_submit(fs->jobs, &s, result, e);
}

/* The folder was removed, or moved to where there are no jobs. */
static void forget(struct fs *fs, int64_t folder)
{
    struct node n;
    struct job_view v;
    int r = tree_get(fs->tree, folder, &n);
    bool removed = r || n.parent == 0;
    if (!removed && fs_is_job_folder(&n))
        return; /* it has come back meanwhile */
    /* An ended job of a folder that is moved away stays known, so that moving it back does not run
     * it again. */
    if (removed || (!jobs_view(fs->jobs, folder, &v) && !job_state_final(v.state)))
        jobs_forget(fs->jobs, folder);
}

/* ---- the thread ---- */

/* With the lock, which is released meanwhile. */
static void handle_gone(struct trigger *t, struct pending *p)
{
    int64_t folder = p->timer.key;
    p->gone = false;
    p->busy = true;
    pthread_mutex_unlock(&t->lock);
    forget(t->fs, folder);
    pthread_mutex_lock(&t->lock);
    p->busy = false;
}

static void handle_due(struct trigger *t, struct pending *p)
{
    double now = clock_seconds(), patience = grace(t);
    /* References still being copied give them more time, within reason. */
    bool final = p->waiting_since > 0 &&
                 (now > p->waiting_since + 10 * patience ||
                  (now > p->waiting_since + patience && now > p->last_event + patience));
    int64_t folder = p->timer.key;
    p->armed = p->synced = p->dirty = false;
    p->busy = true;
    pthread_mutex_unlock(&t->lock);

    struct err e = {0};
    enum submit_result result = SUBMIT_EMPTY;
    int r = submit(t->fs, folder, final, &result, &e);

    pthread_mutex_lock(&t->lock);
    p->busy = false;
    bool cancel = p->cancelled && !r && result == SUBMIT_ACCEPTED;
    if (r) {
        if (p->failures++ == 0)
            log_error("folder %lld: the request could not be recorded: %s; trying again",
                      (long long)folder, e.text);
        arm(p, now);
    } else if (result == SUBMIT_WAIT) {
        if (!(p->waiting_since > 0))
            p->waiting_since = now;
        arm(p, now);
    } else {
        p->waiting_since = 0;
        p->failures = 0;
        p->cancelled = false;
    }
    if (cancel) {
        pthread_mutex_unlock(&t->lock);
        jobs_cancel(t->fs->jobs, folder);
        pthread_mutex_lock(&t->lock);
    }
}

/* A crash between the close of a prompt and the end of the quiet time must not lose the request:
 * prompts changed after their folder's last job was made are armed again. jobs_submit drops those
 * that only look newer. */
static bool scan_folder(void *ctx, const struct node *n)
{
    struct trigger *t = ctx;
    struct node prompt;
    struct job_view v;
    if (!fs_is_job_folder(n) || tree_lookup(t->fs->tree, n->id, PROMPT_NAME, &prompt) ||
        prompt.st.st_size == 0)
        return !atomic_load(&t->fs->stopping);
    int64_t changed =
        (int64_t)prompt.st.st_ctim.tv_sec * 1000 + prompt.st.st_ctim.tv_nsec / 1000000;
    if (jobs_view(t->fs->jobs, n->id, &v) || changed >= v.created_ms)
        trigger_event(t->fs, n->id, TRIGGER_ARMED);
    return !atomic_load(&t->fs->stopping);
}

static void wait_until(struct trigger *t, double due)
{
    struct timespec at = {.tv_sec = (time_t)due};
    at.tv_nsec = (long)((due - (double)at.tv_sec) * 1e9);
    pthread_cond_timedwait(&t->wake, &t->lock, &at);
}

static void *run(void *arg)
{
    struct trigger *t = arg;
    for (int64_t parent = TREE_IMAGE; parent <= TREE_GIF; parent++)
        tree_list(t->fs->tree, parent, 0, scan_folder, t);

    pthread_mutex_lock(&t->lock);
    while (!t->stop) {
        struct pending *p = (struct pending *)timers_first(&t->timers);
        if (!p) {
            pthread_cond_wait(&t->wake, &t->lock);
            continue;
        }
        if (p->timer.due > clock_seconds()) {
            wait_until(t, p->timer.due);
            continue;
        }
        int64_t folder = p->timer.key;
        timers_unset(&t->timers, &p->timer);
        if (p->gone)
            handle_gone(t, p);
        else
            handle_due(t, p);
        schedule(t, p, clock_seconds()); /* may free p */
        pthread_mutex_unlock(&t->lock);
        virtual_changed(t->fs, folder);
        pthread_mutex_lock(&t->lock);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

int trigger_new(struct fs *fs)
{
    struct trigger *t = calloc(1, sizeof *t);
    if (!t)
        return -ENOMEM;
    t->fs = fs;
    pthread_mutex_init(&t->lock, NULL);
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(&t->wake, &a);
    pthread_condattr_destroy(&a);
    fs->trigger = t;
    int r = pthread_create(&t->thread, NULL, run, t);
    if (r) {
        fs->trigger = NULL;
        pthread_cond_destroy(&t->wake);
        pthread_mutex_destroy(&t->lock);
        free(t);
    }
    return -r;
}

void trigger_stop(struct fs *fs)
{
    struct trigger *t = fs->trigger;
    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    bool first = !t->stop;
    t->stop = true;
    pthread_cond_signal(&t->wake);
    pthread_mutex_unlock(&t->lock);
    if (first)
        pthread_join(t->thread, NULL);
}

static void free_pending(struct timer *timer)
{
    free((struct pending *)timer);
}

void trigger_free(struct fs *fs)
{
    struct trigger *t = fs->trigger;
    if (!t)
        return;
    trigger_stop(fs);
    fs->trigger = NULL;
    timers_free(&t->timers, free_pending);
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->lock);
    free(t);
}
