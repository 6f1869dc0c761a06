/* Placing one finished file into a folder of our own mount, by name: what the publisher does for
 * each file, and where the CREATE handler finds what is meant. */
#ifndef OMNIFS_FS_PLACING_H
#define OMNIFS_FS_PLACING_H

#include <pthread.h>

#include "fs/fs.h"
#include "fs/hand.h"

struct placed_file {
    const char *name, *path, *origin;
    uid_t uid;
    gid_t gid;
};

struct placing {
    struct tree *tree;
    pthread_mutex_t lock;
    /* The file that is being placed: name NULL when there is none. */
    int64_t folder;
    const char *name;
    struct publish_slot slot;
    bool taken;
};

void placing_init(struct placing *p, struct tree *tree);
void placing_destroy(struct placing *p);
/* By the publishing thread; the hand is in the folder. Does nothing when the file is
 * there already (from before a crash). 0, or the negative errno of the system call that failed;
 * -EPROTO when the mount took us for a user. */
int place_file(struct placing *p, struct hand *hand, int64_t folder, const struct placed_file *f);
/* By the handlers: is this the file that is being placed? */
bool placing_take(struct placing *p, int64_t parent, const char *name, struct publish_slot *out);

#endif
