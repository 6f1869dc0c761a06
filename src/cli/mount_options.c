#include "cli/mount_options.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"

enum { KEY_DROP = 1, KEY_ALLOW_OTHER };

#define FIELD(text, field, value)                                                                  \
    {                                                                                              \
        text, offsetof(struct mount_options, field), value                                         \
    }

/* clang-format off */
static const struct fuse_opt table[] = {
    FIELD("-f", foreground, 1),
    FIELD("--foreground", foreground, 1),
    FIELD("-d", debug, 1),
    FIELD("debug", debug, 1),
    FIELD("-h", help, 1),
    FIELD("--help", help, 1),
    FIELD("debounce=%s", debounce_text, 0),
    FIELD("grace=%s", grace_text, 0),
    FIELD("timeout=%s", timeout_text, 0),
    FIELD("registry=%s", registry, 0),
    FIELD("models=%s", models, 0),
    FIELD("fsname=%s", fsname, 0),
    FIELD("nonempty", nonempty, 1),
    FIELD("passthrough", nopassthrough, 0),
    FIELD("nopassthrough", nopassthrough, 1),
    FUSE_OPT_KEY("allow_other", KEY_ALLOW_OTHER),
    /* For the kernel and libfuse. */
    FUSE_OPT_KEY("allow_root", FUSE_OPT_KEY_KEEP),
    FUSE_OPT_KEY("auto_unmount", FUSE_OPT_KEY_KEEP),
    FUSE_OPT_KEY("context=", FUSE_OPT_KEY_KEEP),
    FUSE_OPT_KEY("ro", FUSE_OPT_KEY_KEEP),
    FUSE_OPT_KEY("rw", FUSE_OPT_KEY_KEEP),
    FUSE_OPT_KEY("exec", FUSE_OPT_KEY_KEEP),
    FUSE_OPT_KEY("noexec", FUSE_OPT_KEY_KEEP),
    FUSE_OPT_KEY("suid", FUSE_OPT_KEY_KEEP),
    FUSE_OPT_KEY("nosuid", FUSE_OPT_KEY_KEEP),
    FUSE_OPT_KEY("dev", FUSE_OPT_KEY_KEEP),
    FUSE_OPT_KEY("nodev", FUSE_OPT_KEY_KEEP),
    FUSE_OPT_KEY("sync", FUSE_OPT_KEY_KEEP),
    FUSE_OPT_KEY("async", FUSE_OPT_KEY_KEEP),
    FUSE_OPT_KEY("dirsync", FUSE_OPT_KEY_KEEP),
    FUSE_OPT_KEY("atime", FUSE_OPT_KEY_KEEP),
    FUSE_OPT_KEY("noatime", FUSE_OPT_KEY_KEEP),
    /* Always so; and what fstab lines hold for mount(8) and systemd, not for us. */
    FUSE_OPT_KEY("default_permissions", KEY_DROP),
    FUSE_OPT_KEY("subtype=", KEY_DROP),
    FUSE_OPT_KEY("defaults", KEY_DROP),
    FUSE_OPT_KEY("relatime", KEY_DROP),
    FUSE_OPT_KEY("_netdev", KEY_DROP),
    FUSE_OPT_KEY("nofail", KEY_DROP),
    FUSE_OPT_KEY("auto", KEY_DROP),
    FUSE_OPT_KEY("noauto", KEY_DROP),
    FUSE_OPT_KEY("user", KEY_DROP),
    FUSE_OPT_KEY("users", KEY_DROP),
    FUSE_OPT_KEY("nouser", KEY_DROP),
    FUSE_OPT_KEY("user=", KEY_DROP),
    FUSE_OPT_KEY("comment=", KEY_DROP),
    FUSE_OPT_END,
};
/* clang-format on */

/* The name of table[i] without dashes and "=…", for "did you mean". */
static void bare_name(const struct fuse_opt *o, char *out, size_t size)
{
    const char *name = o->templ + strspn(o->templ, "-");
    snprintf(out, size, "%.*s", (int)strcspn(name, "="), name);
}

static int unknown_option(struct mount_options *o, const char *arg)
{
    char names[ARRAY_LEN(table)][24];
    const char *list[ARRAY_LEN(table)];
    size_t n = 0;
    for (; table[n].templ; n++) {
        bare_name(&table[n], names[n], sizeof names[n]);
        list[n] = names[n];
    }
    list[n] = NULL;
    char word[64];
    const char *name = arg + strspn(arg, "-");
    snprintf(word, sizeof word, "%.*s", (int)strcspn(name, "="), name);
    const char *near = str_nearest(word, list);
    err_set(&o->error, -EINVAL, "unknown option %s%s%s%s", arg, near ? "; did you mean " : "",
            near ? near : "", near ? "?" : "; omnifs mount --help lists them");
    return -1;
}

