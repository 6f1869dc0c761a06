/* Is a checkpoint whole? Every tensor, and every file whose sha256 is known. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/model.h"
#include "engine/upscale/network.h"
#include "engine/sums.h"

/* ---- tensors ---- */

/* Whole rows at a time: a quantized tensor's blocks never go beyond one. */
static bool expanded_finite(const struct weights_entry *t)
{
    size_t columns = t->rank ? (size_t)t->dims[t->rank - 1] : 1;
    AUTO_FREE float *row = columns < SIZE_MAX / sizeof *row ? malloc(columns * sizeof *row) : NULL;
    size_t rows = 1;
    for (int i = 0; i + 1 < t->rank; i++)
        rows *= (size_t)t->dims[i];
    bool finite = row || !columns;
    for (size_t i = 0; i < rows && row && finite; i++) {
        weights_entry_values(t, (const char *)t->data + i * (t->bytes / rows), (int64_t)columns,
                             row);
        for (size_t k = 0; k < columns && finite; k++)
            finite = isfinite(row[k]);
    }
    return finite;
}

/* The exponent bits that are all set in infinities and NaNs; 0 for types without them. */
static bool finite_all(const struct weights_entry *t)
{
    if (t->expand)
        return expanded_finite(t);
    size_t n = t->bytes / dtype_size(t->dtype);
    const uint16_t *half = t->data;
    const uint32_t *word = t->data;
    uint16_t mask = t->dtype == DTYPE_BF16 ? 0x7f80 : 0x7c00;
    if (t->dtype == DTYPE_F32) {
        for (size_t i = 0; i < n; i++)
            if ((word[i] & 0x7f800000u) == 0x7f800000u)
                return false;
        return true;
    }
    for (size_t i = 0; i < n; i++)
        if ((half[i] & mask) == mask)
            return false;
    return true;
}

static int verify_part(const struct part *p, struct err *e)
{
    for (size_t i = 0; i < weights_count(p->weights); i++) {
        const struct weights_entry *t = weights_at(p->weights, i);
        if (t->usable && !finite_all(t))
            return err_set(e, -EDOM, "%s: the tensor %s holds NaN or infinity; the file is damaged",
                           t->file, t->name);
    }
    return 0;
}

static int verify_upscaler(struct checkpoint *c, int i, struct err *e)
{
    struct part p;
    struct err fault;
    if (!upscale_network_look(c, i, &p, &fault))
        return 0;
    int rc = fault.code ? err_set(e, fault.code, "%s", fault.text) : verify_part(&p, e);
    part_close(&p);
    return rc;
}

int omni_verify(const char *path, const struct omni_load_options *options, struct err *e)
{
    struct omni_model m;
    struct omni_load_options o = options_for_looking(options);
    struct err local = {0};
    e = e ? e : &local;
    *e = local; /* what an earlier call left there is not ours */
    int rc = model_open(&m, path, &o, true, e);
    if (rc == -ENOENT && m.checkpoint.missing[0] && !options)
        rc = 0; /* a single file is whole without the parts that lie elsewhere */
    for (int i = 0; i < m.checkpoint.part_count && rc == 0; i++)
        rc = verify_part(&m.checkpoint.parts[i], e);
    for (int i = 0; i < UPSCALE_NETWORKS && rc == 0; i++)
        rc = verify_upscaler(&m.checkpoint, i, e);
    model_close(&m);
    return rc;
}

/* ---- files ---- */

/* What was compared so far, and what there was nothing to compare with. */
struct summing {
    json_t *checked, *unknown;
    struct err *e;
};

static bool was_seen(const struct summing *s, const char *path)
{
    size_t i;
    json_t *row;
    json_array_foreach(s->checked, i,
                       row) if (strcmp(json_string_value(json_object_get(row, "file")), path) ==
                                0) return true;
    json_array_foreach(s->unknown, i,
                       row) if (strcmp(json_string_value(row), path) == 0) return true;
    return false;
}

/* Paths that are not UTF-8 do not fit JSON: they are compared and not told of. */
static int compare(struct summing *s, const char *path)
{
    struct known_sum known;
    if (was_seen(s, path))
        return 0;
    int code = sum_known(path, &known, s->e);
    if (code == 1) {
        code = sum_check(path, &known, s->e);
        json_array_append_new(s->checked, json_pack("{s:s, s:s, s:s}", "file", path, "sha256",
                                                    known.sha256, "source", known.source));
    } else if (code == 0)
        json_array_append_new(s->unknown, json_string(path));
    free(known.source);
    return code;
}

static int compare_weights(struct summing *s, const struct part *p)
{
    const char *last = "";
    int code = 0;
    for (size_t i = 0; i < weights_count(p->weights) && code == 0; i++) {
        const char *file = weights_at(p->weights, i)->file;
        if (strcmp(file, last) != 0)
            code = compare(s, file);
        last = file;
    }
    return code;
}

/* A small file of the checkpoint, where it is there. */
static int compare_beside(struct summing *s, const struct checkpoint *c, const char *folder,
                          const char *name)
{
    AUTO_STR struct str within = {0};
    str_addf(&within, "%s%s%s", folder, *folder ? "/" : "", name);
    AUTO_FREE char *path = within.failed ? NULL : checkpoint_file(c, within.data);
    if (!path)
        return err_nomem(s->e);
    return access(path, F_OK) == 0 ? compare(s, path) : 0;
}

static int compare_all(struct summing *s, const struct checkpoint *c)
{
    static const char *const small[][2] = {
        {"", "model_index.json"},        {"scheduler", "scheduler_config.json"},
        {"tokenizer", "tokenizer.json"}, {"tokenizer", "vocab.json"},
        {"tokenizer", "merges.txt"},     {"tokenizer_2", "tokenizer.json"},
        {"tokenizer_2", "vocab.json"},   {"tokenizer_2", "merges.txt"},
    };
    int code = 0;
    for (int i = 0; i < c->part_count && code == 0; i++)
        code = compare_weights(s, &c->parts[i]);
    for (int i = 0; i < c->part_count && code == 0; i++)
        code = compare_beside(s, c, c->parts[i].name, "config.json");
    for (size_t i = 0; i < ARRAY_LEN(small) && code == 0; i++)
        code = compare_beside(s, c, small[i][0], small[i][1]);
    return code;
}

int omni_verify_sums(const char *path, const struct omni_load_options *options, char **json,
                     struct err *e)
{
    struct omni_model m;
    struct omni_load_options o = options_for_looking(options);
    struct err local = {0};
    struct summing s = {json_array(), json_array(), e ? e : &local};
    *json = NULL;
    int code = model_open(&m, path, &o, true, s.e);
    if (code == -ENOENT && m.checkpoint.missing[0])
        code = 0;
    if (code == 0)
        code = compare_all(&s, &m.checkpoint);
    model_close(&m);
    json_t *report = json_pack("{s:o, s:o}", "checked", s.checked, "unknown", s.unknown);
    if (code == 0 && !(*json = json_dumps(report, JSON_INDENT(2))))
        code = err_nomem(s.e);
    json_decref(report);
    return code;
}
