/* Convolutions and attention by cuDNN's graphs: what a result is made of is described operation by
 * operation, and cuDNN finds one kernel (an execution plan) for all of it. A shape's plan is made
 * once, for one item, and kept. Plans with sums in no fixed order, with less precise sums, or with
 * fp32 rounded to TF32 are passed over. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cudnn_graph.h"

#ifdef VENDOR_CUDNN

#define PLANS 96

/* Tensors that the caller has, by the number that graph and run know them by. */
enum { UID_X = 1, UID_W, UID_BIAS, UID_Y, UID_V, UID_SCALE, UID_NEVER, UID_HIDDEN };

/* A convolution or attention of one item; compared as bytes: no padding. */
struct shape {
    int64_t sizes[16];
    uint8_t kind, type, bias_type, act, causal, has_bias, spare[2];
};
enum { KIND_CONV, KIND_ATTENTION };

struct plan {
    struct shape shape;
    uint64_t used; /* 0: free */
    struct graph graph;
    bool supported;
    struct vendor_left left;
};

struct nn {
    struct cudnn_table f;
    cudnnHandle_t handle; /* NULL: the device is only described */
    cudnnBackendDescriptor_t device;
    uint64_t tick;
    struct plan plans[PLANS];
};

static const cudnnDataType_t types[] = {CUDNN_DATA_FLOAT, CUDNN_DATA_BFLOAT16, CUDNN_DATA_HALF};

/* ---- opening ---- */

struct nn *nn_new_described(const struct cudnn_table *table, cudnnBackendDescriptor_t device)
{
    struct nn *d = calloc(1, sizeof(*d));
    if (d) {
        d->f = *table;
        d->device = device;
    }
    return d;
}

struct nn *nn_new(const struct cudnn_table *table)
{
    struct nn *d = nn_new_described(table, NULL);
    if (d && d->f.Create(&d->handle) == CUDNN_STATUS_SUCCESS)
        return d;
    free(d);
    return NULL;
}

struct nn *nn_open(void **library, char *text, size_t size)
{
#define NAME(name) #name,
    static const char *const names[] = {CUDNN_FUNCTIONS(NAME)};
#undef NAME
    struct cudnn_table table;
    if (!vendor_library("libcudnn.so." VENDOR_TEXT(CUDNN_MAJOR), "cudnn", names,
                        sizeof(names) / sizeof(*names), &table, library))
        return NULL;
    struct nn *d = nn_new(&table);
    if (d)
        vendor_version("cuDNN", d->f.GetVersion(), text, size);
    return d;
}

void nn_free(struct nn *d)
{
    if (!d)
        return;
    for (int i = 0; i < PLANS; i++)
        graph_clear(&d->plans[i].graph);
    if (d->handle)
        d->f.Destroy(d->handle);
    free(d);
}

int nn_remembered(const struct nn *d)
{
    int n = 0;
    for (int i = 0; i < PLANS; i++)
        n += d->plans[i].used != 0;
    return n;
}

/* ---- the graphs ---- */

/* [1, channels, height, width] that lies channels-last. */
static cudnnBackendDescriptor_t picture(struct graph *g, int64_t uid, cudnnDataType_t type,
                                        int64_t c, int64_t h, int64_t w)
{
    return graph_tensor(g, uid, type, (int64_t[4]){1, c, h, w},
                        (int64_t[4]){h * w * c, 1, w * c, c},
                        uid >= UID_HIDDEN ? GRAPH_HIDDEN : GRAPH_REAL);
}

