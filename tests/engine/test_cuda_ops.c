/* The CUDA backend's kernels in their emulated form: every operation against plain loops in double
 * precision, what is promised beside values, memory, and failures. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/ops_compare.h"
#include "../support/ops_narrow.h"
#include "../support/ops_promises.h"
#include "base/cleanup.h"
#include "engine/device.h"
#include "engine/weights/synthetic.h"
#include "kernels/emulated.h"

extern cuda_backend_new_fn omni_cuda_backend_new;
extern cuda_device_count_fn omni_cuda_device_count;

static struct backend *cuda_new(void)
{
    struct backend *b;
    struct err e = {0};
    if (omni_cuda_backend_new(0, &b, &e))
        fail_msg("%s", e.text);
    return b;
}

static void cuda_end(struct backend *b)
{
    emulated_set_order(EMULATED_FORWARD, 0);
    emulated_set_guard(false);
    backend_free(b);
    assert_int_equal(emulated_counts().live, 0);
}

/* ---- values ---- */

static void every_operation_equals_plain_loops_in_fp32(void **state)
{
    (void)state;
    struct backend *b = cuda_new();
    compare_small(b, DTYPE_F32);
    cuda_end(b);
}

/* Threads run last to first: what a thread reads before another wrote it is another number. */
static void every_operation_is_near_plain_loops_in_bf16(void **state)
{
    (void)state;
    struct backend *b = cuda_new();
    emulated_set_order(EMULATED_BACKWARD, 0);
    compare_small(b, DTYPE_BF16);
    cuda_end(b);
}

static void results_in_bf16_are_those_in_fp32_rounded(void **state)
{
    (void)state;
    struct backend *b = cuda_new();
    promise_narrow_results(b, 0);
    cuda_end(b);
}

static void threads_in_any_order_give_the_same_bits(void **state)
{
    (void)state;
    struct backend *b = cuda_new();
    emulated_set_order(EMULATED_RANDOM, 7);
    promise_same_bits(b, DTYPE_F32);
    promise_same_bits(b, DTYPE_BF16);
    cuda_end(b);
}

/* Memory that only kernels and copies reach, as a GPU's. */
static void the_host_never_reads_device_memory(void **state)
{
    (void)state;
    emulated_set_guard(true);
    struct backend *b = cuda_new();
    promise_hidden_keys_give_zeros(b, DTYPE_F32);
    promise_hidden_keys_give_zeros(b, DTYPE_BF16);
    promise_nan_is_never_hidden(b, DTYPE_F32);
    promise_nan_is_never_hidden(b, DTYPE_BF16);
    cuda_end(b);
}

/* ---- memory ---- */

static void results_move_down_over_themselves(void **state)
{
    (void)state;
    struct backend *b = cuda_new();
    struct ops *o = ops_new(b, DTYPE_F32, 1 << 20, NULL);
    float x[5000], y[5000];
    for (int i = 0; i < 5000; i++)
        x[i] = (float)i;
    for (int64_t before = 16; before < 20000; before *= 5) {
        ops_mark mark = ops_push(o);
        op_zeros(o, DTYPE_F32, SHAPE(before));
        struct tensor *t = op_from_host(o, DTYPE_F32, SHAPE(5000), x);
        t = ops_pop_keep(o, mark, t);
        assert_int_equal(op_to_host(o, t, y, sizeof y), 0);
        assert_memory_equal(x, y, sizeof x);
    }
    ops_free(o);
    cuda_end(b);
}

/* More than the slots between host and device hold. */
static void large_weights_come_through_small_slots(void **state)
{
    (void)state;
    struct backend *b = cuda_new();
    int64_t rows = 5000, columns = 1111, n = rows * columns;
    AUTO_FREE float *host = malloc((size_t)n * sizeof *host),
                    *row = malloc((size_t)n * sizeof *row);
    struct tensor *w;
    assert_true(host && row);
    for (int64_t i = 0; i < n; i++)
        host[i] = (float)i;
    assert_int_equal(
        tensor_weight_new(b, DTYPE_F32, SHAPE(rows, columns), host, DTYPE_F32, &w, NULL), 0);
    assert_int_equal(b->ops->weight_bytes(w), n * 4);
    assert_false(b->ops->weight_mapped(w));
    struct ops *o = ops_new(b, DTYPE_BF16, 64 << 20, NULL);
    assert_int_equal(op_to_host(o, w, row, (size_t)n * sizeof *row), 0);
    assert_memory_equal(host, row, (size_t)n * sizeof *row);
    ops_free(o);
    tensor_weight_free(w);
    cuda_end(b);
}

