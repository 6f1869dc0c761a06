/* Replies, and the table of operations. */
#include "fs/ops.h"

#include <errno.h>
#include <sys/statvfs.h>

#include "fs/passthrough.h"

void ops_reply_err(fuse_req_t req, int r)
{
    fuse_reply_err(req, -r);
}

int ops_get(struct fs *fs, int64_t id, struct node *out)
{
    int r = tree_get(fs->tree, id, out);
    if (!r && id == TREE_ROOT)
        out->st.st_nlink++; /* .omnifs, which the tree does not know */
    return r;
}

void ops_entry(struct fs *fs, const struct node *n, struct fuse_entry_param *out)
{
    *out = (struct fuse_entry_param){.ino = (fuse_ino_t)n->id,
                                     .generation = 1,
                                     .attr = n->st,
                                     .attr_timeout = OPS_TIMEOUT,
                                     .entry_timeout = n->artifact ? 0 : OPS_TIMEOUT};
    handles_lookup(fs->handles, n->id);
}

void ops_unentry(struct fs *fs, const struct fuse_entry_param *entry)
{
    handles_forget(fs->handles, (int64_t)entry->ino, 1);
}

void ops_reply_entry(fuse_req_t req, const struct node *n)
{
    struct fs *fs = ops_fs(req);
    struct fuse_entry_param entry;
    ops_entry(fs, n, &entry);
    if (fuse_reply_entry(req, &entry) == -ENOENT) /* interrupted: the kernel did not take it */
        ops_unentry(fs, &entry);
}

void ops_reply_attr(fuse_req_t req, const struct stat *st, double timeout)
{
    fuse_reply_attr(req, st, timeout);
}

int ops_check_place(int64_t parent)
{
    return parent == TREE_ROOT || fs_is_virtual(parent) ? -EPERM : 0;
}

bool ops_by_publisher(fuse_req_t req)
{
    return publisher_is_caller(ops_fs(req), fuse_req_ctx(req));
}

/* The store's disk, or what the limit leaves of it. */
static void ops_statfs(fuse_req_t req, fuse_ino_t ino)
{
    (void)ino;
    struct fs *fs = ops_fs(req);
    struct statvfs st;
    if (statvfs(tree_store_path(fs->tree), &st)) {
        fuse_reply_err(req, errno);
        return;
    }
    uint64_t limit = jobs_limit_store_bytes(fs->jobs), used = tree_bytes_used(fs->tree);
    uint64_t block = st.f_frsize ? st.f_frsize : 4096;
    if (limit && limit / block < st.f_blocks) {
        uint64_t left = limit > used ? (limit - used) / block : 0;
        st.f_blocks = limit / block;
        if (st.f_bfree > left)
            st.f_bfree = left;
        if (st.f_bavail > left)
            st.f_bavail = left;
    }
    st.f_namemax = TREE_NAME_MAX;
    fuse_reply_statfs(req, &st);
}

const struct fuse_lowlevel_ops fs_operations = {
    .init = ops_init,
    .lookup = ops_lookup,
    .forget = ops_forget,
    .forget_multi = ops_forget_multi,
    .getattr = ops_getattr,
    .setattr = ops_setattr,
    .readlink = ops_readlink,
    .mknod = ops_mknod,
    .mkdir = ops_mkdir,
    .symlink = ops_symlink,
    .create = ops_create,
    .unlink = ops_unlink,
    .rmdir = ops_rmdir,
    .link = ops_link,
    .rename = ops_rename,
    .open = ops_open,
    .release = ops_release,
    .flush = ops_flush,
    .fsync = ops_fsync,
    .read = ops_read,
    .write_buf = ops_write_buf,
    .fallocate = ops_fallocate,
    .lseek = ops_lseek,
    .copy_file_range = ops_copy_file_range,
    .poll = ops_poll,
    .opendir = ops_opendir,
    .readdir = ops_readdir,
    .readdirplus = ops_readdirplus,
    .releasedir = ops_releasedir,
    .fsyncdir = ops_fsyncdir,
    .statfs = ops_statfs,
    .setxattr = ops_setxattr,
    .getxattr = ops_getxattr,
    .listxattr = ops_listxattr,
    .removexattr = ops_removexattr,
};
