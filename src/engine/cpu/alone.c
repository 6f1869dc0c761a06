#include "engine/cpu/alone.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "engine/cpu/parallel.h"
#include "engine/cpu/simd.h"

#define STEPS    3
#define ARGS     4
#define MEMORIES 12

struct step {
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t args[ARGS];
    int count;
};

struct alone {
    struct dnn *d;
    dnnl_data_type_t type;
    dnnl_status_t status; /* sticky */
    struct step steps[STEPS];
    int step_count;
    dnnl_memory_t memories[MEMORIES];
    int memory_count;
};

/* ---- shapes ---- */

bool alone_read(const char *kind, const char *text, struct alone_shape *s)
{
    int64_t same, tokens, heads;
    *s = (struct alone_shape){0};
    if (strcmp(kind, "linear") == 0) {
        s->kind = ALONE_LINEAR;
        return sscanf(text, "%" SCNd64 "x%" SCNd64 " · %" SCNd64 "x%" SCNd64, &s->m, &s->k, &same,
                      &s->n) == 4;
    }
    if (strcmp(kind, "conv") == 0) {
        s->kind = ALONE_CONV;
        return sscanf(text,
                      "%" SCNd64 "x%" SCNd64 "x%" SCNd64 "x%" SCNd64 " · %" SCNd64 "x%" SCNd64
                      "x%" SCNd64 "x%" SCNd64 " → %" SCNd64 "x%" SCNd64,
                      &s->batch, &s->h, &s->w, &same, &s->co, &s->ci, &s->kh, &s->kw, &s->ho,
                      &s->wo) == 10;
    }
    s->kind = ALONE_ATTENTION;
    if (strcmp(kind, "attention") != 0 ||
        sscanf(text, "%" SCNd64 "x%" SCNd64 "x%" SCNd64 "x%" SCNd64 " · %" SCNd64, &same, &tokens,
               &heads, &s->size, &s->keys) != 5)
        return false;
    s->heads = same * heads;
    s->queries = tokens;
    return true;
}

/* Stride and padding of one side that lead from `in` to `out`: the smallest stride that does. */
static void fit_side(int64_t in, int64_t out, int64_t kernel, int64_t *stride, int64_t *before,
                     int64_t *after)
{
    int64_t room;
    *stride = 0;
    do
        room = (out - 1) * ++*stride + kernel - in;
    while (room < 0 && out > 1);
    room = room < 0 ? 0 : room;
    *before = room / 2;
    *after = room - *before;
}

/* ---- parts ---- */

static void keep(struct alone *a, dnnl_status_t s)
{
    a->status = a->status == dnnl_success ? s : a->status;
}

/* Numbers that are neither zero nor subnormal, whatever the order they lie in. */
static void fill(void *data, size_t bytes, bool half)
{
    uint32_t seed = 1;
    for (size_t i = 0; i < bytes / (half ? 2 : 4); i++) {
        seed = seed * 1664525u + 1013904223u;
        float x = (float)(int32_t)seed * 0x1p-31f;
        if (half)
            ((uint16_t *)data)[i] = float_bf16(x);
        else
            ((float *)data)[i] = x;
    }
}

/* Memory for an argument of a primitive that is described; NULL md: none. */
static dnnl_memory_t memory(struct alone *a, const dnnl_memory_desc_t *md)
{
    dnnl_memory_t m = NULL;
    void *data = NULL;
    if (a->status != dnnl_success || a->memory_count == MEMORIES)
        return NULL;
    keep(a, dnnl_memory_create(&m, md, a->d->engine, DNNL_MEMORY_ALLOCATE));
    if (!m)
        return NULL;
    a->memories[a->memory_count++] = m;
    keep(a, dnnl_memory_get_data_handle(m, &data));
    if (data)
        fill(data, dnnl_memory_desc_get_size(md), md->data_type == dnnl_bf16);
    return m;
}

/* One step more: the primitive with operands of its own, except x and y where they are given. */
static dnnl_memory_t add_step(struct alone *a, const void *desc, dnnl_primitive_attr_t attr,
                              dnnl_memory_t x, bool weights)
{
    dnnl_primitive_desc_t pd = NULL;
    struct step *s = &a->steps[a->step_count];
    if (a->status != dnnl_success)
        return NULL;
    keep(a, dnnl_primitive_desc_create(&pd, desc, attr, a->d->engine, NULL));
    if (!pd)
        return NULL;
    keep(a, dnnl_primitive_create(&s->primitive, pd));
    if (!x)
        x = memory(a, dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0));
    s->args[s->count++] = (dnnl_exec_arg_t){DNNL_ARG_SRC, x};
    if (weights)
        s->args[s->count++] = (dnnl_exec_arg_t){
            DNNL_ARG_WEIGHTS,
            memory(a, dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0))};
    dnnl_memory_t y = weights ? memory(a, dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0))
                              : x; /* softmax works in place */
    s->args[s->count++] = (dnnl_exec_arg_t){DNNL_ARG_DST, y};
    dnnl_primitive_desc_destroy(pd);
    a->step_count++;
    return y;
}

static dnnl_memory_desc_t described(struct alone *a, int rank, const int64_t *dims,
                                    dnnl_data_type_t type, dnnl_format_tag_t tag)
{
    dnnl_memory_desc_t md = {0};
    keep(a, dnnl_memory_desc_init_by_tag(&md, rank, dims, type, tag));
    return md;
}