/* y = act(conv(x, w) + bias), with what `left` leaves out. */
static void describe_conv(struct graph *g, const struct vendor_conv *c, struct vendor_left left)
{
    cudnnDataType_t type = types[c->type];
    bool bias = c->has_bias && !left.bias, act = c->act != ACT_NONE && !left.act;
    int64_t filter = c->kh * c->kw * c->ci;
    cudnnBackendDescriptor_t x = picture(g, UID_X, type, c->ci, c->h, c->w);
    cudnnBackendDescriptor_t w =
        graph_tensor(g, UID_W, type, (int64_t[4]){c->co, c->ci, c->kh, c->kw},
                     (int64_t[4]){filter, 1, c->kw * c->ci, c->ci}, GRAPH_REAL);
    cudnnBackendDescriptor_t y = picture(g, UID_Y, type, c->co, c->ho, c->wo);
    cudnnBackendDescriptor_t product =
        bias || act ? picture(g, UID_HIDDEN, CUDNN_DATA_FLOAT, c->co, c->ho, c->wo) : y;
    graph_conv(g, x, w, product, c->stride, c->pad);
    if (bias) {
        cudnnBackendDescriptor_t b = picture(g, UID_BIAS, types[c->bias_type], c->co, 1, 1);
        cudnnBackendDescriptor_t sum =
            act ? picture(g, UID_HIDDEN + 1, CUDNN_DATA_FLOAT, c->co, c->ho, c->wo) : y;
        graph_pointwise(g, CUDNN_POINTWISE_ADD, product, b, NULL, sum);
        product = sum;
    }
    if (act)
        graph_pointwise(g, CUDNN_POINTWISE_RELU_FWD, product, NULL, NULL, y);
}

/* [1, heads, positions, width] of one item. */
static cudnnBackendDescriptor_t heads(struct graph *g, int64_t uid,
                                      const struct vendor_attention *a, int64_t count,
                                      int64_t positions, const struct vendor_strides *s)
{
    return graph_tensor(g, uid, types[a->type], (int64_t[4]){1, count, positions, a->d},
                        (int64_t[4]){positions * s->position, s->head, s->position, 1}, GRAPH_REAL);
}

/* A hidden [1, heads, tq, columns], dense. */
static cudnnBackendDescriptor_t scores(struct graph *g, int64_t uid,
                                       const struct vendor_attention *a, int64_t columns,
                                       cudnnDataType_t type)
{
    return graph_tensor(g, uid, type, (int64_t[4]){1, a->heads, a->tq, columns},
                        (int64_t[4]){a->heads * a->tq * columns, a->tq * columns, columns, 1},
                        GRAPH_HIDDEN);
}

static const float never_seen = -INFINITY;

/* s where the key's number is not above the query's, else minus infinity. */
static cudnnBackendDescriptor_t mask_later(struct graph *g, const struct vendor_attention *a,
                                           cudnnBackendDescriptor_t s)
{
    int64_t one[4] = {1, 1, 1, 1}, uid = UID_HIDDEN + 10;
    cudnnBackendDescriptor_t row = scores(g, uid, a, a->tk, CUDNN_DATA_INT32);
    cudnnBackendDescriptor_t column = scores(g, uid + 1, a, a->tk, CUDNN_DATA_INT32);
    cudnnBackendDescriptor_t sees = scores(g, uid + 2, a, a->tk, CUDNN_DATA_BOOLEAN);
    cudnnBackendDescriptor_t masked = scores(g, uid + 3, a, a->tk, CUDNN_DATA_FLOAT);
    cudnnBackendDescriptor_t never =
        graph_tensor(g, UID_NEVER, CUDNN_DATA_FLOAT, one, one, GRAPH_VALUE);
    graph_index(g, s, row, 2);
    graph_index(g, s, column, 3);
    graph_pointwise(g, CUDNN_POINTWISE_CMP_GE, row, column, NULL, sees);
    graph_pointwise(g, CUDNN_POINTWISE_BINARY_SELECT, s, never, sees, masked);
    return masked;
}

/* softmax(scale · q·kᵀ)·v in the operations that cuDNN knows as fused attention: the softmax is
 * spelled out with the logarithm of its sum, which nobody reads, and its result has v's type. */
