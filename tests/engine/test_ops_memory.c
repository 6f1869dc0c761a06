/* The operations layer itself: arena, scopes, plans, sticky errors, cancellation, statistics. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "engine/backend.h"

struct bench {
    struct backend *b;
    struct ops *o;
};

static int bench_open(void **state)
{
    static struct bench bench;
    struct err e = {0};
    assert_int_equal(cpu_backend_new(2, &bench.b, &e), 0);
    bench.o = ops_new(bench.b, DTYPE_F32, 8 << 20, &e);
    assert_non_null(bench.o);
    *state = &bench;
    return 0;
}

static int bench_close(void **state)
{
    struct bench *t = *state;
    ops_free(t->o);
    backend_free(t->b);
    return 0;
}

static void assert_failed(const struct ops *o, int code, const char *part)
{
    struct err e = {0};
    assert_int_equal(ops_error(o, &e), code);
    if (!strstr(e.text, part))
        fail_msg("\"%s\" does not say \"%s\"", e.text, part);
}

static struct tensor *ramp(struct ops *o, int64_t n)
{
    float x[64];
    for (int i = 0; i < 64; i++)
        x[i] = (float)i;
    return op_from_host(o, DTYPE_F32, SHAPE(n), x);
}

/* ---- scopes ---- */

static void a_popped_scope_gives_its_memory_back(void **state)
{
    struct ops *o = ((struct bench *)*state)->o;
    op_zeros(o, DTYPE_F32, SHAPE(100));
    size_t before = ops_peak(o);
    for (int i = 0; i < 1000; i++) {
        ops_mark mark = ops_push(o);
        for (int k = 0; k < 300; k++) /* more handles than one block holds */
            op_reshape(o, op_empty(o, DTYPE_F32, SHAPE(8)), SHAPE(2, 4));
        ops_pop(o, mark);
    }
    assert_int_equal(ops_error(o, NULL), 0);
    assert_int_equal(ops_peak(o), before + 300 * 64);
}

static void a_kept_tensor_moves_to_the_start_of_its_scope(void **state)
{
    struct ops *o = ((struct bench *)*state)->o;
    float got[8], want[8] = {20, 21, 22, 23, 36, 37, 38, 39};
    ops_mark mark = ops_push(o);
    op_zeros(o, DTYPE_F32, SHAPE(1000));
    struct tensor *grid = op_reshape(o, ramp(o, 64), SHAPE(4, 16));
    struct tensor *view = op_slice(o, op_slice(o, grid, 1, 4, 4), 0, 1, 2);
    struct tensor *kept = ops_pop_keep(o, mark, view);
    struct tensor *next = op_empty(o, DTYPE_F32, SHAPE(1));
    assert_int_equal((char *)next->data - (char *)kept->data, 64);
    assert_true(tensor_contiguous(kept));
    assert_int_equal(op_to_host(o, kept, got, sizeof got), 0);
    assert_memory_equal(got, want, sizeof want);
}

static void a_kept_tensor_may_be_large_and_overlap_where_it_moves(void **state)
{
    struct ops *o = ((struct bench *)*state)->o;
    enum { N = 100000 };
    AUTO_FREE float *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);
    for (int i = 0; i < N; i++)
        x[i] = (float)i;
    ops_mark mark = ops_push(o);
    op_empty(o, DTYPE_F32, SHAPE(16));
    struct tensor *kept = ops_pop_keep(o, mark, op_from_host(o, DTYPE_F32, SHAPE(N), x));
    assert_int_equal(op_to_host(o, kept, y, N * sizeof *y), 0);
    assert_memory_equal(x, y, N * sizeof *x);
}

