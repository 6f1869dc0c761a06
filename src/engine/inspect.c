/* Looking at checkpoints without drawing: what is there, what is missing, what it would need. */
#include <errno.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/model.h"
#include "engine/residency.h"
#include "engine/upscale/network.h"

#define MAX_UNUSED_NAMED 64

static void json_cleanup(json_t **j)
{
    json_decref(*j);
}
#define AUTO_JSON __attribute__((cleanup(json_cleanup)))

/* Text from files: what is not UTF-8 becomes '?', so that it always fits JSON. */
static json_t *text(const char *s)
{
    json_t *j = json_string(s);
    if (j)
        return j;
    AUTO_FREE char *plain = strdup(s);
    for (char *c = plain; c && *c; c++)
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    return json_string(plain ? plain : "");
}

/* ---- parts ---- */

/* How many tensors of each stored type. */
static json_t *dtypes_of(const struct weights *w)
{
    json_t *j = json_object();
    for (size_t i = 0; i < weights_count(w); i++) {
        const char *stored = weights_at(w, i)->stored;
        json_int_t n = json_integer_value(json_object_get(j, stored));
        json_object_set_new(j, stored, json_integer(n + 1));
    }
    return j;
}

static json_t *unused_of(const struct weights *w)
{
    const char *names[MAX_UNUSED_NAMED];
    size_t count = weights_unused(w, names, ARRAY_LEN(names));
    json_t *j = json_array();
    for (size_t i = 0; i < count && i < ARRAY_LEN(names); i++)
        json_array_append_new(j, text(names[i]));
    return j;
}

static json_t *part_json(const struct part *p, const struct err *fault)
{
    json_t *j = json_object();
    json_object_set_new(j, "name", text(p->name));
    json_object_set_new(j, "found", json_boolean(p->weights != NULL));
    if (p->class_name)
        json_object_set_new(j, "class", text(p->class_name));
    if (p->weights) {
        json_object_set_new(j, "path", text(weights_path(p->weights)));
        json_object_set_new(j, "tensors", json_integer((json_int_t)weights_count(p->weights)));
        json_object_set_new(j, "parameters",
                            json_integer((json_int_t)weights_parameters(p->weights)));
        json_object_set_new(j, "bytes", json_integer((json_int_t)weights_bytes(p->weights)));
        json_object_set_new(j, "dtypes", dtypes_of(p->weights));
        if (p->loader.backend) /* a model has asked for its tensors */
            json_object_set_new(j, "unused", unused_of(p->weights));
    }
    const struct err *e = p->loader.err.code ? &p->loader.err : fault;
    json_object_set_new(j, "error", e && e->code ? text(e->text) : json_null());
    return j;
}

static bool part_opened(const struct checkpoint *c, const char *name)
{
    for (int i = 0; i < c->part_count; i++)
        if (strcmp(c->parts[i].name, name) == 0)
            return true;
    return false;
}

/* A part that model_index.json names but loading did not reach. */
static json_t *unopened_json(struct checkpoint *c, const char *name, const char *stem)
{
    struct err e = {0};
    struct part p;
    checkpoint_peek(c, name, stem, &p, &e);
    snprintf(p.name, sizeof(p.name), "%s", name);
    json_t *j = part_json(&p, &e);
    part_close(&p);
    return j;
}

/* Parts without weights are told of where they are missing. */
static void add_missing(json_t *j, struct checkpoint *c, const char *name)
{
    struct err e = {0};
    AUTO_FREE char *folder = NULL;
    if (config_length(c->index, name) == 2 && checkpoint_folder(c, name, &folder, &e) != 0)
        json_array_append_new(
            j, json_pack("{s:s, s:b, s:o}", "name", name, "found", 0, "error", text(e.text)));
}

/* ---- networks that enlarge ---- */

static void add_upscalers(json_t *parts, struct checkpoint *c)
{
    for (int i = 0; i < UPSCALE_NETWORKS; i++) {
        struct err e;
        struct part p;
        if (!upscale_network_look(c, i, &p, &e))
            continue;
        json_t *j = part_json(&p, &e);
        if (p.config)
            json_object_set_new(j, "scale", json_integer(config_int(p.config, "scale", 0, 0, 64)));
        json_array_append_new(parts, j);
        part_close(&p);
    }
}

static json_t *parts_json(struct checkpoint *c)
{
    static const struct {
        const char *name, *stem;
    } usual[] = {
        {"text_encoder", "model"},
        {"text_encoder_2", "model"},
        {"text_encoder_3", "model"},
        {"transformer", "diffusion_pytorch_model"},
        {"transformer_2", "diffusion_pytorch_model"},
        {"unet", "diffusion_pytorch_model"},
        {"vae", "diffusion_pytorch_model"},
    };
    static const char *const tokenizers[] = {"tokenizer", "tokenizer_2"};
    json_t *j = json_array();
    for (int i = 0; i < c->part_count; i++)
        json_array_append_new(j, part_json(&c->parts[i], NULL));
    for (size_t i = 0; i < ARRAY_LEN(usual) && c->index; i++)
        if (config_length(c->index, usual[i].name) == 2 && !part_opened(c, usual[i].name))
            json_array_append_new(j, unopened_json(c, usual[i].name, usual[i].stem));
    for (size_t i = 0; i < ARRAY_LEN(tokenizers) && c->index; i++)
        add_missing(j, c, tokenizers[i]);
    add_upscalers(j, c);
    return j;
}

/* ---- memory ---- */

