#include "job/registry_keys.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"

struct spec {
    const char *name;
    int (*set)(void *target, const struct spec *k, const char *value, struct registry_lists *lists,
               struct err *e);
    size_t offset;
    double min, max; /* of numbers; size of a text */
};

#define FIELD(type) ((type *)(void *)((char *)target + k->offset))
#define SETTER(name)                                                                               \
    static int name(void *target, const struct spec *k, const char *value,                         \
                    struct registry_lists *lists, struct err *e)

static int bad(const struct spec *k, const char *value, const char *expected, struct err *e)
{
    return err_set(e, -EINVAL, "%s \"%.60s\" is not %s", k->name, value, expected);
}

SETTER(set_text)
{
    (void)lists;
    if (!*value || strlen(value) >= (size_t)k->max)
        return bad(k, value, "a name or path of sensible length", e);
    strcpy(FIELD(char), value);
    return 0;
}

SETTER(set_int)
{
    (void)lists;
    int64_t v;
    if (parse_i64(value, &v))
        return bad(k, value, "a whole number", e);
    if ((double)v < k->min || (double)v > k->max)
        return err_set(e, -EINVAL, "%s %s is outside %g … %g", k->name, value, k->min, k->max);
    *FIELD(int) = (int)v;
    return 0;
}

SETTER(set_real)
{
    (void)lists;
    double v;
    if (parse_f64(value, &v))
        return bad(k, value, "a number", e);
    if (v < k->min || v > k->max)
        return err_set(e, -EINVAL, "%s %s is outside %g … %g", k->name, value, k->min, k->max);
    *FIELD(double) = v;
    return 0;
}

SETTER(set_bool)
{
    (void)lists;
    return parse_bool(value, FIELD(bool)) ? bad(k, value, "yes or no", e) : 0;
}

SETTER(set_bytes)
{
    (void)lists;
    if (!strcmp(value, "none") || !strcmp(value, "auto")) {
        *FIELD(uint64_t) = 0;
        return 0;
    }
    return parse_bytes(value, FIELD(uint64_t)) ? bad(k, value, "a size like 512M or 20G", e) : 0;
}

static bool parse_size(const char *value, size_t n, int *width, int *height)
{
    char text[32];
    int64_t w, h;
    if (n >= sizeof text)
        return false;
    memcpy(text, value, n);
    text[n] = '\0';
    char *x = strpbrk(text, "xX");
    if (!x)
        return false;
    *x = '\0';
    if (parse_i64(str_trim(text), &w) || parse_i64(str_trim(x + 1), &h) || w < 16 || h < 16 ||
        w > 65535 || h > 65535)
        return false;
    *width = (int)w;
    *height = (int)h;
    return true;
}

/* Two neighbouring ints: width, height. */
SETTER(set_size)
{
    (void)lists;
    int *to = FIELD(int);
    return parse_size(value, strlen(value), &to[0], &to[1])
               ? 0
               : bad(k, value, "a size like 1024x1024", e);
}

SETTER(set_native)
{
    (void)lists;
    struct native_size sizes[PROFILE_NATIVE_SIZES] = {{0}};
    int count = 0;
    for (const char *at = value; at; count++) {
        size_t n = strcspn(at, ",");
        if (count == PROFILE_NATIVE_SIZES ||
            !parse_size(at, n, &sizes[count].width, &sizes[count].height))
            return bad(k, value, "a size like 1024x1024, or up to four with commas", e);
        at = at[n] ? at + n + 1 : NULL;
    }
    memcpy(FIELD(struct native_size), sizes, sizeof sizes);
    return 0;
}

SETTER(set_modality)
{
    (void)lists;
    for (int i = 0; i < MODALITY_COUNT; i++)
        if (!strcmp(value, modality_names[i])) {
            *FIELD(enum modality) = (enum modality)i;
            return 0;
        }
    return bad(k, value, "image, video or gif", e);
}

SETTER(set_precision)
{
    (void)lists;
    return omni_precision_parse(value, FIELD(enum omni_precision))
               ? bad(k, value, "auto, fp32, bf16, fp16 or fp8", e)
               : 0;
}

SETTER(set_upscaler)
{
    (void)lists;
    struct profile *p = target;
    static const struct {
        const char *name;
        enum media_scale scale;
    } names[] = {
        {"lanczos", MEDIA_LANCZOS}, {"bicubic", MEDIA_BICUBIC}, {"nearest", MEDIA_NEAREST}};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (!strcmp(value, names[i].name)) {
            p->upscaler = names[i].scale;
            p->upscaler_model[0] = '\0';
            return 0;
        }
    if (!*value || strlen(value) >= sizeof p->upscaler_model)
        return bad(k, value, "lanczos, bicubic, nearest or a model", e);
    strcpy(p->upscaler_model, value);
    return 0;
}

