#include "engine/vae/residual.h"

#define NORM_EPS 1e-6f /* of every norm inside, whatever the config's norm_eps is for others */
#define HALO     1     /* rows that a 3x3 filter reads beyond its own */

static int64_t height(const struct map *m)
{
    return tensor_dim(m->x, 1) * (m->up ? 2 : 1);
}

static int64_t width(const struct map *m)
{
    return tensor_dim(m->x, 2) * (m->up ? 2 : 1);
}

static int64_t channels(const struct map *m)
{
    return m->up ? tensor_dim(m->up->w, 0) : tensor_dim(m->x, 3);
}

/* Rows a band: a multiple of 8, so that bands begin where those inside a convolution do. */
static int64_t band_rows(const struct bands *k, const struct map *m)
{
    int64_t row = tensor_dim(m->x, 0) * width(m) * channels(m) * (int64_t)sizeof(float);
    return row > 0 && k->band / row >= 16 ? k->band / row / 8 * 8 : 8;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* A run of rows; `reach` more on both sides as far as there are any. */
struct span {
    int64_t from, to;
};
static struct span wider(struct span s, int64_t reach, int64_t rows)
{
    return (struct span){s.from > reach ? s.from - reach : 0, least(s.to + reach, rows)};
}

static struct tensor *slice(struct ops *o, const struct tensor *x, int64_t from, int64_t to)
{
    return op_slice(o, x, 1, from, to - from);
}

/* Rows `s` of the filtered map of `rows` rows; x holds the rows that the filter reads for them. */
static struct tensor *filter_rows(struct ops *o, const struct filter *f, const struct tensor *x,
                                  struct span s, int64_t rows)
{
    const int pad[4] = {s.from == 0, s.to == rows, 1, 1};
    return op_conv2d(o, x, f->w, f->b, 1, pad, ACT_NONE);
}

static struct tensor *doubled_rows(struct ops *o, const struct map *m, struct span s)
{
    int64_t rows = height(m);
    struct span wide = wider(s, HALO, rows);
    struct span source = {wide.from / 2, (wide.to + 1) / 2};
    struct tensor *x = op_upsample_nearest(o, slice(o, m->x, source.from, source.to), 2);
    x = slice(o, x, wide.from - 2 * source.from, wide.to - 2 * source.from);
    return filter_rows(o, m->up, x, s, rows);
}

/* Rows of a map as they were before anything was overwritten. */
static struct tensor *map_rows(struct ops *o, const struct map *m, struct span s)
{
    if (m->up)
        return doubled_rows(o, m, s);
    if (s.from >= m->done)
        return slice(o, m->x, s.from, s.to);
    int64_t n = tensor_dim(m->above, 1), first = m->done - n;
    const struct tensor *parts[2] = {slice(o, m->above, s.from - first, n),
                                     slice(o, m->x, m->done, s.to)};
    return op_concat(o, parts, 2, 1);
}

/* Before rows up to `to` are overwritten: remembers those that later rows still read. */
static void map_pass(struct ops *o, struct map *m, int64_t to)
{
    int64_t n = tensor_dim(m->above, 1);
    if (to < height(m))
        op_copy(o, m->above, slice(o, m->x, to - n, to));
    m->done = to;
}

static struct map overwritten(struct ops *o, struct tensor *x, int64_t above)
{
    return (struct map){
        .x = x,
        .above = op_empty(o, DTYPE_F32,
                          SHAPE(tensor_dim(x, 0), above, tensor_dim(x, 2), tensor_dim(x, 3)))};
}

/* ---- the steps of a block ---- */

/* One block at work. */
struct block {
    const struct bands *k;
    struct ops *o;
    const struct resnet *r;
    struct map x;
    struct tensor *sums1, *sums2;
    int64_t rows, step; /* of the map; of a band */
};

static struct tensor *normed(struct ops *o, const struct affine *a, const struct tensor *sums,
                             const struct tensor *x)
{
    return op_group_norm_rows(o, x, sums, a->w, a->b, NORM_EPS, ACT_SILU);
}

/* Rows of the middle result: the first norm and filter. */
static struct tensor *first_half(struct block *b, struct span s)
{
    struct tensor *x = map_rows(b->o, &b->x, wider(s, HALO, b->rows));
    return filter_rows(b->o, &b->r->conv1, normed(b->o, &b->r->norm1, b->sums1, x), s, b->rows);
}

/* Rows of what the block adds to its input; `h` holds the middle result's rows that they read. */
static struct tensor *second_half(struct block *b, const struct tensor *h, struct span s)
{
    return filter_rows(b->o, &b->r->conv2, normed(b->o, &b->r->norm2, b->sums2, h), s, b->rows);
}

static void gather(struct ops *o, struct tensor *sums, const struct map *m, int64_t step)
{
    int64_t rows = height(m);
    for (int64_t from = 0; from < rows && !ops_error(o, NULL); from += step) {
        ops_mark mark = ops_push(o);
        op_group_sums_add(o, sums, map_rows(o, m, (struct span){from, least(from + step, rows)}));
        ops_pop(o, mark);
    }
}

/* The middle result's sums; the result itself too where `h` is there to take it. */
static void run_first(struct block *b, struct tensor *h)
{
    struct ops *o = b->o;
    for (int64_t from = 0; from < b->rows && !ops_error(o, NULL); from += b->step) {
        struct span s = {from, least(from + b->step, b->rows)};
        ops_mark mark = ops_push(o);
        struct tensor *y = first_half(b, s);
        op_group_sums_add(o, b->sums2, y);
        if (h)
            op_copy(o, slice(o, h, s.from, s.to), y);
        ops_pop(o, mark);
    }
}

/* x += what the block adds, from the middle result `h` or, where it is NULL, making it again. */
static void add_in_place(struct block *b, const struct tensor *h)
{
    struct ops *o = b->o;
    if (!h)
        b->x = overwritten(o, b->x.x, 2 * HALO);
    for (int64_t from = 0; from < b->rows && !ops_error(o, NULL); from += b->step) {
        struct span s = {from, least(from + b->step, b->rows)}, wide = wider(s, HALO, b->rows);
        ops_mark mark = ops_push(o);
        struct tensor *y =
            second_half(b, h ? slice(o, h, wide.from, wide.to) : first_half(b, wide), s);
        if (!h)
            map_pass(o, &b->x, s.to);
        op_add_to(o, slice(o, b->x.x, s.from, s.to), y);
        ops_pop(o, mark);
    }
}

/* The middle result becomes the block's: what the block adds, and its input through the shortcut.
 */
static void finish_middle(struct block *b, struct tensor *middle)
{
    static const int none[4] = {0, 0, 0, 0};
    struct ops *o = b->o;
    struct map h = overwritten(o, middle, HALO);
    for (int64_t from = 0; from < b->rows && !ops_error(o, NULL); from += b->step) {
        struct span s = {from, least(from + b->step, b->rows)};
        ops_mark mark = ops_push(o);
        struct tensor *y = second_half(b, map_rows(o, &h, wider(s, HALO, b->rows)), s);
        op_add_to(o, y,
                  op_conv2d(o, map_rows(o, &b->x, s), b->r->shortcut.w, b->r->shortcut.b, 1, none,
                            ACT_NONE));
        map_pass(o, &h, s.to);
        op_copy(o, slice(o, middle, s.from, s.to), y);
        ops_pop(o, mark);
    }
}

static int64_t map_bytes(const struct map *m, int64_t depth)
{
    return tensor_dim(m->x, 0) * height(m) * width(m) * depth * (int64_t)sizeof(float);
}

struct tensor *run_resnet(const struct bands *k, struct ops *o, const struct resnet *r,
                          ops_mark mark, struct map x)
{
    if (ops_error(o, NULL) != 0)
        return NULL;
    int64_t batch = tensor_dim(x.x, 0), out = tensor_dim(r->conv1.w, 0);
    bool in_place = !r->shortcut.w;
    bool holds = !in_place || map_bytes(&x, channels(&x)) + map_bytes(&x, out) <= k->hold;
    struct tensor *h =
        holds ? op_empty(o, DTYPE_F32, SHAPE(batch, height(&x), width(&x), out)) : NULL;
    ops_mark work = ops_push(o);
    struct block b = {k,
                      o,
                      r,
                      x,
                      op_group_sums(o, batch, k->groups),
                      op_group_sums(o, batch, k->groups),
                      height(&x),
                      band_rows(k, &x)};
    gather(o, b.sums1, &b.x, b.step);
    run_first(&b, h);
    if (in_place)
        add_in_place(&b, h);
    else
        finish_middle(&b, h);
    ops_pop(o, work);
    return ops_keep(o, mark, in_place ? x.x : h);
}

struct tensor *norm_conv(const struct bands *k, struct ops *o, const struct affine *a,
                         const struct filter *f, const struct tensor *x)
{
    if (ops_error(o, NULL) != 0)
        return NULL;
    struct map m = {.x = (struct tensor *)(uintptr_t)x}; /* only read */
    int64_t rows = height(&m), step = band_rows(k, &m);
    struct tensor *y =
        op_empty(o, DTYPE_F32, SHAPE(tensor_dim(x, 0), rows, width(&m), tensor_dim(f->w, 0)));
    ops_mark mark = ops_push(o);
    struct tensor *sums = op_group_sums(o, tensor_dim(x, 0), k->groups);
    gather(o, sums, &m, step);
    for (int64_t from = 0; from < rows && !ops_error(o, NULL); from += step) {
        struct span s = {from, least(from + step, rows)};
        ops_mark band = ops_push(o);
        struct tensor *n = normed(o, a, sums, map_rows(o, &m, wider(s, HALO, rows)));
        op_copy(o, slice(o, y, s.from, s.to), filter_rows(o, f, n, s, rows));
        ops_pop(o, band);
    }
    ops_pop(o, mark);
    return y;
}

struct map double_map(const struct bands *k, struct ops *o, const struct filter *up,
                      const struct resnet *next, ops_mark mark, struct tensor *x)
{
    struct map m = {.x = x, .up = up};
    if (ops_error(o, NULL) != 0)
        return m;
    int64_t bytes = map_bytes(&m, channels(&m));
    if (next->shortcut.w && bytes + map_bytes(&m, tensor_dim(next->conv1.w, 0)) > k->hold)
        return m;
    int64_t rows = height(&m), step = band_rows(k, &m);
    struct tensor *y =
        op_empty(o, DTYPE_F32, SHAPE(tensor_dim(x, 0), rows, width(&m), channels(&m)));
    for (int64_t from = 0; from < rows && !ops_error(o, NULL); from += step) {
        struct span s = {from, least(from + step, rows)};
        ops_mark band = ops_push(o);
        op_copy(o, slice(o, y, s.from, s.to), doubled_rows(o, &m, s));
        ops_pop(o, band);
    }
    return (struct map){.x = ops_keep(o, mark, y)};
}

struct tensor *halve(const struct bands *k, struct ops *o, const struct filter *down,
                     const struct tensor *x)
{
    if (ops_error(o, NULL) != 0)
        return NULL;
    struct map m = {.x = (struct tensor *)(uintptr_t)x}; /* only read */
    int64_t rows = height(&m), half = rows / 2, step = band_rows(k, &m) / 2;
    struct tensor *y =
        op_empty(o, DTYPE_F32, SHAPE(tensor_dim(x, 0), half, width(&m) / 2, channels(&m)));
    for (int64_t from = 0; from < half && !ops_error(o, NULL); from += step) {
        int64_t to = least(from + step, half), read = least(2 * to + 1, rows);
        const int pad[4] = {0, (int)(2 * to + 1 - read), 0, 1};
        ops_mark band = ops_push(o);
        op_copy(o, slice(o, y, from, to),
                op_conv2d(o, slice(o, x, 2 * from, read), down->w, down->b, 2, pad, ACT_NONE));
        ops_pop(o, band);
    }
    return y;
}
