/* Files as on a local filesystem: reading, writing, sizes, times, attributes, limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "../support/posix.h"
#include "base/cleanup.h"

static struct stat stat_of(const char *path)
{
    struct stat st = {0};
    if (lstat(path, &st))
        fail_msg("%s: %s", path, strerror(errno));
    return st;
}

/* ---- content ---- */

static void what_is_written_is_read(void **state)
{
    (void)state;
    enum { SIZE = 5 << 20 };
    char *out = malloc(SIZE), *in = malloc(SIZE);
    for (int i = 0; i < SIZE; i++)
        out[i] = (char)(i * 2654435761u >> 24);
    AUTO_FD int fd = open("f", O_RDWR | O_CREAT, 0644);
    for (int at = 0, n = 1; at < SIZE; at += n, n = n * 3 % 65521)
        assert_int_equal(pwrite(fd, out + at, (size_t)(n < SIZE - at ? n : SIZE - at), at),
                         n < SIZE - at ? n : SIZE - at);
    assert_int_equal(fsync(fd), 0);
    assert_int_equal(pread(fd, in, SIZE, 0), SIZE);
    assert_memory_equal(in, out, SIZE);
    AUTO_FD int direct = open("f", O_RDONLY);
    assert_int_equal(posix_fadvise(direct, 0, 0, POSIX_FADV_DONTNEED), 0);
    memset(in, 0, SIZE);
    assert_int_equal(pread(direct, in, SIZE, 0), SIZE);
    assert_memory_equal(in, out, SIZE);
    assert_int_equal(pread(direct, in, 10, SIZE), 0);
    free(out);
    free(in);
}

static void appending_writers_do_not_overwrite_each_other(void **state)
{
    (void)state;
    enum { WRITERS = 4, LINES = 100 };
    for (int w = 0; w < WRITERS; w++)
        if (fork() == 0) {
            int fd = open("log", O_WRONLY | O_CREAT | O_APPEND, 0644);
            for (int i = 0; i < LINES; i++)
                if (write(fd, "0123456789\n", 11) != 11)
                    _exit(1);
            _exit(0);
        }
    for (int w = 0, status; w < WRITERS; w++) {
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    assert_int_equal(stat_of("log").st_size, WRITERS * LINES * 11);
    AUTO_FILE FILE *f = fopen("log", "r");
    char line[32];
    for (int i = 0; i < WRITERS * LINES; i++) {
        assert_non_null(fgets(line, sizeof line, f));
        assert_string_equal(line, "0123456789\n");
    }
}

static void truncation_by_path_descriptor_and_open(void **state)
{
    (void)state;
    char text[16] = "";
    write_file("f", "0123456789");
    assert_int_equal(ERR(truncate("f", 4)), 0);
    assert_string_equal(read_file("f"), "0123");
    AUTO_FD int fd = open("f", O_RDWR);
    assert_int_equal(ERR(ftruncate(fd, 8)), 0);
    assert_int_equal(read(fd, text, sizeof text), 8);
    assert_memory_equal(text, "0123\0\0\0\0", 8);
    AUTO_FD int emptied = open("f", O_WRONLY | O_TRUNC);
    assert_int_equal(stat_of("f").st_size, 0);
    assert_int_equal(pread(fd, text, sizeof text, 0), 0);
    assert_int_equal(ERR(truncate("f", -1)), EINVAL);
    assert_int_equal(ERR(truncate("none", 1)), ENOENT);
    assert_int_equal(ERR(truncate(".", 1)), EISDIR);
    assert_int_equal(ERR(ftruncate(emptied, 3)), 0);
    AUTO_FD int reader = open("f", O_RDONLY | O_TRUNC);
    assert_true(reader >= 0);
    assert_int_equal(stat_of("f").st_size, 0);
}

static void holes_take_no_room_and_are_found(void **state)
{
    (void)state;
    AUTO_FD int fd = open("sparse", O_RDWR | O_CREAT, 0644);
    assert_int_equal(pwrite(fd, "end", 3, 1 << 30), 3);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, (1 << 30) + 3);
    assert_true(st.st_blocks < 1000);
    assert_true(lseek(fd, 0, SEEK_DATA) > 0);
    assert_int_equal(lseek(fd, 0, SEEK_HOLE), 0);
    assert_int_equal(ERR((int)lseek(fd, st.st_size + 1, SEEK_DATA)), ENXIO);
    char zero[4] = "xxx";
    assert_int_equal(pread(fd, zero, 4, 4096), 4);
    assert_memory_equal(zero, "\0\0\0\0", 4);
}

