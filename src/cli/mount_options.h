/* What `omnifs mount` can be told: `[SOURCE] DIR [-o opt,…] [-f]`, as mount(8) passes it on too. */
#ifndef OMNIFS_CLI_MOUNT_OPTIONS_H
#define OMNIFS_CLI_MOUNT_OPTIONS_H

#include <fuse_opt.h>
#include <stdbool.h>

#include "base/err.h"

struct mount_options {
    /* owned strings, NULL: not given */
    char *source, *dir;
    char *registry, *models, *fsname;
    char *debounce_text, *grace_text, *timeout_text;
    int debounce_ms, grace_ms; /* default 300, 3000 */
    double timeout;            /* seconds running jobs get at the end; default 20 */
    int foreground, debug, help;
    int nonempty, nopassthrough, allow_other;
    struct fuse_args args; /* for libfuse: what is left */
    struct err error;      /* the first mistake */
};

/* 0, or -EINVAL with a sentence. Free in either case. */
int mount_options_parse(struct mount_options *o, int argc, char **argv, struct err *e);
void mount_options_free(struct mount_options *o);
/* The option table as --help shows it. */
void mount_options_help(void);

#endif