/* x[m, k] · w[k, n], times `scale`. */
static dnnl_memory_t add_product(struct alone *a, int64_t m, int64_t k, int64_t n,
                                 dnnl_data_type_t result, float scale, dnnl_memory_t from)
{
    dnnl_matmul_desc_t desc;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_memory_desc_t x = described(a, 2, (dnnl_dims_t){m, k}, a->type, dnnl_ab);
    dnnl_memory_desc_t w = described(a, 2, (dnnl_dims_t){k, n}, a->type, dnnl_format_tag_any);
    dnnl_memory_desc_t y = described(a, 2, (dnnl_dims_t){m, n}, result, dnnl_ab);
    keep(a, dnnl_primitive_attr_create(&attr));
    if (scale != 1.0f && attr)
        keep(a, dnnl_primitive_attr_set_output_scales(attr, 1, 0, &scale));
    keep(a, dnnl_matmul_desc_init(&desc, &x, &w, NULL, &y));
    dnnl_memory_t made = add_step(a, &desc, attr, from, true);
    if (attr)
        dnnl_primitive_attr_destroy(attr);
    return made;
}

static void add_attention(struct alone *a, const struct alone_shape *s)
{
    dnnl_softmax_desc_t desc;
    dnnl_memory_t scores =
        add_product(a, s->queries, s->size, s->keys, a->type, 1.0f / sqrtf((float)s->size), NULL);
    dnnl_memory_desc_t md = described(a, 2, (dnnl_dims_t){s->queries, s->keys}, a->type, dnnl_ab);
    keep(a, dnnl_softmax_forward_desc_init(&desc, dnnl_forward_inference, &md, 1));
    add_step(a, &desc, NULL, scores, false);
    add_product(a, s->queries, s->keys, s->size, dnnl_f32, 1, scores);
}

static void add_conv(struct alone *a, const struct alone_shape *s, dnnl_alg_kind_t algorithm,
                     dnnl_format_tag_t order)
{
    dnnl_dims_t strides, before, after;
    dnnl_convolution_desc_t desc;
    fit_side(s->h, s->ho, s->kh, &strides[0], &before[0], &after[0]);
    fit_side(s->w, s->wo, s->kw, &strides[1], &before[1], &after[1]);
    dnnl_memory_desc_t x =
        described(a, 4, (dnnl_dims_t){s->batch, s->ci, s->h, s->w}, a->type, order);
    dnnl_memory_desc_t w =
        described(a, 4, (dnnl_dims_t){s->co, s->ci, s->kh, s->kw}, a->type, dnnl_format_tag_any);
    dnnl_memory_desc_t y =
        described(a, 4, (dnnl_dims_t){s->batch, s->co, s->ho, s->wo}, dnnl_f32, order);
    keep(a, dnnl_convolution_forward_desc_init(&desc, dnnl_forward_inference, algorithm, &x, &w,
                                               NULL, &y, strides, before, after));
    add_step(a, &desc, NULL, NULL, true);
}

/* ---- measuring ---- */

static double best_of(struct alone *a, double budget)
{
    double best = INFINITY, end = clock_seconds() + budget;
    for (int i = 0; a->status == dnnl_success && (i < 3 || clock_seconds() < end); i++) {
        double start = clock_seconds();
        for (int k = 0; k < a->step_count; k++)
            keep(a, dnnl_primitive_execute(a->steps[k].primitive, a->d->stream, a->steps[k].count,
                                           a->steps[k].args));
        double seconds = clock_seconds() - start;
        best = i > 0 && seconds < best ? seconds : best; /* the first touches pages */
    }
    return best;
}

static void clear(struct alone *a)
{
    for (int i = 0; i < a->step_count; i++)
        dnnl_primitive_destroy(a->steps[i].primitive);
    for (int i = 0; i < a->memory_count; i++)
        dnnl_memory_destroy(a->memories[i]);
}

/* Ways to ask for a convolution; the fastest counts, and those that a type does not have do not. */
static const struct {
    dnnl_alg_kind_t algorithm;
    dnnl_format_tag_t order;
} convolutions[] = {
    {dnnl_convolution_direct, dnnl_format_tag_any},
    {dnnl_convolution_direct, dnnl_nhwc},
    {dnnl_convolution_auto, dnnl_format_tag_any},
};

int alone_measure(struct dnn *d, int threads, enum dtype type, const struct alone_shape *s,
                  double budget, double *seconds, struct err *e)
{
    size_t ways = s->kind == ALONE_CONV ? sizeof convolutions / sizeof *convolutions : 1;
    dnnl_status_t status = dnnl_success;
    *seconds = INFINITY;
    cpu_parallel_limit(threads);
    for (size_t i = 0; i < ways; i++) {
        struct alone a = {.d = d, .type = type == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32};
        if (s->kind == ALONE_LINEAR)
            add_product(&a, s->m, s->k, s->n, dnnl_f32, 1, NULL);
        else if (s->kind == ALONE_CONV)
            add_conv(&a, s, convolutions[i].algorithm, convolutions[i].order);
        else
            add_attention(&a, s);
        double best = best_of(&a, budget / (double)ways);
        if (a.status == dnnl_success)
            *seconds = best < *seconds ? best : *seconds;
        else
            status = a.status;
        clear(&a);
    }
    if (s->kind == ALONE_ATTENTION)
        *seconds *= (double)s->heads;
    return isfinite(*seconds)
               ? 0
               : err_set(e, status == dnnl_out_of_memory ? -ENOMEM : -EIO,
                         "oneDNN could not be measured alone (status %d)", (int)status);
}
