#include "cli/cli.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

static int words_add(struct cli_words *w, const char *word)
{
    const char **grown = realloc(w->words, ((size_t)w->count + 1) * sizeof(*grown));
    if (!grown)
        return -1;
    w->words = grown;
    w->words[w->count++] = word;
    return 0;
}

void cli_words_free(struct cli_words *w)
{
    free(w->words);
    *w = (struct cli_words){0};
}

int cli_fail(const char *name, int code, const char *fmt, ...)
{
    struct err e;
    va_list ap;
    va_start(ap, fmt);
    err_setv(&e, -1, fmt, ap);
    va_end(ap);
    fprintf(stderr, "%s: %s\n", name, e.text);
    return code;
}

static void print_options(const struct cli_option *options)
{
    static const struct cli_option help = {"help", 'h', CLI_FLAG, NULL, "this text", NULL};
    for (const struct cli_option *o = options;; o++) {
        const struct cli_option *row = o->name ? o : &help;
        char left[64];
        snprintf(left, sizeof left, "%c%c%s --%s%s%s", row->letter ? '-' : ' ',
                 row->letter ? row->letter : ' ', row->letter ? "," : " ", row->name,
                 row->argument ? " " : "", row->argument ? row->argument : "");
        printf("  %-26s %s\n", left, row->help);
        if (!o->name)
            return;
    }
}

static void print_help(const struct cli_usage *u, const struct cli_option *options)
{
    printf("Usage: %s %s\n\n%s\n\n", u->name, u->synopsis, u->about);
    print_options(options);
    if (u->more)
        printf("\n%s\n", u->more);
}

/* State of one parse: the words left, and where results go. */
struct parse {
    const struct cli_usage *usage;
    const struct cli_option *options;
    int argc, next;
    char **argv;
};

static int unknown_option(const struct parse *p, const char *word, size_t length)
{
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)(length < 60 ? length : 60), word);
    const char *names[32] = {"help"};
    size_t n = 1;
    for (const struct cli_option *o = p->options; o->name && n < 31; o++)
        names[n++] = o->name;
    const char *near = str_nearest(name, names);
    if (near)
        return cli_fail(p->usage->name, CLI_USAGE, "unknown option --%s; did you mean --%s?", name,
                        near);
    return cli_fail(p->usage->name, CLI_USAGE, "unknown option --%s; %s --help lists them", name,
                    p->usage->name);
}

static int store(struct parse *p, const struct cli_option *o, const char *value)
{
    if (o->kind == CLI_FLAG) {
        *(bool *)o->target = true;
        return CLI_CONTINUE;
    }
    if (!value) {
        if (p->next >= p->argc)
            return cli_fail(p->usage->name, CLI_USAGE, "--%s needs a value: --%s %s", o->name,
                            o->name, o->argument);
        value = p->argv[p->next++];
    }
    if (o->kind == CLI_TEXT) {
        *(const char **)o->target = value;
    } else if (words_add(o->target, value)) {
        return cli_fail(p->usage->name, CLI_FAILED, "not enough memory");
    }
    return CLI_CONTINUE;
}

/* `word` is what follows the two dashes. */
static int parse_long(struct parse *p, const char *word)
{
    const char *equals = strchr(word, '=');
    size_t length = equals ? (size_t)(equals - word) : strlen(word);
    for (const struct cli_option *o = p->options; o->name; o++) {
        if (strlen(o->name) != length || strncmp(o->name, word, length))
            continue;
        if (equals && o->kind == CLI_FLAG)
            return cli_fail(p->usage->name, CLI_USAGE, "--%s takes no value", o->name);
        return store(p, o, equals ? equals + 1 : NULL);
    }
    if (!strcmp(word, "help")) {
        print_help(p->usage, p->options);
        return CLI_DONE;
    }
    return unknown_option(p, word, length);
}

/* `letters` is what follows the dash: flags, and at the end perhaps an option with its value. */
static int parse_short(struct parse *p, const char *letters)
{
    for (const char *c = letters; *c; c++) {
        const struct cli_option *o = p->options;
        while (o->name && o->letter != *c)
            o++;
        if (!o->name && *c == 'h') {
            print_help(p->usage, p->options);
            return CLI_DONE;
        }
        if (!o->name)
            return cli_fail(p->usage->name, CLI_USAGE, "unknown option -%c; %s --help lists them",
                            *c, p->usage->name);
        bool takes_value = o->kind != CLI_FLAG;
        int rc = store(p, o, takes_value && c[1] ? c + 1 : NULL);
        if (rc != CLI_CONTINUE || takes_value)
            return rc;
    }
    return CLI_CONTINUE;
}

int cli_parse(const struct cli_usage *usage, const struct cli_option *options, int argc,
              char **argv, struct cli_words *positional)
{
    struct parse p = {usage, options, argc, 1, argv};
    bool ended = false;
    *positional = (struct cli_words){0};
    while (p.next < argc) {
        const char *word = argv[p.next++];
        int rc = CLI_CONTINUE;
        if (!ended && !strcmp(word, "--"))
            ended = true;
        else if (!ended && !strncmp(word, "--", 2))
            rc = parse_long(&p, word + 2);
        else if (!ended && word[0] == '-' && word[1])
            rc = parse_short(&p, word + 1);
        else if (words_add(positional, word))
            rc = cli_fail(usage->name, CLI_FAILED, "not enough memory");
        if (rc != CLI_CONTINUE)
            return rc;
    }
    if (positional->count < usage->min_words)
        return cli_fail(usage->name, CLI_USAGE, "too few words; usage: %s %s", usage->name,
                        usage->synopsis);
    if (usage->max_words >= 0 && positional->count > usage->max_words)
        return cli_fail(usage->name, CLI_USAGE, "%s is one word too many; usage: %s %s",
                        positional->words[usage->max_words], usage->name, usage->synopsis);
    return CLI_CONTINUE;
}
