#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fake_vendor.h"

#ifdef VENDOR_CUDNN

struct fake_cudnn fake_cudnn;

/* ---- descriptors: a type and the attributes that were set ---- */

#define MAX_ATTRIBUTES 12
#define MAX_BYTES      256

struct attribute {
    cudnnBackendAttributeName_t name;
    int64_t count;
    uint8_t bytes[MAX_BYTES];
};

struct descriptor {
    cudnnBackendDescriptorType_t type;
    struct attribute attributes[MAX_ATTRIBUTES];
    int count;
    bool finalized;
    struct descriptor *graph; /* of a configuration */
    int engine;               /* of a configuration or an engine, from 1 */
};

static size_t size_of(cudnnBackendAttributeType_t type)
{
    switch (type) {
    case CUDNN_TYPE_BOOLEAN:
        return sizeof(bool);
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
        return 8;
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
        return sizeof(void *);
    default:
        return 4;
    }
}

static cudnnStatus_t create_context(cudnnHandle_t *handle)
{
    static int context;
    *handle = (cudnnHandle_t)(void *)&context;
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t destroy_context(cudnnHandle_t handle)
{
    (void)handle;
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t set_stream(cudnnHandle_t handle, cudaStream_t stream)
{
    (void)handle;
    fake_cudnn.stream = (void *)stream;
    return CUDNN_STATUS_SUCCESS;
}

static size_t version(void)
{
    return 91900;
}

static cudnnStatus_t create(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *out)
{
    struct descriptor *d = calloc(1, sizeof(*d));
    d->type = type;
    fake_cudnn.alive++;
    *out = d;
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t destroy(cudnnBackendDescriptor_t d)
{
    free(d);
    fake_cudnn.alive--;
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t set(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                         cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    struct descriptor *d = descriptor;
    size_t bytes = size_of(type) * (size_t)count;
    if (d->finalized || d->count == MAX_ATTRIBUTES || bytes > MAX_BYTES)
        return CUDNN_STATUS_BAD_PARAM;
    struct attribute *a = &d->attributes[d->count++];
    a->name = name;
    a->count = count;
    memcpy(a->bytes, values, bytes);
    return CUDNN_STATUS_SUCCESS;
}

static const struct attribute *find(const struct descriptor *d, cudnnBackendAttributeName_t name)
{
    for (int i = 0; i < d->count; i++)
        if (d->attributes[i].name == name)
            return &d->attributes[i];
    return NULL;
}

static int64_t integer(const struct descriptor *d, cudnnBackendAttributeName_t name, int i)
{
    const struct attribute *a = find(d, name);
    int64_t v = 0;
    if (a)
        memcpy(&v, a->bytes + 8 * i, 8);
    return v;
}

static int32_t word(const struct descriptor *d, cudnnBackendAttributeName_t name)
{
    const struct attribute *a = find(d, name);
    int32_t v = 0;
    if (a)
        memcpy(&v, a->bytes, 4);
    return v;
}

static bool flag(const struct descriptor *d, cudnnBackendAttributeName_t name)
{
    const struct attribute *a = find(d, name);
    return a && a->bytes[0];
}

static struct descriptor *link_of(const struct descriptor *d, cudnnBackendAttributeName_t name,
                                  int i)
{
    const struct attribute *a = find(d, name);
    struct descriptor *v = NULL;
    if (a && i < a->count)
        memcpy(&v, a->bytes + sizeof(void *) * (size_t)i, sizeof(v));
    return v;
}

static int operations_of(const struct descriptor *graph)
{
    const struct attribute *a = find(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS);
    return a ? (int)a->count : 0;
}

static cudnnStatus_t finalize(cudnnBackendDescriptor_t descriptor)
{
    struct descriptor *d = descriptor;
    d->finalized = true;
    if (d->type == CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR && fake_cudnn.most_operations &&
        operations_of(d) > fake_cudnn.most_operations)
        return CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN;
    fake_cudnn.searches += d->type == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR;
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t get(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                         cudnnBackendAttributeType_t type, int64_t requested, int64_t *count,
                         void *values)
{
    struct descriptor *d = descriptor, *other;
    (void)type;
    *count = 0;
    if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS) {
        for (; *count < requested && *count < fake_cudnn.engines; ++*count) {
            other = ((struct descriptor **)values)[*count];
            other->graph = link_of(d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, 0);
            other->engine = (int)*count + 1;
        }
    } else if (name == CUDNN_ATTR_ENGINECFG_ENGINE) {
        other = *(struct descriptor **)values;
        other->engine = d->engine;
        *count = 1;
    } else if (name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE) {
        *count = d->engine == 1 && fake_cudnn.note != CUDNN_NUMERICAL_NOTE_TYPE_COUNT;
        if (*count)
            memcpy(values, &fake_cudnn.note, sizeof(fake_cudnn.note));
    } else if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE) {
        other = link_of(d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, 0);
        *(int64_t *)values = other->engine == 1 ? fake_cudnn.workspace : 0;
        *count = 1;
    } else {
        return CUDNN_STATUS_BAD_PARAM;
    }
    return CUDNN_STATUS_SUCCESS;
}

/* ---- tensors of a run ---- */

#define MAX_HIDDEN 24

struct run {
    const struct descriptor *pack;
    struct {
        int64_t uid;
        double *values; /* dense */
    } hidden[MAX_HIDDEN];
    int count;
};

/* A tensor where its numbers are. */
struct view {
    int64_t dims[4], strides[4];
    enum vendor_type type;
    void *data;     /* in memory; NULL: */
    double *hidden; /* dense */
};

static double *hidden_of(struct run *r, int64_t uid, const int64_t dims[4])
{
    for (int i = 0; i < r->count; i++)
        if (r->hidden[i].uid == uid)
            return r->hidden[i].values;
    r->hidden[r->count].uid = uid;
    r->hidden[r->count].values =
        calloc((size_t)(dims[0] * dims[1] * dims[2] * dims[3]), sizeof(double));
    return r->hidden[r->count++].values;
}

static void *address_of(const struct run *r, int64_t uid)
{
    const struct attribute *uids = find(r->pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    for (int i = 0; i < uids->count; i++)
        if (integer(r->pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, i) == uid)
            return link_of(r->pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, i);
    return NULL;
}

static struct view view_of(struct run *r, const struct descriptor *t)
{
    int32_t type = word(t, CUDNN_ATTR_TENSOR_DATA_TYPE);
    int64_t uid = integer(t, CUDNN_ATTR_TENSOR_UNIQUE_ID, 0), dense = 1;
    bool value = flag(t, CUDNN_ATTR_TENSOR_IS_BY_VALUE);
    struct view v = {.type = type == CUDNN_DATA_BFLOAT16 ? VENDOR_BF16
                             : type == CUDNN_DATA_HALF   ? VENDOR_F16
                                                         : VENDOR_F32};
    for (int i = 0; i < 4; i++) {
        v.dims[i] = integer(t, CUDNN_ATTR_TENSOR_DIMENSIONS, i);
        v.strides[i] = value ? 0 : integer(t, CUDNN_ATTR_TENSOR_STRIDES, i);
    }
    if (!flag(t, CUDNN_ATTR_TENSOR_IS_VIRTUAL)) {
        v.data = address_of(r, uid);
        return v;
    }
    v.hidden = hidden_of(r, uid, v.dims);
    for (int i = 3; i >= 0; dense *= v.dims[i--])
        v.strides[i] = dense;
    return v;
}

/* An axis of one repeats; heads of k and v repeat over groups of queries' heads. */
static double load(const struct view *v, const int64_t at[4], const int64_t whole[4])
{
    int64_t index = 0;
    for (int i = 0; i < 4; i++)
        if (v->dims[i] > 1)
            index += (i == 1 ? at[1] / (whole[1] / v->dims[1]) : at[i]) * v->strides[i];
    return v->data ? fake_load(v->data, index, v->type) : v->hidden[index];
}

static void store(const struct view *v, const int64_t at[4], double value)
{
    int64_t index = 0;
    float rounded[1];
    for (int i = 0; i < 4; i++)
        index += at[i] * v->strides[i];
    if (v->data) {
        fake_store(v->data, index, v->type, value);
    } else {
        fake_store(rounded, 0, v->type, value);
        v->hidden[index] = fake_load(rounded, 0, v->type);
    }
}

/* ---- operations ---- */

/* Operands, and what says how. */
struct operation {
    struct view x, b, t;
    bool has_b, has_t;
    int32_t mode;
    int64_t axis, stride[2], pad[2];
};

static double convolve(const struct operation *op, const int64_t at[4], const int64_t whole[4])
{
    const struct view *x = &op->x, *w = &op->b; /* real ones */
    double sum = 0;
    (void)whole;
    for (int64_t k = 0; k < w->dims[2] * w->dims[3]; k++) {
        int64_t i = k / w->dims[3], j = k % w->dims[3];
        int64_t v = at[2] * op->stride[0] + i - op->pad[0];
        int64_t h = at[3] * op->stride[1] + j - op->pad[1];
        int64_t from = at[0] * x->strides[0] + v * x->strides[2] + h * x->strides[3];
        int64_t tap = at[1] * w->strides[0] + i * w->strides[2] + j * w->strides[3];
        if (v < 0 || v >= x->dims[2] || h < 0 || h >= x->dims[3])
            continue;
        for (int64_t c = 0; c < w->dims[1]; c++)
            sum += fake_load(x->data, from + c * x->strides[1], x->type) *
                   fake_load(w->data, tap + c * w->strides[1], w->type);
    }
    return sum;
}

static double product(const struct operation *op, const int64_t at[4], const int64_t whole[4])
{
    double sum = 0;
    for (int64_t k = 0; k < op->x.dims[3]; k++)
        sum += load(&op->x, (int64_t[4]){at[0], at[1], at[2], k}, whole) *
               load(&op->b, (int64_t[4]){at[0], at[1], k, at[3]}, whole);
    return sum;
}

static double reduce(const struct operation *op, const int64_t at[4], const int64_t whole[4])
{
    bool most = op->mode == CUDNN_REDUCE_TENSOR_MAX;
    double sum = most ? -INFINITY : 0;
    for (int64_t k = 0; k < op->x.dims[3]; k++) {
        double v = load(&op->x, (int64_t[4]){at[0], at[1], at[2], k}, whole);
        sum = !most ? sum + v : v > sum ? v : sum;
    }
    return sum;
}

static double pointwise(const struct operation *op, const int64_t at[4], const int64_t whole[4])
{
    double x = load(&op->x, at, whole), b = op->has_b ? load(&op->b, at, whole) : 0;
    switch (op->mode) {
    case CUDNN_POINTWISE_ADD:
        return x + b;
    case CUDNN_POINTWISE_SUB:
        return x - b;
    case CUDNN_POINTWISE_MUL:
        return x * b;
    case CUDNN_POINTWISE_DIV:
        return x / b;
    case CUDNN_POINTWISE_EXP:
        return exp(x);
    case CUDNN_POINTWISE_LOG:
        return log(x);
    case CUDNN_POINTWISE_RELU_FWD:
        return x > 0 ? x : 0;
    case CUDNN_POINTWISE_CMP_GE:
        return x >= b;
    case CUDNN_POINTWISE_BINARY_SELECT:
        return op->has_t && load(&op->t, at, whole) != 0 ? x : b;
    case CUDNN_POINTWISE_GEN_INDEX:
        return (double)at[op->axis];
    default:
        return NAN;
    }
}

/* Where each kind of operation keeps what. */
static const struct kind {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t x, b, t, y, how, mode;
    double (*value)(const struct operation *op, const int64_t at[4], const int64_t whole[4]);
} kinds[] = {
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
     CUDNN_ATTR_OPERATION_POINTWISE_TDESC, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_ATTR_CONVOLUTION_CONV_MODE,
     convolve},
    {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_ATTR_OPERATION_MATMUL_ADESC,
     CUDNN_ATTR_OPERATION_MATMUL_BDESC, CUDNN_ATTR_OPERATION_POINTWISE_TDESC,
     CUDNN_ATTR_OPERATION_MATMUL_CDESC, CUDNN_ATTR_OPERATION_MATMUL_DESC,
     CUDNN_ATTR_MATMUL_COMP_TYPE, product},
    {CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, CUDNN_ATTR_OPERATION_REDUCTION_XDESC,
     CUDNN_ATTR_OPERATION_POINTWISE_BDESC, CUDNN_ATTR_OPERATION_POINTWISE_TDESC,
     CUDNN_ATTR_OPERATION_REDUCTION_YDESC, CUDNN_ATTR_OPERATION_REDUCTION_DESC,
     CUDNN_ATTR_REDUCTION_OPERATOR, reduce},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_XDESC,
     CUDNN_ATTR_OPERATION_POINTWISE_BDESC, CUDNN_ATTR_OPERATION_POINTWISE_TDESC,
     CUDNN_ATTR_OPERATION_POINTWISE_YDESC, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR,
     CUDNN_ATTR_POINTWISE_MODE, pointwise},
};

static struct operation operation_of(struct run *r, const struct descriptor *d,
                                     const struct kind *kind)
{
    struct operation op = {0};
    struct descriptor *how = link_of(d, kind->how, 0), *b = link_of(d, kind->b, 0);
    struct descriptor *t = link_of(d, kind->t, 0);
    op.has_b = b != NULL;
    op.has_t = t != NULL;
    op.x = view_of(r, link_of(d, kind->x, 0));
    if (b)
        op.b = view_of(r, b);
    if (t)
        op.t = view_of(r, t);
    op.mode = word(how, kind->mode);
    op.axis = integer(how, CUDNN_ATTR_POINTWISE_AXIS, 0);
    for (int i = 0; i < 2; i++) {
        op.stride[i] = integer(how, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, i);
        op.pad[i] = integer(how, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, i);
    }
    return op;
}

static void perform(struct run *r, const struct descriptor *d)
{
    const struct kind *kind = kinds;
    while (kind->type != d->type)
        kind++;
    struct operation op = operation_of(r, d, kind);
    struct view y = view_of(r, link_of(d, kind->y, 0));
    int64_t at[4];
    for (at[0] = 0; at[0] < y.dims[0]; at[0]++)
        for (at[1] = 0; at[1] < y.dims[1]; at[1]++)
            for (at[2] = 0; at[2] < y.dims[2]; at[2]++)
                for (at[3] = 0; at[3] < y.dims[3]; at[3]++)
                    store(&y, at, kind->value(&op, at, y.dims));
}

static cudnnStatus_t execute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                             cudnnBackendDescriptor_t pack)
{
    struct descriptor *configuration = link_of(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, 0);
    struct run r = {.pack = pack};
    (void)handle;
    if (fake_cudnn.broken)
        return CUDNN_STATUS_EXECUTION_FAILED;
    fake_cudnn.runs++;
    fake_cudnn.engine = configuration->engine;
    fake_cudnn.operations = operations_of(configuration->graph);
    for (int i = 0; i < fake_cudnn.operations; i++)
        perform(&r, link_of(configuration->graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, i));
    for (int i = 0; i < r.count; i++)
        free(r.hidden[i].values);
    return CUDNN_STATUS_SUCCESS;
}

const struct cudnn_table fake_cudnn_table = {
    .Create = create_context,
    .Destroy = destroy_context,
    .SetStream = set_stream,
    .GetVersion = version,
    .BackendCreateDescriptor = create,
    .BackendDestroyDescriptor = destroy,
    .BackendSetAttribute = set,
    .BackendGetAttribute = get,
    .BackendFinalize = finalize,
    .BackendExecute = execute,
};

#endif
