/* Weights plus terms: rows at a time in fp32 by the engine's own operations, so that any backend
 * does it, then rounded once to the type of products. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/adapters_internal.h"
#include "engine/backend.h"

#define STRIPE_ELEMENTS (INT64_C(1) << 22) /* of a weight that are summed at once */

/* ---- shapes ---- */

/* A weight as a matrix: rows along its first axis. */
static void sides(const struct tensor *w, int64_t *rows, int64_t *columns)
{
    *rows = w->rank ? w->dims[0] : 1;
    *columns = tensor_elements(w) / *rows;
}

static int64_t entry_elements(const struct weights_entry *t)
{
    return (int64_t)(t->bytes / dtype_size(t->dtype));
}

static int misfit(const struct weight_loader *l, const struct term *t, int64_t rows,
                  int64_t columns, const char *found, struct err *e)
{
    return err_set(e, -EINVAL,
                   "%s: '%.100s' is made for %s numbers, but %s of this model has %lldx%lld: "
                   "it is made for another model or another size of it",
                   t->module->down ? t->module->down->file : t->diff->file, t->module->name, found,
                   l->list[t->weight].entry->name, (long long)rows, (long long)columns);
}

int patch_check(const struct weight_loader *l, const struct term *t, struct err *e)
{
    int64_t rows, columns;
    char found[64];
    sides(l->list[t->weight].tensor, &rows, &columns);
    if (t->diff) {
        snprintf(found, sizeof found, "%lld", (long long)entry_elements(t->diff));
        return entry_elements(t->diff) == rows * columns ? 0
                                                         : misfit(l, t, rows, columns, found, e);
    }
    const struct lora_module *m = t->module;
    int64_t times = t->change == RENAME_THIRD ? 3 : 1;
    int64_t in = entry_elements(m->down) / m->down->dims[0];
    if (m->up->dims[0] == rows * times && in == columns &&
        (t->change != RENAME_SWAP || rows % 2 == 0))
        return 0;
    snprintf(found, sizeof found, "%lldx%lld", (long long)(m->up->dims[0] / times), (long long)in);
    return misfit(l, t, rows, columns, found, e);
}

/* ---- the sum ---- */

/* A term's matrices in fp32. */
struct factors {
    int64_t rank;
    float *down; /* [columns, rank]: transposed */
    float *up;   /* [rows, rank], scaled, in the order of the weight's rows */
};

struct sum {
    const struct patch_job *job;
    const struct weights_entry *base;
    void *expanded; /* a stripe of a quantized base, else NULL */
    enum dtype base_type;
    int64_t rows, columns, stripe;
    struct factors *factors; /* [job->count]; of diffs all zero */
    char *out;
    enum dtype type;
};

/* Row i of the weight is this row of the LoRA. */
static int64_t source_row(const struct term *t, int64_t rows, int64_t i)
{
    if (t->change == RENAME_THIRD)
        return t->third * rows + i;
    return t->change == RENAME_SWAP ? (i + rows / 2) % rows : i;
}

static int read_factors(const struct sum *s, const struct term *t, struct factors *f, struct err *e)
{
    const struct lora_module *m = t->module;
    int64_t r = m->down->dims[0];
    size_t down, up;
    f->rank = r;
    if (!size_mul((size_t)r * sizeof(float), (size_t)s->columns, &down) ||
        !size_mul((size_t)r * sizeof(float), (size_t)s->rows, &up))
        return err_nomem(e);
    AUTO_FREE float *row = malloc((size_t)s->columns * sizeof(float));
    f->down = malloc(down);
    f->up = malloc(up);
    if (!row || !f->down || !f->up)
        return err_nomem(e);
    for (int64_t k = 0; k < r; k++) {
        lora_values(m->down, (size_t)(k * s->columns), (size_t)s->columns, row);
        for (int64_t c = 0; c < s->columns; c++)
            f->down[c * r + k] = row[c];
    }
    for (int64_t i = 0; i < s->rows; i++) {
        float *to = f->up + i * r;
        lora_values(m->up, (size_t)(source_row(t, s->rows, i) * r), (size_t)r, to);
        for (int64_t k = 0; k < r; k++)
            to[k] *= t->scale;
    }
    return 0;
}

