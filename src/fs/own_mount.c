#include "fs/own_mount.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include "base/cleanup.h"

#define RENAME_RETRIES 16

static int open_beneath(int root, const char *path)
{
    struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};
    long fd = syscall(SYS_openat2, root, path, &how, sizeof how);
    return fd < 0 ? -errno : (int)fd;
}

static int open_root(struct own_mount *m)
{
    struct stat st;
    struct statfs fs;
    AUTO_FD int root = open(m->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0 || fstat(root, &st) || fstatfs(root, &fs))
        return -errno;
    bool ours =
        fs.f_type == FUSE_SUPER_MAGIC && st.st_ino == TREE_ROOT && (!m->dev || m->dev == st.st_dev);
    if (!ours)
        return m->dev ? -ENOTCONN : -EAGAIN;
    m->dev = st.st_dev;
    int fd = root;
    root = -1;
    return fd;
}

/* The place of a job folder as it is called now: "image/cat". */
static int folder_path(struct fs *fs, int64_t folder, char *out, size_t size)
{
    struct node n;
    enum modality modality;
    if (tree_get(fs->tree, folder, &n) || !fs_is_job_folder(&n) ||
        !fs_modality_of(n.parent, &modality))
        return -ENOENT;
    return snprintf(out, size, "%s/%s", modality_names[modality], n.name) < (int)size
               ? 0
               : -ENAMETOOLONG;
}

int own_mount_open(struct own_mount *m, struct fs *fs, int64_t folder)
{
    AUTO_FD int root = open_root(m);
    if (root < 0)
        return root;
    char path[TREE_NAME_MAX + 32];
    /* A rename may fall between asking for the name and opening it; the inode number tells. */
    for (int i = 0; i < RENAME_RETRIES; i++) {
        int r = folder_path(fs, folder, path, sizeof path);
        if (r)
            return r;
        struct stat st;
        AUTO_FD int fd = open_beneath(root, path);
        if (fd >= 0 && !fstat(fd, &st) && st.st_ino == (ino_t)folder) {
            int found = fd;
            fd = -1;
            return found;
        }
        if (fd < 0 && fd != -ENOENT && fd != -ENOTDIR && fd != -ELOOP && fd != -EXDEV &&
            fd != -EAGAIN)
            return fd;
    }
    return -ENOENT;
}
