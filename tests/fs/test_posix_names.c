/* Names as on a local filesystem: making, removing, moving, listing, permissions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "../support/posix.h"

#define ALICE 1001
#define BOB   1002

static struct stat stat_of(const char *path)
{
    struct stat st = {0};
    if (lstat(path, &st))
        fail_msg("%s: %s", path, strerror(errno));
    return st;
}

static void every_kind_of_node_can_be_made(void **state)
{
    (void)state;
    const struct {
        const char *name;
        mode_t mode;
        dev_t dev;
    } kinds[] = {{"file", S_IFREG | 0640, 0},
                 {"fifo", S_IFIFO | 0604, 0},
                 {"socket", S_IFSOCK | 0600, 0},
                 {"char", S_IFCHR | 0600, makedev(1, 3)},
                 {"block", S_IFBLK | 0600, makedev(7, 9)}};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        assert_int_equal(ERR(mknod(kinds[i].name, kinds[i].mode, kinds[i].dev)), 0);
        struct stat st = stat_of(kinds[i].name);
        assert_int_equal(st.st_mode, kinds[i].mode);
        assert_int_equal(st.st_rdev, kinds[i].dev);
        assert_int_equal(st.st_nlink, 1);
        assert_int_equal(ERR(mknod(kinds[i].name, kinds[i].mode, 0)), EEXIST);
    }
    assert_int_equal(ERR(mkdir("dir", 0751)), 0);
    assert_int_equal(stat_of("dir").st_mode, S_IFDIR | 0751);
    assert_int_equal(stat_of("dir").st_nlink, 2);
    assert_int_equal(ERR(symlink("nowhere", "link")), 0);
    assert_int_equal(stat_of("link").st_size, 7);
    assert_int_equal(ERR(link("file", "hard")), EPERM);
}

static void a_fifo_connects_two_processes(void **state)
{
    (void)state;
    char text[8] = "";
    assert_int_equal(ERR(mkfifo("fifo", 0600)), 0);
    AUTO_FD int fd = open("fifo", O_RDWR | O_NONBLOCK);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "hello", 5), 5);
    assert_int_equal(read(fd, text, sizeof text), 5);
}

static void errors_are_those_of_a_local_filesystem(void **state)
{
    (void)state;
    touch("file");
    mkdir("dir", 0755);
    touch("dir/inside");
    symlink("loop", "loop");
    assert_int_equal(ERR(mkdir("dir", 0755)), EEXIST);
    assert_int_equal(ERR(mkdir("none/x", 0755)), ENOENT);
    assert_int_equal(ERR(mkdir("file/x", 0755)), ENOTDIR);
    assert_int_equal(ERR(rmdir("dir")), ENOTEMPTY);
    assert_int_equal(ERR(rmdir("file")), ENOTDIR);
    assert_int_equal(ERR(rmdir("none")), ENOENT);
    assert_int_equal(ERR(rmdir(".")), EINVAL);
    assert_int_equal(ERR(unlink("dir")), EISDIR);
    assert_int_equal(ERR(unlink("none")), ENOENT);
    assert_int_equal(ERR(open("loop", O_RDONLY)), ELOOP);
    assert_int_equal(ERR(open("dir", O_WRONLY)), EISDIR);
    assert_int_equal(ERR(open("file", O_CREAT | O_EXCL, 0600)), EEXIST);
    assert_int_equal(ERR(open("file", O_RDONLY | O_DIRECTORY)), ENOTDIR);
    assert_int_equal(ERR(symlink("x", "file")), EEXIST);
}

static void rename_does_what_it_promises(void **state)
{
    (void)state;
    touch("a");
    touch("b");
    mkdir("empty", 0755);
    mkdir("full", 0755);
    touch("full/f");
    ino_t a = stat_of("a").st_ino;
    assert_int_equal(ERR(rename("a", "b")), 0);
    assert_int_equal(stat_of("b").st_ino, a);
    assert_int_equal(ERR(rename("a", "c")), ENOENT);
    assert_int_equal(ERR(rename("b", "full")), EISDIR);
    assert_int_equal(ERR(rename("full", "b")), ENOTDIR);
    assert_int_equal(ERR(rename("empty", "full")), ENOTEMPTY);
    assert_int_equal(ERR(rename("full", "full/below")), EINVAL);
    assert_int_equal(ERR(rename("full", "empty")), 0);
    assert_int_equal(ERR(access("empty/f", F_OK)), 0);
    assert_int_equal(ERR(renameat2(AT_FDCWD, "b", AT_FDCWD, "empty", RENAME_NOREPLACE)), EEXIST);
    assert_int_equal(ERR(renameat2(AT_FDCWD, "b", AT_FDCWD, "empty", RENAME_EXCHANGE)), 0);
    assert_int_equal(stat_of("empty").st_ino, a);
    assert_true(S_ISDIR(stat_of("b").st_mode));
    assert_int_equal(ERR(access("b/f", F_OK)), 0);
    assert_int_equal(ERR(renameat2(AT_FDCWD, "b", AT_FDCWD, "x", RENAME_WHITEOUT)), EINVAL);
}

static void a_file_renamed_over_lives_on_for_who_has_it_open(void **state)
{
    (void)state;
    char text[16] = "";
    write_file("old", "old text");
    write_file("new", "new text");
    AUTO_FD int fd = open("old", O_RDWR);
    assert_int_equal(ERR(rename("new", "old")), 0);
    assert_int_equal(read(fd, text, sizeof text), 8);
    assert_string_equal(text, "old text");
    assert_int_equal(pwrite(fd, "!", 1, 8), 1);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_nlink, 0);
    assert_int_equal(st.st_size, 9);
    assert_string_equal(read_file("old"), "new text");
}

static void folders_know_when_they_changed(void **state)
{
    (void)state;
    struct timespec long_ago[2] = {{1000, 0}, {1000, 0}};
    mkdir("dir", 0755);
    static const char *const steps[] = {"make", "rename", "remove"};
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        utimensat(AT_FDCWD, "dir", long_ago, 0);
        assert_int_equal(stat_of("dir").st_mtim.tv_sec, 1000);
        int r = i == 0 ? touch("dir/a") : i == 1 ? rename("dir/a", "dir/b") : unlink("dir/b");
        assert_int_equal(r, 0);
        assert_true(stat_of("dir").st_mtim.tv_sec > 1000);
    }
}

/* ---- names ---- */

