#include "fs/handles.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/passthrough.h"

enum { FIRST_BUCKETS = 256 };

struct held {
    int64_t id;
    uint64_t lookups;
    unsigned opens, writers;
    bool unlinked;
    int64_t size;      /* while there are writers: charged so far */
    int backing;       /* shared backing id; 0: none */
    unsigned backed;   /* opens that use it */
    unsigned unbacked; /* opens that are read through us */
    struct held *next;
};

struct handles {
    struct tree *tree;
    pthread_mutex_t lock;
    struct held **buckets;
    size_t bucket_count, count; /* bucket_count is a power of two */
    struct open_file *files;
    atomic_uint era;
};

static struct held **bucket(struct held **buckets, size_t count, int64_t id)
{
    return &buckets[((uint64_t)id * 0x9E3779B97F4A7C15u >> 32) & (count - 1)];
}

static struct held *find(struct handles *h, int64_t id)
{
    struct held *n = *bucket(h->buckets, h->bucket_count, id);
    while (n && n->id != id)
        n = n->next;
    return n;
}

static void grow_table(struct handles *h)
{
    size_t count = 2 * h->bucket_count;
    struct held **buckets = calloc(count, sizeof(struct held *));
    if (!buckets)
        return; /* longer chains do no harm */
    for (size_t i = 0; i < h->bucket_count; i++)
        for (struct held *n; (n = h->buckets[i]);) {
            h->buckets[i] = n->next;
            struct held **to = bucket(buckets, count, n->id);
            n->next = *to;
            *to = n;
        }
    free(h->buckets);
    h->buckets = buckets;
    h->bucket_count = count;
}

static struct held *find_or_add(struct handles *h, int64_t id)
{
    struct held *n = find(h, id);
    if (n)
        return n;
    if (h->count > 2 * h->bucket_count)
        grow_table(h);
    n = calloc(1, sizeof *n);
    if (!n)
        return NULL;
    n->id = id;
    struct held **at = bucket(h->buckets, h->bucket_count, id);
    n->next = *at;
    *at = n;
    h->count++;
    return n;
}

/* Removes an entry that holds nothing; true when its node has to be purged. */
static bool drop_if_idle(struct handles *h, struct held *n)
{
    if (n->lookups || n->opens)
        return false;
    bool purge = n->unlinked;
    struct held **at = bucket(h->buckets, h->bucket_count, n->id);
    while (*at != n)
        at = &(*at)->next;
    *at = n->next;
    h->count--;
    free(n);
    return purge;
}

/* ---- life ---- */

int handles_new(struct tree *tree, struct handles **out)
{
    struct handles *h = calloc(1, sizeof *h);
    if (h)
        h->buckets = calloc(FIRST_BUCKETS, sizeof(struct held *));
    if (!h || !h->buckets) {
        free(h);
        return -ENOMEM;
    }
    h->tree = tree;
    h->bucket_count = FIRST_BUCKETS;
    pthread_mutex_init(&h->lock, NULL);
    *out = h;
    return 0;
}

