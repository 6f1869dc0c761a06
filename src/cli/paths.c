#include "cli/paths.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int cli_default_store(char path[PATH_MAX], struct err *e)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int n;
    if (state && state[0] == '/')
        n = snprintf(path, PATH_MAX, "%s/omnifs", state);
    else if (geteuid() == 0)
        n = snprintf(path, PATH_MAX, "/var/lib/omnifs");
    else if (home && home[0] == '/')
        n = snprintf(path, PATH_MAX, "%s/.local/state/omnifs", home);
    else
        return err_set(e, -ENOENT, "neither XDG_STATE_HOME nor HOME names a folder for the store");
    if (n >= PATH_MAX)
        return err_set(e, -ENAMETOOLONG, "the path of the store is too long");
    return 0;
}