static void names_are_bytes(void **state)
{
    (void)state;
    static const char *const names[] = {"\xff\xfe\x80",
                                        "line\nbreak",
                                        "\x01\x7f",
                                        " ",
                                        "-rf",
                                        "%s%n%d",
                                        "'; DROP TABLE node; --",
                                        "\xe2\x80\xae"
                                        "gnp",
                                        "status",
                                        "wait",
                                        "prompt.ini",
                                        "CON:"};
    char text[32];
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        snprintf(text, sizeof text, "%zu", i);
        assert_int_equal(write_file(names[i], text), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        snprintf(text, sizeof text, "%zu", i);
        assert_string_equal(read_file(names[i]), text);
    }
    size_t seen = 0;
    DIR *d = opendir(".");
    for (struct dirent *e; (e = readdir(d));)
        for (size_t i = 0; i < ARRAY_LEN(names); i++)
            seen += !strcmp(e->d_name, names[i]);
    closedir(d);
    assert_int_equal(seen, ARRAY_LEN(names));
}

static void a_name_has_255_bytes_and_a_target_4095(void **state)
{
    (void)state;
    char name[257], target[4096], back[4097];
    memset(name, 'n', sizeof name);
    name[256] = '\0';
    assert_int_equal(touch(name), ENAMETOOLONG);
    assert_int_equal(ERR(mkdir(name, 0755)), ENAMETOOLONG);
    name[255] = '\0';
    assert_int_equal(touch(name), 0);
    assert_int_equal(ERR(rename(name, "short")), 0);
    assert_int_equal(ERR(rename("short", name)), 0);
    memset(target, 't', sizeof target);
    target[4095] = '\0';
    assert_int_equal(ERR(symlink(target, "link")), 0);
    assert_int_equal(readlink("link", back, sizeof back), 4095);
    assert_memory_equal(back, target, 4095);
}

