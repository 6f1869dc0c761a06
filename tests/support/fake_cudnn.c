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

static void sizes_of(const struct descriptor *t, int64_t dims[4])
{
    for (int i = 0; i < 4; i++)
        dims[i] = integer(t, CUDNN_ATTR_TENSOR_DIMENSIONS, i);
}

static double *hidden_of(struct run *r, const struct descriptor *t)
{
    int64_t uid = integer(t, CUDNN_ATTR_TENSOR_UNIQUE_ID, 0), dims[4];
    for (int i = 0; i < r->count; i++)
        if (r->hidden[i].uid == uid)
            return r->hidden[i].values;
    sizes_of(t, dims);
    r->hidden[r->count].uid = uid;
    r->hidden[r->count].values =
        calloc((size_t)(dims[0] * dims[1] * dims[2] * dims[3]), sizeof(double));
    return r->hidden[r->count++].values;
}

static void *address_of(const struct run *r, const struct descriptor *t)
{
    const struct attribute *uids = find(r->pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    int64_t uid = integer(t, CUDNN_ATTR_TENSOR_UNIQUE_ID, 0);
    for (int i = 0; i < uids->count; i++)
        if (integer(r->pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, i) == uid)
            return link_of(r->pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, i);
    return NULL;
}

static enum vendor_type type_of(const struct descriptor *t)
{
    int32_t type = word(t, CUDNN_ATTR_TENSOR_DATA_TYPE);
    return type == CUDNN_DATA_BFLOAT16 ? VENDOR_BF16
           : type == CUDNN_DATA_HALF   ? VENDOR_F16
                                       : VENDOR_F32;
}

/* An axis of one repeats; heads of k and v repeat over groups of queries' heads. */
static double load(struct run *r, const struct descriptor *t, const int64_t at[4],
                   const int64_t whole[4])
{
    int64_t dims[4], index = 0, dense = 0;
    sizes_of(t, dims);
    for (int i = 0; i < 4; i++) {
        int64_t k = dims[i] == 1 ? 0 : at[i];
        if (i == 1 && dims[1] > 1 && dims[1] < whole[1])
            k = at[1] / (whole[1] / dims[1]);
        index += k * integer(t, CUDNN_ATTR_TENSOR_STRIDES, i);
        dense = dense * dims[i] + k;
    }
    if (flag(t, CUDNN_ATTR_TENSOR_IS_VIRTUAL))
        return hidden_of(r, t)[dense];
    if (flag(t, CUDNN_ATTR_TENSOR_IS_BY_VALUE))
        return *(const float *)address_of(r, t);
    return fake_load(address_of(r, t), index, type_of(t));
}

static void store(struct run *r, const struct descriptor *t, const int64_t at[4], double value)
{
    int64_t dims[4], index = 0, dense = 0;
    float rounded[1];
    sizes_of(t, dims);
    for (int i = 0; i < 4; i++) {
        index += at[i] * integer(t, CUDNN_ATTR_TENSOR_STRIDES, i);
        dense = dense * dims[i] + at[i];
    }
    if (flag(t, CUDNN_ATTR_TENSOR_IS_VIRTUAL)) {
        fake_store(rounded, 0, type_of(t), value);
        hidden_of(r, t)[dense] = fake_load(rounded, 0, type_of(t));
    } else {
        fake_store(address_of(r, t), index, type_of(t), value);
    }
}

/* ---- operations ---- */

static double convolve(struct run *r, const struct descriptor *op, const int64_t at[4],
                       const int64_t whole[4])
{
    struct descriptor *x = link_of(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, 0);
    struct descriptor *w = link_of(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, 0);
    struct descriptor *how = link_of(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, 0);
    int64_t sizes[4], filter[4];
    double sum = 0;
    sizes_of(x, sizes);
    sizes_of(w, filter);
    for (int64_t c = 0; c < filter[1]; c++)
        for (int64_t k = 0; k < filter[2] * filter[3]; k++) {
            int64_t i = k / filter[3], j = k % filter[3];
            int64_t v = at[2] * integer(how, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, 0) + i -
                        integer(how, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, 0);
            int64_t h = at[3] * integer(how, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, 1) + j -
                        integer(how, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, 1);
            if (v < 0 || v >= sizes[2] || h < 0 || h >= sizes[3])
                continue;
            sum += load(r, x, (int64_t[4]){at[0], c, v, h}, whole) *
                   load(r, w, (int64_t[4]){at[1], c, i, j}, filter);
        }
    return sum;
}

static double product(struct run *r, const struct descriptor *op, const int64_t at[4],
                      const int64_t whole[4])
{
    struct descriptor *a = link_of(op, CUDNN_ATTR_OPERATION_MATMUL_ADESC, 0);
    struct descriptor *b = link_of(op, CUDNN_ATTR_OPERATION_MATMUL_BDESC, 0);
    int64_t depth = integer(a, CUDNN_ATTR_TENSOR_DIMENSIONS, 3);
    double sum = 0;
    for (int64_t k = 0; k < depth; k++)
        sum += load(r, a, (int64_t[4]){at[0], at[1], at[2], k}, whole) *
               load(r, b, (int64_t[4]){at[0], at[1], k, at[3]}, whole);
    return sum;
}

static double reduce(struct run *r, const struct descriptor *op, const int64_t at[4],
                     const int64_t whole[4])
{
    struct descriptor *x = link_of(op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, 0);
    struct descriptor *how = link_of(op, CUDNN_ATTR_OPERATION_REDUCTION_DESC, 0);
    bool most = word(how, CUDNN_ATTR_REDUCTION_OPERATOR) == CUDNN_REDUCE_TENSOR_MAX;
    int64_t columns = integer(x, CUDNN_ATTR_TENSOR_DIMENSIONS, 3);
    double sum = most ? -INFINITY : 0;
    for (int64_t k = 0; k < columns; k++) {
        double v = load(r, x, (int64_t[4]){at[0], at[1], at[2], k}, whole);
        sum = !most ? sum + v : v > sum ? v : sum;
    }
    return sum;
}

static double pointwise(struct run *r, const struct descriptor *op, const int64_t at[4],
                        const int64_t whole[4])
{
    struct descriptor *how = link_of(op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, 0);
    struct descriptor *bd = link_of(op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, 0);
    struct descriptor *td = link_of(op, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, 0);
    double x = load(r, link_of(op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, 0), at, whole);
    double b = bd ? load(r, bd, at, whole) : 0, t = td ? load(r, td, at, whole) : 0;
    switch (word(how, CUDNN_ATTR_POINTWISE_MODE)) {
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
        return t != 0 ? x : b;
    case CUDNN_POINTWISE_GEN_INDEX:
        return (double)at[integer(how, CUDNN_ATTR_POINTWISE_AXIS, 0)];
    default:
        return NAN;
    }
}

static const struct {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t result;
    double (*value)(struct run *r, const struct descriptor *op, const int64_t at[4],
                    const int64_t whole[4]);
} operations[] = {
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, convolve},
    {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_ATTR_OPERATION_MATMUL_CDESC, product},
    {CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, reduce},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, pointwise},
};

static void perform(struct run *r, const struct descriptor *op)
{
    for (size_t k = 0; k < sizeof(operations) / sizeof(*operations); k++) {
        if (operations[k].type != op->type)
            continue;
        struct descriptor *y = link_of(op, operations[k].result, 0);
        int64_t d[4], at[4];
        sizes_of(y, d);
        for (at[0] = 0; at[0] < d[0]; at[0]++)
            for (at[1] = 0; at[1] < d[1]; at[1]++)
                for (at[2] = 0; at[2] < d[2]; at[2]++)
                    for (at[3] = 0; at[3] < d[3]; at[3]++)
                        store(r, y, at, operations[k].value(r, op, at, d));
    }
}

static cudnnStatus_t execute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                             cudnnBackendDescriptor_t pack)
{
    struct descriptor *configuration = link_of(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, 0);
    struct run r = {.pack = pack};
    (void)handle;
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
