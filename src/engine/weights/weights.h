/* Weights: tensors of a checkpoint part, asked for by name and exact shape.
 *
 * A part is one .safetensors file, or a folder holding `stem.safetensors` or
 * `stem.safetensors.index.json` with shards (also the `.fp16` variants, when there is nothing
 * better). Files are memory-mapped and treated as hostile: every header field is checked before it
 * is used. A mapped file must not be truncated by others (SIGBUS): replace checkpoints by rename.
 */
#ifndef OMNI_WEIGHTS_H
#define OMNI_WEIGHTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/formula.h"
#include "engine/ops.h"

struct weights;

struct weights_entry {
    const char *name;
    const char *file; /* path, for messages */
    char stored[12];  /* the file's dtype word: "F32", "BF16", "F16", "I64" … */
    bool usable;      /* stored as F32, BF16 or F16, or can be expanded */
    enum dtype dtype;
    size_t element; /* bytes of one value; 0: values are in blocks */
    int rank;
    int64_t dims[8];
    const void *data; /* mapped, and where the file says: maybe at an odd address */
    size_t bytes;
    /* Quantized (GGUF) or 8-bit floats: writes `values` numbers as fp32, not yet times `scale`;
     * NULL where the data is of `dtype`. Callers take weights_entry_values. */
    void (*expand)(const void *blocks, int64_t values, float *out);
    float scale;            /* what the values are multiplied with; 0: nothing */
    struct formula formula; /* of the bf16 values, where they have one */
};

/* `values` numbers of an entry with `expand` as fp32; `from` points into its data, at a block. */
void weights_entry_values(const struct weights_entry *t, const void *from, int64_t values,
                          float *out);

/* `path`: a file (.safetensors or an index), or a folder in which `stem` is looked for
 * ("diffusion_pytorch_model", "model"). -ENOENT where there is none, -EINVAL on a fault. */
int weights_open(const char *path, const char *stem, struct weights **out, struct err *e);
/* One file, of which only tensors that begin with `prefix` count, under the names that `rules`
 * (rename.h; NULL: none) make of what follows the prefix. */
struct rename_rule;
int weights_open_renamed(const char *path, const char *prefix, const struct rename_rule *rules,
                         struct weights **out, struct err *e);
/* No files: a loader gets whatever it asks for (synthetic.h), to measure. */
int weights_synthetic(const char *path, struct weights **out, struct err *e);
void weights_close(struct weights *w);
const char *weights_path(const struct weights *w);
size_t weights_count(const struct weights *w);
const struct weights_entry *weights_at(const struct weights *w, size_t i); /* sorted by name */
const struct weights_entry *weights_find(const struct weights *w, const char *name);
uint64_t weights_parameters(const struct weights *w);
uint64_t weights_bytes(const struct weights *w);
/* Gives a tensor's mapped pages back to the system, which reads them again when they are asked for;
 * and asks for them beforehand. Both do nothing for data that is not mapped. */
void weights_forget(const struct weights *w, const struct weights_entry *t);
void weights_read_ahead(const struct weights *w, const struct weights_entry *t);
/* How many tensors no loader has asked for; up to `max` of their names (borrowed) into `names`. */
size_t weights_unused(const struct weights *w, const char **names, size_t max);

/* A weight, and where its values come from. */
struct weight_source {
    struct tensor *tensor;
    const struct weights_entry *entry;
    bool changed; /* it has other values than the file: weight_change.make */
    bool ready;   /* the tensor has data; else it is good for plans alone */
    void *copy;   /* values that the tensor reads and no file has, or NULL */
};

/* Makes the values of a weight that is changed, in `type`: shape and order as in the file. */
struct weight_loader;
struct weight_change {
    int (*make)(void *ctx, const struct weight_loader *l, size_t i, enum dtype type, void *out,
                struct err *e);
    void *ctx;
};

/* A loader with a sticky error: load a whole part without checks, ask once.
 *     struct weight_loader l = {.weights = w, .backend = b, .compute = DTYPE_BF16};
 *     blk->to_q = weight(&l, SHAPE(d, d), "transformer_blocks.%d.attn.to_q.weight", i);
 *     if (l.err.code) … */
struct weight_loader {
    struct weights *weights;
    struct backend *backend;
    enum dtype compute;
    bool fp8;           /* what weight_linear makes is in e4m3 (backend.fp8) */
    bool shapes_only;   /* never more than plans: no data is touched */
    bool asleep;        /* tensors serve plans alone until weight_loader_wake */
    bool in_blocks;     /* quantized matrices stay so where the backend can (backend.blocks) */
    const char *prefix; /* put before every name, may be NULL */
    struct err err;     /* the first failure: file, tensor, found, expected */
    uint64_t parameters;
    struct weight_source *list; /* [count]: every tensor made, in order */
    size_t count, cap;
    struct weight_change change;
    bool (*cancelled)(void *ctx); /* asked while weights wake, may be NULL */
    void *cancel_ctx;
};
struct tensor *weight(struct weight_loader *l, int rank, const int64_t *dims, const char *fmt, ...)
    ERR_PRINTF(4, 5);
/* NULL without error where the tensor is not in the file. */
struct tensor *weight_optional(struct weight_loader *l, int rank, const int64_t *dims,
                               const char *fmt, ...) ERR_PRINTF(4, 5);
/* The matrix of a large linear layer: in a model of many such, most of the work. */
struct tensor *weight_linear(struct weight_loader *l, int64_t rows, int64_t columns,
                             const char *fmt, ...) ERR_PRINTF(4, 5);
/* Of which op_embedding looks rows up. */
struct tensor *weight_table(struct weight_loader *l, int64_t rows, int64_t columns, const char *fmt,
                            ...) ERR_PRINTF(4, 5);
/* Copies a tensor of `count` values, stored as F32, BF16, F16 or F64, to fp32 host memory (zeros
 * when shapes_only); 0 or the sticky error: -ENOENT, -EINVAL on another count. */
int weight_to_f32(struct weight_loader *l, float *dst, int64_t count, const char *fmt, ...)
    ERR_PRINTF(4, 5);

/* Gives every tensor its data, or takes it away and with it the memory; what is so already stays.
 * After a failure of either (-ENOMEM, -ECANCELED, what weight_change.make says) some tensors have
 * data, and the next call goes on. */
int weight_loader_wake(struct weight_loader *l, struct err *e);
int weight_loader_sleep(struct weight_loader *l, struct err *e);
/* From the next wake on, weight i has changed values or the file's again; it is asleep. */
int weight_loader_change(struct weight_loader *l, size_t i, bool changed, struct err *e);
/* The type of changed values: that of products, so that they are rounded once; what is no factor of
 * products stays fp32. */
enum dtype weight_changed_type(const struct weight_loader *l, size_t i);
/* Sets in_blocks for tensors that are made already; those that become others are asleep. */
int weight_loader_keep_blocks(struct weight_loader *l, bool keep, struct err *e);
/* Bytes of memory, exactly, of the tensors that have data or (`ready` false) would have. */
uint64_t weight_loader_bytes(const struct weight_loader *l, bool ready);
/* Rows (along the last axis) first … first + rows - 1 of a quantized tensor, in F32 or BF16. */
void weight_expand(const struct weights_entry *t, int64_t first, int64_t rows, enum dtype dtype,
                   void *out);
/* Frees every tensor the loader made (the model keeps `list` and calls this at its end). */
void weight_loader_free(struct weight_loader *l);

#endif
