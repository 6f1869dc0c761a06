/* The filesystem's part of `omnifs bench`: a mount of its own in a temporary place, each figure
 * beside what the disk below does with the same calls. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "cli/bench.h"

#define ROUNDS      7
#define SMALL_FILES 200
#define BIG_BYTES   (200u << 20)
#define BLOCK       (1u << 20)
#define JOB_SECONDS 60.0

struct place {
    char root[64];
    char store[PATH_MAX], mount[PATH_MAX], raw[PATH_MAX];
};

static void row(json_t *rows, const char *what, double value, double floor, const char *unit)
{
    json_array_append_new(rows, json_pack("{s:s, s:f, s:f, s:s}", "what", what, "omnifs", value,
                                          "floor", floor, "unit", unit));
}

/* Runs this program with `words` and waits; seconds, or a negative errno. */
static double run_self(const char *const *words)
{
    pid_t child;
    int status;
    double start = clock_seconds();
    posix_spawn_file_actions_t quiet;
    posix_spawn_file_actions_init(&quiet);
    posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
    int rc = posix_spawn(&child, "/proc/self/exe", &quiet, NULL, (char *const *)words, environ);
    posix_spawn_file_actions_destroy(&quiet);
    if (rc)
        return -rc;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? clock_seconds() - start : -EIO;
}

/* ---- small operations ---- */

static int write_file(const char *path, const char *text)
{
    AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    ssize_t n = (ssize_t)strlen(text);
    return fd >= 0 && write(fd, text, (size_t)n) == n ? 0 : -errno;
}

/* Median microseconds of creating, writing and closing a small file in `folder`, and of stat. */
static int small_files(const char *folder, double *create, double *look)
{
    double creates[SMALL_FILES], looks[SMALL_FILES];
    char path[PATH_MAX + 16];
    for (int i = 0; i < SMALL_FILES; i++) {
        struct stat st;
        snprintf(path, sizeof path, "%s/f%d", folder, i);
        double start = clock_seconds();
        int rc = write_file(path, "small\n");
        double made = clock_seconds();
        if (rc || stat(path, &st))
            return rc ? rc : -errno;
        creates[i] = (made - start) * 1e6;
        looks[i] = (clock_seconds() - made) * 1e6;
    }
    *create = bench_median(creates, SMALL_FILES);
    *look = bench_median(looks, SMALL_FILES);
    return 0;
}

/* ---- big reads ---- */

static int write_big(const char *path)
{
    AUTO_FREE char *block = malloc(BLOCK);
    AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (!block || fd < 0)
        return -ENOMEM;
    memset(block, 'x', BLOCK);
    for (size_t done = 0; done < BIG_BYTES; done += BLOCK)
        if (write(fd, block, BLOCK) != (ssize_t)BLOCK)
            return -EIO;
    return fsync(fd) ? -errno : 0;
}

/* MB/s of one open, read to the end, close; or a negative errno. */
static double read_rate(const char *path)
{
    AUTO_FREE char *block = malloc(BLOCK);
    size_t sum = 0;
    ssize_t n = 0;
    double start = clock_seconds();
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || !block)
        return fd < 0 ? -errno : -ENOMEM;
    while ((n = read(fd, block, BLOCK)) > 0)
        sum += (size_t)n;
    return n < 0 ? -errno : (double)sum / 1e6 / (clock_seconds() - start);
}

static int big_reads(const struct place *p, json_t *rows)
{
    char ours[PATH_MAX + 16], raw[PATH_MAX + 16];
    double first, second[ROUNDS], floor[ROUNDS];
    snprintf(ours, sizeof ours, "%s/image/.big", p->mount);
    snprintf(raw, sizeof raw, "%s/big", p->raw);
    int rc = write_big(ours);
    rc = rc ? rc : write_big(raw);
    if (rc)
        return rc;
    first = read_rate(ours);
    for (int i = 0; i < ROUNDS; i++) {
        second[i] = read_rate(ours);
        floor[i] = read_rate(raw);
        if (first < 0 || second[i] < 0 || floor[i] < 0)
            return -EIO;
    }
    double best = bench_median(floor, ROUNDS);
    row(rows, "read 200 MB, first open", first, best, "MB/s");
    row(rows, "read 200 MB, later opens", bench_median(second, ROUNDS), best, "MB/s");
    return unlink(ours) ? -errno : 0;
}

/* ---- jobs ---- */

/* Waits until `name` is closed after writing in the watched folder; the wall clock in ms. */
static int64_t wait_for_file(int inotify, const char *name)
{
    char events[4096] __attribute__((aligned(8)));
    double until = clock_seconds() + JOB_SECONDS;
    while (clock_seconds() < until) {
        struct pollfd p = {.fd = inotify, .events = POLLIN};
        if (poll(&p, 1, 1000) <= 0)
            continue;
        ssize_t n = read(inotify, events, sizeof events);
        int64_t now = clock_wall_ms();
        for (ssize_t at = 0; at < n;) {
            const struct inotify_event *ev = (const void *)(events + at);
            if (ev->len && !strcmp(ev->name, name))
                return now;
            at += (ssize_t)(sizeof *ev + ev->len);
        }
    }
    return -1;
}

