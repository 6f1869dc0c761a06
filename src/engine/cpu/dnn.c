#include "engine/cpu/dnn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/cpu/parallel.h"

#define CHAINS  256 /* a power of two */
#define ENTRIES 512 /* products kept; a model needs some dozens a picture size */

struct dnn_product {
    struct dnn_shape shape;
    dnnl_memory_desc_t x, w, bias, y, scratch;
    dnnl_primitive_t primitive;
    const char *implementation; /* oneDNN's */
    struct dnn_product *chain, *newer, *older;
    int users;
};

/* The sentence for a failure inside oneDNN. */
static int dnn_fail(struct err *e, dnnl_status_t status, const char *what)
{
    int code = status == dnnl_out_of_memory ? -ENOMEM : -EIO;
    return err_set(e, code, "oneDNN could not %s (status %d)", what, (int)status);
}

int dnn_open(struct dnn *d, struct err *e)
{
    memset(d, 0, sizeof *d);
    d->entries = calloc(CHAINS, sizeof(struct dnn_product *));
    if (!d->entries)
        return err_nomem(e);
    dnnl_status_t s = dnnl_engine_create(&d->engine, dnnl_cpu, 0);
    if (s == dnnl_success)
        s = dnnl_stream_create(&d->stream, d->engine, dnnl_stream_default_flags);
    if (s != dnnl_success) {
        free(d->entries);
        if (d->engine)
            dnnl_engine_destroy(d->engine);
        return dnn_fail(e, s, "start");
    }
    pthread_mutex_init(&d->lock, NULL);
    return 0;
}

static void product_free(struct dnn_product *p)
{
    if (p->primitive)
        dnnl_primitive_destroy(p->primitive);
    free(p);
}

void dnn_close(struct dnn *d)
{
    for (struct dnn_product *p = d->newest, *older; p; p = older) {
        older = p->older;
        product_free(p);
    }
    free(d->entries);
    dnnl_stream_destroy(d->stream);
    dnnl_engine_destroy(d->engine);
    pthread_mutex_destroy(&d->lock);
}

/* ---- making ---- */

static dnnl_data_type_t dnn_type(enum dtype d)
{
    return d == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32;
}

/* oneDNN's plain ReLU turns NaN into 0, its leaky one does not: a slope that no sum can feel keeps
 * broken weights visible. */
#define RELU_SLOPE 1e-30f

static const struct {
    dnnl_alg_kind_t kind;
    float alpha;
} eltwise[] = {
    [ACT_NONE] = {dnnl_alg_kind_undef, 0},         [ACT_RELU] = {dnnl_eltwise_relu, RELU_SLOPE},
    [ACT_SILU] = {dnnl_eltwise_swish, 1},          [ACT_GELU] = {dnnl_eltwise_gelu_erf, 0},
    [ACT_GELU_TANH] = {dnnl_eltwise_gelu_tanh, 0}, [ACT_QUICK_GELU] = {dnnl_eltwise_swish, 1.702f},
    [ACT_TANH] = {dnnl_eltwise_tanh, 0},           [ACT_SIGMOID] = {dnnl_eltwise_logistic, 0},
};

/* Our own scratchpad, the activation fused, and f32 meaning f32. */
static dnnl_status_t make_attributes(enum activation act, dnnl_primitive_attr_t *out)
{
    dnnl_post_ops_t post = NULL;
    dnnl_status_t s = dnnl_primitive_attr_create(out);
    if (s == dnnl_success)
        s = dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user);
    if (s == dnnl_success)
        s = dnnl_primitive_attr_set_fpmath_mode(*out, dnnl_fpmath_mode_strict);
    if (s == dnnl_success && act != ACT_NONE) {
        s = dnnl_post_ops_create(&post);
        if (s == dnnl_success)
            s = dnnl_post_ops_append_eltwise(post, 1.0f, eltwise[act].kind, eltwise[act].alpha, 0);
        if (s == dnnl_success)
            s = dnnl_primitive_attr_set_post_ops(*out, post);
        if (post)
            dnnl_post_ops_destroy(post);
    }
    return s;
}

static dnnl_status_t strided(dnnl_memory_desc_t *md, int rank, const int64_t *dims,
                             dnnl_data_type_t type, const int64_t *strides)
{
    return dnnl_memory_desc_init_by_strides(md, rank, dims, type, strides);
}

