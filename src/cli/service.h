/* The life of a mounted store: opens it, serves it, and ends it in the order that loses nothing and
 * cannot deadlock. */
#ifndef OMNIFS_CLI_SERVICE_H
#define OMNIFS_CLI_SERVICE_H

#include "cli/daemon.h"
#include "cli/mount_options.h"

struct generator;

struct service_options {
    struct mount_options *mount;
    const char *store, *mountpoint;    /* absolute */
    const struct generator *generator; /* NULL: Omni */
    struct daemon *daemon;             /* told when the mount answers */
};

/* Runs until the mount is unmounted or SIGTERM or SIGINT comes. SIGHUP, and a change of
 * registry.ini, reload the registry. 0, or a negative errno with a sentence when the start failed.
 */
int service_run(const struct service_options *o, struct err *e);

#endif
