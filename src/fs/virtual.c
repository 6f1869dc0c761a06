/* Virtual files: names, attributes and text. Their sizes are true (copying tools and NFS clients
 * trust them) and their times are those of the last change. */
#include "fs/virtual.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fs/caller.h"

/* A `wait` that still blocks has no text to measure. A size of 0 reads as empty over NFS and makes
 * copying tools skip it; a bound on the line serves cat, head, tail, shells and programs alike. */
#define WAIT_SIZE 512
/* The daemon's process id: whom `omnifs umount` asks to end. */
#define PID_NAME "pid"

struct kind {
    const char *name;
    bool listed;
    mode_t mode; /* as far as the folder's own mode allows */
};
/* status, status.json and log can be opened for writing so that `cp -r`, rsync and tar onto a job
 * folder succeed: what is written to them is dropped. */
static const struct kind kinds[VIRTUAL_KINDS] = {
    [VIRTUAL_STATUS] = {"status", true, 0666},
    [VIRTUAL_STATUS_JSON] = {"status.json", true, 0666},
    [VIRTUAL_LOG] = {"log", true, 0666},
    [VIRTUAL_WAIT] = {"wait", false, 0444},
    [VIRTUAL_CANCEL] = {"cancel", false, 0222}};

static int kind_of_name(const char *name)
{
    for (int k = 0; k < VIRTUAL_KINDS; k++)
        if (!strcmp(name, kinds[k].name))
            return k;
    return -1;
}

/* The files of .omnifs: those of jobs, then the face's own. NULL past the end. */
static const char *report_name(int64_t id)
{
    int64_t i = id - FS_REPORT_BASE, n = 0;
    while (jobs_report_names[n] && n < i)
        n++;
    return jobs_report_names[n] ? jobs_report_names[n] : i == n ? PID_NAME : NULL;
}

static bool job_folder(struct fs *fs, int64_t id, struct node *n)
{
    return id >= TREE_FIRST_ID && !(id & VIRTUAL_BIT) && !tree_get(fs->tree, id, n) &&
           fs_is_job_folder(n);
}

int64_t virtual_lookup(struct fs *fs, int64_t parent, const char *name)
{
    if (parent == TREE_ROOT)
        return !strcmp(name, ".omnifs")      ? FS_OMNIFS_DIR
               : !strcmp(name, "README.txt") ? FS_README
                                             : 0;
    if (parent == FS_OMNIFS_DIR) {
        const char *report;
        for (int i = 0; (report = report_name(FS_REPORT_BASE + i)); i++)
            if (!strcmp(name, report))
                return FS_REPORT_BASE + i;
        return 0;
    }
    int kind = kind_of_name(name);
    struct node n;
    if (kind < 0 || !job_folder(fs, parent, &n))
        return 0;
    return VIRTUAL_BIT | parent << 4 | kind;
}

bool virtual_gives_way(int64_t id, const struct fuse_ctx *caller)
{
    int kind = virtual_kind(id);
    return kind < VIRTUAL_KINDS && kinds[kind].listed && caller_creates_exclusively(caller->pid);
}

void virtual_list(struct fs *fs, int64_t parent,
                  bool (*each)(void *ctx, const char *name, int64_t id, mode_t mode), void *ctx)
{
    if (parent == TREE_ROOT) {
        if (each(ctx, ".omnifs", FS_OMNIFS_DIR, S_IFDIR))
            each(ctx, "README.txt", FS_README, S_IFREG);
        return;
    }
    if (parent == FS_OMNIFS_DIR) {
        const char *report;
        for (int i = 0; (report = report_name(FS_REPORT_BASE + i)); i++)
            if (!each(ctx, report, FS_REPORT_BASE + i, S_IFREG))
                return;
        return;
    }
    struct node n;
    if (!job_folder(fs, parent, &n))
        return;
    for (int k = 0; k < VIRTUAL_KINDS; k++)
        if (kinds[k].listed && !each(ctx, kinds[k].name, VIRTUAL_BIT | parent << 4 | k, S_IFREG))
            return;
}

/* ---- text ---- */

/* `editing` and `armed` belong to the face: there is no job yet, or an ended one is about to be
 * run again. NULL: the job's own state counts. */
static const char *pending_word(struct fs *fs, int64_t folder, const struct job_view *v)
{
    bool armed = false;
    bool pending = trigger_pending(fs, folder, &armed);
    if (pending && (!v || job_state_final(v->state)))
        return armed ? "armed" : "editing";
    return v ? NULL : "editing";
}

static void end_line(struct str *out)
{
    if (!out->len || out->data[out->len - 1] != '\n')
        str_addc(out, '\n');
}

static int status_text(struct fs *fs, int64_t folder, bool json, struct str *out)
{
    struct job_view v;
    bool any = !jobs_view(fs->jobs, folder, &v);
    const char *word = pending_word(fs, folder, any ? &v : NULL);
    if (word)
        str_addf(out, json ? "{\"id\": null, \"state\": \"%s\"}" : "%s", word);
    else if (json)
        job_status_json(&v, out);
    else
        job_status_line(&v, out);
    end_line(out);
    return out->failed ? -ENOMEM : 0;
}

