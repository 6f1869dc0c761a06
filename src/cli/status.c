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

/* ---- the text as rows ---- */

/* A line is "ID FOLDER STATE…": folders may hold blanks, states begin with one of these words. */
static const char *const states[] = {" queued", " running ", " publishing"};

struct job_line {
    const char *id, *folder, *state; /* inside of the line, which is cut */
};

static bool split_line(char *line, struct job_line *out)
{
    char *blank = strchr(line, ' '), *cut = NULL;
    if (!blank)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(states); i++)
        for (char *hit = blank; (hit = strstr(hit + 1, states[i]));)
            cut = hit > cut ? hit : cut;
    if (!cut)
        return false;
    *blank = *cut = '\0';
    *out = (struct job_line){line, blank + 1, cut + 1};
    return true;
}

static void print_table(char *text)
{
    static const struct table_column columns[] = {
        {"JOB", TABLE_LEFT, true}, {"STATE", TABLE_LEFT, false}, {"ID", TABLE_LEFT, true}};
    AUTO_TABLE struct table t = TABLE(columns);
    AUTO_STR struct str rest = {0};
    struct job_line job;
    for (char *line; (line = strsep(&text, "\n"));)
        if (split_line(line, &job))
            table_row(&t, (const char *[]){job.folder, job.state, job.id});
        else if (*line)
            str_addf(&rest, "%s\n", line); /* "2 jobs of other users" */
    if (t.rows)
        table_print(&t, stdout);
    else if (!rest.len)
        puts("no jobs wait or run");
    fputs(str_cstr(&rest), stdout);
}

static int print_json(char *text)
{
    json_t *jobs = json_array();
    struct job_line job;
    for (char *line; (line = strsep(&text, "\n"));)
        if (split_line(line, &job))
            json_array_append_new(jobs, json_pack("{s:s, s:s, s:s}", "id", job.id, "folder",
                                                  job.folder, "state", job.state));
    AUTO_FREE char *dump = json_dumps(jobs, JSON_INDENT(2));
    json_decref(jobs);
    puts(dump ? dump : "[]");
    return dump ? CLI_DONE : cli_fail(NAME, CLI_FAILED, "not enough memory");
}

int cmd_status(int argc, char **argv)
{
    bool json = false;
    const struct cli_option options[] = {
        {"json", 'j', CLI_FLAG, NULL, "print JSON", &json},
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
    if (json)
        return print_json(text);
    print_table(text);
    return CLI_DONE;
}
