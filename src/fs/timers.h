/* A set of timers by key: a hash table to find one, a binary heap to find the first due. Every
 * operation is O(log n) or better, so thousands of folders cost no more than a few. Not locked. */
#ifndef OMNIFS_FS_TIMERS_H
#define OMNIFS_FS_TIMERS_H

#include <stddef.h>
#include <stdint.h>

/* Embedded in the caller's struct, which the caller allocates and frees. */
struct timer {
    int64_t key;
    double due;         /* seconds of clock_seconds() */
    size_t heap_at;     /* 1-based place in the heap; 0: not set */
    struct timer *next; /* in its hash bucket */
};

/* Zero-initialise. */
struct timers {
    struct timer **heap;
    size_t heap_len;
    struct timer **buckets;
    size_t bucket_count, count;
    size_t room; /* of heap: always >= count, so that timers_set cannot fail */
};

struct timer *timers_find(const struct timers *t, int64_t key);
int timers_add(struct timers *t, struct timer *timer); /* 0 or -ENOMEM; the key must be new */
void timers_remove(struct timers *t, struct timer *timer);
void timers_set(struct timers *t, struct timer *timer, double due);
void timers_unset(struct timers *t, struct timer *timer);
struct timer *timers_first(const struct timers *t); /* the earliest that is set, or NULL */
void timers_free(struct timers *t, void (*free_one)(struct timer *));

#endif
