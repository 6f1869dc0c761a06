#include "engine/bench.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "engine/cpu/alone.h"
#include "engine/cpu/cpu.h"

#define ARENA   (1024u << 20)
#define SECONDS 0.2 /* a shape, when the caller does not say */

/* What one row measures. Numbers by operation: linear m, k, n; attention tokens, heads, head size;
 * convolution side, channels in and out; the others rows, width. */
struct bench {
    struct ops *o;
    struct backend *b;
    enum dtype compute;
    double seconds;
    const int64_t *n;
    struct tensor *x, *w, *vector; /* operands */
    void *host;                    /* of w */
};

static bool values(int64_t n, enum dtype d, void **out)
{
    float *x = malloc((size_t)n * sizeof *x);
    uint32_t seed = 1;
    for (int64_t i = 0; x && i < n; i++) { /* neither zero nor subnormal */
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(int32_t)seed * 0x1p-31f;
    }
    *out = x;
    for (int64_t i = 0; x && d == DTYPE_BF16 && i < n; i++) {
        float one = x[i]; /* in place: the halves written never pass the floats to read */
        convert_span((char *)x + 2 * i, d, &one, DTYPE_F32, 1);
    }
    return x != NULL;
}

static struct tensor *activations(struct bench *t, int rank, const int64_t *dims)
{
    struct tensor *x = op_empty(t->o, DTYPE_F32, rank, dims);
    AUTO_FREE void *host = NULL;
    if (x && values(tensor_elements(x), DTYPE_F32, &host))
        t->b->ops->upload(t->o, x, host, (size_t)tensor_elements(x) * sizeof(float));
    else
        ops_fail(t->o, -ENOMEM, "not enough memory to measure");
    return x;
}

/* A weight stored in the compute type. */
static void take_weight(struct bench *t, int rank, const int64_t *dims)
{
    struct err e = {0};
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= dims[i];
    if (!values(n, t->compute, &t->host))
        err_nomem(&e);
    else
        tensor_weight_new(t->b, t->compute, rank, dims, t->host, t->compute, &t->w, &e);
    if (e.code)
        ops_fail(t->o, e.code, "%s", e.text);
}

/* ---- operations ---- */

static void linear_operands(struct bench *t)
{
    t->x = activations(t, SHAPE(1, t->n[0], t->n[1]));
    take_weight(t, SHAPE(t->n[2], t->n[1]));
}
static void linear_call(struct bench *t)
{
    op_linear(t->o, t->x, t->w, NULL, ACT_NONE);
}

static void attention_operands(struct bench *t)
{
    t->x = activations(t, SHAPE(1, t->n[0], t->n[1], t->n[2]));
}
static void attention_call(struct bench *t)
{
    op_attention(t->o, t->x, t->x, t->x, &(struct attention_args){.scale = 0.1f});
}

static void conv_operands(struct bench *t)
{
    t->x = activations(t, SHAPE(1, t->n[0], t->n[0], t->n[1]));
    take_weight(t, SHAPE(t->n[2], t->n[1], 3, 3));
}
static void conv_call(struct bench *t)
{
    op_conv2d(t->o, t->x, t->w, NULL, 1, (const int[4]){1, 1, 1, 1}, ACT_NONE);
}

static void rows_operands(struct bench *t)
{
    t->x = activations(t, SHAPE(1, t->n[0], t->n[1]));
    t->vector = activations(t, SHAPE(t->n[1]));
}
static void rms_norm_call(struct bench *t)
{
    op_rms_norm(t->o, t->x, t->vector, 1e-6f);
}
static void layer_norm_call(struct bench *t)
{
    op_layer_norm(t->o, t->x, t->vector, t->vector, 1e-6f);
}
static void glu_call(struct bench *t)
{
    op_glu(t->o, t->x, ACT_SILU);
}
static void gelu_call(struct bench *t)
{
    op_act(t->o, t->x, ACT_GELU_TANH);
}
static void add_call(struct bench *t)
{
    op_add_to(t->o, t->x, t->x);
}
static void finite_call(struct bench *t)
{
    op_all_finite(t->o, t->x);
}
static void rope_operands(struct bench *t)
{
    t->x = activations(t, SHAPE(1, t->n[0], t->n[1], t->n[2]));
    t->vector = activations(t, SHAPE(t->n[0], t->n[2] / 2));
}
static void rope_call(struct bench *t)
{
    op_rope(t->o, t->x, t->vector, t->vector, true);
}
static void group_norm_operands(struct bench *t)
{
    t->x = activations(t, SHAPE(1, t->n[0], t->n[0], t->n[1]));
}
static void group_norm_call(struct bench *t)
{
    op_group_norm(t->o, t->x, 32, NULL, NULL, 1e-6f, ACT_SILU);
}

