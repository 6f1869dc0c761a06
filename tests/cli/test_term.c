/* What the commands print: tables, progress lines, outlines of JSON, unescaped mount points. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/outline.h"
#include "cli/term.h"
#include "fs/mountpoint.h"

static void a_file_is_no_terminal_and_gets_no_escape_codes(void **state)
{
    (void)state;
    char text[4096] = "";
    AUTO_FILE FILE *f = tmpfile();
    assert_false(term_is(f));
    assert_false(term_coloured(f));
    struct progress p;
    progress_begin(&p, f, false);
    progress_set(&p, "diffuse", 0, 24, -1);
    progress_set(&p, "diffuse", 12, 24, -1); /* too soon for a second line */
    progress_set(&p, "package", 0, 1, -1);
    progress_end(&p);
    rewind(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    text[n] = '\0';
    assert_null(strchr(text, '\033'));
    assert_null(strchr(text, '\r'));
    int lines = 0;
    for (const char *c = text; *c; c++)
        lines += *c == '\n';
    assert_int_equal(lines, 2);
}

static void a_quiet_progress_says_nothing(void **state)
{
    (void)state;
    AUTO_FILE FILE *f = tmpfile();
    struct progress p;
    progress_begin(&p, f, true);
    progress_set(&p, "diffuse", 0, 24, -1);
    progress_end(&p);
    assert_int_equal(ftell(f), 0);
}

static void no_terminal_means_columns_or_eighty(void **state)
{
    (void)state;
    AUTO_FILE FILE *f = tmpfile();
    unsetenv("COLUMNS");
    assert_int_equal(term_width(f), 80);
    setenv("COLUMNS", "132", 1);
    assert_int_equal(term_width(f), 132);
    setenv("COLUMNS", "3", 1);
    assert_int_equal(term_width(f), 20);
    setenv("COLUMNS", "many", 1);
    assert_int_equal(term_width(f), 80);
    unsetenv("COLUMNS");
}

static void a_progress_line_fits_its_width(void **state)
{
    (void)state;
    for (int width = 20; width <= 120; width++) {
        AUTO_STR struct str line = {0};
        progress_format(&line, "diffuse", 12, 24, 0.31, 8, width);
        assert_true(term_columns(str_cstr(&line)) <= width);
    }
    AUTO_STR struct str line = {0};
    progress_format(&line, "diffuse", 12, 24, 0.31, 8, 79);
    assert_string_equal(str_cstr(&line), "diffuse      [################                 ] 12/24  "
                                         "0.31 s/step  eta 8.0 s");
}

static void text_is_cut_by_columns_not_by_bytes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int columns;
        const char *cut;
    } cases[] = {
        {"plain", 5, "plain"},      {"plain", 4, "pla…"},   {"münchen", 4, "mün…"},
        {"日本語", 6, "日本語"},    {"日本語", 5, "日本…"}, {"日本語", 4, "日…"},
        {"a\033[1mb", 6, "a?[1mb"}, {"\xff\xfe", 2, "??"},  {"", 0, ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_STR struct str out = {0};
        term_cut(&out, cases[i].text, cases[i].columns);
        assert_string_equal(str_cstr(&out), cases[i].cut);
    }
}

static void a_table_aligns_and_gives_way_in_the_stretching_column(void **state)
{
    (void)state;
    static const struct table_column columns[] = {
        {"ID", TABLE_LEFT, false}, {"STEPS", TABLE_RIGHT, false}, {"PROMPT", TABLE_LEFT, true}};
    AUTO_TABLE struct table t = TABLE(columns);
    table_row(&t, (const char *[]){"a", "4", "a cat"});
    table_row(&t, (const char *[]){"bb", "24", NULL});
    table_row(&t, (const char *[]){"c", "100", "a very long prompt indeed"});
    AUTO_STR struct str wide = {0}, narrow = {0};
    table_format(&t, 0, &wide);
    assert_string_equal(str_cstr(&wide), "ID  STEPS  PROMPT\n"
                                         "a       4  a cat\n"
                                         "bb     24\n"
                                         "c     100  a very long prompt indeed\n");
    table_format(&t, 25, &narrow);
    assert_string_equal(str_cstr(&narrow), "ID  STEPS  PROMPT\n"
                                           "a       4  a cat\n"
                                           "bb     24\n"
                                           "c     100  a very long p…\n");
}

static void an_outline_reads_like_a_form(void **state)
{
    (void)state;
    AUTO_STR struct str out = {0};
    json_t *value = json_loads("{\"family\": \"flux2-klein\", \"weight_bytes\": 26000000,"
                               "\"guided\": true, \"unused\": [], \"sizes\": [128, 256],"
                               "\"parts\": [{\"name\": \"vae\"}, {\"name\": \"transformer\"}],"
                               "\"cost\": {\"peak_bytes\": 1000}}",
                               0, NULL);
    outline(&out, value, 0);
    json_decref(value);
    assert_string_equal(str_cstr(&out), "family: flux2-klein\n"
                                        "weight bytes: 26.0 MB\n"
                                        "guided: yes\n"
                                        "unused: none\n"
                                        "sizes: 128, 256\n"
                                        "parts:\n"
                                        "  name: vae\n"
                                        "\n"
                                        "  name: transformer\n"
                                        "cost:\n"
                                        "  peak bytes: 1.0 KB\n");
}

static void a_deep_outline_ends(void **state)
{
    (void)state;
    AUTO_STR struct str deep = {0}, out = {0};
    for (int i = 0; i < 1000; i++)
        str_add(&deep, "{\"a\":");
    str_add(&deep, "1");
    for (int i = 0; i < 1000; i++)
        str_add(&deep, "}");
    json_t *value = json_loads(str_cstr(&deep), 0, NULL);
    assert_non_null(value);
    outline(&out, value, 0);
    json_decref(value);
    assert_true(out.len < 1000);
}

static void blanks_in_mount_points_come_back(void **state)
{
    (void)state;
    char path[] = "/mnt/my\\040pictures\\134n\\0";
    mount_unescape(path);
    assert_string_equal(path, "/mnt/my pictures\\n\\0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_no_terminal_and_gets_no_escape_codes),
        cmocka_unit_test(a_quiet_progress_says_nothing),
        cmocka_unit_test(no_terminal_means_columns_or_eighty),
        cmocka_unit_test(a_progress_line_fits_its_width),
        cmocka_unit_test(text_is_cut_by_columns_not_by_bytes),
        cmocka_unit_test(a_table_aligns_and_gives_way_in_the_stretching_column),
        cmocka_unit_test(an_outline_reads_like_a_form),
        cmocka_unit_test(a_deep_outline_ends),
        cmocka_unit_test(blanks_in_mount_points_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