static void keeping_what_is_older_than_the_scope_keeps_it_in_place(void **state)
{
    struct ops *o = ((struct bench *)*state)->o;
    struct tensor *old = ramp(o, 64);
    ops_mark mark = ops_push(o);
    op_empty(o, DTYPE_F32, SHAPE(100));
    struct tensor *kept = ops_pop_keep(o, mark, op_reshape(o, old, SHAPE(8, 8)));
    assert_ptr_equal(kept->data, old->data);
    assert_int_equal(tensor_dim(kept, 0), 8);
    mark = ops_push(o);
    kept = ops_pop_keep(o, mark, op_slice(o, kept, 1, 2, 3)); /* strided: becomes dense */
    assert_true(tensor_contiguous(kept));
    float got[24];
    assert_int_equal(op_to_host(o, kept, got, sizeof got), 0);
    assert_true(got[3] == 10.0f);
}

static void a_scope_popped_twice_is_an_error(void **state)
{
    struct ops *o = ((struct bench *)*state)->o;
    ops_mark mark = ops_push(o);
    ops_pop(o, mark);
    assert_int_equal(ops_error(o, NULL), 0);
    ops_pop(o, mark);
    assert_failed(o, -EINVAL, "popped twice");
}

/* ---- plans ---- */

/* Scopes, views, every product in several forms, scratch of kernels. */
static void work(struct ops *o, struct tensor *const w[4])
{
    static const int pad[4] = {1, 1, 1, 1};
    static const float zeros[2 * 90 * 96];
    struct tensor *x = op_from_host(o, DTYPE_F32, SHAPE(2, 90, 96), zeros);
    for (int i = 0; i < 2; i++) {
        ops_mark layer = ops_push(o);
        struct tensor *h = op_layer_norm(o, x, NULL, NULL, 1e-6f);
        struct tensor *wide = op_linear(o, h, w[0], w[2], ACT_SILU);
        struct tensor *q = op_reshape(o, op_slice(o, wide, 2, 8, 96), SHAPE(2, 90, 3, 32));
        struct tensor *a = op_attention(o, q, q, q, &(struct attention_args){.scale = 0.2f});
        struct tensor *row = op_slice(o, op_reshape(o, h, SHAPE(180, 96)), 0, 3, 11);
        op_linear(o, row, w[0], NULL, ACT_NONE);
        op_linear(o, op_slice(o, wide, 2, 1, 96), w[1], NULL, ACT_NONE);
        op_add_to(o, x, op_reshape(o, a, SHAPE(2, 90, 96)));
        x = ops_pop_keep(o, layer, op_affine(o, x, 2, 0));
    }
    struct tensor *picture = op_reshape(o, x, SHAPE(2, 9, 10, 96));
    picture = op_conv2d(o, op_slice(o, picture, 3, 0, 32), w[3], NULL, 1, pad, ACT_RELU);
    picture = op_group_norm(o, picture, 4, NULL, NULL, 1e-6f, ACT_SILU);
    op_upsample_nearest(o, picture, 2);
    op_permute(o, picture, (int[]){0, 3, 1, 2});
    float *host = malloc(sizeof zeros);
    op_to_host(o, op_slice(o, op_concat(o, (const struct tensor *const[]){x, x}, 2, 2), 2, 3, 96),
               host, sizeof zeros);
    free(host);
}

