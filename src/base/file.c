#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"

int file_read_fd(int fd, const char *name, size_t limit, char **out, size_t *size, struct err *e)
{
    struct stat st;
    if (fstat(fd, &st))
        return err_set(e, -errno, "%s: %s", name, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return err_set(e, -EINVAL, "%s is not a regular file", name);
    if ((uint64_t)st.st_size > limit)
        return err_set(e, -EFBIG, "%s has %lld bytes; at most %zu are read", name,
                       (long long)st.st_size, limit);
    AUTO_FREE char *buf = malloc((size_t)st.st_size + 1);
    if (!buf)
        return err_nomem(e);
    size_t n = 0;
    while (n < (size_t)st.st_size) {
        ssize_t got = pread(fd, buf + n, (size_t)st.st_size - n, (off_t)n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_set(e, -errno, "%s: %s", name, strerror(errno));
        if (got == 0)
            break; /* shrank while reading: what is there is the file */
        n += (size_t)got;
    }
    buf[n] = '\0';
    *out = buf;
    buf = NULL;
    if (size)
        *size = n;
    return 0;
}

int file_read(int dirfd, const char *path, size_t limit, char **out, size_t *size, struct err *e)
{
    AUTO_FD int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_set(e, -errno, "%s: %s", path, strerror(errno));
    return file_read_fd(fd, path, limit, out, size, e);
}

static int write_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        data += n;
        size -= (size_t)n;
    }
    return 0;
}

static int sync_parent(int dirfd, const char *path)
{
    char dir[4096];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= sizeof dir)
        return -ENAMETOOLONG;
    memcpy(dir, path, n);
    dir[n] = '\0';
    AUTO_FD int fd = openat(dirfd, n ? dir : slash ? "/" : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) ? -errno : 0;
}

int file_write_atomic(int dirfd, const char *path, const void *data, size_t size, struct err *e)
{
    char tmp[4096];
    if (snprintf(tmp, sizeof tmp, "%s.tmp", path) >= (int)sizeof tmp)
        return err_set(e, -ENAMETOOLONG, "%s: the path is too long", path);
    AUTO_FD int fd = openat(dirfd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return err_set(e, -errno, "%s: %s", tmp, strerror(errno));
    int r = write_all(fd, data, size);
    if (!r && fsync(fd))
        r = -errno;
    if (!r && renameat(dirfd, tmp, dirfd, path))
        r = -errno;
    if (!r)
        r = sync_parent(dirfd, path);
    if (r) {
        unlinkat(dirfd, tmp, 0);
        return err_set(e, r, "%s: %s", path, strerror(-r));
    }
    return 0;
}

int file_mkdirs(const char *path, struct err *e)
{
    char part[4096];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof part)
        return err_set(e, -ENAMETOOLONG, "%s: the path is empty or too long", path);
    memcpy(part, path, n + 1);
    for (char *p = part + 1;; p++) {
        if (*p && *p != '/')
            continue;
        char end = *p;
        *p = '\0';
        if (mkdir(part, 0700) && errno != EEXIST)
            return err_set(e, -errno, "%s: %s", part, strerror(errno));
        *p = end;
        if (!end)
            break;
    }
    struct stat st;
    if (stat(path, &st) || !S_ISDIR(st.st_mode))
        return err_set(e, -ENOTDIR, "%s is not a folder", path);
    return 0;
}

int file_remove_tree(int dirfd, const char *path)
{
    if (!unlinkat(dirfd, path, 0) || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -errno;
    int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    DIR *d = fdopendir(fd);
    if (!d) {
        close(fd);
        return -ENOMEM;
    }
    int r = 0;
    for (struct dirent *entry; !r && (entry = readdir(d));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            r = file_remove_tree(fd, entry->d_name);
    closedir(d);
    if (!r && unlinkat(dirfd, path, AT_REMOVEDIR) && errno != ENOENT)
        r = -errno;
    return r;
}

int file_copy(int from_fd, int to_fd, struct err *e)
{
    if (!ioctl(to_fd, FICLONE, from_fd))
        return 0;
    off_t at = 0;
    for (;;) {
        ssize_t n = copy_file_range(from_fd, &at, to_fd, NULL, 1 << 30, 0);
        if (n == 0)
            return 0;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && at == 0 &&
            (errno == EXDEV || errno == EINVAL || errno == EOPNOTSUPP || errno == ENOSYS))
            break;
        if (n < 0)
            return err_set(e, -errno, "copy: %s", strerror(errno));
    }
    char buf[65536];
    for (ssize_t n; (n = pread(from_fd, buf, sizeof buf, at)) != 0; at += n) {
        if (n < 0)
            return err_set(e, -errno, "copy: %s", strerror(errno));
        int r = write_all(to_fd, buf, (size_t)n);
        if (r)
            return err_set(e, r, "copy: %s", strerror(-r));
    }
    return 0;
}

struct sha256 *sha256_new(void)
{
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    if (c && !EVP_DigestInit_ex(c, EVP_sha256(), NULL)) {
        EVP_MD_CTX_free(c);
        c = NULL;
    }
    return (struct sha256 *)c;
}

void sha256_add(struct sha256 *s, const void *data, size_t size)
{
    if (s)
        EVP_DigestUpdate((EVP_MD_CTX *)s, data, size);
}

void sha256_end(struct sha256 *s, char out[SHA256_HEX_SIZE])
{
    unsigned char digest[32] = {0};
    if (s) {
        EVP_DigestFinal_ex((EVP_MD_CTX *)s, digest, NULL);
        EVP_MD_CTX_free((EVP_MD_CTX *)s);
    }
    for (int i = 0; i < 32; i++)
        snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

void sha256_hex(const void *data, size_t size, char out[SHA256_HEX_SIZE])
{
    struct sha256 *s = sha256_new();
    sha256_add(s, data, size);
    sha256_end(s, out);
}

int sha256_file_hex(int fd, char out[SHA256_HEX_SIZE])
{
    struct sha256 *s = sha256_new();
    AUTO_FREE char *buf = malloc(1 << 18);
    ssize_t n = 0;
    if (s && buf)
        for (off_t at = 0; (n = pread(fd, buf, 1 << 18, at)) > 0; at += n)
            sha256_add(s, buf, (size_t)n);
    int code = !s || !buf ? -ENOMEM : n < 0 ? -errno : 0;
    sha256_end(s, out);
    return code;
}

uint64_t random_u64(void)
{
    uint64_t v = 0;
    while (getrandom(&v, sizeof v, 0) != (ssize_t)sizeof v)
        ;
    return v;
}

void id_new(char out[ID_SIZE])
{
    time_t now = time(NULL);
    struct tm tm;
    gmtime_r(&now, &tm);
    size_t n = strftime(out, ID_SIZE, "%Y%m%d-%H%M%S-", &tm);
    snprintf(out + n, ID_SIZE - n, "%010llx", (unsigned long long)(random_u64() & 0xFFFFFFFFFFull));
}