static void describe_attention(struct graph *g, const struct vendor_attention *a)
{
    int64_t one[4] = {1, 1, 1, 1}, uid = UID_HIDDEN;
    const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t q = heads(g, UID_X, a, a->heads, a->tq, &a->qs);
    cudnnBackendDescriptor_t v = heads(g, UID_V, a, a->groups, a->tk, &a->vs);
    cudnnBackendDescriptor_t y = heads(g, UID_Y, a, a->heads, a->tq, &a->ys);
    cudnnBackendDescriptor_t k_transposed = graph_tensor(
        g, UID_W, types[a->type], (int64_t[4]){1, a->groups, a->d, a->tk},
        (int64_t[4]){a->tk * a->ks.position, a->ks.head, 1, a->ks.position}, GRAPH_REAL);
    cudnnBackendDescriptor_t scale = graph_tensor(g, UID_SCALE, f32, one, one, GRAPH_VALUE);
    cudnnBackendDescriptor_t raw = scores(g, uid, a, a->tk, f32);
    cudnnBackendDescriptor_t s = scores(g, uid + 1, a, a->tk, f32);
    cudnnBackendDescriptor_t most = scores(g, uid + 2, a, 1, f32);
    cudnnBackendDescriptor_t less = scores(g, uid + 3, a, a->tk, f32);
    cudnnBackendDescriptor_t power = scores(g, uid + 4, a, a->tk, f32);
    cudnnBackendDescriptor_t sum = scores(g, uid + 5, a, 1, f32);
    cudnnBackendDescriptor_t log = scores(g, uid + 7, a, 1, f32);
    cudnnBackendDescriptor_t share = scores(g, uid + 6, a, a->tk, types[a->type]);
    graph_matmul(g, q, k_transposed, raw);
    graph_pointwise(g, CUDNN_POINTWISE_MUL, raw, scale, NULL, s);
    if (a->causal)
        s = mask_later(g, a, s);
    graph_reduce(g, CUDNN_REDUCE_TENSOR_MAX, s, most);
    graph_pointwise(g, CUDNN_POINTWISE_SUB, s, most, NULL, less);
    graph_pointwise(g, CUDNN_POINTWISE_EXP, less, NULL, NULL, power);
    graph_reduce(g, CUDNN_REDUCE_TENSOR_ADD, power, sum);
    graph_pointwise(g, CUDNN_POINTWISE_LOG, sum, NULL, NULL, log);
    graph_pointwise(g, CUDNN_POINTWISE_ADD, most, log, NULL, scores(g, uid + 8, a, 1, f32));
    graph_pointwise(g, CUDNN_POINTWISE_DIV, power, sum, NULL, share);
    graph_matmul(g, share, v, y);
}

/* ---- plans ---- */

static void begin(struct nn *d, struct plan *p)
{
    graph_clear(&p->graph);
    p->graph = (struct graph){.f = &d->f, .handle = d->handle, .device = d->device};
}

/* From everything in one pass to the bare convolution: the first that cuDNN has. A bias of another
 * type would need a kernel that is compiled when it is first used, for seconds. */
static void plan_conv(struct nn *d, struct plan *p, const struct vendor_conv *c)
{
    bool bias = c->has_bias && c->bias_type == c->type, act = c->act != ACT_NONE;
    const struct {
        bool usable;
        struct vendor_left left;
    } ways[] = {
        {bias == c->has_bias && (!act || c->act == ACT_RELU), {false, false}},
        {bias && act, {false, true}},
        {true, {c->has_bias, act}},
    };
    for (size_t i = 0; !p->supported && i < sizeof(ways) / sizeof(*ways); i++) {
        if (!ways[i].usable)
            continue;
        begin(d, p);
        describe_conv(&p->graph, c, ways[i].left);
        p->supported = graph_plan(&p->graph, c->type == VENDOR_F32);
        p->left = ways[i].left;
    }
}

static void plan_attention(struct nn *d, struct plan *p, const struct vendor_attention *a)
{
    begin(d, p);
    describe_attention(&p->graph, a);
    p->supported = graph_plan(&p->graph, false);
}

/* The plan of a shape; a new one (*made) takes the place of the one that was used longest ago. */
static struct plan *find(struct nn *d, const struct shape *shape, bool *made)
{
    struct plan *oldest = d->plans;
    *made = false;
    for (int i = 0; i < PLANS; i++) {
        struct plan *p = &d->plans[i];
        if (p->used && memcmp(&p->shape, shape, sizeof(*shape)) == 0) {
            p->used = ++d->tick;
            return p;
        }
        if (p->used < oldest->used)
            oldest = p;
    }
    graph_clear(&oldest->graph);
    *oldest = (struct plan){.shape = *shape, .used = ++d->tick};
    *made = true;
    return oldest;
}

