/* omnifs status: the queue of a mount as a table, from .omnifs/queue. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "cli/cli.h"
#include "cli/mounts.h"
#include "cli/term.h"

#define NAME        "omnifs status"
#define QUEUE_LIMIT (64u << 20)

static const struct cli_usage usage = {
    .name = NAME,
    .synopsis = "[MOUNTPOINT] [OPTION]",
    .about = "Shows the jobs of a mount that wait or run.",
    .more = "Without MOUNTPOINT: the only omnifs mount there is. Others' jobs are counted, not\n"
            "shown; root sees all.",
    .min_words = 0,
    .max_words = 1,
};

static int read_queue(const char *mount, char **text, size_t *size, struct err *e)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/.omnifs/queue", mount) >= PATH_MAX)
        return err_set(e, -ENAMETOOLONG, "the path of the mount is too long");
    int rc = file_read(AT_FDCWD, path, QUEUE_LIMIT, text, size, e);
    if (rc == -ENOENT || rc == -ENOTDIR)
        return err_set(e, rc, "%s is no omnifs mount", mount);
    if (rc == -ENOTCONN)
        return err_set(e, rc, "the daemon of %s is gone; omnifs mount it again", mount);
    return rc;
}

int cmd_status(int argc, char **argv)
{
    bool json = false;
    const struct cli_option options[] = {
        {"json", 'j', CLI_FLAG, NULL, "print .omnifs/queue as it is", &json},
        {0},
    };
    AUTO_WORDS struct cli_words words;
    int code = cli_parse(&usage, options, argc, argv, &words);
    if (code != CLI_CONTINUE)
        return code;
    char mount[PATH_MAX];
    AUTO_FREE char *text = NULL;
    size_t size = 0;
    struct err e = {0};
    if (words.count)
        snprintf(mount, sizeof mount, "%s", words.words[0]);
    else if (mounts_only(mount, &e))
        return cli_fail(NAME, CLI_FAILED, "%s", e.text);
    if (read_queue(mount, &text, &size, &e))
        return cli_fail(NAME, CLI_FAILED, "%s", e.text);
    fwrite(text, 1, size, stdout);
    return CLI_DONE;
}
