#include "lora_file.h"

#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "det.h"

/* Header and data in the making. */
struct making {
    json_t *header;
    struct str data;
};

static void add(struct making *m, const char *name, int rank, const int64_t *dims,
                const float *values, size_t count)
{
    json_t *shape = json_array();
    size_t begin = m->data.len;
    for (int i = 0; i < rank; i++)
        json_array_append_new(shape, json_integer(dims[i]));
    str_addn(&m->data, values, count * sizeof(*values));
    json_object_set_new(m->header, name,
                        json_pack("{ss so s[II]}", "dtype", "F32", "shape", shape, "data_offsets",
                                  (json_int_t)begin, (json_int_t)m->data.len));
}

static void add_line(struct making *m, char *line)
{
    char *rest, *name = strtok_r(line, " ", &rest), *word;
    if (strcmp(name, "metadata") == 0) {
        json_object_set_new(m->header, "__metadata__",
                            json_pack("{ss}", "lora_adapter_metadata", rest));
        return;
    }
    int64_t dims[5];
    size_t count = 1;
    int rank = 0;
    while (rank < 5 && (word = strtok_r(NULL, " ", &rest))) {
        if (strcmp(word, "=") == 0) {
            float number = strtof(rest, NULL);
            add(m, name, 0, dims, &number, 1);
            return;
        }
        dims[rank] = strtoll(word, NULL, 10);
        count *= (size_t)dims[rank++];
    }
    AUTO_FREE float *values = malloc(count * sizeof(*values));
    det_weight(name, rank, dims, values);
    add(m, name, rank, dims, values, count);
}

void lora_file_write(const char *list, const char *path)
{
    struct making m = {.header = json_object()};
    char *next;
    AUTO_FREE char *copy = strdup(list);
    for (char *line = strtok_r(copy, "\n", &next); line; line = strtok_r(NULL, "\n", &next))
        if (*line != '#')
            add_line(&m, line);
    AUTO_FREE char *header = json_dumps(m.header, JSON_COMPACT);
    AUTO_STR struct str file = {0};
    uint64_t length = (strlen(header) + 7) / 8 * 8;
    str_addn(&file, &length, sizeof(length));
    str_add(&file, header);
    while (file.len < sizeof(length) + length)
        str_addc(&file, ' ');
    str_addn(&file, str_cstr(&m.data), m.data.len);
    assert_false(file.failed || m.data.failed);
    struct err e = {0};
    if (file_write_atomic(AT_FDCWD, path, file.data, file.len, &e) != 0)
        fail_msg("%s", e.text);
    str_free(&m.data);
    json_decref(m.header);
}

void lora_file_convert(const char *list_path, const char *path)
{
    size_t size;
    struct err e = {0};
    AUTO_FREE char *list = NULL;
    if (file_read(AT_FDCWD, list_path, 1 << 20, &list, &size, &e) != 0)
        fail_msg("%s", e.text);
    lora_file_write(list, path);
}