static void check_plan(struct backend *b, enum dtype stored, enum dtype compute, bool shapes_only)
{
    static const int64_t dims[4][4] = {{200, 96}, {50000, 96}, {200}, {48, 32, 3, 3}};
    static const int ranks[4] = {2, 2, 1, 4};
    struct tensor *w[4], *planned[4];
    struct err e = {0};
    AUTO_FREE void *host = calloc(50000 * 96, sizeof(float));
    for (int i = 0; i < 4; i++) {
        assert_int_equal(tensor_weight_new(b, stored, ranks[i], dims[i], host, compute, &w[i], &e),
                         0);
        assert_int_equal(
            tensor_weight_new(b, stored, ranks[i], dims[i], NULL, compute, &planned[i], &e), 0);
        assert_int_equal(b->ops->weight_bytes(w[i]), b->ops->weight_bytes(planned[i]));
    }
    struct ops *plan = ops_new_plan(b, compute, &e);
    work(plan, shapes_only ? planned : w);
    assert_int_equal(ops_error(plan, &e), 0);
    struct ops *run = ops_new(b, compute, ops_peak(plan), &e); /* not a byte more */
    work(run, w);
    if (ops_error(run, &e))
        fail_msg("%s", e.text);
    assert_int_equal(ops_peak(plan), ops_peak(run));
    const struct op_stats *p = ops_stats(plan), *r = ops_stats(run);
    for (int k = 0; k < OP_KINDS; k++) {
        assert_int_equal(p[k].calls, r[k].calls);
        assert_int_equal(p[k].flops, r[k].flops);
        assert_int_equal(p[k].bytes, r[k].bytes);
        assert_true(p[k].seconds == 0 && r[k].seconds > 0);
    }
    ops_free(plan);
    ops_free(run);
    for (int i = 0; i < 4; i++) {
        tensor_weight_free(w[i]);
        tensor_weight_free(planned[i]);
    }
}

