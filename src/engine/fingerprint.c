#include "engine/fingerprint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/str.h"

#define WHOLE_FILE ((off_t)64 << 20)
#define HEAD       ((off_t)1 << 20)
#define SAMPLE     ((off_t)64 << 10)
#define SAMPLES    256
#define BUFFER     ((size_t)1 << 20)

struct hashing {
    struct sha256 *sha;
    char *buffer; /* [BUFFER] */
};

static int hash_range(struct hashing *h, int fd, off_t from, off_t count)
{
    while (count > 0) {
        size_t ask = count < (off_t)BUFFER ? (size_t)count : BUFFER;
        ssize_t got = pread(fd, h->buffer, ask, from);
        if (got <= 0)
            return got < 0 ? -errno : -EIO;
        sha256_add(h->sha, h->buffer, (size_t)got);
        from += got;
        count -= got;
    }
    return 0;
}

static int hash_content(struct hashing *h, int fd, off_t size)
{
    if (size <= WHOLE_FILE)
        return hash_range(h, fd, 0, size);
    int rc = hash_range(h, fd, 0, HEAD);
    for (int i = 0; i < SAMPLES && rc == 0; i++)
        rc = hash_range(h, fd, size / SAMPLES * i, SAMPLE);
    return rc;
}

static int hash_path(struct hashing *h, const char *path, const char *name, struct err *e)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0)
        return err_set(e, -errno, "%s cannot be read: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return 0;
    AUTO_STR struct str line = {0};
    str_addf(&line, "%s %lld\n", name, (long long)st.st_size);
    sha256_add(h->sha, line.data, line.len);
    int rc = hash_content(h, fd, st.st_size);
    return rc ? err_set(e, rc, "%s cannot be read: %s", path, strerror(-rc)) : 0;
}

static int hash_file(struct hashing *h, const struct checkpoint *c, const char *name, struct err *e)
{
    AUTO_FREE char *path = checkpoint_file(c, name);
    return path ? hash_path(h, path, name, e) : err_nomem(e);
}

/* What there is in place of model_index.json, which may still lie beside a single file. */
static int hash_head(struct hashing *h, const struct checkpoint *c, struct err *e)
{
    static const char *const beside[] = {"model_index.json", "config.json"};
    if (!c->file)
        return hash_file(h, c, "model_index.json", e);
    const char *slash = strrchr(c->path, '/');
    int rc = hash_path(h, c->path, slash ? slash + 1 : c->path, e);
    for (size_t i = 0; i < ARRAY_LEN(beside) && rc == 0; i++) {
        AUTO_FREE char *path = checkpoint_file(c, beside[i]);
        if (path && access(path, F_OK) == 0)
            rc = hash_path(h, path, beside[i], e);
    }
    return rc;
}

/* Files that decide nothing: notes, pictures, hidden files. */
static int is_model_file(const struct dirent *d)
{
    static const char *const endings[] = {".json",  ".safetensors", ".txt",
                                          ".model", ".gguf",        ".jinja"};
    size_t n = strlen(d->d_name);
    for (size_t i = 0; i < ARRAY_LEN(endings); i++) {
        size_t m = strlen(endings[i]);
        if (d->d_name[0] != '.' && n > m && strcmp(d->d_name + n - m, endings[i]) == 0)
            return 1;
    }
    return 0;
}

/* Byte order, whatever the locale. */
static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* The files of the folder at `path`, which is known as `folder`. */
static int hash_folder(struct hashing *h, const char *path, const char *folder, struct err *e)
{
    struct dirent **found = NULL;
    int count = scandir(path, &found, is_model_file, by_name), rc = 0;
    for (int i = 0; i < count; i++) {
        AUTO_STR struct str name = {0};
        AUTO_STR struct str file = {0};
        str_addf(&name, "%s/%s", folder, found[i]->d_name);
        str_addf(&file, "%s/%s", path, found[i]->d_name);
        if (rc == 0)
            rc = name.failed || file.failed ? err_nomem(e) : hash_path(h, file.data, name.data, e);
        free(found[i]);
    }
    free(found);
    return rc;
}

static int hash_part(struct hashing *h, const struct checkpoint *c, const char *folder,
                     struct err *e)
{
    AUTO_FREE char *path = checkpoint_file(c, folder);
    return path ? hash_folder(h, path, folder, e) : err_nomem(e);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int fingerprint(const struct checkpoint *c, char out[SHA256_HEX_SIZE], struct err *e)
{
    const char *folders[CHECKPOINT_MAX_PARTS + 3] = {"scheduler", "tokenizer", "tokenizer_2"};
    size_t count = 3;
    for (int i = 0; i < c->part_count; i++)
        folders[count++] = c->parts[i].name;
    qsort(folders, count, sizeof(*folders), by_text);
    AUTO_FREE char *buffer = malloc(BUFFER);
    struct hashing h = {.sha = sha256_new(), .buffer = buffer};
    int rc = h.sha && buffer ? hash_head(&h, c, e) : err_nomem(e);
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = hash_part(&h, c, folders[i], e);
    if (h.sha)
        sha256_end(h.sha, out);
    return rc;
}

int fingerprint_folders(const char *root, const char *const *names, int count,
                        char out[SHA256_HEX_SIZE], struct err *e)
{
    AUTO_FREE char *buffer = malloc(BUFFER);
    struct hashing h = {.sha = sha256_new(), .buffer = buffer};
    int rc = h.sha && buffer ? 0 : err_nomem(e);
    for (int i = 0; i < count && rc == 0; i++) {
        AUTO_STR struct str path = {0};
        str_addf(&path, "%s/%s", root, names[i]);
        rc = path.failed ? err_nomem(e) : hash_folder(&h, path.data, names[i], e);
    }
    if (h.sha)
        sha256_end(h.sha, out);
    return rc;
}