void handles_free(struct handles *h)
{
    if (!h)
        return;
    while (h->files)
        handles_release(h, NULL, h->files);
    for (size_t i = 0; i < h->bucket_count; i++)
        for (struct held *n; (n = h->buckets[i]);) {
            h->buckets[i] = n->next;
            if (n->unlinked)
                tree_purge(h->tree, n->id);
            free(n);
        }
    free(h->buckets);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

/* ---- lookups ---- */

void handles_lookup(struct handles *h, int64_t id)
{
    if (id < TREE_FIRST_ID)
        return;
    pthread_mutex_lock(&h->lock);
    struct held *n = find_or_add(h, id);
    if (n)
        n->lookups++;
    pthread_mutex_unlock(&h->lock);
}

void handles_forget(struct handles *h, int64_t id, uint64_t count)
{
    pthread_mutex_lock(&h->lock);
    struct held *n = find(h, id);
    bool purge = false;
    if (n) {
        n->lookups = n->lookups > count ? n->lookups - count : 0;
        purge = drop_if_idle(h, n);
    }
    pthread_mutex_unlock(&h->lock);
    if (purge)
        tree_purge(h->tree, id);
}

void handles_unlinked(struct handles *h, int64_t id)
{
    pthread_mutex_lock(&h->lock);
    struct held *n = find(h, id);
    if (n)
        n->unlinked = true;
    pthread_mutex_unlock(&h->lock);
    if (!n)
        tree_purge(h->tree, id);
}

/* ---- open files ---- */

static void link_file(struct handles *h, struct open_file *f)
{
    f->next = h->files;
    if (h->files)
        h->files->prev = f;
    h->files = f;
}

static void unlink_file(struct handles *h, struct open_file *f)
{
    if (f->prev)
        f->prev->next = f->next;
    else
        h->files = f->next;
    if (f->next)
        f->next->prev = f->prev;
}

struct open_file *handles_open(struct handles *h, int64_t id, int fd, bool writer, int64_t size)
{
    struct open_file *f = calloc(1, sizeof *f);
    if (!f)
        return NULL;
    *f = (struct open_file){.id = id, .fd = fd, .writer = writer};
    pthread_mutex_lock(&h->lock);
    struct held *n = find_or_add(h, id);
    if (n) {
        n->opens++;
        if (writer && n->writers++ == 0)
            n->size = size;
        link_file(h, f);
    }
    pthread_mutex_unlock(&h->lock);
    if (!n) {
        free(f);
        return NULL;
    }
    return f;
}

/* The last writer: what was charged in advance becomes what was written. */
static void settle(struct handles *h, struct held *n, int fd)
{
    struct stat st;
    if (n->writers == 0 && !fstat(fd, &st))
        tree_charge(h->tree, st.st_size - n->size);
}

void handles_release(struct handles *h, struct passthrough *pt, struct open_file *f)
{
    int backing = 0;
    bool purge = false;
    int64_t id = f->id;
    pthread_mutex_lock(&h->lock);
    struct held *n = find(h, id);
    if (n) {
        n->opens--;
        if (f->writer) {
            n->writers--;
            settle(h, n, f->fd);
        }
        if (f->counted == COUNTED_SPLICED)
            n->unbacked--;
        if (f->counted == COUNTED_PASSTHROUGH && --n->backed == 0) {
            backing = n->backing;
            n->backing = 0;
        }
        purge = drop_if_idle(h, n);
    }
    unlink_file(h, f);
    pthread_mutex_unlock(&h->lock);
    if (backing && pt)
        passthrough_close(pt, backing);
    close(f->fd);
    free(f);
    if (purge)
        tree_purge(h->tree, id);
}

/* ---- sizes ---- */

static int charge(struct handles *h, int64_t id, int64_t now, int64_t want, bool exactly)
{
    pthread_mutex_lock(&h->lock);
    struct held *n = find(h, id);
    bool written = n && n->writers;
    int64_t known = written ? n->size : now;
    int r = 0;
    if (exactly ? want != known : want > known) {
        r = tree_charge(h->tree, want - known);
        if (!r && written)
            n->size = want;
    }
    pthread_mutex_unlock(&h->lock);
    return r;
}

int handles_grow(struct handles *h, int64_t id, int64_t now, int64_t at_least)
{
    return charge(h, id, now, at_least, false);
}

int handles_resize(struct handles *h, int64_t id, int64_t now, int64_t exactly)
{
    return charge(h, id, now, exactly, true);
}

/* ---- passthrough ---- */

int handles_backing(struct handles *h, struct passthrough *pt, struct open_file *f)
{
    pthread_mutex_lock(&h->lock);
    struct held *n = find(h, f->id);
    bool ask = n && !n->backing && !n->unbacked;
    pthread_mutex_unlock(&h->lock);
    if (!n)
        return 0;

    int fresh = ask ? passthrough_open(pt, f->fd) : 0;
    pthread_mutex_lock(&h->lock);
    if (fresh > 0 && !n->backing && !n->unbacked) {
        n->backing = fresh;
        fresh = 0;
    }
    int backing = n->backing;
    if (backing)
        n->backed++;
    else
        n->unbacked++;
    f->counted = backing ? COUNTED_PASSTHROUGH : COUNTED_SPLICED;
    pthread_mutex_unlock(&h->lock);
    if (fresh > 0) /* another open was faster */
        passthrough_close(pt, fresh);
    return backing;
}

/* ---- eras ---- */

unsigned handles_era(const struct handles *h)
{
    return atomic_load(&h->era);
}

void handles_new_era(struct handles *h)
{
    atomic_fetch_add(&h->era, 1);
}
