/* omnifs mount, with the engine or with a stand-in for it. */
#ifndef OMNIFS_CLI_MOUNT_H
#define OMNIFS_CLI_MOUNT_H

struct generator;

/* The command `omnifs mount`; `generator` NULL: Omni. Returns an exit code. */
int mount_main(int argc, char **argv, const struct generator *generator);

#endif
