#include "kernels/cudnn_graph.h"

#ifdef VENDOR_CUDNN

#include <string.h>

typedef cudnnBackendDescriptor_t descriptor;

void graph_clear(struct graph *g)
{
    while (g->owned_count > 0)
        g->f->BackendDestroyDescriptor(g->owned[--g->owned_count]);
    memset(g, 0, sizeof(*g));
}

/* ---- descriptors ---- */

static descriptor create(struct graph *g, cudnnBackendDescriptorType_t type)
{
    descriptor d = NULL;
    if (g->failed || g->owned_count == GRAPH_DESCRIPTORS ||
        g->f->BackendCreateDescriptor(type, &d)) {
        g->failed = true;
        return NULL;
    }
    g->owned[g->owned_count++] = d;
    return d;
}

/* Destroys what was created since there were `count`. */
static void drop_to(struct graph *g, int count)
{
    while (g->owned_count > count)
        g->f->BackendDestroyDescriptor(g->owned[--g->owned_count]);
}

static void set(struct graph *g, descriptor d, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    if (!g->failed && g->f->BackendSetAttribute(d, name, type, count, values))
        g->failed = true;
}

static void set_int(struct graph *g, descriptor d, cudnnBackendAttributeName_t name, int64_t value)
{
    set(g, d, name, CUDNN_TYPE_INT64, 1, &value);
}

static void set_type(struct graph *g, descriptor d, cudnnBackendAttributeName_t name,
                     cudnnDataType_t value)
{
    set(g, d, name, CUDNN_TYPE_DATA_TYPE, 1, &value);
}

