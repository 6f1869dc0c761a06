/* Folders: listing. A position is a node id, so that entries made or removed meanwhile are neither
 * shown twice nor make others disappear. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "fs/ops.h"

/* Positions: 1 after ".", 2 after "..", id + 2 after a node, then the virtual entries. */
enum { AFTER_DOT = 1, AFTER_DOTS = 2 };
#define AFTER_VIRTUAL VIRTUAL_BIT

struct listing {
    fuse_req_t req;
    struct fs *fs;
    int64_t folder, up;
    bool plus, full;
    off_t after; /* entries up to here were given before */
    int64_t virtual_index;
    char *buf;
    size_t size, used;
};

/* Adds one entry; false when the buffer is full. */
static bool add(struct listing *l, const char *name, const struct fuse_entry_param *entry, off_t at)
{
    char *to = l->buf + l->used;
    size_t room = l->size - l->used;
    size_t n = l->plus ? fuse_add_direntry_plus(l->req, to, room, name, entry, at)
                       : fuse_add_direntry(l->req, to, room, name, &entry->attr, at);
    l->full = n > room;
    if (!l->full)
        l->used += n;
    return !l->full;
}

/* An entry that the kernel does not count as looked up: ino 0. */
static bool add_uncounted(struct listing *l, const char *name, int64_t id, mode_t type, off_t at)
{
    if (at <= l->after)
        return true;
    struct fuse_entry_param entry = {.attr = {.st_ino = (ino_t)id, .st_mode = type}};
    return add(l, name, &entry, at);
}

static bool add_node(void *ctx, const struct node *n)
{
    struct listing *l = ctx;
    if (virtual_lookup(l->fs, l->folder, n->name))
        return true;
    struct fuse_entry_param entry = {.attr = n->st};
    if (!l->plus)
        return add(l, n->name, &entry, (off_t)n->id + AFTER_DOTS);
    ops_entry(l->fs, n, &entry);
    if (!add(l, n->name, &entry, (off_t)n->id + AFTER_DOTS))
        ops_unentry(l->fs, &entry);
    return !l->full;
}

static bool add_virtual(void *ctx, const char *name, int64_t id, mode_t mode)
{
    struct listing *l = ctx;
    return add_uncounted(l, name, id, mode, AFTER_VIRTUAL + ++l->virtual_index);
}

static int list(struct listing *l)
{
    struct node n;
    if (!fs_is_virtual(l->folder)) {
        int r = tree_get(l->fs->tree, l->folder, &n);
        if (r)
            return r;
        if (!S_ISDIR(n.st.st_mode))
            return -ENOTDIR;
        l->up = n.parent;
    } else {
        l->up = TREE_ROOT;
    }
    if (!add_uncounted(l, ".", l->folder, S_IFDIR, AFTER_DOT) ||
        !add_uncounted(l, "..", l->up, S_IFDIR, AFTER_DOTS))
        return 0;
    if (!fs_is_virtual(l->folder) && l->after < AFTER_VIRTUAL) {
        int64_t after = l->after > AFTER_DOTS ? l->after - AFTER_DOTS : 0;
        int r = tree_list(l->fs->tree, l->folder, after, add_node, l);
        if (r)
            return r;
    }
    if (!l->full)
        virtual_list(l->fs, l->folder, add_virtual, l);
    return 0;
}

/* The reply was interrupted: the kernel counted none of these. */
static void uncount(struct listing *l)
{
    struct fuse_direntplus { /* the kernel's: entry_out (128 bytes), dirent */
        uint64_t nodeid;
        uint8_t entry[120];
        uint64_t ino, off;
        uint32_t namelen, type;
    };
    for (size_t at = 0; l->plus && at + sizeof(struct fuse_direntplus) <= l->used;) {
        struct fuse_direntplus d;
        memcpy(&d, l->buf + at, sizeof d);
        if (d.nodeid)
            handles_forget(l->fs->handles, (int64_t)d.nodeid, 1);
        at += (sizeof d + d.namelen + 7) & ~(size_t)7;
    }
}

static void read_folder(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
    AUTO_FREE char *buf = malloc(size ? size : 1);
    if (!buf) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    struct listing l = {.req = req,
                        .fs = ops_fs(req),
                        .folder = (int64_t)ino,
                        .plus = plus,
                        .after = off,
                        .buf = buf,
                        .size = size};
    int r = list(&l);
    if (r && !l.used)
        ops_reply_err(req, r);
    else if (fuse_reply_buf(req, buf, l.used) == -ENOENT)
        uncount(&l);
}

void ops_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    (void)fi;
    read_folder(req, ino, size, off, false);
}

void ops_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                     struct fuse_file_info *fi)
{
    (void)fi;
    read_folder(req, ino, size, off, true);
}

void ops_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct node n;
    int r = 0;
    if (!fs_is_virtual((int64_t)ino))
        r = tree_get(ops_fs(req)->tree, (int64_t)ino, &n);
    if (r)
        ops_reply_err(req, r);
    else
        fuse_reply_open(req, fi);
}

void ops_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    (void)fi;
    fuse_reply_err(req, 0);
}

void ops_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
    (void)data_only;
    (void)fi;
    ops_reply_err(req, tree_sync(ops_fs(req)->tree, (int64_t)ino));
}
