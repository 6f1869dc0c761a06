#include "fs/placing.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"

void placing_init(struct placing *p, struct tree *tree)
{
    *p = (struct placing){.tree = tree};
    pthread_mutex_init(&p->lock, NULL);
}

void placing_destroy(struct placing *p)
{
    pthread_mutex_destroy(&p->lock);
}

bool placing_take(struct placing *p, int64_t parent, const char *name, struct publish_slot *out)
{
    pthread_mutex_lock(&p->lock);
    bool found = p->name && p->folder == parent && !strcmp(p->name, name);
    if (found) {
        *out = p->slot;
        p->taken = true;
    }
    pthread_mutex_unlock(&p->lock);
    return found;
}

/* A result is as private as its folder, wherever it is moved to. */
static mode_t result_mode(struct placing *p, int64_t folder)
{
    struct node n;
    mode_t folder_mode = tree_get(p->tree, folder, &n) ? 0 : n.st.st_mode;
    return S_IFREG | S_IRUSR | (folder_mode & 0444);
}

static void slot_set(struct placing *p, int64_t folder, const struct placed_file *f)
{
    mode_t mode = f ? result_mode(p, folder) : 0;
    pthread_mutex_lock(&p->lock);
    p->folder = folder;
    p->name = f ? f->name : NULL;
    p->taken = false;
    if (f) {
        p->slot = (struct publish_slot){.uid = f->uid, .gid = f->gid, .mode = mode};
        strncpy(p->slot.path, f->path, sizeof p->slot.path - 1);
        strncpy(p->slot.origin, f->origin, sizeof p->slot.origin - 1);
    }
    pthread_mutex_unlock(&p->lock);
}

static bool slot_taken(struct placing *p)
{
    pthread_mutex_lock(&p->lock);
    bool taken = p->taken;
    pthread_mutex_unlock(&p->lock);
    return taken;
}

/* A user's own file has the name of an artifact: it is kept as NAME~, or NAME.~1~ … */
static int keep_users_file(struct hand *hand, const char *name)
{
    char kept[TREE_NAME_MAX + 1];
    for (int i = 0; i < 100; i++) {
        if (i == 0)
            snprintf(kept, sizeof kept, "%s~", name);
        else
            snprintf(kept, sizeof kept, "%s.~%d~", name, i);
        int r = hand_rename(hand, name, kept);
        if (!r)
            log_info("%s was a user's file: kept as %s", name, kept);
        if (r != -EEXIST)
            return r;
    }
    return -EEXIST;
}

/* An artifact of the same name is replaced in one step by CREATE (its name is hidden from this
 * thread's LOOKUP), so that a preview never disappears between two. */
static int make_way(struct placing *p, struct hand *hand, int64_t folder, const char *name)
{
    struct node n;
    int r = tree_lookup(p->tree, folder, name, &n);
    if (r)
        return r == -ENOENT ? 0 : r;
    return n.artifact ? 0 : keep_users_file(hand, name);
}

static int create(struct placing *p, struct hand *hand, int64_t folder, const struct placed_file *f)
{
    slot_set(p, folder, f);
    int r = hand_create(hand, f->name);
    bool taken = slot_taken(p);
    slot_set(p, 0, NULL);
    if (r || taken)
        return r;
    /* An empty file was made as if by a user. */
    hand_unlink(hand, f->name);
    log_error("the mount does not recognise its own publisher (is it in another pid namespace?): "
              "results cannot be delivered");
    return -EPROTO;
}

int place_file(struct placing *p, struct hand *hand, int64_t folder, const struct placed_file *f)
{
    struct node n;
    if (!tree_lookup(p->tree, folder, f->name, &n) && n.artifact && !strcmp(n.origin, f->origin))
        return 0; /* made visible before a crash */
    int r = -EEXIST;
    for (int i = 0; r == -EEXIST && i < 8; i++) { /* a user may be as quick as we are */
        r = make_way(p, hand, folder, f->name);
        if (!r)
            r = create(p, hand, folder, f);
    }
    return r;
}
