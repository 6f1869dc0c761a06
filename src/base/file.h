/* Files: whole-file reads with a bound, atomic durable writes, sha256. */
#ifndef OMNIFS_BASE_FILE_H
#define OMNIFS_BASE_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define SHA256_HEX_SIZE 65

/* Reads a whole regular file of at most `limit` bytes; *out is NUL-terminated, caller frees.
 * -EFBIG when larger. `dirfd` as in openat(2). */
int file_read(int dirfd, const char *path, size_t limit, char **out, size_t *size, struct err *e);
int file_read_fd(int fd, const char *name, size_t limit, char **out, size_t *size, struct err *e);
/* Writes path.tmp, fsyncs it, renames it over path and fsyncs the folder. The umask decides who may
 * read it. */
int file_write_atomic(int dirfd, const char *path, const void *data, size_t size, struct err *e);
/* mkdir -p with mode 0700 for what is missing. */
int file_mkdirs(const char *path, struct err *e);
/* rm -r below and including dirfd/path, not following links; a missing path is fine. */
int file_remove_tree(int dirfd, const char *path);
/* Copies by reflink where the filesystem can, else by copy_file_range(2), else by reads. */
int file_copy(int from_fd, int to_fd, struct err *e);

void sha256_hex(const void *data, size_t size, char out[SHA256_HEX_SIZE]);
int sha256_file_hex(int fd, char out[SHA256_HEX_SIZE]);

/* An incremental sha256. */
struct sha256;
struct sha256 *sha256_new(void);
void sha256_add(struct sha256 *s, const void *data, size_t size);
void sha256_end(struct sha256 *s, char out[SHA256_HEX_SIZE]); /* frees s */

/* "20260131-091500-3f9c2a7d4e": sortable by time, unique, safe as a file name; into out[32]. */
#define ID_SIZE 32
void id_new(char out[ID_SIZE]);
/* Cryptographic-quality random bits from the kernel (seeds of requests that name none). */
uint64_t random_u64(void);

#endif
