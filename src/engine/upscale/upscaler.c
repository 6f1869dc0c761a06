/* Enlarging pictures by networks: which ones, one after the other, and each in bands of rows, so
 * that a picture of any height needs no more memory than a band of it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/device.h"
#include "engine/fingerprint.h"
#include "engine/model.h"
#include "engine/upscale/network.h"

#define BAND_BYTES ((int64_t)48 << 20) /* of one map of features */
#define MAX_SIDE   65535
#define MAX_PASSES 4
/* How much of the enlargement is left to a filter rather than to one more pass. */
#define FILTER_TIMES 1.5

struct omni_upscaler {
    struct device device;
    enum dtype compute;
    struct part parts[UPSCALE_NETWORKS];
    struct upscale_network *networks[UPSCALE_NETWORKS];
    int count;
    struct omni_upscaler_info info;
    int64_t band; /* bytes */
};

/* ---- loading ---- */

static int load_network(struct omni_upscaler *u, const char *path, const char *name, struct err *e)
{
    AUTO_STR struct str folder = {0};
    struct stat st;
    str_addf(&folder, "%s/%s", path, name);
    if (folder.failed)
        return err_nomem(e);
    if (u->count > 0 && stat(folder.data, &st) != 0)
        return 0; /* only the first must be there */
    struct part *p = &u->parts[u->count];
    if (part_open(p, folder.data, name, UPSCALE_STEM, e) != 0)
        return e->code;
    p->loader.backend = u->device.backend;
    p->loader.compute = u->compute;
    int rc = upscale_network_load(p, &u->networks[u->count], e);
    u->count++;
    u->info.weight_bytes += weight_loader_bytes(&p->loader, true);
    return rc;
}

static int load(struct omni_upscaler *u, const char *path, const struct omni_load_options *o,
                struct err *e)
{
    int rc = device_open(o->device, o->threads, &u->device, e);
    if (rc == 0)
        rc = model_compute(&u->device, o->precision, &u->compute, e);
    for (int i = 0; i < UPSCALE_NETWORKS && rc == 0; i++)
        rc = load_network(u, path, upscale_parts[i], e);
    if (rc == 0)
        rc = fingerprint_folders(path, upscale_parts, u->count, u->info.sha256, e);
    snprintf(u->info.precision, sizeof(u->info.precision), "%s",
             u->compute == DTYPE_BF16 ? "bf16" : "fp32");
    snprintf(u->info.device, sizeof(u->info.device), "%s", u->device.name);
    return rc;
}

int omni_upscaler_load(const char *path, const struct omni_load_options *options,
                       struct omni_upscaler **out, struct err *e)
{
    static const struct omni_load_options defaults;
    struct omni_upscaler *u = calloc(1, sizeof(*u));
    if (!u)
        return err_nomem(e);
    u->band = BAND_BYTES;
    int rc = load(u, path, options ? options : &defaults, e);
    if (rc != 0)
        omni_upscaler_free(u);
    else
        *out = u;
    return rc;
}

void omni_upscaler_free(struct omni_upscaler *u)
{
    if (!u)
        return;
    for (int i = 0; i < UPSCALE_NETWORKS; i++) {
        upscale_network_free(u->networks[i]);
        part_close(&u->parts[i]);
    }
    device_close(&u->device);
    free(u);
}

const struct omni_upscaler_info *omni_upscaler_info(const struct omni_upscaler *u)
{
    return &u->info;
}

void upscale_set_band(struct omni_upscaler *u, int64_t bytes)
{
    u->band = bytes;
}

/* ---- passes ---- */

/* Networks that together enlarge `factor` times: large pictures get the small factors last, so
 * the cheapest order is upwards. */
struct passes {
    const struct upscale_network *at[MAX_PASSES];
    int count, factor;
};

static const struct upscale_network *network_of(const struct omni_upscaler *u, int scale)
{
    for (int i = 0; i < u->count; i++)
        if (upscale_network_scale(u->networks[i]) == scale)
            return u->networks[i];
    return NULL;
}

/* One of the largest scale as often as it divides the factor, before it what is left. */
static bool find_passes(const struct omni_upscaler *u, int factor, struct passes *out)
{
    int largest = 0;
    *out = (struct passes){.factor = factor};
    for (int i = 0; i < u->count; i++)
        if (upscale_network_scale(u->networks[i]) > largest)
            largest = upscale_network_scale(u->networks[i]);
    const struct upscale_network *first = NULL;
    int repeats = 0, left = factor;
    for (; largest > 1 && left % largest == 0; left /= largest)
        repeats++;
    if (left > 1 && !(first = network_of(u, left)))
        return false;
    if (repeats + (left > 1) > MAX_PASSES)
        return false;
    if (first)
        out->at[out->count++] = first;
    while (repeats-- > 0)
        out->at[out->count++] = network_of(u, largest);
    return true;
}