static void a_step_waits_for_the_device_only_to_read_results(void **state)
{
    (void)state;
    struct backend *b = cuda_new();
    struct ops *o = ops_new(b, DTYPE_F32, 1 << 20, NULL);
    float x[64 * 64], y[64];
    memset(x, 0, sizeof x);
    uint64_t before = emulated_counts().waits;
    struct tensor *t = NULL;
    for (int step = 0; step < 50; step++) {
        ops_mark mark = ops_push(o);
        t = op_from_host(o, DTYPE_F32, SHAPE(1, 64, 64), x);
        t = op_layer_norm(
            o, op_linear(o, t, op_from_host(o, DTYPE_F32, SHAPE(64, 64), x), NULL, ACT_SILU), NULL,
            NULL, 1e-6f);
        t = ops_pop_keep(o, mark, op_slice(o, t, 1, 0, 1));
    }
    assert_int_equal(emulated_counts().waits, before);
    assert_int_equal(op_to_host(o, t, y, sizeof y), 0);
    assert_int_equal(emulated_counts().waits, before + 1);
    ops_free(o);
    cuda_end(b);
}

/* As a loader does: for plans first, then with data, and for plans again. */
static void prepared_in_turn(struct backend *b, enum dtype compute, int rank, const int64_t *dims,
                             const float *host)
{
    struct tensor *w;
    uint64_t planned = 0, live = emulated_counts().live;
    assert_int_equal(tensor_weight_shape(b, DTYPE_F32, rank, dims, &w, NULL), 0);
    for (int turn = 0; turn < 4; turn++) {
        bool full = turn % 2;
        w->dtype = DTYPE_F32;
        assert_int_equal(b->ops->weight_prepare(b, w, full ? host : NULL, compute, NULL), 0);
        assert_true((w->data != NULL) == full);
        assert_int_equal(w->dtype, rank > 1 ? compute : DTYPE_F32);
        if (turn == 0)
            planned = b->ops->weight_bytes(w);
        assert_int_equal(b->ops->weight_bytes(w), planned);
        assert_int_equal(emulated_counts().live, live + full);
        if (full && w->dtype == DTYPE_F32 && rank < 4) {
            float y[64];
            struct ops *o = ops_new(b, compute, 1 << 20, NULL);
            assert_int_equal(op_to_host(o, w, y, sizeof y), 0);
            assert_memory_equal(host, y, sizeof y);
            ops_free(o);
        }
        b->ops->weight_release(b, w);
        assert_null(w->data);
        assert_int_equal(emulated_counts().live, live);
    }
    tensor_weight_free(w);
}

static void weights_are_prepared_and_released_by_turns(void **state)
{
    (void)state;
    struct backend *b = cuda_new();
    float host[64];
    for (int i = 0; i < 64; i++)
        host[i] = (float)i - 31.5f;
    assert_false(b->blocks);
    for (int i = 0; i < 2; i++) {
        enum dtype compute = i ? DTYPE_BF16 : DTYPE_F32;
        prepared_in_turn(b, compute, SHAPE(64), host);
        prepared_in_turn(b, compute, SHAPE(4, 16), host);
        prepared_in_turn(b, compute, SHAPE(4, 4, 2, 2), host);
    }
    cuda_end(b);
}

/* Every kind of synthetic weight, also of more values than repeat, has the CPU's bits. */
static void synthetic_weights_are_made_on_the_device(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int rank;
        int64_t dims[4];
    } shapes[] = {{"a.weight", 2, {4200, 4100}},
                  {"b.weight", 2, {7, 33}},
                  {"norm.weight", 1, {77}},
                  {"b.bias", 1, {33}},
                  {"conv.weight", 4, {8, 16, 3, 3}}};
    struct backend *b = cuda_new();
    struct synthetic *s = synthetic_new("synthetic");
    struct err e = {0};
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        const struct weights_entry *t =
            synthetic_entry(s, shapes[i].name, shapes[i].rank, shapes[i].dims, &e);
        struct tensor *w[2];
        assert_non_null(t);
        uint64_t carried[3] = {emulated_counts().carried};
        for (int made = 0; made < 2; made++) {
            assert_int_equal(
                tensor_weight_shape(b, DTYPE_BF16, shapes[i].rank, shapes[i].dims, &w[made], &e),
                0);
            w[made]->formula = made ? t->formula : (struct formula){0};
            assert_int_equal(b->ops->weight_prepare(b, w[made], t->data, DTYPE_BF16, &e), 0);
            carried[made + 1] = emulated_counts().carried;
        }
        assert_int_equal(w[1]->dtype, w[0]->dtype);
        assert_memory_equal(w[1]->data, w[0]->data, b->ops->weight_bytes(w[0]));
        assert_int_equal(carried[1] - carried[0], t->bytes);
        assert_int_equal(carried[2], carried[1]);
        tensor_weight_free(w[0]);
        tensor_weight_free(w[1]);
    }
    synthetic_free(s);
    cuda_end(b);
}