static void folders_can_be_deeper_than_a_path_is_long(void **state)
{
    (void)state;
    char name[256];
    memset(name, 'd', 255);
    name[255] = '\0';
    int depth = 0;
    for (; depth < 40; depth++)
        assert_int_equal(mkdir(name, 0755) || chdir(name), 0);
    assert_int_equal(touch("deep"), 0);
    for (; depth > 0; depth--)
        assert_int_equal(ERR(chdir("..")), 0);
    assert_int_equal(ERR(access("deep", F_OK)), ENOENT);
}

static void a_whole_path_of_4095_bytes_works(void **state)
{
    struct mounted *m = *state;
    char path[4097];
    size_t n = (size_t)snprintf(path, sizeof path, "%s/image/.test", m->dir);
    while (n < 4095) {
        size_t part = 4095 - n > 200 ? 150 : 4095 - n;
        path[n++] = '/';
        memset(path + n, 'p', part - 1);
        n += part - 1;
        path[n] = '\0';
        assert_int_equal(n < 4095 ? ERR(mkdir(path, 0755)) : touch(path), 0);
    }
    assert_int_equal(strlen(path), 4095);
    struct stat st;
    assert_int_equal(ERR(stat(path, &st)), 0);
    assert_int_equal(ERR(unlink(path)), 0);
}

/* ---- listings ---- */

static int count_entries(DIR *d)
{
    int n = 0;
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] == 'e';
    return n;
}

static void ten_thousand_entries_are_listed_once_each(void **state)
{
    (void)state;
    enum { MANY = 10000 };
    char name[32];
    char *seen = calloc(1, MANY);
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "e%d", i);
        assert_int_equal(ERR(mknod(name, S_IFREG | 0600, 0)), 0);
    }
    /* half of them go while the listing is under way, and others come */
    DIR *d = opendir(".");
    int step = 0;
    for (struct dirent *e; (e = readdir(d)); step++) {
        int number;
        if (sscanf(e->d_name, "e%d", &number) == 1)
            assert_int_equal(seen[number]++, 0);
        snprintf(name, sizeof name, "e%d", step);
        if (step % 2 && step < MANY)
            assert_int_equal(ERR(unlink(name)), 0);
        snprintf(name, sizeof name, "new%d", step);
        if (step < 100)
            touch(name);
    }
    for (int i = 0; i < MANY; i += 2)
        if (!seen[i])
            fail_msg("e%d stayed and was not listed", i);
    rewinddir(d);
    assert_int_equal(count_entries(d), MANY / 2);
    closedir(d);
    free(seen);
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "e%d", i);
        unlink(name);
    }
}

static void a_position_is_good_after_others_were_removed(void **state)
{
    (void)state;
    char name[16];
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "e%03d", i);
        touch(name);
    }
    DIR *d = opendir(".");
    struct dirent *e;
    do
        e = readdir(d);
    while (e && strcmp(e->d_name, "e100"));
    long at = telldir(d);
    e = readdir(d);
    assert_non_null(e);
    char next[256];
    snprintf(next, sizeof next, "%s", e->d_name);
    for (int i = 0; i <= 100; i++) {
        snprintf(name, sizeof name, "e%03d", i);
        unlink(name);
    }
    seekdir(d, at);
    assert_string_equal(readdir(d)->d_name, next);
    rewinddir(d);
    assert_int_equal(count_entries(d), 199);
    closedir(d);
}

