/* The CUDA backend's kernels in their emulated form: every operation against plain loops in double
 * precision and against the CPU backend's promises; memory, failures, and a whole picture. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/ops_compare.h"
#include "base/cleanup.h"
#include "engine/device.h"
#include "kernels/emulated.h"

extern cuda_backend_new_fn omni_cuda_backend_new;

static struct backend *cuda_new(void)
{
    struct backend *b;
    struct err e = {0};
    if (omni_cuda_backend_new(0, &b, &e))
        fail_msg("%s", e.text);
    return b;
}

static void compare_in_order(enum emulated_order order, enum dtype compute)
{
    struct backend *b = cuda_new();
    emulated_set_order(order, 1);
    compare_small(b, compute);
    emulated_set_order(EMULATED_FORWARD, 0);
    backend_free(b);
    assert_int_equal(emulated_counts().live, 0);
}

static void every_operation_equals_plain_loops_in_fp32(void **state)
{
    (void)state;
    compare_in_order(EMULATED_FORWARD, DTYPE_F32);
}

static void every_operation_is_near_plain_loops_in_bf16(void **state)
{
    (void)state;
    compare_in_order(EMULATED_FORWARD, DTYPE_BF16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_equals_plain_loops_in_fp32),
        cmocka_unit_test(every_operation_is_near_plain_loops_in_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
