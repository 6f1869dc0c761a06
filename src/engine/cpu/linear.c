/* Linear: oneDNN's matrix product, item by item.
 *
 * A product's rows, columns and threads decide which oneDNN kernel runs and how its sums are
 * grouped, so each item of the batch is a product of its own: its bits are the same alone and in
 * company. Large weights are taken in blocks of columns, between which cancellation is asked and
 * half-precision weights are widened for fp32 products. */
#include <string.h>

#include "engine/cpu/cpu.h"

#define BLOCK_FLOPS (INT64_C(1) << 34) /* a product between two questions: 0.3 s at 60 GFLOP/s */
#define BLOCK_ROWS  4096
#define WIDEN_BYTES (INT64_C(4) << 20) /* a widened block stays in the last-level cache */
#define COLUMN_STEP 64
#define SMALL_BATCH 32 /* rows of x[M, K] that count as items of their own */
#define SMALL_BLOCK 8  /* and run in blocks of this many, the last one filled up with zeros */

struct linear {
    struct ops *o;
    struct cpu *c;
    const struct tensor *x, *w;
    const float *bias;
    struct dnn_shape shape; /* of the first block; tails are smaller */
    const struct dnn_layout *layout;
    enum dtype type;     /* of the product */
    int64_t items, rows; /* rows an item */
    int64_t row_block, column_block;
    bool widen; /* blocks of columns of w are converted or expanded to `type` */

    const char *xs;     /* dense or evenly spaced rows in `type` */
    int64_t item_pitch; /* elements between items of xs */
    char *wide;         /* a block of w, widened */
    float *ys;          /* [items · rows, N] */
    void *scratch;      /* oneDNN's */
};

static int64_t at_most(int64_t n, int64_t most)
{
    return n < most ? n : most;
}

static void choose_items(struct linear *l)
{
    int64_t count = tensor_elements(l->x) / l->w->dims[1];
    l->items = l->x->rank >= 3 ? l->x->dims[0] : 1;
    l->rows = count / l->items;
    if (l->x->rank <= 2 && count <= SMALL_BATCH) {
        l->items = (count + SMALL_BLOCK - 1) / SMALL_BLOCK;
        l->rows = SMALL_BLOCK;
    }
}

static void choose_blocks(struct linear *l)
{
    int64_t n = l->w->dims[0], k = l->w->dims[1];
    l->row_block = at_most(l->rows, BLOCK_ROWS);
    l->column_block = n;
    if (l->layout)
        return;
    int64_t columns = BLOCK_FLOPS / 2 / k / l->row_block;
    if (l->widen || l->w->blocks.expand) /* the same bits, expanded before or now */
        columns = at_most(columns, WIDEN_BYTES / (k * (int64_t)dtype_size(l->type)));
    columns = columns / COLUMN_STEP * COLUMN_STEP;
    l->column_block = at_most(columns > COLUMN_STEP ? columns : COLUMN_STEP, n);
}

/* Where each item's rows begin and how far apart they lie; false when they must be copied. */
static bool rows_in_place(struct linear *l)
{
    struct tensor item = *l->x;
    int64_t pitch, item_pitch = 0;
    if (item.rank >= 3) { /* the item without its batch axis */
        item_pitch = item.strides[0];
        item.dims[0] = 1;
    }
    struct rows rows = rows_of(&item);
    if (l->type != DTYPE_F32 || !rows_even(&rows, &pitch) || rows.count != l->rows)
        return false;
    l->xs = l->x->data;
    l->item_pitch = item_pitch;
    l->shape.ldx = pitch < rows.width ? rows.width : pitch;
    return true;
}

struct gather_job {
    const struct linear *l;
    struct rows rows;
    char *to;
};

static void gather_task(void *ctx, int worker, int64_t begin, int64_t end)
{
    const struct gather_job *j = ctx;
    int64_t bytes = j->rows.width * (int64_t)dtype_size(j->l->type);
    (void)worker;
    for (int64_t i = begin; i < end; i++)
        convert_span(j->to + i * bytes, j->l->type,
                     (const float *)j->l->x->data + rows_offset(&j->rows, i), DTYPE_F32,
                     j->rows.width);
}

/* Copies x to dense rows in the product's type, zeros after the last. */
static void gather_rows(struct linear *l)
{
    struct rows rows = rows_of(l->x);
    int64_t all = l->items * l->rows;
    size_t row_bytes = (size_t)rows.width * dtype_size(l->type);
    char *to = ops_scratch(l->o, (size_t)all * row_bytes);
    l->xs = to;
    l->item_pitch = l->rows * rows.width;
    l->shape.ldx = rows.width;
    if (!to)
        return;
    struct gather_job job = {l, rows, to};
    cpu_parallel(l->c->threads, rows.count, 1 + 32768 / rows.width, gather_task, &job);
    memset(to + (size_t)rows.count * row_bytes, 0, (size_t)(all - rows.count) * row_bytes);
}

