/* Open virtual files.
 *
 * The text is a snapshot made at open. It is made again when a changed file is read from offset 0
 * (poll, then read again), and when `log` is read past its end (tail -f). A read of `wait` whose
 * job has not ended is parked: the request is kept and answered by whoever ends the job, by a
 * signal to the reader, or by shutdown. The lock is never held over a call to jobs or trigger. */
#include "fs/virtual.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 1024

struct virtual_file {
    int64_t id, folder;
    uid_t uid;
    struct str text;
    bool stale;  /* the job changed since the snapshot */
    bool unread; /* there is something that was not read from offset 0: what poll reports */
    struct fuse_pollhandle *poll;
    struct virtual_file *next;
};

struct parked {
    uint64_t serial;
    int64_t folder;
    fuse_req_t req;
    size_t size;
    struct virtual_file *file;
    struct parked *next;
};

struct virtuals {
    pthread_mutex_t lock;
    uint64_t serial;
    bool stopped;
    struct virtual_file *files[BUCKETS]; /* by folder */
    struct parked *parked[BUCKETS];
};

static size_t bucket(int64_t folder)
{
    return (uint64_t)folder * 0x9E3779B97F4A7C15u >> 54;
}

static void drop_poll(struct virtual_file *f)
{
    if (f->poll)
        fuse_pollhandle_destroy(f->poll);
    f->poll = NULL;
}

int virtuals_new(struct fs *fs)
{
    struct virtuals *v = calloc(1, sizeof *v);
    if (!v)
        return -ENOMEM;
    pthread_mutex_init(&v->lock, NULL);
    fs->virtuals = v;
    return 0;
}

void virtuals_free(struct fs *fs)
{
    struct virtuals *v = fs->virtuals;
    if (!v)
        return;
    /* After the session's end no RELEASE comes for files that were still open. */
    for (size_t b = 0; b < BUCKETS; b++)
        while (v->files[b]) {
            struct virtual_file *f = v->files[b];
            v->files[b] = f->next;
            drop_poll(f);
            str_free(&f->text);
            free(f);
        }
    pthread_mutex_destroy(&v->lock);
    free(v);
    fs->virtuals = NULL;
}

/* ---- open and release ---- */

static bool may_write(int64_t id)
{
    int kind = virtual_kind(id);
    return kind != VIRTUAL_WAIT && kind < VIRTUAL_KINDS;
}

/* 0 with fi ready for the reply, or negative errno. */
static int make_open(struct fs *fs, const struct fuse_ctx *caller, int64_t id,
                     struct fuse_file_info *fi)
{
    struct virtuals *v = fs->virtuals;
    if ((fi->flags & O_ACCMODE) != O_RDONLY && !may_write(id))
        return -EACCES;
    struct virtual_file *f = calloc(1, sizeof *f);
    if (!f)
        return -ENOMEM;
    *f = (struct virtual_file){
        .id = id, .folder = virtual_folder(id), .uid = caller->uid, .unread = true};
    /* Known to virtual_changed before the text is made: no change falls between. */
    size_t b = bucket(f->folder);
    pthread_mutex_lock(&v->lock);
    f->next = v->files[b];
    v->files[b] = f;
    pthread_mutex_unlock(&v->lock);

    struct str text = {0};
    int r = virtual_text(fs, id, f->uid, &text);
    pthread_mutex_lock(&v->lock);
    f->text = text;
    pthread_mutex_unlock(&v->lock);
    fi->fh = (uint64_t)(uintptr_t)f;
    fi->direct_io = 1;
    fi->keep_cache = 0;
    if (r)
        virtual_release(fs, NULL, id, fi);
    return r;
}

/* A reply that was interrupted (-ENOENT) is followed by no RELEASE. */
void virtual_open(struct fs *fs, fuse_req_t req, int64_t id, struct fuse_file_info *fi)
{
    int r = make_open(fs, fuse_req_ctx(req), id, fi);
    if (r)
        fuse_reply_err(req, -r);
    else if (fuse_reply_open(req, fi) == -ENOENT)
        virtual_release(fs, NULL, id, fi);
}

