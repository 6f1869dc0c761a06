#include "cli/outline.h"

#include <string.h>

/* Reports are a few levels deep; a hostile one is cut here. */
#define MAX_INDENT 16

static void add_indent(struct str *out, int indent)
{
    for (int i = 0; i < indent; i++)
        str_addc(out, ' ');
}

static void add_key(struct str *out, const char *key)
{
    for (; *key; key++)
        str_addc(out, *key == '_' ? ' ' : *key);
}

static bool is_size(const char *key)
{
    size_t n = strlen(key);
    return n >= 5 && !strcmp(key + n - 5, "bytes");
}

static void add_plain(struct str *out, const char *key, const json_t *value)
{
    char size[24];
    switch (json_typeof(value)) {
    case JSON_STRING:
        str_add(out, json_string_value(value));
        break;
    case JSON_INTEGER:
        if (is_size(key) && json_integer_value(value) >= 0)
            str_add(out, format_bytes((uint64_t)json_integer_value(value), size));
        else
            str_addf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        str_addf(out, "%g", json_real_value(value));
        break;
    case JSON_TRUE:
        str_add(out, "yes");
        break;
    case JSON_FALSE:
        str_add(out, "no");
        break;
    default:
        str_add(out, "none");
    }
}

static bool is_container(const json_t *value)
{
    return json_is_object(value) || json_is_array(value);
}

static void add_array(struct str *out, const char *key, const json_t *array, int indent)
{
    size_t i;
    json_t *item;
    if (!json_array_size(array) || !is_container(json_array_get(array, 0))) {
        str_add(out, json_array_size(array) ? " " : " none");
        json_array_foreach(array, i, item)
        {
            str_add(out, i ? ", " : "");
            add_plain(out, key, item);
        }
        str_addc(out, '\n');
        return;
    }
    str_addc(out, '\n');
    json_array_foreach(array, i, item)
    {
        if (i)
            str_addc(out, '\n');
        outline(out, item, indent);
    }
}

void outline(struct str *out, const json_t *value, int indent)
{
    const char *key;
    json_t *item;
    if (indent > MAX_INDENT)
        return;
    if (!json_is_object(value)) {
        add_indent(out, indent);
        if (json_is_array(value)) {
            add_array(out, "", value, indent + 2);
        } else {
            add_plain(out, "", value);
            str_addc(out, '\n');
        }
        return;
    }
    json_object_foreach((json_t *)value, key, item)
    {
        add_indent(out, indent);
        add_key(out, key);
        str_addc(out, ':');
        if (json_is_array(item)) {
            add_array(out, key, item, indent + 2);
        } else if (json_is_object(item)) {
            str_addc(out, '\n');
            outline(out, item, indent + 2);
        } else {
            str_addc(out, ' ');
            add_plain(out, key, item);
            str_addc(out, '\n');
        }
    }
}
