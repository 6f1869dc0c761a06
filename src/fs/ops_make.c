/* Making nodes: mknod, mkdir, symlink, create. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "fs/ops.h"

struct request {
    fuse_req_t req;
    int64_t parent;
    const char *name;
    mode_t mode;
    dev_t rdev;
    const char *target;
};

/* Is `name` in `parent` where a job would be? */
static bool would_be_job(int64_t parent, const char *name)
{
    enum modality modality;
    return fs_modality_of(parent, &modality) && name[0] != '.';
}

static int make(const struct request *q, struct node *out)
{
    struct fs *fs = ops_fs(q->req);
    const struct fuse_ctx *caller = fuse_req_ctx(q->req);
    struct node parent;
    int r = ops_check_place(q->parent);
    if (r)
        return r;
    if (virtual_lookup(fs, q->parent, q->name))
        return -EEXIST;
    if (S_ISDIR(q->mode) && would_be_job(q->parent, q->name) &&
        (r = jobs_may_add(fs->jobs, caller->uid)))
        return r;
    r = tree_get(fs->tree, q->parent, &parent);
    if (r)
        return r;
    mode_t mode = q->mode;
    gid_t gid = caller->gid;
    if (parent.st.st_mode & S_ISGID) {
        gid = parent.st.st_gid;
        if (S_ISDIR(mode))
            mode |= S_ISGID;
    }
    r = tree_make(fs->tree, q->parent, q->name, mode, caller->uid, gid, q->rdev, q->target, out);
    return r;
}

static void make_and_reply(const struct request *q)
{
    struct node n;
    int r = make(q, &n);
    if (r) {
        ops_reply_err(q->req, r);
        return;
    }
    events_in(ops_fs(q->req), q->parent, TRIGGER_TOUCHED);
    ops_reply_entry(q->req, &n);
}

void ops_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    struct request q = {
        .req = req, .parent = (int64_t)parent, .name = name, .mode = mode, .rdev = rdev};
    make_and_reply(&q);
}

void ops_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct request q = {
        .req = req, .parent = (int64_t)parent, .name = name, .mode = S_IFDIR | (mode & 07777)};
    make_and_reply(&q);
}

void ops_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    struct request q = {.req = req,
                        .parent = (int64_t)parent,
                        .name = name,
                        .mode = S_IFLNK | 0777,
                        .target = target};
    if (strlen(target) >= PATH_MAX)
        fuse_reply_err(req, ENAMETOOLONG);
    else
        make_and_reply(&q);
}

/* ---- create ---- */

/* Replies with the open file `fd` (taken over). */
static void reply_create(fuse_req_t req, const struct node *n, int fd, struct fuse_file_info *fi,
                         bool writer)
{
    struct fs *fs = ops_fs(req);
    struct open_file *f = handles_open(fs->handles, n->id, fd, writer, n->st.st_size);
    if (!f) {
        close(fd);
        fuse_reply_err(req, ENOMEM);
        return;
    }
    if (writer)
        events_opened(fs, f, n, true);
    struct fuse_entry_param entry;
    ops_entry(fs, n, &entry);
    fi->fh = (uint64_t)(uintptr_t)f;
    if (fuse_reply_create(req, &entry, fi) == -ENOENT) {
        events_closing(fs, f);
        handles_release(fs->handles, fs->passthrough, f);
        ops_unentry(fs, &entry);
    }
}

/* The finished file takes the name; it is complete before anyone can see it. */
static void create_artifact(fuse_req_t req, int64_t parent, const char *name,
                            const struct publish_slot *slot, struct fuse_file_info *fi)
{
    struct fs *fs = ops_fs(req);
    struct node n;
    int64_t replaced;
    int r = tree_adopt(fs->tree, parent, name, slot->path, slot->uid, slot->gid, slot->mode,
                       slot->origin, &n, &replaced);
    if (r) {
        ops_reply_err(req, r);
        return;
    }
    if (replaced)
        handles_unlinked(fs->handles, replaced);
    int fd = tree_open_data(fs->tree, n.id, O_RDONLY);
    if (fd < 0) {
        ops_reply_err(req, fd);
        return;
    }
    fi->direct_io = 1; /* leaves the inode free for passthrough while the publisher has it open */
    reply_create(req, &n, fd, fi, false);
}

void ops_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                struct fuse_file_info *fi)
{
    struct fs *fs = ops_fs(req);
    struct publish_slot slot;
    if (ops_by_publisher(req) && publisher_slot(fs, (int64_t)parent, name, &slot)) {
        create_artifact(req, (int64_t)parent, name, &slot, fi);
        return;
    }
    int64_t virtual = virtual_lookup(fs, (int64_t)parent, name);
    if (virtual) {
        virtual_create(fs, req, virtual, fi);
        return;
    }
    struct request q = {
        .req = req, .parent = (int64_t)parent, .name = name, .mode = S_IFREG | (mode & 07777)};
    struct node n;
    int r = make(&q, &n);
    /* The name appeared since the kernel looked; it looks again after ESTALE. */
    if (r == -EEXIST && !(fi->flags & O_EXCL))
        r = -ESTALE;
    int fd = r ? r : tree_open_data(fs->tree, n.id, fi->flags & O_ACCMODE);
    if (fd < 0) {
        ops_reply_err(req, fd);
        return;
    }
    fi->keep_cache = 1;
    bool writer = (fi->flags & O_ACCMODE) != O_RDONLY;
    if (!writer)
        events_in(fs, (int64_t)parent, TRIGGER_TOUCHED);
    reply_create(req, &n, fd, fi, writer);
}
