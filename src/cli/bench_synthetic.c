/* `omnifs bench --synthetic`: one picture of a published model's full shapes with weights made up
 * on the spot, by stage and by product, each product beside oneDNN alone, and the whole beside its
 * products. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "cli/bench.h"
#include "engine/backend.h"
#include "engine/bench.h"
#include "engine/omni.h"
#include "engine/synthetic.h"
#include "job/models.h"
#include "job/registry.h"

#define LISTED 24 /* products in the table */

/* ---- a tokenizer ---- */

/* CLIP's form with single characters: enough for a prompt. */
static int write_tokenizer(const char *folder, struct err *e)
{
    AUTO_STR struct str vocabulary = {0}, path = {0}, merges = {0};
    int id = 0;
    str_add(&vocabulary, "{");
    for (int end = 0; end < 2; end++)
        /* Bytes as such vocabularies write them: 188 that are visible, 68 that are not. */
        for (int c = '!'; c < 256 + 68; c++)
            if (c <= '~' || (c >= 0xA1 && c != 0xAD))
                str_addf(&vocabulary, "\"\\u%04x%s\": %d, ", (unsigned)c, end ? "</w>" : "", id++);
    str_addf(&vocabulary, "\"ap\": %d, \"<|startoftext|>\": %d, \"<|endoftext|>\": %d}", id, id + 1,
             id + 2);
    str_addf(&path, "%s/vocab.json", folder);
    str_addf(&merges, "%s/merges.txt", folder);
    if (vocabulary.failed || path.failed || merges.failed)
        return err_nomem(e);
    static const char version[] = "#version: 0.2\na p\n";
    FILE *v = fopen(path.data, "we"), *m = fopen(merges.data, "we");
    bool ok = v && m && fputs(vocabulary.data, v) >= 0 && fputs(version, m) >= 0;
    ok = (!v || fclose(v) == 0) && ok;
    ok = (!m || fclose(m) == 0) && ok;
    return ok ? 0 : err_set(e, -EIO, "%s: a tokenizer could not be written", folder);
}

static int find_tokenizer(const struct synthetic_model *model, const char *folder, char *out,
                          size_t size, struct err *e)
{
    char path[REGISTRY_PATH_SIZE];
    if (strcmp(model->tokenizer, "clip") == 0) {
        snprintf(out, size, "%s", folder);
        return write_tokenizer(folder, e);
    }
    if (model_find("omni-mini", path, e) != 0)
        return e->code;
    snprintf(out, size, "%s/tokenizer", path);
    return 0;
}

/* ---- products ---- */

/* Adds an operation to the row of its kind and shape; `ctx` is an array of rows. */
static void count_operation(void *ctx, const char *kind, const char *shape, uint64_t flops,
                            double seconds)
{
    json_t *rows = ctx, *row = NULL;
    size_t i;
    json_array_foreach(rows, i, row)
    {
        if (!strcmp(json_string_value(json_object_get(row, "shape")), shape) &&
            !strcmp(json_string_value(json_object_get(row, "kind")), kind))
            break;
    }
    if (i == json_array_size(rows)) {
        row = json_pack("{s:s, s:s, s:i, s:f, s:f}", "kind", kind, "shape", shape, "calls", 0,
                        "flops", 0.0, "seconds", 0.0);
        json_array_append_new(rows, row);
    }
    json_t *calls = json_object_get(row, "calls"), *work = json_object_get(row, "flops");
    json_t *time = json_object_get(row, "seconds");
    json_integer_set(calls, json_integer_value(calls) + 1);
    json_real_set(work, json_real_value(work) + (double)flops);
    json_real_set(time, json_real_value(time) + seconds);
}

static double number(const json_t *row, const char *key)
{
    return json_number_value(json_object_get(row, key));
}

static int by_seconds(const void *a, const void *b)
{
    double x = number(*(json_t *const *)a, "seconds"), y = number(*(json_t *const *)b, "seconds");
    return (x < y) - (x > y);
}

/* Seconds that oneDNN alone needs for all calls of a row; 0 where it cannot, for want of memory for
 * the scores of a large attention say. */
static double alone_seconds(struct backend *b, enum dtype compute, const json_t *row)
{
    double one = 0;
    const char *kind = json_string_value(json_object_get(row, "kind"));
    const char *shape = json_string_value(json_object_get(row, "shape"));
    if (omni_bench_library(b, compute, kind, shape, &one, NULL))
        return 0;
    return one * number(row, "calls");
}

