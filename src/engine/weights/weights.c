/* A checkpoint part: one safetensors file, or the shards that an index names, as one sorted list.
 */
#include "engine/weights/weights.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "engine/weights/file.h"
#include "engine/weights/fp8.h"
#include "engine/weights/quant.h"
#include "engine/weights/rename.h"
#include "engine/weights/synthetic.h"
#include "engine/weights/usage.h"

enum { INDEX_LIMIT = 32 << 20, SHARD_LIMIT = 4096 };

struct weights {
    char *path;                 /* the file or the index */
    struct weights_file *files; /* [file_count] */
    size_t file_count;
    const struct weights_entry **entries; /* [count], sorted by name */
    bool *used;                           /* [count] */
    size_t count;
    struct synthetic *made; /* in place of files */
};

/* How files of a part are called; %s is the stem. Variants come last: who has both wants the
 * full-precision one. The three spellings of a variant's index have all been published. */
static const char *const spellings[] = {
    "%s.safetensors",
    "%s.safetensors.index.json",
    "%s.fp16.safetensors",
    "%s.safetensors.index.fp16.json",
    "%s.safetensors.fp16.index.json",
    "%s.fp16.safetensors.index.json",
};

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

/* The folder of `path` with `name` in it; heap. */
static char *beside(const char *path, const char *name)
{
    struct str s = {0};
    const char *slash = strrchr(path, '/');
    if (slash)
        str_addn(&s, path, (size_t)(slash - path) + 1);
    str_add(&s, name);
    return str_take(&s);
}

/* The file or index to read for `stem` in the folder `path`; heap. */
static int locate(const char *path, const char *stem, char **out, struct err *e)
{
    for (size_t i = 0; i < ARRAY_LEN(spellings); i++) {
        AUTO_STR struct str s = {0};
        const char *tail = spellings[i] + 2;
        str_addf(&s, "%s/%s%s", path, stem, tail);
        struct stat st;
        if (!s.failed && stat(s.data, &st))
            continue;
        *out = str_take(&s);
        return *out ? 0 : err_nomem(e);
    }
    return err_set(e, -ENOENT, "%s: no %s.safetensors, %s.safetensors.index.json or fp16 variant",
                   path, stem, stem);
}

static int by_name(const void *a, const void *b)
{
    const struct weights_entry *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* One sorted list over all files; a name may be there once. */
static int merge(struct weights *w, struct err *e)
{
    size_t total = 0;
    for (size_t i = 0; i < w->file_count; i++)
        total += w->files[i].count;
    w->entries = calloc(total + 1, sizeof *w->entries);
    w->used = calloc(total + 1, sizeof *w->used);
    if (!w->entries || !w->used)
        return err_nomem(e);
    for (size_t i = 0; i < w->file_count; i++)
        for (size_t j = 0; j < w->files[i].count; j++)
            w->entries[w->count++] = &w->files[i].entries[j];
    if (w->count)
        qsort(w->entries, w->count, sizeof *w->entries, by_name);
    for (size_t i = 1; i < w->count; i++) {
        const struct weights_entry *t = w->entries[i], *before = w->entries[i - 1];
        if (strcmp(before->name, t->name) != 0)
            continue;
        if (before->file == t->file)
            return err_set(e, -EINVAL,
                           "%s: tensor '%.100s' is there twice, once under another name", t->file,
                           t->name);
        return err_set(e, -EINVAL, "tensor '%.100s' is in both %s and %s", t->name, before->file,
                       t->file);
    }
    return 0;
}

static int open_file(struct weights *w, const char *path, struct err *e)
{
    struct weights_file *grown = realloc(w->files, (w->file_count + 1) * sizeof *w->files);
    if (!grown)
        return err_nomem(e);
    w->files = grown;
    int code = weights_file_open(path, &w->files[w->file_count], e);
    w->file_count += code == 0;
    return code;
}

static bool is_open(const struct weights *w, const char *path)
{
    for (size_t i = w->file_count; i-- > 0;)
        if (!strcmp(w->files[i].path, path))
            return true;
    return false;
}

/* Opens the shard that holds `tensor`, once. Names of shards are plain names: nothing outside of
 * the index's own folder is ever opened. */
static int open_shard(struct weights *w, const char *tensor, const json_t *value, struct err *e)
{
    const char *name = json_string_value(value);
    if (!name || strchr(name, '/') || !ends_with(name, ".safetensors"))
        return err_set(e, -EINVAL,
                       "%s: tensor '%.100s' is in '%.100s', expected the name of a .safetensors "
                       "file in the same folder",
                       w->path, tensor, name ? name : "(not a text)");
    AUTO_FREE char *path = beside(w->path, name);
    if (!path)
        return err_nomem(e);
    if (is_open(w, path))
        return 0;
    if (w->file_count == SHARD_LIMIT)
        return err_set(e, -EINVAL, "%s: more than %d shards", w->path, SHARD_LIMIT);
    return open_file(w, path, e);
}

/* Every tensor of the index is in the shard that the index names. */
static int check_index(const struct weights *w, json_t *map, struct err *e)
{
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value)
    {
        const struct weights_entry *t = weights_find(w, tensor);
        if (!t && fp8_is_scale(tensor))
            continue;
        AUTO_FREE char *path = beside(w->path, json_string_value(value));
        if (!path)
            return err_nomem(e);
        if (!t || strcmp(t->file, path) != 0)
            return err_set(e, -EINVAL, "%s: tensor '%.100s' should be in %s, which lacks it",
                           w->path, tensor, path);
    }
    return 0;
}