static dnnl_status_t any_layout(dnnl_memory_desc_t *md, int rank, const int64_t *dims,
                                dnnl_data_type_t type)
{
    return dnnl_memory_desc_init_by_tag(md, rank, dims, type, dnnl_format_tag_any);
}

/* Weights as the checkpoint holds them, in oneDNN's terms: [k, n] by columns, or [co, ci, kh, kw].
 */
static dnnl_status_t checkpoint_weights(const struct dnn_shape *s, enum dtype type,
                                        dnnl_memory_desc_t *md)
{
    if (!s->conv)
        return strided(md, 2, (dnnl_dims_t){s->k, s->n}, dnn_type(type), (dnnl_dims_t){1, s->ldw});
    return dnnl_memory_desc_init_by_tag(md, 4, (dnnl_dims_t){s->co, s->ci, s->kh, s->kw},
                                        dnn_type(type), dnnl_abcd);
}

/* layout NULL: oneDNN chooses the order of w. */
static dnnl_status_t describe_linear(const struct dnn_shape *s, const dnnl_memory_desc_t *layout,
                                     dnnl_primitive_attr_t attr, dnnl_engine_t engine,
                                     dnnl_primitive_desc_t *out)
{
    dnnl_memory_desc_t x, w, bias, y;
    dnnl_matmul_desc_t desc;
    dnnl_data_type_t type = dnn_type(s->type);
    dnnl_status_t rc = strided(&x, 2, (dnnl_dims_t){s->m, s->k}, type, (dnnl_dims_t){s->ldx, 1});
    if (rc == dnnl_success)
        rc = strided(&y, 2, (dnnl_dims_t){s->m, s->n}, dnnl_f32, (dnnl_dims_t){s->ldy, 1});
    if (rc == dnnl_success)
        rc = strided(&bias, 2, (dnnl_dims_t){1, s->n}, dnnl_f32, (dnnl_dims_t){s->n, 1});
    if (rc == dnnl_success && layout)
        w = *layout;
    else if (rc == dnnl_success)
        rc = any_layout(&w, 2, (dnnl_dims_t){s->k, s->n}, type);
    if (rc == dnnl_success)
        rc = dnnl_matmul_desc_init(&desc, &x, &w, s->bias ? &bias : NULL, &y);
    if (rc == dnnl_success)
        rc = dnnl_primitive_desc_create(out, &desc, attr, engine, NULL);
    return rc;
}

static dnnl_status_t describe_conv(const struct dnn_shape *s, dnnl_primitive_attr_t attr,
                                   dnnl_engine_t engine, dnnl_primitive_desc_t *out)
{
    dnnl_memory_desc_t x, w, bias, y;
    dnnl_convolution_desc_t desc;
    dnnl_data_type_t type = dnn_type(s->type);
    int64_t ho = (s->h + s->pad[0] + s->pad[1] - s->kh) / s->stride + 1;
    int64_t wo = (s->w + s->pad[2] + s->pad[3] - s->kw) / s->stride + 1;
    dnnl_status_t rc =
        dnnl_memory_desc_init_by_tag(&x, 4, (dnnl_dims_t){1, s->ci, s->h, s->w}, type, dnnl_nhwc);
    if (rc == dnnl_success)
        rc = dnnl_memory_desc_init_by_tag(&y, 4, (dnnl_dims_t){1, s->co, ho, wo}, dnnl_f32,
                                          dnnl_nhwc);
    if (rc == dnnl_success)
        rc = any_layout(&w, 4, (dnnl_dims_t){s->co, s->ci, s->kh, s->kw}, type);
    if (rc == dnnl_success)
        rc = dnnl_memory_desc_init_by_tag(&bias, 1, (dnnl_dims_t){s->co}, dnnl_f32, dnnl_x);
    if (rc == dnnl_success)
        rc = dnnl_convolution_forward_desc_init(
            &desc, dnnl_forward_inference, dnnl_convolution_direct, &x, &w, s->bias ? &bias : NULL,
            &y, (dnnl_dims_t){s->stride, s->stride}, (dnnl_dims_t){s->pad[0], s->pad[2]},
            (dnnl_dims_t){s->pad[1], s->pad[3]});
    if (rc == dnnl_success)
        rc = dnnl_primitive_desc_create(out, &desc, attr, engine, NULL);
    return rc;
}

