/* Open files: open, release, read, write and their relatives. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/ops.h"
#include "job/request.h"
#include "fs/passthrough.h"

/* ---- open and release ---- */

/* Answers OPEN of an artifact; its content never changes under this id. */
static int reply_artifact(fuse_req_t req, struct open_file *f, struct fuse_file_info *fi)
{
    struct fs *fs = ops_fs(req);
    int backing = handles_backing(fs->handles, fs->passthrough, f);
    return backing ? passthrough_reply_open(req, fi->fh, backing) : fuse_reply_open(req, fi);
}

static int open_node(struct fs *fs, const struct node *n, int flags, struct open_file **out)
{
    bool writer = (flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC;
    if (!S_ISREG(n->st.st_mode))
        return S_ISDIR(n->st.st_mode) ? -EISDIR : -ENXIO;
    if (n->artifact && writer)
        return -EPERM;
    int access = flags & O_ACCMODE;
    if (access == O_RDONLY && writer)
        access = O_RDWR; /* O_RDONLY | O_TRUNC is allowed to who may write */
    int fd = tree_open_data(fs->tree, n->id, access | (flags & (O_SYNC | O_DSYNC)));
    if (fd < 0)
        return fd;
    int64_t size = n->st.st_size;
    if (flags & O_TRUNC) {
        int r = handles_resize(fs->handles, n->id, size, 0);
        if (!r && ftruncate(fd, 0))
            r = -errno;
        if (r) {
            close(fd);
            return r;
        }
        size = 0;
    }
    *out = handles_open(fs->handles, n->id, fd, writer, size);
    if (!*out) {
        close(fd);
        return -ENOMEM;
    }
    events_opened(fs, *out, n, flags & O_TRUNC);
    return 0;
}

void ops_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *fs = ops_fs(req);
    if (fs_is_virtual((int64_t)ino)) {
        virtual_open(fs, req, (int64_t)ino, fi);
        return;
    }
    struct node n;
    struct open_file *f = NULL;
    int r = tree_get(fs->tree, (int64_t)ino, &n);
    if (!r)
        r = open_node(fs, &n, fi->flags, &f);
    if (r) {
        ops_reply_err(req, r);
        return;
    }
    fi->fh = (uint64_t)(uintptr_t)f;
    fi->keep_cache = 1; /* all writes go through the kernel, which keeps its cache right */
    r = n.artifact ? reply_artifact(req, f, fi) : fuse_reply_open(req, fi);
    if (r == -ENOENT) { /* interrupted: no RELEASE will come */
        events_closing(fs, f);
        handles_release(fs->handles, fs->passthrough, f);
    }
}

void ops_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *fs = ops_fs(req);
    if (fs_is_virtual((int64_t)ino)) {
        virtual_release(fs, req, (int64_t)ino, fi);
        return;
    }
    events_closing(fs, ops_file(fi));
    handles_release(fs->handles, fs->passthrough, ops_file(fi));
    fuse_reply_err(req, 0);
}

/* close(2) of one of several descriptors: not the end of writing, and nothing is delayed here. */
void ops_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    (void)fi;
    fuse_reply_err(req, 0);
}

void ops_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
    struct fs *fs = ops_fs(req);
    if (fs_is_virtual((int64_t)ino)) {
        fuse_reply_err(req, 0);
        return;
    }
    struct open_file *f = ops_file(fi);
    int r = (data_only ? fdatasync(f->fd) : fsync(f->fd)) ? -errno : 0;
    if (!r)
        r = tree_sync(fs->tree, f->id);
    if (!r)
        events_synced(fs, f);
    ops_reply_err(req, r);
}

/* ---- read ---- */

void ops_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    if (fs_is_virtual((int64_t)ino)) {
        virtual_read(ops_fs(req), req, (int64_t)ino, size, off, fi);
        return;
    }
    struct fuse_bufvec buf = FUSE_BUFVEC_INIT(size);
    buf.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK | FUSE_BUF_FD_RETRY;
    buf.buf[0].fd = ops_file(fi)->fd;
    buf.buf[0].pos = off;
    fuse_reply_data(req, &buf, 0);
}

/* ---- write ---- */

