#include "posix.h"

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"

#define FOLDER ".test"

static char home[PATH_MAX];

int posix_go_home(void)
{
    return chdir(home);
}

int posix_setup(void **state)
{
    struct mounted *m = calloc(1, sizeof *m);
    const char *why = mounted_impossible();
    if (why)
        fprintf(stderr, "%s\n", why);
    if (!m || why || !getcwd(home, sizeof home))
        return -1;
    *state = m;
    return mounted_start(m, "allow_other,debounce=50");
}

int posix_teardown(void **state)
{
    struct mounted *m = *state;
    int r = m->daemon ? mounted_end(m, SIGTERM) : 0;
    mounted_free(m);
    free(m);
    return r;
}

int posix_enter(void **state)
{
    struct mounted *m = *state;
    umask(0022);
    return chdir(mounted_path(m, "image")) || mkdir(FOLDER, 0755) || chdir(FOLDER) ? -1 : 0;
}

int posix_leave(void **state)
{
    (void)state;
    return chdir("..") || file_remove_tree(AT_FDCWD, FOLDER) || posix_go_home() ? -1 : 0;
}

int as_user(uid_t uid, int (*act)(void *arg), void *arg)
{
    pid_t child = fork();
    if (child == 0) {
        if (setgroups(0, NULL) || setgid(uid) || setuid(uid))
            _exit(255);
        _exit(act(arg));
    }
    int status;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int touch(const char *path)
{
    AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    return fd < 0 ? errno : 0;
}
