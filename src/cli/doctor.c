/* omnifs doctor: looks at everything omnifs needs, one row a check, and says what to do. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/gpus.h"
#include "cli/cli.h"
#include "cli/mounts.h"
#include "cli/paths.h"
#include "cli/term.h"
#include "job/models.h"
#include "job/registry.h"
#include "media/media.h"

#define NAME "omnifs doctor"

static const struct cli_usage usage = {
    .name = NAME,
    .synopsis = "[OPTION]",
    .about = "Checks what omnifs needs on this machine and says what to do about the rest.",
    .more = "Exit codes: 0 ready (there may be advice), 1 something is broken.",
    .min_words = 0,
    .max_words = 0,
};

enum verdict { GOOD, ADVICE, BROKEN };
static const char *const verdict_words[] = {"ok", "advice", "broken"};

/* What the checks found so far, and what one check hands to the next. */
struct report {
    json_t *rows; /* [{check, verdict, found, advice?}] */
    enum verdict worst;
    struct registry *registry;
    bool on_gpu;    /* one of the devices is a GPU */
    bool no_device; /* what is to be used does not open */
};

static void add(struct report *r, const char *check, enum verdict v, const char *found,
                const char *advice)
{
    json_array_append_new(r->rows, json_pack("{s:s, s:s, s:s, s:s*}", "check", check, "verdict",
                                             verdict_words[v], "found", found, "advice",
                                             v == GOOD ? NULL : advice));
    r->worst = v > r->worst ? v : r->worst;
}

/* ---- mounting ---- */

static void check_fuse_device(struct report *r)
{
    AUTO_FD int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd >= 0)
        add(r, "/dev/fuse", GOOD, "opens", NULL);
    else if (errno == ENOENT)
        add(r, "/dev/fuse", BROKEN, "is not there",
            "load the module (modprobe fuse); in a container, start it with --device /dev/fuse "
            "--cap-add SYS_ADMIN");
    else
        add(r, "/dev/fuse", BROKEN, strerror(errno),
            errno == EACCES ? "chmod 666 /dev/fuse as root, as udev does elsewhere"
                            : "the container may not use FUSE: start it with --device /dev/fuse "
                              "--cap-add SYS_ADMIN");
}

/* The first executable `name` on $PATH. */
static bool find_program(const char *name, char path[PATH_MAX])
{
    const char *folders = getenv("PATH");
    AUTO_FREE char *copy = strdup(folders ? folders : "/usr/bin:/bin");
    char *rest = copy;
    for (const char *folder; (folder = strsep(&rest, ":"));) {
        int n = snprintf(path, PATH_MAX, "%s/%s", *folder ? folder : ".", name);
        if (n < PATH_MAX && access(path, X_OK) == 0)
            return true;
    }
    return false;
}

static void check_fusermount(struct report *r)
{
    char path[PATH_MAX];
    struct stat st;
    const char *install = "apt-get install fuse3";
    if (!find_program("fusermount3", path))
        add(r, "fusermount3", geteuid() ? BROKEN : ADVICE, "is not on the PATH", install);
    else if (geteuid() && (stat(path, &st) || !(st.st_mode & S_ISUID) || st.st_uid))
        add(r, "fusermount3", BROKEN, "is not setuid root, so users cannot mount", install);
    else
        add(r, "fusermount3", GOOD, path, NULL);
}

#define PATIENCE_MS 2000

/* Asks a mount for its free space (an answer that is never cached) by a child, as a mount that
 * hangs takes the caller with it: 0, a negative errno, or -ETIMEDOUT (then the child is left to its
 * fate). */
static int ask_in_child(const char *path)
{
    int pipes[2], result = -EIO;
    if (pipe2(pipes, O_CLOEXEC))
        return -errno;
    pid_t child = fork();
    if (child == 0) {
        struct statvfs fs;
        result = statvfs(path, &fs) ? -errno : 0;
        _exit(write(pipes[1], &result, sizeof result) == (ssize_t)sizeof result ? 0 : 1);
    }
    struct pollfd p = {.fd = pipes[0], .events = POLLIN};
    if (child < 0)
        result = -errno;
    else if (poll(&p, 1, PATIENCE_MS) == 0)
        result = -ETIMEDOUT;
    else if (read(pipes[0], &result, sizeof result) != (ssize_t)sizeof result)
        result = -EIO;
    close(pipes[0]);
    close(pipes[1]);
    if (child > 0)
        waitpid(child, NULL, result == -ETIMEDOUT ? WNOHANG : 0);
    return result;
}

static int check_mount(void *ctx, const char *path)
{
    int rc = ask_in_child(path);
    if (rc == 0)
        add(ctx, "mount", GOOD, path, NULL);
    else if (rc == -ENOTCONN)
        add(ctx, "mount", BROKEN, path, "its daemon is gone: umount -l it, then mount again");
    else if (rc == -ETIMEDOUT)
        add(ctx, "mount", BROKEN, path,
            "it does not answer: end its daemon, or write 1 to its abort file below "
            "/sys/fs/fuse/connections");
    else
        add(ctx, "mount", ADVICE, path, strerror(-rc));
    return 0;
}

