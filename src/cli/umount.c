/* omnifs umount DIR: asks the daemon to end, which finishes or requeues what runs, delivers what is
 * finished and unmounts; then waits until it is gone, so that the store is free for the next
 * mount. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "cli/cli.h"
#include "fs/mountpoint.h"

#define NAME          "omnifs umount"
#define PATIENCE_MS   2000 /* before we say what we are waiting for */
#define AFTERWARDS_MS 20000

/* A descriptor of the process that serves the mount; negative errno when it cannot be found. The
 * number comes from the mount itself, which anyone can make say anything: only a process of the
 * user who mounted is believed. */
static int daemon_of(const char *path, const struct mount_entry *m)
{
    char file[PATH_MAX + 16], proc[32];
    int64_t pid;
    struct stat st;
    snprintf(file, sizeof file, "%s/.omnifs/pid", path);
    AUTO_FD int fd = open(file, O_RDONLY | O_CLOEXEC);
    char buf[32] = "";
    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, buf, sizeof buf - 1);
    if (n <= 0 || parse_i64(str_trim(buf), &pid) || pid <= 1 || pid > INT_MAX)
        return -EINVAL;
    int process = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
    if (process < 0)
        return -errno;
    snprintf(proc, sizeof proc, "/proc/%lld", (long long)pid);
    if (stat(proc, &st) || (m->user_id >= 0 && st.st_uid != (uid_t)m->user_id)) {
        close(process);
        return -EPERM;
    }
    return process;
}

static void wait_for_end(int process, int ms)
{
    struct pollfd p = {.fd = process, .events = POLLIN};
    if (poll(&p, 1, PATIENCE_MS) != 0)
        return;
    fprintf(stderr, NAME ": waiting for running jobs to end (interrupt to stop waiting)\n");
    poll(&p, 1, ms);
}

static int unmount(const char *path, const struct mount_entry *m, bool lazy, struct err *e)
{
    AUTO_FD int process = daemon_of(path, m);
    if (process >= 0 && !lazy && !syscall(SYS_pidfd_send_signal, process, SIGTERM, NULL, 0)) {
        wait_for_end(process, -1);
        struct mount_entry left;
        if (mount_entry_find(path, &left) || strcmp(left.type, MOUNT_TYPE) != 0)
            return 0;
    }
    int r = mountpoint_unmount(path, lazy || process == -ENOTCONN, e);
    if (!r && process >= 0 && !lazy)
        wait_for_end(process, AFTERWARDS_MS);
    return r;
}

int cmd_umount(int argc, char **argv)
{
    bool lazy = false;
    const struct cli_usage usage = {
        .name = NAME,
        .synopsis = "DIR",
        .about = "Ends a mount cleanly: running jobs may finish (see mount -o timeout), what is\n"
                 "finished is delivered, the rest stays queued in the store for the next mount.\n"
                 "Returns when the daemon is gone.",
        .min_words = 1,
        .max_words = 1};
    const struct cli_option options[] = {
        {"lazy", 'l', CLI_FLAG, NULL, "take the mount away at once, whoever uses it", &lazy},
        {NULL, 0, CLI_FLAG, NULL, NULL, NULL}};
    AUTO_WORDS struct cli_words words = {0};
    int code = cli_parse(&usage, options, argc, argv, &words);
    if (code != CLI_CONTINUE)
        return code;

    struct err e = {0};
    struct mount_entry m;
    char path[PATH_MAX];
    if (mountpoint_resolve(words.words[0], path, &e))
        return cli_fail(NAME, CLI_FAILED, "%s", e.text);
    if (mount_entry_find(path, &m))
        return cli_fail(NAME, CLI_FAILED, "nothing is mounted on %s", path);
    if (strcmp(m.type, MOUNT_TYPE) != 0)
        return cli_fail(NAME, CLI_FAILED, "%s is a mount of type %s, not of omnifs: use umount",
                        path, m.type);
    if (unmount(path, &m, lazy, &e))
        return cli_fail(NAME, CLI_FAILED, "%s", e.text);
    return CLI_DONE;
}