static void space_can_be_reserved_and_punched(void **state)
{
    (void)state;
    char text[8];
    AUTO_FD int fd = open("f", O_RDWR | O_CREAT, 0644);
    assert_int_equal(ERR(fallocate(fd, 0, 0, 1 << 20)), 0);
    assert_int_equal(stat_of("f").st_size, 1 << 20);
    assert_true(stat_of("f").st_blocks >= 2048);
    assert_int_equal(ERR(fallocate(fd, FALLOC_FL_KEEP_SIZE, 1 << 20, 1 << 20)), 0);
    assert_int_equal(stat_of("f").st_size, 1 << 20);
    assert_int_equal(pwrite(fd, "abcd", 4, 8192), 4);
    assert_int_equal(ERR(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192, 4096)), 0);
    assert_int_equal(pread(fd, text, 4, 8192), 4);
    assert_memory_equal(text, "\0\0\0\0", 4);
}

static void copy_file_range_copies(void **state)
{
    (void)state;
    write_file("a", "0123456789");
    AUTO_FD int from = open("a", O_RDONLY);
    AUTO_FD int to = open("b", O_RDWR | O_CREAT, 0644);
    off_t at = 2, into = 5;
    assert_int_equal(copy_file_range(from, &at, to, &into, 1000, 0), 8);
    assert_int_equal(stat_of("b").st_size, 13);
    char text[16] = "";
    assert_int_equal(pread(to, text, 8, 5), 8);
    assert_string_equal(text, "23456789");
}

static void a_mapped_file_is_the_file(void **state)
{
    (void)state;
    AUTO_FD int fd = open("map", O_RDWR | O_CREAT, 0644);
    assert_int_equal(ftruncate(fd, 8192), 0);
    char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(map, MAP_FAILED);
    memcpy(map + 4000,
           "over the edge of a page, and further than that still, so that two pages "
           "have to be written",
           90);
    assert_int_equal(msync(map, 8192, MS_SYNC), 0);
    char text[32] = "";
    assert_int_equal(pread(fd, text, 13, 4000), 13);
    assert_string_equal(text, "over the edge");
    assert_int_equal(pwrite(fd, "OVER", 4, 4000), 4);
    assert_memory_equal(map + 4000, "OVER the edge", 13);
    munmap(map, 8192);
}

static void an_unlinked_file_works_until_it_is_closed(void **state)
{
    (void)state;
    char text[16] = "";
    AUTO_FD int fd = open("f", O_RDWR | O_CREAT, 0600);
    assert_int_equal(ERR(unlink("f")), 0);
    assert_int_equal(ERR(access("f", F_OK)), ENOENT);
    assert_int_equal(write(fd, "still here", 10), 10);
    assert_int_equal(ERR(ftruncate(fd, 5)), 0);
    assert_int_equal(ERR(fchmod(fd, 0640)), 0);
    assert_int_equal(ERR(fchown(fd, 7, 8)), 0);
    struct timespec times[2] = {{5, 0}, {6, 0}};
    assert_int_equal(ERR(futimens(fd, times)), 0);
    struct stat st;
    assert_int_equal(ERR(fstat(fd, &st)), 0);
    assert_int_equal(st.st_size, 5);
    assert_int_equal(st.st_nlink, 0);
    assert_int_equal(st.st_mode, S_IFREG | 0640);
    assert_int_equal(st.st_uid, 7);
    assert_int_equal(st.st_mtim.tv_sec, 6);
    assert_int_equal(pread(fd, text, sizeof text, 0), 5);
    assert_string_equal(text, "still");
    assert_int_equal(touch("f"), 0); /* the name is free */
    assert_int_equal(stat_of("f").st_size, 0);
}

static void space_of_unlinked_files_comes_back(void **state)
{
    struct mounted *m = *state;
    char command[PATH_MAX];
    snprintf(command, sizeof command, "test $(find '%s/data' -type f | wc -l) -le 1", m->store);
    for (int i = 0; i < 20; i++) {
        AUTO_FD int fd = open("f", O_RDWR | O_CREAT, 0600);
        assert_int_equal(unlink("f"), 0);
        assert_int_equal(write(fd, "x", 1), 1);
    }
    int r = 1;
    for (int i = 0; i < 3000 && r; i++) { /* RELEASE and FORGET come after close(2) */
        r = system(command);
        sleep_ms(20);
    }
    assert_int_equal(r, 0);
}

