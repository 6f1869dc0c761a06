/* Extended attributes: those of users. For all others the answer is ENOTSUP; ENOSYS would make the
 * kernel stop asking for any. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "fs/ops.h"

static int check(fuse_ino_t ino, const char *name)
{
    return !fs_is_virtual((int64_t)ino) && !strncmp(name, "user.", 5) && name[5] ? 0 : -ENOTSUP;
}

void ops_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
                  int flags)
{
    int r = check(ino, name);
    if (!r)
        r = tree_xattr_set(ops_fs(req)->tree, (int64_t)ino, name, value, size, flags);
    ops_reply_err(req, r);
}

/* Size 0 asks for the length. */
static void reply(fuse_req_t req, int n, const char *buf, size_t size)
{
    if (n < 0)
        ops_reply_err(req, n);
    else if (size == 0)
        fuse_reply_xattr(req, (size_t)n);
    else
        fuse_reply_buf(req, buf, (size_t)n);
}

void ops_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    int n = check(ino, name);
    AUTO_FREE char *buf = NULL;
    if (!n && size && !(buf = malloc(size)))
        n = -ENOMEM;
    if (!n)
        n = tree_xattr_get(ops_fs(req)->tree, (int64_t)ino, name, buf, size);
    reply(req, n, buf, size);
}

void ops_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    AUTO_FREE char *buf = size ? malloc(size) : NULL;
    int n = size && !buf ? -ENOMEM
            : fs_is_virtual((int64_t)ino)
                ? 0
                : tree_xattr_list(ops_fs(req)->tree, (int64_t)ino, buf, size);
    reply(req, n, buf, size);
}

void ops_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    int r = check(ino, name);
    if (!r)
        r = tree_xattr_remove(ops_fs(req)->tree, (int64_t)ino, name);
    ops_reply_err(req, r);
}
