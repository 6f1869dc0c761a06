/* The normalised request as JSON, and back. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "job/modes.h"
#include "job/request.h"

/* JSON readers, ours included, hold whole numbers up to 2^63 - 1; a greater seed goes as text. */
json_t *json_seed(uint64_t seed)
{
    char text[24];
    if (seed <= INT64_MAX)
        return json_integer((json_int_t)seed);
    snprintf(text, sizeof text, "%" PRIu64, seed);
    return json_string(text);
}

static json_t *images_json(const struct request *r)
{
    json_t *list = json_array();
    for (int i = 0; i < r->image_count; i++)
        json_array_append_new(list, json_string(r->images[i]));
    return list;
}

static json_t *lora_json(const struct request *r)
{
    AUTO_STR struct str s = {0};
    for (int i = 0; i < r->lora_count; i++)
        str_addf(&s, "%s%s:%g", i ? ", " : "", r->loras[i].name, r->loras[i].weight);
    return json_string(str_cstr(&s));
}

static json_t *expand_json(const struct request *r)
{
    char s[64];
    snprintf(s, sizeof s, "%d,%d,%d,%d", r->expand[0], r->expand[1], r->expand[2], r->expand[3]);
    return json_string(s);
}

/* An enlarged picture's size is said by the size that was asked for, or by the scale. */
static bool says_size(const struct request *r, bool by_scale)
{
    bool sized = r->line[KEY_SIZE] || r->line[KEY_WIDTH];
    return r->mode != MODE_UPSCALE || sized != by_scale;
}

/* The value of a key, NULL where the request has none. */
static json_t *key_json(const struct request *r, enum request_key key)
{
    switch (key) {
    case KEY_PROMPT:
        return r->prompt ? json_string(r->prompt) : NULL;
    case KEY_NEGATIVE_PROMPT:
        return r->negative_prompt ? json_string(r->negative_prompt) : NULL;
    case KEY_MODE:
        return json_string(job_mode_names[r->mode]);
    case KEY_PROFILE:
        return json_string(r->profile);
    case KEY_SAFETY_LEVEL:
        return json_string(safety_level_names[r->safety_level]);
    case KEY_WATERMARK:
        return json_boolean(r->watermark);
    case KEY_RETURN_FORMAT:
        return json_string(media_format_info(r->format)->name);
    case KEY_SIZE:
    case KEY_SECONDS:
    case REQUEST_KEYS:
        return NULL; /* said by width, height and frames */
    case KEY_WIDTH:
        return r->width && says_size(r, false) ? json_integer(r->width) : NULL;
    case KEY_HEIGHT:
        return r->height && says_size(r, false) ? json_integer(r->height) : NULL;
    case KEY_FRAMES: /* those of a clip are known once it was looked at */
        return r->frames > 0 ? json_integer(r->frames) : NULL;
    case KEY_FPS:
        return r->fps > 0 ? json_real(r->fps) : NULL;
    case KEY_STEPS:
        return r->steps ? json_integer(r->steps) : NULL;
    case KEY_GUIDANCE:
        return isnan(r->guidance) ? NULL : json_real(r->guidance);
    case KEY_SEED:
        return json_seed(r->seed);
    case KEY_SCHEDULER:
        return *r->scheduler ? json_string(r->scheduler) : NULL;
    case KEY_COUNT:
        return json_integer(r->count);
    case KEY_IMAGE:
        return r->image_count ? images_json(r) : NULL;
    case KEY_MASK:
        return r->mask ? json_string(r->mask) : NULL;
    case KEY_VIDEO:
        return r->video ? json_string(r->video) : NULL;
    case KEY_STRENGTH:
        return json_real(r->strength);
    case KEY_EXPAND:
        return expand_json(r);
    case KEY_SCALE:
        return says_size(r, true) ? json_real(r->scale) : NULL;
    case KEY_LORA:
        return r->lora_count ? lora_json(r) : NULL;
    case KEY_QUALITY:
        return json_integer(r->quality);
    case KEY_LOOP:
        return r->loop ? json_integer(r->loop) : json_string("forever");
    case KEY_PALETTE:
        return json_integer(r->palette);
    case KEY_DITHER:
        return json_string(media_dither_name(r->dither));
    }
    return NULL;
}

json_t *request_json(const struct request *r)
{
    json_t *o = json_object();
    json_object_set_new(o, "modality", json_string(modality_names[r->modality]));
    for (int k = 0; k < REQUEST_KEYS; k++) {
        json_t *value =
            mode_reads_key(r, (enum request_key)k, NULL) ? key_json(r, (enum request_key)k) : NULL;
        if (value)
            json_object_set_new(o, request_key_names[k], value);
    }
    return o;
}

/* ---- reading ---- */

/* A JSON value as the text of a prompt.ini. */
static int value_text(const json_t *value, struct str *out)
{
    size_t i;
    const json_t *item;
    switch (json_typeof(value)) {
    case JSON_STRING:
        str_addn(out, json_string_value(value), json_string_length(value));
        return 0;
    case JSON_INTEGER:
        str_addf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        return 0;
    case JSON_REAL:
        str_addf(out, "%.17g", json_real_value(value));
        return 0;
    case JSON_TRUE:
    case JSON_FALSE:
        str_add(out, json_is_true(value) ? "yes" : "no");
        return 0;
    case JSON_ARRAY:
        json_array_foreach(value, i, item)
        {
            if (!json_is_string(item))
                return -EINVAL;
            str_addf(out, "%s%s", i ? "," : "", json_string_value(item));
        }
        return 0;
    default:
        return -EINVAL;
    }
}

static int read_keys(struct request *r, json_t *object, const char *where, struct err *e)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        AUTO_STR struct str text = {0};
        if (!strcmp(key, "modality"))
            continue;
        if (value_text(value, &text))
            return err_set(e, -EINVAL, "%s: request.%.60s has no value that a key can have", where,
                           key);
        if (text.failed)
            return err_nomem(e);
        int code = request_set(r, key, str_cstr(&text), where, e);
        if (code)
            return code;
    }
    return 0;
}

int request_from_json(const char *metadata, size_t size, const char *where, struct request *out,
                      struct err *e)
{
    int code = request_parse("", 0, where, MODALITY_IMAGE, out, e);
    if (code)
        return code;
    json_error_t error;
    json_t *root = json_loadb(metadata, size, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        return err_set(e, -EINVAL, "%s:%d: %s", where, error.line, error.text);
    json_t *object = json_object_get(root, "request");
    const char *modality = json_string_value(json_object_get(object, "modality"));
    int found = -1;
    for (int i = 0; modality && i < MODALITY_COUNT; i++)
        if (!strcmp(modality, modality_names[i]))
            found = i;
    if (json_is_null(object))
        code = err_set(e, -EINVAL,
                       "%s: the request of that run had a mistake and was not recorded; use its "
                       "prompt.ini",
                       where);
    else if (!json_is_object(object) || found < 0)
        code = err_set(e, -EINVAL,
                       "%s has no request with a modality; is it a metadata.json of "
                       "omnifs?",
                       where);
    else {
        out->modality = (enum modality)found;
        code = read_keys(out, object, where, e);
    }
    json_decref(root);
    return code;
}
