/* The CPU backend's operations against plain loops in double precision, and what holds of them
 * beside their values: the same bits alone, in a batch, and again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../support/ops_compare.h"
#include "../support/ops_promises.h"

static struct backend *cpu_new(int threads)
{
    struct backend *b;
    struct err e = {0};
    if (cpu_backend_new(threads, &b, &e))
        fail_msg("%s", e.text);
    return b;
}

static void every_operation_equals_plain_loops_in_fp32(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 3; threads += 2) {
        struct backend *b = cpu_new(threads);
        compare_all(b, DTYPE_F32);
        backend_free(b);
    }
}

static void every_operation_is_near_plain_loops_in_bf16(void **state)
{
    (void)state;
    struct backend *b = cpu_new(2);
    compare_all(b, DTYPE_BF16);
    backend_free(b);
}

/* ---- promises ---- */

static void an_item_has_the_same_bits_alone_in_a_batch_and_again(void **state)
{
    (void)state;
    struct backend *b = cpu_new(2);
    promise_same_bits(b, DTYPE_F32);
    promise_same_bits(b, DTYPE_BF16);
    backend_free(b);
}

static void keys_that_are_hidden_everywhere_give_zeros(void **state)
{
    (void)state;
    struct backend *b = cpu_new(2);
    promise_hidden_keys_give_zeros(b, DTYPE_F32);
    backend_free(b);
}

static void nan_is_never_hidden(void **state)
{
    (void)state;
    struct backend *b = cpu_new(1);
    promise_nan_is_never_hidden(b, DTYPE_F32);
    backend_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_equals_plain_loops_in_fp32),
        cmocka_unit_test(every_operation_is_near_plain_loops_in_bf16),
        cmocka_unit_test(an_item_has_the_same_bits_alone_in_a_batch_and_again),
        cmocka_unit_test(keys_that_are_hidden_everywhere_give_zeros),
        cmocka_unit_test(nan_is_never_hidden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
