/* What the operations share. An operation answers its request exactly once, and waits for nothing
 * but the store. */
#ifndef OMNIFS_FS_OPS_H
#define OMNIFS_FS_OPS_H

#include "fs/fs.h"
#include "fs/handles.h"

#define PROMPT_NAME "prompt.ini"

/* Seconds the kernel may believe us. All changes come through it, so this only bounds what the
 * daemon itself does: virtual files change at any time, and an artifact's name must be asked for
 * each time because the publisher puts another node there (ops_lookup). */
#define OPS_TIMEOUT 1.0

static inline struct fs *ops_fs(fuse_req_t req)
{
    return fuse_req_userdata(req);
}
static inline struct open_file *ops_file(const struct fuse_file_info *fi)
{
    return (struct open_file *)(uintptr_t)fi->fh;
}

/* ---- ops.c ---- */

void ops_reply_err(fuse_req_t req, int r); /* r: 0 or negative errno */
/* A node of the tree with the attributes that users see. */
int ops_get(struct fs *fs, int64_t id, struct node *out);
/* Fills the entry of a node and counts the lookup; ops_unentry takes it back when the reply did not
 * reach the kernel. */
void ops_entry(struct fs *fs, const struct node *n, struct fuse_entry_param *out);
void ops_unentry(struct fs *fs, const struct fuse_entry_param *entry);
void ops_reply_entry(fuse_req_t req, const struct node *n);
void ops_reply_attr(fuse_req_t req, const struct stat *st, double timeout);
/* May the caller make or rename something called `name` in `parent`? -EPERM in fixed folders. */
int ops_check_place(int64_t parent);
bool ops_by_publisher(fuse_req_t req);

/* ---- events.c: the trigger's view of what happens ---- */

/* Something changed in folder `parent`; nothing when it is no job. */
void events_in(struct fs *fs, int64_t parent, enum trigger_event ev);
/* What an open file is to its folder now, whatever was renamed since. */
struct role {
    int64_t folder; /* job folder it lies in, or 0 */
    bool prompt;
};
struct role events_role(struct fs *fs, struct open_file *f);
struct role events_role_of(struct fs *fs, const struct node *n);
void events_opened(struct fs *fs, struct open_file *f, const struct node *n, bool truncated);
void events_written(struct fs *fs, struct open_file *f);
void events_synced(struct fs *fs, struct open_file *f);
void events_closing(struct fs *fs, struct open_file *f);

/* ---- the operations ---- */

void ops_init(void *userdata, struct fuse_conn_info *conn);

void ops_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void ops_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count);
void ops_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void ops_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
                 struct fuse_file_info *fi);
void ops_readlink(fuse_req_t req, fuse_ino_t ino);

void ops_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void ops_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void ops_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void ops_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                struct fuse_file_info *fi);
void ops_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void ops_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void ops_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name);
void ops_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                const char *new_name, unsigned flags);

void ops_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi);
void ops_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void ops_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *in, off_t off,
                   struct fuse_file_info *fi);
void ops_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
                   struct fuse_file_info *fi);
void ops_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void ops_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
                         struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
                         struct fuse_file_info *fi_out, size_t len, int flags);
void ops_poll(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
              struct fuse_pollhandle *ph);
/* Charges, sizes and limits for a file that is about to reach `end` bytes. */
int ops_check_growth(struct fs *fs, struct open_file *f, off_t end);

void ops_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void ops_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                     struct fuse_file_info *fi);
void ops_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi);

void ops_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
                  int flags);
void ops_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void ops_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void ops_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

#endif