static int describe(struct dnn *d, const struct dnn_shape *shape, const dnnl_memory_desc_t *layout,
                    dnnl_primitive_desc_t *out, struct err *e)
{
    if (shape->threads < 1)
        return err_set(e, -EINVAL, "a product needs a number of threads");
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t s = make_attributes((enum activation)shape->act, &attr);
    if (s == dnnl_success && shape->conv)
        s = describe_conv(shape, attr, d->engine, out);
    else if (s == dnnl_success)
        s = describe_linear(shape, layout, attr, d->engine, out);
    if (attr)
        dnnl_primitive_attr_destroy(attr);
    if (s == dnnl_success)
        return 0;
    return dnn_fail(e, s, shape->conv ? "make a convolution" : "make a matrix product");
}

static int product_new(struct dnn *d, const struct dnn_shape *shape,
                       const struct dnn_layout *layout, struct dnn_product **out, struct err *e)
{
    struct dnn_product *p = calloc(1, sizeof *p);
    dnnl_primitive_desc_t pd = NULL;
    dnnl_memory_desc_t dense;
    if (!p)
        return err_nomem(e);
    if (!shape->conv && !shape->packed)
        checkpoint_weights(shape, (enum dtype)shape->type, &dense);
    int rc = describe(d, shape, shape->packed ? &layout->md : &dense, &pd, e);
    if (rc) {
        free(p);
        return rc;
    }
    p->shape = *shape;
    p->x = *dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0);
    p->w = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    p->y = *dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0);
    p->scratch = *dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    if (shape->bias)
        p->bias = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 1);
    dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, (void *)&p->implementation);
    dnnl_status_t s = dnnl_primitive_create(&p->primitive, pd);
    dnnl_primitive_desc_destroy(pd);
    if (s != dnnl_success) {
        product_free(p);
        return dnn_fail(e, s, "make a product");
    }
    *out = p;
    return 0;
}

/* ---- keeping ---- */

static size_t shape_chain(const struct dnn_shape *s)
{
    const unsigned char *bytes = (const unsigned char *)s;
    uint64_t h = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < sizeof *s; i++)
        h = (h ^ bytes[i]) * 1099511628211u;
    return (size_t)(h ^ h >> 32) & (CHAINS - 1);
}

static void unlink_age(struct dnn *d, struct dnn_product *p)
{
    *(p->newer ? &p->newer->older : &d->newest) = p->older;
    *(p->older ? &p->older->newer : &d->oldest) = p->newer;
}

static void link_newest(struct dnn *d, struct dnn_product *p)
{
    p->newer = NULL;
    p->older = d->newest;
    *(d->newest ? &d->newest->newer : &d->oldest) = p;
    d->newest = p;
}

static void evict_oldest(struct dnn *d)
{
    struct dnn_product *p = d->oldest;
    while (p && p->users)
        p = p->newer;
    if (!p)
        return;
    struct dnn_product **at = &d->entries[shape_chain(&p->shape)];
    while (*at != p)
        at = &(*at)->chain;
    *at = p->chain;
    unlink_age(d, p);
    d->count--;
    product_free(p);
}

static struct dnn_product *find(struct dnn *d, const struct dnn_shape *shape,
                                const struct dnn_layout *layout)
{
    struct dnn_product *p = d->entries[shape_chain(shape)];
    while (p && (memcmp(&p->shape, shape, sizeof *shape) != 0 ||
                 (shape->packed && !dnnl_memory_desc_equal(&p->w, &layout->md))))
        p = p->chain;
    return p;
}

struct dnn_product *dnn_get(struct dnn *d, const struct dnn_shape *shape,
                            const struct dnn_layout *layout, struct err *e)
{
    cpu_parallel_limit(shape->threads);
    pthread_mutex_lock(&d->lock);
    struct dnn_product *p = find(d, shape, layout);
    if (p) {
        unlink_age(d, p);
    } else if (product_new(d, shape, layout, &p, e) == 0) {
        struct dnn_product **chain = &d->entries[shape_chain(shape)];
        if (d->count >= ENTRIES)
            evict_oldest(d);
        p->chain = *chain;
        *chain = p;
        d->count++;
    }
    if (p) {
        p->users++;
        link_newest(d, p);
    }
    pthread_mutex_unlock(&d->lock);
    return p;
}

