#include "cli/service.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <poll.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "fs/fs.h"
#include "fs/mountpoint.h"
#include "job/registry.h"

struct service {
    const struct service_options *options;
    struct db *db;
    struct fs fs;
    char registry[REGISTRY_PATH_SIZE];
    sigset_t signals;
    pthread_t control, ending;
    bool has_control, has_ending;
    int control_end[2]; /* closing [1] ends the control thread */
    pthread_mutex_t end_lock;
    bool work_ended;
};

/* ---- the end ---- */

/* Everything that is not the loop, while the loop still runs: whoever is inside a system call on
 * the mount gets its answer. In this order: nothing new is accepted; workers finish or give back;
 * what is finished is delivered; parked readers are answered. */
static void end_work(struct service *s, double seconds)
{
    pthread_mutex_lock(&s->end_lock);
    if (!s->work_ended) {
        s->work_ended = true;
        trigger_stop(&s->fs);
        jobs_stop(s->fs.jobs, seconds);
        publisher_stop(&s->fs);
        virtuals_stop(&s->fs);
    }
    pthread_mutex_unlock(&s->end_lock);
}

static void *end_in_order(void *arg)
{
    struct service *s = arg;
    end_work(s, s->options->mount->timeout);
    fs_stop(&s->fs);
    return NULL;
}

/* The loop has ended, in order or because someone unmounted. */
static void on_ended(void *ctx)
{
    struct service *s = ctx;
    atomic_store(&s->fs.stopping, true);
    virtuals_stop(&s->fs);
}

/* ---- control: signals ---- */

static void reload(struct service *s)
{
    struct err e = {0};
    daemon_notify("RELOADING=1");
    if (jobs_reload(s->fs.jobs, &e))
        log_error("the registry was not reloaded, the old one stays in force: %s", e.text);
    daemon_notify("READY=1");
}

static void on_end_signal(struct service *s, int signal)
{
    if (s->has_ending) {
        struct err e;
        log_warn("second signal %d: ending at once", signal);
        mountpoint_unmount(s->options->mountpoint, true, &e);
        _exit(1);
    }
    log_info("signal %d: ending; running jobs have %g s", signal, s->options->mount->timeout);
    daemon_notify("STOPPING=1");
    atomic_store(&s->fs.stopping, true);
    s->has_ending = !pthread_create(&s->ending, NULL, end_in_order, s);
    if (!s->has_ending)
        end_in_order(s);
}

static void *control(void *arg)
{
    struct service *s = arg;
    AUTO_FD int signals = signalfd(-1, &s->signals, SFD_CLOEXEC);
    struct pollfd p[] = {{.fd = s->control_end[0], .events = POLLIN},
                         {.fd = signals, .events = POLLIN}};
    for (;;) {
        if (poll(p, ARRAY_LEN(p), -1) < 0 && errno != EINTR)
            return NULL;
        if (p[0].revents)
            return NULL;
        struct signalfd_siginfo info;
        if (p[1].revents && read(signals, &info, sizeof info) == (ssize_t)sizeof info) {
            if (info.ssi_signo == SIGHUP)
                reload(s);
            else
                on_end_signal(s, (int)info.ssi_signo);
        }
    }
}

/* Once there is a loop to end; signals that came before are still pending. */
static void start_control(struct service *s)
{
    int r = pipe2(s->control_end, O_CLOEXEC) ? errno : 0;
    if (!r)
        r = pthread_create(&s->control, NULL, control, s);
    s->has_control = !r;
    if (r)
        log_error("no control thread, signals are not heard: %s", strerror(r));
}

/* ---- the start ---- */

static void on_ready(void *ctx)
{
    struct service *s = ctx;
    int r = publisher_start(&s->fs);
    if (r)
        log_error("no thread for the publisher: %s", strerror(-r));
    start_control(s);
    log_info("%s is mounted on %s", s->options->store, s->options->mountpoint);
    daemon_ready(s->options->daemon);
    daemon_notify("READY=1");
}