static void a_removed_folder_that_is_open_is_empty(void **state)
{
    (void)state;
    mkdir("gone", 0755);
    AUTO_FD int fd = open("gone", O_RDONLY | O_DIRECTORY);
    assert_int_equal(ERR(rmdir("gone")), 0);
    assert_int_equal(ERR(openat(fd, "x", O_CREAT | O_WRONLY, 0600)), ENOENT);
    assert_int_equal(ERR(mkdirat(fd, "x", 0700)), ENOENT);
    struct stat st;
    assert_int_equal(ERR(fstat(fd, &st)), 0);
    assert_int_equal(st.st_nlink, 0);
}

/* ---- users ---- */

static int make_here(void *arg)
{
    return touch(arg);
}
static int remove_it(void *arg)
{
    return ERR(unlink(arg));
}
static int read_it(void *arg)
{
    return ERR(open(arg, O_RDONLY));
}
static int write_it(void *arg)
{
    return ERR(open(arg, O_WRONLY));
}
static int chmod_it(void *arg)
{
    return ERR(chmod(arg, 0777));
}
static int give_away(void *arg)
{
    return ERR(chown(arg, BOB, (gid_t)-1));
}

static void modes_decide_who_may_do_what(void **state)
{
    (void)state;
    mkdir("open", 0777);
    chmod("open", 0777);
    assert_int_equal(as_user(ALICE, make_here, "open/a"), 0);
    assert_int_equal(stat_of("open/a").st_uid, ALICE);
    assert_int_equal(stat_of("open/a").st_gid, ALICE);
    assert_int_equal(as_user(ALICE, make_here, "not-mine"), EACCES);
    assert_int_equal(as_user(BOB, read_it, "open/a"), 0);
    assert_int_equal(as_user(BOB, write_it, "open/a"), EACCES);
    assert_int_equal(as_user(BOB, chmod_it, "open/a"), EPERM);
    assert_int_equal(as_user(ALICE, give_away, "open/a"), EPERM);
    chmod("open/a", 0600);
    assert_int_equal(as_user(BOB, read_it, "open/a"), EACCES);
    chmod("open", 0700);
    assert_int_equal(as_user(ALICE, read_it, "open/a"), EACCES);
}

static void the_sticky_bit_keeps_users_apart(void **state)
{
    (void)state;
    mkdir("shared", 0777);
    chmod("shared", 01777);
    as_user(ALICE, make_here, "shared/a");
    chmod("shared/a", 0666);
    assert_int_equal(as_user(BOB, remove_it, "shared/a"), EPERM);
    assert_int_equal(as_user(BOB, write_it, "shared/a"), 0);
    assert_int_equal(as_user(ALICE, remove_it, "shared/a"), 0);
}

static void setgid_folders_hand_down_their_group(void **state)
{
    (void)state;
    mkdir("team", 0777);
    assert_int_equal(ERR(chown("team", 0, 777)), 0);
    chmod("team", 02777);
    as_user(ALICE, make_here, "team/f");
    assert_int_equal(stat_of("team/f").st_gid, 777);
    mkdir("team/sub", 0755);
    assert_int_equal(stat_of("team/sub").st_gid, 777);
    assert_int_equal(stat_of("team/sub").st_mode & 07777, 02755);
}

static int drop_box(void *arg)
{
    const char *folder = arg;
    char path[64];
    snprintf(path, sizeof path, "%s/x", folder);
    int r = mkdir(folder, 0755) ? errno : touch(path);
    unlink(path);
    rmdir(folder);
    return r;
}

static void modality_folders_are_open_to_all_and_sticky(void **state)
{
    (void)state;
    static const char *const folders[] = {"../../image", "../../video", "../../gif"};
    for (size_t i = 0; i < ARRAY_LEN(folders); i++)
        assert_int_equal(stat_of(folders[i]).st_mode, S_IFDIR | 01777);
    assert_int_equal(as_user(ALICE, drop_box, "../.of-alice"), 0);
}

/* ---- what is fixed ---- */

