#include "engine/sums.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"

enum { HEX = SHA256_HEX_SIZE - 1, SUMS_LIMIT = 4 << 20 };

/* 64 hexadecimal digits at the start of `text`, lower-case into out; false for anything else. */
static bool read_hex(const char *text, char out[SHA256_HEX_SIZE])
{
    for (int i = 0; i < HEX; i++) {
        if (!isxdigit((unsigned char)text[i]))
            return false;
        out[i] = (char)tolower((unsigned char)text[i]);
    }
    out[HEX] = '\0';
    return !isxdigit((unsigned char)text[HEX]);
}

static int found(struct known_sum *out, const char *source, struct err *e)
{
    out->source = strdup(source);
    return out->source ? 1 : err_nomem(e);
}

/* ---- the hub's cache: snapshots/REVISION/NAME links to blobs/SHA256 ---- */

static int by_blob(const char *path, struct known_sum *out, struct err *e)
{
    static const char folder[] = "/blobs/";
    AUTO_FREE char *real = realpath(path, NULL);
    char *slash = real ? strrchr(real, '/') : NULL;
    size_t n = sizeof folder - 2;
    if (!slash || slash - real < (long)n || strncmp(slash - n, folder, n) != 0 ||
        !read_hex(slash + 1, out->sha256) || slash[1 + HEX])
        return 0;
    return found(out, real, e);
}

/* ---- files of sums ---- */

/* The line for `name` in the text of a file of sums; `lone`: a line may be a sum without name.
 * 1, 0 or -EINVAL. */
static int find_line(char *text, const char *sums, const char *name, bool lone,
                     struct known_sum *out, struct err *e)
{
    char *rest = text, *line;
    for (int number = 1; (line = strsep(&rest, "\n")); number++) {
        line = str_trim(line);
        if (!*line || *line == '#')
            continue;
        char *listed = line + HEX;
        if (!read_hex(line, out->sha256) || (*listed && *listed != ' ' && *listed != '\t'))
            return err_set(e, -EINVAL,
                           "%s:%d: '%.80s' is not a sha256 with the name of a file behind it, as "
                           "sha256sum writes them",
                           sums, number, line);
        listed += strspn(listed, " \t");
        listed += *listed == '*'; /* read as binary */
        listed += strncmp(listed, "./", 2) == 0 ? 2 : 0;
        if ((lone && !*listed) || strcmp(listed, name) == 0)
            return found(out, sums, e);
    }
    return 0;
}

static int in_sums(const char *sums, const char *name, bool lone, struct known_sum *out,
                   struct err *e)
{
    AUTO_FREE char *text = NULL;
    size_t size;
    if (access(sums, F_OK) != 0)
        return 0;
    int code = file_read(AT_FDCWD, sums, SUMS_LIMIT, &text, &size, e);
    return code ? code : find_line(text, sums, name, lone, out, e);
}

/* path.sha256: that file's sum alone, or with its name. */
static int by_own_file(const char *path, struct known_sum *out, struct err *e)
{
    AUTO_STR struct str sums = {0};
    const char *slash = strrchr(path, '/');
    str_addf(&sums, "%s.sha256", path);
    return sums.failed ? err_nomem(e) : in_sums(sums.data, slash ? slash + 1 : path, true, out, e);
}

/* SHA256SUMS in the file's folder, then in the one above, by the way from there. */
static int by_list(const char *path, struct known_sum *out, struct err *e)
{
    enum { LEVELS = 2 };
    const char *name = path + strlen(path);
    for (int i = 0; i < LEVELS && name != path; i++) {
        AUTO_STR struct str sums = {0};
        for (name -= name != path; name != path && name[-1] != '/';)
            name--;
        str_addn(&sums, path, (size_t)(name - path));
        str_add(&sums, "SHA256SUMS");
        if (sums.failed)
            return err_nomem(e);
        int code = in_sums(sums.data, name, false, out, e);
        if (code)
            return code;
    }
    return 0;
}

int sum_known(const char *path, struct known_sum *out, struct err *e)
{
    *out = (struct known_sum){0};
    int code = by_blob(path, out, e);
    if (!code)
        code = by_own_file(path, out, e);
    return code ? code : by_list(path, out, e);
}

int sum_check(const char *path, const struct known_sum *known, struct err *e)
{
    char sha256[SHA256_HEX_SIZE];
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    int code = fd < 0 ? -errno : sha256_file_hex(fd, sha256);
    if (code)
        return err_set(e, code, "%s cannot be read: %s", path, strerror(-code));
    if (strcmp(sha256, known->sha256) == 0)
        return 0;
    return err_set(e, -EDOM,
                   "%s has the sha256 %s, but expected is %s (%s); the file is damaged or of "
                   "another version, fetch it again",
                   path, sha256, known->sha256, known->source);
}