/* What a row of the table says. */
struct products {
    const char *kind, *shape;
    int64_t calls;
    double seconds, flops, alone; /* alone: 0, not compared */
};

static void add_product(json_t *rows, const struct products *p, double whole, double peak)
{
    double rate = p->seconds > 0 ? p->flops / p->seconds / 1e9 : 0;
    json_array_append_new(rows,
                          json_pack("{s:s, s:s, s:I, s:f, s:f, s:f, s:f, s:f}", "operation",
                                    p->kind, "shape", p->shape, "calls", (json_int_t)p->calls, "s",
                                    p->seconds, "% of time", 100 * p->seconds / whole, "GFLOP/s",
                                    rate, "% of peak", peak > 0 ? 100 * rate / peak : 0,
                                    "% of oneDNN", 100 * p->alone / p->seconds));
}

static struct products row_products(const json_t *row)
{
    return (struct products){json_string_value(json_object_get(row, "kind")),
                             json_string_value(json_object_get(row, "shape")),
                             (int64_t)number(row, "calls"),
                             number(row, "seconds"),
                             number(row, "flops"),
                             0};
}

static void add_to(struct products *sum, const struct products *p)
{
    sum->calls += p->calls;
    sum->seconds += p->seconds;
    sum->flops += p->flops;
    sum->alone += p->alone;
}

/* The longest products one by one, then the sum of those that oneDNN was measured on and of all. */
static void list_products(struct bench *b, struct backend *backend, json_t *const *order,
                          size_t count, json_t *rows)
{
    bool bf16 = json_is_true(json_object_get(b->products, "bf16"));
    bool cpu = !b->device || strcmp(b->device, "cpu") == 0; /* what the peaks are of */
    double peak = !cpu ? 0 : bf16 ? b->peak_bf16 : b->peak_fp32;
    double whole = number(b->products, "seconds");
    struct products listed = {.kind = "those compared", .shape = ""};
    struct products all = {.kind = "all products", .shape = ""};
    for (size_t i = 0; i < count; i++) {
        struct products p = row_products(order[i]);
        add_to(&all, &p);
        if (i >= LISTED)
            continue;
        p.alone = !cpu ? 0 : alone_seconds(backend, bf16 ? DTYPE_BF16 : DTYPE_F32, order[i]);
        add_product(rows, &p, whole, peak);
        if (p.alone > 0)
            add_to(&listed, &p);
    }
    add_product(rows, &listed, whole, peak);
    add_product(rows, &all, whole, peak);
    json_object_set_new(b->products, "all", json_real(all.seconds));
    json_object_set_new(b->products, "listed", json_real(listed.seconds));
    json_object_set_new(b->products, "alone", json_real(listed.alone));
}

int bench_products(struct bench *b, json_t *rows, struct err *e)
{
    const json_t *seen = json_object_get(b->products, "rows");
    size_t count = json_array_size(seen);
    AUTO_FREE json_t **order = calloc(count + 1, sizeof *order);
    struct backend *backend = NULL;
    if (!order)
        return err_nomem(e);
    if (!count || cpu_backend_new(b->registry->devices.threads, &backend, e) != 0)
        return e->code;
    for (size_t i = 0; i < count; i++)
        order[i] = json_array_get(seen, i);
    qsort(order, count, sizeof *order, by_seconds);
    list_products(b, backend, order, count, rows);
    backend_free(backend);
    return 0;
}

static void add_ratio(json_t *rows, const char *what, double seconds, double picture)
{
    json_array_append_new(rows, json_pack("{s:s, s:f, s:f}", "what", what, "s", seconds,
                                          "picture / it", seconds > 0 ? picture / seconds : 0));
}

int bench_whole(struct bench *b, json_t *rows, struct err *e)
{
    (void)e;
    double picture = number(b->products, "seconds"), all = number(b->products, "all");
    double listed = number(b->products, "listed"), alone = number(b->products, "alone");
    if (listed <= 0)
        return 0; /* no picture was drawn */
    add_ratio(rows, "the picture", picture, picture);
    add_ratio(rows, "its products alone", all, picture);
    add_ratio(rows, "the same in oneDNN alone, the rest in proportion", alone * all / listed,
              picture);
    return 0;
}

