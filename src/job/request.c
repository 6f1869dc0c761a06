#include "job/request.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/omni.h"
#include "job/prompt_ini.h"

const char *const modality_names[MODALITY_COUNT] = {"image", "video", "gif"};

/* The names diffusers' schedulers go by. */
const char *const request_scheduler_names[] = {
    "flow_euler", "euler", "euler_a", "dpmpp_2m", "dpmpp_2m_karras",
    "ddim",       "pndm",  "unipc",   "lcm",      NULL,
};

struct key_spec {
    bool params; /* belongs into [params] (or to the top) */
    int (*set)(struct request *r, const struct key_spec *k, const char *value, struct err *e);
    size_t offset;   /* of the field in struct request */
    double min, max; /* of numbers, whatever the profile */
};

#define FIELD(r, k, type) ((type *)(void *)((char *)(r) + (k)->offset))

/* "steps" in messages: the name belongs to the row's place in the table. */
static const char *key_name(const struct key_spec *k);

/* ---- one setter a kind of value ---- */

static int set_text(struct request *r, const struct key_spec *k, const char *value, struct err *e)
{
    char *copy = strdup(value);
    if (!copy)
        return err_nomem(e);
    char **field = FIELD(r, k, char *);
    free(*field);
    *field = copy;
    return 0;
}

static int number_error(const struct key_spec *k, const char *value, const char *what,
                        struct err *e)
{
    return err_set(e, -EINVAL, "%s \"%.40s\" is not %s", key_name(k), value, what);
}

static int range_error(const struct key_spec *k, const char *value, struct err *e)
{
    return err_set(e, -EINVAL, "%s %.40s is outside %g … %g", key_name(k), value, k->min, k->max);
}

static int set_int(struct request *r, const struct key_spec *k, const char *value, struct err *e)
{
    int64_t v;
    int code = parse_i64(value, &v);
    if (code == -EINVAL)
        return number_error(k, value, "a whole number", e);
    if (code || (double)v < k->min || (double)v > k->max)
        return range_error(k, value, e);
    *FIELD(r, k, int) = (int)v;
    return 0;
}

static int set_real(struct request *r, const struct key_spec *k, const char *value, struct err *e)
{
    double v;
    int code = parse_f64(value, &v);
    if (code == -EINVAL)
        return number_error(k, value, "a number", e);
    if (code || v < k->min || v > k->max)
        return range_error(k, value, e);
    *FIELD(r, k, double) = v;
    return 0;
}

static int set_bool(struct request *r, const struct key_spec *k, const char *value, struct err *e)
{
    if (parse_bool(value, FIELD(r, k, bool)))
        return number_error(k, value, "yes or no", e);
    return 0;
}

static int set_seed(struct request *r, const struct key_spec *k, const char *value, struct err *e)
{
    if (parse_u64(value, FIELD(r, k, uint64_t)))
        return number_error(k, value, "a whole number from 0 to 18446744073709551615", e);
    return 0;
}

static int set_size(struct request *r, const struct key_spec *k, const char *value, struct err *e)
{
    char text[32];
    int64_t w, h;
    size_t n = strlen(value);
    char *x = NULL;
    if (n < sizeof text) {
        memcpy(text, value, n + 1);
        x = strpbrk(text, "xX");
    }
    if (!x)
        return number_error(k, value, "like 1024x1024", e);
    *x = '\0';
    if (parse_i64(str_trim(text), &w) || parse_i64(str_trim(x + 1), &h))
        return number_error(k, value, "like 1024x1024", e);
    if (w < (int64_t)k->min || w > (int64_t)k->max || h < (int64_t)k->min || h > (int64_t)k->max)
        return range_error(k, value, e);
    r->width = (int)w;
    r->height = (int)h;
    return 0;
}

/* One word of a list; the message offers the near miss, else the list. */
static int word_index(const struct key_spec *k, const char *value, const char *const *names,
                      int *index, struct err *e)
{
    AUTO_STR struct str list = {0};
    for (int i = 0; names[i]; i++) {
        if (!strcmp(value, names[i])) {
            *index = i;
            return 0;
        }
        str_addf(&list, "%s%s", i ? ", " : "", names[i]);
    }
    const char *near = str_nearest(value, names);
    if (near)
        return err_set(e, -EINVAL, "%s \"%.40s\" is unknown; did you mean %s?", key_name(k), value,
                       near);
    return err_set(e, -EINVAL, "%s \"%.40s\" is unknown; it may be %s", key_name(k), value,
                   str_cstr(&list));
}