static void face_changed(void *ctx, int64_t folder)
{
    virtual_changed(ctx, folder);
}
static void face_publication(void *ctx)
{
    publisher_wake(ctx);
}
static void face_preview(void *ctx, int64_t folder, const char *job_id, const char *path)
{
    publisher_preview(ctx, folder, job_id, path);
}

static void face_limits(void *ctx, uint64_t store_bytes)
{
    const struct fs *fs = ctx;
    tree_set_limit(fs->tree, store_bytes);
}

/* The folders given with -o models= come before those of the environment. */
static int set_model_path(const char *models, struct err *e)
{
    const char *old = getenv("OMNIFS_MODELS");
    AUTO_STR struct str path = {0};
    if (!models)
        return 0;
    str_add(&path, models);
    if (old && *old)
        str_addf(&path, ":%s", old);
    return path.failed || setenv("OMNIFS_MODELS", path.data, 1) ? err_nomem(e) : 0;
}

static int open_all(struct service *s, struct err *e)
{
    const struct service_options *o = s->options;
    const struct mount_options *m = o->mount;
    struct fs *fs = &s->fs;
    fs->options = (struct fs_options){.debounce_ms = m->debounce_ms,
                                      .grace_ms = m->grace_ms,
                                      .passthrough = !m->nopassthrough,
                                      .allow_other = m->allow_other,
                                      .owner_uid = getuid(),
                                      .owner_gid = getgid()};
    struct registry *registry;
    int r = set_model_path(m->models, e);
    if (!r)
        r = registry_load(m->registry, &registry, e);
    if (r)
        return r;
    memcpy(s->registry, registry->path, sizeof s->registry);
    registry_unref(registry);
    r = db_open(o->store, &s->db, e);
    if (!r)
        r = tree_open(s->db, o->store, &fs->tree, e);
    if (r)
        return r;
    if (virtuals_new(fs) || publisher_new(fs, o->mountpoint))
        return err_nomem(e);
    struct jobs_options j = {
        .store = o->store,
        .registry_path = s->registry,
        .generator = o->generator,
        .face = {fs, face_changed, face_publication, face_preview, face_limits}};
    r = jobs_open(s->db, &j, &fs->jobs, e);
    if (r)
        return r;
    return trigger_new(fs) ? err_nomem(e) : 0;
}

static void close_all(struct service *s)
{
    if (s->has_control) {
        close(s->control_end[1]);
        pthread_join(s->control, NULL);
        close(s->control_end[0]);
    }
    if (s->has_ending)
        pthread_join(s->ending, NULL);
    /* After an unmount by someone else nothing can be delivered any more: jobs are queued again. */
    if (s->fs.jobs)
        end_work(s, 0);
    trigger_free(&s->fs);
    publisher_free(&s->fs);
    if (s->fs.jobs)
        jobs_close(s->fs.jobs, 0);
    virtuals_free(&s->fs);
    if (s->fs.tree)
        tree_close(s->fs.tree);
    if (s->db)
        db_close(s->db);
    pthread_mutex_destroy(&s->end_lock);
}

int service_run(const struct service_options *o, struct err *e)
{
    AUTO_FREE struct service *s = calloc(1, sizeof *s);
    if (!s)
        return err_nomem(e);
    s->options = o;
    pthread_mutex_init(&s->end_lock, NULL);
    signal(SIGPIPE, SIG_IGN);
    /* Blocked before any thread exists, so that only the control thread sees them. */
    sigemptyset(&s->signals);
    sigaddset(&s->signals, SIGTERM);
    sigaddset(&s->signals, SIGINT);
    sigaddset(&s->signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &s->signals, NULL);

    int r = open_all(s, e);
    if (!r) {
        struct fs_mount m = {.mountpoint = o->mountpoint,
                             .source = o->mount->fsname ? o->mount->fsname : o->store,
                             .args = &o->mount->args,
                             .ready = on_ready,
                             .ended = on_ended,
                             .ctx = s};
        r = fs_serve(&s->fs, &m, e);
    }
    close_all(s);
    log_info("%s: ended", o->mountpoint);
    return r;
}
