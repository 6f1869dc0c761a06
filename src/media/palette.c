#include "media/palette.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Red, green, blue: a short form of T. Riemersma's "redmean", which sits near CIE Luv at the price
 * of a multiplication. */
static const int weights[3] = {2, 4, 3};

/* ---- making ---- */

enum { TABLE_SIZE = 1 << 16, CELLS_MOST = TABLE_SIZE / 2, MEANS_ROUNDS = 6 };

/* Pixels of one colour, or, where there are too many colours, of nearly one. */
struct cell {
    float at[3];  /* mean colour, each channel times the root of its weight */
    float weight; /* how many pixels */
};

/* A part [first, end) of the cells, to become one colour or be split. */
struct box {
    size_t first, end;
    double error; /* squared distances to the mean, summed */
    int axis;     /* where most of the error is */
};

struct sum {
    uint64_t rgb[3], count;
    uint32_t key; /* colour without its last bits */
};

/* The slot of `key` in a table (open addressing, never over half full). */
static struct sum *find_slot(struct sum *table, uint32_t key)
{
    size_t slot = key * 2654435761u >> 16;
    while (table[slot].count && table[slot].key != key)
        slot = (slot + 1) % TABLE_SIZE;
    return &table[slot];
}

/* Sums the pixels whose colours are equal but for their last `drop` bits a channel; false when
 * these are more than CELLS_MOST. */
static bool sum_pixels(const uint8_t *rgb, size_t pixels, int drop, struct sum *table)
{
    uint32_t mask = 0xFFu >> drop << drop;
    size_t used = 0;
    mask |= mask << 8 | mask << 16;
    memset(table, 0, TABLE_SIZE * sizeof *table);
    for (size_t i = 0; i < pixels; i++, rgb += 3) {
        uint32_t key = ((uint32_t)rgb[0] << 16 | (uint32_t)rgb[1] << 8 | rgb[2]) & mask;
        struct sum *s = find_slot(table, key);
        if (!s->count && ++used > CELLS_MOST)
            return false;
        s->key = key;
        s->count++;
        for (int c = 0; c < 3; c++)
            s->rgb[c] += rgb[c];
    }
    return true;
}

/* The pixels as weighted cells, [CELLS_MOST] at most, as fine as fits: the single colours of a
 * drawing or a gray picture, cubes of up to 8^3 colours of a photograph. Sets *fine when the cells
 * are single colours. Returns how many there are, 0 when out of memory. */
static size_t gather(const uint8_t *rgb, size_t pixels, struct cell *cells, bool *fine)
{
    struct sum *table = malloc(TABLE_SIZE * sizeof *table);
    size_t n = 0;
    int drop = 0;
    if (!table)
        return 0;
    while (!sum_pixels(rgb, pixels, drop, table))
        drop++; /* ends at 3: 32^3 is CELLS_MOST */
    for (size_t i = 0; i < TABLE_SIZE; i++) {
        if (!table[i].count)
            continue;
        for (int c = 0; c < 3; c++)
            cells[n].at[c] =
                (float)((double)table[i].rgb[c] / (double)table[i].count * sqrt(weights[c]));
        cells[n++].weight = (float)table[i].count;
    }
    free(table);
    *fine = drop == 0;
    return n;
}

static void measure(struct box *b, const struct cell *cells)
{
    double w = 0, sum[3] = {0}, square[3] = {0};
    for (size_t i = b->first; i < b->end; i++) {
        w += cells[i].weight;
        for (int c = 0; c < 3; c++) {
            sum[c] += (double)cells[i].weight * cells[i].at[c];
            square[c] += (double)cells[i].weight * cells[i].at[c] * cells[i].at[c];
        }
    }
    b->error = 0;
    double most = -1;
    for (int c = 0; c < 3; c++) {
        double error = square[c] - sum[c] * sum[c] / w;
        b->error += error;
        if (error > most) {
            most = error;
            b->axis = c;
        }
    }
    if (b->end - b->first < 2)
        b->error = 0;
}