/* ---- attributes ---- */

static void chmod_and_chown_obey_the_rules(void **state)
{
    (void)state;
    touch("f");
    assert_int_equal(ERR(chmod("f", 06755)), 0);
    assert_int_equal(stat_of("f").st_mode, S_IFREG | 06755);
    assert_int_equal(ERR(chown("f", 1001, 1001)), 0); /* takes setuid and setgid away */
    assert_int_equal(stat_of("f").st_mode, S_IFREG | 0755);
    assert_int_equal(stat_of("f").st_uid, 1001);
    assert_int_equal(ERR(chown("f", (uid_t)-1, 55)), 0);
    assert_int_equal(stat_of("f").st_uid, 1001);
    assert_int_equal(stat_of("f").st_gid, 55);
    symlink("f", "l");
    assert_int_equal(ERR(lchown("l", 9, 9)), 0);
    assert_int_equal(stat_of("l").st_uid, 9);
    assert_int_equal(stat_of("f").st_uid, 1001);
}

static int write_x(void *arg)
{
    int fd = open(arg, O_WRONLY);
    return fd < 0 ? errno : write(fd, "x", 1) == 1 ? 0 : EIO;
}
static int set_setgid(void *arg)
{
    return ERR(chmod(arg, 02755));
}

static void writing_takes_setuid_away(void **state)
{
    (void)state;
    touch("f");
    chown("f", 1001, 1001);
    chmod("f", 06777);
    assert_int_equal(as_user(1002, write_x, "f"), 0);
    assert_int_equal(stat_of("f").st_mode, S_IFREG | 0777);
    chown("f", 1001, 55); /* a group that user 1001 is not in */
    assert_int_equal(as_user(1001, set_setgid, "f"), 0);
    assert_int_equal(stat_of("f").st_mode, S_IFREG | 0755);
}