static void a_plan_counts_exactly_what_a_run_uses(void **state)
{
    static const enum dtype stored[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    struct bench *t = *state;
    for (size_t i = 0; i < ARRAY_LEN(stored); i++)
        for (int compute = DTYPE_F32; compute <= DTYPE_BF16; compute++) {
            check_plan(t->b, stored[i], (enum dtype)compute, false);
            check_plan(t->b, stored[i], (enum dtype)compute, true);
        }
}

static void a_plan_of_more_than_there_is_memory_costs_nothing(void **state)
{
    struct bench *t = *state;
    struct ops *plan = ops_new_plan(t->b, DTYPE_F32, NULL);
    struct tensor *x = op_zeros(plan, DTYPE_F32, SHAPE(1, INT64_C(1) << 40, 64));
    op_rms_norm(plan, x, op_zeros(plan, DTYPE_F32, SHAPE(64)), 1e-6f);
    assert_int_equal(ops_error(plan, NULL), 0);
    assert_true(ops_peak(plan) >= (size_t)1 << 49);
    ops_free(plan);
}

/* ---- errors ---- */

static void a_full_arena_is_an_error_with_the_bytes(void **state)
{
    struct ops *o = ((struct bench *)*state)->o;
    assert_null(op_zeros(o, DTYPE_F32, SHAPE(3 << 20)));
    assert_failed(o, -ENOMEM, "12582912 more are needed");
}

static void a_kernel_without_room_for_scratch_is_an_error(void **state)
{
    struct bench *t = *state;
    struct ops *small = ops_new(t->b, DTYPE_F32, 100000, NULL);
    struct tensor *x = op_zeros(small, DTYPE_F32, SHAPE(1, 8, 2, 64));
    assert_non_null(x);
    assert_null(op_attention(small, x, x, x, &(struct attention_args){.scale = 1}));
    assert_failed(small, -ENOMEM, "arena");
    ops_free(small);
}

static void the_first_error_stays_and_nothing_runs_after_it(void **state)
{
    struct ops *o = ((struct bench *)*state)->o;
    struct tensor *x = ramp(o, 8);
    float before[8], after[8];
    assert_int_equal(op_to_host(o, x, before, sizeof before), 0);
    ops_fail(o, -EDOM, "step %d went wrong", 3);
    ops_fail(o, -EINVAL, "something else");
    op_add_to(o, x, x);
    assert_null(op_affine(o, x, 2, 0));
    assert_null(op_concat(o, NULL, 0, 0));
    assert_null(ops_pop_keep(o, ops_push(o), x));
    assert_int_equal(op_to_host(o, x, after, sizeof after), -EDOM);
    assert_true(op_all_finite(o, x));
    memcpy(after, x->data, sizeof after);
    assert_memory_equal(before, after, sizeof before);
    assert_failed(o, -EDOM, "step 3 went wrong");
}

/* Each wrong call on a fresh context: a sentence, never a crash. */
static struct tensor *huge(struct ops *o)
{
    return op_zeros(o, DTYPE_F32, SHAPE(INT64_MAX / 2, 3));
}
static struct tensor *overflow(struct ops *o)
{
    return op_zeros(o, DTYPE_F32, SHAPE(INT64_C(1) << 32, INT64_C(1) << 32));
}
static struct tensor *zero(struct ops *o)
{
    return op_zeros(o, DTYPE_F32, SHAPE(3, 0));
}
static struct tensor *negative(struct ops *o)
{
    return op_empty(o, DTYPE_U8, SHAPE(-3, -3));
}
static struct tensor *rankless(struct ops *o)
{
    return op_zeros(o, DTYPE_F32, 0, (int64_t[]){1});
}
static struct tensor *rank_six(struct ops *o)
{
    return op_zeros(o, DTYPE_F32, SHAPE(1, 1, 1, 1, 1, 1));
}
static struct tensor *no_dtype(struct ops *o)
{
    return op_zeros(o, (enum dtype)77, SHAPE(3));
}
static struct tensor *null_operand(struct ops *o)
{
    return op_add(o, ramp(o, 4), NULL);
}
static struct tensor *linear_width(struct ops *o)
{
    return op_linear(o, ramp(o, 6), op_reshape(o, ramp(o, 64), SHAPE(8, 8)), NULL, ACT_NONE);
}
static struct tensor *linear_bias(struct ops *o)
{
    return op_linear(o, ramp(o, 8), op_reshape(o, ramp(o, 64), SHAPE(8, 8)), ramp(o, 7), ACT_NONE);
}
static struct tensor *linear_act(struct ops *o)
{
    return op_linear(o, ramp(o, 8), op_reshape(o, ramp(o, 64), SHAPE(8, 8)), NULL,
                     (enum activation)99);
}
static struct tensor *conv_channels(struct ops *o)
{
    static const int pad[4];
    return op_conv2d(o, op_zeros(o, DTYPE_F32, SHAPE(1, 4, 4, 3)),
                     op_zeros(o, DTYPE_F32, SHAPE(2, 4, 1, 1)), NULL, 1, pad, ACT_NONE);
}
static struct tensor *conv_small(struct ops *o)
{
    static const int pad[4] = {0, 1, 0, 0};
    return op_conv2d(o, op_zeros(o, DTYPE_F32, SHAPE(1, 1, 1, 3)),
                     op_zeros(o, DTYPE_F32, SHAPE(2, 3, 3, 3)), NULL, 1, pad, ACT_NONE);
}
static struct tensor *conv_stride(struct ops *o)
{
    static const int pad[4] = {0, 0, -1, 0};
    return op_conv2d(o, op_zeros(o, DTYPE_F32, SHAPE(1, 4, 4, 3)),
                     op_zeros(o, DTYPE_F32, SHAPE(2, 3, 1, 1)), NULL, 0, pad, ACT_NONE);
}
static struct tensor *attention_heads(struct ops *o)
{
    struct tensor *q = op_zeros(o, DTYPE_F32, SHAPE(1, 2, 3, 4));
    struct tensor *k = op_zeros(o, DTYPE_F32, SHAPE(1, 2, 2, 4));
    return op_attention(o, q, k, k, &(struct attention_args){.scale = 1});
}
static struct tensor *attention_mask(struct ops *o)
{
    struct tensor *q = op_zeros(o, DTYPE_F32, SHAPE(1, 2, 3, 4));
    struct attention_args args = {.scale = 1, .key_mask = op_zeros(o, DTYPE_I32, SHAPE(1, 3))};
    return op_attention(o, q, q, q, &args);
}
static struct tensor *norm_width(struct ops *o)
{
    return op_rms_norm(o, ramp(o, 8), ramp(o, 7), 1e-6f);
}
static struct tensor *norm_rank(struct ops *o)
{
    return op_modulated_norm(o, ramp(o, 8), ramp(o, 8), ramp(o, 8), 1e-6f);
}
static struct tensor *groups(struct ops *o)
{
    return op_group_norm(o, op_zeros(o, DTYPE_F32, SHAPE(1, 2, 2, 6)), 4, NULL, NULL, 1e-6f,
                         ACT_NONE);
}
static struct tensor *odd_glu(struct ops *o)
{
    return op_glu(o, ramp(o, 7), ACT_SILU);
}
static struct tensor *broadcast(struct ops *o)
{
    return op_add(o, op_reshape(o, ramp(o, 8), SHAPE(4, 2)),
                  op_reshape(o, ramp(o, 4), SHAPE(4, 1)));
}
static struct tensor *slice_past(struct ops *o)
{
    return op_slice(o, ramp(o, 8), 0, INT64_MAX - 1, 4);
}
static struct tensor *slice_axis(struct ops *o)
{
    return op_slice(o, ramp(o, 8), -2, 0, 1);
}
static struct tensor *reshape_count(struct ops *o)
{
    return op_reshape(o, ramp(o, 8), SHAPE(3, 3));
}
static struct tensor *reshape_gaps(struct ops *o)
{
    struct tensor *x = op_reshape(o, ramp(o, 64), SHAPE(8, 8));
    return op_reshape(o, op_slice(o, x, 1, 0, 4), SHAPE(32));
}
static struct tensor *permute_twice(struct ops *o)
{
    return op_permute(o, op_reshape(o, ramp(o, 8), SHAPE(2, 4)), (int[]){1, 1});
}
static struct tensor *concat_sides(struct ops *o)
{
    struct tensor *a = op_reshape(o, ramp(o, 8), SHAPE(2, 4));
    struct tensor *b = op_reshape(o, ramp(o, 8), SHAPE(4, 2));
    return op_concat(o, (const struct tensor *const[]){a, b}, 2, 0);
}
static struct tensor *concat_ranks(struct ops *o)
{
    struct tensor *a = op_reshape(o, ramp(o, 8), SHAPE(2, 4));
    return op_concat(o, (const struct tensor *const[]){a, ramp(o, 8)}, 2, 1);
}
static struct tensor *cast_ids(struct ops *o)
{
    return op_cast(o, ramp(o, 8), DTYPE_I32);
}
static struct tensor *unknown_id(struct ops *o)
{
    static const int32_t ids[2] = {0, 5};
    return op_embedding(o, op_reshape(o, ramp(o, 10), SHAPE(5, 2)),
                        op_from_host(o, DTYPE_I32, SHAPE(1, 2), ids));
}
static struct tensor *rope_table(struct ops *o)
{
    struct tensor *x = op_zeros(o, DTYPE_F32, SHAPE(1, 3, 2, 8));
    struct tensor *table = op_zeros(o, DTYPE_F32, SHAPE(3, 8));
    return op_rope(o, x, table, table, true);
}
static struct tensor *upsample_factor(struct ops *o)
{
    return op_upsample_nearest(o, op_zeros(o, DTYPE_F32, SHAPE(1, 2, 2, 2)), 0);
}
static struct tensor *timestep_odd(struct ops *o)
{
    return op_timestep_embedding(o, ramp(o, 2), 7, true, 0);
}
static struct tensor *clamp_turned(struct ops *o)
{
    return op_clamp(o, ramp(o, 2), 1, 0);
}

static void wrong_shapes_are_sentences_not_crashes(void **state)
{
    static const struct {
        struct tensor *(*call)(struct ops *);
        int code;
        const char *part;
    } cases[] = {
        {huge, -EINVAL, "no tensor"},
        {overflow, -EINVAL, "[4294967296, 4294967296] f32"},
        {zero, -EINVAL, "[3, 0] f32 is no tensor"},
        {negative, -EINVAL, "no tensor"},
        {rankless, -EINVAL, "no tensor"},
        {rank_six, -EINVAL, "1 to 5 dimensions"},
        {no_dtype, -EINVAL, "no tensor"},
        {null_operand, -EINVAL, "operand 2 is missing"},
        {linear_width, -EINVAL, "x is [6] f32, but w is [8, 8] f32"},
        {linear_bias, -EINVAL, "bias is [7] f32, expected [8] f32"},
        {linear_act, -EINVAL, "activation 99"},
        {conv_channels, -EINVAL, "input channels"},
        {conv_small, -EINVAL, "3x3 filter does not fit"},
        {conv_stride, -EINVAL, "stride 0"},
        {attention_heads, -EINVAL, "heads"},
        {attention_mask, -EINVAL, "expected [1, 2] i32"},
        {norm_width, -EINVAL, "expected [8] f32"},
        {norm_rank, -EINVAL, "3 dimensions"},
        {groups, -EINVAL, "4 groups"},
        {odd_glu, -EINVAL, "not even"},
        {broadcast, -EINVAL, "does not broadcast"},
        {slice_past, -EINVAL, "no 4 entries"},
        {slice_axis, -EINVAL, "axis -2"},
        {reshape_count, -EINVAL, "elements of [3, 3] f32"},
        {reshape_gaps, -EINVAL, "gaps"},
        {permute_twice, -EINVAL, "named twice"},
        {concat_sides, -EINVAL, "same shape"},
        {concat_ranks, -EINVAL, "same shape"},
        {cast_ids, -EINVAL, "only float dtypes"},
        {unknown_id, -EINVAL, "id 5 is outside"},
        {rope_table, -EINVAL, "expected [3, 4] f32"},
        {upsample_factor, -EINVAL, "factor 0"},
        {timestep_odd, -EINVAL, "even dim"},
        {clamp_turned, -EINVAL, "is not below"},
    };
    struct bench *t = *state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct ops *o = ops_new(t->b, DTYPE_F32, 1 << 20, NULL);
        assert_null(cases[i].call(o));
        assert_failed(o, cases[i].code, cases[i].part);
        ops_free(o);
    }
}

