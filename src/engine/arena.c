/* The arena: a stack of bytes and a stack of tensor handles, cut back together at a mark.
 *
 * A plan does the same arithmetic on offsets with no memory behind them, so that its peak is the
 * run's. Handles live in blocks that never move, because models hold pointers to them. */
#include "engine/ops_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_HANDLES 256

int shape_bytes(enum dtype d, int rank, const int64_t *dims, size_t *bytes)
{
    int64_t n = (int64_t)dtype_size(d);
    if (n == 0 || rank < 1 || rank > TENSOR_MAX_RANK)
        return -EINVAL;
    for (int i = 0; i < rank; i++)
        if (dims[i] < 1 || __builtin_mul_overflow(n, dims[i], &n))
            return -EOVERFLOW;
    if (n > INT64_MAX / 4) /* room for sums of sizes */
        return -EOVERFLOW;
    *bytes = (size_t)n;
    return 0;
}

/* Takes `bytes` from the top; false when they do not fit. */
static bool take(struct ops *o, size_t bytes, size_t *offset)
{
    size_t rounded;
    if (__builtin_add_overflow(bytes, (size_t)OPS_ALIGN - 1, &rounded))
        rounded = SIZE_MAX;
    rounded &= ~(size_t)(OPS_ALIGN - 1);
    if (rounded > o->capacity - o->used) {
        ops_fail(o, -ENOMEM, "the arena of %zu bytes is full: %zu are in use, %zu more are needed",
                 o->capacity, o->used, bytes);
        return false;
    }
    *offset = o->used;
    o->used += rounded;
    if (o->used > o->peak)
        o->peak = o->used;
    return true;
}

static struct tensor *handle_at(const struct ops *o, size_t i)
{
    return &o->blocks[i / BLOCK_HANDLES][i % BLOCK_HANDLES];
}

static struct tensor *handle_new(struct ops *o)
{
    if (o->handles == o->block_count * BLOCK_HANDLES) {
        struct tensor **grown = realloc(o->blocks, (o->block_count + 1) * sizeof *grown);
        if (grown)
            o->blocks = grown;
        struct tensor *block = grown ? malloc(BLOCK_HANDLES * sizeof *block) : NULL;
        if (!block) {
            ops_fail(o, -ENOMEM, "not enough memory for tensor handles");
            return NULL;
        }
        o->blocks[o->block_count++] = block;
    }
    return handle_at(o, o->handles++);
}

struct tensor *arena_view(struct ops *o, const struct tensor *like)
{
    struct tensor copy = *like, *t = handle_new(o);
    if (t)
        *t = copy;
    return t;
}

/* Why `dims` is no shape, in one sentence. */
static void fail_shape(struct ops *o, enum dtype d, int rank, const int64_t *dims)
{
    struct tensor t = {.dtype = d};
    char text[SHAPE_TEXT];
    t.rank = rank < 0 ? 0 : rank > TENSOR_MAX_RANK ? TENSOR_MAX_RANK : rank;
    memcpy(t.dims, dims, (size_t)t.rank * sizeof *dims);
    ops_fail(o, -EINVAL,
             "%s is no tensor: 1 to %d dimensions are needed, each at least 1 and together "
             "addressable",
             shape_text(&t, text), TENSOR_MAX_RANK);
}

struct tensor *arena_tensor(struct ops *o, enum dtype d, int rank, const int64_t *dims)
{
    size_t bytes, offset;
    if (o->error.code)
        return NULL;
    if (shape_bytes(d, rank, dims, &bytes)) {
        fail_shape(o, d, rank, dims);
        return NULL;
    }
    if (!take(o, bytes, &offset))
        return NULL;
    struct tensor *t = handle_new(o);
    if (!t)
        return NULL;
    *t = (struct tensor){.dtype = d, .rank = rank, .offset = offset, .backend = o->backend};
    t->data = o->base ? o->base + offset : NULL;
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; i--) {
        t->dims[i] = dims[i];
        t->strides[i] = stride;
        stride *= dims[i];
    }
    return t;
}

void *ops_scratch(struct ops *o, size_t bytes)
{
    size_t offset;
    if (o->error.code || !take(o, bytes, &offset))
        return NULL;
    return o->base ? o->base + offset : NULL;
}

#define NO_MARK SIZE_MAX

ops_mark ops_push(struct ops *o)
{
    if (o->level_count == o->level_cap) {
        size_t cap = o->level_cap ? 2 * o->level_cap : 16;
        struct ops_level *grown = realloc(o->levels, cap * sizeof *grown);
        if (!grown) {
            ops_fail(o, -ENOMEM, "not enough memory for a scope");
            return NO_MARK;
        }
        o->levels = grown;
        o->level_cap = cap;
    }
    o->levels[o->level_count] = (struct ops_level){o->used, o->handles};
    return o->level_count++;
}

/* The level of `mark`, or NULL when it was popped before. */
static const struct ops_level *level_pop(struct ops *o, ops_mark mark)
{
    if (mark >= o->level_count) {
        ops_fail(o, -EINVAL, "scope %zu was popped twice", mark);
        return NULL;
    }
    o->level_count = mark;
    return &o->levels[mark];
}

void ops_pop(struct ops *o, ops_mark mark)
{
    const struct ops_level *level = level_pop(o, mark);
    if (!level)
        return;
    o->used = level->used;
    o->handles = level->handles;
}

struct tensor *ops_keep(struct ops *o, ops_mark mark, struct tensor *t)
{
    if (mark >= o->level_count)
        return ops_pop_keep(o, mark, t); /* which says what is wrong */
    struct ops_level level = o->levels[mark];
    t = ops_pop_keep(o, mark, t);
    o->levels[o->level_count++] = level; /* open again, below t */
    return t;
}

struct tensor *ops_pop_keep(struct ops *o, ops_mark mark, struct tensor *t)
{
    const struct ops_level *level = level_pop(o, mark);
    if (!level)
        return NULL;
    if (READY(o, "keep", t) && (t->offset == TENSOR_OUTSIDE || !tensor_contiguous(t)))
        t = op_contiguous(o, t);
    if (o->error.code || !t) {
        o->used = level->used;
        o->handles = level->handles;
        return NULL;
    }
    struct tensor kept = *t;
    o->handles = level->handles;
    o->used = level->used;
    if (kept.offset < level->used) /* older than the scope: nothing of its data is freed */
        return arena_view(o, &kept);
    struct tensor *y = arena_tensor(o, kept.dtype, kept.rank, kept.dims);
    if (y && !o->planning && y->data != kept.data)
        o->backend->ops->move(o, y->data, kept.data, op_bytes(y, NULL));
    return y;
}

void arena_free(struct ops *o)
{
    for (size_t i = 0; i < o->block_count; i++)
        free(o->blocks[i]);
    free(o->blocks);
    free(o->levels);
}
