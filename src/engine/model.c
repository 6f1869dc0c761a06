#include "engine/model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "engine/fingerprint.h"
#include "engine/residency.h"

#define PROMPT_CACHE_BYTES ((size_t)128 << 20)

static const char *const precision_names[] = {[OMNI_AUTO] = "auto",
                                              [OMNI_FP32] = "fp32",
                                              [OMNI_BF16] = "bf16",
                                              [OMNI_FP16] = "fp16",
                                              [OMNI_FP8] = "fp8"};

int omni_precision_parse(const char *word, enum omni_precision *out)
{
    for (size_t i = 0; i < ARRAY_LEN(precision_names); i++)
        if (strcmp(word, precision_names[i]) == 0) {
            *out = (enum omni_precision)i;
            return 0;
        }
    return -EINVAL;
}

const char *omni_precision_name(enum omni_precision p)
{
    return (size_t)p < ARRAY_LEN(precision_names) ? precision_names[p] : "unknown";
}

static int no_fp8(const struct device *d, struct err *e)
{
    return err_set(e, -EINVAL,
                   "precision fp8 is not possible on %s: it needs an NVIDIA GPU of compute "
                   "capability 8.9 or later and cuBLASLt; expected auto, fp32 or bf16",
                   d->name);
}

int model_compute(const struct device *d, enum omni_precision p, enum dtype *out, struct err *e)
{
    switch (p) {
    case OMNI_AUTO:
        *out = strcmp(d->name, "cpu") == 0 ? cpu_fastest_compute(d->backend) : DTYPE_BF16;
        return 0;
    case OMNI_FP32:
        *out = DTYPE_F32;
        return 0;
    case OMNI_BF16:
        *out = DTYPE_BF16;
        return 0;
    case OMNI_FP8:
        *out = DTYPE_BF16;
        return d->backend->fp8 ? 0 : no_fp8(d, e);
    default:
        return err_set(e, -EINVAL,
                       "precision %s is not possible on %s; expected auto, fp32 or bf16",
                       omni_precision_name(p), d->name);
    }
}

/* model_index.json may say what `auto` means: "precision": "fp32" of a model that bf16 spoils. */
static int heed_index(const struct omni_model *m, enum omni_precision *p, struct err *e)
{
    struct config *index = m->checkpoint.index;
    if (*p != OMNI_AUTO || !index)
        return 0;
    const char *word = config_string(index, "precision", "auto");
    if (config_error(index, e) != 0)
        return e->code;
    if (omni_precision_parse(word, p) != 0)
        return err_set(e, -EINVAL, "%s: precision \"%.40s\" is not auto, fp32 or bf16",
                       config_path(index), word);
    return 0;
}

static int choose_compute(struct omni_model *m, enum omni_precision p, struct err *e)
{
    if (heed_index(m, &p, e) != 0 || model_compute(&m->device, p, &m->checkpoint.compute, e) != 0)
        return e->code;
    m->checkpoint.fp8 = p == OMNI_FP8;
    m->info.precision = m->checkpoint.fp8                     ? "fp8"
                        : m->checkpoint.compute == DTYPE_BF16 ? "bf16"
                                                              : "fp32";
    return 0;
}

static int read_schedule(struct omni_model *m, struct err *e)
{
    struct config *c = NULL;
    int rc = checkpoint_scheduler(&m->checkpoint, &c, e);
    if (rc == 0)
        rc = schedule_config_parse(c, &m->schedule, e);
    if (rc == 0 && m->family->correct)
        m->family->correct(&m->schedule);
    config_close(c);
    return rc;
}

static void fill_info(struct omni_model *m)
{
    const struct family_traits *t = &m->traits;
    struct omni_model_info *i = &m->info;
    i->family = m->family->name;
    i->variant = t->variant;
    i->device = m->device.name;
    for (int p = 0; p < m->checkpoint.part_count; p++)
        i->parameters += m->checkpoint.parts[p].loader.parameters;
    residency_count(m);
    i->size_multiple = t->size_multiple;
    i->default_width = t->default_width;
    i->default_height = t->default_height;
    i->default_steps = t->default_steps;
    i->default_guidance = t->default_guidance;
    i->guided = t->guided;
    i->has_video = t->max_frames > 1;
    i->reads_references = t->images.references;
    i->reads_first_frame = t->images.first_frame;
    i->max_prompt_tokens = t->max_prompt_tokens;
}

int model_error(const struct omni_model *m, struct err *e)
{
    return e->code = device_error(&m->device, e->code);
}

int model_open(struct omni_model *m, const char *path, const struct omni_load_options *options,
               bool shapes_only, struct err *e)
{
    static const struct omni_load_options defaults;
    const struct omni_load_options *o = options ? options : &defaults;
    *m = (struct omni_model){.memory = o->memory};
    if (checkpoint_open(&m->checkpoint, path, e) != 0 ||
        family_find(&m->checkpoint, &m->family, e) != 0)
        return model_error(m, e);
    if (device_open(o->device, o->threads, &m->device, e) != 0 ||
        choose_compute(m, o->precision, e) != 0)
        return e->code;
    m->checkpoint.elsewhere = o->parts;
    m->checkpoint.elsewhere_count = o->part_count;
    m->checkpoint.backend = m->device.backend;
    m->checkpoint.shapes_only = shapes_only;
    m->checkpoint.asleep = true;
    m->prompts = prompt_cache_new(PROMPT_CACHE_BYTES);
    if (!m->prompts)
        return err_nomem(e);
    if (m->family->load(&m->checkpoint, &m->state, &m->traits, e) != 0 || read_schedule(m, e) != 0)
        return model_error(m, e);
    fill_info(m);
    m->adapters = adapters_new(m);
    if (!m->adapters)
        return err_nomem(e);
    return shapes_only || m->checkpoint.synthetic ? 0
                                                  : fingerprint(&m->checkpoint, m->info.sha256, e);
}

void model_close(struct omni_model *m)
{
    if (m->prompts)
        prompt_cache_free(m->prompts);
    adapters_free(m->adapters);
    if (m->state)
        m->family->free(m->state);
    checkpoint_close(&m->checkpoint);
    device_close(&m->device);
    *m = (struct omni_model){0};
}

int omni_model_load(const char *path, const struct omni_load_options *options,
                    struct omni_model **out, struct err *e)
{
    struct err local = {0};
    e = e ? e : &local;
    *e = local; /* what an earlier call left there is not ours */
    struct omni_model *m = calloc(1, sizeof(*m));
    if (!m)
        return err_nomem(e);
    int rc = model_open(m, path, options, false, e);
    if (rc != 0)
        omni_model_free(m);
    else
        *out = m;
    return rc;
}

void omni_model_free(struct omni_model *m)
{
    if (m)
        model_close(m);
    free(m);
}

const struct omni_model_info *omni_model_info(const struct omni_model *m)
{
    return &m->info;
}