int omni_upscaler_factor(const struct omni_upscaler *u, double times)
{
    struct passes p;
    int best = 1;
    for (int factor = 2; factor <= 64 && times > 1; factor++) {
        if (!find_passes(u, factor, &p))
            continue;
        best = factor;
        if (times <= factor * FILTER_TIMES)
            break;
    }
    return best;
}

/* ---- one pass ---- */

/* A call of omni_upscale, or its plan. */
struct session {
    const struct omni_upscaler *u;
    struct ops *o;
    struct passes passes;
    struct picture between[MAX_PASSES]; /* the result of each pass */
};

static int64_t clamped(int64_t v, int64_t limit)
{
    return v < 0 ? 0 : v >= limit ? limit - 1 : v;
}

/* Rows from … to of the picture with the border that the network wants. */
static void fill_bordered(const struct picture *in, int64_t from, int64_t to, float *out)
{
    const int edge = UPSCALE_BORDER;
    for (int64_t y = from - edge; y < to + edge; y++) {
        const uint8_t *row = in->rgb + (size_t)(clamped(y, in->height) * in->width) * 3;
        for (int64_t x = -edge; x < in->width + edge; x++)
            for (int c = 0; c < 3; c++)
                *out++ = (float)row[clamped(x, in->width) * 3 + c] / 255;
    }
}

static struct tensor *send_rows(struct session *s, const struct picture *in, int64_t from,
                                int64_t to)
{
    int64_t rows = to - from + 2 * UPSCALE_BORDER, columns = in->width + 2 * UPSCALE_BORDER;
    AUTO_FREE float *values = NULL;
    if (!ops_planning(s->o)) {
        values = malloc((size_t)(rows * columns * 3) * sizeof(*values));
        if (!values) {
            ops_fail(s->o, -ENOMEM, "not enough memory for %lld rows of a picture",
                     (long long)rows);
            return NULL;
        }
        fill_bordered(in, from, to, values);
    }
    return op_from_host(s->o, DTYPE_F32, SHAPE(1, rows, columns, 3), values);
}

/* Pixels [rows, width, 3, scale, scale] into their places, from row `first` of the result on. */
static void place(const uint8_t *values, int64_t rows, int scale, struct picture *out,
                  int64_t first)
{
    int64_t width = out->width / scale;
    for (int64_t y = 0; y < rows; y++)
        for (int64_t x = 0; x < width; x++)
            for (int c = 0; c < 3; c++)
                for (int64_t p = 0; p < scale * scale; p++)
                    out->rgb[(((first + y * scale + p / scale) * out->width) + x * scale +
                              p % scale) *
                                 3 +
                             c] = *values++;
}

/* Rows from … to of the picture, enlarged; the rows around them that they depend on are read. */
static void run_band(struct session *s, const struct upscale_network *n, const struct picture *in,
                     int64_t from, int64_t to, struct picture *out)
{
    struct ops *o = s->o;
    int scale = upscale_network_scale(n);
    int64_t reach = upscale_network_reach(n), rows = to - from;
    int64_t first = from > reach ? from - reach : 0;
    int64_t last = to + reach < in->height ? to + reach : in->height;
    ops_mark mark = ops_push(o);
    struct tensor *y = upscale_network_run(n, o, send_rows(s, in, first, last));
    y = op_to_u8(o, op_slice(o, y, 1, from - first, rows), 1, 0);
    size_t bytes = (size_t)rows * (size_t)in->width * 3 * (size_t)(scale * scale);
    AUTO_FREE uint8_t *values = ops_planning(o) ? NULL : malloc(bytes);
    if (!values && !ops_planning(o))
        ops_fail(o, -ENOMEM, "not enough memory for %zu bytes of pixels", bytes);
    if (op_to_host(o, y, values, bytes) == 0 && values)
        place(values, rows, scale, out, from * scale);
    ops_pop(o, mark);
}