int virtual_text(struct fs *fs, int64_t id, uid_t uid, struct str *out)
{
    if (id == FS_README) {
        str_add(out, virtual_readme);
        return out->failed ? -ENOMEM : 0;
    }
    if (!(id & VIRTUAL_BIT)) {
        const char *name = report_name(id);
        if (!name)
            return -ESTALE;
        if (strcmp(name, PID_NAME) != 0)
            return jobs_report(fs->jobs, name, uid, out);
        str_addf(out, "%ld\n", (long)getpid());
        return out->failed ? -ENOMEM : 0;
    }
    int64_t folder = virtual_folder(id);
    int r = 0;
    switch (virtual_kind(id)) {
    case VIRTUAL_STATUS:
    case VIRTUAL_STATUS_JSON:
        return status_text(fs, folder, virtual_kind(id) == VIRTUAL_STATUS_JSON, out);
    case VIRTUAL_LOG:
        r = jobs_log(fs->jobs, folder, out);
        return r == -ENOENT ? 0 : r;
    default:
        return 0;
    }
}

bool virtual_settled(struct fs *fs, int64_t folder, struct str *out)
{
    struct job_view v;
    struct node n;
    bool armed;
    if (trigger_pending(fs, folder, &armed))
        return false;
    if (jobs_view(fs->jobs, folder, &v)) {
        /* A submission may have landed between the two questions: ask the first one again. */
        if (!jobs_view(fs->jobs, folder, &v) || trigger_pending(fs, folder, &armed))
            return false;
        str_add(out, job_folder(fs, folder, &n)
                         ? "no job: write prompt.ini to start one\n"
                         : "cancelled: the folder was removed or moved away\n");
        return true;
    }
    if (!job_state_final(v.state))
        return false;
    job_status_line(&v, out);
    end_line(out);
    return true;
}

/* ---- attributes ---- */

static struct timespec from_ms(int64_t ms)
{
    return (struct timespec){.tv_sec = (time_t)(ms / 1000), .tv_nsec = ms % 1000 * 1000000};
}

static void set_size(struct stat *st, size_t size)
{
    st->st_size = (off_t)size;
    st->st_blksize = 4096;
    st->st_blocks = (blkcnt_t)((size + 511) / 512);
}

static void set_times(struct stat *st, struct timespec t)
{
    st->st_atim = st->st_mtim = st->st_ctim = t;
}

static int root_getattr(struct fs *fs, int64_t id, const struct fuse_ctx *caller, struct stat *st)
{
    struct node root;
    int r = tree_get(fs->tree, TREE_ROOT, &root);
    if (r)
        return r;
    st->st_uid = fs->options.owner_uid;
    st->st_gid = fs->options.owner_gid;
    if (id == FS_OMNIFS_DIR) {
        st->st_mode = S_IFDIR | 0555;
        st->st_nlink = 2;
        set_size(st, 0);
        set_times(st, root.st.st_mtim);
        return 0;
    }
    AUTO_STR struct str text = {0};
    r = virtual_text(fs, id, caller ? caller->uid : fs->options.owner_uid, &text);
    st->st_mode = S_IFREG | 0444;
    st->st_nlink = 1;
    set_size(st, text.len);
    if (id == FS_README) {
        set_times(st, root.st.st_mtim);
    } else {
        /* Reports are made when asked for. */
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        set_times(st, now);
    }
    return r;
}

static int job_getattr(struct fs *fs, int64_t id, const struct fuse_ctx *caller, struct stat *st)
{
    int64_t folder = virtual_folder(id);
    int kind = virtual_kind(id);
    struct node n;
    if (kind >= VIRTUAL_KINDS || !job_folder(fs, folder, &n))
        return -ESTALE;
    st->st_mode = S_IFREG | (n.st.st_mode & kinds[kind].mode);
    st->st_nlink = 1;
    st->st_uid = n.st.st_uid;
    st->st_gid = n.st.st_gid;
    struct job_view v;
    bool any = !jobs_view(fs->jobs, folder, &v);
    set_times(st, any ? from_ms(v.changed_ms) : n.st.st_mtim);
    AUTO_STR struct str text = {0};
    int r = 0;
    if (kind == VIRTUAL_WAIT) {
        set_size(st, virtual_settled(fs, folder, &text) ? text.len : WAIT_SIZE);
    } else {
        r = virtual_text(fs, id, caller ? caller->uid : n.st.st_uid, &text);
        set_size(st, text.len);
    }
    return r;
}

int virtual_getattr(struct fs *fs, int64_t id, const struct fuse_ctx *caller, struct stat *st)
{
    memset(st, 0, sizeof *st);
    st->st_ino = (ino_t)id;
    return id & VIRTUAL_BIT ? job_getattr(fs, id, caller, st) : root_getattr(fs, id, caller, st);
}