static void the_root_and_its_folders_stay_as_they_are(void **state)
{
    (void)state;
    assert_int_equal(stat_of("../..").st_mode, S_IFDIR | 0555);
    assert_int_equal(touch("../../x"), EPERM);
    assert_int_equal(ERR(mkdir("../../x", 0755)), EPERM);
    assert_int_equal(ERR(symlink("x", "../../x")), EPERM);
    assert_int_equal(ERR(rmdir("../../gif")), EPERM);
    assert_int_equal(ERR(rename("../../gif", "../../tif")), EPERM);
    assert_int_equal(ERR(rename("../../gif", "gif")), EPERM);
    assert_int_equal(ERR(unlink("../../README.txt")), EPERM);
    assert_int_equal(ERR(rmdir("../../.omnifs")), EPERM);
    assert_int_equal(touch("../../.omnifs/x"), EPERM);
    touch("mine");
    assert_int_equal(ERR(rename("mine", "../../mine")), EPERM);
    assert_int_equal(ERR(rename("mine", "../../README.txt")), EPERM);
    assert_int_equal(ERR(rename("../../README.txt", "mine")), EPERM);
}

/* ---- all at once ---- */

struct busy {
    int number;
    pthread_t thread;
};

static void *bustle(void *arg)
{
    struct busy *b = arg;
    char mine[32], shared[32];
    for (int i = 0; i < 200; i++) {
        snprintf(mine, sizeof mine, "m%d-%d", b->number, i);
        snprintf(shared, sizeof shared, "s%d", i % 7);
        if (write_file(mine, "x") || rename(mine, shared))
            return "write and rename";
        AUTO_FD int fd = open(shared, O_RDONLY);
        if (fd < 0 && errno != ENOENT)
            return "open";
        if (i % 3 == 0 && unlink(shared) && errno != ENOENT)
            return "unlink";
        if (mkdir("d", 0755) && errno != EEXIST)
            return "mkdir";
        if (rmdir("d") && errno != ENOENT)
            return "rmdir";
    }
    return NULL;
}

static void threads_may_do_everything_at_once(void **state)
{
    (void)state;
    struct busy all[6];
    for (int i = 0; i < 6; i++) {
        all[i].number = i;
        assert_int_equal(pthread_create(&all[i].thread, NULL, bustle, &all[i]), 0);
    }
    for (int i = 0; i < 6; i++) {
        void *problem;
        pthread_join(all[i].thread, &problem);
        if (problem)
            fail_msg("%s", (char *)problem);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        POSIX_TEST(every_kind_of_node_can_be_made),
        POSIX_TEST(a_fifo_connects_two_processes),
        POSIX_TEST(errors_are_those_of_a_local_filesystem),
        POSIX_TEST(rename_does_what_it_promises),
        POSIX_TEST(a_file_renamed_over_lives_on_for_who_has_it_open),
        POSIX_TEST(folders_know_when_they_changed),
        POSIX_TEST(names_are_bytes),
        POSIX_TEST(a_name_has_255_bytes_and_a_target_4095),
        POSIX_TEST(folders_can_be_deeper_than_a_path_is_long),
        POSIX_TEST(a_whole_path_of_4095_bytes_works),
        POSIX_TEST(ten_thousand_entries_are_listed_once_each),
        POSIX_TEST(a_position_is_good_after_others_were_removed),
        POSIX_TEST(a_removed_folder_that_is_open_is_empty),
        POSIX_TEST(modes_decide_who_may_do_what),
        POSIX_TEST(the_sticky_bit_keeps_users_apart),
        POSIX_TEST(setgid_folders_hand_down_their_group),
        POSIX_TEST(modality_folders_are_open_to_all_and_sticky),
        POSIX_TEST(the_root_and_its_folders_stay_as_they_are),
        POSIX_TEST(threads_may_do_everything_at_once),
    };
    return cmocka_run_group_tests(tests, posix_setup, posix_teardown);
}