/* "2026-01-31T09:15:00.123Z" → ms of the day; enough for differences of milliseconds. */
static int64_t ms_of_day(const char *rfc3339)
{
    int h, m, s, ms;
    if (!rfc3339 || sscanf(rfc3339, "%*d-%*d-%*dT%d:%d:%d.%dZ", &h, &m, &s, &ms) != 4)
        return -1;
    return ((int64_t)h * 3600 + m * 60 + s) * 1000 + ms;
}

struct job_times {
    double submit;  /* ms from close of prompt.ini until the request was recorded */
    double publish; /* ms from its last file being ready until a watcher was told */
};

static int time_job(const struct place *p, int round, struct job_times *out)
{
    char folder[PATH_MAX + 32], path[PATH_MAX + 64];
    snprintf(folder, sizeof folder, "%s/image/job%d", p->mount, round);
    AUTO_FD int inotify = inotify_init1(IN_CLOEXEC);
    if (mkdir(folder, 0755) || inotify < 0 ||
        inotify_add_watch(inotify, folder, IN_CLOSE_WRITE) < 0)
        return -errno;
    snprintf(path, sizeof path, "%s/prompt.ini", folder);
    int rc = write_file(path, "prompt = a star\nsize = 64x64\nsteps = 1\nseed = 1\n");
    int64_t closed = clock_wall_ms() % 86400000;
    if (rc)
        return rc;
    int64_t told = wait_for_file(inotify, "metadata.json") % 86400000;
    snprintf(path, sizeof path, "%s/metadata.json", folder);
    json_t *m = json_load_file(path, 0, NULL);
    int64_t created = ms_of_day(json_string_value(json_object_get(m, "created")));
    int64_t finished = ms_of_day(json_string_value(json_object_get(m, "finished")));
    const char *status = json_string_value(json_object_get(m, "status"));
    bool done = status && !strcmp(status, "done");
    json_decref(m);
    if (!done || told < 0 || created < 0 || finished < 0)
        return -EIO;
    *out = (struct job_times){(double)(created - closed), (double)(told - finished)};
    return 0;
}

static int jobs(const struct place *p, json_t *rows)
{
    double submits[ROUNDS], publishes[ROUNDS];
    for (int i = -1; i < ROUNDS; i++) { /* the first one loads the model */
        struct job_times t = {0};
        int rc = time_job(p, i + 1, &t);
        if (rc)
            return rc;
        if (i >= 0) {
            submits[i] = t.submit;
            publishes[i] = t.publish;
        }
    }
    row(rows, "submit (the floor is the debounce)", bench_median(submits, ROUNDS), 300, "ms");
    row(rows, "publish, until inotify tells", bench_median(publishes, ROUNDS), 0, "ms");
    return 0;
}

/* ---- the section ---- */

static int measure(const struct place *p, json_t *rows)
{
    char folder[PATH_MAX + 16];
    double create, look, raw_create, raw_look;
    snprintf(folder, sizeof folder, "%s/image/.small", p->mount);
    if (mkdir(folder, 0755))
        return -errno;
    int rc = small_files(folder, &create, &look);
    rc = rc ? rc : small_files(p->raw, &raw_create, &raw_look);
    if (rc)
        return rc;
    row(rows, "create, write, close", create, raw_create, "us");
    row(rows, "stat of a new file", look, raw_look, "us");
    rc = big_reads(p, rows);
    return rc ? rc : jobs(p, rows);
}

int bench_files(struct bench *b, json_t *rows, struct err *e)
{
    (void)b;
    struct place p = {.root = "/var/tmp/omnifs-bench-XXXXXX"};
    if (!mkdtemp(p.root))
        return err_set(e, -errno, "%s: %s", p.root, strerror(errno));
    snprintf(p.store, sizeof p.store, "%s/store", p.root);
    snprintf(p.mount, sizeof p.mount, "%s/mnt", p.root);
    snprintf(p.raw, sizeof p.raw, "%s/raw", p.root);
    const char *const mount[] = {"omnifs", "mount", p.store, p.mount, NULL};
    const char *const umount[] = {"omnifs", "umount", p.mount, NULL};
    const char *const version[] = {"omnifs", "--version", NULL};
    int rc = mkdir(p.mount, 0755) || mkdir(p.raw, 0755) ? -errno : 0;
    double start = rc ? rc : run_self(version), up = rc ? rc : run_self(mount);
    if (up < 0) {
        rc = err_set(e, -EIO, "nothing can be mounted here; omnifs doctor says why");
    } else {
        row(rows, "mount, until it answers", up * 1e3, start * 1e3, "ms");
        rc = measure(&p, rows);
        if (rc)
            err_set(e, rc, "the mount in %s: %s", p.root, strerror(-rc));
        double down = run_self(umount);
        if (down >= 0 && !rc)
            row(rows, "umount", down * 1e3, start * 1e3, "ms");
    }
    file_remove_tree(AT_FDCWD, p.root);
    return rc;
}
