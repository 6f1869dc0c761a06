#include "cli/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

/* The daemon's only word: `code` 0 means ready. */
struct word {
    int code;
    char text[sizeof((struct err *)0)->text];
};

static int wait_for_word(int fd, pid_t child, struct err *e)
{
    struct word w;
    size_t got = 0;
    while (got < sizeof w) {
        ssize_t n = read(fd, (char *)&w + got, sizeof w - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        got += (size_t)n;
    }
    if (got == sizeof w && w.code == 0)
        return 1;
    if (got == sizeof w)
        return err_set(e, w.code, "%s", w.text);
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status))
        return err_set(e, -ECHILD, "the daemon was killed by signal %d while it started",
                       WTERMSIG(status));
    return err_set(e, -ECHILD, "the daemon ended while it started (exit status %d)",
                   WEXITSTATUS(status));
}

/* The three standard descriptors must be taken, or the mount's own would land there. */
static void fill_standard_fds(void)
{
    int fd;
    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= 2);
    if (fd > 2)
        close(fd);
}

int daemon_split(struct daemon *d, struct err *e)
{
    fill_standard_fds();
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return err_set(e, -errno, "pipe: %s", strerror(errno));
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) {
        int code = errno;
        close(ends[0]);
        close(ends[1]);
        return err_set(e, -code, "fork: %s", strerror(code));
    }
    if (child == 0) {
        close(ends[0]);
        d->pipe = ends[1];
        setsid();
        return 0;
    }
    close(ends[1]);
    int r = wait_for_word(ends[0], child, e);
    close(ends[0]);
    return r;
}

static void say(struct daemon *d, const struct word *w)
{
    if (d->pipe < 0)
        return;
    /* Smaller than PIPE_BUF, so written whole; a parent that was killed is no reason to stop. */
    if (write(d->pipe, w, sizeof *w) < 0)
        log_debug("the starting process is gone");
    close(d->pipe);
    d->pipe = -1;
}

void daemon_ready(struct daemon *d)
{
    struct word w = {0};
    say(d, &w);
}

void daemon_failed(struct daemon *d, const struct err *e)
{
    struct word w = {.code = e->code ? e->code : -EIO};
    snprintf(w.text, sizeof w.text, "%s", e->text);
    say(d, &w);
}

void daemon_detach(const char *store)
{
    int to_syslog = !access("/dev/log", W_OK);
    char path[4096] = "/dev/null";
    if (!to_syslog)
        snprintf(path, sizeof path, "%s/omnifs.log", store);
    AUTO_FD int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    AUTO_FD int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        dup2(log >= 0 ? log : null, STDERR_FILENO);
    }
    log_open(LOG_LEVEL_INFO, to_syslog);
}

void daemon_notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof a.sun_path)
        return;
    memcpy(a.sun_path, path, strlen(path));
    if (path[0] == '@') /* the abstract namespace */
        a.sun_path[0] = '\0';
    AUTO_FD int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (fd < 0 || sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&a, size) < 0)
        log_warn("cannot tell the service manager %s: %s", state, strerror(errno));
}