static void the_cpu_keeps_its_results_in_fp32(void **state)
{
    struct bench *t = *state;
    struct err e = {0};
    struct ops *o = ops_new(t->b, DTYPE_BF16, 1 << 20, &e);
    assert_int_equal(ops_set_results(o, DTYPE_BF16), DTYPE_F32);
    assert_int_equal(ops_results(o), DTYPE_F32);
    struct tensor *x = op_act(o, ramp(o, 8), ACT_SILU);
    assert_int_equal(tensor_dtype(x), DTYPE_F32);
    assert_null(op_act(o, op_cast(o, x, DTYPE_BF16), ACT_SILU));
    assert_failed(o, -EINVAL, "act: x is [8] bf16, f32 is needed");
    ops_free(o);
}

static void weights_of_wrong_shapes_are_refused(void **state)
{
    struct bench *t = *state;
    struct tensor *w;
    struct err e = {0};
    static const float x[4];
    assert_int_equal(tensor_weight_new(t->b, DTYPE_F32, SHAPE(INT64_MAX, 2), x, DTYPE_F32, &w, &e),
                     -EINVAL);
    assert_int_equal(tensor_weight_new(t->b, DTYPE_F32, SHAPE(0), x, DTYPE_F32, &w, &e), -EINVAL);
    assert_int_equal(tensor_weight_new(t->b, DTYPE_I32, SHAPE(2), x, DTYPE_F32, &w, &e), -EINVAL);
    assert_null(w);
}

