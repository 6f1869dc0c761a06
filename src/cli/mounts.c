#include "cli/mounts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"

#define FS_TYPE "fuse.omnifs"

static bool octal_escape(const char *s)
{
    return s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
           s[3] >= '0' && s[3] <= '7';
}

void mounts_unescape(char *path)
{
    char *to = path;
    for (const char *from = path; *from; to++) {
        if (octal_escape(from)) {
            *to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

/* The mount point when `line` is an omnifs mount, cut out in place; else NULL. proc(5): the mount
 * point is the fifth field, the type follows " - ". */
static char *mount_point(char *line)
{
    char *type = strstr(line, " - ");
    if (!type || strncmp(type + 3, FS_TYPE " ", sizeof FS_TYPE) != 0)
        return NULL;
    char *field = line, *rest = line;
    for (int i = 0; i < 5 && rest; i++)
        field = strsep(&rest, " ");
    mounts_unescape(field);
    return field;
}

int mounts_each(int (*each)(void *ctx, const char *path), void *ctx)
{
    AUTO_FILE FILE *f = fopen("/proc/self/mountinfo", "re");
    if (!f)
        return -errno;
    AUTO_FREE char *line = NULL;
    size_t size = 0;
    int rc = 0;
    while (!rc && getline(&line, &size, f) > 0) {
        const char *path = mount_point(line);
        if (path)
            rc = each(ctx, path);
    }
    return rc;
}

struct found {
    int count;
    char first[PATH_MAX];
    struct str all;
};

static int note(void *ctx, const char *path)
{
    struct found *f = ctx;
    if (f->count++ == 0)
        snprintf(f->first, sizeof f->first, "%s", path);
    str_addf(&f->all, "%s%s", f->count > 1 ? ", " : "", path);
    return 0;
}

int mounts_only(char path[PATH_MAX], struct err *e)
{
    struct found f = {0};
    int rc = mounts_each(note, &f);
    if (rc)
        err_set(e, rc, "/proc/self/mountinfo: %s", strerror(-rc));
    else if (f.count == 0)
        rc = err_set(e, -ENOENT, "nothing is mounted; omnifs mount DIR does it");
    else if (f.count > 1)
        rc = err_set(e, -EINVAL, "there are %d mounts, name one of %s", f.count, str_cstr(&f.all));
    else
        memcpy(path, f.first, PATH_MAX);
    str_free(&f.all);
    return rc;
}
