/* The tree: names, moves, attributes, accounting, and what a crash leaves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "store/tree.h"

struct fixture {
    char store[64];
    struct db *db;
    struct tree *tree;
};

static void begin(struct fixture *f)
{
    struct err e = {0};
    if (db_open(f->store, &f->db, &e) || tree_open(f->db, f->store, &f->tree, &e))
        fail_msg("%s", e.text);
}

static void end(struct fixture *f)
{
    tree_close(f->tree);
    db_close(f->db);
    f->tree = NULL;
    f->db = NULL;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    /* in memory where possible: hundreds of syncs say nothing about the code */
    snprintf(f->store, sizeof f->store, "%s/omnifs-tree-XXXXXX",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(f->store))
        return -1;
    begin(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    tree_close(f->tree);
    db_close(f->db);
    file_remove_tree(AT_FDCWD, f->store);
    free(f);
    return 0;
}

static int64_t make(struct tree *t, int64_t parent, const char *name, mode_t mode)
{
    struct node n;
    int r = tree_make(t, parent, name, mode, 10, 20, 0, NULL, &n);
    return r ? r : n.id;
}
static int64_t file(struct tree *t, int64_t parent, const char *name)
{
    return make(t, parent, name, S_IFREG | 0644);
}
static int64_t folder(struct tree *t, int64_t parent, const char *name)
{
    return make(t, parent, name, S_IFDIR | 0755);
}
static int64_t id_of(struct tree *t, int64_t parent, const char *name)
{
    struct node n;
    int r = tree_lookup(t, parent, name, &n);
    return r ? r : n.id;
}