static void a_context_that_cannot_be_made_says_why(void **state)
{
    struct bench *t = *state;
    struct err e = {0};
    assert_null(ops_new(t->b, DTYPE_F32, (size_t)1 << 60, &e));
    assert_int_equal(e.code, -ENOMEM);
    assert_non_null(strstr(e.text, "1152921504606846976"));
    assert_null(ops_new(t->b, DTYPE_I32, 100, &e));
    assert_int_equal(e.code, -EINVAL);
}

/* ---- cancellation, tracing, threads ---- */

static bool count_down(void *ctx)
{
    int *left = ctx;
    return --*left < 0;
}

static void cancelling_stops_between_and_inside_operations(void **state)
{
    struct bench *t = *state;
    struct ops *o = ops_new(t->b, DTYPE_F32, 256u << 20, NULL);
    struct tensor *x = op_zeros(o, DTYPE_F32, SHAPE(1, 8192, 8, 32));
    int left = 3;
    ops_set_cancel(o, count_down, &left);
    assert_null(op_attention(o, x, x, x, &(struct attention_args){.scale = 1}));
    assert_failed(o, -ECANCELED, "cancelled");
    assert_null(op_affine(o, x, 1, 0));
    assert_true(left < 0);
    ops_free(o);
}

struct seen {
    int calls;
    char shape[64];
    uint64_t flops;
};

