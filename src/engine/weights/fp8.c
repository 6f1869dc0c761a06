#include "engine/weights/fp8.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/weights/half.h"

void fp8_expand_e4m3(const void *values, int64_t count, float *out)
{
    const uint8_t *p = values;
    for (int64_t i = 0; i < count; i++) {
        int exponent = p[i] >> 3 & 15, fraction = p[i] & 7;
        float size = exponent == 15 && fraction == 7 ? NAN
                     : exponent                      ? ldexpf((float)(8 + fraction), exponent - 10)
                                                     : (float)fraction * 0x1p-9f;
        out[i] = p[i] & 0x80 ? -size : size;
    }
}

void fp8_expand_e5m2(const void *values, int64_t count, float *out)
{
    const uint8_t *p = values;
    for (int64_t i = 0; i < count; i++)
        out[i] = half_to_float((uint16_t)(p[i] << 8));
}

/* ---- scales ---- */

#define TENSOR "%s: tensor '%.100s': "

enum role { NO_SCALE, SCALE, BLOCK_SCALE, ASIDE };

/* By the end of a name, or the whole of it. */
static const struct {
    const char *tail;
    enum role role;
} tails[] = {
    {".scale_weight", SCALE},         {".weight_scale", SCALE}, {".weight_scale_inv", BLOCK_SCALE},
    {".weight_scale_2", BLOCK_SCALE}, {".scale_input", ASIDE},  {".input_scale", ASIDE},
    {".comfy_quant", ASIDE},          {".scaled_fp8", ASIDE},
};

/* The length of what stands before the tail into *stem. */
static enum role role_of(const char *name, size_t *stem)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < ARRAY_LEN(tails); i++) {
        size_t m = strlen(tails[i].tail);
        *stem = n > m ? n - m : 0;
        if ((n > m && !strcmp(name + n - m, tails[i].tail)) || !strcmp(name, tails[i].tail + 1))
            return tails[i].role;
    }
    return NO_SCALE;
}

bool fp8_is_scale(const char *name)
{
    size_t stem;
    return role_of(name, &stem) != NO_SCALE;
}

static int by_name(const void *a, const void *b)
{
    struct weights_entry *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* STEM.weight in the sorted list, or NULL. */
static struct weights_entry *weight_of(struct weights_entry **sorted, size_t count,
                                       const char *name, size_t stem)
{
    AUTO_STR struct str sought = {0};
    str_addn(&sought, name, stem);
    str_add(&sought, ".weight");
    struct weights_entry key = {.name = str_cstr(&sought)}, *at = &key, **found;
    found = bsearch(&at, sorted, count, sizeof *sorted, by_name);
    return found ? *found : NULL;
}

/* The one number of a scale; false where there are more or none. */
static bool one_number(const struct weights_entry *t, float *out)
{
    if (!t->element || t->bytes != t->element || !t->usable)
        return false;
    if (t->expand)
        t->expand(t->data, 1, out);
    else if (t->dtype == DTYPE_F32)
        memcpy(out, t->data, sizeof *out);
    else {
        uint16_t half;
        memcpy(&half, t->data, sizeof half);
        *out = t->dtype == DTYPE_BF16 ? bfloat_to_float(half) : half_to_float(half);
    }
    return true;
}

static int take_scale(const struct weights_entry *s, struct weights_entry *weight, enum role role,
                      struct err *e)
{
    float scale = 0;
    if (role == BLOCK_SCALE || !one_number(s, &scale))
        return err_set(e, -ENOTSUP,
                       TENSOR "scales by row or block are not supported; take a file with one "
                              "scale a weight, or none",
                       s->file, s->name);
    if (!(scale > 0 && isfinite(scale)))
        return err_set(e, -EINVAL, TENSOR "the scale %g is not a positive number", s->file, s->name,
                       (double)scale);
    if (!weight)
        return err_set(e, -EINVAL, TENSOR "there is no weight that it scales", s->file, s->name);
    if (weight->scale != 0)
        return err_set(e, -EINVAL, TENSOR "its weight has another scale already", s->file, s->name);
    bool eight = weight->expand && weight->element;
    if (!eight && scale != 1)
        return err_set(e, -ENOTSUP,
                       TENSOR "it scales '%.100s', which is %s and not F8_E4M3 or F8_E5M2", s->file,
                       s->name, weight->name, weight->stored);
    weight->scale = eight ? scale : 0;
    return 0;
}

static bool any_scale(const struct weights_file *f)
{
    for (size_t i = 0; i < f->count; i++)
        if (fp8_is_scale(f->entries[i].name))
            return true;
    return false;
}

static void drop_all(struct weights_file *f)
{
    size_t kept = 0;
    for (size_t i = 0; i < f->count; i++) {
        if (fp8_is_scale(f->entries[i].name))
            free((char *)f->entries[i].name);
        else
            f->entries[kept++] = f->entries[i];
    }
    f->count = kept;
}

int fp8_take_scales(struct weights_file *f, struct err *e)
{
    if (!any_scale(f))
        return 0;
    AUTO_FREE struct weights_entry **sorted = calloc(f->count, sizeof *sorted);
    if (!sorted)
        return err_nomem(e);
    for (size_t i = 0; i < f->count; i++)
        sorted[i] = &f->entries[i];
    qsort(sorted, f->count, sizeof *sorted, by_name);
    for (size_t i = 0; i < f->count; i++) {
        size_t stem;
        const struct weights_entry *s = &f->entries[i];
        enum role role = role_of(s->name, &stem);
        if (role != SCALE && role != BLOCK_SCALE)
            continue;
        struct weights_entry *weight = weight_of(sorted, f->count, s->name, stem);
        int code = take_scale(s, weight, role, e);
        if (code)
            return code;
    }
    drop_all(f);
    return 0;
}
