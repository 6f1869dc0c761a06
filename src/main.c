/* omnifs: one binary, a table of commands. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "base/version.h"
#include "cli/cli.h"

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"mount", cmd_mount, "mount a folder where prompts become pictures, clips and GIFs"},
    {"umount", cmd_umount, "finish or stop what runs, then unmount"},
    {"run", cmd_run, "draw what one prompt file asks for, without a mount"},
    {"wait", cmd_wait, "wait until jobs of a mount are done"},
    {"status", cmd_status, "show the queue of a mount"},
    {"models", cmd_models, "list, inspect and verify checkpoints"},
    {"bench", cmd_bench, "measure this machine: stages, operations, files"},
    {"doctor", cmd_doctor, "check what omnifs needs and say what to do"},
};

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (!strcmp(commands[i].name, name))
            return &commands[i];
    return NULL;
}

static int print_help(FILE *to)
{
    fputs("Usage: omnifs COMMAND [OPTION ...]\n"
          "       omnifs SOURCE DIR [-o OPTION,...]\n\n"
          "Write a prompt into a folder and find the picture beside it.\n\n",
          to);
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        fprintf(to, "  %-8s %s\n", commands[i].name, commands[i].help);
    fputs("\nomnifs COMMAND --help says more, and so do the man pages.\n", to);
    return CLI_DONE;
}

static const char *nearest_command(const char *word)
{
    const char *names[ARRAY_LEN(commands) + 1] = {0};
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        names[i] = commands[i].name;
    return str_nearest(word, names);
}

static int unknown_command(const char *word)
{
    const char *near = nearest_command(word);
    if (near)
        return cli_fail("omnifs", CLI_USAGE, "unknown command %s; did you mean %s?", word, near);
    return cli_fail("omnifs", CLI_USAGE, "unknown command %s; omnifs --help lists them", word);
}

/* mount(8) and fstab call `mount.omnifs SOURCE DIR -o …`. */
static bool called_as_mount_helper(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    return !strcmp(name, "mount.omnifs") || !strcmp(name, "mount.fuse.omnifs");
}

/* Threads that wait for the next operation shall sleep: spinning ones take the processor from the
 * thread they wait for as soon as anything else runs, and a picture takes ten times as long. The
 * OpenMP library reads this before main(), hence the second start. */
static void start_with_sleeping_threads(char **argv)
{
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT") ||
        setenv("OMP_WAIT_POLICY", "passive", 1) != 0)
        return;
    execv("/proc/self/exe", argv); /* where it fails, slower is better than not at all */
}

int main(int argc, char **argv)
{
    start_with_sleeping_threads(argv);
    log_open(LOG_LEVEL_WARN, 0);
    if (argc > 0 && called_as_mount_helper(argv[0]))
        return cmd_mount(argc, argv);
    if (argc < 2) {
        print_help(stderr);
        return CLI_USAGE;
    }
    const char *word = argv[1];
    const struct command *c = find_command(word);
    if (c)
        return c->run(argc - 1, argv + 1);
    if (!strcmp(word, "--help") || !strcmp(word, "-h") || !strcmp(word, "help"))
        return print_help(stdout);
    if (!strcmp(word, "--version") || !strcmp(word, "-V")) {
        printf("omnifs %s (%s)\n", omnifs_version, omnifs_commit);
        return CLI_DONE;
    }
    if (word[0] == '-')
        return cli_fail("omnifs", CLI_USAGE, "unknown option %s; omnifs --help lists the commands",
                        word);
    /* `omnifs SOURCE DIR …`, as mount.fuse calls it; but `omnifs statsu DIR` is a slip. */
    if (argc >= 3 && argv[2][0] != '-' && (!nearest_command(word) || access(word, F_OK) == 0))
        return cmd_mount(argc, argv);
    return unknown_command(word);
}
