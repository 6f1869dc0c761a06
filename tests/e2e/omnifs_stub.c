/* `omnifs mount` and `omnifs umount` with the stub in the engine's place: what the tests of the
 * mount start. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/mount.h"
#include "../support/stub_generator.h"

int main(int argc, char **argv)
{
    log_open(LOG_LEVEL_INFO, 0);
    if (argc > 1 && !strcmp(argv[1], "mount"))
        return mount_main(argc - 1, argv + 1, &stub_generator);
    if (argc > 1 && !strcmp(argv[1], "umount"))
        return cmd_umount(argc - 1, argv + 1);
    fprintf(stderr, "usage: omnifs_stub mount|umount …\n");
    return 2;
}