static void put(struct tree *t, int64_t id, const char *text)
{
    AUTO_FD int fd = tree_open_data(t, id, O_WRONLY | O_TRUNC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static const char *get(struct tree *t, int64_t id)
{
    static char text[256];
    AUTO_FD int fd = tree_open_data(t, id, O_RDONLY);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

static int data_files(const struct fixture *f)
{
    int count = 0;
    for (int i = 0; i < 256; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/data/%02x", f->store, (unsigned)i);
        DIR *d = opendir(path);
        for (struct dirent *e; d && (e = readdir(d));)
            count += e->d_name[0] != '.';
        if (d)
            closedir(d);
    }
    return count;
}

/* ---- nodes ---- */

static void a_new_store_has_the_fixed_folders(void **state)
{
    struct tree *t = ((struct fixture *)*state)->tree;
    struct node n;
    assert_int_equal(id_of(t, TREE_ROOT, "image"), TREE_IMAGE);
    assert_int_equal(id_of(t, TREE_ROOT, "video"), TREE_VIDEO);
    assert_int_equal(id_of(t, TREE_ROOT, "gif"), TREE_GIF);
    assert_int_equal(tree_get(t, TREE_ROOT, &n), 0);
    assert_int_equal(n.parent, TREE_ROOT);
    assert_int_equal(n.st.st_nlink, 5);
    int64_t id;
    assert_int_equal(tree_rmdir(t, TREE_ROOT, "gif", &id), -EPERM);
}

static void what_is_made_is_found_complete(void **state)
{
    struct tree *t = ((struct fixture *)*state)->tree;
    struct node n, again;
    assert_int_equal(tree_make(t, TREE_IMAGE, "l", S_IFLNK | 0777, 1, 2, 0, "target/x", &n), 0);
    assert_int_equal(n.st.st_size, 8);
    char target[32];
    assert_int_equal(tree_readlink(t, n.id, target, sizeof target), 0);
    assert_string_equal(target, "target/x");
    assert_int_equal(tree_make(t, TREE_IMAGE, "p", S_IFIFO | 0600, 1, 2, 0, NULL, &n), 0);
    assert_int_equal(tree_make(t, TREE_IMAGE, "d", S_IFCHR | 0600, 1, 2, 0x501, NULL, &n), 0);
    assert_int_equal(n.st.st_rdev, 0x501);
    int64_t id = file(t, TREE_IMAGE, "f");
    put(t, id, "12345");
    assert_int_equal(tree_lookup(t, TREE_IMAGE, "f", &n), 0);
    assert_int_equal(tree_get(t, id, &again), 0);
    assert_memory_equal(&n, &again, sizeof n);
    assert_int_equal(n.st.st_size, 5);
    assert_int_equal(n.st.st_mode, S_IFREG | 0644);
    assert_int_equal(n.st.st_uid, 10);
    assert_int_equal(n.st.st_gid, 20);
    assert_int_equal(n.st.st_nlink, 1);
    assert_string_equal(n.name, "f");
    assert_int_equal(tree_get(t, 999999, &n), -ESTALE);
    assert_int_equal(tree_lookup(t, TREE_IMAGE, "none", &n), -ENOENT);
}

static void names_are_bytes_with_few_limits(void **state)
{
    struct tree *t = ((struct fixture *)*state)->tree;
    char longest[258];
    memset(longest, 'n', sizeof longest);
    longest[256] = '\0';
    assert_int_equal(file(t, TREE_IMAGE, longest), -ENAMETOOLONG);
    longest[255] = '\0';
    assert_true(file(t, TREE_IMAGE, longest) > 0);
    assert_true(id_of(t, TREE_IMAGE, longest) > 0);
    static const char *const odd[] = {
        "\xff\xfe", "a\nb", "'; DROP TABLE node; --", " ", "%s%n", "-rf", "\x01", "ÄÖ", "A", "a"};
    for (size_t i = 0; i < ARRAY_LEN(odd); i++) {
        assert_true(file(t, TREE_IMAGE, odd[i]) > 0);
        assert_int_equal(file(t, TREE_IMAGE, odd[i]), -EEXIST);
    }
    static const char *const bad[] = {"", ".", "..", "a/b", "/"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(file(t, TREE_IMAGE, bad[i]), -EINVAL);
}

static void nothing_is_made_in_what_is_no_folder_or_gone(void **state)
{
    struct fixture *f = *state;
    struct tree *t = f->tree;
    int64_t id, d = folder(t, TREE_IMAGE, "d"), plain = file(t, TREE_IMAGE, "f");
    assert_int_equal(file(t, plain, "x"), -ENOTDIR);
    assert_int_equal(file(t, 77777, "x"), -ENOENT);
    assert_int_equal(tree_rmdir(t, TREE_IMAGE, "d", &id), 0);
    assert_int_equal(id, d);
    assert_int_equal(file(t, d, "x"), -ENOENT);
    assert_int_equal(data_files(f), 1); /* none of the refused ones left bytes */
}

static void folders_count_their_folders(void **state)
{
    struct tree *t = ((struct fixture *)*state)->tree;
    struct node n;
    int64_t id, replaced, a = folder(t, TREE_IMAGE, "a");
    folder(t, a, "b");
    folder(t, a, "c");
    file(t, a, "f");
    tree_get(t, a, &n);
    assert_int_equal(n.st.st_nlink, 4);
    assert_int_equal(tree_rename(t, a, "b", TREE_IMAGE, "b", 0, &id, &replaced), 0);
    tree_get(t, a, &n);
    assert_int_equal(n.st.st_nlink, 3);
    assert_int_equal(tree_rename(t, TREE_IMAGE, "b", a, "c", 0, &id, &replaced), 0);
    assert_true(replaced > 0);
    tree_get(t, a, &n);
    assert_int_equal(n.st.st_nlink, 3);
    assert_int_equal(tree_rmdir(t, a, "c", &id), 0);
    tree_get(t, a, &n);
    assert_int_equal(n.st.st_nlink, 2);
    assert_int_equal(tree_rmdir(t, TREE_IMAGE, "a", &id), -ENOTEMPTY);
    assert_int_equal(tree_rmdir(t, a, "f", &id), -ENOTDIR);
    assert_int_equal(tree_unlink(t, TREE_IMAGE, "a", &id), -EISDIR);
}

static void an_unlinked_node_stays_until_it_is_purged(void **state)
{
    struct fixture *f = *state;
    struct node n;
    int64_t id, a = file(f->tree, TREE_IMAGE, "a");
    put(f->tree, a, "still here");
    assert_int_equal(tree_unlink(f->tree, TREE_IMAGE, "a", &id), 0);
    assert_int_equal(id_of(f->tree, TREE_IMAGE, "a"), -ENOENT);
    assert_int_equal(tree_get(f->tree, a, &n), 0);
    assert_int_equal(n.parent, 0);
    assert_int_equal(n.st.st_nlink, 0);
    assert_string_equal(get(f->tree, a), "still here");
    int64_t b = file(f->tree, TREE_IMAGE, "a");
    tree_purge(f->tree, b); /* has a name: nothing happens */
    assert_int_equal(id_of(f->tree, TREE_IMAGE, "a"), b);
    tree_purge(f->tree, a);
    assert_int_equal(tree_get(f->tree, a, &n), -ESTALE);
    assert_int_equal(data_files(f), 1);
}

static void attributes_change_one_by_one(void **state)
{
    struct tree *t = ((struct fixture *)*state)->tree;
    static const mode_t types[] = {S_IFREG, S_IFDIR, S_IFIFO};
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        char name[8];
        snprintf(name, sizeof name, "n%zu", i);
        int64_t id = make(t, TREE_IMAGE, name, types[i] | 0600);
        struct stat st = {.st_mode = 06711,
                          .st_uid = 7,
                          .st_gid = 8,
                          .st_atim = {1000, 1},
                          .st_mtim = {-5, 999999999}};
        struct node n;
        assert_int_equal(tree_set(t, id, TREE_SET_MODE, &st), 0);
        assert_int_equal(tree_get(t, id, &n), 0);
        assert_int_equal(n.st.st_mode, types[i] | 06711);
        assert_int_equal(n.st.st_uid, 10);
        assert_int_equal(tree_set(t, id, TREE_SET_UID | TREE_SET_MTIME, &st), 0);
        assert_int_equal(tree_get(t, id, &n), 0);
        assert_int_equal(n.st.st_uid, 7);
        assert_int_equal(n.st.st_gid, 20);
        assert_true(n.st.st_mtim.tv_sec == -5 && n.st.st_mtim.tv_nsec == 999999999);
        assert_true(n.st.st_atim.tv_sec > 1000);
        assert_int_equal(tree_set(t, id, TREE_SET_ATIME, &st), 0);
        assert_int_equal(tree_get(t, id, &n), 0);
        assert_true(n.st.st_atim.tv_sec == 1000 && n.st.st_atim.tv_nsec == 1);
    }
    struct stat st = {0};
    assert_int_equal(tree_set(t, 424242, TREE_SET_MODE, &st), -ESTALE);
}

/* ---- rename ---- */

/* Every kind onto every kind, and what Linux says to it. */
static void rename_answers_as_linux_does(void **state)
{
    struct tree *t = ((struct fixture *)*state)->tree;
    enum { FILE_, EMPTY, FULL, NONE };
    static const struct {
        int from, to;
        unsigned flags;
        int result;
    } cases[] = {
        {FILE_, NONE, 0, 0},
        {FILE_, FILE_, 0, 0},
        {FILE_, EMPTY, 0, -EISDIR},
        {FILE_, FULL, 0, -EISDIR},
        {EMPTY, NONE, 0, 0},
        {EMPTY, FILE_, 0, -ENOTDIR},
        {EMPTY, EMPTY, 0, 0},
        {EMPTY, FULL, 0, -ENOTEMPTY},
        {FULL, EMPTY, 0, 0},
        {NONE, FILE_, 0, -ENOENT},
        {FILE_, FILE_, RENAME_NOREPLACE, -EEXIST},
        {FULL, FULL, RENAME_NOREPLACE, -EEXIST},
        {FILE_, NONE, RENAME_NOREPLACE, 0},
        {FILE_, NONE, RENAME_EXCHANGE, -ENOENT},
        {FILE_, FULL, RENAME_EXCHANGE, 0},
        {FULL, FILE_, RENAME_EXCHANGE, 0},
        {FILE_, FILE_, RENAME_EXCHANGE | RENAME_NOREPLACE, -EINVAL},
        {FILE_, FILE_, 8, -EINVAL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char name[16];
        int64_t ids[2] = {0};
        snprintf(name, sizeof name, "case%zu", i);
        int64_t d = folder(t, TREE_IMAGE, name), moved, replaced;
        for (int side = 0; side < 2; side++) {
            int kind = side ? cases[i].to : cases[i].from;
            const char *as = side ? "to" : "from";
            if (kind != NONE)
                ids[side] = kind == FILE_ ? file(t, d, as) : folder(t, d, as);
            if (kind == FULL)
                file(t, ids[side], "inside");
        }
        int r = tree_rename(t, d, "from", d, "to", cases[i].flags, &moved, &replaced);
        if (r != cases[i].result)
            fail_msg("case %zu: %d instead of %d", i, r, cases[i].result);
        bool exchanged = cases[i].flags & RENAME_EXCHANGE;
        if (!r) {
            assert_int_equal(moved, ids[0]);
            assert_int_equal(replaced, ids[1]);
            assert_int_equal(id_of(t, d, "to"), ids[0]);
            assert_int_equal(id_of(t, d, "from"), exchanged ? ids[1] : -ENOENT);
        } else {
            assert_int_equal(id_of(t, d, "to"), ids[1] ? ids[1] : -ENOENT);
            assert_int_equal(id_of(t, d, "from"), ids[0] ? ids[0] : -ENOENT);
        }
    }
}

static void a_folder_cannot_move_below_itself(void **state)
{
    struct tree *t = ((struct fixture *)*state)->tree;
    int64_t a = folder(t, TREE_IMAGE, "a"), b = folder(t, a, "b"), c = folder(t, b, "c"), m, r;
    int64_t other = folder(t, TREE_VIDEO, "other");
    assert_int_equal(tree_rename(t, TREE_IMAGE, "a", c, "x", 0, &m, &r), -EINVAL);
    assert_int_equal(tree_rename(t, TREE_IMAGE, "a", a, "x", 0, &m, &r), -EINVAL);
    assert_int_equal(tree_rename(t, b, "c", TREE_IMAGE, "a", 0, &m, &r), -ENOTEMPTY);
    assert_int_equal(tree_rename(t, b, "c", TREE_IMAGE, "a", RENAME_EXCHANGE, &m, &r), -EINVAL);
    assert_int_equal(tree_rename(t, a, "b", TREE_VIDEO, "other", RENAME_EXCHANGE, &m, &r), 0);
    assert_int_equal(id_of(t, TREE_VIDEO, "other"), b);
    assert_int_equal(id_of(t, a, "b"), other);
    assert_int_equal(tree_rename(t, TREE_IMAGE, "a", TREE_IMAGE, "a", 0, &m, &r), 0);
    assert_int_equal(r, 0);
    assert_int_equal(tree_rename(t, TREE_ROOT, "image", TREE_VIDEO, "x", 0, &m, &r), -EPERM);
    assert_int_equal(tree_rename(t, TREE_VIDEO, "other", TREE_ROOT, "gif", 0, &m, &r), -EPERM);
}

static bool collect(void *ctx, const struct node *n)
{
    int64_t *last = ctx;
    assert_true(n->id > *last);
    *last = n->id;
    return n->name[0] != 's'; /* "stop" */
}

static void listings_go_by_id_and_can_stop_and_go_on(void **state)
{
    struct tree *t = ((struct fixture *)*state)->tree;
    char name[16];
    int64_t d = folder(t, TREE_IMAGE, "d"), last = 0;
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "n%d", (i * 37) % 200);
        file(t, d, name);
    }
    int64_t stop = file(t, d, "stop");
    int64_t behind = file(t, d, "behind");
    assert_int_equal(tree_list(t, d, 0, collect, &last), 0);
    assert_int_equal(last, stop);
    assert_int_equal(tree_list(t, d, last, collect, &last), 0);
    assert_int_equal(last, behind);
    last = 0;
    assert_int_equal(tree_list(t, TREE_ROOT, 0, collect, &last), 0);
    assert_int_equal(last, TREE_GIF);
}

/* ---- artifacts ---- */

static void staged(const struct fixture *f, char path[128], const char *text)
{
    snprintf(path, 128, "%s/staged", f->store);
    assert_int_equal(file_write_atomic(AT_FDCWD, path, text, strlen(text), NULL), 0);
}

static void adopting_replaces_in_one_step_and_keeps_the_staged_file(void **state)
{
    struct fixture *f = *state;
    char path[128];
    struct node n;
    int64_t replaced, d = folder(f->tree, TREE_IMAGE, "d"), mine = file(f->tree, d, "image.png");
    put(f->tree, mine, "mine");
    staged(f, path, "the artifact");
    assert_int_equal(tree_adopt(f->tree, d, "image.png", path, 5, 6, 0444, "run-1", &n, &replaced),
                     0);
    assert_int_equal(replaced, mine);
    assert_true(n.artifact);
    assert_string_equal(n.origin, "run-1");
    assert_int_equal(n.st.st_size, 12);
    assert_int_equal(n.st.st_mode, S_IFREG | 0444);
    assert_string_equal(get(f->tree, n.id), "the artifact");
    assert_string_equal(get(f->tree, mine), "mine");
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(tree_lookup(f->tree, d, "image.png", &n), 0);
    assert_string_equal(n.origin, "run-1");

    folder(f->tree, d, "video.mp4");
    assert_int_equal(tree_adopt(f->tree, d, "video.mp4", path, 5, 6, 0444, "r", &n, &replaced),
                     -EISDIR);
    assert_int_equal(tree_adopt(f->tree, d, "x", "/nowhere", 5, 6, 0444, "r", &n, &replaced),
                     -ENOENT);
    assert_int_equal(tree_adopt(f->tree, 99999, "x", path, 5, 6, 0444, "r", &n, &replaced),
                     -ENOENT);
    assert_int_equal(data_files(f), 2);
}

/* ---- xattrs ---- */

static void xattrs_keep_what_they_are_given(void **state)
{
    struct tree *t = ((struct fixture *)*state)->tree;
    char buf[64];
    int64_t id = file(t, TREE_IMAGE, "f");
    assert_int_equal(tree_xattr_get(t, id, "user.a", buf, sizeof buf), -ENODATA);
    assert_int_equal(tree_xattr_set(t, id, "user.a", "v\0w", 3, XATTR_REPLACE), -ENODATA);
    assert_int_equal(tree_xattr_set(t, id, "user.a", "v\0w", 3, XATTR_CREATE), 0);
    assert_int_equal(tree_xattr_set(t, id, "user.a", "v", 1, XATTR_CREATE), -EEXIST);
    assert_int_equal(tree_xattr_set(t, id, "user.empty", "", 0, 0), 0);
    assert_int_equal(tree_xattr_get(t, id, "user.a", NULL, 0), 3);
    assert_int_equal(tree_xattr_get(t, id, "user.a", buf, 2), -ERANGE);
    assert_int_equal(tree_xattr_get(t, id, "user.a", buf, 3), 3);
    assert_memory_equal(buf, "v\0w", 3);
    assert_int_equal(tree_xattr_get(t, id, "user.empty", buf, 3), 0);
    assert_int_equal(tree_xattr_list(t, id, NULL, 0), 18);
    assert_int_equal(tree_xattr_list(t, id, buf, 17), -ERANGE);
    assert_int_equal(tree_xattr_list(t, id, buf, sizeof buf), 18);
    assert_memory_equal(buf, "user.a\0user.empty\0", 18);
    assert_int_equal(tree_xattr_remove(t, id, "user.a"), 0);
    assert_int_equal(tree_xattr_remove(t, id, "user.a"), -ENODATA);
    char *big = calloc(1, 65536);
    assert_int_equal(tree_xattr_set(t, id, "user.b", big, 65537 - 1, 0), -ENOSPC);
    assert_int_equal(tree_xattr_set(t, id, "user.b", big, 60000, 0), 0);
    assert_int_equal(tree_xattr_set(t, id, "user.c", big, 6000, 0), -ENOSPC);
    free(big);
    assert_int_equal(tree_xattr_set(t, 88888, "user.a", "", 0, 0), -ESTALE);
}

/* ---- accounting ---- */

static void bytes_are_counted_over_restarts_and_crashes(void **state)
{
    struct fixture *f = *state;
    char path[128];
    struct node n;
    int64_t id, replaced, a = file(f->tree, TREE_IMAGE, "a");
    put(f->tree, a, "12345");
    assert_int_equal(tree_charge(f->tree, 5), 0);
    staged(f, path, "0123456789");
    assert_int_equal(tree_adopt(f->tree, TREE_IMAGE, "b", path, 0, 0, 0444, "r", &n, &replaced), 0);
    assert_int_equal(tree_bytes_used(f->tree), 15);
    tree_set_limit(f->tree, 20);
    assert_int_equal(tree_charge(f->tree, 6), -EDQUOT);
    assert_int_equal(tree_charge(f->tree, INT64_MAX), -EDQUOT);
    assert_int_equal(tree_charge(f->tree, 5), 0);
    assert_int_equal(tree_charge(f->tree, -5), 0);
    end(f);
    begin(f);
    assert_int_equal(tree_bytes_used(f->tree), 15);

    end(f);
    pid_t child = fork();
    if (child == 0) { /* loses a file, counts wrong, and crashes */
        begin(f);
        _exit(tree_unlink(f->tree, TREE_IMAGE, "b", &id) || tree_charge(f->tree, 1000));
    }
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    begin(f);
    assert_int_equal(tree_bytes_used(f->tree), 5);
    assert_int_equal(data_files(f), 1);
}

/* ---- crashes ---- */

/* Makes, fills, adopts, renames and unlinks as fast as it can; reports the ids it was given. */
static void churn(const char *store, int report)
{
    struct db *d;
    struct tree *t;
    if (db_open(store, &d, NULL) || tree_open(d, store, &t, NULL))
        _exit(1);
    char path[128], name[32];
    snprintf(path, sizeof path, "%s/staged", store);
    file_write_atomic(AT_FDCWD, path, "artifact", 8, NULL);
    for (int i = 0;; i++) {
        int64_t id, replaced, f = file(t, TREE_IMAGE, "f"), ids[2];
        struct node n;
        snprintf(name, sizeof name, "job%d", i % 7);
        folder(t, TREE_IMAGE, name);
        int64_t job = id_of(t, TREE_IMAGE, name);
        if (f < 0)
            f = id_of(t, TREE_IMAGE, "f");
        int fd = tree_open_data(t, f, O_WRONLY);
        if (fd < 0 || write(fd, "bytes", 5) != 5 || close(fd))
            _exit(2);
        if (tree_adopt(t, job, "image.png", path, 0, 0, 0444, "r", &n, &replaced))
            _exit(3);
        if (replaced)
            tree_purge(t, replaced);
        ids[0] = f;
        ids[1] = n.id;
        if (write(report, ids, sizeof ids) != sizeof ids)
            _exit(4);
        if (tree_rename(t, TREE_IMAGE, "f", job, "g", 0, &id, &replaced))
            _exit(5);
        if (i % 3 == 0 && !tree_unlink(t, job, "g", &id) && i % 2)
            tree_purge(t, id);
    }
}

static bool check_node(void *ctx, const struct node *n)
{
    struct fixture *f = ctx;
    if (S_ISDIR(n->st.st_mode)) {
        tree_list(f->tree, n->id, 0, check_node, f);
        return true;
    }
    AUTO_FD int fd = tree_open_data(f->tree, n->id, O_RDONLY);
    if (fd < 0)
        fail_msg("%s (%lld) has no data", n->name, (long long)n->id);
    if (n->artifact)
        assert_int_equal(n->st.st_size, 8);
    return true;
}

struct count {
    struct tree *tree;
    int files;
};

static bool count_files(void *ctx, const struct node *n)
{
    struct count *c = ctx;
    if (S_ISDIR(n->st.st_mode))
        tree_list(c->tree, n->id, 0, count_files, c);
    else
        c->files++;
    return true;
}

static void kill_9_leaves_a_sound_tree_and_ids_never_come_back(void **state)
{
    struct fixture *f = *state;
    end(f);
    int64_t highest = 0;
    for (int round = 0; round < 15; round++) {
        int pipes[2];
        assert_int_equal(pipe(pipes), 0);
        pid_t child = fork();
        if (child == 0)
            churn(f->store, pipes[1]);
        close(pipes[1]);
        int64_t ids[2], last = 0;
        for (int i = 0; read(pipes[0], ids, sizeof ids) == sizeof ids; i++) {
            if (i == 0)
                assert_true(ids[1] > highest);
            last = ids[1];
            if (i == 20 + 29 * round)
                kill(child, SIGKILL);
        }
        close(pipes[0]);
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status));
        highest = last;
        begin(f);
        assert_int_equal(tree_list(f->tree, TREE_IMAGE, 0, check_node, f), 0);
        struct count c = {f->tree, 0};
        tree_list(f->tree, TREE_IMAGE, 0, count_files, &c);
        assert_int_equal(data_files(f), c.files); /* no orphans, no strays */
        end(f);
    }
    begin(f);
}