static void times_can_be_set_one_by_one(void **state)
{
    (void)state;
    touch("f");
    mkdir("d", 0755);
    symlink("nowhere", "l");
    static const char *const names[] = {"f", "d", "l"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct timespec both[2] = {{1111, 123456789}, {2222, 987654321}};
        assert_int_equal(ERR(utimensat(AT_FDCWD, names[i], both, AT_SYMLINK_NOFOLLOW)), 0);
        struct stat st = stat_of(names[i]);
        assert_int_equal(st.st_atim.tv_sec, 1111);
        assert_int_equal(st.st_mtim.tv_nsec, 987654321);
        struct timespec one[2] = {{0, UTIME_OMIT}, {3333, 0}};
        assert_int_equal(ERR(utimensat(AT_FDCWD, names[i], one, AT_SYMLINK_NOFOLLOW)), 0);
        assert_int_equal(stat_of(names[i]).st_atim.tv_sec, 1111);
        assert_int_equal(stat_of(names[i]).st_mtim.tv_sec, 3333);
        struct timespec fresh[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
        assert_int_equal(ERR(utimensat(AT_FDCWD, names[i], fresh, AT_SYMLINK_NOFOLLOW)), 0);
        assert_true(stat_of(names[i]).st_atim.tv_sec > 1000000000);
        assert_int_equal(stat_of(names[i]).st_mtim.tv_sec, 3333);
        assert_true(stat_of(names[i]).st_ctim.tv_sec > 1000000000);
    }
}

static void xattrs_of_users_work_and_others_are_refused(void **state)
{
    (void)state;
    char buf[128];
    touch("f");
    mkdir("d", 0755);
    static const char *const names[] = {"f", "d"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        assert_int_equal(ERR(setxattr(names[i], "user.note", "hello", 5, 0)), 0);
        assert_int_equal(ERR(setxattr(names[i], "user.note", "x", 1, XATTR_CREATE)), EEXIST);
        assert_int_equal(getxattr(names[i], "user.note", buf, sizeof buf), 5);
        assert_memory_equal(buf, "hello", 5);
        assert_int_equal(ERR((int)getxattr(names[i], "user.note", buf, 2)), ERANGE);
        assert_int_equal(ERR((int)getxattr(names[i], "user.none", buf, 2)), ENODATA);
        assert_int_equal(listxattr(names[i], buf, sizeof buf), 10);
        assert_string_equal(buf, "user.note");
        assert_int_equal(ERR(removexattr(names[i], "user.note")), 0);
        assert_int_equal(listxattr(names[i], buf, sizeof buf), 0);
        assert_int_equal(ERR(setxattr(names[i], "trusted.x", "x", 1, 0)), EOPNOTSUPP);
        assert_int_equal(ERR(setxattr(names[i], "security.x", "x", 1, 0)), EOPNOTSUPP);
    }
    char big[65536];
    memset(big, 'x', sizeof big);
    assert_int_equal(ERR(setxattr("f", "user.big", big, 60000, 0)), 0);
    assert_int_equal(getxattr("f", "user.big", big, sizeof big), 60000);
    assert_int_equal(ERR(setxattr("f", "user.more", big, 60000, 0)), ENOSPC);
}

static void statfs_speaks_of_the_store(void **state)
{
    struct mounted *m = *state;
    struct statvfs mount, store;
    assert_int_equal(statvfs(".", &mount), 0);
    assert_int_equal(statvfs(m->store, &store), 0);
    assert_int_equal(mount.f_namemax, 255);
    assert_true(mount.f_blocks > 0);
    assert_true(mount.f_blocks * mount.f_frsize <= store.f_blocks * store.f_frsize);
    assert_true(mount.f_bavail * mount.f_frsize <= store.f_blocks * store.f_frsize);
}

static void locks_and_poll_work(void **state)
{
    (void)state;
    AUTO_FD int fd = open("f", O_RDWR | O_CREAT, 0644);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    assert_int_equal(ERR(fcntl(fd, F_SETLK, &lock)), 0);
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
    assert_int_equal(poll(&p, 1, 0), 1);
    assert_int_equal(p.revents, POLLIN | POLLOUT);
}

/* ---- limits ---- */

static void a_prompt_cannot_be_larger_than_a_request(void **state)
{
    (void)state;
    char *text = calloc(1, 70000);
    memset(text, '#', 65536);
    mkdir("../big", 0755);
    AUTO_FD int fd = open("../big/prompt.ini", O_RDWR | O_CREAT, 0644);
    assert_int_equal(write(fd, text, 65536), 65536);
    assert_int_equal(ERR((int)write(fd, "x", 1)), EFBIG);
    assert_int_equal(ERR(ftruncate(fd, 65537)), EFBIG);
    assert_int_equal(ERR(truncate("../big/prompt.ini", 1 << 20)), EFBIG);
    AUTO_FD int other = open("../big/reference.png", O_RDWR | O_CREAT, 0644);
    assert_int_equal(write(other, text, 70000), 70000);
    assert_int_equal(write_file("prompt.ini", "x"), 0); /* here it is an ordinary file */
    assert_int_equal(ERR(truncate("prompt.ini", 1 << 20)), 0);
    free(text);
    assert_int_equal(ERR(ftruncate(fd, 0)), 0);
    unlink("../big/prompt.ini");
    unlink("../big/reference.png");
    for (int i = 0; i < 3000 && rmdir("../big"); i++) { /* a job may be publishing into it */
        shell(*state, "rm -rf image/big");
        sleep_ms(20);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        POSIX_TEST(what_is_written_is_read),
        POSIX_TEST(appending_writers_do_not_overwrite_each_other),
        POSIX_TEST(truncation_by_path_descriptor_and_open),
        POSIX_TEST(holes_take_no_room_and_are_found),
        POSIX_TEST(space_can_be_reserved_and_punched),
        POSIX_TEST(copy_file_range_copies),
        POSIX_TEST(a_mapped_file_is_the_file),
        POSIX_TEST(an_unlinked_file_works_until_it_is_closed),
        POSIX_TEST(space_of_unlinked_files_comes_back),
        POSIX_TEST(chmod_and_chown_obey_the_rules),
        POSIX_TEST(writing_takes_setuid_away),
        POSIX_TEST(times_can_be_set_one_by_one),
        POSIX_TEST(xattrs_of_users_work_and_others_are_refused),
        POSIX_TEST(statfs_speaks_of_the_store),
        POSIX_TEST(locks_and_poll_work),
        POSIX_TEST(a_prompt_cannot_be_larger_than_a_request),
    };
    return cmocka_run_group_tests(tests, posix_setup, posix_teardown);
}
