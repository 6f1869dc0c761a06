/* Taking names away and moving them: unlink, rmdir, link, rename. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fs/ops.h"

/* ---- unlink, rmdir ---- */

/* status, log and the like belong to the folder: removing one succeeds and does nothing, so that
 * `rm -r` of a job works. What is fixed in the root stays. */
static void unlink_virtual(fuse_req_t req, int64_t parent)
{
    fuse_reply_err(req, fs_is_virtual(parent) || parent == TREE_ROOT ? EPERM : 0);
}

void ops_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs *fs = ops_fs(req);
    int64_t id;
    if (virtual_lookup(fs, (int64_t)parent, name)) {
        unlink_virtual(req, (int64_t)parent);
        return;
    }
    int r = tree_unlink(fs->tree, (int64_t)parent, name, &id);
    if (!r) {
        handles_unlinked(fs->handles, id);
        handles_new_era(fs->handles);
        if (!ops_by_publisher(req))
            events_in(fs, (int64_t)parent, TRIGGER_TOUCHED);
    }
    ops_reply_err(req, r);
}

/* ---- artifacts that appear while `rm -r` is under way ---- */

enum { LATE_SECONDS = 2 };

struct leftovers {
    struct fs *fs;
    time_t since;
    bool others; /* something that `rm -r` must have seen */
    bool remove;
};

static bool leftover(void *ctx, const struct node *n)
{
    struct leftovers *l = ctx;
    int64_t id;
    if (!n->artifact || n->st.st_ctim.tv_sec < l->since)
        l->others = true;
    else if (l->remove && !tree_unlink(l->fs->tree, n->parent, n->name, &id))
        handles_unlinked(l->fs->handles, id);
    return !l->others;
}

/* A job that ends while its folder is removed may publish behind the back of `rm -r`, which then
 * finds the folder not empty. Where nothing is left but artifacts of the last moments (the prompt
 * is gone), they go with the folder. The kernel holds the folder, so no more can come. */
static int remove_with_leftovers(struct fs *fs, int64_t parent, const char *name, int64_t *id)
{
    struct node n;
    int r = tree_lookup(fs->tree, parent, name, &n);
    if (r || !fs_is_job_folder(&n))
        return r ? r : -ENOTEMPTY;
    struct leftovers l = {.fs = fs, .since = time(NULL) - LATE_SECONDS};
    r = tree_list(fs->tree, n.id, 0, leftover, &l);
    if (r || l.others)
        return r ? r : -ENOTEMPTY;
    l.remove = true;
    tree_list(fs->tree, n.id, 0, leftover, &l);
    return tree_rmdir(fs->tree, parent, name, id);
}

void ops_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs *fs = ops_fs(req);
    int64_t id;
    enum modality modality;
    int64_t virtual = virtual_lookup(fs, (int64_t)parent, name);
    if (virtual) {
        fuse_reply_err(req, virtual == FS_OMNIFS_DIR ? EPERM : ENOTDIR);
        return;
    }
    int r = tree_rmdir(fs->tree, (int64_t)parent, name, &id);
    if (r == -ENOTEMPTY)
        r = remove_with_leftovers(fs, (int64_t)parent, name, &id);
    if (!r) {
        handles_unlinked(fs->handles, id);
        if (fs_modality_of((int64_t)parent, &modality) && name[0] != '.')
            trigger_event(fs, id, TRIGGER_GONE); /* cancels its job, in another thread */
        else
            events_in(fs, (int64_t)parent, TRIGGER_TOUCHED);
    }
    ops_reply_err(req, r);
}

void ops_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    (void)ino;
    (void)parent;
    (void)name;
    fuse_reply_err(req, EPERM); /* as on filesystems without hard links */
}

/* ---- rename ---- */

struct rename {
    fuse_req_t req;
    int64_t parent, new_parent;
    const char *name, *new_name;
    unsigned flags;
};

/* A user's file renamed onto `status` or `log` (rsync does so) is dropped like anything written to
 * them. */
static int rename_onto_virtual(const struct rename *q)
{
    struct fs *fs = ops_fs(q->req);
    struct node n;
    int64_t id;
    if (fs_is_virtual(q->new_parent) || q->new_parent == TREE_ROOT || q->flags & RENAME_EXCHANGE)
        return -EPERM;
    if (q->flags & RENAME_NOREPLACE)
        return -EEXIST;
    int r = tree_lookup(fs->tree, q->parent, q->name, &n);
    if (r)
        return r;
    if (S_ISDIR(n.st.st_mode))
        return -ENOTDIR;
    r = tree_unlink(fs->tree, q->parent, q->name, &id);
    if (!r)
        handles_unlinked(fs->handles, id);
    return r;
}