/* ---- the picture ---- */

static int draw(struct bench *b, struct omni_model *m, const char *prompt, json_t *seen,
                struct omni_request *r, struct omni_result *result, struct omni_timings *t,
                struct err *e)
{
    const struct omni_model_info *info = omni_model_info(m);
    const struct omni_callbacks callbacks = {.ctx = seen, .operation = count_operation};
    *r = (struct omni_request){.mode = OMNI_TEXT_TO_IMAGE,
                               .prompt = prompt,
                               .width = b->width ? b->width : info->default_width,
                               .height = b->height ? b->height : info->default_height,
                               .frames = 1,
                               .steps = b->steps,
                               .guidance = NAN,
                               .seed = 1};
    return omni_generate(m, r, 1, seen ? &callbacks : NULL, result, t, e);
}

/* A device loads its kernels with the first picture. Another prompt, or it would not be encoded. */
static int warm_up(struct bench *b, struct omni_model *m, struct err *e)
{
    struct omni_request r;
    struct omni_result result = {0};
    int rc = b->device ? draw(b, m, "a green pear, 3d render", NULL, &r, &result, NULL, e) : 0;
    picture_free(&result.picture);
    return rc;
}

/* Of all threads: on a machine that others use too, it says more than the clock on the wall. */
static double processor_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int measure(struct bench *b, const char *tokenizer, json_t *rows, struct err *e)
{
    char path[64], size[32];
    const struct omni_part parts[] = {{"tokenizer", tokenizer}, {"tokenizer_2", tokenizer}};
    const struct omni_load_options options = {.device = b->device ? b->device : "cpu",
                                              .precision = b->precision,
                                              .threads = b->registry->devices.threads,
                                              .memory = b->registry->devices.memory,
                                              .parts = parts,
                                              .part_count = ARRAY_LEN(parts)};
    struct omni_model *m = NULL;
    struct omni_request r;
    struct omni_result result = {0};
    struct omni_timings t = {0};
    double start = clock_seconds();
    snprintf(path, sizeof path, SYNTHETIC_PREFIX "%s", b->synthetic);
    if (omni_model_load(path, &options, &m, e) != 0)
        return e->code;
    double loaded = clock_seconds() - start, whole = 0;
    json_t *seen = json_array();
    int rc = warm_up(b, m, e);
    double processor = processor_seconds();
    rc = rc ? rc : draw(b, m, "a red apple, 3d render", seen, &r, &result, &t, e);
    processor = processor_seconds() - processor;
    const struct omni_model_info *info = omni_model_info(m);
    if (!rc) {
        int steps = result.steps ? result.steps : 1;
        whole = t.encode + t.steps + t.decode;
        snprintf(size, sizeof size, "%dx%d, %s", r.width, r.height, info->precision);
        json_array_append_new(
            rows, json_pack("{s:s, s:s, s:f, s:f, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "model",
                            b->synthetic, "picture", size, "load", loaded, "encode", t.encode,
                            "steps", result.steps, "s/step", t.steps / steps, "decode", t.decode,
                            "total", whole, "CPU s", processor, "weights MB",
                            (double)info->weight_bytes / 1e6, "planned MB",
                            (double)t.planned_bytes / 1e6, "used MB", (double)t.peak_bytes / 1e6));
    }
    b->products = json_pack("{s:o, s:f, s:b}", "rows", seen, "seconds", whole, "bf16",
                            strcmp(info->precision, "bf16") == 0);
    picture_free(&result.picture);
    omni_model_free(m);
    return rc;
}

int bench_drawing(struct bench *b, json_t *rows, struct err *e)
{
    const struct synthetic_model *model = synthetic_find(b->synthetic);
    char folder[] = "/tmp/omnifs-bench-XXXXXX", tokenizer[REGISTRY_PATH_SIZE + 16];
    if (!model)
        return err_set(e, -ENOENT,
                       "there is no synthetic model %s; there are klein-4b, zimage, sdxl and sd15",
                       b->synthetic);
    if (!mkdtemp(folder))
        return err_set(e, -errno, "%s: %s", folder, strerror(errno));
    int rc = find_tokenizer(model, folder, tokenizer, sizeof tokenizer, e);
    rc = rc ? rc : measure(b, tokenizer, rows, e);
    file_remove_tree(AT_FDCWD, folder);
    return rc;
}
