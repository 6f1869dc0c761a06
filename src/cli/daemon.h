/* A process that goes into the background but whose parent stays until it answers: the exit status
 * and error sentence of a command that starts a daemon are then those of the daemon's start. */
#ifndef OMNIFS_CLI_DAEMON_H
#define OMNIFS_CLI_DAEMON_H

#include "base/err.h"

struct daemon {
    int pipe; /* to the waiting parent; -1 in the foreground */
};

/* Splits off the daemon; call before any thread exists. Returns 0 in the daemon. In the parent:
 * waits for the daemon's word, then 1 when it is ready, or a negative errno with its sentence. */
int daemon_split(struct daemon *d, struct err *e);
/* From the daemon: the start has succeeded or failed. The second call and calls in the foreground
 * do nothing. */
void daemon_ready(struct daemon *d);
void daemon_failed(struct daemon *d, const struct err *e);

/* Where a daemon's log goes: syslog where there is one, else STORE/omnifs.log. Detaches stdin,
 * stdout and stderr from the terminal. */
void daemon_detach(const char *store);

/* Tells the service manager "READY=1", "STOPPING=1", … when it asked to be told
 * ($NOTIFY_SOCKET; see sd_notify(3)). */
void daemon_notify(const char *state);

#endif