static void ids_are_not_reused_after_an_orderly_restart(void **state)
{
    struct fixture *f = *state;
    int64_t id, a = file(f->tree, TREE_IMAGE, "a");
    assert_int_equal(tree_unlink(f->tree, TREE_IMAGE, "a", &id), 0);
    tree_purge(f->tree, a);
    end(f);
    begin(f);
    int64_t b = file(f->tree, TREE_IMAGE, "b");
    assert_true(b > a);
    assert_true(b < a + 1000); /* and not wasted either */
}

/* ---- threads ---- */

struct worker {
    struct tree *tree;
    int number;
    pthread_t thread;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    char name[32], other[32];
    for (int i = 0; i < 150; i++) {
        struct node n;
        int64_t id, replaced;
        snprintf(name, sizeof name, "w%d-%d", w->number, i);
        snprintf(other, sizeof other, "shared%d", i % 5);
        if (file(w->tree, TREE_IMAGE, name) < 0)
            return "make";
        if (tree_rename(w->tree, TREE_IMAGE, name, TREE_IMAGE, other, 0, &id, &replaced))
            return "rename";
        if (replaced)
            tree_purge(w->tree, replaced);
        tree_lookup(w->tree, TREE_IMAGE, other, &n);
        int64_t last = 0;
        if (tree_list(w->tree, TREE_IMAGE, 0, collect, &last))
            return "list";
    }
    return NULL;
}