static void *at(const void *base, int64_t items, int64_t distance, enum vendor_type type)
{
    return (char *)(uintptr_t)base + items * distance * (int64_t)vendor_type_size(type);
}

/* ---- the two operations ---- */

bool nn_conv(struct nn *d, const struct vendor_conv *c, void *workspace, void *stream,
             struct vendor_left *left)
{
    struct shape s;
    bool made;
    memset(&s, 0, sizeof(s));
    const int64_t sizes[] = {c->h,  c->w,      c->ci,     c->co,     c->kh,     c->kw,    c->ho,
                             c->wo, c->stride, c->pad[0], c->pad[1], c->pad[2], c->pad[3]};
    memcpy(s.sizes, sizes, sizeof(sizes));
    s.kind = KIND_CONV;
    s.type = (uint8_t)c->type;
    s.has_bias = c->has_bias;
    s.bias_type = c->has_bias ? (uint8_t)c->bias_type : 0;
    s.act = (uint8_t)c->act;
    struct plan *p = find(d, &s, &made);
    if (made)
        plan_conv(d, p, c);
    *left = p->left;
    bool done = p->supported;
    for (int64_t i = 0; done && c->y && i < c->items; i++) {
        const struct graph_binding bindings[] = {
            {UID_X, at(c->x, i, c->h * c->w * c->ci, c->type)},
            {UID_W, at(c->weights, 0, 0, c->type)},
            {UID_Y, at(c->y, i, c->ho * c->wo * c->co, c->type)},
            {UID_BIAS, at(c->bias, 0, 0, c->type)},
        };
        int count = c->has_bias && !p->left.bias ? 4 : 3;
        done = graph_run(&p->graph, bindings, count, workspace, stream);
    }
    return done;
}

bool nn_attention(struct nn *d, const struct vendor_attention *a, void *workspace, void *stream)
{
    struct shape s;
    bool made;
    if (a->type != VENDOR_BF16 && a->type != VENDOR_F16)
        return false;
    memset(&s, 0, sizeof(s));
    const int64_t sizes[] = {a->tq,          a->tk,      a->heads,       a->groups,
                             a->d,           a->qs.head, a->qs.position, a->ks.head,
                             a->ks.position, a->vs.head, a->vs.position, a->ys.head,
                             a->ys.position};
    memcpy(s.sizes, sizes, sizeof(sizes));
    s.kind = KIND_ATTENTION;
    s.type = (uint8_t)a->type;
    s.causal = a->causal;
    struct plan *p = find(d, &s, &made);
    if (made)
        plan_attention(d, p, a);
    bool done = p->supported;
    for (int64_t i = 0; done && a->y && i < a->items; i++) {
        const struct graph_binding bindings[] = {
            {UID_X, at(a->q, i, a->qs.item, a->type)}, {UID_W, at(a->k, i, a->ks.item, a->type)},
            {UID_V, at(a->v, i, a->vs.item, a->type)}, {UID_Y, at(a->y, i, a->ys.item, a->type)},
            {UID_SCALE, (void *)(uintptr_t)&a->scale}, {UID_NEVER, (void *)(uintptr_t)&never_seen},
        };
        done = graph_run(&p->graph, bindings, a->causal ? 6 : 5, workspace, stream);
    }
    return done;
}

#else

struct nn *nn_open(void **library, char *text, size_t size)
{
    (void)library;
    (void)text;
    (void)size;
    return NULL;
}

void nn_free(struct nn *d)
{
    (void)d;
}

bool nn_conv(struct nn *d, const struct vendor_conv *c, void *workspace, void *stream,
             struct vendor_left *left)
{
    (void)d;
    (void)c;
    (void)workspace;
    (void)stream;
    (void)left;
    return false;
}

bool nn_attention(struct nn *d, const struct vendor_attention *a, void *workspace, void *stream)
{
    (void)d;
    (void)a;
    (void)workspace;
    (void)stream;
    return false;
}

#endif
