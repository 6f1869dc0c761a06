#include "fs/timers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static size_t bucket(const struct timers *t, int64_t key)
{
    return ((uint64_t)key * 0x9E3779B97F4A7C15u >> 32) & (t->bucket_count - 1);
}

struct timer *timers_find(const struct timers *t, int64_t key)
{
    struct timer *at = t->bucket_count ? t->buckets[bucket(t, key)] : NULL;
    while (at && at->key != key)
        at = at->next;
    return at;
}

/* Makes room for twice as many; the table is left as it was when memory is short. */
static int grow(struct timers *t)
{
    size_t n = t->bucket_count ? 2 * t->bucket_count : 64;
    struct timer **buckets = calloc(n, sizeof(struct timer *));
    struct timer **heap = buckets ? realloc(t->heap, n * sizeof(struct timer *)) : NULL;
    if (!heap) {
        free(buckets);
        return -ENOMEM;
    }
    struct timer **old = t->buckets;
    size_t old_count = t->bucket_count;
    t->heap = heap;
    t->room = n;
    t->buckets = buckets;
    t->bucket_count = n;
    for (size_t i = 0; i < old_count; i++)
        for (struct timer *at = old[i], *next; at; at = next) {
            next = at->next;
            size_t b = bucket(t, at->key);
            at->next = buckets[b];
            buckets[b] = at;
        }
    free(old);
    return 0;
}

int timers_add(struct timers *t, struct timer *timer)
{
    if (t->count == t->room && grow(t))
        return -ENOMEM;
    size_t b = bucket(t, timer->key);
    timer->heap_at = 0;
    timer->next = t->buckets[b];
    t->buckets[b] = timer;
    t->count++;
    return 0;
}

void timers_remove(struct timers *t, struct timer *timer)
{
    timers_unset(t, timer);
    struct timer **at = &t->buckets[bucket(t, timer->key)];
    while (*at != timer)
        at = &(*at)->next;
    *at = timer->next;
    t->count--;
}

/* ---- the heap; places are 1-based, heap[0] is the first due ---- */

static void put(struct timers *t, size_t place, struct timer *timer)
{
    t->heap[place - 1] = timer;
    timer->heap_at = place;
}

static void sift(struct timers *t, struct timer *timer)
{
    size_t at = timer->heap_at;
    while (at > 1 && t->heap[at / 2 - 1]->due > timer->due) {
        put(t, at, t->heap[at / 2 - 1]);
        at /= 2;
    }
    for (size_t child; (child = 2 * at) <= t->heap_len; at = child) {
        if (child < t->heap_len && t->heap[child]->due < t->heap[child - 1]->due)
            child++;
        if (t->heap[child - 1]->due >= timer->due)
            break;
        put(t, at, t->heap[child - 1]);
    }
    put(t, at, timer);
}

void timers_set(struct timers *t, struct timer *timer, double due)
{
    timer->due = due;
    if (!timer->heap_at)
        put(t, ++t->heap_len, timer);
    sift(t, timer);
}

void timers_unset(struct timers *t, struct timer *timer)
{
    size_t at = timer->heap_at;
    if (!at)
        return;
    struct timer *last = t->heap[--t->heap_len];
    timer->heap_at = 0;
    if (last != timer) {
        put(t, at, last);
        sift(t, last);
    }
}

struct timer *timers_first(const struct timers *t)
{
    return t->heap_len ? t->heap[0] : NULL;
}

void timers_free(struct timers *t, void (*free_one)(struct timer *))
{
    for (size_t i = 0; i < t->bucket_count; i++)
        for (struct timer *at = t->buckets[i], *next; at; at = next) {
            next = at->next;
            free_one(at);
        }
    free(t->buckets);
    free(t->heap);
    memset(t, 0, sizeof *t);
}