static int set_mode(struct request *r, const struct key_spec *k, const char *value, struct err *e)
{
    int index;
    int code = word_index(k, value, job_mode_names, &index, e);
    if (!code)
        r->mode = (enum job_mode)index;
    return code;
}

static int set_safety(struct request *r, const struct key_spec *k, const char *value, struct err *e)
{
    int index;
    int code = word_index(k, value, safety_level_names, &index, e);
    if (!code)
        r->safety_level = (enum safety_level)index;
    return code;
}

static int set_scheduler(struct request *r, const struct key_spec *k, const char *value,
                         struct err *e)
{
    int index;
    int code = word_index(k, value, request_scheduler_names, &index, e);
    if (!code)
        strcpy(r->scheduler, request_scheduler_names[index]); /* fits: the names are ours */
    return code;
}

static int set_format(struct request *r, const struct key_spec *k, const char *value, struct err *e)
{
    int unused;
    if (!media_format_parse(value, &r->format))
        return 0;
    return word_index(k, value, media_format_names(), &unused, e);
}

static int set_dither(struct request *r, const struct key_spec *k, const char *value, struct err *e)
{
    if (media_dither_parse(value, &r->dither))
        return number_error(k, value, "auto, none, bayer or floyd", e);
    return 0;
}

static int set_loop(struct request *r, const struct key_spec *k, const char *value, struct err *e)
{
    if (!strcmp(value, "forever")) {
        r->loop = 0;
        return 0;
    }
    int64_t v;
    if (parse_i64(value, &v) || v < (int64_t)k->min || v > (int64_t)k->max)
        return number_error(k, value, "forever or a number of times, 1 … 65535", e);
    r->loop = (int)v;
    return 0;
}

static int set_profile(struct request *r, const struct key_spec *k, const char *value,
                       struct err *e)
{
    if (!*value || strlen(value) >= sizeof r->profile)
        return number_error(k, value, "the name of a profile", e);
    strcpy(r->profile, value);
    return 0;
}