static json_t *memory_row(struct omni_model *m, int width, int height, int frames)
{
    struct omni_request r = {.mode = frames > 1 ? OMNI_TEXT_TO_VIDEO : OMNI_TEXT_TO_IMAGE,
                             .prompt = "",
                             .width = width,
                             .height = height,
                             .frames = frames,
                             .guidance = m->traits.default_guidance};
    uint64_t bytes = 0;
    struct err e = {0};
    if (omni_plan(m, &r, 1, &bytes, &e) != 0)
        return NULL;
    return json_pack("{s:i, s:i, s:i, s:I}", "width", width, "height", height, "frames", frames,
                     "bytes", (json_int_t)bytes);
}

/* All weights in memory, and at most at a time where they are there by turns; what both would be
 * with quantized matrices in their blocks. */
static json_t *weights_json(struct omni_model *m)
{
    const struct omni_model_info *i = &m->info;
    json_t *j = json_pack("{s:I, s:I}", "bytes", (json_int_t)i->weight_bytes, "by_turns_bytes",
                          (json_int_t)i->least_weight_bytes);
    if (!residency_has_blocks(m) || residency_keep_blocks(m, true, NULL) != 0)
        return j;
    if ((json_int_t)i->weight_bytes < json_integer_value(json_object_get(j, "bytes"))) {
        json_object_set_new(j, "in_blocks_bytes", json_integer((json_int_t)i->weight_bytes));
        json_object_set_new(j, "in_blocks_by_turns_bytes",
                            json_integer((json_int_t)i->least_weight_bytes));
    }
    (void)residency_keep_blocks(m, false, NULL);
    return j;
}

/* Activations at the model's own size and some usual ones; sizes that it cannot do are left out. */
static json_t *memory_json(struct omni_model *m)
{
    const int sizes[][3] = {
        {m->traits.default_width, m->traits.default_height, 1},
        {128, 128, 1},
        {256, 256, 1},
        {512, 512, 1},
        {1024, 1024, 1},
        {256, 144, 24},
    };
    json_t *j = json_array();
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        if (i && !memcmp(sizes[i], sizes[0], sizeof sizes[0]))
            continue;
        json_t *row = memory_row(m, sizes[i][0], sizes[i][1], sizes[i][2]);
        if (row)
            json_array_append_new(j, row);
    }
    return j;
}

/* ---- the whole ---- */

static void describe(json_t *j, struct omni_model *m)
{
    const struct omni_model_info *i = &m->info;
    json_object_set_new(j, "variant", text(i->variant));
    json_object_set_new(j, "parameters", json_integer((json_int_t)i->parameters));
    json_object_set_new(j, "size_multiple", json_integer(i->size_multiple));
    json_object_set_new(j, "default_width", json_integer(i->default_width));
    json_object_set_new(j, "default_height", json_integer(i->default_height));
    json_object_set_new(j, "default_steps", json_integer(i->default_steps));
    json_object_set_new(j, "default_guidance", json_real(i->default_guidance));
    json_object_set_new(j, "max_prompt_tokens", json_integer(i->max_prompt_tokens));
    json_object_set_new(j, "max_frames", json_integer(m->traits.max_frames));
    json_object_set_new(j, "scheduler", text(m->schedule.kind));
    json_object_set_new(j, "precision", text(i->precision));
    json_object_set_new(j, "weights", weights_json(m));
    json_object_set_new(j, "memory", memory_json(m));
}

/* Shapes need no device but the CPU; memory is counted for the precision that it would choose. */
struct omni_load_options options_for_looking(const struct omni_load_options *stated)
{
    struct omni_load_options o = {.device = "cpu"};
    if (stated) {
        o.parts = stated->parts;
        o.part_count = stated->part_count;
    }
    return o;
}

int omni_inspect(const char *path, const struct omni_load_options *options, char **json,
                 struct err *e)
{
    struct omni_model m;
    struct err fault = {0};
    struct omni_load_options o = options_for_looking(options);
    int rc = model_open(&m, path, &o, true, &fault);
    AUTO_JSON json_t *j = json_object();
    json_object_set_new(j, "path", text(path));
    json_object_set_new(j, "class", text(m.checkpoint.class_name ? m.checkpoint.class_name : ""));
    if (m.checkpoint.file)
        json_object_set_new(j, "holds", text(single_file_what(m.checkpoint.file)));
    json_object_set_new(j, "family", m.family ? text(m.family->name) : json_null());
    json_object_set_new(j, "error", rc ? text(fault.text) : json_null());
    if (rc == 0)
        describe(j, &m);
    json_object_set_new(j, "parts", parts_json(&m.checkpoint));
    bool nothing = m.checkpoint.index == NULL;
    model_close(&m);
    if (nothing)
        return err_set(e, fault.code, "%s", fault.text);
    *json = json_dumps(j, JSON_INDENT(2));
    return *json ? 0 : err_nomem(e);
}

/* ---- devices ---- */

static void add_line(json_t *list, const char *word)
{
    struct device d;
    char line[128];
    if (device_open(word, 0, &d, NULL) != 0)
        return;
    device_describe(&d, line, sizeof(line));
    json_array_append_new(list, text(line));
    device_close(&d);
}

int omni_devices(char **json, struct err *e)
{
    AUTO_JSON json_t *j = json_array();
    add_line(j, "cpu");
    for (int i = 0, n = device_cuda_count(NULL); i < n; i++) {
        char word[32];
        snprintf(word, sizeof(word), "cuda:%d", i);
        add_line(j, word);
    }
    *json = json_dumps(j, JSON_INDENT(2));
    return *json ? 0 : err_nomem(e);
}