static void check_mounts(struct report *r)
{
    mounts_each(check_mount, r);
}

/* Reads of results at disk speed need Linux 6.9 and the right to register files. */
static void check_passthrough(struct report *r)
{
    struct utsname u;
    int major = 0, minor = 0;
    if (uname(&u) || sscanf(u.release, "%d.%d", &major, &minor) != 2)
        return;
    if (major < 6 || (major == 6 && minor < 9))
        add(r, "passthrough", ADVICE, u.release,
            "reads of results go through the daemon; Linux 6.9 would read at disk speed");
    else if (geteuid())
        add(r, "passthrough", ADVICE, "the kernel has it",
            "only a daemon that runs as root may use it; reads go through the daemon");
    else
        add(r, "passthrough", GOOD, u.release, NULL);
}

/* ---- drawing ---- */

static void check_registry(struct report *r)
{
    struct err e = {0};
    if (registry_load(NULL, &r->registry, &e)) {
        add(r, "registry", BROKEN, e.text, "mend that line, or point OMNIFS_REGISTRY elsewhere");
        return;
    }
    AUTO_STR struct str found = {0};
    str_addf(&found, "%s:", r->registry->path);
    for (int i = 0; i < r->registry->profile_count; i++)
        str_addf(&found, "%s %s", i ? "," : "", r->registry->profiles[i].name);
    add(r, "registry", GOOD, str_cstr(&found), NULL);
}

/* Is the model of profile `i` met for the first time? */
static bool first_use(const struct registry *registry, int i)
{
    for (int k = 0; k < i; k++)
        if (!strcmp(registry->profiles[k].model, registry->profiles[i].model) &&
            !memcmp(registry->profiles[k].parts, registry->profiles[i].parts,
                    sizeof registry->profiles[i].parts))
            return false;
    return true;
}

static void check_model(struct report *r, const struct profile *p)
{
    char path[REGISTRY_PATH_SIZE];
    struct profile_places places;
    AUTO_FREE char *check = NULL;
    struct err e = {0};
    if (asprintf(&check, "model %s", p->model) < 0)
        return;
    if (model_find(p->model, path, &e) || profile_places_find(p, &places, &e)) {
        add(r, check, BROKEN, e.text, "install it there, or name its folder in OMNIFS_MODELS");
        return;
    }
    const struct omni_load_options options = {.parts = places.list, .part_count = places.count};
    if (omni_verify(path, &options, &e))
        add(r, check, BROKEN, e.text, "copy the checkpoint again");
    else
        add(r, check, GOOD, path, NULL);
}

static void check_models(struct report *r)
{
    if (r->no_device) {
        add(r, "models", ADVICE, "not checked, as there is no device to draw on", NULL);
        return;
    }
    for (int i = 0; r->registry && i < r->registry->profile_count; i++)
        if (first_use(r->registry, i))
            check_model(r, &r->registry->profiles[i]);
}

static void check_devices(struct report *r)
{
    AUTO_FREE char *text = NULL;
    struct err e = {0};
    if (omni_devices(&text, &e)) {
        add(r, "devices", BROKEN, e.text, "set OMNIFS_DEVICE=cpu");
        return;
    }
    json_t *devices = json_loads(text, 0, NULL), *device;
    size_t i;
    json_array_foreach(devices, i, device)
    {
        AUTO_FREE char *dump = json_is_string(device) ? strdup(json_string_value(device))
                                                      : json_dumps(device, JSON_COMPACT);
        r->on_gpu |= dump && strncmp(dump, "cuda", 4) == 0;
        add(r, "device", GOOD, dump ? dump : "", NULL);
    }
    json_decref(devices);
}

/* What `use` in the registry or OMNIFS_DEVICE names is what will be drawn on. */
static void check_chosen(struct report *r)
{
    struct omni_device chosen[OMNI_MAX_DEVICES];
    struct err e = {0};
    int count = 0;
    if (!r->registry ||
        !devices_find(&generator_omni, &r->registry->devices, chosen, OMNI_MAX_DEVICES, &count, &e))
        return;
    r->no_device = true;
    add(r, "devices", BROKEN, e.text,
        "mend OMNIFS_DEVICE and OMNIFS_THREADS, or use in [devices] of the registry");
}

#define NO_NVML "install the driver's libnvidia-ml.so.1; in a container, start it with --gpus all"