static struct dnn_product *block_product(const struct linear *l, int64_t rows, int64_t columns)
{
    struct dnn_shape shape = l->shape;
    struct err e = {0};
    shape.m = rows;
    shape.n = columns;
    struct dnn_product *p = dnn_get(&l->c->dnn, &shape, l->layout, &e);
    if (!p)
        ops_fail(l->o, e.code, "linear: %s", e.text);
    return p;
}

/* The largest scratchpad of the whole blocks and of the tails. */
static void take_scratch(struct linear *l)
{
    int64_t n = l->w->dims[0];
    int64_t rows[2] = {l->row_block, l->rows % l->row_block};
    int64_t columns[2] = {l->column_block, n % l->column_block};
    size_t most = 0;
    for (int i = 0; i < 4; i++) {
        if (!rows[i / 2] || !columns[i % 2])
            continue;
        struct dnn_product *p = block_product(l, rows[i / 2], columns[i % 2]);
        if (!p)
            return;
        most = dnn_scratch(p) > most ? dnn_scratch(p) : most;
        dnn_put(&l->c->dnn, p);
    }
    l->scratch = ops_scratch(l->o, most);
}

/* All rows of all items against columns first … first + columns - 1, whose weights are at `w`. */
static void run_columns(const struct linear *l, const void *w, int64_t first, int64_t columns)
{
    int64_t n = l->w->dims[0];
    size_t size = dtype_size(l->type);
    for (int64_t row = 0; row < l->rows; row += l->row_block) {
        struct err e = {0};
        struct dnn_product *p = block_product(l, at_most(l->rows - row, l->row_block), columns);
        for (int64_t item = 0; p && item < l->items && !ops_cancelled(l->o); item++) {
            const char *x = l->xs + (size_t)(item * l->item_pitch + row * l->shape.ldx) * size;
            float *y = l->ys + (item * l->rows + row) * n + first;
            if (dnn_run(&l->c->dnn, p, x, w, l->bias ? l->bias + first : NULL, y, l->scratch, &e))
                ops_fail(l->o, e.code, "linear: %s", e.text);
        }
        dnn_put(&l->c->dnn, p);
    }
}

static void run_blocks(const struct linear *l, const void *packed)
{
    int64_t n = l->w->dims[0], k = l->w->dims[1];
    size_t row_bytes = (size_t)l->w->strides[0] * dtype_size(l->w->dtype);
    bool expands = !packed && l->w->blocks.kept;
    for (int64_t first = 0; first < n && !ops_cancelled(l->o); first += l->column_block) {
        int64_t columns = at_most(n - first, l->column_block);
        const void *w = packed ? packed : (const char *)l->w->data + (size_t)first * row_bytes;
        if (expands)
            expand_rows(l->c->threads, l->wide, l->type, l->w, first, columns);
        else if (l->widen)
            convert_rows(l->c->threads, l->wide, l->type, w, l->w->dtype, columns, k,
                         l->w->strides[0]);
        run_columns(l, l->widen ? l->wide : w, first, columns);
    }
}

void cpu_linear(struct ops *o, struct tensor *y, const struct tensor *x, const struct tensor *w,
                const struct tensor *bias, enum activation act)
{
    const struct cpu_weight *cw = w->prepared;
    bool packed = cw && cw->form == WEIGHT_PACKED;
    struct linear l = {.o = o, .c = cpu_of(y->backend), .x = x, .w = w};
    int64_t n = w->dims[0], k = w->dims[1];
    l.type = packed ? cw->type : l.c->has_bf16 ? ops_compute(o) : DTYPE_F32;
    l.layout = packed ? &cw->layout : NULL;
    l.widen = !packed && (w->dtype != l.type || w->blocks.kept);
    l.bias = bias ? bias->data : NULL;
    l.shape = (struct dnn_shape){.type = l.type,
                                 .threads = l.c->threads,
                                 .bias = bias != NULL,
                                 .act = act,
                                 .packed = packed,
                                 .k = k,
                                 .ldy = n};
    l.shape.ldw = l.widen || packed ? k : w->strides[0];
    choose_items(&l);
    choose_blocks(&l);
    if (!rows_in_place(&l))
        gather_rows(&l);
    bool padded = l.items * l.rows != tensor_elements(x) / k;
    l.ys = padded ? ops_scratch(o, (size_t)(l.items * l.rows * n) * sizeof(float)) : y->data;
    if (l.widen)
        l.wide = ops_scratch(o, (size_t)(l.column_block * k) * dtype_size(l.type));
    take_scratch(&l);
    if (ops_planning(o) || ops_cancelled(o))
        return;
    run_blocks(&l, packed ? cw->data : NULL);
    if (padded)
        memcpy(y->data, l.ys, (size_t)tensor_elements(y) * sizeof(float));
}
