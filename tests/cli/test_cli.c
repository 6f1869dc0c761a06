/* The option tables: what every subcommand's parsing promises. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/cli.h"

struct parsed {
    bool json, quiet;
    const char *output;
    struct cli_words sets, words;
    int code;
    char said[2048]; /* stdout and stderr */
};

static const struct cli_usage usage = {
    .name = "omnifs test",
    .synopsis = "FILE [MORE]",
    .about = "Tests.",
    .min_words = 1,
    .max_words = 2,
};

/* Parses with both standard streams caught in a file. */
static void parse(struct parsed *p, int argc, const char **argv)
{
    const struct cli_option options[] = {
        {"json", 'j', CLI_FLAG, NULL, "print JSON", &p->json},
        {"quiet", 'q', CLI_FLAG, NULL, "say nothing", &p->quiet},
        {"output", 'o', CLI_TEXT, "DIR", "where to", &p->output},
        {"set", 's', CLI_MANY, "KEY=VALUE", "settings", &p->sets},
        {0},
    };
    *p = (struct parsed){0};
    AUTO_FILE FILE *caught = tmpfile();
    assert_non_null(caught);
    fflush(stdout);
    int out = dup(1), err = dup(2);
    dup2(fileno(caught), 1);
    dup2(fileno(caught), 2);
    p->code = cli_parse(&usage, options, argc, (char **)argv, &p->words);
    fflush(stdout);
    fflush(stderr);
    dup2(out, 1);
    dup2(err, 2);
    close(out);
    close(err);
    ssize_t n = pread(fileno(caught), p->said, sizeof p->said - 1, 0);
    p->said[n > 0 ? n : 0] = '\0';
}

#define PARSE(p, ...)                                                                              \
    parse(p, (int)ARRAY_LEN(((const char *[]){"test", __VA_ARGS__})),                              \
          (const char *[]){"test", __VA_ARGS__, NULL})

static void done(struct parsed *p)
{
    cli_words_free(&p->sets);
    cli_words_free(&p->words);
}

static void options_stand_anywhere_and_in_every_spelling(void **state)
{
    (void)state;
    struct parsed p;
    PARSE(&p, "a.ini", "-jq", "--output", "x", "-sa=1", "--set=b=2", "-s", "c=3");
    assert_int_equal(p.code, CLI_CONTINUE);
    assert_true(p.json && p.quiet);
    assert_string_equal(p.output, "x");
    assert_int_equal(p.sets.count, 3);
    assert_string_equal(p.sets.words[0], "a=1");
    assert_string_equal(p.sets.words[1], "b=2");
    assert_string_equal(p.sets.words[2], "c=3");
    assert_int_equal(p.words.count, 1);
    assert_string_equal(p.words.words[0], "a.ini");
    done(&p);
}

static void the_last_of_two_values_counts(void **state)
{
    (void)state;
    struct parsed p;
    PARSE(&p, "-o", "x", "-oy", "f");
    assert_string_equal(p.output, "y");
    done(&p);
}

static void two_dashes_end_the_options_and_one_dash_is_a_word(void **state)
{
    (void)state;
    struct parsed p;
    PARSE(&p, "-", "--", "--json");
    assert_int_equal(p.code, CLI_CONTINUE);
    assert_false(p.json);
    assert_int_equal(p.words.count, 2);
    assert_string_equal(p.words.words[0], "-");
    assert_string_equal(p.words.words[1], "--json");
    done(&p);
}

static void a_slip_names_the_near_miss_and_exits_2(void **state)
{
    (void)state;
    struct parsed p;
    PARSE(&p, "f", "--jsno");
    assert_int_equal(p.code, CLI_USAGE);
    assert_string_equal(p.said, "omnifs test: unknown option --jsno; did you mean --json?\n");
    done(&p);
    PARSE(&p, "f", "--oputput=3");
    assert_int_equal(p.code, CLI_USAGE);
    assert_non_null(strstr(p.said, "did you mean --output?"));
    done(&p);
}

static void mistakes_are_one_sentence_each(void **state)
{
    (void)state;
    static const struct {
        const char *argv[5];
        int argc;
        const char *sentence;
    } cases[] = {
        {{"test", "f", "--wrong"}, 3, "unknown option --wrong; omnifs test --help lists them\n"},
        {{"test", "f", "-x"}, 3, "unknown option -x; omnifs test --help lists them\n"},
        {{"test", "f", "-o"}, 3, "--output needs a value: --output DIR\n"},
        {{"test", "f", "--json=1"}, 3, "--json takes no value\n"},
        {{"test"}, 1, "too few words; usage: omnifs test FILE [MORE]\n"},
        {{"test", "a", "b", "c"}, 4, "c is one word too many; usage: omnifs test FILE [MORE]\n"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct parsed p;
        parse(&p, cases[i].argc, (const char **)cases[i].argv);
        assert_int_equal(p.code, CLI_USAGE);
        assert_string_equal(p.said + strlen("omnifs test: "), cases[i].sentence);
        done(&p);
    }
}

static void control_characters_of_a_mistake_are_not_echoed(void **state)
{
    (void)state;
    struct parsed p;
    PARSE(&p, "f", "--\033[31m");
    assert_int_equal(p.code, CLI_USAGE);
    assert_null(strchr(p.said, '\033'));
    done(&p);
}

static void help_lists_every_option_and_exits_0(void **state)
{
    (void)state;
    static const char *const spellings[] = {"--help", "-h", "-jh"};
    for (size_t i = 0; i < ARRAY_LEN(spellings); i++) {
        struct parsed p;
        PARSE(&p, spellings[i]);
        assert_int_equal(p.code, CLI_DONE);
        assert_non_null(strstr(p.said, "Usage: omnifs test FILE [MORE]\n"));
        assert_non_null(strstr(p.said, "  -o, --output DIR"));
        assert_non_null(strstr(p.said, "  -s, --set KEY=VALUE"));
        assert_non_null(strstr(p.said, "  -h, --help"));
        done(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_stand_anywhere_and_in_every_spelling),
        cmocka_unit_test(the_last_of_two_values_counts),
        cmocka_unit_test(two_dashes_end_the_options_and_one_dash_is_a_word),
        cmocka_unit_test(a_slip_names_the_near_miss_and_exits_2),
        cmocka_unit_test(mistakes_are_one_sentence_each),
        cmocka_unit_test(control_characters_of_a_mistake_are_not_echoed),
        cmocka_unit_test(help_lists_every_option_and_exits_0),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