static void note(void *ctx, enum op_kind k, const char *shape, uint64_t flops, double seconds)
{
    struct seen *s = ctx;
    assert_int_equal(k, OP_LINEAR);
    assert_true(seconds >= 0);
    s->calls++;
    s->flops = flops;
    strncpy(s->shape, shape, sizeof s->shape - 1);
}

static void products_are_traced_with_shape_and_flops(void **state)
{
    struct ops *o = ((struct bench *)*state)->o;
    struct seen seen = {0};
    struct tensor *x = op_zeros(o, DTYPE_F32, SHAPE(2, 3, 8)),
                  *w = op_zeros(o, DTYPE_F32, SHAPE(4, 8));
    ops_set_trace(o, note, &seen);
    op_linear(o, x, w, NULL, ACT_NONE);
    op_affine(o, x, 1, 0);
    ops_set_trace(o, NULL, NULL);
    op_linear(o, x, w, NULL, ACT_NONE);
    assert_int_equal(seen.calls, 1);
    assert_int_equal(seen.flops, 2 * 6 * 8 * 4);
    assert_string_equal(seen.shape, "6x8 · 8x4");
    assert_int_equal(ops_stats(o)[OP_LINEAR].calls, 2);
}

static void thread_counts_come_from_the_environment_and_are_checked(void **state)
{
    struct backend *b;
    struct err e = {0};
    (void)state;
    setenv("OMNIFS_THREADS", "many", 1);
    assert_int_equal(cpu_backend_new(0, &b, &e), -EINVAL);
    assert_non_null(strstr(e.text, "many"));
    assert_int_equal(cpu_backend_new(1, &b, &e), 0); /* asked for: the variable is not read */
    backend_free(b);
    setenv("OMNIFS_THREADS", "1", 1);
    assert_int_equal(cpu_backend_new(0, &b, &e), 0);
    backend_free(b);
    unsetenv("OMNIFS_THREADS");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, bench_open, bench_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_popped_scope_gives_its_memory_back),
        TEST(a_kept_tensor_moves_to_the_start_of_its_scope),
        TEST(a_kept_tensor_may_be_large_and_overlap_where_it_moves),
        TEST(keeping_what_is_older_than_the_scope_keeps_it_in_place),
        TEST(a_scope_popped_twice_is_an_error),
        TEST(a_plan_counts_exactly_what_a_run_uses),
        TEST(a_plan_of_more_than_there_is_memory_costs_nothing),
        TEST(a_full_arena_is_an_error_with_the_bytes),
        TEST(a_kernel_without_room_for_scratch_is_an_error),
        TEST(the_first_error_stays_and_nothing_runs_after_it),
        TEST(wrong_shapes_are_sentences_not_crashes),
        TEST(the_cpu_keeps_its_results_in_fp32),
        TEST(weights_of_wrong_shapes_are_refused),
        TEST(a_context_that_cannot_be_made_says_why),
        TEST(cancelling_stops_between_and_inside_operations),
        TEST(products_are_traced_with_shape_and_flops),
        TEST(thread_counts_come_from_the_environment_and_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
