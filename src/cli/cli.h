/* The command line: what the subcommands share.
 *
 * One file a subcommand, one row a subcommand in main.c. A command describes its options in a
 * table; cli_parse fills them in, prints --help from the same table, and answers mistakes with one
 * sentence. Results go to stdout, everything else to stderr. */
#ifndef OMNIFS_CLI_CLI_H
#define OMNIFS_CLI_CLI_H

#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"

/* Exit codes, the same for every command. */
enum cli_exit {
    CLI_DONE = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    CLI_BLOCKED = 3,    /* refused by a safety rule */
    CLI_CANCELLED = 130 /* as a shell reports SIGINT */
};

/* Words given to an option that may be repeated, and positional words; borrowed from argv. */
struct cli_words {
    const char **words;
    int count;
};

enum cli_kind {
    CLI_FLAG, /* target: bool */
    CLI_TEXT, /* target: const char *; given twice, the last one counts */
    CLI_MANY, /* target: struct cli_words; free with cli_words_free */
};

struct cli_option {
    const char *name; /* "output" for --output */
    char letter;      /* 'o' for -o, 0: none */
    enum cli_kind kind;
    const char *argument; /* "DIR", as help shows it; NULL for flags */
    const char *help;     /* one line */
    void *target;
};

struct cli_usage {
    const char *name;         /* "omnifs run" */
    const char *synopsis;     /* "FILE.ini [OPTION ...]" */
    const char *about;        /* one or a few sentences; may hold newlines */
    const char *more;         /* after the options: exit codes, examples; may be NULL */
    int min_words, max_words; /* positional words; max < 0: any number */
};

#define CLI_CONTINUE (-1)
/* Reads argv[1 …]; options may stand anywhere, "--" ends them. `options` ends with a row whose name
 * is NULL. CLI_CONTINUE, or the exit code: 0 after --help, 2 after a mistake (already explained).
 * `positional` is filled in either case and freed by the caller. */
int cli_parse(const struct cli_usage *usage, const struct cli_option *options, int argc,
              char **argv, struct cli_words *positional);
void cli_words_free(struct cli_words *w);
#define AUTO_WORDS __attribute__((cleanup(cli_words_free)))

/* "NAME: sentence" to stderr; returns `code`. */
int cli_fail(const char *name, int code, const char *fmt, ...) ERR_PRINTF(3, 4);

/* ---- commands; argv[0] is the command's name ---- */
int cmd_mount(int argc, char **argv);
int cmd_umount(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_wait(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_models(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_doctor(int argc, char **argv);

#endif
