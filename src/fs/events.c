/* What the trigger is told. Only files directly in a job folder count. The publisher's own doings
 * are no events: its callers ask ops_by_publisher first. */
#include <string.h>

#include "fs/ops.h"

static int64_t job_folder(struct fs *fs, int64_t parent)
{
    struct node n;
    return parent >= TREE_FIRST_ID && !tree_get(fs->tree, parent, &n) && fs_is_job_folder(&n)
               ? parent
               : 0;
}

void events_in(struct fs *fs, int64_t parent, enum trigger_event ev)
{
    int64_t folder = job_folder(fs, parent);
    if (folder)
        trigger_event(fs, folder, ev);
}

struct role events_role_of(struct fs *fs, const struct node *n)
{
    struct role role = {.folder = job_folder(fs, n->parent)};
    role.prompt = role.folder && S_ISREG(n->st.st_mode) && !strcmp(n->name, PROMPT_NAME);
    return role;
}

/* Roles are kept in one word, so that concurrent writes need no lock. */
static int64_t pack(struct role role)
{
    return role.folder * 2 + role.prompt;
}
static struct role unpack(int64_t word)
{
    return (struct role){.folder = word / 2, .prompt = word % 2 != 0};
}

struct role events_role(struct fs *fs, struct open_file *f)
{
    unsigned era = handles_era(fs->handles);
    if (atomic_load(&f->era) == era)
        return unpack(atomic_load(&f->role));
    struct node n;
    struct role role = {0};
    if (!tree_get(fs->tree, f->id, &n))
        role = events_role_of(fs, &n);
    atomic_store(&f->role, pack(role));
    atomic_store(&f->era, era);
    return role;
}

void events_opened(struct fs *fs, struct open_file *f, const struct node *n, bool truncated)
{
    unsigned era = handles_era(fs->handles);
    struct role role = events_role_of(fs, n);
    atomic_store(&f->role, pack(role));
    atomic_store(&f->era, era);
    if (!f->writer || !role.folder)
        return;
    f->told = role.folder; /* the one that must hear of the end, too */
    trigger_event(fs, role.folder, TRIGGER_WRITE_OPEN);
    if (truncated && role.prompt)
        trigger_event(fs, role.folder, TRIGGER_DIRTY);
}

void events_written(struct fs *fs, struct open_file *f)
{
    struct role role = events_role(fs, f);
    if (role.folder)
        trigger_event(fs, role.folder, role.prompt ? TRIGGER_DIRTY : TRIGGER_TOUCHED);
}

void events_synced(struct fs *fs, struct open_file *f)
{
    struct role role = events_role(fs, f);
    if (role.prompt && f->writer)
        trigger_event(fs, role.folder, TRIGGER_SYNCED);
}

void events_closing(struct fs *fs, struct open_file *f)
{
    if (!f->writer)
        return;
    struct role role = events_role(fs, f);
    if (role.prompt)
        trigger_event(fs, role.folder, TRIGGER_ARMED);
    if (f->told)
        trigger_event(fs, f->told, TRIGGER_WRITE_CLOSED);
}
