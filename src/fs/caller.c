#include "fs/caller.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

bool caller_creates_exclusively(pid_t tid)
{
    /* proc(5): "NUMBER ARG0 ARG1 ARG2 …", arguments in hexadecimal; "running" when in none. */
    char path[48], line[256];
    long number;
    unsigned long args[3];
    snprintf(path, sizeof path, "/proc/%ld/syscall", (long)tid);
    AUTO_FD int fd = tid > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t n = fd >= 0 ? read(fd, line, sizeof line - 1) : -1;
    if (n <= 0)
        return false;
    line[n] = '\0';
    if (sscanf(line, "%ld %lx %lx %lx", &number, &args[0], &args[1], &args[2]) != 4)
        return false;
    unsigned long flags = number == SYS_openat ? args[2] : 0;
#ifdef SYS_open
    if (number == SYS_open)
        flags = args[1];
#endif
    return (flags & O_CREAT) && (flags & O_EXCL);
}