/* Term i of rows first … first + n - 1, added to x. */
static void add_term(const struct sum *s, struct ops *o, struct tensor *x, size_t i, int64_t first,
                     int64_t n)
{
    const struct term *t = &s->job->terms[i];
    const struct factors *f = &s->factors[i];
    ops_mark mark = ops_push(o);
    struct tensor *y;
    if (t->diff) {
        size_t one = dtype_size(t->diff->dtype);
        y = op_from_host(o, t->diff->dtype, SHAPE(n, s->columns),
                         (const char *)t->diff->data + (size_t)(first * s->columns) * one);
        y = op_affine(o, op_cast(o, y, DTYPE_F32), t->scale, 0);
    } else {
        struct tensor *up = op_from_host(o, DTYPE_F32, SHAPE(n, f->rank), f->up + first * f->rank);
        struct tensor *down = op_from_host(o, DTYPE_F32, SHAPE(s->columns, f->rank), f->down);
        y = op_linear(o, up, down, NULL, ACT_NONE);
    }
    op_add_to(o, x, y);
    ops_pop(o, mark);
}

/* The checkpoint's own values from row `first` on. */
static const void *own_values(const struct sum *s, int64_t first, int64_t n)
{
    int64_t last = s->base->rank ? s->base->dims[s->base->rank - 1] : 1, from = first * s->columns;
    if (!s->expanded)
        return (const char *)s->base->data + (size_t)from * dtype_size(s->base_type);
    weight_expand(s->base, from / last, n * s->columns / last, s->base_type, s->expanded);
    return s->expanded;
}

static void sum_stripe(const struct sum *s, struct ops *o, int64_t first, int64_t n)
{
    size_t from = (size_t)(first * s->columns), bytes = (size_t)(n * s->columns);
    ops_mark mark = ops_push(o);
    struct tensor *x = op_from_host(o, s->base_type, SHAPE(n, s->columns), own_values(s, first, n));
    struct tensor *y = s->base_type == DTYPE_F32 ? x : op_cast(o, x, DTYPE_F32);
    for (size_t i = 0; i < s->job->count; i++)
        add_term(s, o, y, i, first, n);
    if (!op_all_finite(o, y))
        ops_fail(o, -EDOM, "%s: with it, %s holds NaN or infinity",
                 s->job->terms[0].module->down ? s->job->terms[0].module->down->file
                                               : s->job->terms[0].diff->file,
                 s->job->loader->list[s->job->terms[0].weight].entry->name);
    if (s->type != DTYPE_F32)
        y = op_cast(o, y, s->type);
    op_to_host(o, y, s->out + from * dtype_size(s->type), bytes * dtype_size(s->type));
    ops_pop(o, mark);
}

static int sum_rows(struct sum *s, struct err *e)
{
    struct backend *b = s->job->loader->backend;
    struct ops *plan = ops_new_plan(b, DTYPE_F32, e);
    if (!plan)
        return e->code;
    sum_stripe(s, plan, 0, s->stripe);
    if (s->rows % s->stripe)
        sum_stripe(s, plan, 0, s->rows % s->stripe);
    size_t bytes = ops_peak(plan);
    int code = ops_error(plan, e);
    ops_free(plan);
    struct ops *o = code ? NULL : ops_new(b, DTYPE_F32, bytes, e);
    if (!o)
        return e->code;
    ops_set_cancel(o, s->job->cancelled, s->job->ctx);
    for (int64_t i = 0; i < s->rows && !ops_error(o, NULL); i += s->stripe)
        sum_stripe(s, o, i, s->rows - i < s->stripe ? s->rows - i : s->stripe);
    code = ops_error(o, e);
    ops_free(o);
    return code;
}

static int sum_all(struct sum *s, struct err *e)
{
    int code = 0;
    s->factors = calloc(s->job->count, sizeof *s->factors);
    if (!s->factors)
        return err_nomem(e);
    for (size_t i = 0; i < s->job->count && !code; i++)
        if (!s->job->terms[i].diff)
            code = read_factors(s, &s->job->terms[i], &s->factors[i], e);
    if (!code)
        code = sum_rows(s, e);
    for (size_t i = 0; i < s->job->count; i++) {
        free(s->factors[i].down);
        free(s->factors[i].up);
    }
    free(s->factors);
    return code;
}

int patch_values(const struct patch_job *j, enum dtype type, void *out, struct err *e)
{
    const struct weight_loader *l = j->loader;
    size_t i = j->terms[0].weight;
    const struct weights_entry *t = l->list[i].entry;
    struct sum s = {.job = j, .base = t, .out = out, .type = type};
    s.base_type = t->expand ? l->compute : t->dtype;
    sides(l->list[i].tensor, &s.rows, &s.columns);
    s.stripe = STRIPE_ELEMENTS / s.columns;
    s.stripe = s.stripe < 1 ? 1 : s.stripe > s.rows ? s.rows : s.stripe;
    if (t->expand) {
        s.expanded = malloc((size_t)(s.stripe * s.columns) * dtype_size(s.base_type));
        if (!s.expanded)
            return err_nomem(e);
    }
    int code = sum_all(&s, e);
    free(s.expanded);
    return code;
}
