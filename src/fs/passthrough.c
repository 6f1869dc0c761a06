#include "fs/passthrough.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/log.h"
#include "fs/fs.h"

/* The kernel's ABI (include/uapi/linux/fuse.h), of which the installed header may be too old. */
struct out_header {
    uint32_t len;
    int32_t error;
    uint64_t unique;
};
struct init_out {
    uint32_t major, minor, max_readahead, flags;
    uint16_t max_background, congestion_threshold;
    uint32_t max_write, time_gran;
    uint16_t max_pages, map_alignment;
    uint32_t flags2, max_stack_depth;
    uint32_t unused[6];
};
struct open_out {
    uint64_t fh;
    uint32_t open_flags;
    int32_t backing_id;
};
struct backing_map {
    int32_t fd;
    uint32_t flags;
    uint64_t padding;
};
_Static_assert(sizeof(struct init_out) == 64, "as the kernel has it");
_Static_assert(sizeof(struct open_out) == 16, "as the kernel has it");

#define INIT_EXT          (1u << 30) /* flags2 counts */
#define INIT2_PASSTHROUGH (1u << 5)
#define OPEN_PASSTHROUGH  (1u << 7)
#define BACKING_OPEN      _IOW(229, 1, struct backing_map)
#define BACKING_CLOSE     _IOW(229, 2, uint32_t)

#define OVERLAYFS_MAGIC 0x794c7630

struct passthrough {
    int session_fd;
    uint32_t stack_depth;
    atomic_bool asked; /* INIT was answered */
    atomic_bool off;   /* the kernel said no */
};

/* ---- libfuse's I/O, with the reply to INIT extended ---- */

/* INIT is the first request of a session, and so is its reply. */
static void extend_init_reply(struct passthrough *pt, struct iovec *iov, int count)
{
    if (atomic_exchange(&pt->asked, true))
        return;
    const struct out_header *header = iov[0].iov_base;
    if (count != 2 || iov[0].iov_len != sizeof *header || header->error ||
        iov[1].iov_len != sizeof(struct init_out)) {
        atomic_store(&pt->off, true);
        return;
    }
    struct init_out *init = iov[1].iov_base;
    init->flags |= INIT_EXT;
    init->flags2 |= INIT2_PASSTHROUGH;
    init->max_stack_depth = pt->stack_depth;
}

static ssize_t hook_writev(int fd, struct iovec *iov, int count, void *userdata)
{
    struct passthrough *pt = ((struct fs *)userdata)->passthrough;
    if (!atomic_load_explicit(&pt->asked, memory_order_relaxed))
        extend_init_reply(pt, iov, count);
    return writev(fd, iov, count);
}

static ssize_t hook_read(int fd, void *buf, size_t size, void *userdata)
{
    (void)userdata;
    return read(fd, buf, size);
}

static ssize_t hook_splice(int in, off_t *in_at, int out, off_t *out_at, size_t size,
                           unsigned flags, void *userdata)
{
    (void)userdata;
    return splice(in, in_at, out, out_at, size, flags);
}

static const struct fuse_custom_io custom_io = {.writev = hook_writev,
                                                .read = hook_read,
                                                .splice_receive = hook_splice,
                                                .splice_send = hook_splice};

/* ---- life ---- */

int passthrough_new(struct fs *fs, const char *store, struct passthrough **out)
{
    *out = NULL;
    struct statfs below;
    if (geteuid() != 0)
        return -EPERM;
    if (statfs(store, &below))
        return -errno;
    struct passthrough *pt = calloc(1, sizeof *pt);
    if (!pt)
        return -ENOMEM;
    pt->session_fd = fuse_session_fd(fs->session);
    /* how many filesystems may lie between ours and the disk: in a container, overlayfs is one */
    pt->stack_depth = (unsigned long)below.f_type == OVERLAYFS_MAGIC ? 2 : 1;
    fs->passthrough = pt;
    int r = fuse_session_custom_io(fs->session, &custom_io, pt->session_fd);
    if (r) {
        fs->passthrough = NULL;
        free(pt);
        return r;
    }
    *out = pt;
    return 0;
}

void passthrough_free(struct passthrough *pt)
{
    free(pt);
}

/* ---- files ---- */

int passthrough_open(struct passthrough *pt, int fd)
{
    if (!pt || atomic_load(&pt->off))
        return 0;
    struct backing_map map = {.fd = fd};
    int id = ioctl(pt->session_fd, BACKING_OPEN, &map);
    if (id > 0)
        return id;
    bool for_ever = errno != ENOMEM && errno != ENFILE && errno != EMFILE && errno != ENOSPC;
    if (for_ever && !atomic_exchange(&pt->off, true))
        log_info("the kernel offers no passthrough here (%s): artifacts are spliced",
                 strerror(errno));
    return 0;
}

void passthrough_close(struct passthrough *pt, int backing)
{
    uint32_t id = (uint32_t)backing;
    if (pt && ioctl(pt->session_fd, BACKING_CLOSE, &id))
        log_warn("backing file %d cannot be closed: %s", backing, strerror(errno));
}

int passthrough_reply_open(fuse_req_t req, uint64_t fh, int backing)
{
    struct open_out out = {.fh = fh, .open_flags = OPEN_PASSTHROUGH, .backing_id = backing};
    return fuse_reply_buf(req, (const char *)&out, sizeof out);
}
