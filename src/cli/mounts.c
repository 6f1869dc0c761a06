#include "cli/mounts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "fs/mountpoint.h"

struct asked {
    int (*each)(void *ctx, const char *path);
    void *ctx;
};

static int only_ours(void *ctx, const struct mount_entry *entry)
{
    const struct asked *a = ctx;
    return strcmp(entry->type, MOUNT_TYPE) != 0 ? 0 : a->each(a->ctx, entry->path);
}

int mounts_each(int (*each)(void *ctx, const char *path), void *ctx)
{
    struct asked a = {each, ctx};
    return mount_entry_each(only_ours, &a);
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