/* A file of the job folder: a plain name, so that a prompt can never reach out of it. */
static int check_file_name(const struct key_spec *k, const char *name, struct err *e)
{
    if (!*name)
        return err_set(e, -EINVAL, "%s names no file", key_name(k));
    if (strlen(name) > 255 || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
        return err_set(e, -EINVAL, "%s \"%.80s\" is not the name of a file in the job folder",
                       key_name(k), name);
    return 0;
}

static int set_file(struct request *r, const struct key_spec *k, const char *value, struct err *e)
{
    int code = check_file_name(k, value, e);
    return code ? code : set_text(r, k, value, e);
}

static void free_images(struct request *r)
{
    for (int i = 0; i < r->image_count; i++)
        free(r->images[i]);
    free(r->images);
    r->images = NULL;
    r->image_count = 0;
}

static int set_images(struct request *r, const struct key_spec *k, const char *value, struct err *e)
{
    AUTO_FREE char *copy = strdup(value);
    char **images = calloc(REQUEST_MAX_IMAGES, sizeof *images);
    free_images(r);
    r->images = images;
    if (!copy || !images)
        return err_nomem(e);
    char *rest = copy;
    for (char *item; (item = strsep(&rest, ",\n"));) {
        item = str_trim(item);
        int code = check_file_name(k, item, e);
        if (code)
            return code;
        if (r->image_count == REQUEST_MAX_IMAGES)
            return err_set(e, -EINVAL, "image names more than %d files", REQUEST_MAX_IMAGES);
        if (!(images[r->image_count] = strdup(item)))
            return err_nomem(e);
        r->image_count++;
    }
    return 0;
}

static int set_expand(struct request *r, const struct key_spec *k, const char *value, struct err *e)
{
    AUTO_FREE char *copy = strdup(value);
    if (!copy)
        return err_nomem(e);
    char *rest = copy;
    int n = 0;
    for (char *item; (item = strsep(&rest, ",")); n++) {
        int64_t v;
        if (n == 4 || parse_i64(str_trim(item), &v) || v < (int64_t)k->min || v > (int64_t)k->max)
            return number_error(k, value, "four numbers of pixels: left,top,right,bottom", e);
        r->expand[n] = (int)v;
    }
    if (n != 4)
        return number_error(k, value, "four numbers of pixels: left,top,right,bottom", e);
    return 0;
}

int request_lora_parse(const char *text, struct request_lora *out, int max, int *count,
                       struct err *e)
{
    AUTO_FREE char *copy = strdup(text);
    if (!copy)
        return err_nomem(e);
    char *rest = copy;
    *count = 0;
    for (char *item; (item = strsep(&rest, ",\n"));) {
        item = str_trim(item);
        double weight = 1;
        char *colon = strrchr(item, ':');
        if (colon) {
            *colon = '\0';
            if (parse_f64(str_trim(colon + 1), &weight) || fabs(weight) > 10)
                return err_set(e, -EINVAL, "lora weight \"%.40s\" is not a number in -10 … 10",
                               str_trim(colon + 1));
        }
        item = str_trim(item);
        if (!*item || strlen(item) >= sizeof out->name)
            return err_set(e, -EINVAL, "lora \"%.80s\" is not like name:weight, name:weight", text);
        if (*count == max)
            return err_set(e, -EINVAL, "lora names more than %d files", max);
        strcpy(out[*count].name, item);
        out[(*count)++].weight = weight;
    }
    return 0;
}

static int set_lora(struct request *r, const struct key_spec *k, const char *value, struct err *e)
{
    (void)k;
    free(r->loras);
    r->lora_count = 0;
    r->loras = calloc(REQUEST_MAX_LORAS, sizeof *r->loras);
    if (!r->loras)
        return err_nomem(e);
    if (!*value || !strcmp(value, "none"))
        return 0;
    return request_lora_parse(value, r->loras, REQUEST_MAX_LORAS, &r->lora_count, e);
}

/* ---- the keys ---- */

const char *const request_key_names[REQUEST_KEYS + 1] = {
    "prompt",        "negative_prompt",
    "mode",          "profile",
    "safety_level",  "watermark",
    "return_format", "size",
    "width",         "height",
    "frames",        "fps",
    "seconds",       "steps",
    "guidance",      "seed",
    "scheduler",     "count",
    "image",         "mask",
    "video",         "strength",
    "expand",        "scale",
    "lora",          "quality",
    "loop",          "palette",
    "dither",        NULL,
};

#define AT(field) offsetof(struct request, field)

static const struct key_spec keys[REQUEST_KEYS] = {
    [KEY_PROMPT] = {false, set_text, AT(prompt), 0, 0},
    [KEY_NEGATIVE_PROMPT] = {false, set_text, AT(negative_prompt), 0, 0},
    [KEY_MODE] = {false, set_mode, 0, 0, 0},
    [KEY_PROFILE] = {false, set_profile, 0, 0, 0},
    [KEY_SAFETY_LEVEL] = {false, set_safety, 0, 0, 0},
    [KEY_WATERMARK] = {false, set_bool, AT(watermark), 0, 0},
    [KEY_RETURN_FORMAT] = {false, set_format, 0, 0, 0},
    [KEY_SIZE] = {true, set_size, 0, 16, 65535},
    [KEY_WIDTH] = {true, set_int, AT(width), 16, 65535},
    [KEY_HEIGHT] = {true, set_int, AT(height), 16, 65535},
    [KEY_FRAMES] = {true, set_int, AT(frames), 1, 100000},
    [KEY_FPS] = {true, set_real, AT(fps), REQUEST_MIN_FPS, REQUEST_MAX_FPS},
    [KEY_SECONDS] = {true, set_real, AT(seconds), 0.01, 86400},
    [KEY_STEPS] = {true, set_int, AT(steps), 1, 10000},
    [KEY_GUIDANCE] = {true, set_real, AT(guidance), 0, 100},
    [KEY_SEED] = {true, set_seed, AT(seed), 0, 0},
    [KEY_SCHEDULER] = {true, set_scheduler, 0, 0, 0},
    [KEY_COUNT] = {true, set_int, AT(count), 1, REQUEST_MAX_COUNT},
    [KEY_IMAGE] = {true, set_images, 0, 0, 0},
    [KEY_MASK] = {true, set_file, AT(mask), 0, 0},
    [KEY_VIDEO] = {true, set_file, AT(video), 0, 0},
    [KEY_STRENGTH] = {true, set_real, AT(strength), 0, 1},
    [KEY_EXPAND] = {true, set_expand, 0, 0, 65535},
    [KEY_SCALE] = {true, set_real, AT(scale), 1, 16},
    [KEY_LORA] = {true, set_lora, 0, 0, 0},
    [KEY_QUALITY] = {true, set_int, AT(quality), 1, 100},
    [KEY_LOOP] = {true, set_loop, 0, 1, 65535},
    [KEY_PALETTE] = {true, set_int, AT(palette), 2, 256},
    [KEY_DITHER] = {true, set_dither, 0, 0, 0},
};

static const char *key_name(const struct key_spec *k)
{
    return request_key_names[k - keys];
}

static int key_index(const char *name)
{
    for (int i = 0; i < REQUEST_KEYS; i++)
        if (!strcmp(name, request_key_names[i]))
            return i;
    return -1;
}

static int unknown_key(const char *key, struct err *e)
{
    const char *near = str_nearest(key, request_key_names);
    if (near)
        return err_set(e, -EINVAL, "the key \"%s\" is unknown; did you mean %s?", key, near);
    return err_set(
        e, -EINVAL,
        "the key \"%s\" is unknown; README.txt of a mount and omnifs-prompt(5) list the keys", key);
}

struct parsing {
    struct request *r;
    const char *where;
};

static int set_entry(struct request *r, const struct ini_entry *entry, struct err *e)
{
    if (*entry->section && strcmp(entry->section, "params"))
        return err_set(e, -EINVAL, "the section [%s] is unknown; there is only [params]",
                       entry->section);
    int k = key_index(entry->key);
    if (k < 0)
        return unknown_key(entry->key, e);
    if (*entry->section && !keys[k].params)
        return err_set(e, -EINVAL, "%s does not belong into [params]; move it to the top",
                       entry->key);
    if (r->line[k])
        return err_set(e, -EINVAL, "%s is set a second time; the first is in line %d", entry->key,
                       r->line[k]);
    r->line[k] = entry->line;
    return keys[k].set(r, &keys[k], entry->value, e);
}

static int each_entry(void *ctx, const struct ini_entry *entry, struct err *e)
{
    struct parsing *p = ctx;
    int code = set_entry(p->r, entry, e);
    return code ? err_prefix(e, "%s:%d", p->where, entry->line) : 0;
}

static void init(struct request *r, enum modality modality)
{
    *r = (struct request){.modality = modality,
                          .guidance = NAN,
                          .count = 1,
                          .strength = 0.6,
                          .scale = 4,
                          .quality = 90,
                          .palette = 256,
                          .dither = MEDIA_DITHER_AUTO};
}

int request_parse(const char *text, size_t size, const char *where, enum modality modality,
                  struct request *out, struct err *e)
{
    init(out, modality);
    if (size > REQUEST_MAX_BYTES)
        return err_set(e, -EFBIG, "%s has %zu bytes; a prompt file may have %d", where, size,
                       REQUEST_MAX_BYTES);
    struct parsing p = {out, where};
    return prompt_ini_parse(text, size, where, each_entry, &p, e);
}

int request_set(struct request *r, const char *key, const char *value, const char *where,
                struct err *e)
{
    int k = key_index(key);
    if (k < 0)
        unknown_key(key, e);
    else if (!keys[k].set(r, &keys[k], value, e)) {
        /* the new value stands in place of all others that say the same */
        if (k == KEY_SIZE)
            r->line[KEY_WIDTH] = r->line[KEY_HEIGHT] = 0;
        if (k == KEY_WIDTH || k == KEY_HEIGHT)
            r->line[KEY_SIZE] = 0;
        if (k == KEY_SCALE)
            r->line[KEY_SIZE] = r->line[KEY_WIDTH] = r->line[KEY_HEIGHT] = 0;
        if (k == KEY_SIZE || k == KEY_WIDTH || k == KEY_HEIGHT)
            r->line[KEY_SCALE] = 0;
        if (k == KEY_FRAMES)
            r->line[KEY_SECONDS] = 0;
        if (k == KEY_SECONDS)
            r->line[KEY_FRAMES] = 0;
        r->line[k] = -1;
        return 0;
    }
    return err_prefix(e, "%s", where);
}

void request_complete(struct request *r, const struct omni_model_info *info)
{
    if (r->steps == 0)
        r->steps = info->default_steps;
    if (isnan(r->guidance))
        r->guidance = info->default_guidance;
}

int request_references(const struct request *r, int (*each)(void *ctx, const char *name), void *ctx)
{
    int code = 0;
    for (int i = 0; i < r->image_count && !code; i++)
        code = each(ctx, r->images[i]);
    if (r->mask && !code)
        code = each(ctx, r->mask);
    if (r->video && !code)
        code = each(ctx, r->video);
    return code;
}

void request_free(struct request *r)
{
    free(r->prompt);
    free(r->negative_prompt);
    free(r->mask);
    free(r->video);
    free(r->loras);
    free_images(r);
    init(r, r->modality);
}
