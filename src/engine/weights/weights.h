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
    const void *data; /* mapped, at least element-aligned or copied so */
    size_t bytes;
    /* Quantized (GGUF) or 8-bit floats: writes `values` numbers as fp32, not yet times `scale`;
     * NULL where the data is of `dtype`. Callers take weights_expand. */
    void (*expand)(const void *blocks, int64_t values, float *out);
    float scale; /* what the values are multiplied with; 0: nothing */
};

/* `values` numbers of an entry with `expand` as fp32; `from` points into its data, at a block. */
void weights_expand(const struct weights_entry *t, const void *from, int64_t values, float *out);

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
/* Gives mapped pages back to the system; whoever reads them again reads the file again. */
void weights_forget(const struct weights *w);
/* How many tensors no loader has asked for; up to `max` of their names (borrowed) into `names`. */
size_t weights_unused(const struct weights *w, const char **names, size_t max);

/* A loader with a sticky error: load a whole part without checks, ask once.
 *     struct weight_loader l = {.weights = w, .backend = b, .compute = DTYPE_BF16};
 *     blk->to_q = weight(&l, SHAPE(d, d), "transformer_blocks.%d.attn.to_q.weight", i);
 *     if (l.err.code) … */
struct weight_loader {
    struct weights *weights;
    struct backend *backend;
    enum dtype compute;
    bool shapes_only;   /* plans: no data is touched */
    const char *prefix; /* put before every name, may be NULL */
    struct err err;     /* the first failure: file, tensor, found, expected */
    uint64_t parameters, bytes;
    struct tensor **owned;                /* every tensor made, for weight_loader_free */
    void **expanded;                      /* [owned_cap]: a tensor's expanded data, or NULL */
    const struct weights_entry **sources; /* [owned_cap]: what each was made from */
    size_t owned_count, owned_cap;
    bool asleep;
};
struct tensor *weight(struct weight_loader *l, int rank, const int64_t *dims, const char *fmt, ...)
    ERR_PRINTF(4, 5);
/* NULL without error where the tensor is not in the file. */
struct tensor *weight_optional(struct weight_loader *l, int rank, const int64_t *dims,
                               const char *fmt, ...) ERR_PRINTF(4, 5);
/* Copies a tensor of `count` values, stored as F32, BF16, F16 or F64, to fp32 host memory (zeros
 * when shapes_only); 0 or the sticky error: -ENOENT, -EINVAL on another count. */
int weight_to_f32(struct weight_loader *l, float *dst, int64_t count, const char *fmt, ...)
    ERR_PRINTF(4, 5);
/* Gives the memory of the weights back as far as the files have it still; they may not be used
 * until weight_loader_wake. Both do nothing the second time. */
void weight_loader_sleep(struct weight_loader *l);
int weight_loader_wake(struct weight_loader *l, struct err *e);
/* Frees every tensor the loader made (the model keeps `owned` and calls this at its end). */
void weight_loader_free(struct weight_loader *l);

#endif
