/* Where things are unless the user says otherwise. */
#ifndef OMNIFS_CLI_PATHS_H
#define OMNIFS_CLI_PATHS_H

#include <limits.h>

#include "base/err.h"

/* The store of a mount that names none: $XDG_STATE_HOME/omnifs, ~/.local/state/omnifs; for root
 * /var/lib/omnifs. It may not exist yet. */
int cli_default_store(char path[PATH_MAX], struct err *e);

#endif