SETTER(set_scheduler)
{
    (void)lists;
    for (const char *const *s = request_scheduler_names; *s; s++)
        if (!strcmp(value, *s)) {
            strcpy(FIELD(char), *s);
            return 0;
        }
    const char *near = str_nearest(value, request_scheduler_names);
    return err_set(e, -EINVAL, "scheduler \"%.40s\" is unknown%s%s%s", value,
                   near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

SETTER(set_safety_level)
{
    (void)lists;
    return safety_level_parse(value, FIELD(enum safety_level))
               ? bad(k, value, "strict, standard or off", e)
               : 0;
}

SETTER(set_lora)
{
    (void)lists;
    (void)k;
    struct profile *p = target;
    return request_lora_parse(value, p->loras, REQUEST_MAX_LORAS, &p->lora_count, e);
}

SETTER(set_devices)
{
    (void)lists;
    struct registry_devices *d = target;
    AUTO_FREE char *copy = strdup(value);
    if (!copy)
        return err_nomem(e);
    char *rest = copy;
    d->count = 0;
    if (!strcmp(value, "auto"))
        return 0;
    for (char *item; (item = strsep(&rest, ","));) {
        item = str_trim(item);
        bool known = !strcmp(item, "cpu") || !strncmp(item, "cuda:", 5);
        if (!known || strlen(item) >= sizeof d->names[0] || d->count == REGISTRY_MAX_DEVICES)
            return bad(k, value, "auto, or a list of cpu, cuda:0, cuda:1 …", e);
        for (int i = 0; i < d->count; i++)
            if (!strcmp(item, d->names[i]))
                return err_set(e, -EINVAL, "use names %s twice", item);
        strcpy(d->names[d->count++], item);
    }
    return 0;
}

SETTER(set_list)
{
    (void)target;
    char **field = &lists->paths[k->offset];
    free(*field);
    *field = strdup(value);
    return *field ? 0 : err_nomem(e);
}

/* ---- tables ---- */

#define P(field)  offsetof(struct profile, field)
#define L(field)  offsetof(struct registry_limits, field)
#define D(field)  offsetof(struct registry_devices, field)
#define S(field)  offsetof(struct registry_safety, field)
#define PART_SIZE sizeof((struct profile *)0)->parts[0]

static const struct spec profile_keys[] = {
    {"omni_model_id", set_text, P(model), 0, sizeof((struct profile *)0)->model},
    {"modality", set_modality, P(modality), 0, 0},
    {"precision", set_precision, P(precision), 0, 0},
    {"native_resolution", set_native, P(native), 0, 0},
    {"native_only", set_bool, P(native_only), 0, 0},
    {"upscaler", set_upscaler, 0, 0, 0},
    {"default_size", set_size, P(width), 0, 0},
    {"max_resolution", set_size, P(max_width), 0, 0},
    {"max_frames", set_int, P(max_frames), 1, 100000},
    {"max_steps", set_int, P(max_steps), 1, 10000},
    {"max_count", set_int, P(max_count), 1, REQUEST_MAX_COUNT},
    {"steps", set_int, P(steps), 1, 10000},
    {"guidance", set_real, P(guidance), 0, 100},
    {"scheduler", set_scheduler, P(scheduler), 0, 0},
    {"frames", set_int, P(frames), 1, 100000},
    {"fps", set_real, P(fps), 0.1, 240},
    {"lora", set_lora, 0, 0, 0},
    {"safety_level", set_safety_level, P(safety_level), 0, 0},
    {"watermark", set_bool, P(watermark), 0, 0},
    {"priority", set_int, P(priority), -1000, 1000},
    {"timeout", set_real, P(timeout), 1, 604800},
    {"text_encoder", set_text, P(parts[PART_TEXT_ENCODER]), 0, PART_SIZE},
    {"text_encoder_2", set_text, P(parts[PART_TEXT_ENCODER_2]), 0, PART_SIZE},
    {"vae", set_text, P(parts[PART_VAE]), 0, PART_SIZE},
    {"tokenizer", set_text, P(parts[PART_TOKENIZER]), 0, PART_SIZE},
    {"tokenizer_2", set_text, P(parts[PART_TOKENIZER_2]), 0, PART_SIZE},
    {NULL, NULL, 0, 0, 0},
};
static const struct spec limit_keys[] = {
    {"queue", set_int, L(queue), 1, 1e6},
    {"jobs_per_user", set_int, L(jobs_per_user), 1, 1e6},
    {"store_bytes", set_bytes, L(store_bytes), 0, 0},
    {"request_bytes", set_bytes, L(request_bytes), 0, 0},
    {NULL, NULL, 0, 0, 0},
};
static const struct spec device_keys[] = {
    {"use", set_devices, 0, 0, 0},
    {"memory", set_bytes, D(memory), 0, 0},
    {"threads", set_int, D(threads), 0, 4096},
    {"batch", set_int, D(batch), 1, 64},
    {NULL, NULL, 0, 0, 0},
};
static const struct spec safety_keys[] = {
    {"allow_off", set_bool, S(allow_off), 0, 0},
    {"allow_no_watermark", set_bool, S(allow_no_watermark), 0, 0},
    {"standard_lists", set_list, SAFETY_STANDARD, 0, 0},
    {"strict_lists", set_list, SAFETY_STRICT, 0, 0},
    {NULL, NULL, 0, 0, 0},
};
static const struct {
    const struct spec *keys;
    const char *what;
} sections[] = {
    [SECTION_PROFILE] = {profile_keys, "a profile"},
    [SECTION_LIMITS] = {limit_keys, "[limits]"},
    [SECTION_DEVICES] = {device_keys, "[devices]"},
    [SECTION_SAFETY] = {safety_keys, "[safety]"},
};

int registry_set(enum registry_section section, void *target, struct registry_lists *lists,
                 const char *key, const char *value, uint32_t *bit, struct err *e)
{
    const struct spec *keys = sections[section].keys;
    const char *names[32];
    int n = 0;
    for (; keys[n].name; n++) {
        if (!strcmp(key, keys[n].name)) {
            *bit = UINT32_C(1) << n;
            return keys[n].set(target, &keys[n], value, lists, e);
        }
        names[n] = keys[n].name;
    }
    names[n] = NULL;
    const char *near = str_nearest(key, names);
    return err_set(e, -EINVAL, "%s has no key \"%.40s\"%s%s%s", sections[section].what, key,
                   near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

void profile_init(struct profile *p, const char *name)
{
    *p = (struct profile){.upscaler = MEDIA_LANCZOS,
                          .max_width = 2048,
                          .max_height = 2048,
                          .max_frames = 48,
                          .max_steps = 200,
                          .max_count = 16,
                          .guidance = NAN,
                          .frames = 24,
                          .fps = 12,
                          .safety_level = SAFETY_STANDARD,
                          .watermark = true,
                          .timeout = 600};
    strncpy(p->name, name, sizeof p->name - 1);
}

/* The networks that a profile names must be there when the registry is read, not only when the
 * first picture is to be enlarged. */
static int check_upscaler(const struct profile *p, struct err *e)
{
    char path[REGISTRY_PATH_SIZE], config[REGISTRY_PATH_SIZE + 32];
    if (!*p->upscaler_model)
        return 0;
    if (model_find(p->upscaler_model, path, e))
        return err_prefix(e, "profile %s: upscaler %.40s is not lanczos, bicubic or nearest, and",
                          p->name, p->upscaler_model);
    snprintf(config, sizeof config, "%s/upscaler/config.json", path);
    if (!access(config, R_OK))
        return 0;
    return err_set(
        e, -ENOENT,
        "profile %s: the model %s has no upscaler: %s is missing; name another model, or "
        "lanczos, bicubic or nearest",
        p->name, p->upscaler_model, config);
}

int profile_check(struct profile *p, uint32_t given, struct err *e)
{
    if (!(given & 1))
        return err_set(e, -EINVAL, "profile %s names no model; add `omni_model_id = …`", p->name);
    if (!(given & 2))
        return err_set(e, -EINVAL,
                       "profile %s has no modality; add `modality = image`, video or "
                       "gif",
                       p->name);
    if (!p->width) { /* the sizes a request may count on */
        p->width = p->modality == MODALITY_IMAGE ? 1024 : 768;
        p->height = p->modality == MODALITY_IMAGE ? 1024 : 432;
    }
    if (p->width > p->max_width || p->height > p->max_height)
        return err_set(e, -EINVAL,
                       "profile %s: default_size %dx%d is over its max_resolution "
                       "%dx%d",
                       p->name, p->width, p->height, p->max_width, p->max_height);
    if (p->modality != MODALITY_IMAGE && p->frames > p->max_frames)
        return err_set(e, -EINVAL, "profile %s: frames %d is over its max_frames %d", p->name,
                       p->frames, p->max_frames);
    if (p->steps > p->max_steps)
        return err_set(e, -EINVAL, "profile %s: steps %d is over its max_steps %d", p->name,
                       p->steps, p->max_steps);
    return check_upscaler(p, e);
}
