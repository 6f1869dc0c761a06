#include "fs/hand.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "store/tree.h"

struct call {
    int (*fn)(struct hand *h, const struct call *c);
    const char *name, *other;
    int64_t ino;
};

struct hand {
    const char *mountpoint;
    pthread_t thread;
    atomic_int tid;
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    const struct call *call; /* to be made; NULL: none */
    int result;
    bool stop;

    /* The thread's own. Numbers in its own table; they mean nothing elsewhere. */
    int folder;
    dev_t dev; /* of our mount; 0: not seen yet */
};

/* ---- the system calls, in the thread ----
 * By number where libc's wrapper would be watched by a sanitizer, which knows only one table. */

static void close_raw(int fd)
{
    if (fd >= 0)
        syscall(SYS_close, fd);
}

static int open_raw(int at, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = {
        .flags = flags | O_CLOEXEC, .mode = flags & O_CREAT ? 0444 : 0, .resolve = resolve};
    long fd = syscall(SYS_openat2, at, path, &how, sizeof how);
    return fd < 0 ? -errno : (int)fd;
}

static int open_root(struct hand *h)
{
    struct stat st;
    struct statfs fs;
    int root = open_raw(AT_FDCWD, h->mountpoint, O_PATH | O_DIRECTORY, 0);
    if (root < 0)
        return root;
    int r = fstat(root, &st) || fstatfs(root, &fs) ? -errno : 0;
    if (!r && (fs.f_type != FUSE_SUPER_MAGIC || st.st_ino != TREE_ROOT ||
               (h->dev && h->dev != st.st_dev)))
        r = h->dev ? -ENOTCONN : -EAGAIN;
    if (r) {
        close_raw(root);
        return r;
    }
    h->dev = st.st_dev;
    return root;
}

/* A user may put a symlink where the folder was: nothing is followed, nothing outside is opened. */
static int enter(struct hand *h, const struct call *c)
{
    int root = open_root(h);
    if (root < 0)
        return root;
    int fd = open_raw(root, c->name, O_PATH | O_DIRECTORY,
                      RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
    close_raw(root);
    if (fd < 0)
        return fd == -ENOTDIR || fd == -ELOOP || fd == -EXDEV || fd == -EAGAIN ? -ENOENT : fd;
    struct stat st;
    int r = fstat(fd, &st) ? -errno : st.st_ino != (ino_t)c->ino ? -ENOENT : 0;
    if (r)
        close_raw(fd);
    else
        h->folder = fd;
    return r;
}

static int leave(struct hand *h, const struct call *c)
{
    (void)c;
    close_raw(h->folder);
    h->folder = -1;
    return 0;
}

static int create(struct hand *h, const struct call *c)
{
    int fd = open_raw(h->folder, c->name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, 0);
    close_raw(fd);
    return fd < 0 ? fd : 0;
}

static int unlink_name(struct hand *h, const struct call *c)
{
    return unlinkat(h->folder, c->name, 0) ? -errno : 0;
}

static int rename_name(struct hand *h, const struct call *c)
{
    return renameat2(h->folder, c->name, h->folder, c->other, RENAME_NOREPLACE) ? -errno : 0;
}

/* A core dump waits for all threads before it closes descriptors, so it would wait for ever for one
 * that is inside a call: there are no dumps just then. */
static int make_call(struct hand *h, const struct call *c)
{
    int dumpable = prctl(PR_GET_DUMPABLE);
    if (dumpable == 1)
        prctl(PR_SET_DUMPABLE, 0);
    int r = c->fn(h, c);
    if (dumpable == 1)
        prctl(PR_SET_DUMPABLE, 1);
    return r;
}

/* ---- the thread ---- */

static int own_descriptors(void)
{
    if (!syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_UNSHARE))
        return 0;
    if (unshare(CLONE_FILES)) /* Linux before 5.9 */
        return -errno;
    long max = sysconf(_SC_OPEN_MAX);
    for (int fd = 3; fd < max; fd++)
        close_raw(fd);
    return 0;
}

static void *run(void *arg)
{
    struct hand *h = arg;
    int broken = own_descriptors();
    pthread_mutex_lock(&h->lock);
    atomic_store(&h->tid, gettid());
    h->result = broken;
    pthread_cond_signal(&h->done);
    while (!h->stop) {
        const struct call *c = h->call;
        if (!c) {
            pthread_cond_wait(&h->wake, &h->lock);
            continue;
        }
        pthread_mutex_unlock(&h->lock);
        int r = make_call(h, c);
        pthread_mutex_lock(&h->lock);
        h->result = r;
        h->call = NULL;
        pthread_cond_signal(&h->done);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

static int ask(struct hand *h, const struct call *c)
{
    pthread_mutex_lock(&h->lock);
    h->call = c;
    pthread_cond_signal(&h->wake);
    while (h->call)
        pthread_cond_wait(&h->done, &h->lock);
    int r = h->result;
    pthread_mutex_unlock(&h->lock);
    return r;
}

int hand_new(const char *mountpoint, struct hand **out)
{
    struct hand *h = calloc(1, sizeof *h);
    if (!h)
        return -ENOMEM;
    h->mountpoint = mountpoint;
    h->folder = -1;
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->wake, NULL);
    pthread_cond_init(&h->done, NULL);
    int r = -pthread_create(&h->thread, NULL, run, h);
    if (r) {
        free(h);
        return r;
    }
    pthread_mutex_lock(&h->lock);
    while (!atomic_load(&h->tid))
        pthread_cond_wait(&h->done, &h->lock);
    r = h->result;
    pthread_mutex_unlock(&h->lock);
    if (r)
        hand_free(h);
    else
        *out = h;
    return r;
}

void hand_free(struct hand *h)
{
    if (!h)
        return;
    pthread_mutex_lock(&h->lock);
    h->stop = true;
    pthread_cond_signal(&h->wake);
    pthread_mutex_unlock(&h->lock);
    pthread_join(h->thread, NULL);
    pthread_cond_destroy(&h->wake);
    pthread_cond_destroy(&h->done);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

pid_t hand_tid(const struct hand *h)
{
    return atomic_load(&h->tid);
}

int hand_enter(struct hand *h, const char *path, int64_t ino)
{
    return ask(h, &(struct call){.fn = enter, .name = path, .ino = ino});
}

void hand_leave(struct hand *h)
{
    ask(h, &(struct call){.fn = leave});
}

int hand_create(struct hand *h, const char *name)
{
    return ask(h, &(struct call){.fn = create, .name = name});
}

int hand_unlink(struct hand *h, const char *name)
{
    return ask(h, &(struct call){.fn = unlink_name, .name = name});
}

int hand_rename(struct hand *h, const char *name, const char *new_name)
{
    return ask(h, &(struct call){.fn = rename_name, .name = name, .other = new_name});
}

/* ---- once ---- */

struct once {
    void (*fn)(void *arg);
    void *arg;
    int result;
};

static void *run_once(void *arg)
{
    struct once *o = arg;
    o->result = own_descriptors();
    if (!o->result)
        o->fn(o->arg);
    return NULL;
}

int hand_run_once(void (*fn)(void *arg), void *arg)
{
    struct once o = {.fn = fn, .arg = arg};
    pthread_t thread;
    int r = pthread_create(&thread, NULL, run_once, &o);
    if (r)
        return -r;
    pthread_join(thread, NULL);
    return o.result;
}