/* As bench draws: of all that is made, only what the host must read. */
static void a_loader_carries_no_synthetic_weights(void **state)
{
    (void)state;
    struct backend *b = cuda_new();
    struct weights *made;
    struct err e = {0};
    assert_int_equal(weights_synthetic("synthetic:some", &made, &e), 0);
    struct weight_loader l = {.weights = made, .backend = b, .compute = DTYPE_BF16};
    uint64_t before = emulated_counts().carried;
    assert_non_null(weight(&l, SHAPE(64, 128), "a.weight"));
    assert_non_null(weight(&l, SHAPE(64), "a.bias"));
    assert_non_null(weight_table(&l, 100, 64, "table.weight"));
    assert_int_equal(emulated_counts().carried, before);
    weight_loader_free(&l);
    weights_close(made);
    cuda_end(b);
}

static void free_memory_is_what_arenas_and_weights_leave(void **state)
{
    (void)state;
    struct backend *b = cuda_new();
    uint64_t before, with, after, total;
    assert_int_equal(b->ops->memory(b, &before, &total), 0);
    struct ops *o = ops_new(b, DTYPE_F32, 1 << 20, NULL);
    assert_int_equal(b->ops->memory(b, &with, &total), 0);
    ops_free(o);
    assert_int_equal(b->ops->memory(b, &after, &total), 0);
    assert_true(before <= total && with == before - (1 << 20) && after == before);
    cuda_end(b);
}

/* ---- the host ahead of the device ---- */

static void the_host_is_one_step_ahead_of_a_slow_device(void **state)
{
    (void)state;
    struct backend *b = cuda_new();
    struct ops *o = ops_new(b, DTYPE_F32, 1 << 20, NULL);
    float x[64] = {1}, y[64];
    struct tensor *t = op_from_host(o, DTYPE_F32, SHAPE(1, 8, 8), x);
    assert_true(ops_runs_ahead(o));
    emulated_set_slow(3);
    uint64_t waits = emulated_counts().waits;
    for (int step = 0; step < 20; step++) {
        op_add_to(o, t, t);
        ops_step_end(o);
        assert_int_equal(emulated_counts().ahead, 1);
    }
    assert_int_equal(emulated_counts().waits, waits);
    assert_int_equal(op_to_host(o, t, y, sizeof y), 0);
    assert_true(y[0] == 1048576.0f); /* 2^20 */
    assert_int_equal(emulated_counts().ahead, 0);
    emulated_set_slow(0);
    ops_free(o);
    cuda_end(b);
}

static bool cancelled_when_asked_again(void *asked)
{
    return ++*(int *)asked > 1;
}

static void a_step_that_is_waited_for_can_be_cancelled(void **state)
{
    (void)state;
    struct backend *b = cuda_new();
    struct ops *o = ops_new(b, DTYPE_F32, 1 << 20, NULL);
    int asked = 0;
    emulated_set_slow(INT_MAX); /* it never gets there */
    ops_set_cancel(o, cancelled_when_asked_again, &asked);
    ops_step_end(o);
    assert_int_equal(ops_error(o, NULL), 0);
    ops_step_end(o);
    assert_int_equal(ops_error(o, NULL), -ECANCELED);
    assert_int_equal(asked, 2);
    emulated_set_slow(0);
    ops_free(o);
    cuda_end(b);
}

static void a_device_that_is_lost_ends_the_wait_for_its_step(void **state)
{
    (void)state;
    struct backend *b = cuda_new();
    for (int calls = 0; calls < 5; calls++) { /* at the record, and while it is asked */
        struct ops *o = ops_new(b, DTYPE_F32, 1 << 20, NULL);
        emulated_set_slow(INT_MAX);
        ops_step_end(o);
        emulated_lose_device(calls);
        ops_step_end(o);
        assert_int_equal(ops_error(o, NULL), BACKEND_LOST);
        emulated_lose_device(-1);
        emulated_set_slow(0);
        ops_free(o);
    }
    cuda_end(b);
}

