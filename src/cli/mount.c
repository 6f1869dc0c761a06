#include "cli/mount.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/mount_options.h"
#include "cli/paths.h"
#include "cli/service.h"
#include "fs/mountpoint.h"

#define NAME "omnifs mount"

static void help(void)
{
    printf("Usage: %s [SOURCE] DIR [-f] [-o OPTION,…]\n"
           "       omnifs SOURCE DIR -o OPTION,…\n\n"
           "Mounts on DIR and returns when the mount answers; the daemon goes on in the\n"
           "background. SOURCE is the folder that keeps everything (default:\n"
           "$XDG_STATE_HOME/omnifs or ~/.local/state/omnifs; for root /var/lib/omnifs).\n"
           "omnifs umount DIR ends it.\n\n",
           NAME);
    mount_options_help();
    printf("\nSIGTERM ends in order, a second one at once; SIGHUP reads the registry again. The\n"
           "log goes to stderr with -f, else to syslog, or to SOURCE/omnifs.log without one.\n");
}

/* The store's absolute path; the folder is made when missing. */
static int prepare_store(const char *source, char store[PATH_MAX], struct err *e)
{
    char path[PATH_MAX];
    int r = 0;
    if (!source)
        r = cli_default_store(path, e);
    else if (snprintf(path, sizeof path, "%s", source) >= (int)sizeof path)
        r = err_set(e, -ENAMETOOLONG, "the path of the store is too long");
    if (!r)
        r = file_mkdirs(path, e);
    if (r)
        return r;
    return realpath(path, store) ? 0 : err_set(e, -errno, "%s: %s", path, strerror(errno));
}

static bool inside(const char *path, const char *folder)
{
    size_t n = strlen(folder);
    return !strncmp(path, folder, n) && (path[n] == '/' || path[n] == '\0');
}

/* Relative paths of options must outlive the daemon's chdir("/"). */
static int make_absolute(char **path, struct err *e)
{
    if (!*path || (*path)[0] == '/')
        return 0;
    char *full = realpath(*path, NULL);
    if (!full)
        return err_set(e, -errno, "%s: %s", *path, strerror(errno));
    free(*path);
    *path = full;
    return 0;
}

/* "models:/other" → "/here/models:/other" */
static int make_all_absolute(char **paths, struct err *e)
{
    AUTO_STR struct str all = {0};
    AUTO_FREE char *copy = *paths ? strdup(*paths) : NULL;
    char *rest = copy, *part;
    int r = 0;
    while (!r && (part = strsep(&rest, ":"))) {
        char *one = *part ? strdup(part) : NULL;
        r = one ? make_absolute(&one, e) : 0;
        if (one && !r)
            str_addf(&all, "%s%s", all.len ? ":" : "", one);
        free(one);
    }
    if (r || !copy)
        return r;
    free(*paths);
    *paths = str_take(&all);
    return *paths ? 0 : err_nomem(e);
}

static int run(struct mount_options *o, const struct generator *generator, struct err *e)
{
    char store[PATH_MAX], dir[PATH_MAX];
    int r = mountpoint_resolve(o->dir, dir, e);
    if (!r)
        r = prepare_store(o->source, store, e);
    if (!r && (inside(dir, store) || inside(store, dir)))
        r = err_set(e, -EINVAL, "store %s and mount point %s must not contain each other", store,
                    dir);
    if (!r)
        r = mountpoint_prepare(dir, o->nonempty, e);
    if (!r)
        r = make_absolute(&o->registry, e);
    if (!r)
        r = make_all_absolute(&o->models, e);
    if (r)
        return r;

    struct daemon daemon = {.pipe = -1};
    bool background = !o->foreground && !o->debug;
    if (background) {
        r = daemon_split(&daemon, e);
        if (r)
            return r > 0 ? 0 : r;
        daemon_detach(store);
        if (chdir("/"))
            log_warn("chdir: %s", strerror(errno));
    }
    struct service_options s = {
        .mount = o, .store = store, .mountpoint = dir, .generator = generator, .daemon = &daemon};
    r = service_run(&s, e);
    if (r && background)
        log_error("%s", e->text);
    if (r)
        daemon_failed(&daemon, e);
    return r;
}

int mount_main(int argc, char **argv, const struct generator *generator)
{
    struct mount_options o;
    struct err e = {0};
    int code = CLI_DONE;
    if (mount_options_parse(&o, argc, argv, &e))
        code = CLI_USAGE;
    else if (o.help)
        help();
    else if (run(&o, generator, &e))
        code = CLI_FAILED;
    mount_options_free(&o);
    return code == CLI_DONE ? code : cli_fail(NAME, code, "%s", e.text);
}

int cmd_mount(int argc, char **argv)
{
    return mount_main(argc, argv, NULL);
}
