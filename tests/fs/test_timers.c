/* The timer set under the trigger. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "fs/timers.h"

static struct timer *add(struct timers *t, int64_t key)
{
    struct timer *timer = calloc(1, sizeof *timer);
    assert_non_null(timer);
    timer->key = key;
    assert_int_equal(timers_add(t, timer), 0);
    return timer;
}

static void free_one(struct timer *timer)
{
    free(timer);
}

static void comes_out_by_due_time_whatever_the_order_of_setting(void **state)
{
    (void)state;
    struct timers t = {0};
    unsigned random = 1;
    for (int i = 0; i < 5000; i++) {
        random = random * 1664525 + 1013904223;
        timers_set(&t, add(&t, i), random >> 12);
    }
    /* Some are moved, some are taken out of the heap, some are removed. */
    for (int i = 0; i < 5000; i += 3)
        timers_set(&t, timers_find(&t, i), (double)(5000 - i));
    for (int i = 1; i < 5000; i += 7)
        timers_unset(&t, timers_find(&t, i));
    for (int i = 2; i < 5000; i += 11) {
        struct timer *timer = timers_find(&t, i);
        timers_remove(&t, timer);
        free(timer);
        assert_null(timers_find(&t, i));
    }
    double last = -1;
    size_t n = 0;
    for (struct timer *first; (first = timers_first(&t)); n++) {
        assert_true(first->due >= last);
        last = first->due;
        timers_remove(&t, first);
        free(first);
    }
    assert_true(n > 3500);
    assert_true(t.count > 0); /* the unset ones are still known */
    timers_free(&t, free_one);
    assert_int_equal(t.count, 0);
}

static void a_timer_set_again_has_only_its_new_time(void **state)
{
    (void)state;
    struct timers t = {0};
    struct timer *a = add(&t, 1), *b = add(&t, 2);
    timers_set(&t, a, 1);
    timers_set(&t, b, 2);
    timers_set(&t, a, 3);
    assert_ptr_equal(timers_first(&t), b);
    timers_unset(&t, b);
    timers_unset(&t, b);
    assert_ptr_equal(timers_first(&t), a);
    timers_unset(&t, a);
    assert_null(timers_first(&t));
    assert_ptr_equal(timers_find(&t, 1), a);
    timers_free(&t, free_one);
}

static void an_empty_set_finds_nothing(void **state)
{
    (void)state;
    struct timers t = {0};
    assert_null(timers_first(&t));
    assert_null(timers_find(&t, 7));
    timers_free(&t, free_one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_out_by_due_time_whatever_the_order_of_setting),
        cmocka_unit_test(a_timer_set_again_has_only_its_new_time),
        cmocka_unit_test(an_empty_set_finds_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