static int32_t first_step_noted(struct backend *b, int first_bad, float bad)
{
    struct ops *o = ops_new(b, DTYPE_F32, 1 << 20, NULL);
    float x[3 * 700];
    int32_t none = INT32_MAX, noted = 0;
    struct tensor *flag = op_from_host(o, DTYPE_I32, SHAPE(1), &none);
    uint64_t waits = emulated_counts().waits;
    for (int i = 0; i < 3 * 700; i++)
        x[i] = (float)i;
    x[0] = bad; /* outside what is looked at */
    for (int step = 0; step < 6; step++) {
        x[700 + 97 * step] = step >= first_bad ? bad : 1;
        struct tensor *t = op_from_host(o, DTYPE_F32, SHAPE(3, 700), x);
        op_finite_note(o, flag, op_slice(o, t, 0, 1, 1), step);
    }
    assert_int_equal(emulated_counts().waits, waits);
    assert_int_equal(op_to_host(o, flag, &noted, sizeof noted), 0);
    ops_free(o);
    return noted;
}

static void the_first_step_with_nan_is_noted_without_a_wait(void **state)
{
    (void)state;
    struct backend *b = cuda_new();
    emulated_set_guard(true);
    assert_int_equal(first_step_noted(b, 0, NAN), 0);
    assert_int_equal(first_step_noted(b, 2, NAN), 2);
    assert_int_equal(first_step_noted(b, 5, -INFINITY), 5);
    assert_int_equal(first_step_noted(b, 6, INFINITY), INT32_MAX);
    cuda_end(b);
}

/* ---- failures ---- */

static void memory_that_is_not_there_is_an_error(void **state)
{
    (void)state;
    struct backend *b = cuda_new();
    struct err e = {0};
    struct tensor *w;
    static const float host[64];
    emulated_fail_alloc(1);
    assert_null(ops_new(b, DTYPE_F32, 1 << 20, &e));
    assert_int_equal(e.code, -ENOMEM);
    for (int n = 1; n <= 2; n++) { /* the weight's own memory, and what its bytes come through */
        emulated_fail_alloc(n);
        assert_int_equal(
            tensor_weight_new(b, DTYPE_F32, SHAPE(4, 4, 2, 2), host, DTYPE_BF16, &w, &e), -ENOMEM);
        assert_non_null(strstr(e.text, "MB are free"));
        assert_false(b->ops->lost(b));
    }
    emulated_fail_alloc(0);
    assert_int_equal(tensor_weight_new(b, DTYPE_F32, SHAPE(4, 4, 2, 2), host, DTYPE_BF16, &w, &e),
                     0);
    tensor_weight_free(w);
    cuda_end(b);
    emulated_fail_alloc(1);
    assert_int_equal(omni_cuda_backend_new(0, &b, &e), -ENOMEM);
    emulated_fail_alloc(0);
    assert_int_equal(emulated_counts().live, 0);
}

static void a_device_that_is_lost_fails_what_runs_and_says_so(void **state)
{
    (void)state;
    for (int calls = 0; calls < 12; calls++) {
        struct backend *b = cuda_new();
        struct err e = {0};
        float x[64] = {1}, y[64];
        struct ops *o = ops_new(b, DTYPE_F32, 1 << 20, &e);
        emulated_lose_device(calls);
        struct tensor *t = op_from_host(o, DTYPE_F32, SHAPE(1, 8, 8), x);
        for (int i = 0; i < 12; i++)
            t = op_rms_norm(o, t, op_from_host(o, DTYPE_F32, SHAPE(8), x), 1e-6f);
        assert_int_equal(op_to_host(o, t, y, sizeof y), BACKEND_LOST);
        assert_int_equal(ops_error(o, &e), BACKEND_LOST);
        assert_non_null(strstr(e.text, "the device was lost"));
        assert_non_null(strstr(e.text, "cuda:0"));
        assert_true(b->ops->lost(b));
        ops_free(o);
        emulated_lose_device(-1);
        assert_false(b->ops->lost(b));
        cuda_end(b);
    }
}

