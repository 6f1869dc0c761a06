/* A cuDNN graph under construction and its plan. Descriptors live as long as the graph; errors are
 * sticky: graph_plan answers false when anything before it failed. */
#ifndef OMNI_KERNELS_CUDNN_GRAPH_H
#define OMNI_KERNELS_CUDNN_GRAPH_H

#include "kernels/vendor_tables.h"

#ifdef VENDOR_CUDNN

#define GRAPH_DESCRIPTORS 64
#define GRAPH_OPERATIONS  16

struct graph {
    const struct cudnn_table *f;
    cudnnHandle_t handle;            /* NULL: plan for `device`, run nothing */
    cudnnBackendDescriptor_t device; /* NULL, or the properties of a device */
    cudnnBackendDescriptor_t owned[GRAPH_DESCRIPTORS], operations[GRAPH_OPERATIONS], plan;
    int owned_count, operation_count;
    bool failed;
};

void graph_clear(struct graph *g);

enum graph_place {
    GRAPH_REAL,   /* in the device's memory, given at the run */
    GRAPH_HIDDEN, /* between two operations, nowhere in memory */
    GRAPH_VALUE   /* one number in the host's memory, given at the run */
};
/* Sizes and distances in elements. */
cudnnBackendDescriptor_t graph_tensor(struct graph *g, int64_t uid, cudnnDataType_t type,
                                      const int64_t dims[4], const int64_t strides[4],
                                      enum graph_place place);
/* Operations, in the order of the calls. NULL: the mode has no such operand. */
void graph_conv(struct graph *g, cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t w,
                cudnnBackendDescriptor_t y, int64_t stride, const int pad[4]);
void graph_matmul(struct graph *g, cudnnBackendDescriptor_t a, cudnnBackendDescriptor_t b,
                  cudnnBackendDescriptor_t y);
void graph_reduce(struct graph *g, cudnnReduceTensorOp_t mode, cudnnBackendDescriptor_t x,
                  cudnnBackendDescriptor_t y);
void graph_pointwise(struct graph *g, cudnnPointwiseMode_t mode, cudnnBackendDescriptor_t x,
                     cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t t,
                     cudnnBackendDescriptor_t y);
/* y = the position along `axis`; x gives the shape. */
void graph_index(struct graph *g, cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t y,
                 int64_t axis);
/* Finds the plan: the heuristics' first that is deterministic, needs at most VENDOR_WORKSPACE, and
 * has no tensor cores where the answer must be `exact` fp32. */
bool graph_plan(struct graph *g, bool exact);

struct graph_binding {
    int64_t uid;
    void *address;
};
#define GRAPH_BINDINGS 8
bool graph_run(struct graph *g, const struct graph_binding *bindings, int count, void *workspace,
               void *stream);

#endif
#endif