static int take_word(struct mount_options *o, const char *arg)
{
    char *copy = strdup(arg);
    if (!copy)
        return err_nomem(&o->error), -1;
    if (o->source && o->dir) {
        err_set(&o->error, -EINVAL, "%s is one argument too many: omnifs mount [SOURCE] DIR", arg);
        free(copy);
        return -1;
    }
    /* One word is DIR; a second one makes the first SOURCE. */
    if (o->dir)
        o->source = o->dir;
    o->dir = copy;
    return 0;
}

static int process(void *data, const char *arg, int key, struct fuse_args *args)
{
    (void)args;
    struct mount_options *o = data;
    switch (key) {
    case FUSE_OPT_KEY_NONOPT:
        return take_word(o, arg);
    case KEY_ALLOW_OTHER:
        o->allow_other = 1;
        return 1;
    case KEY_DROP:
        return 0;
    default:
        return strncmp(arg, "x-", 2) == 0 ? 0 : unknown_option(o, arg);
    }
}

static int whole_number(const char *text, const char *name, int max, int *out, struct err *e)
{
    int64_t v;
    if (!text)
        return 0;
    if (parse_i64(text, &v) || v < 0 || v > max)
        return err_set(e, -EINVAL, "%s=%s: a whole number from 0 to %d is expected", name, text,
                       max);
    *out = (int)v;
    return 0;
}

int mount_options_parse(struct mount_options *o, int argc, char **argv, struct err *e)
{
    *o = (struct mount_options){.debounce_ms = 300, .grace_ms = 3000};
    struct fuse_args given = FUSE_ARGS_INIT(argc, argv);
    for (int i = 0; i < argc; i++)
        if (fuse_opt_add_arg(&o->args, given.argv[i]))
            return err_nomem(e);
    int timeout = 20;
    if (fuse_opt_parse(&o->args, o, table, process)) {
        *e = o->error;
        return e->code ? e->code : err_set(e, -EINVAL, "the options cannot be read");
    }
    if (o->help)
        return 0;
    int r = whole_number(o->debounce_text, "debounce", 60000, &o->debounce_ms, e);
    if (!r)
        r = whole_number(o->grace_text, "grace", 3600000, &o->grace_ms, e);
    if (!r)
        r = whole_number(o->timeout_text, "timeout", 86400, &timeout, e);
    o->timeout = timeout;
    if (!r && o->debug && (fuse_opt_add_arg(&o->args, "-o") || fuse_opt_add_arg(&o->args, "debug")))
        r = err_nomem(e);
    if (!r && !o->dir)
        r = err_set(e, -EINVAL, "where to? omnifs mount [SOURCE] DIR");
    return r;
}

void mount_options_free(struct mount_options *o)
{
    char **texts[] = {&o->source, &o->dir,           &o->registry,   &o->models,
                      &o->fsname, &o->debounce_text, &o->grace_text, &o->timeout_text};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        free(*texts[i]);
    fuse_opt_free_args(&o->args);
    *o = (struct mount_options){0};
}

void mount_options_help(void)
{
    static const struct {
        const char *name, *text;
    } rows[] = {
        {"-f", "stay in the foreground (for systemd: Type=notify)"},
        {"-d", "the same, and log every operation"},
        {"-o debounce=MS", "quiet time before a prompt is read (300)"},
        {"-o grace=MS", "how long a missing reference file is waited for (3000)"},
        {"-o timeout=S", "how long running jobs may finish at the end (20); then they are queued"},
        {"-o registry=FILE", "profiles and limits; else $OMNIFS_REGISTRY and the usual places"},
        {"-o models=PATH", "where models are searched first; folders separated by ':'"},
        {"-o allow_other", "other users may use the mount"},
        {"-o nopassthrough", "read artifacts through the daemon, not straight from the store"},
        {"-o nonempty", "mount over a folder that has files in it"},
        {"-o auto_unmount", "unmount even when the daemon is killed"},
        {"-o ro,noexec,…", "as for every filesystem, see mount(8)"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        printf("  %-18s %s\n", rows[i].name, rows[i].text);
}
