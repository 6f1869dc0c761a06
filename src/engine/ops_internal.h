/* Inside the operations layer: the context and the helpers that its files share. Nobody else
 * includes this; models see ops.h, kernels see backend.h. */
#ifndef OMNI_OPS_INTERNAL_H
#define OMNI_OPS_INTERNAL_H

#include "engine/backend.h"

#define OPS_ALIGN 64

struct ops_level {
    size_t used, handles; /* arena bytes and tensor handles at ops_push */
};

struct ops {
    struct backend *backend;
    enum dtype compute, results;
    bool planning;
    struct err error; /* the first failure */

    char *base; /* arena; NULL while planning */
    size_t capacity, used, peak;
    struct tensor **blocks; /* handles, in blocks that never move */
    size_t block_count, handles;
    struct ops_level *levels;
    size_t level_count, level_cap;

    bool (*cancelled)(void *);
    void *cancel_ctx;
    double cancel_asked; /* clock_seconds() of the last question */

    struct op_stats stats[OP_KINDS];
    void (*record)(void *, enum op_kind, const char *, uint64_t, double);
    void *record_ctx;
};

/* ---- arena.c ---- */

/* Bytes of a dense tensor; -EOVERFLOW when the sizes are not positive or too large to address. */
int shape_bytes(enum dtype d, int rank, const int64_t *dims, size_t *bytes);
/* A dense tensor on top of the arena; NULL with the sticky error. */
struct tensor *arena_tensor(struct ops *o, enum dtype d, int rank, const int64_t *dims);
/* A handle without memory of its own, a copy of `like`. */
struct tensor *arena_view(struct ops *o, const struct tensor *like);
void arena_free(struct ops *o);

/* ---- running one operation ---- */

struct op_run {
    double start;
    size_t used; /* scratch goes back to here */
};
/* Call after the result was allocated and before the kernel. */
struct op_run op_begin(struct ops *o);
/* Frees scratch and counts; returns y, or NULL when the kernel failed. */
struct tensor *op_end(struct ops *o, struct op_run run, enum op_kind kind, uint64_t flops,
                      uint64_t bytes, struct tensor *y);
/* The same for traced operations, with the shape as text. */
struct tensor *op_end_traced(struct ops *o, struct op_run run, enum op_kind kind, uint64_t flops,
                             uint64_t bytes, struct tensor *y, const char *shape);
/* Sum of the bytes of the tensors up to NULL. */
uint64_t op_bytes(const struct tensor *first, ...);

/* ---- check.c: every one returns true, or records the failure and returns false ---- */

#define SHAPE_TEXT 112
/* "[1, 104, 256] f32" into out[SHAPE_TEXT]; returns out. */
const char *shape_text(const struct tensor *t, char *out);
/* No failure so far and no tensor among `count` is NULL. */
bool check_ready(struct ops *o, const char *op, int count, const struct tensor *const *tensors);
#define READY(o, op, ...)                                                                          \
    check_ready(o, op,                                                                             \
                (int)(sizeof((const struct tensor *[]){__VA_ARGS__}) / sizeof(struct tensor *)),   \
                (const struct tensor *const[]){__VA_ARGS__})
bool check_f32(struct ops *o, const char *op, const char *name, const struct tensor *t);
/* What may lie between products: f32, or bf16 where the backend has it (ops_set_results). */
bool check_activation(struct ops *o, const char *op, const char *name, const struct tensor *t);
bool check_float(struct ops *o, const char *op, const char *name, const struct tensor *t);
bool check_rank(struct ops *o, const char *op, const char *name, const struct tensor *t, int rank);
/* Exact shape and dtype F32; a dimension of -1 in `dims` may be anything. NULL `t` passes. */
bool check_shape(struct ops *o, const char *op, const char *name, const struct tensor *t, int rank,
                 const int64_t *dims);
bool check_act(struct ops *o, const char *op, enum activation act);
bool check_same(struct ops *o, const char *op, const struct tensor *a, const struct tensor *b);
/* The same but for the types. */
bool check_same_shape(struct ops *o, const char *op, const struct tensor *a,
                      const struct tensor *b);

#endif