enum bench_kind {
    LINEAR,
    ATTENTION,
    CONV,
    RMS_NORM,
    LAYER_NORM,
    GROUP_NORM,
    GLU,
    GELU,
    ADD,
    FINITE,
    ROPE
};

static const struct bench_op {
    const char *name;
    enum op_kind kind;
    void (*operands)(struct bench *t);
    void (*call)(struct bench *t);
} operations[] = {
    [LINEAR] = {"linear", OP_LINEAR, linear_operands, linear_call},
    [ATTENTION] = {"attention", OP_ATTENTION, attention_operands, attention_call},
    [CONV] = {"conv2d 3x3", OP_CONV, conv_operands, conv_call},
    [RMS_NORM] = {"rms_norm", OP_NORM, rows_operands, rms_norm_call},
    [LAYER_NORM] = {"layer_norm", OP_NORM, rows_operands, layer_norm_call},
    [GROUP_NORM] = {"group_norm silu", OP_NORM, group_norm_operands, group_norm_call},
    [GLU] = {"glu silu", OP_POINTWISE, rows_operands, glu_call},
    [GELU] = {"gelu_tanh", OP_POINTWISE, rows_operands, gelu_call},
    [ADD] = {"add_to", OP_POINTWISE, rows_operands, add_call},
    [FINITE] = {"all_finite", OP_POINTWISE, rows_operands, finite_call},
    [ROPE] = {"rope", OP_POINTWISE, rope_operands, rope_call},
};

/* The embedded model (width 256, 104 to 208 tokens) and models of FLUX.2 klein's size (width 3072,
 * 24 heads of 128), with their autoencoders. */
static const struct bench_row {
    enum bench_kind op;
    int64_t n[3];
} rows[] = {
    {LINEAR, {104, 256, 256}},    {LINEAR, {104, 256, 768}},    {LINEAR, {104, 256, 2304}},
    {LINEAR, {104, 768, 256}},    {LINEAR, {208, 256, 2304}},   {LINEAR, {1, 256, 1536}},
    {LINEAR, {512, 3072, 3072}},  {LINEAR, {1536, 3072, 3072}}, {LINEAR, {1536, 3072, 27648}},
    {LINEAR, {1536, 9216, 3072}}, {ATTENTION, {104, 4, 64}},    {ATTENTION, {208, 4, 64}},
    {ATTENTION, {800, 4, 64}},    {ATTENTION, {1536, 24, 128}}, {ATTENTION, {4608, 4, 128}},
    {ATTENTION, {4096, 8, 40}},   {ATTENTION, {1024, 8, 80}},   {ATTENTION, {256, 8, 160}},
    {ATTENTION, {4096, 1, 512}},  {CONV, {64, 32, 32}},         {CONV, {256, 32, 32}},
    {CONV, {128, 512, 512}},      {CONV, {512, 128, 128}},      {RMS_NORM, {416, 64, 0}},
    {RMS_NORM, {4608, 3072, 0}},  {LAYER_NORM, {104, 256, 0}},  {LAYER_NORM, {4608, 3072, 0}},
    {GROUP_NORM, {256, 128, 0}},  {GLU, {104, 1536, 0}},        {GLU, {1536, 18432, 0}},
    {GELU, {1536, 12288, 0}},     {ADD, {4608, 3072, 0}},       {FINITE, {4608, 3072, 0}},
    {ROPE, {104, 4, 64}},         {ROPE, {4608, 24, 128}},
};

static bool is_product(const struct bench_row *r)
{
    return r->op == LINEAR || r->op == ATTENTION || r->op == CONV;
}

/* ---- measuring ---- */

/* Seconds of the fastest of the calls that fit into t->seconds, at least three. */
static double best_of(struct bench *t, void (*call)(void *ctx), void *ctx)
{
    double best = INFINITY, end = clock_seconds() + t->seconds;
    for (int i = 0; i < 3 || clock_seconds() < end; i++) {
        double start = clock_seconds();
        call(ctx);
        double seconds = clock_seconds() - start;
        best = seconds < best ? seconds : best;
        if (ops_error(t->o, NULL))
            break;
    }
    return best;
}

struct ours {
    struct bench *t;
    const struct bench_op *op;
};