static int by_axis(const void *a, const void *b, void *axis)
{
    const struct cell *x = a, *y = b;
    for (int i = 0; i < 3; i++) { /* ties by the other axes: one order, whatever qsort_r does */
        int c = (*(int *)axis + i) % 3;
        if (x->at[c] != y->at[c])
            return x->at[c] < y->at[c] ? -1 : 1;
    }
    return 0;
}

/* Cuts `b` along its axis where the two halves' errors are least in sum; `b` keeps the first. */
static struct box split(struct box *b, struct cell *cells)
{
    int axis = b->axis;
    double w = 0, sum = 0, w1 = 0, sum1 = 0, best = -1;
    size_t cut = b->first + 1;
    qsort_r(cells + b->first, b->end - b->first, sizeof *cells, by_axis, &axis);
    for (size_t i = b->first; i < b->end; i++) {
        w += cells[i].weight;
        sum += (double)cells[i].weight * cells[i].at[axis];
    }
    for (size_t i = b->first; i + 1 < b->end; i++) {
        w1 += cells[i].weight;
        sum1 += (double)cells[i].weight * cells[i].at[axis];
        double gain = sum1 * sum1 / w1 + (sum - sum1) * (sum - sum1) / (w - w1);
        if (gain > best) {
            best = gain;
            cut = i + 1;
        }
    }
    struct box rest = {cut, b->end, 0, 0};
    b->end = cut;
    measure(b, cells);
    measure(&rest, cells);
    return rest;
}

/* Splits the box with the greatest error until there are `most`, or no error is left. */
static int split_all(struct cell *cells, size_t n, int most, struct box *boxes)
{
    int count = 1;
    boxes[0] = (struct box){0, n, 0, 0};
    measure(&boxes[0], cells);
    while (count < most) {
        int worst = 0;
        for (int i = 1; i < count; i++)
            if (boxes[i].error > boxes[worst].error)
                worst = i;
        if (boxes[worst].error <= 0)
            break;
        boxes[count] = split(&boxes[worst], cells);
        count++;
    }
    return count;
}

/* Means in three rows, so that the search for the nearest runs in vector registers. */
struct means {
    int count;
    float at[3][256];
};

static int nearest_mean(const struct means *m, const float at[3])
{
    float distance[256];
    for (int k = 0; k < m->count; k++) {
        float a = m->at[0][k] - at[0], b = m->at[1][k] - at[1], c = m->at[2][k] - at[2];
        distance[k] = a * a + b * b + c * c;
    }
    int best = 0;
    for (int k = 1; k < m->count; k++)
        if (distance[k] < distance[best])
            best = k;
    return best;
}

/* One round of Lloyd's k-means: each mean moves to the middle of what is nearest to it. */
static void move_means(struct means *m, const struct cell *cells, size_t n)
{
    double sum[256][3] = {{0}}, w[256] = {0};
    for (size_t i = 0; i < n; i++) {
        int k = nearest_mean(m, cells[i].at);
        w[k] += cells[i].weight;
        for (int c = 0; c < 3; c++)
            sum[k][c] += (double)cells[i].weight * cells[i].at[c];
    }
    for (int k = 0; k < m->count; k++)
        for (int c = 0; c < 3 && w[k] > 0; c++)
            m->at[c][k] = (float)(sum[k][c] / w[k]);
}

static void start_means(struct means *m, const struct cell *cells, const struct box *boxes)
{
    for (int k = 0; k < m->count; k++)
        for (int c = 0; c < 3; c++) {
            double sum = 0, w = 0;
            for (size_t i = boxes[k].first; i < boxes[k].end; i++) {
                sum += (double)cells[i].weight * cells[i].at[c];
                w += cells[i].weight;
            }
            m->at[c][k] = (float)(sum / w);
        }
}