int ops_check_growth(struct fs *fs, struct open_file *f, off_t end)
{
    struct stat st;
    if (events_role(fs, f).prompt && end > REQUEST_MAX_BYTES)
        return -EFBIG;
    if (fstat(f->fd, &st))
        return -errno;
    return end > st.st_size ? handles_grow(fs->handles, f->id, st.st_size, end) : 0;
}

/* Where a write of `len` bytes at `off` ends; negative errno when there is no such place. */
static off_t end_of(off_t off, size_t len)
{
    off_t end;
    return off < 0 || __builtin_add_overflow(off, len, &end) ? -EFBIG : end;
}

void ops_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *in, off_t off,
                   struct fuse_file_info *fi)
{
    struct fs *fs = ops_fs(req);
    size_t size = fuse_buf_size(in);
    if (fs_is_virtual((int64_t)ino)) {
        virtual_write(fs, req, (int64_t)ino, size, fi);
        return;
    }
    struct open_file *f = ops_file(fi);
    off_t end = end_of(off, size);
    int r = end < 0 ? (int)end : ops_check_growth(fs, f, end);
    if (r) {
        ops_reply_err(req, r);
        return;
    }
    struct fuse_bufvec out = FUSE_BUFVEC_INIT(size);
    out.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK | FUSE_BUF_FD_RETRY;
    out.buf[0].fd = f->fd;
    out.buf[0].pos = off;
    ssize_t n = fuse_buf_copy(&out, in, 0);
    if (n < 0) {
        ops_reply_err(req, (int)n);
        return;
    }
    events_written(fs, f);
    fuse_reply_write(req, (size_t)n);
}

void ops_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
                   struct fuse_file_info *fi)
{
    struct fs *fs = ops_fs(req);
    if (fs_is_virtual((int64_t)ino)) {
        fuse_reply_err(req, EOPNOTSUPP);
        return;
    }
    struct open_file *f = ops_file(fi);
    off_t end = end_of(off, (size_t)len);
    int r = len <= 0 ? -EINVAL : end < 0 ? (int)end : 0;
    if (!r && !(mode & FALLOC_FL_KEEP_SIZE))
        r = ops_check_growth(fs, f, end);
    if (!r && fallocate(f->fd, mode, off, len))
        r = -errno;
    if (!r)
        events_written(fs, f);
    ops_reply_err(req, r);
}

void ops_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
                         struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
                         struct fuse_file_info *fi_out, size_t len, int flags)
{
    struct fs *fs = ops_fs(req);
    if (fs_is_virtual((int64_t)ino_in) || fs_is_virtual((int64_t)ino_out)) {
        fuse_reply_err(req, EXDEV); /* the kernel then copies by reading */
        return;
    }
    struct open_file *from = ops_file(fi_in), *to = ops_file(fi_out);
    struct stat st;
    off_t left = fstat(from->fd, &st) || off_in >= st.st_size ? 0 : st.st_size - off_in;
    if ((off_t)len > left || (off_t)len < 0)
        len = (size_t)left;
    off_t end = end_of(off_out, len);
    int r = end < 0 ? (int)end : ops_check_growth(fs, to, end);
    if (r) {
        ops_reply_err(req, r);
        return;
    }
    ssize_t n =
        len ? copy_file_range(from->fd, &off_in, to->fd, &off_out, len, (unsigned)flags) : 0;
    if (n < 0) {
        fuse_reply_err(req, errno);
        return;
    }
    events_written(fs, to);
    fuse_reply_write(req, (size_t)n);
}

/* ---- others ---- */

void ops_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
    if (fs_is_virtual((int64_t)ino)) {
        fuse_reply_err(req, EINVAL);
        return;
    }
    off_t at = lseek(ops_file(fi)->fd, off, whence);
    if (at < 0)
        fuse_reply_err(req, errno);
    else
        fuse_reply_lseek(req, at);
}

void ops_poll(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct fuse_pollhandle *ph)
{
    if (fs_is_virtual((int64_t)ino)) {
        virtual_poll(ops_fs(req), req, (int64_t)ino, fi, ph);
        return;
    }
    if (ph)
        fuse_pollhandle_destroy(ph);
    fuse_reply_poll(req, POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM);
}
