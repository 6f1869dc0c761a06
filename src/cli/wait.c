/* omnifs wait: reads JOBDIR/wait, which answers when the job has ended. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/cli.h"

#define NAME "omnifs wait"

static const struct cli_usage usage = {
    .name = NAME,
    .synopsis = "JOBDIR ... [OPTION]",
    .about = "Waits until the jobs of these folders have ended and prints how.",
    .more = "Exit codes: 0 all done, 1 one failed, 3 one was blocked, 130 one was cancelled (the\n"
            "first that applies).",
    .min_words = 1,
    .max_words = -1,
};

/* Outcomes by the first word of the final status line, the worst first. */
static const struct {
    const char *word;
    int code;
} outcomes[] = {
    {"failed", CLI_FAILED},
    {"blocked", CLI_BLOCKED},
    {"cancelled", CLI_CANCELLED},
    {"done", CLI_DONE},
};

static size_t outcome_of(const char *line)
{
    size_t length = strcspn(line, " :\n");
    for (size_t i = 0; i < ARRAY_LEN(outcomes); i++)
        if (strlen(outcomes[i].word) == length && !strncmp(outcomes[i].word, line, length))
            return i;
    return 0; /* what cannot be understood did not go well */
}

/* One line of text; the size of `wait` is unknown until it answers, so it is simply read. */
static ssize_t read_line(int fd, char *line, size_t size)
{
    size_t n = 0;
    ssize_t got;
    do {
        got = read(fd, line + n, size - 1 - n);
        n += got > 0 ? (size_t)got : 0;
    } while (got > 0 || (got < 0 && errno == EINTR));
    line[n] = '\0';
    line[strcspn(line, "\n")] = '\0';
    return got < 0 ? -errno : (ssize_t)n;
}

/* The place of the folder's outcome in the table. */
static size_t wait_for(const char *folder, bool quiet)
{
    char path[PATH_MAX];
    char line[1024];
    if (snprintf(path, sizeof path, "%s/wait", folder) >= PATH_MAX) {
        cli_fail(NAME, 0, "the name of the folder is too long");
        return 0;
    }
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        cli_fail(NAME, 0, "%s is not a job: expected a folder in image/, video/ or gif/ of a mount",
                 folder);
        return 0;
    }
    if (fd < 0) {
        cli_fail(NAME, 0, "%s: %s", path, strerror(errno));
        return 0;
    }
    ssize_t n = read_line(fd, line, sizeof line);
    if (n < 0) {
        cli_fail(NAME, 0, "%s: %s", path, strerror((int)-n));
        return 0;
    }
    if (!quiet)
        printf("%s: %s\n", folder, line);
    fflush(stdout);
    return outcome_of(line);
}

int cmd_wait(int argc, char **argv)
{
    bool quiet = false;
    const struct cli_option options[] = {
        {"quiet", 'q', CLI_FLAG, NULL, "only the exit code", &quiet},
        {0},
    };
    AUTO_WORDS struct cli_words words;
    int code = cli_parse(&usage, options, argc, argv, &words);
    if (code != CLI_CONTINUE)
        return code;
    size_t worst = ARRAY_LEN(outcomes) - 1;
    for (int i = 0; i < words.count; i++) {
        size_t outcome = wait_for(words.words[i], quiet);
        worst = outcome < worst ? outcome : worst;
    }
    return outcomes[worst].code;
}