static int open_shards(struct weights *w, json_t *root, struct err *e)
{
    json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0)
        return err_set(e, -EINVAL, "%s: weight_map is missing or empty", w->path);
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value)
    {
        int code = open_shard(w, tensor, value, e);
        if (code)
            return code;
    }
    int code = merge(w, e);
    return code ? code : check_index(w, map, e);
}

static int open_index(struct weights *w, struct err *e)
{
    AUTO_FREE char *text = NULL;
    size_t size;
    int code = file_read(AT_FDCWD, w->path, INDEX_LIMIT, &text, &size, e);
    if (code)
        return code;
    json_error_t fault;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &fault);
    if (!root)
        return err_set(e, -EINVAL, "%s:%d:%d: not valid JSON: %s", w->path, fault.line,
                       fault.column, fault.text);
    code = open_shards(w, root, e);
    json_decref(root);
    return code;
}

static int open_single(struct weights *w, struct err *e)
{
    int code = open_file(w, w->path, e);
    return code ? code : merge(w, e);
}

int weights_open(const char *path, const char *stem, struct weights **out, struct err *e)
{
    struct stat st;
    if (stat(path, &st))
        return err_set(e, -errno, "%s: %s", path, strerror(errno));
    struct weights *w = calloc(1, sizeof *w);
    if (!w)
        return err_nomem(e);
    int code = 0;
    if (S_ISDIR(st.st_mode))
        code = locate(path, stem, &w->path, e);
    else if (!(w->path = strdup(path)))
        code = err_nomem(e);
    if (!code)
        code = ends_with(w->path, ".json") ? open_index(w, e) : open_single(w, e);
    if (code)
        weights_close(w);
    else
        *out = w;
    return code;
}

int weights_open_renamed(const char *path, const char *prefix, const struct rename_rule *rules,
                         struct weights **out, struct err *e)
{
    struct weights *w = calloc(1, sizeof *w);
    if (!w || !(w->path = strdup(path))) {
        weights_close(w);
        return err_nomem(e);
    }
    int code = open_file(w, path, e);
    if (!code)
        code = weights_file_rename(&w->files[0], prefix, rules, e);
    if (!code)
        code = merge(w, e);
    if (code)
        weights_close(w);
    else
        *out = w;
    return code;
}

int weights_synthetic(const char *path, struct weights **out, struct err *e)
{
    struct weights *w = calloc(1, sizeof *w);
    if (!w || !(w->path = strdup(path)) || !(w->made = synthetic_new(path))) {
        weights_close(w);
        return err_nomem(e);
    }
    *out = w;
    return 0;
}

struct synthetic *weights_made(const struct weights *w)
{
    return w->made;
}

void weights_close(struct weights *w)
{
    if (!w)
        return;
    synthetic_free(w->made);
    for (size_t i = 0; i < w->file_count; i++)
        weights_file_close(&w->files[i]);
    free(w->files);
    free(w->entries);
    free(w->used);
    free(w->path);
    free(w);
}

const char *weights_path(const struct weights *w)
{
    return w->path;
}

size_t weights_count(const struct weights *w)
{
    return w->count;
}

const struct weights_entry *weights_at(const struct weights *w, size_t i)
{
    return i < w->count ? w->entries[i] : NULL;
}

/* The place of a name in the sorted list, or count. */
static size_t find(const struct weights *w, const char *name)
{
    size_t low = 0, high = w->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(w->entries[middle]->name, name);
        if (order == 0)
            return middle;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return w->count;
}

const struct weights_entry *weights_find(const struct weights *w, const char *name)
{
    return weights_at(w, find(w, name));
}

const struct weights_entry *weights_use(struct weights *w, const char *name)
{
    size_t i = find(w, name);
    if (i < w->count)
        w->used[i] = true;
    return weights_at(w, i);
}

size_t weights_unused(const struct weights *w, const char **names, size_t max)
{
    size_t unused = 0;
    for (size_t i = 0; i < w->count; i++)
        if (!w->used[i]) {
            if (unused < max)
                names[unused] = w->entries[i]->name;
            unused++;
        }
    return unused;
}

uint64_t weights_parameters(const struct weights *w)
{
    uint64_t sum = 0; /* cannot overflow: every element has at least a byte in a file */
    for (size_t i = 0; i < w->count; i++) {
        uint64_t n = 1;
        for (int a = 0; a < w->entries[i]->rank; a++)
            n *= (uint64_t)w->entries[i]->dims[a];
        sum += n;
    }
    return sum;
}

uint64_t weights_bytes(const struct weights *w)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < w->count; i++)
        sum += w->entries[i]->bytes;
    return sum;
}

void weights_entry_values(const struct weights_entry *t, const void *from, int64_t values,
                          float *out)
{
    quant_values(t->expand, t->scale, from, 0, values, DTYPE_F32, out);
}

/* Whole pages around a tensor: those of a mapping that nobody writes, which lose nothing. */
static void advise(const struct weights *w, const struct weights_entry *t, int advice)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)t->data;
    uintptr_t begin = at & ~(page - 1), end = (at + t->bytes + page - 1) & ~(page - 1);
    bool mapped = w->made != NULL;
    for (size_t i = 0; i < w->file_count && !mapped; i++)
        mapped = w->files[i].map && at - (uintptr_t)w->files[i].map < w->files[i].map_size;
    if (mapped && t->bytes)
        (void)madvise((void *)begin, end - begin, advice); /* failure only costs */
}

void weights_forget(const struct weights *w, const struct weights_entry *t)
{
    advise(w, t, MADV_DONTNEED);
}

void weights_read_ahead(const struct weights *w, const struct weights_entry *t)
{
    advise(w, t, MADV_WILLNEED);
}
