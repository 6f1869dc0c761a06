/* The FUSE face: what its files share.
 *
 *     session.c   mount, INIT, passthrough, the loop
 *     passthrough.c  artifacts read by the kernel straight from the store
 *     ops_*.c     POSIX operations on the tree (lookup … rename, files, xattrs)
 *     handles.c   what the kernel holds: lookup counts, open files, sizes being written
 *     virtual.c   status, log, wait, cancel, .omnifs/: files whose text is made when opened
 *     trigger.c   when is a folder submitted: events, debounce
 *     hand.c      the thread through which the daemon uses its own mount
 *     publish.c   finished artifacts appear through the mount itself, so that inotify fires
 *
 * No handler ever waits for a worker or a publish, and no lock is held over a system call on the
 * mount. */
#ifndef OMNIFS_FS_FS_H
#define OMNIFS_FS_FS_H

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "job/jobs.h"
#include "store/tree.h"

struct trigger;
struct publisher;
struct handles;

struct fs_options {
    int debounce_ms;  /* quiet time before a prompt is read; default 300 */
    int grace_ms;     /* how long a missing reference is waited for; default 3000 */
    bool passthrough; /* try kernel passthrough for artifacts */
    bool allow_other; /* modality folders are sticky and world-writable */
    uid_t owner_uid;  /* of the fixed folders and virtual files of the root */
    gid_t owner_gid;
};

struct fs {
    struct fs_options options;
    struct tree *tree;
    struct jobs *jobs;
    struct fuse_session *session;
    pthread_mutex_t session_lock; /* fs_stop against the end of fs_serve */
    struct trigger *trigger;
    struct publisher *publisher;
    struct handles *handles; /* lookup counts and open counts by node id */
    struct passthrough *passthrough;
    const char *mountpoint; /* from when it is mounted */
    struct virtuals *virtuals;
    atomic_bool stopping;
};

/* ---- ids ----
 * Fixed: 1 root, 2…4 modalities, 5 .omnifs, 6 README.txt, 16+i the files of .omnifs. Files of a job
 * folder: VIRTUAL_BIT | folder << 4 | kind. Everything else is a node of the tree. */
#define FS_OMNIFS_DIR  5
#define FS_README      6
#define FS_REPORT_BASE 16
#define VIRTUAL_BIT    ((int64_t)1 << 62)
enum virtual_kind {
    VIRTUAL_STATUS,
    VIRTUAL_STATUS_JSON,
    VIRTUAL_LOG,
    VIRTUAL_WAIT,
    VIRTUAL_CANCEL,
    VIRTUAL_KINDS
};
static inline bool fs_is_virtual(int64_t id)
{
    return (id & VIRTUAL_BIT) || (id >= FS_OMNIFS_DIR && id < TREE_FIRST_ID);
}
/* A folder directly inside a modality folder whose name does not begin with '.'. (ids.c) */
bool fs_is_job_folder(const struct node *n);
bool fs_modality_of(int64_t parent, enum modality *out);

/* ---- virtual.c ---- (all reply by themselves or return what ops need; they never block) */

/* The id of a virtual entry `name` in `parent`, 0 when there is none. */
int64_t virtual_lookup(struct fs *fs, int64_t parent, const char *name);
int virtual_getattr(struct fs *fs, int64_t id, const struct fuse_ctx *caller, struct stat *st);
/* Entries to list in `parent` besides the tree's own: calls each(name, id, mode) for those listed.
 */
void virtual_list(struct fs *fs, int64_t parent,
                  bool (*each)(void *ctx, const char *name, int64_t id, mode_t mode), void *ctx);
/* Copying tools create every file anew, with O_EXCL. For them status, status.json and log do not
 * exist (LOOKUP is answered ENOENT) until CREATE gives them the virtual file, which drops what they
 * write. */
bool virtual_gives_way(int64_t id, const struct fuse_ctx *caller);
void virtual_create(struct fs *fs, fuse_req_t req, int64_t id, struct fuse_file_info *fi);
void virtual_open(struct fs *fs, fuse_req_t req, int64_t id, struct fuse_file_info *fi);
void virtual_read(struct fs *fs, fuse_req_t req, int64_t id, size_t size, off_t off,
                  struct fuse_file_info *fi);