static void a_device_that_is_lost_gives_nothing_more(void **state)
{
    (void)state;
    struct backend *b = cuda_new(), *another;
    struct err e = {0};
    struct tensor *w;
    uint64_t left, total;
    static const float host[64];
    emulated_lose_device(0);
    assert_null(ops_new(b, DTYPE_F32, 1 << 20, &e));
    assert_int_equal(e.code, BACKEND_LOST);
    for (int compute = DTYPE_F32; compute <= DTYPE_BF16; compute++)
        assert_int_equal(
            tensor_weight_new(b, DTYPE_F32, SHAPE(4, 4, 2, 2), host, (enum dtype)compute, &w, &e),
            BACKEND_LOST);
    assert_int_equal(b->ops->memory(b, &left, &total), -EIO);
    assert_int_equal(omni_cuda_backend_new(0, &another, &e), -ENODEV);
    assert_non_null(strstr(e.text, "does not open: the device was lost"));
    assert_null(another);
    emulated_lose_device(-1);
    cuda_end(b);
}

static void an_id_outside_its_table_is_an_error_when_results_are_read(void **state)
{
    (void)state;
    static const int32_t wrong[] = {-1, 37, INT32_MAX, INT32_MIN};
    static const float table[37 * 4];
    struct backend *b = cuda_new();
    struct tensor *w;
    assert_int_equal(tensor_weight_new(b, DTYPE_F32, SHAPE(37, 4), table, DTYPE_F32, &w, NULL), 0);
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        struct ops *o = ops_new(b, DTYPE_F32, 1 << 20, NULL);
        struct err e = {0};
        float y[8];
        int32_t ids[2] = {0, wrong[i]};
        struct tensor *t = op_embedding(o, w, op_from_host(o, DTYPE_I32, SHAPE(1, 2), ids));
        assert_int_equal(op_to_host(o, t, y, sizeof y), -EINVAL);
        ops_error(o, &e);
        assert_non_null(strstr(e.text, "outside the table"));
        ops_free(o);
        o = ops_new(b, DTYPE_F32, 1 << 20, NULL); /* the next one is clean */
        ids[1] = 36;
        t = op_embedding(o, w, op_from_host(o, DTYPE_I32, SHAPE(1, 2), ids));
        assert_int_equal(op_to_host(o, t, y, sizeof y), 0);
        ops_free(o);
    }
    tensor_weight_free(w);
    cuda_end(b);
}

static void devices_that_are_not_there_are_named(void **state)
{
    (void)state;
    struct backend *b;
    struct err e = {0};
    assert_int_equal(omni_cuda_backend_new(7, &b, &e), -ENODEV);
    assert_non_null(strstr(e.text, "cuda:7"));
    assert_null(b);
    assert_int_equal(omni_cuda_device_count(), 2);
    assert_int_equal(omni_cuda_backend_new(2, &b, &e), -ENODEV);
    assert_int_equal(omni_cuda_backend_new(1, &b, &e), 0);
    cuda_end(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_equals_plain_loops_in_fp32),
        cmocka_unit_test(every_operation_is_near_plain_loops_in_bf16),
        cmocka_unit_test(results_in_bf16_are_those_in_fp32_rounded),
        cmocka_unit_test(threads_in_any_order_give_the_same_bits),
        cmocka_unit_test(the_host_never_reads_device_memory),
        cmocka_unit_test(results_move_down_over_themselves),
        cmocka_unit_test(large_weights_come_through_small_slots),
        cmocka_unit_test(a_step_waits_for_the_device_only_to_read_results),
        cmocka_unit_test(weights_are_prepared_and_released_by_turns),
        cmocka_unit_test(synthetic_weights_are_made_on_the_device),
        cmocka_unit_test(a_loader_carries_no_synthetic_weights),
        cmocka_unit_test(free_memory_is_what_arenas_and_weights_leave),
        cmocka_unit_test(the_host_is_one_step_ahead_of_a_slow_device),
        cmocka_unit_test(a_step_that_is_waited_for_can_be_cancelled),
        cmocka_unit_test(a_device_that_is_lost_ends_the_wait_for_its_step),
        cmocka_unit_test(the_first_step_with_nan_is_noted_without_a_wait),
        cmocka_unit_test(memory_that_is_not_there_is_an_error),
        cmocka_unit_test(a_device_that_is_lost_fails_what_runs_and_says_so),
        cmocka_unit_test(a_device_that_is_lost_gives_nothing_more),
        cmocka_unit_test(an_id_outside_its_table_is_an_error_when_results_are_read),
        cmocka_unit_test(devices_that_are_not_there_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