void dnn_put(struct dnn *d, struct dnn_product *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&d->lock);
    p->users--;
    pthread_mutex_unlock(&d->lock);
}

/* ---- using ---- */

size_t dnn_scratch(const struct dnn_product *p)
{
    return dnnl_memory_desc_get_size(&p->scratch);
}

const char *dnn_implementation(const struct dnn_product *p)
{
    return p->implementation;
}

void dnn_product_layout(const struct dnn_product *p, struct dnn_layout *out)
{
    out->md = p->w;
}

/* oneDNN's handles take plain pointers, for reading too. */
static void *writable(const void *p)
{
    return (void *)(uintptr_t)p;
}

int dnn_run(struct dnn *d, const struct dnn_product *p, const void *x, const void *w,
            const float *bias, float *y, void *scratch, struct err *e)
{
    struct {
        const dnnl_memory_desc_t *md;
        void *data;
        int arg;
    } parts[] = {{&p->x, writable(x), DNNL_ARG_SRC},
                 {&p->w, writable(w), DNNL_ARG_WEIGHTS},
                 {&p->y, y, DNNL_ARG_DST},
                 {&p->scratch, scratch, DNNL_ARG_SCRATCHPAD},
                 {&p->bias, writable(bias), DNNL_ARG_BIAS}};
    dnnl_exec_arg_t args[5];
    int count = 0, want = p->shape.bias ? 5 : 4;
    dnnl_status_t s = dnnl_success;
    cpu_parallel_limit(p->shape.threads);
    for (; count < want && s == dnnl_success; count++) {
        args[count].arg = parts[count].arg;
        s = dnnl_memory_create(&args[count].memory, parts[count].md, d->engine, parts[count].data);
        if (s != dnnl_success)
            break;
    }
    if (s == dnnl_success)
        s = dnnl_primitive_execute(p->primitive, d->stream, count, args);
    while (count > 0)
        dnnl_memory_destroy(args[--count].memory);
    return s == dnnl_success ? 0 : dnn_fail(e, s, "run a product");
}

/* ---- layouts of weights ---- */

int dnn_best_layout(struct dnn *d, const struct dnn_shape *shape, struct dnn_layout *out,
                    struct err *e)
{
    dnnl_primitive_desc_t pd = NULL;
    cpu_parallel_limit(shape->threads);
    int rc = describe(d, shape, NULL, &pd, e);
    if (rc)
        return rc;
    out->md = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    dnnl_primitive_desc_destroy(pd);
    return 0;
}

size_t dnn_layout_bytes(const struct dnn_layout *layout)
{
    return dnnl_memory_desc_get_size(&layout->md);
}

bool dnn_layout_equal(const struct dnn_layout *a, const struct dnn_layout *b)
{
    return dnnl_memory_desc_equal(&a->md, &b->md);
}

int dnn_dense_layout(const struct dnn_shape *shape, enum dtype type, struct dnn_layout *out,
                     struct err *e)
{
    dnnl_status_t s = checkpoint_weights(shape, type, &out->md);
    return s == dnnl_success ? 0 : dnn_fail(e, s, "describe weights");
}

int dnn_reorder(struct dnn *d, const struct dnn_layout *from, const void *src,
                const struct dnn_layout *to, void *dst, struct err *e)
{
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_exec_arg_t args[2] = {{.arg = DNNL_ARG_FROM}, {.arg = DNNL_ARG_TO}};
    dnnl_status_t s =
        dnnl_reorder_primitive_desc_create(&pd, &from->md, d->engine, &to->md, d->engine, NULL);
    if (s == dnnl_success)
        s = dnnl_primitive_create(&reorder, pd);
    if (s == dnnl_success)
        s = dnnl_memory_create(&args[0].memory, &from->md, d->engine, writable(src));
    if (s == dnnl_success)
        s = dnnl_memory_create(&args[1].memory, &to->md, d->engine, dst);
    if (s == dnnl_success)
        s = dnnl_primitive_execute(reorder, d->stream, 2, args);
    for (int i = 0; i < 2; i++)
        if (args[i].memory)
            dnnl_memory_destroy(args[i].memory);
    if (reorder)
        dnnl_primitive_destroy(reorder);
    if (pd)
        dnnl_primitive_desc_destroy(pd);
    return s == dnnl_success ? 0 : dnn_fail(e, s, "reorder weights");
}