static void threads_do_not_disturb_each_other(void **state)
{
    struct fixture *f = *state;
    struct worker workers[4];
    for (int i = 0; i < 4; i++) {
        workers[i] = (struct worker){.tree = f->tree, .number = i};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        void *problem;
        pthread_join(workers[i].thread, &problem);
        assert_null(problem);
    }
    assert_int_equal(data_files(f), 5);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_new_store_has_the_fixed_folders),
        TEST(what_is_made_is_found_complete),
        TEST(names_are_bytes_with_few_limits),
        TEST(nothing_is_made_in_what_is_no_folder_or_gone),
        TEST(folders_count_their_folders),
        TEST(an_unlinked_node_stays_until_it_is_purged),
        TEST(attributes_change_one_by_one),
        TEST(rename_answers_as_linux_does),
        TEST(a_folder_cannot_move_below_itself),
        TEST(listings_go_by_id_and_can_stop_and_go_on),
        TEST(adopting_replaces_in_one_step_and_keeps_the_staged_file),
        TEST(xattrs_keep_what_they_are_given),
        TEST(bytes_are_counted_over_restarts_and_crashes),
        TEST(kill_9_leaves_a_sound_tree_and_ids_never_come_back),
        TEST(ids_are_not_reused_after_an_orderly_restart),
        TEST(threads_do_not_disturb_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
