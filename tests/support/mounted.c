#include "mounted.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "scratch.h"

#define RING     8
#define PATIENCE 60.0 /* seconds; a sanitizer build on a busy machine is slow */

double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void sleep_ms(int ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
    while (nanosleep(&t, &t) && errno == EINTR)
        ;
}

static char *ring_buffer(void)
{
    static _Thread_local char ring[RING][4096];
    static _Thread_local int at;
    return ring[at++ % RING];
}

const char *test_program(const char *name)
{
    char *out = ring_buffer(), self[PATH_MAX / 2];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0)
        return name;
    self[n] = '\0';
    snprintf(out, 4096, "%s/%s", dirname(self), name);
    if (access(out, X_OK)) /* a test of another folder: BUILD/tests/fs/test_x */
        snprintf(out, 4096, "%s/../e2e/%s", self, name);
    return out;
}

const char *mounted_impossible(void)
{
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return "/dev/fuse cannot be opened";
    close(fd);
    return geteuid() ? "these tests mount and change users: run them as root" : NULL;
}

/* ---- the daemon ---- */

static int make_scratch(struct mounted *m)
{
    if (m->scratch[0])
        return 0;
    if (!mkdtemp(scratch_name(m->scratch, "omnifs-test-XXXXXX")) || chmod(m->scratch, 0755))
        return -1;
    snprintf(m->store, sizeof m->store, "%s/store", m->scratch);
    snprintf(m->dir, sizeof m->dir, "%s/mnt", m->scratch);
    snprintf(m->drawn, sizeof m->drawn, "%s/drawn", m->scratch);
    return mkdir(m->store, 0700) || mkdir(m->dir, 0755) ? -1 : 0;
}

/* A sanitizer's report of a crash that the test itself causes takes seconds. */
static void let_crashes_be_crashes(void)
{
    static const char *const names[] = {"ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char all[2048];
        const char *old = getenv(names[i]);
        snprintf(all, sizeof all, "%s:handle_segv=0:handle_abort=0", old ? old : "");
        setenv(names[i], *all == ':' ? all + 1 : all, 1);
    }
}

static void exec_daemon(const struct mounted *m, const char *options)
{
    char all[PATH_MAX + 1024], registry[PATH_MAX];
    if (!realpath("tests/e2e/registry.ini", registry))
        _exit(127);
    snprintf(all, sizeof all, "registry=%s%s%s", registry, options ? "," : "",
             options ? options : "");
    setenv("OMNIFS_STUB_LOG", m->drawn, 1);
    if (!getenv("OMNIFS_LOG"))
        setenv("OMNIFS_LOG", "warn", 1);
    let_crashes_be_crashes();
    setpgid(0, 0);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that is killed leaves no daemon behind */
    execl(test_program("omnifs_stub"), "omnifs", "mount", m->store, m->dir, "-f", "-o", all,
          (char *)NULL);
    _exit(127);
}

static bool answers(const struct mounted *m)
{
    struct stat st;
    return !stat(m->dir, &st) && st.st_ino == 1 && exists(mounted_path(m, ".omnifs/pid"));
}

int mounted_start(struct mounted *m, const char *options)
{
    if (make_scratch(m))
        return -1;
    m->daemon = fork();
    if (m->daemon == 0)
        exec_daemon(m, options);
    double end = now() + PATIENCE;
    int status;
    while (!answers(m)) {
        if (waitpid(m->daemon, &status, WNOHANG) == m->daemon) {
            fprintf(stderr, "the daemon ended while starting, status %x\n", (unsigned)status);
            m->daemon = 0;
            return -1;
        }
        if (now() > end) {
            fprintf(stderr, "the mount does not answer\n");
            mounted_kill(m);
            return -1;
        }
        sleep_ms(5);
    }
    return 0;
}

static int reap(struct mounted *m, double seconds)
{
    int status;
    for (double end = now() + seconds; now() < end; sleep_ms(5))
        if (waitpid(m->daemon, &status, WNOHANG) == m->daemon) {
            m->daemon = 0;
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
    return -1;
}

int mounted_end(struct mounted *m, int signal)
{
    if (!m->daemon)
        return -1;
    kill(m->daemon, signal);
    int r = reap(m, PATIENCE);
    if (r < 0) {
        fprintf(stderr, "the daemon does not end\n");
        mounted_kill(m);
    }
    return r;
}

bool mounted_crash(struct mounted *m, int signal)
{
    kill(m->daemon, signal);
    return reap(m, PATIENCE) >= 0;
}

void mounted_kill(struct mounted *m)
{
    if (!m->daemon)
        return;
    kill(m->daemon, SIGKILL);
    reap(m, PATIENCE);
    umount2(m->dir, MNT_DETACH);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path) && errno != ENOENT ? -1 : 0;
}