void virtual_write(struct fs *fs, fuse_req_t req, int64_t id, size_t size,
                   struct fuse_file_info *fi);
void virtual_release(struct fs *fs, fuse_req_t req, int64_t id, struct fuse_file_info *fi);
void virtual_poll(struct fs *fs, fuse_req_t req, int64_t id, struct fuse_file_info *fi,
                  struct fuse_pollhandle *ph);
/* The job of `folder` changed: answers parked `wait` reads, wakes polls. From job threads. */
void virtual_changed(struct fs *fs, int64_t folder);
int virtuals_new(struct fs *fs);
void virtuals_stop(struct fs *fs); /* answers every parked read with EINTR */
void virtuals_free(struct fs *fs);

/* ---- trigger.c ---- */

enum trigger_event {
    TRIGGER_WRITE_OPEN,   /* a file of the folder was opened for writing (or made) */
    TRIGGER_WRITE_CLOSED, /* … released */
    TRIGGER_TOUCHED,      /* anything else changed in the folder: restarts the quiet time */
    TRIGGER_DIRTY,        /* prompt.ini was written, truncated or resized */
    TRIGGER_ARMED,        /* prompt.ini was released by a writer, or renamed into place */
    TRIGGER_SYNCED,       /* fsync of prompt.ini: armed although a writer is still open (NFS) */
    TRIGGER_MOVED_IN,     /* the folder was renamed into a modality folder */
    TRIGGER_GONE,         /* the folder was removed or moved out */
    TRIGGER_CANCELLED,    /* `cancel` was written: a prompt not yet submitted is cancelled too */
};
int trigger_new(
    struct fs *fs); /* also looks at folders whose prompt was not submitted before a crash */
void trigger_stop(struct fs *fs); /* submits nothing more; events are still noted */
void trigger_free(struct fs *fs); /* after the loop has ended */
/* Never blocks. */
void trigger_event(struct fs *fs, int64_t folder, enum trigger_event ev);
/* True while the folder's prompt is written or waits for quiet: status says `editing` or `armed`.
 */
bool trigger_pending(struct fs *fs, int64_t folder, bool *armed);

/* ---- publish.c ---- */

int publisher_new(struct fs *fs, const char *mountpoint); /* before jobs_open */
int publisher_start(struct fs *fs);                       /* when the mount answers */
/* Delivers what is finished, then ends the thread; while the loop and jobs still work. */
void publisher_stop(struct fs *fs);
void publisher_free(struct fs *fs); /* after the loop has ended */
/* Wakes the publisher: a publication is ready. */
void publisher_wake(struct fs *fs);
void publisher_preview(struct fs *fs, int64_t folder, const char *job_id, const char *path);
/* Is the caller of this request one of our publishing threads? */
bool publisher_is_caller(struct fs *fs, const struct fuse_ctx *caller);
/* For CREATE by the publisher: the finished file and owner meant for (parent, name). */
struct publish_slot {
    char path[512];
    char origin[40];
    uid_t uid;
    gid_t gid;
    mode_t mode;
};
bool publisher_slot(struct fs *fs, int64_t parent, const char *name, struct publish_slot *out);

/* ---- session.c ---- */

struct fs_mount {
    const char *mountpoint;   /* absolute */
    const char *source;       /* shown as fsname */
    struct fuse_args *args;   /* what libfuse should see besides; fs_serve adds default_permissions,
                                 fsname, subtype and (by its option) allow_other */
    void (*ready)(void *ctx); /* the mount answers */
    void (*ended)(void *ctx); /* the loop has ended, requests can still be answered */
    void *ctx;
};
/* Mounts, serves until unmounted or fs_stop(), cleans up. 0 or negative errno. Needs fs->tree,
 * jobs and options; trigger, publisher and virtuals may come and go while it runs, except that
 * virtuals must outlive it. */
int fs_serve(struct fs *fs, const struct fs_mount *m, struct err *e);
/* From a normal thread (not a signal handler), while fs_serve runs: ends the loop; files that users
 * have open give errors from then on. */
void fs_stop(struct fs *fs);
extern const struct fuse_lowlevel_ops fs_operations;

#endif
