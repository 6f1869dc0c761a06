/* A mount's life: mount, INIT, the loop, the end. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "fs/fs.h"
#include "fs/hand.h"
#include "fs/handles.h"
#include "fs/ops.h"
#include "fs/passthrough.h"

enum {
    MAX_THREADS = 16,
    IDLE_THREADS = 4, /* each keeps a stack and a request buffer */
    MAX_BACKGROUND = 64,
    READ_AHEAD_KB = 512, /* measured: 128 is slower, more gains nothing */
};

/* ---- INIT ---- */

void ops_init(void *userdata, struct fuse_conn_info *conn)
{
    (void)userdata;
    /* NFS handles: we answer LOOKUP of "." and ".." for any node, by ids that never change. */
    if (conn->capable & FUSE_CAP_EXPORT_SUPPORT)
        conn->want |= FUSE_CAP_EXPORT_SUPPORT;
    /* Write-back would hide who writes, and passthrough excludes it. Moving pages by splice takes
     * them out of the store's page cache. Requests are small: one read beats splice and read. */
    conn->want &= ~(unsigned)(FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_DONT_MASK | FUSE_CAP_SPLICE_MOVE |
                              FUSE_CAP_SPLICE_READ);
    conn->max_background = MAX_BACKGROUND;
    conn->congestion_threshold = MAX_BACKGROUND * 3 / 4;
}

/* ---- ready ---- */

struct readiness {
    const struct fs_mount *mount;
    dev_t before; /* what lay at the mount point */
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* `ready` does not begin after the loop's end, nor overlap `ended` */
    bool over;
};

static void raise_read_ahead(dev_t dev)
{
    char path[64];
    snprintf(path, sizeof path, "/sys/class/bdi/%u:%u/read_ahead_kb", major(dev), minor(dev));
    AUTO_FD int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && dprintf(fd, "%d", READ_AHEAD_KB) < 0)
        log_debug("%s: %s", path, strerror(errno));
}

struct question {
    const char *path;
    struct stat st;
    int result;
};

static void ask_stat(void *arg)
{
    struct question *q = arg;
    q->result = stat(q->path, &q->st) ? -errno : 0;
}

/* The first stat of the root is answered after INIT: then the mount works. */
static void *announce(void *arg)
{
    struct readiness *w = arg;
    struct question q = {.path = w->mount->mountpoint};
    if (hand_run_once(ask_stat, &q) || q.result)
        return NULL;
    struct stat st = q.st;
    if (st.st_ino != TREE_ROOT || st.st_dev == w->before)
        return NULL;
    if (geteuid() == 0)
        raise_read_ahead(st.st_dev);
    pthread_mutex_lock(&w->lock);
    if (w->mount->ready && !w->over)
        w->mount->ready(w->mount->ctx);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* ---- the fixed folders ---- */

static int set_fixed(struct fs *fs)
{
    static const struct {
        int64_t id;
        mode_t mode, shared;
    } folders[] = {{TREE_ROOT, 0555, 0555},
                   {TREE_IMAGE, 0755, 01777},
                   {TREE_VIDEO, 0755, 01777},
                   {TREE_GIF, 0755, 01777}};
    for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
        struct stat st = {.st_mode = fs->options.allow_other ? folders[i].shared : folders[i].mode,
                          .st_uid = fs->options.owner_uid,
                          .st_gid = fs->options.owner_gid};
        int r = tree_set(fs->tree, folders[i].id, TREE_SET_MODE | TREE_SET_UID | TREE_SET_GID, &st);
        if (r)
            return r;
    }
    return 0;
}

/* ---- session ---- */

/* libfuse splits options at commas. */
static void add_escaped(struct str *s, const char *text)
{
    for (; *text; text++) {
        if (*text == ',' || *text == '\\')
            str_addc(s, '\\');
        str_addc(s, *text);
    }
}

static int new_session(struct fs *fs, const struct fs_mount *m, struct err *e)
{
    AUTO_STR struct str options = {0};
    str_add(&options, "-odefault_permissions,subtype=omnifs,fsname=");
    add_escaped(&options, m->source ? m->source : "omnifs");
    if (fs->options.allow_other)
        str_add(&options, ",allow_other");
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    bool ok = !options.failed;
    for (int i = 0; ok && i < (m->args ? m->args->argc : 0); i++)
        ok = !fuse_opt_add_arg(&args, m->args->argv[i]);
    if (ok && args.argc == 0)
        ok = !fuse_opt_add_arg(&args, "omnifs");
    if (ok)
        ok = !fuse_opt_add_arg(&args, options.data);
    if (ok)
        fs->session = fuse_session_new(&args, &fs_operations, sizeof fs_operations, fs);
    fuse_opt_free_args(&args);
    return fs->session ? 0
                       : err_set(e, ok ? -EINVAL : -ENOMEM, "%s: a mount option is not understood",
                                 m->mountpoint);
}

