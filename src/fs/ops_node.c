/* Nodes: lookup, forget, attributes, links' targets. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fs/ops.h"
#include "job/request.h"

/* ---- lookup ---- */

static void reply_virtual(fuse_req_t req, int64_t id)
{
    struct fuse_entry_param entry = {.ino = (fuse_ino_t)id, .generation = 1};
    int r = virtual_getattr(ops_fs(req), id, fuse_req_ctx(req), &entry.attr);
    if (r)
        ops_reply_err(req, r);
    else
        fuse_reply_entry(req, &entry);
}

static void reply_by_id(fuse_req_t req, int64_t id)
{
    if (fs_is_virtual(id)) {
        reply_virtual(req, id);
        return;
    }
    struct node n;
    int r = ops_get(ops_fs(req), id, &n);
    if (!r && n.parent == 0)
        r = -ESTALE; /* an NFS handle of a removed file */
    if (r)
        ops_reply_err(req, r);
    else
        ops_reply_entry(req, &n);
}

/* "." and ".." come for ids that this process may never have seen: NFS handles outlive it. */
static void lookup_dots(fuse_req_t req, int64_t id, bool up)
{
    struct node n;
    int r = 0;
    if (up && id & VIRTUAL_BIT) {
        id = (id & ~VIRTUAL_BIT) >> 4;
    } else if (up && fs_is_virtual(id)) {
        id = id >= FS_REPORT_BASE ? FS_OMNIFS_DIR : TREE_ROOT;
    } else if (up) {
        r = tree_get(ops_fs(req)->tree, id, &n);
        id = r ? 0 : n.parent;
        if (!r && !id)
            r = -ESTALE;
    }
    if (r)
        ops_reply_err(req, r);
    else
        reply_by_id(req, id);
}

void ops_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs *fs = ops_fs(req);
    struct publish_slot slot;
    if (!strcmp(name, ".") || !strcmp(name, "..")) {
        lookup_dots(req, (int64_t)parent, name[1] == '.');
        return;
    }
    int64_t virtual = virtual_lookup(fs, (int64_t)parent, name);
    if (virtual) {
        if (virtual_gives_way(virtual, fuse_req_ctx(req)))
            fuse_reply_err(req, ENOENT);
        else
            reply_virtual(req, virtual);
        return;
    }
    /* The publisher sees no file where it is about to put one, so that its open becomes CREATE and
     * the new artifact takes the old one's place in one step. */
    if (ops_by_publisher(req) && publisher_slot(fs, (int64_t)parent, name, &slot)) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    struct node n;
    int r = tree_lookup(fs->tree, (int64_t)parent, name, &n);
    if (r)
        ops_reply_err(req, r);
    else
        ops_reply_entry(req, &n);
}

void ops_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
    handles_forget(ops_fs(req)->handles, (int64_t)ino, count);
    fuse_reply_none(req);
}

void ops_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        handles_forget(ops_fs(req)->handles, (int64_t)forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(req);
}

/* ---- attributes ---- */

void ops_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)fi; /* nodes without a name are still found by id */
    struct fs *fs = ops_fs(req);
    struct node n = {0};
    bool virtual = fs_is_virtual((int64_t)ino);
    int r = virtual ? virtual_getattr(fs, (int64_t)ino, fuse_req_ctx(req), &n.st)
                    : ops_get(fs, (int64_t)ino, &n);
    if (r)
        ops_reply_err(req, r);
    else
        ops_reply_attr(req, &n.st, virtual ? 0 : OPS_TIMEOUT);
}

static int shorten_or_extend(struct fs *fs, const struct node *n, off_t size, int fd)
{
    int r = handles_resize(fs->handles, n->id, n->st.st_size, size);
    if (r)
        return r;
    if (!ftruncate(fd, size))
        return 0;
    r = -errno;
    handles_resize(fs->handles, n->id, size, n->st.st_size);
    return r;
}

static int set_size(struct fs *fs, const struct node *n, off_t size, struct open_file *f)
{
    if (S_ISDIR(n->st.st_mode))
        return -EISDIR;
    if (!S_ISREG(n->st.st_mode) || size < 0)
        return -EINVAL;
    if (n->artifact)
        return -EPERM;
    struct role role = events_role_of(fs, n);
    if (role.prompt && size > REQUEST_MAX_BYTES)
        return -EFBIG;
    AUTO_FD int fd = -1;
    if (!f) {
        fd = tree_open_data(fs->tree, n->id, O_WRONLY);
        if (fd < 0)
            return fd;
    }
    int r = shorten_or_extend(fs, n, size, f ? f->fd : fd);
    if (!r && role.folder)
        trigger_event(fs, role.folder, role.prompt ? TRIGGER_DIRTY : TRIGGER_TOUCHED);
    return r;
}

static int set_others(struct fs *fs, const struct node *n, const struct stat *attr, int to_set)
{
    static const struct {
        int fuse, tree;
    } bits[] = {{FUSE_SET_ATTR_MODE, TREE_SET_MODE},
                {FUSE_SET_ATTR_UID, TREE_SET_UID},
                {FUSE_SET_ATTR_GID, TREE_SET_GID},
                {FUSE_SET_ATTR_ATIME, TREE_SET_ATIME},
                {FUSE_SET_ATTR_MTIME, TREE_SET_MTIME}};
    int valid = 0;
    for (size_t i = 0; i < ARRAY_LEN(bits); i++)
        if (to_set & bits[i].fuse)
            valid |= bits[i].tree;
    if (!valid)
        return 0;
    struct stat st = *attr;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (to_set & FUSE_SET_ATTR_ATIME_NOW)
        st.st_atim = now;
    if (to_set & FUSE_SET_ATTR_MTIME_NOW)
        st.st_mtim = now;
    int r = tree_set(fs->tree, n->id, valid, &st);
    if (!r)
        events_in(fs, n->parent, TRIGGER_TOUCHED);
    return r;
}

void ops_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
                 struct fuse_file_info *fi)
{
    struct fs *fs = ops_fs(req);
    if (fs_is_virtual(
            (int64_t)ino)) { /* truncated by `> status`, given times by cp -p: no matter */
        ops_getattr(req, ino, fi);
        return;
    }
    struct node n;
    int r = tree_get(fs->tree, (int64_t)ino, &n);
    if (!r && to_set & FUSE_SET_ATTR_SIZE)
        r = set_size(fs, &n, attr->st_size, fi && ops_file(fi)->writer ? ops_file(fi) : NULL);
    if (!r)
        r = set_others(fs, &n, attr, to_set);
    if (!r)
        r = ops_get(fs, (int64_t)ino, &n);
    if (r)
        ops_reply_err(req, r);
    else
        ops_reply_attr(req, &n.st, OPS_TIMEOUT);
}

void ops_readlink(fuse_req_t req, fuse_ino_t ino)
{
    char target[PATH_MAX + 1];
    int r = tree_readlink(ops_fs(req)->tree, (int64_t)ino, target, sizeof target);
    if (r)
        ops_reply_err(req, r);
    else
        fuse_reply_readlink(req, target);
}