static void set_descriptor(struct graph *g, descriptor d, cudnnBackendAttributeName_t name,
                           descriptor value)
{
    if (value)
        set(g, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void finalize(struct graph *g, descriptor d)
{
    if (!g->failed && g->f->BackendFinalize(d))
        g->failed = true;
}

static void operation(struct graph *g, descriptor d)
{
    finalize(g, d);
    if (g->operation_count == GRAPH_OPERATIONS)
        g->failed = true;
    if (!g->failed)
        g->operations[g->operation_count++] = d;
}

descriptor graph_tensor(struct graph *g, int64_t uid, cudnnDataType_t type, const int64_t dims[4],
                        const int64_t strides[4], enum graph_place place)
{
    descriptor d = create(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    bool hidden = place == GRAPH_HIDDEN, value = place == GRAPH_VALUE;
    set_type(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, type);
    set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims);
    set(g, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides);
    set_int(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, uid);
    set_int(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 16);
    if (hidden)
        set(g, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &hidden);
    if (value)
        set(g, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &value);
    finalize(g, d);
    return d;
}

/* ---- operations ---- */

static descriptor convolution(struct graph *g, int64_t stride, const int pad[4])
{
    descriptor d = create(g, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    const int64_t steps[] = {stride, stride}, dense[] = {1, 1};
    const int64_t before[] = {pad[0], pad[2]}, behind[] = {pad[1], pad[3]};
    cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    set_type(g, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT);
    set(g, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    set_int(g, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 2);
    set(g, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, steps);
    set(g, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dense);
    set(g, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, before);
    set(g, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, behind);
    finalize(g, d);
    return d;
}

void graph_conv(struct graph *g, descriptor x, descriptor w, descriptor y, int64_t stride,
                const int pad[4])
{
    const float one = 1, zero = 0;
    descriptor conv = convolution(g, stride, pad);
    descriptor d = create(g, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, conv);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, w);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, y);
    set(g, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &one);
    set(g, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &zero);
    operation(g, d);
}

void graph_matmul(struct graph *g, descriptor a, descriptor b, descriptor y)
{
    descriptor product = create(g, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    set_type(g, product, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT);
    finalize(g, product);
    descriptor d = create(g, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_MATMUL_CDESC, y);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_MATMUL_DESC, product);
    operation(g, d);
}

void graph_reduce(struct graph *g, cudnnReduceTensorOp_t mode, descriptor x, descriptor y)
{
    descriptor how = create(g, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    set_type(g, how, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT);
    set(g, how, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &mode);
    finalize(g, how);
    descriptor d = create(g, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_REDUCTION_DESC, how);
    operation(g, d);
}

/* axis negative: the mode has none. */
static void pointwise(struct graph *g, cudnnPointwiseMode_t mode, int64_t axis, descriptor x,
                      descriptor b, descriptor t, descriptor y)
{
    descriptor how = create(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    cudnnDataType_t type = mode == CUDNN_POINTWISE_CMP_GE ? CUDNN_DATA_BOOLEAN
                           : axis >= 0                    ? CUDNN_DATA_INT32
                                                          : CUDNN_DATA_FLOAT;
    set(g, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    set_type(g, how, CUDNN_ATTR_POINTWISE_MATH_PREC, type);
    if (axis >= 0)
        set_int(g, how, CUDNN_ATTR_POINTWISE_AXIS, axis);
    finalize(g, how);
    descriptor d = create(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, t);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    operation(g, d);
}

void graph_pointwise(struct graph *g, cudnnPointwiseMode_t mode, descriptor x, descriptor b,
                     descriptor t, descriptor y)
{
    pointwise(g, mode, -1, x, b, t, y);
}

void graph_index(struct graph *g, descriptor x, descriptor y, int64_t axis)
{
    pointwise(g, CUDNN_POINTWISE_GEN_INDEX, axis, x, NULL, NULL, y);
}

/* ---- the plan ---- */

/* Does the engine of a configuration do what we do not want? */
static bool unwanted(struct graph *g, descriptor configuration, bool exact)
{
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    int64_t count = 0;
    int before = g->owned_count;
    descriptor engine = create(g, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    bool bad = !engine ||
               g->f->BackendGetAttribute(configuration, CUDNN_ATTR_ENGINECFG_ENGINE,
                                         CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &engine) ||
               g->f->BackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                         CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT,
                                         &count, notes);
    for (int64_t i = 0; !bad && i < count; i++)
        bad = notes[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC ||
              notes[i] == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION ||
              (exact && (notes[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE ||
                         notes[i] == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS));
    drop_to(g, before);
    return bad;
}

static bool plan_of(struct graph *g, descriptor configuration)
{
    int64_t bytes = 0, count = 0;
    descriptor plan = create(g, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    if (g->handle)
        set(g, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &g->handle);
    set_descriptor(g, plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, g->device);
    set_descriptor(g, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configuration);
    finalize(g, plan);
    if (!g->failed &&
        !g->f->BackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64,
                                   1, &count, &bytes) &&
        bytes <= (int64_t)VENDOR_WORKSPACE)
        g->plan = plan;
    return g->plan != NULL;
}

#define CONFIGURATIONS 8

/* Asks one kind of heuristics; at most CONFIGURATIONS answers are tried. */
static bool search(struct graph *g, descriptor graph, cudnnBackendHeurMode_t mode, bool exact)
{
    int before = g->owned_count;
    int64_t count = 0;
    descriptor found[CONFIGURATIONS];
    descriptor heuristics = create(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    set_descriptor(g, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    set(g, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    set_descriptor(g, heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, g->device);
    finalize(g, heuristics);
    for (int i = 0; i < CONFIGURATIONS; i++)
        found[i] = create(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (!g->failed &&
        g->f->BackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                  CUDNN_TYPE_BACKEND_DESCRIPTOR, CONFIGURATIONS, &count, found))
        g->failed = true;
    for (int64_t i = 0; !g->failed && i < count && i < CONFIGURATIONS; i++) {
        int tried = g->owned_count;
        if (!unwanted(g, found[i], exact) && plan_of(g, found[i]))
            return true;
        drop_to(g, tried);
        g->failed = false; /* the next may work */
    }
    drop_to(g, before);
    g->failed = false;
    return false;
}

bool graph_plan(struct graph *g, bool exact)
{
    descriptor graph = create(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    if (g->handle)
        set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &g->handle);
    set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, g->operation_count,
        g->operations);
    finalize(g, graph);
    return !g->failed && (search(g, graph, CUDNN_HEUR_MODE_A, exact) ||
                          search(g, graph, CUDNN_HEUR_MODE_FALLBACK, exact));
}

/* ---- the run ---- */

bool graph_run(struct graph *g, const struct graph_binding *bindings, int count, void *workspace,
               void *stream)
{
    int64_t uids[GRAPH_BINDINGS];
    void *addresses[GRAPH_BINDINGS];
    if (!g->plan || !g->handle || count > GRAPH_BINDINGS)
        return false;
    for (int i = 0; i < count; i++) {
        uids[i] = bindings[i].uid;
        addresses[i] = bindings[i].address;
    }
    int before = g->owned_count;
    g->failed = g->f->SetStream(g->handle, (cudaStream_t)stream) != CUDNN_STATUS_SUCCESS;
    descriptor pack = create(g, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    set(g, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, uids);
    set(g, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, addresses);
    set(g, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    finalize(g, pack);
    bool ran = !g->failed && !g->f->BackendExecute(g->handle, g->plan, pack);
    drop_to(g, before);
    g->failed = false;
    return ran;
}

#endif
