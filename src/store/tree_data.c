/* The bytes of regular files: STORE/data/XX/ID. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "store/tree_internal.h"

struct data_path {
    char text[32]; /* "3f/18446744073709551615" */
};

static unsigned shard_of(int64_t id)
{
    return (unsigned)((uint64_t)id % TREE_SHARDS);
}

static struct data_path path_of(int64_t id)
{
    struct data_path p;
    snprintf(p.text, sizeof p.text, "%02x/%lld", shard_of(id), (long long)id);
    return p;
}

int tree_data_create(struct tree *t, int64_t id)
{
    int fd = openat(t->data_fd, path_of(id).text, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    close(fd);
    atomic_store(&t->shard_dirty[shard_of(id)], true);
    return 0;
}

int tree_data_link(struct tree *t, int64_t id, const char *path)
{
    struct data_path to = path_of(id);
    if (linkat(AT_FDCWD, path, t->data_fd, to.text, 0))
        return -errno;
    atomic_store(&t->shard_dirty[shard_of(id)], true);
    return 0;
}

static bool later(struct timespec a, struct timespec b)
{
    return a.tv_sec != b.tv_sec ? a.tv_sec > b.tv_sec : a.tv_nsec > b.tv_nsec;
}

void tree_data_stat(struct tree *t, struct node *n)
{
    struct stat st;
    if (!S_ISREG(n->st.st_mode) ||
        fstatat(t->data_fd, path_of(n->id).text, &st, AT_SYMLINK_NOFOLLOW))
        return;
    n->st.st_size = st.st_size;
    n->st.st_blocks = st.st_blocks;
    n->st.st_blksize = st.st_blksize;
    n->st.st_atim = st.st_atim;
    n->st.st_mtim = st.st_mtim;
    if (later(st.st_ctim, n->st.st_ctim))
        n->st.st_ctim = st.st_ctim;
}

int tree_data_set_times(struct tree *t, int64_t id, const struct timespec times[2])
{
    return utimensat(t->data_fd, path_of(id).text, times, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

int tree_open_data(struct tree *t, int64_t id, int flags)
{
    int fd = openat(t->data_fd, path_of(id).text, flags | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT ? -ESTALE : -errno;
    return fd;
}

uint64_t tree_data_remove(struct tree *t, int64_t id)
{
    struct data_path p = path_of(id);
    struct stat st;
    if (fstatat(t->data_fd, p.text, &st, AT_SYMLINK_NOFOLLOW) || unlinkat(t->data_fd, p.text, 0))
        return 0;
    return (uint64_t)st.st_size;
}

int tree_sync(struct tree *t, int64_t id)
{
    unsigned shard = shard_of(id);
    if (atomic_exchange(&t->shard_dirty[shard], false)) {
        char name[8];
        snprintf(name, sizeof name, "%02x", shard);
        AUTO_FD int fd = openat(t->data_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || fsync(fd)) {
            int r = -errno;
            atomic_store(&t->shard_dirty[shard], true);
            return r;
        }
    }
    return db_sync(t->db);
}

/* ---- recovery ---- */

static bool row_exists(struct tree *t, int64_t id)
{
    db_lock(t->db);
    sqlite3_stmt *s = db_sql(t->db, "SELECT 1 FROM node WHERE id=?1");
    sqlite3_bind_int64(s, 1, id);
    bool exists = db_row(t->db, s) != 0; /* an error removes nothing */
    db_unlock(t->db);
    return exists;
}

static int recover_shard(struct tree *t, int shard_fd, uint64_t *bytes)
{
    DIR *d = fdopendir(shard_fd);
    if (!d) {
        close(shard_fd);
        return -ENOMEM;
    }
    for (struct dirent *entry; (entry = readdir(d));) {
        int64_t id;
        struct stat st;
        if (parse_i64(entry->d_name, &id) ||
            fstatat(dirfd(d), entry->d_name, &st, AT_SYMLINK_NOFOLLOW))
            continue;
        if (row_exists(t, id))
            *bytes += (uint64_t)st.st_size;
        else if (unlinkat(dirfd(d), entry->d_name, 0))
            log_warn("%s/data: %s belongs to no file and cannot be removed: %s", t->store,
                     entry->d_name, strerror(errno));
    }
    closedir(d);
    return 0;
}

int tree_data_recover(struct tree *t, uint64_t *bytes)
{
    *bytes = 0;
    for (unsigned i = 0; i < TREE_SHARDS; i++) {
        char name[8];
        snprintf(name, sizeof name, "%02x", i);
        int fd = openat(t->data_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int r = fd < 0 ? -errno : recover_shard(t, fd, bytes);
        if (r)
            return r;
    }
    return 0;
}
