#include "engine/config.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"

enum { FILE_LIMIT = 16 << 20, KEY_LIMIT = 256 };

struct config {
    char *path;
    json_t *root;
    struct err error; /* the first failure */
};

/* Python writes infinities as bare words, which JSON does not have: configs of DPM-Solver say
 * `"lambda_min_clipped": -Infinity`. Each becomes a null of the same length, so that positions in
 * messages stay right. */
static void blank_infinities(char *text, size_t size)
{
    static const char *const words[] = {"-Infinity", "Infinity"};
    bool quoted = false;
    for (size_t i = 0; i < size; i++) {
        if (quoted && text[i] == '\\')
            i++;
        else if (text[i] == '"')
            quoted = !quoted;
        for (size_t w = 0; !quoted && w < ARRAY_LEN(words); w++) {
            size_t n = strlen(words[w]);
            if (n <= size - i && !memcmp(text + i, words[w], n)) {
                memset(text + i, ' ', n);
                memcpy(text + i, "null", 4);
            }
        }
    }
}

int config_parse(const char *name, const char *text, size_t size, struct config **out,
                 struct err *e)
{
    struct config *c = calloc(1, sizeof *c);
    AUTO_FREE char *json = malloc(size + 1);
    if (!c || !json || !(c->path = strdup(name))) {
        config_close(c);
        return err_nomem(e);
    }
    memcpy(json, text, size);
    blank_infinities(json, size);
    json_error_t fault;
    c->root = json_loadb(json, size, JSON_REJECT_DUPLICATES, &fault);
    int code = 0;
    if (!c->root)
        code = err_set(e, -EINVAL, "%s:%d:%d: not valid JSON: %s", name, fault.line, fault.column,
                       fault.text);
    else if (!json_is_object(c->root))
        code = err_set(e, -EINVAL, "%s: expected a JSON object at the top", name);
    if (code) {
        config_close(c);
        return code;
    }
    *out = c;
    return 0;
}

int config_open(const char *path, struct config **out, struct err *e)
{
    AUTO_FREE char *text = NULL;
    size_t size;
    int code = file_read(AT_FDCWD, path, FILE_LIMIT, &text, &size, e);
    return code ? code : config_parse(path, text, size, out, e);
}

void config_close(struct config *c)
{
    if (!c)
        return;
    json_decref(c->root);
    free(c->path);
    free(c);
}

const char *config_path(const struct config *c)
{
    return c->path;
}

int config_error(const struct config *c, struct err *e)
{
    if (c->error.code && e)
        *e = c->error;
    return c->error.code;
}

/* A part of a dotted key: of an object, or an array's index. */
static json_t *child(json_t *at, const char *part)
{
    if (!json_is_array(at))
        return json_object_get(at, part);
    char *end;
    unsigned long i = strtoul(part, &end, 10);
    return *part && !*end ? json_array_get(at, i) : NULL;
}

/* The value of a key, dotted keys going down into objects and arrays; NULL where missing. */
static json_t *find_any(const struct config *c, const char *key)
{
    json_t *at = json_object_get(c->root, key);
    if (!at && strlen(key) < KEY_LIMIT) {
        char path[KEY_LIMIT];
        strcpy(path, key);
        at = c->root;
        char *rest = path;
        for (char *part; at && (part = strsep(&rest, "."));)
            at = child(at, part);
    }
    return at;
}

/* … or null. */
static json_t *find(const struct config *c, const char *key)
{
    json_t *at = find_any(c, key);
    return json_is_null(at) ? NULL : at;
}

static json_t *element(const struct config *c, const char *key, int i)
{
    json_t *array = find(c, key);
    return i < 0 || !json_is_array(array) ? NULL : json_array_get(array, (size_t)i);
}

/* What a value is, in words for a message. */
static const char *describe(const json_t *v, char *out, size_t size)
{
    switch (v ? json_typeof(v) : JSON_NULL) {
    case JSON_INTEGER:
        snprintf(out, size, "%lld", (long long)json_integer_value(v));
        break;
    case JSON_REAL:
        snprintf(out, size, "%g", json_real_value(v));
        break;
    case JSON_STRING:
        snprintf(out, size, "the text \"%.40s\"", json_string_value(v));
        break;
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        snprintf(out, size, "an array of %zu", json_array_size(v));
        break;
    case JSON_NULL:
        return "missing";
    default:
        return json_is_true(v) ? "true" : "false";
    }
    return out;
}

/* Records "file: key is X, expected Y"; `index` < 0 for a value that is not in an array. */
static void ERR_PRINTF(5, 6)
    refuse(struct config *c, const char *key, int index, const json_t *found, const char *fmt, ...)
{
    if (c->error.code)
        return;
    char what[80], where[16] = "", expected[160];
    if (index >= 0)
        snprintf(where, sizeof where, "[%d]", index);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(expected, sizeof expected, fmt, ap);
    va_end(ap);
    err_set(&c->error, -EINVAL, "%s: %s%s is %s, expected %s", c->path, key, where,
            describe(found, what, sizeof what), expected);
}

bool config_has(const struct config *c, const char *key)
{
    return find(c, key) != NULL;
}

bool config_null(const struct config *c, const char *key)
{
    return json_is_null(find_any(c, key));
}

static int64_t check_int(struct config *c, const char *key, int index, const json_t *v,
                         int64_t fallback, int64_t low, int64_t high)
{
    if (json_is_integer(v) && json_integer_value(v) >= low && json_integer_value(v) <= high)
        return json_integer_value(v);
    refuse(c, key, index, v, "a whole number from %lld to %lld", (long long)low, (long long)high);
    return fallback == CONFIG_REQUIRED ? low : fallback;
}

int64_t config_int(struct config *c, const char *key, int64_t fallback, int64_t low, int64_t high)
{
    const json_t *v = find(c, key);
    if (!v && fallback != CONFIG_REQUIRED)
        return fallback;
    return check_int(c, key, -1, v, fallback, low, high);
}

double config_float(struct config *c, const char *key, double fallback, double low, double high)
{
    bool required = fallback == (double)CONFIG_REQUIRED;
    const json_t *v = find(c, key);
    if (!v && !required)
        return fallback;
    if (json_is_number(v) && json_number_value(v) >= low && json_number_value(v) <= high)
        return json_number_value(v);
    refuse(c, key, -1, v, "a number from %g to %g", low, high);
    return required ? low : fallback;
}

bool config_bool(struct config *c, const char *key, bool fallback)
{
    const json_t *v = find(c, key);
    if (!v)
        return fallback;
    if (json_is_boolean(v))
        return json_is_true(v);
    refuse(c, key, -1, v, "true or false");
    return fallback;
}

const char *config_string(struct config *c, const char *key, const char *fallback)
{
    const json_t *v = find(c, key);
    if (!v)
        return fallback;
    if (json_is_string(v))
        return json_string_value(v);
    refuse(c, key, -1, v, "a text");
    return fallback;
}

int config_length(const struct config *c, const char *key)
{
    const json_t *v = find(c, key);
    return json_is_array(v) ? (int)json_array_size(v) : -1;
}

int64_t config_int_at(struct config *c, const char *key, int i, int64_t low, int64_t high)
{
    return check_int(c, key, i, element(c, key, i), CONFIG_REQUIRED, low, high);
}

const char *config_string_at(struct config *c, const char *key, int i)
{
    const json_t *v = element(c, key, i);
    if (json_is_string(v))
        return json_string_value(v);
    refuse(c, key, i, v, "a text");
    return "";
}