static void call_ours(void *ctx)
{
    struct ours *c = ctx;
    ops_mark mark = ops_push(c->t->o);
    c->op->call(c->t);
    ops_pop(c->t->o, mark);
}

/* What oneDNN alone needs for the shape; 0 where it is not compared. */
static double alone_seconds(struct bench *t, enum bench_kind op)
{
    const int64_t *n = t->n;
    struct cpu *c = cpu_of(t->b);
    struct err e = {0};
    double seconds = 0;
    struct alone_shape s = {.kind = ALONE_LINEAR, .m = n[0], .k = n[1], .n = n[2]};
    if (op == CONV)
        s = (struct alone_shape){ALONE_CONV, .batch = 1, .h = n[0],  .w = n[0], .ho = n[0],
                                 .wo = n[0], .ci = n[1], .co = n[2], .kh = 3,   .kw = 3};
    else if (op == ATTENTION)
        s = (struct alone_shape){ALONE_ATTENTION, .heads = n[1], .queries = n[0], .keys = n[0],
                                 .size = n[2]};
    else if (op != LINEAR)
        return 0;
    if (alone_measure(&c->dnn, c->threads, t->compute, &s, t->seconds, &seconds, &e))
        ops_fail(t->o, e.code, "%s", e.text);
    return seconds;
}

static void shape_name(const struct bench_row *r, char *out, size_t size)
{
    const int64_t *n = r->n;
    if (r->op == LINEAR)
        snprintf(out, size, "%" PRId64 "x%" PRId64 " · %" PRId64 "x%" PRId64, n[0], n[1], n[1],
                 n[2]);
    else if (r->op == CONV)
        snprintf(out, size, "%" PRId64 "x%" PRId64 "x%" PRId64 " → %" PRId64, n[0], n[0], n[1],
                 n[2]);
    else if (n[2])
        snprintf(out, size, "%" PRId64 "x%" PRId64 "x%" PRId64, n[0], n[1], n[2]);
    else
        snprintf(out, size, "%" PRId64 "x%" PRId64, n[0], n[1]);
}

static int measure(struct bench *t, const struct bench_row *r, struct omni_bench_row *out,
                   struct err *e)
{
    t->o = ops_new(t->b, t->compute, ARENA, e);
    if (!t->o)
        return e ? e->code : -ENOMEM;
    t->n = r->n;
    const struct bench_op *op = &operations[r->op];
    op->operands(t);
    struct ours ours = {t, op};
    call_ours(&ours); /* primitives are made and pages touched here */
    struct op_stats before = ops_stats(t->o)[op->kind];
    call_ours(&ours);
    struct op_stats after = ops_stats(t->o)[op->kind];
    out->seconds = best_of(t, call_ours, &ours);
    out->gbytes = (double)(after.bytes - before.bytes) * 1e-9 / out->seconds;
    out->gflops = is_product(r) ? (double)(after.flops - before.flops) * 1e-9 / out->seconds : 0;
    out->of_library = alone_seconds(t, r->op) / out->seconds;
    int rc = ops_error(t->o, e);
    tensor_weight_free(t->w);
    free(t->host);
    ops_free(t->o);
    t->w = NULL;
    t->host = NULL;
    return rc;
}

int omni_bench_ops(struct backend *b, double seconds,
                   bool (*row)(void *ctx, const struct omni_bench_row *r), void *ctx, struct err *e)
{
    struct bench t = {.b = b, .seconds = seconds > 0 ? seconds : SECONDS};
    bool halves = cpu_of(b)->has_bf16;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        for (int bf16 = 0; bf16 <= (is_product(&rows[i]) && halves); bf16++) {
            char shape[96];
            t.compute = bf16 ? DTYPE_BF16 : DTYPE_F32;
            struct omni_bench_row out = {
                .op = operations[rows[i].op].name, .shape = shape, .compute = t.compute};
            shape_name(&rows[i], shape, sizeof shape);
            int rc = measure(&t, &rows[i], &out, e);
            if (rc)
                return rc;
            if (!row(ctx, &out))
                return 0;
        }
    }
    return 0;
}

int omni_bench_library(struct backend *b, enum dtype compute, const char *kind, const char *shape,
                       double *seconds, struct err *e)
{
    struct alone_shape s;
    struct cpu *c = cpu_of(b);
    *seconds = 0;
    if (!alone_read(kind, shape, &s))
        return err_set(e, -EINVAL, "%s %s is no product that oneDNN could be asked for", kind,
                       shape);
    return alone_measure(&c->dnn, c->threads, compute, &s, SECONDS, seconds, e);
}