int palette_make(const uint8_t *rgb, size_t pixels, int most, struct palette *out)
{
    *out = (struct palette){0};
    bool fine = false;
    struct cell *cells = malloc(CELLS_MOST * sizeof *cells);
    size_t n = cells ? gather(rgb, pixels, cells, &fine) : 0;
    if (!n) {
        free(cells);
        return -ENOMEM;
    }
    struct box boxes[256];
    struct means means = {.count = split_all(cells, n, most, boxes)};
    out->exact = fine && n <= (size_t)most; /* then each box is one colour, and stays so */
    start_means(&means, cells, boxes);
    for (int i = 0; i < MEANS_ROUNDS && !out->exact; i++)
        move_means(&means, cells, n);
    free(cells);
    out->colours = means.count;
    for (int k = 0; k < means.count; k++)
        for (int c = 0; c < 3; c++) {
            double v = round(means.at[c][k] / sqrt(weights[c]));
            out->rgb[k][c] = (uint8_t)fmin(fmax(v, 0), 255);
        }
    return 0;
}

double palette_spacing(const struct palette *p)
{
    double sum = 0;
    for (int i = 0; i < p->colours; i++) {
        int least = p->colours > 1 ? 3 * 255 * 255 : 0;
        for (int k = 0; k < p->colours; k++) {
            int d = 0;
            for (int c = 0; c < 3; c++)
                d += (p->rgb[i][c] - p->rgb[k][c]) * (p->rgb[i][c] - p->rgb[k][c]);
            if (k != i && d < least)
                least = d;
        }
        sum += sqrt(least / 3.0);
    }
    return p->colours ? sum / p->colours : 0;
}

/* ---- finding ---- */

int palette_finder_init(struct palette_finder *f, const struct palette *p)
{
    *f = (struct palette_finder){.palette = p, .at = calloc(PALETTE_CUBES, sizeof *f->at)};
    return f->at ? 0 : -ENOMEM;
}

void palette_finder_free(struct palette_finder *f)
{
    free(f->at);
    str_free(&f->lists);
}

/* Squared distances from a colour to the nearest and to the farthest point of a cube. */
static void cube_distances(const uint8_t colour[3], const int corner[3], int *least, int *most)
{
    *least = *most = 0;
    for (int c = 0; c < 3; c++) {
        int low = corner[c] - colour[c], high = colour[c] - (corner[c] + 7);
        int outside = low > 0 ? low : high > 0 ? high : 0;
        int far = abs(low) > abs(high) ? abs(low) : abs(high);
        *least += weights[c] * outside * outside;
        *most += weights[c] * far * far;
    }
}

static void list_cube(struct palette_finder *f, size_t cube)
{
    const struct palette *p = f->palette;
    int corner[3] = {(int)(cube >> 10) * 8, (int)(cube >> 5 & 31) * 8, (int)(cube & 31) * 8};
    int least[256], most, bound = INT32_MAX;
    for (int i = 0; i < p->colours; i++) {
        cube_distances(p->rgb[i], corner, &least[i], &most);
        bound = most < bound ? most : bound;
    }
    uint8_t list[257];
    int n = 0;
    for (int i = 0; i < p->colours; i++)
        if (least[i] <= bound)
            list[++n] = (uint8_t)i;
    list[0] = (uint8_t)(n - 1);
    f->at[cube] = (uint32_t)f->lists.len + 1;
    str_addn(&f->lists, list, (size_t)n + 1);
}

int palette_nearest(struct palette_finder *f, int r, int g, int b)
{
    size_t cube = (size_t)(r >> 3) << 10 | (size_t)(g >> 3) << 5 | (size_t)(b >> 3);
    if (!f->at[cube])
        list_cube(f, cube);
    if (f->lists.failed)
        return 0;
    const uint8_t *list = (const uint8_t *)f->lists.data + f->at[cube] - 1;
    int best = 0, least = INT32_MAX;
    for (int i = 1; i <= list[0] + 1; i++) {
        const uint8_t *c = f->palette->rgb[list[i]];
        int d = weights[0] * (c[0] - r) * (c[0] - r) + weights[1] * (c[1] - g) * (c[1] - g) +
                weights[2] * (c[2] - b) * (c[2] - b);
        if (d < least) {
            least = d;
            best = list[i];
        }
    }
    return best;
}
