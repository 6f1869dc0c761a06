#include "fs/mountpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"

/* ---- mountinfo ---- */

static bool octal_escape(const char *s)
{
    return s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
           s[3] >= '0' && s[3] <= '7';
}

void mount_unescape(char *field)
{
    char *to = field;
    for (const char *from = field; *from; to++) {
        if (octal_escape(from)) {
            *to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

static void copy_field(char *out, size_t size, char *field)
{
    if (field)
        mount_unescape(field);
    snprintf(out, size, "%s", field ? field : "");
}

/* "36 35 98:0 /root /mount/point options optional… - type source super-options" */
static bool parse_line(char *line, struct mount_entry *out)
{
    char *rest = strstr(line, " - ");
    if (!rest)
        return false;
    *rest = '\0';
    rest += 3;
    char *field = NULL;
    for (int i = 0; i < 5 && line; i++)
        field = strsep(&line, " ");
    if (!field)
        return false;
    copy_field(out->path, sizeof out->path, field);
    copy_field(out->type, sizeof out->type, strsep(&rest, " "));
    copy_field(out->source, sizeof out->source, rest ? strsep(&rest, " ") : NULL);
    const char *user = rest ? strstr(rest, "user_id=") : NULL;
    out->user_id = user ? strtol(user + strlen("user_id="), NULL, 10) : -1;
    return true;
}

int mount_entry_each(int (*each)(void *ctx, const struct mount_entry *entry), void *ctx)
{
    AUTO_FILE FILE *f = fopen("/proc/self/mountinfo", "re");
    if (!f)
        return -errno;
    AUTO_FREE char *line = NULL;
    size_t size = 0;
    int r = 0;
    struct mount_entry entry;
    while (!r && getline(&line, &size, f) > 0)
        if (parse_line(line, &entry))
            r = each(ctx, &entry);
    return r;
}

struct wanted {
    const char *path;
    struct mount_entry *out;
    bool found;
};

static int keep_wanted(void *ctx, const struct mount_entry *entry)
{
    struct wanted *w = ctx;
    if (!strcmp(entry->path, w->path)) {
        *w->out = *entry;
        w->found = true;
    }
    return 0; /* later lines lie on top */
}

int mount_entry_find(const char *path, struct mount_entry *out)
{
    struct wanted w = {.path = path, .out = out};
    int r = mount_entry_each(keep_wanted, &w);
    return r ? r : w.found ? 0 : -ENOENT;
}

/* ---- the folder ---- */

int mountpoint_resolve(const char *dir, char path[PATH_MAX], struct err *e)
{
    if (realpath(dir, path))
        return 0;
    /* A dead mount cannot be entered: resolve its parent and keep the last name. */
    int code = errno;
    AUTO_FREE char *copy = strdup(dir);
    if (!copy)
        return err_nomem(e);
    size_t n = strlen(copy);
    while (n > 1 && copy[n - 1] == '/')
        copy[--n] = '\0';
    char *slash = strrchr(copy, '/');
    const char *name = slash ? slash + 1 : copy;
    char parent[PATH_MAX];
    if (slash)
        *slash = '\0';
    const char *above = !slash ? "." : *copy ? copy : "/";
    if (code != ENOENT && realpath(above, parent) &&
        snprintf(path, PATH_MAX, "%s/%s", strcmp(parent, "/") ? parent : "", name) < PATH_MAX)
        return 0;
    if (code == ENOENT)
        return err_set(e, -ENOENT, "%s does not exist; make it with mkdir, then mount again", dir);
    return err_set(e, -code, "%s: %s", dir, strerror(code));
}

static int check_empty(const char *path, struct err *e)
{
    DIR *d = opendir(path);
    if (!d)
        return err_set(e, -errno, "%s: %s", path, strerror(errno));
    struct dirent *entry;
    do {
        entry = readdir(d);
    } while (entry && (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")));
    int r = entry ? err_set(e, -ENOTEMPTY,
                            "%s is not empty (it holds %s); mounting would hide its files: choose "
                            "an empty folder, or add -o nonempty",
                            path, entry->d_name)
                  : 0;
    closedir(d);
    return r;
}

static int remove_stale(const char *path, struct err *e)
{
    struct mount_entry m;
    if (mount_entry_find(path, &m))
        return err_set(e, -ENOTCONN, "%s: %s", path, strerror(ENOTCONN));
    if (strcmp(m.type, MOUNT_TYPE) != 0)
        return err_set(e, -ENOTCONN,
                       "%s is a dead mount of type %s; remove it with umount -l %s first", path,
                       m.type, path);
    log_info("%s was left behind by a daemon that died: unmounting it", path);
    return mountpoint_unmount(path, true, e);
}

/* stat(2) that a dead mount does not answer from the kernel's memory: opening a folder always asks
 * the daemon. */
static int look(const char *path, struct stat *st)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == ENOTCONN)
        return -ENOTCONN;
    return stat(path, st) ? -errno : 0;
}

int mountpoint_prepare(const char *path, bool nonempty, struct err *e)
{
    struct stat st;
    struct mount_entry m;
    int r = look(path, &st);
    if (r == -ENOTCONN) {
        r = remove_stale(path, e);
        if (r)
            return r;
        r = look(path, &st);
    }
    if (r)
        return err_set(e, r, "%s: %s", path, strerror(-r));
    if (!S_ISDIR(st.st_mode))
        return err_set(e, -ENOTDIR, "%s is not a folder; a mount point must be one", path);
    if (!mount_entry_find(path, &m) && !strcmp(m.type, MOUNT_TYPE))
        return err_set(e, -EBUSY, "omnifs is already mounted on %s (store %s)", path, m.source);
    return nonempty ? 0 : check_empty(path, e);
}

/* ---- unmount ---- */

static int spawn_fusermount(const char *path, bool lazy)
{
    char *argv[] = {"fusermount3", "-u", "-q", "--", (char *)path, NULL};
    char *argv_lazy[] = {"fusermount3", "-u", "-q", "-z", "--", (char *)path, NULL};
    pid_t pid;
    int r = posix_spawnp(&pid, "fusermount3", NULL, NULL, lazy ? argv_lazy : argv, environ);
    if (r)
        return -r;
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EBUSY;
}

int mountpoint_unmount(const char *path, bool lazy, struct err *e)
{
    int r = umount2(path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) ? -errno : 0;
    if (r == -EPERM)
        r = spawn_fusermount(path, lazy);
    if (r == -EBUSY)
        return err_set(e, r,
                       "%s is in use: leave its folders and close its files (fuser -vm %s names "
                       "the programs), or use omnifs umount --lazy",
                       path, path);
    return r ? err_set(e, r, "cannot unmount %s: %s", path, strerror(-r)) : 0;
}