static int mount_session(struct fs *fs, const struct fs_mount *m, struct err *e)
{
    errno = 0;
    if (fuse_session_mount(fs->session, m->mountpoint)) {
        int code = errno ? -errno : -EIO;
        if (code == -EPERM && fs->options.allow_other && geteuid() != 0)
            return err_set(e, code,
                           "%s cannot be mounted for other users: -o allow_other needs the line "
                           "user_allow_other in /etc/fuse.conf, or root",
                           m->mountpoint);
        return err_set(e, code,
                       "%s cannot be mounted (%s); `omnifs doctor` checks /dev/fuse and rights",
                       m->mountpoint, code == -EIO ? "see the lines above" : strerror(-code));
    }
    if (fs->options.passthrough) {
        int r = passthrough_new(fs, tree_store_path(fs->tree), &fs->passthrough);
        if (r)
            log_debug("no passthrough: %s", strerror(-r));
    }
    return 0;
}

static int loop(struct fs *fs, const struct fs_mount *m, struct readiness *w, struct err *e)
{
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    if (!config)
        return err_nomem(e);
    fuse_loop_cfg_set_clone_fd(config, 1);
    fuse_loop_cfg_set_max_threads(config, MAX_THREADS);
    fuse_loop_cfg_set_idle_threads(config, IDLE_THREADS);
    int r = -pthread_create(&w->thread, NULL, announce, w);
    if (r) {
        fuse_loop_cfg_destroy(config);
        return err_set(e, r, "%s: no thread: %s", m->mountpoint, strerror(-r));
    }
    w->started = true;
    r = fuse_session_loop_mt(fs->session, config);
    fuse_loop_cfg_destroy(config);
    if (r)
        err_set(e, r < 0 ? r : -EIO, "%s: the kernel ended the mount: %s", m->mountpoint,
                strerror(r < 0 ? -r : EIO));
    return r < 0 ? r : r ? -EIO : 0;
}

static int serve(struct fs *fs, const struct fs_mount *m, struct err *e)
{
    struct readiness w = {.mount = m, .lock = PTHREAD_MUTEX_INITIALIZER};
    struct stat st;
    if (!stat(m->mountpoint, &st))
        w.before = st.st_dev;
    int r = mount_session(fs, m, e);
    if (r)
        return r;
    fs->mountpoint = m->mountpoint;
    r = loop(fs, m, &w, e);
    if (m->ended)
        m->ended(m->ctx); /* parked requests hold the connection open: they are answered first */
    fuse_session_unmount(fs->session); /* whoever waits for an answer gets an error now */
    if (w.started)
        pthread_join(w.thread, NULL);
    return r;
}

int fs_serve(struct fs *fs, const struct fs_mount *m, struct err *e)
{
    pthread_mutex_init(&fs->session_lock, NULL);
    int r = set_fixed(fs);
    if (!r)
        r = handles_new(fs->tree, &fs->handles);
    if (r)
        return err_set(e, r, "%s: %s", m->mountpoint, strerror(-r));
    tree_set_limit(fs->tree, jobs_limit_store_bytes(fs->jobs));
    r = new_session(fs, m, e);
    if (!r) {
        r = serve(fs, m, e);
        pthread_mutex_lock(&fs->session_lock);
        fuse_session_destroy(fs->session);
        fs->session = NULL;
        pthread_mutex_unlock(&fs->session_lock);
    }
    passthrough_free(fs->passthrough);
    fs->passthrough = NULL;
    handles_free(fs->handles);
    fs->handles = NULL;
    return r;
}

static void ask_statvfs(void *arg)
{
    struct question *q = arg;
    struct statvfs st;
    q->result = statvfs(q->path, &st) ? -errno : 0;
}

void fs_stop(struct fs *fs)
{
    pthread_mutex_lock(&fs->session_lock);
    if (fs->session)
        fuse_session_exit(fs->session);
    pthread_mutex_unlock(&fs->session_lock);
    /* The loop's threads sleep in read(2) until a request comes: here is one. If the loop ends
     * without answering it, unmounting does. */
    struct question q = {.path = fs->mountpoint};
    if (fs->mountpoint)
        hand_run_once(ask_statvfs, &q);
}
