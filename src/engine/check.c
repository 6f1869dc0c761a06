/* Checks of operands, once for all backends: a kernel never sees a wrong shape. */
#include "engine/ops_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

const char *shape_text(const struct tensor *t, char *out)
{
    size_t n = (size_t)snprintf(out, SHAPE_TEXT, "[");
    for (int i = 0; i < t->rank; i++)
        n += (size_t)snprintf(out + n, SHAPE_TEXT - n, "%s%" PRId64, i ? ", " : "", t->dims[i]);
    snprintf(out + n, SHAPE_TEXT - n, "] %s", dtype_name(t->dtype));
    return out;
}

bool check_ready(struct ops *o, const char *op, int count, const struct tensor *const *tensors)
{
    for (int i = 0; i < count && !o->error.code; i++)
        if (!tensors[i])
            ops_fail(o, -EINVAL, "%s: operand %d is missing", op, i + 1);
    return !o->error.code;
}

bool check_float(struct ops *o, const char *op, const char *name, const struct tensor *t)
{
    char text[SHAPE_TEXT];
    if (t && t->dtype != DTYPE_F32 && t->dtype != DTYPE_BF16 && t->dtype != DTYPE_F16)
        ops_fail(o, -EINVAL, "%s: %s is %s, a float dtype is needed", op, name,
                 shape_text(t, text));
    return !o->error.code;
}

bool check_f32(struct ops *o, const char *op, const char *name, const struct tensor *t)
{
    char text[SHAPE_TEXT];
    if (t && t->dtype != DTYPE_F32)
        ops_fail(o, -EINVAL, "%s: %s is %s, f32 is needed", op, name, shape_text(t, text));
    return !o->error.code;
}

bool check_activation(struct ops *o, const char *op, const char *name, const struct tensor *t)
{
    if (t && t->dtype == DTYPE_BF16 && o->backend->narrow && o->compute == DTYPE_BF16)
        return !o->error.code;
    return check_f32(o, op, name, t);
}

bool check_rank(struct ops *o, const char *op, const char *name, const struct tensor *t, int rank)
{
    char text[SHAPE_TEXT];
    if (t && t->rank != rank)
        ops_fail(o, -EINVAL, "%s: %s is %s, %d dimensions are needed", op, name,
                 shape_text(t, text), rank);
    return !o->error.code;
}

bool check_shape(struct ops *o, const char *op, const char *name, const struct tensor *t, int rank,
                 const int64_t *dims)
{
    if (!t)
        return !o->error.code;
    bool same = t->rank == rank && t->dtype == DTYPE_F32;
    for (int i = 0; same && i < rank; i++)
        same = dims[i] < 0 || t->dims[i] == dims[i];
    if (same)
        return !o->error.code;
    struct tensor want = {.dtype = DTYPE_F32, .rank = rank};
    for (int i = 0; i < rank; i++)
        want.dims[i] = dims[i];
    char found[SHAPE_TEXT], expected[SHAPE_TEXT];
    ops_fail(o, -EINVAL, "%s: %s is %s, expected %s", op, name, shape_text(t, found),
             shape_text(&want, expected));
    return false;
}

static bool equal_dims(const struct tensor *a, const struct tensor *b)
{
    bool same = a->rank == b->rank;
    for (int i = 0; same && i < a->rank; i++)
        same = a->dims[i] == b->dims[i];
    return same;
}

static bool fail_same(struct ops *o, const char *op, const struct tensor *a, const struct tensor *b)
{
    char first[SHAPE_TEXT], second[SHAPE_TEXT];
    ops_fail(o, -EINVAL, "%s: %s and %s must have the same shape", op, shape_text(a, first),
             shape_text(b, second));
    return false;
}

bool check_same(struct ops *o, const char *op, const struct tensor *a, const struct tensor *b)
{
    if (!equal_dims(a, b) || a->dtype != b->dtype)
        return fail_same(o, op, a, b);
    return !o->error.code;
}

bool check_same_shape(struct ops *o, const char *op, const struct tensor *a, const struct tensor *b)
{
    return equal_dims(a, b) ? !o->error.code : fail_same(o, op, a, b);
}

bool check_act(struct ops *o, const char *op, enum activation act)
{
    if ((unsigned)act > ACT_SIGMOID)
        ops_fail(o, -EINVAL, "%s: there is no activation %d", op, (int)act);
    return !o->error.code;
}