void virtual_create(struct fs *fs, fuse_req_t req, int64_t id, struct fuse_file_info *fi)
{
    struct fuse_entry_param entry = {.ino = (fuse_ino_t)id, .generation = 1};
    int r = virtual_getattr(fs, id, fuse_req_ctx(req), &entry.attr);
    if (!r)
        r = make_open(fs, fuse_req_ctx(req), id, fi);
    if (r)
        fuse_reply_err(req, -r);
    else if (fuse_reply_create(req, &entry, fi) == -ENOENT)
        virtual_release(fs, NULL, id, fi);
}

void virtual_release(struct fs *fs, fuse_req_t req, int64_t id, struct fuse_file_info *fi)
{
    (void)id;
    struct virtuals *v = fs->virtuals;
    struct virtual_file *f = (struct virtual_file *)(uintptr_t)fi->fh;
    pthread_mutex_lock(&v->lock);
    struct virtual_file **at = &v->files[bucket(f->folder)];
    while (*at && *at != f)
        at = &(*at)->next;
    if (*at)
        *at = f->next;
    pthread_mutex_unlock(&v->lock);
    drop_poll(f);
    str_free(&f->text);
    free(f);
    if (req)
        fuse_reply_err(req, 0);
}

/* ---- read ---- */

/* With the lock. */
static void reply_slice(fuse_req_t req, const struct str *text, size_t size, size_t off)
{
    if (off >= text->len)
        fuse_reply_buf(req, NULL, 0);
    else
        fuse_reply_buf(req, text->data + off, size < text->len - off ? size : text->len - off);
}

static void read_snapshot(struct fs *fs, fuse_req_t req, struct virtual_file *f, size_t size,
                          size_t off)
{
    struct virtuals *v = fs->virtuals;
    pthread_mutex_lock(&v->lock);
    bool again =
        f->stale && (off == 0 || (virtual_kind(f->id) == VIRTUAL_LOG && off >= f->text.len));
    if (again)
        f->stale = false;
    if (off == 0 || again)
        f->unread = false;
    pthread_mutex_unlock(&v->lock);

    struct str text = {0};
    if (again && virtual_text(fs, f->id, f->uid, &text))
        str_free(&text);
    pthread_mutex_lock(&v->lock);
    if (text.data) {
        struct str old = f->text;
        f->text = text;
        text = old;
    }
    reply_slice(req, &f->text, size, off);
    pthread_mutex_unlock(&v->lock);
    str_free(&text);
}

/* Answers every read parked for `folder` when its job has ended. */
static void answer_parked(struct fs *fs, int64_t folder)
{
    struct virtuals *v = fs->virtuals;
    AUTO_STR struct str line = {0};
    if (!virtual_settled(fs, folder, &line))
        return;
    pthread_mutex_lock(&v->lock);
    struct parked **at = &v->parked[bucket(folder)];
    while (*at) {
        struct parked *p = *at;
        if (p->folder != folder) {
            at = &p->next;
            continue;
        }
        *at = p->next;
        str_free(&p->file->text);
        str_add(&p->file->text, str_cstr(&line));
        reply_slice(p->req, &p->file->text, p->size, 0);
        free(p);
    }
    pthread_mutex_unlock(&v->lock);
}

/* The reader got a signal. libfuse may call this late, after the request was answered: `data` is
 * therefore a serial number, not a pointer. */
static void interrupted(fuse_req_t req, void *data)
{
    struct virtuals *v = ((struct fs *)fuse_req_userdata(req))->virtuals;
    uint64_t serial = (uint64_t)(uintptr_t)data;
    struct parked *found = NULL;
    pthread_mutex_lock(&v->lock);
    for (size_t b = 0; b < BUCKETS && !found; b++)
        for (struct parked **at = &v->parked[b]; *at; at = &(*at)->next)
            if ((*at)->serial == serial) {
                found = *at;
                *at = found->next;
                break;
            }
    pthread_mutex_unlock(&v->lock);
    if (found)
        fuse_reply_err(req, EINTR);
    free(found);
}