/* Rows a band: the maps of features are the most, and what is made twice should be the least. */
static int64_t band_rows(const struct session *s, const struct upscale_network *n,
                         const struct picture *in)
{
    int64_t row = (int64_t)in->width * upscale_network_channels(n) * (int64_t)sizeof(float);
    int64_t reach = upscale_network_reach(n), rows = s->u->band / row - 2 * reach;
    return rows > reach ? rows : reach;
}

static void run_pass(struct session *s, const struct upscale_network *n, const struct picture *in,
                     struct picture *out)
{
    int64_t step = band_rows(s, n, in);
    for (int64_t from = 0; from < in->height && !ops_error(s->o, NULL); from += step)
        run_band(s, n, in, from, from + step < in->height ? from + step : in->height, out);
}

static struct picture *run_passes(struct session *s, const struct picture *in)
{
    struct picture *out = NULL;
    for (int i = 0; i < s->passes.count; i++, in = out) {
        out = &s->between[i];
        run_pass(s, s->passes.at[i], in, out);
    }
    return out;
}

/* ---- a whole call ---- */

static int session_begin(struct session *s, const struct omni_upscaler *u, int width, int height,
                         int factor, struct err *e)
{
    *s = (struct session){.u = u};
    if (width < 1 || height < 1 || (int64_t)width * factor > MAX_SIDE ||
        (int64_t)height * factor > MAX_SIDE)
        return err_set(e, -EINVAL, "a picture of %dx%d cannot be enlarged %d times", width, height,
                       factor);
    if (!find_passes(u, factor, &s->passes) || s->passes.count == 0)
        return err_set(e, -EINVAL, "this upscaler does not enlarge %d times", factor);
    for (int i = 0, so_far = 1; i < s->passes.count; i++) {
        so_far *= upscale_network_scale(s->passes.at[i]);
        s->between[i] = (struct picture){width * so_far, height * so_far, 1, NULL};
    }
    return 0;
}

/* The arena's peak for one frame. */
static int session_plan(struct session *s, int width, int height, uint64_t *bytes, struct err *e)
{
    const struct picture in = {width, height, 1, NULL};
    s->o = ops_new_plan(s->u->device.backend, s->u->compute, e);
    if (!s->o)
        return e->code;
    run_passes(s, &in);
    *bytes = ops_peak(s->o);
    int rc = ops_error(s->o, e);
    ops_free(s->o);
    s->o = NULL;
    return rc;
}

int omni_upscale_plan(const struct omni_upscaler *u, int width, int height, int factor,
                      uint64_t *bytes, struct err *e)
{
    struct session s;
    if (session_begin(&s, u, width, height, factor, e) != 0 ||
        session_plan(&s, width, height, bytes, e) != 0)
        return e->code;
    for (int i = 0; i < s.passes.count; i++)
        *bytes += picture_frame_bytes(&s.between[i]);
    return 0;
}

static int make_room(struct session *s, struct err *e)
{
    for (int i = 0; i < s->passes.count; i++) {
        struct picture *p = &s->between[i];
        int code = picture_new(p, p->width, p->height, 1);
        if (code != 0)
            return err_set(e, code, "not enough memory to enlarge a picture to %dx%d", p->width,
                           p->height);
    }
    return 0;
}

static int run_frames(struct session *s, const struct omni_upscale *job, struct err *e)
{
    int rc = 0;
    for (int f = 0; f < job->in->frames && rc == 0; f++) {
        const struct picture frame = {job->in->width, job->in->height, 1,
                                      picture_frame(job->in, f)};
        struct picture *large = run_passes(s, &frame);
        rc = ops_error(s->o, e);
        if (rc == 0)
            rc = job->frame(job->ctx, f, large, e);
    }
    return rc;
}

int omni_upscale(const struct omni_upscaler *u, const struct omni_upscale *job, struct err *e)
{
    struct session s;
    uint64_t bytes = 0;
    struct err local = {0};
    e = e ? e : &local;
    *e = local; /* what an earlier call left there is not ours */
    if (session_begin(&s, u, job->in->width, job->in->height, job->factor, e) != 0 ||
        session_plan(&s, job->in->width, job->in->height, &bytes, e) != 0)
        return e->code;
    int rc = make_room(&s, e);
    if (rc == 0 && !(s.o = ops_new(u->device.backend, u->compute, bytes, e)))
        rc = e->code;
    if (rc == 0) {
        ops_set_cancel(s.o, job->cancelled, job->ctx);
        rc = run_frames(&s, job, e);
        ops_free(s.o);
    }
    for (int i = 0; i < s.passes.count; i++)
        picture_free(&s.between[i]);
    return rc;
}
