/* The prompt cache: by content, bounded, and never freeing what is in use. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/prompt_cache.h"

static struct condition *condition_of(size_t floats, float value)
{
    struct condition *x = condition_new();
    x->count = 1;
    x->arrays[0].rank = 3;
    x->arrays[0].dims[0] = 1;
    x->arrays[0].dims[1] = (int64_t)floats;
    x->arrays[0].dims[2] = 1;
    x->arrays[0].bytes = floats * sizeof(float);
    x->arrays[0].data = calloc(floats, sizeof(float));
    x->arrays[0].data[0] = value;
    return x;
}

static void put(struct prompt_cache *c, const char *prompt, size_t floats, float value)
{
    struct condition *x = condition_of(floats, value);
    prompt_cache_put(c, prompt, x);
    condition_drop(x);
}

/* The first number of what the cache holds, -1 for nothing. */
static float held(struct prompt_cache *c, const char *prompt)
{
    struct condition *x = prompt_cache_get(c, prompt);
    float value = x ? x->arrays[0].data[0] : -1;
    condition_drop(x);
    return value;
}

static void prompt_is_found_by_its_text_and_absent_is_not_empty(void **state)
{
    (void)state;
    struct prompt_cache *c = prompt_cache_new(1 << 20);
    char text[] = "a cat";
    put(c, text, 8, 1);
    put(c, "", 8, 2);
    put(c, NULL, 8, 3);
    text[2] = 'r';
    assert_float_equal(held(c, "a cat"), 1, 0);
    assert_float_equal(held(c, text), -1, 0);
    assert_float_equal(held(c, ""), 2, 0);
    assert_float_equal(held(c, NULL), 3, 0);
    prompt_cache_free(c);
}

static void prompt_of_another_scope_is_another_prompt(void **state)
{
    (void)state;
    struct prompt_cache *c = prompt_cache_new(1 << 20);
    put(c, "a cat", 8, 1);
    put(c, NULL, 8, 2);
    prompt_cache_scope(c, "changed encoder");
    assert_float_equal(held(c, "a cat"), -1, 0);
    assert_float_equal(held(c, NULL), -1, 0);
    put(c, "a cat", 8, 3);
    prompt_cache_scope(c, "");
    assert_float_equal(held(c, "a cat"), 1, 0);
    assert_float_equal(held(c, NULL), 2, 0);
    prompt_cache_scope(c, "changed encoder");
    assert_float_equal(held(c, "a cat"), 3, 0);
    prompt_cache_free(c);
}

static void bytes_are_bounded_and_the_least_recently_used_goes(void **state)
{
    (void)state;
    struct prompt_cache *c = prompt_cache_new(3 * (sizeof(struct condition) + 4000) + 100);
    put(c, "one", 1000, 1);
    put(c, "two", 1000, 2);
    put(c, "three", 1000, 3);
    assert_float_equal(held(c, "one"), 1, 0); /* now "two" is the oldest */
    put(c, "four", 1000, 4);
    assert_float_equal(held(c, "two"), -1, 0);
    assert_float_equal(held(c, "one"), 1, 0);
    assert_float_equal(held(c, "four"), 4, 0);
    put(c, "huge", 100000, 5); /* more than the whole cache: not kept, and nothing is lost */
    assert_float_equal(held(c, "huge"), -1, 0);
    assert_float_equal(held(c, "three"), 3, 0);
    prompt_cache_free(c);
}

static void many_small_prompts_never_overflow_the_table(void **state)
{
    (void)state;
    struct prompt_cache *c = prompt_cache_new(1 << 30);
    char name[16];
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "%d", i);
        put(c, name, 4, (float)i);
        assert_float_equal(held(c, name), i, 0);
    }
    assert_float_equal(held(c, "0"), -1, 0);
    prompt_cache_free(c);
}

static void condition_in_use_outlives_its_eviction(void **state)
{
    (void)state;
    struct prompt_cache *c = prompt_cache_new(sizeof(struct condition) + 5000);
    put(c, "first", 1000, 7);
    struct condition *x = prompt_cache_get(c, "first");
    put(c, "second", 1000, 8);
    assert_float_equal(held(c, "first"), -1, 0);
    assert_float_equal(x->arrays[0].data[0], 7, 0);
    condition_drop(x);
    prompt_cache_free(c);
}

static void conditions_of_other_lengths_are_not_alike(void **state)
{
    (void)state;
    struct condition *a = condition_of(8, 0), *b = condition_of(8, 1), *c = condition_of(9, 0);
    assert_true(condition_alike(a, b));
    assert_false(condition_alike(a, c));
    condition_drop(a);
    condition_drop(b);
    condition_drop(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompt_is_found_by_its_text_and_absent_is_not_empty),
        cmocka_unit_test(prompt_of_another_scope_is_another_prompt),
        cmocka_unit_test(bytes_are_bounded_and_the_least_recently_used_goes),
        cmocka_unit_test(many_small_prompts_never_overflow_the_table),
        cmocka_unit_test(condition_in_use_outlives_its_eviction),
        cmocka_unit_test(conditions_of_other_lengths_are_not_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