static void read_wait(struct fs *fs, fuse_req_t req, struct virtual_file *f, size_t size,
                      size_t off)
{
    struct virtuals *v = fs->virtuals;
    if (off > 0) {
        pthread_mutex_lock(&v->lock);
        reply_slice(req, &f->text, size, off);
        pthread_mutex_unlock(&v->lock);
        return;
    }
    struct parked *p = calloc(1, sizeof *p);
    if (!p) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    pthread_mutex_lock(&v->lock);
    *p = (struct parked){++v->serial, f->folder, req, size, f, NULL};
    uint64_t serial = p->serial;
    pthread_mutex_unlock(&v->lock);
    /* May call interrupted() at once, which finds nothing yet; fuse_req_interrupted tells then. */
    fuse_req_interrupt_func(req, interrupted, (void *)(uintptr_t)serial);

    pthread_mutex_lock(&v->lock);
    bool refused = v->stopped || fuse_req_interrupted(req);
    if (!refused) {
        size_t b = bucket(f->folder);
        p->next = v->parked[b];
        v->parked[b] = p;
    }
    pthread_mutex_unlock(&v->lock);
    if (refused) {
        free(p);
        fuse_reply_err(req, EINTR);
        return;
    }
    /* Only now is the question asked: a job that ended before is seen here, one that ends later
     * finds the parked read. */
    answer_parked(fs, f->folder);
}

void virtual_read(struct fs *fs, fuse_req_t req, int64_t id, size_t size, off_t off,
                  struct fuse_file_info *fi)
{
    struct virtual_file *f = (struct virtual_file *)(uintptr_t)fi->fh;
    if (virtual_kind(id) == VIRTUAL_WAIT)
        read_wait(fs, req, f, size, (size_t)off);
    else
        read_snapshot(fs, req, f, size, (size_t)off);
}

void virtual_write(struct fs *fs, fuse_req_t req, int64_t id, size_t size,
                   struct fuse_file_info *fi)
{
    (void)fi;
    if (virtual_kind(id) == VIRTUAL_CANCEL) {
        int64_t folder = virtual_folder(id);
        trigger_event(fs, folder, TRIGGER_CANCELLED);
        jobs_cancel(fs->jobs, folder);
    }
    fuse_reply_write(req, size);
}

/* ---- poll and changes ---- */

void virtual_poll(struct fs *fs, fuse_req_t req, int64_t id, struct fuse_file_info *fi,
                  struct fuse_pollhandle *ph)
{
    struct virtuals *v = fs->virtuals;
    struct virtual_file *f = (struct virtual_file *)(uintptr_t)fi->fh;
    struct fuse_pollhandle *old = NULL;
    pthread_mutex_lock(&v->lock);
    if (v->stopped) {
        old = ph;
    } else if (ph) {
        old = f->poll;
        f->poll = ph;
    }
    bool readable = f->unread || v->stopped;
    pthread_mutex_unlock(&v->lock);
    if (old)
        fuse_pollhandle_destroy(old);
    if (virtual_kind(id) == VIRTUAL_WAIT) {
        AUTO_STR struct str line = {0};
        readable = virtual_settled(fs, f->folder, &line);
    } else if (!(id & VIRTUAL_BIT)) {
        readable = true;
    }
    fuse_reply_poll(req, (readable ? POLLIN | POLLRDNORM : 0) | (may_write(id) ? POLLOUT : 0));
}

void virtual_changed(struct fs *fs, int64_t folder)
{
    struct virtuals *v = fs->virtuals;
    if (!v)
        return;
    size_t b = bucket(folder);
    bool parked = false;
    pthread_mutex_lock(&v->lock);
    for (struct virtual_file *f = v->files[b]; f; f = f->next) {
        if (f->folder != folder)
            continue;
        f->stale = f->unread = true;
        if (f->poll)
            fuse_lowlevel_notify_poll(f->poll);
        drop_poll(f);
    }
    for (struct parked *p = v->parked[b]; p && !parked; p = p->next)
        parked = p->folder == folder;
    pthread_mutex_unlock(&v->lock);
    if (parked)
        answer_parked(fs, folder);
}

void virtuals_stop(struct fs *fs)
{
    struct virtuals *v = fs->virtuals;
    pthread_mutex_lock(&v->lock);
    v->stopped = true;
    for (size_t b = 0; b < BUCKETS; b++)
        while (v->parked[b]) {
            struct parked *p = v->parked[b];
            v->parked[b] = p->next;
            fuse_reply_err(p->req, EINTR);
            free(p);
        }
    /* The session that poll handles belong to is about to end. */
    for (size_t b = 0; b < BUCKETS; b++)
        for (struct virtual_file *f = v->files[b]; f; f = f->next)
            drop_poll(f);
    pthread_mutex_unlock(&v->lock);
}