/* May the node be where it is going? A folder that becomes a job counts as a new one. */
static int check_rename(const struct rename *q)
{
    struct fs *fs = ops_fs(q->req);
    enum modality from, to;
    int r = ops_check_place(q->parent);
    if (!r)
        r = ops_check_place(q->new_parent);
    if (r)
        return r;
    if (virtual_lookup(fs, q->parent, q->name))
        return -EPERM;
    bool becomes_job = fs_modality_of(q->new_parent, &to) && q->new_name[0] != '.' &&
                       !(fs_modality_of(q->parent, &from) && q->name[0] != '.');
    struct node n;
    if (becomes_job && !tree_lookup(fs->tree, q->parent, q->name, &n) && S_ISDIR(n.st.st_mode))
        return jobs_may_add(fs->jobs, fuse_req_ctx(q->req)->uid);
    return 0;
}

/* ---- what a rename means for jobs ---- */

/* Files that bear the names of virtual ones can no longer be seen in a job folder, and would keep
 * it from being removed. */
static bool drop_shadowed(void *ctx, const struct node *n)
{
    struct fs *fs = ctx;
    int64_t id;
    if (!S_ISDIR(n->st.st_mode) && virtual_lookup(fs, n->parent, n->name) &&
        !tree_unlink(fs->tree, n->parent, n->name, &id))
        handles_unlinked(fs->handles, id);
    return true;
}

static bool job_place(int64_t parent, const char *name, enum modality *modality)
{
    return fs_modality_of(parent, modality) && name[0] != '.';
}

static void folder_moved(struct fs *fs, int64_t id, int64_t from, const char *old, int64_t to,
                         const char *new)
{
    enum modality was, is;
    bool was_job = job_place(from, old, &was), is_job = job_place(to, new, &is);
    if (was_job && is_job && was == is)
        return; /* only another name: the job goes on */
    if (was_job && is_job)
        jobs_forget(fs->jobs, id); /* its results would be of the wrong kind */
    if (is_job) {
        tree_list(fs->tree, id, 0, drop_shadowed, fs);
        trigger_event(fs, id, TRIGGER_MOVED_IN);
    } else if (was_job) {
        trigger_event(fs, id, TRIGGER_GONE);
    }
}

static void file_arrived(struct fs *fs, int64_t parent, const char *name)
{
    events_in(fs, parent, strcmp(name, PROMPT_NAME) ? TRIGGER_TOUCHED : TRIGGER_ARMED);
}

/* One node came from (from, old) to (to, new). */
static void node_moved(struct fs *fs, int64_t id, int64_t from, const char *old, int64_t to,
                       const char *new)
{
    struct node n;
    if (tree_get(fs->tree, id, &n))
        return;
    if (S_ISDIR(n.st.st_mode))
        folder_moved(fs, id, from, old, to, new);
    else if (S_ISREG(n.st.st_mode))
        file_arrived(fs, to, new);
    if (from != to)
        events_in(fs, from, TRIGGER_TOUCHED);
}

static void after_rename(const struct rename *q, int64_t moved, int64_t replaced)
{
    struct fs *fs = ops_fs(q->req);
    bool by_publisher = ops_by_publisher(q->req);
    enum modality modality;
    handles_new_era(fs->handles);
    if (replaced && !(q->flags & RENAME_EXCHANGE)) {
        handles_unlinked(fs->handles, replaced);
        if (job_place(q->new_parent, q->new_name, &modality))
            trigger_event(fs, replaced, TRIGGER_GONE); /* harmless for what was a file */
    }
    if (by_publisher)
        return;
    node_moved(fs, moved, q->parent, q->name, q->new_parent, q->new_name);
    if (replaced && q->flags & RENAME_EXCHANGE)
        node_moved(fs, replaced, q->new_parent, q->new_name, q->parent, q->name);
}

void ops_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                const char *new_name, unsigned flags)
{
    struct fs *fs = ops_fs(req);
    struct rename q = {.req = req,
                       .parent = (int64_t)parent,
                       .name = name,
                       .new_parent = (int64_t)new_parent,
                       .new_name = new_name,
                       .flags = flags};
    int64_t moved = 0, replaced = 0;
    int r = check_rename(&q);
    if (!r && virtual_lookup(fs, q.new_parent, new_name)) {
        ops_reply_err(req, rename_onto_virtual(&q));
        return;
    }
    if (!r)
        r = tree_rename(fs->tree, q.parent, name, q.new_parent, new_name, flags, &moved, &replaced);
    if (!r)
        after_rename(&q, moved, replaced);
    ops_reply_err(req, r);
}