/* The GPUs, whether omnifs draws on them or not. */
static void check_gpus(struct report *r)
{
    struct gpus g;
    struct err e = {0};
    char line[192];
    int rc = gpus_read(&g, &e);
    if (rc == -EIO || (rc != 0 && access("/dev/nvidia0", F_OK) == 0))
        add(r, "gpu", ADVICE, e.text,
            rc == -EIO ? "restart the machine after an update of its driver" : NO_NVML);
    for (int i = 0; i < g.count; i++) {
        AUTO_STR struct str found = {0};
        gpu_describe(&g.list[i], line, sizeof line);
        str_addf(&found, "%d: %s, driver %s", i, line, g.driver);
        add(r, "gpu", r->on_gpu ? GOOD : ADVICE, str_cstr(&found),
            "omnifs draws on the CPU: make cuda, and make install again; omnifs run with "
            "OMNIFS_DEVICE=cuda says what is missing");
    }
}

/* Each format is tried for real: a distribution may ship its libraries without an encoder. */
static void check_encoders(struct report *r)
{
    AUTO_STR struct str works = {0};
    for (int f = 0; f < MEDIA_FORMAT_COUNT; f++) {
        struct picture p;
        struct media_options o;
        AUTO_STR struct str bytes = {0};
        struct err e = {0};
        const struct media_format_info *info = media_format_info((enum media_format)f);
        if (picture_new(&p, 64, 64, info->clip ? 2 : 1))
            return;
        media_options_init(&o, (enum media_format)f);
        if (media_encode(&p, &o, &bytes, &e))
            add(r, info->name, BROKEN, e.text, "install the libavcodec of your distribution");
        else
            str_addf(&works, "%s%s", works.len ? " " : "", info->name);
        picture_free(&p);
    }
    add(r, "formats", GOOD, str_cstr(&works), NULL);
}

/* ---- room ---- */

#define LOW_DISK  (1ull << 30)
#define LOW_FILES 1024

static void check_store(struct report *r)
{
    char path[PATH_MAX], room[24];
    struct err e = {0};
    struct statvfs fs;
    if (cli_default_store(path, &e) || file_mkdirs(path, &e)) {
        add(r, "store", BROKEN, e.text, "give a folder: omnifs mount STORE DIR");
        return;
    }
    if (access(path, W_OK) || statvfs(path, &fs)) {
        add(r, "store", BROKEN, path, "is not writable: give a folder: omnifs mount STORE DIR");
        return;
    }
    uint64_t bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    AUTO_FREE char *found = NULL;
    if (asprintf(&found, "%s, %s free", path, format_bytes(bytes, room)) < 0)
        return;
    add(r, "store", bytes < LOW_DISK ? ADVICE : GOOD, found, "there is little room for results");
}

static void check_limits(struct report *r)
{
    char bytes[24], found[128];
    struct rlimit files = {0};
    getrlimit(RLIMIT_NOFILE, &files);
    snprintf(found, sizeof found, "%s of memory, %llu open files",
             format_bytes(memory_total(), bytes), (unsigned long long)files.rlim_cur);
    add(r, "limits", files.rlim_cur < LOW_FILES ? ADVICE : GOOD, found,
        "raise the limit of open files: ulimit -n 4096");
}

static void (*const checks[])(struct report *) = {
    check_fuse_device, check_fusermount, check_passthrough, check_mounts,
    check_registry,    check_devices,    check_chosen,      check_models,
    check_gpus,        check_encoders,   check_store,       check_limits,
};

/* ---- printing ---- */

static void print_rows(const json_t *rows)
{
    static const char *const colours[] = {"\033[32m", "\033[33m", "\033[31m"};
    bool coloured = term_coloured(stdout);
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        const char *check, *verdict, *found, *advice = NULL;
        if (json_unpack(row, "{s:s, s:s, s:s, s?s}", "check", &check, "verdict", &verdict, "found",
                        &found, "advice", &advice))
            continue;
        size_t v = 0;
        while (strcmp(verdict_words[v], verdict) != 0)
            v++;
        printf("%s%-7s%s %-16s %s\n", coloured ? colours[v] : "", verdict,
               coloured ? "\033[0m" : "", check, found);
        if (advice)
            printf("        %-16s %s\n", "", advice);
    }
}

int cmd_doctor(int argc, char **argv)
{
    bool json = false;
    const struct cli_option options[] = {
        {"json", 'j', CLI_FLAG, NULL, "print JSON", &json},
        {0},
    };
    AUTO_WORDS struct cli_words words;
    int code = cli_parse(&usage, options, argc, argv, &words);
    if (code != CLI_CONTINUE)
        return code;
    struct report r = {.rows = json_array()};
    for (size_t i = 0; i < ARRAY_LEN(checks); i++)
        checks[i](&r);
    if (json) {
        AUTO_FREE char *text = json_dumps(r.rows, JSON_INDENT(2));
        puts(text ? text : "[]");
    } else {
        print_rows(r.rows);
    }
    json_decref(r.rows);
    registry_unref(r.registry);
    return r.worst == BROKEN ? CLI_FAILED : CLI_DONE;
}
