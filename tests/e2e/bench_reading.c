/* How fast the mount is: reading an artifact through the kernel's passthrough and spliced, beside
 * the raw disk; writing; small operations. Prints, asserts nothing.
 *     build/tests/e2e/bench_reading [MiB] */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../support/mounted.h"
#include "base/cleanup.h"
#include "store/tree.h"

enum { BLOCK = 1 << 20, SMALL = 2000 };

static char block[BLOCK];

static double read_all(const char *path)
{
    double start = now(), bytes = 0;
    AUTO_FD int fd = open(path, O_RDONLY);
    for (ssize_t n; (n = read(fd, block, BLOCK)) > 0;)
        bytes += (double)n;
    return bytes / 1e6 / (now() - start);
}

static double write_all(const char *path, int mib)
{
    double start = now();
    AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    for (int i = 0; i < mib; i++)
        if (write(fd, block, BLOCK) != BLOCK)
            return 0;
    return mib * (BLOCK / 1e6) / (now() - start);
}

static void drop_caches(void)
{
    sync();
    AUTO_FD int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
    if (fd < 0 || write(fd, "3", 1) != 1)
        fprintf(stderr, "caches cannot be dropped\n");
}

static void show(const char *what, const char *path)
{
    drop_caches();
    double cold = read_all(path), first = read_all(path), second = read_all(path);
    printf("%-24s cold %7.0f   warm %7.0f   again %7.0f MB/s\n", what, cold, first, second);
}

/* An artifact of `mib` MiB in image/bench, made without a job. */
static int prepare(const struct mounted *m, const char *file, int mib)
{
    struct db *d;
    struct tree *t;
    struct node folder, n;
    int64_t replaced;
    write_all(file, mib);
    if (db_open(m->store, &d, NULL))
        return -1;
    int r = tree_open(d, m->store, &t, NULL);
    if (!r) {
        r = tree_make(t, TREE_IMAGE, "bench", S_IFDIR | 0755, 0, 0, 0, NULL, &folder);
        if (!r)
            r = tree_adopt(t, folder.id, "image.png", file, 0, 0, 0444, "bench", &n, &replaced);
        tree_close(t);
    }
    db_close(d);
    return r;
}

static void small_operations(const struct mounted *m)
{
    char name[PATH_MAX];
    struct stat st;
    double start = now();
    for (int i = 0; i < SMALL; i++) {
        snprintf(name, sizeof name, "%s/image/.small%d", m->dir, i);
        write_file(name, "x");
    }
    double made = now();
    for (int i = 0; i < SMALL; i++) {
        snprintf(name, sizeof name, "%s/image/.none%d", m->dir, i);
        stat(name, &st);
    }
    double looked = now();
    for (int i = 0; i < SMALL; i++) {
        snprintf(name, sizeof name, "%s/image/.small%d", m->dir, i);
        unlink(name);
    }
    double us = 1e6 / SMALL;
    printf("create+write+close %.0f us, lookup %.0f us, unlink %.0f us\n", (made - start) * us,
           (looked - made) * us, (now() - looked) * us);
}

int main(int argc, char **argv)
{
    int mib = argc > 1 ? atoi(argv[1]) : 200;
    struct mounted m = {0};
    char file[PATH_MAX];
    if (mib <= 0 || mounted_impossible() || mounted_start(&m, NULL) || mounted_end(&m, SIGTERM))
        return 1;
    snprintf(file, sizeof file, "%s/raw", m.scratch);
    int r = prepare(&m, file, mib);
    if (!r)
        show("raw file", file);
    for (int i = 0; !r && i < 2; i++) {
        r = mounted_start(&m, i ? "nopassthrough" : "passthrough");
        if (r)
            break;
        show(i ? "artifact, spliced" : "artifact, passthrough",
             mounted_path(&m, "image/bench/image.png"));
        if (i) {
            const char *copy = mounted_path(&m, "image/bench/copy");
            printf("%-24s %.0f MB/s\n", "writing", write_all(copy, mib));
            show("a user's file", copy);
            small_operations(&m);
        }
        r = mounted_end(&m, SIGTERM);
    }
    mounted_free(&m);
    return r != 0;
}