void mounted_free(struct mounted *m)
{
    mounted_kill(m);
    if (m->scratch[0])
        nftw(m->scratch, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    m->scratch[0] = '\0';
}

/* ---- acting like a user ---- */

const char *mounted_path(const struct mounted *m, const char *fmt, ...)
{
    char *out = ring_buffer();
    int n = snprintf(out, 4096, "%s/", m->dir);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(out + n, 4096 - (size_t)n, fmt, ap);
    va_end(ap);
    return out;
}

int write_file(const char *path, const char *text)
{
    AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    return write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -errno;
}

const char *read_file(const char *path)
{
    char *out = ring_buffer();
    *out = '\0';
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t len = 0;
    for (ssize_t n; fd >= 0 && len < 4095 && (n = read(fd, out + len, 4095 - len)) > 0;)
        len += (size_t)n;
    out[len] = '\0';
    return out;
}

bool exists(const char *path)
{
    struct stat st;
    return !lstat(path, &st);
}

bool appears(const char *path)
{
    for (double end = now() + PATIENCE; now() < end; sleep_ms(5))
        if (exists(path))
            return true;
    return false;
}

bool shows(const char *path, const char *word)
{
    char copy[PATH_MAX]; /* reading goes round the ring in which the path may lie */
    snprintf(copy, sizeof copy, "%s", path);
    for (double end = now() + PATIENCE; now() < end; sleep_ms(5))
        if (strstr(read_file(copy), word))
            return true;
    return false;
}

bool runs(const struct mounted *m, const char *folder)
{
    return shows(mounted_path(m, "%s/status", folder), "running ");
}

int mounted_submit(const struct mounted *m, const char *folder, const char *text)
{
    if (mkdir(mounted_path(m, "%s", folder), 0755) && errno != EEXIST)
        return -errno;
    return write_file(mounted_path(m, "%s/prompt.ini", folder), text);
}

const char *wait_for(const struct mounted *m, const char *folder)
{
    char *text = (char *)read_file(mounted_path(m, "%s/wait", folder));
    text[strcspn(text, "\n")] = '\0';
    return text;
}

int times_drawn(const struct mounted *m, const char *word)
{
    AUTO_FILE FILE *f = fopen(m->drawn, "re");
    char line[512];
    int n = 0;
    while (f && fgets(line, sizeof line, f))
        n += strstr(line, word) != NULL;
    return n;
}

int shell(const struct mounted *m, const char *fmt, ...)
{
    char command[4096];
    int n = snprintf(command, sizeof command, "cd '%s' && ", m->dir);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(command + n, sizeof command - (size_t)n, fmt, ap);
    va_end(ap);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- watchdog ---- */

struct watchdog {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    const char *mountpoint;
    dev_t dev;
    double seconds;
    bool done, fired;
};

static void *guard(void *arg)
{
    struct watchdog *w = arg;
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    at.tv_sec += (time_t)w->seconds;
    pthread_mutex_lock(&w->lock);
    while (!w->done && !w->fired)
        w->fired = pthread_cond_timedwait(&w->wake, &w->lock, &at) == ETIMEDOUT;
    pthread_mutex_unlock(&w->lock);
    if (!w->fired)
        return NULL;
    char path[80];
    snprintf(path, sizeof path, "/sys/fs/fuse/connections/%u/abort", minor(w->dev));
    fprintf(stderr, "nothing moved for %g s: aborting the connection\n", w->seconds);
    if (!umount2(w->mountpoint, MNT_FORCE)) /* aborts, too */
        return NULL;
    AUTO_FD int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "1", 1) != 1)
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
    return NULL;
}

struct watchdog *watchdog_begin(const struct mounted *m, double seconds)
{
    struct watchdog *w = calloc(1, sizeof *w);
    struct stat st;
    if (!w || stat(m->dir, &st))
        abort();
    w->dev = st.st_dev;
    w->mountpoint = m->dir;
    w->seconds = seconds;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    if (pthread_create(&w->thread, NULL, guard, w))
        abort();
    return w;
}

bool watchdog_end(struct watchdog *w)
{
    pthread_mutex_lock(&w->lock);
    w->done = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    bool in_time = !w->fired;
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->wake);
    free(w);
    return in_time;
}

/* ---- inotify ---- */

int events_begin(struct events *e, const char *folder)
{
    e->len = 0;
    e->text[0] = '\0';
    e->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    return e->fd < 0 || inotify_add_watch(e->fd, folder, IN_ALL_EVENTS) < 0 ? -errno : 0;
}

static void note(struct events *e, const struct inotify_event *event)
{
    static const struct {
        uint32_t bit;
        const char *name;
    } kinds[] = {{IN_CREATE, "CREATE"},           {IN_OPEN, "OPEN"},
                 {IN_MODIFY, "MODIFY"},           {IN_CLOSE_WRITE, "CLOSE_WRITE"},
                 {IN_DELETE, "DELETE"},           {IN_MOVED_FROM, "MOVED_FROM"},
                 {IN_MOVED_TO, "MOVED_TO"},       {IN_ATTRIB, "ATTRIB"},
                 {IN_DELETE_SELF, "DELETE_SELF"}, {IN_MOVE_SELF, "MOVE_SELF"}};
    if (event->mask & IN_ISDIR && !event->len)
        return; /* of the folder itself */
    if (event->len && (!strcmp(event->name, "preview.png") || !strcmp(event->name, "wait")))
        return;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (event->mask & kinds[i].bit && e->len + 300 < sizeof e->text)
            e->len +=
                (size_t)snprintf(e->text + e->len, sizeof e->text - e->len, "%s%s %s",
                                 e->len ? ", " : "", kinds[i].name, event->len ? event->name : ".");
}

const char *events_end(struct events *e, const char *last, int quiet_ms)
{
    union {
        struct inotify_event align;
        char bytes[65536];
    } buf;
    struct pollfd p = {.fd = e->fd, .events = POLLIN};
    while (poll(&p, 1, strstr(e->text, last) ? quiet_ms : (int)(1000 * PATIENCE)) > 0) {
        ssize_t n = read(e->fd, &buf, sizeof buf);
        for (char *at = buf.bytes; n > 0 && at < buf.bytes + n;) {
            const struct inotify_event *event = (const struct inotify_event *)(void *)at;
            note(e, event);
            at += sizeof *event + event->len;
        }
    }
    close(e->fd);
    e->fd = -1;
    return e->text;
}
