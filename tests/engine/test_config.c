/* Configs are read strictly: wrong types, ranges and JSON are errors that say what and where. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/config.h"

static const char text[] =
    "{\"layers\": 3, \"eps\": 1e-6, \"theta\": 2000, \"tied\": true, \"name\": \"x\","
    " \"none\": null, \"axes\": [16, 17], \"pairs\": [1, [3, 4]], \"words\": [\"a\", \"b\"],"
    " \"rope\": {\"theta\": 5.5, \"deep\": {\"er\": 7}}, \"a.b\": 9}";

static struct config *sample(void)
{
    struct config *c;
    struct err e = {0};
    assert_int_equal(config_parse("c.json", text, strlen(text), &c, &e), 0);
    return c;
}

static void values_come_back_with_their_type(void **state)
{
    (void)state;
    struct config *c = sample();
    assert_int_equal(config_int(c, "layers", 0, 1, 8), 3);
    assert_true(config_float(c, "eps", 0, 0, 1) == 1e-6);
    assert_true(config_float(c, "theta", 0, 1, 1e9) == 2000.0); /* an integer is a number */
    assert_true(config_bool(c, "tied", false));
    assert_string_equal(config_string(c, "name", NULL), "x");
    assert_int_equal(config_length(c, "axes"), 2);
    assert_int_equal(config_int_at(c, "axes", 1, 0, 99), 17);
    assert_string_equal(config_string_at(c, "words", 0), "a");
    assert_int_equal(config_int(c, "rope.deep.er", 0, 0, 9), 7);
    assert_int_equal(config_int(c, "a.b", 0, 0, 9), 9); /* a key that holds a dot wins */
    assert_int_equal(config_int(c, "axes.1", 0, 0, 99), 17);
    assert_int_equal(config_length(c, "pairs.1"), 2);
    assert_int_equal(config_int_at(c, "pairs.1", 0, 0, 99), 3);
    assert_int_equal(config_error(c, NULL), 0);
    config_close(c);
}

static void missing_and_null_give_the_fallback(void **state)
{
    (void)state;
    struct config *c = sample();
    assert_int_equal(config_int(c, "absent", 42, 0, 99), 42);
    assert_int_equal(config_int(c, "none", 42, 0, 99), 42);
    assert_int_equal(config_int(c, "layers.below", 42, 0, 99), 42);
    assert_true(config_float(c, "rope.eps", 0.5, 0, 1) == 0.5);
    assert_null(config_string(c, "none", NULL));
    assert_int_equal(config_length(c, "none"), -1);
    assert_int_equal(config_length(c, "layers"), -1);
    assert_int_equal(config_int(c, "axes.2", 42, 0, 99), 42);
    assert_int_equal(config_int(c, "axes.x", 42, 0, 99), 42);
    assert_int_equal(config_int(c, "axes.", 42, 0, 99), 42);
    assert_false(config_has(c, "none"));
    assert_true(config_null(c, "none"));
    assert_false(config_null(c, "absent"));
    assert_false(config_null(c, "layers"));
    assert_true(config_has(c, "rope.theta"));
    assert_int_equal(config_error(c, NULL), 0);
    config_close(c);
}

struct fault {
    void (*ask)(struct config *c);
    const char *message;
};

static void ask_required(struct config *c)
{
    config_int(c, "absent", CONFIG_REQUIRED, 0, 9);
}
static void ask_required_float(struct config *c)
{
    config_float(c, "absent", (double)CONFIG_REQUIRED, 0, 9);
}
static void ask_range(struct config *c)
{
    assert_int_equal(config_int(c, "layers", CONFIG_REQUIRED, 4, 9), 4); /* within the range */
}
static void ask_int_of_float(struct config *c)
{
    config_int(c, "eps", 0, 0, 9);
}
static void ask_bool_of_int(struct config *c)
{
    config_bool(c, "layers", false);
}
static void ask_int_of_bool(struct config *c)
{
    config_int(c, "tied", 0, 0, 9);
}
static void ask_string_of_array(struct config *c)
{
    config_string(c, "axes", NULL);
}
static void ask_beyond_end(struct config *c)
{
    config_int_at(c, "axes", 2, 0, 99);
}
static void ask_negative_index(struct config *c)
{
    config_int_at(c, "axes", -1, 0, 99);
}
static void ask_int_of_strings(struct config *c)
{
    config_int_at(c, "words", 1, 0, 99);
}
static void ask_string_of_ints(struct config *c)
{
    assert_string_equal(config_string_at(c, "axes", 0), "");
}

static void a_wrong_value_is_named_with_what_was_expected(void **state)
{
    (void)state;
    static const struct fault faults[] = {
        {ask_required, "c.json: absent is missing, expected a whole number from 0 to 9"},
        {ask_required_float, "c.json: absent is missing, expected a number from 0 to 9"},
        {ask_range, "c.json: layers is 3, expected a whole number from 4 to 9"},
        {ask_int_of_float, "c.json: eps is 1e-06, expected a whole number from 0 to 9"},
        {ask_bool_of_int, "c.json: layers is 3, expected true or false"},
        {ask_int_of_bool, "c.json: tied is true, expected a whole number from 0 to 9"},
        {ask_string_of_array, "c.json: axes is an array of 2, expected a text"},
        {ask_beyond_end, "c.json: axes[2] is missing, expected a whole number from 0 to 99"},
        {ask_negative_index, "c.json: axes is missing, expected a whole number from 0 to 99"},
        {ask_int_of_strings,
         "c.json: words[1] is the text \"b\", expected a whole number from 0 to 99"},
        {ask_string_of_ints, "c.json: axes[0] is 16, expected a text"},
    };
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        struct config *c = sample();
        struct err e = {0};
        faults[i].ask(c);
        assert_int_equal(config_error(c, &e), -EINVAL);
        assert_string_equal(e.text, faults[i].message);
        config_close(c);
    }
}

static void the_first_failure_stays(void **state)
{
    (void)state;
    struct config *c = sample();
    struct err e = {0};
    ask_range(c);
    ask_bool_of_int(c);
    config_error(c, &e);
    assert_non_null(strstr(e.text, "from 4 to 9"));
    config_close(c);
}

static void what_is_not_a_json_object_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "[]",
                                      "3",
                                      "{\"a\": 1,}",
                                      "{\"a\": 1} x",
                                      "{\"a\":1,\"a\":2}",
                                      "{\"a\": NaN}",
                                      "{\"a\": 1e999}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct config *c;
        struct err e = {0};
        assert_int_equal(config_parse("bad.json", bad[i], strlen(bad[i]), &c, &e), -EINVAL);
        assert_memory_equal(e.text, "bad.json", 8);
    }
    size_t deep = 100000;
    char *nested = malloc(deep + 1);
    memset(nested, '[', deep);
    struct config *c;
    struct err e = {0};
    assert_int_equal(config_parse("deep.json", nested, deep, &c, &e), -EINVAL);
    free(nested);
}

static void a_missing_file_is_named(void **state)
{
    (void)state;
    struct config *c;
    struct err e = {0};
    assert_int_equal(config_open("tests/no-such.json", &c, &e), -ENOENT);
    assert_non_null(strstr(e.text, "no-such.json"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_come_back_with_their_type),
        cmocka_unit_test(missing_and_null_give_the_fallback),
        cmocka_unit_test(a_wrong_value_is_named_with_what_was_expected),
        cmocka_unit_test(the_first_failure_stays),
        cmocka_unit_test(what_is_not_a_json_object_is_refused),
        cmocka_unit_test(a_missing_file_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
