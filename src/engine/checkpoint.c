#include "engine/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/synthetic.h"

static char *join(const char *folder, const char *name)
{
    struct str s = {0};
    str_addf(&s, "%s/%s", folder, name);
    return str_take(&s);
}

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool holds(const char *folder, const char *name)
{
    AUTO_FREE char *path = join(folder, name);
    return path && access(path, F_OK) == 0;
}

/* The folder that `path` is in; heap. */
static char *parent(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    while (n && path[n - 1] != '/')
        n--;
    while (n > 1 && path[n - 1] == '/')
        n--;
    return n ? strndup(path, n) : strdup(".");
}

/* ---- where parts lie ---- */

static const char *elsewhere(const struct checkpoint *c, const char *part, size_t length)
{
    for (int i = 0; i < c->elsewhere_count; i++)
        if (strncmp(c->elsewhere[i].name, part, length) == 0 && !c->elsewhere[i].name[length])
            return c->elsewhere[i].path;
    return NULL;
}

/* `path` is the part itself, or a checkpoint that has it. */
static char *within(const char *path, const char *part, size_t length)
{
    AUTO_FREE char *name = strndup(part, length);
    if (!name)
        return NULL;
    return holds(path, name) || holds(path, "model_index.json") ? join(path, name) : strdup(path);
}

/* The checkpoint that the part `of` was taken from, where it is one of this kind or `any`; heap, or
 * NULL. */
static char *companion(const struct checkpoint *c, const char *of, bool any)
{
    const char *path = elsewhere(c, of, strlen(of));
    if (!path)
        return NULL;
    char *folder = holds(path, "model_index.json") ? strdup(path) : parent(path);
    AUTO_FREE char *index = folder && !any ? join(folder, "model_index.json") : NULL;
    struct config *there = NULL;
    if (index && config_open(index, &there, NULL) == 0)
        any = strcmp(config_string(there, "_class_name", ""), c->class_name) == 0;
    config_close(there);
    if (folder && any)
        return folder;
    free(folder);
    return NULL;
}

/* What goes along with a part that lies elsewhere, when it is not stated itself. */
static char *beside_parts(const struct checkpoint *c, const char *part, const char *name)
{
    static const struct {
        const char *part, *of;
        bool any; /* of any kind of checkpoint */
    } along[] = {
        {"tokenizer", "text_encoder", true},
        {"tokenizer_2", "text_encoder_2", true},
        {"scheduler", "vae", false},
        {"scheduler", "text_encoder", false},
    };
    for (size_t i = 0; i < ARRAY_LEN(along); i++) {
        size_t n = strlen(along[i].part);
        if (strncmp(along[i].part, part, n) != 0 || (part[n] && part[n] != '/'))
            continue;
        AUTO_FREE char *folder = companion(c, along[i].of, along[i].any);
        if (folder && holds(folder, name))
            return join(folder, name);
    }
    return NULL;
}

char *checkpoint_file(const struct checkpoint *c, const char *name)
{
    size_t length = strcspn(name, "/");
    const char *stated = elsewhere(c, name, length);
    if (stated) {
        AUTO_FREE char *part = within(stated, name, length);
        return !part ? NULL : name[length] ? join(part, name + length + 1) : strdup(part);
    }
    char *along = holds(c->folder, name) ? NULL : beside_parts(c, name, name);
    return along ? along : join(c->folder, name);
}

int checkpoint_folder(struct checkpoint *c, const char *name, char **out, struct err *e)
{
    AUTO_FREE char *folder = checkpoint_file(c, name);
    if (!folder)
        return err_nomem(e);
    if (is_folder(folder)) {
        *out = folder;
        folder = NULL;
        return 0;
    }
    if (!c->file || elsewhere(c, name, strlen(name)))
        return err_set(e, -ENOENT,
                       "%s is missing: %s needs the part %s; download the whole checkpoint", folder,
                       c->class_name, name);
    if (!c->missing[0])
        snprintf(c->missing, sizeof c->missing, "%s", name);
    return err_set(e, -ENOENT,
                   "%s holds %s without a %s; name one with '%s = PATH' in registry.ini, or put "
                   "the folder %s beside the file",
                   c->path, single_file_what(c->file), name, name, name);
}

/* ---- opening ---- */

static bool is_weights(const char *name)
{
    const char *dot = strrchr(name, '.');
    return name[0] != '.' && dot && (!strcmp(dot, ".safetensors") || !strcmp(dot, ".gguf"));
}

/* The only weights in a folder (heap); NULL where there are none or several. */
static char *only_file(const char *folder)
{
    DIR *d = opendir(folder);
    char *found = NULL;
    int count = 0;
    for (struct dirent *entry; d && (entry = readdir(d));)
        if (is_weights(entry->d_name) && count++ == 0)
            found = join(folder, entry->d_name);
    if (d)
        closedir(d);
    if (count == 1)
        return found;
    free(found);
    return NULL;
}

/* Is it a folder of parts, whole or not? */
static bool is_layout(const char *folder)
{
    return holds(folder, "transformer") || holds(folder, "unet") ||
           (holds(folder, "model_index.json") && holds(folder, "vae"));
}

static int open_index(struct checkpoint *c, struct err *e)
{
    AUTO_FREE char *index = join(c->folder, "model_index.json");
    if (!index)
        return err_nomem(e);
    if (!is_layout(c->folder) && !holds(c->folder, "model_index.json"))
        return err_set(e, -ENOENT,
                       "%s holds no model: expected model_index.json and the folders that it "
                       "names, or one .safetensors or .gguf file",
                       c->folder);
    if (config_open(index, &c->index, e) != 0)
        return e->code;
    c->class_name = config_string(c->index, "_class_name", "");
    return config_error(c->index, e);
}

/* model_index.json beside the file counts when it is about this kind of model. */
static int open_single(struct checkpoint *c, struct err *e)
{
    struct err ignored = {0};
    if (single_file_open(c->path, &c->file, e) != 0)
        return e->code;
    if (holds(c->folder, "model_index.json") && open_index(c, &ignored) == 0 &&
        strcmp(c->class_name, single_file_class(c->file)) == 0)
        return 0;
    config_close(c->index);
    c->index = NULL;
    c->class_name = single_file_class(c->file);
    return single_file_index(c->file, &c->index, e);
}

static int open_synthetic(struct checkpoint *c, const char *name, struct err *e)
{
    c->synthetic = synthetic_find(name);
    if (!c->synthetic)
        return err_set(e, -ENOENT,
                       "there is no synthetic model %s; there are klein-4b, zimage, "
                       "sdxl and sd15",
                       name);
    c->folder = strdup(c->path);
    if (!c->folder)
        return err_nomem(e);
    const char *index = c->synthetic->index;
    if (config_parse(c->path, index, strlen(index), &c->index, e) != 0)
        return e->code;
    c->class_name = config_string(c->index, "_class_name", "");
    return config_error(c->index, e);
}

int checkpoint_open(struct checkpoint *c, const char *path, struct err *e)
{
    static const size_t prefix = sizeof SYNTHETIC_PREFIX - 1;
    *c = (struct checkpoint){.path = strdup(path)};
    if (!c->path)
        return err_nomem(e);
    if (strncmp(path, SYNTHETIC_PREFIX, prefix) == 0)
        return open_synthetic(c, path + prefix, e);
    struct stat st;
    if (stat(path, &st) != 0)
        return err_set(e, -ENOENT,
                       "%s is not there: expected a checkpoint, that is a folder with "
                       "model_index.json or a .safetensors or .gguf file",
                       path);
    bool folder = S_ISDIR(st.st_mode);
    c->folder = folder ? strdup(path) : parent(path);
    if (!c->folder)
        return err_nomem(e);
    AUTO_FREE char *only = folder && !is_layout(path) ? only_file(path) : NULL;
    if (only) {
        free(c->path);
        c->path = only;
        only = NULL;
    }
    return !folder || strcmp(c->path, path) != 0 ? open_single(c, e) : open_index(c, e);
}

void checkpoint_close(struct checkpoint *c)
{
    for (int i = 0; i < c->part_count; i++)
        part_close(&c->parts[i]);
    config_close(c->index);
    single_file_close(c->file);
    free(c->folder);
    free(c->path);
    *c = (struct checkpoint){0};
}

int checkpoint_scheduler(const struct checkpoint *c, struct config **out, struct err *e)
{
    const char *made = c->synthetic ? c->synthetic->scheduler : NULL;
    if (made)
        return config_parse(c->path, made, strlen(made), out, e);
    AUTO_FREE char *path = checkpoint_file(c, "scheduler/scheduler_config.json");
    if (!path)
        return err_nomem(e);
    if (c->file && access(path, F_OK) != 0)
        return single_file_scheduler(c->file, out, e);
    return config_open(path, out, e);
}

/* ---- parts ---- */

static int part_read_class(struct part *p, struct err *e)
{
    p->class_name = config_string(p->config, "_class_name", NULL);
    if (!p->class_name && config_length(p->config, "architectures") > 0)
        p->class_name = config_string_at(p->config, "architectures", 0);
    if (!p->class_name)
        p->class_name = "";
    return config_error(p->config, e);
}

static int part_read_config(struct part *p, const char *folder, struct err *e)
{
    AUTO_FREE char *path = join(folder, "config.json");
    if (!path)
        return err_nomem(e);
    return config_open(path, &p->config, e) ? e->code : part_read_class(p, e);
}

int part_open(struct part *p, const char *folder, const char *name, const char *stem, struct err *e)
{
    *p = (struct part){0};
    snprintf(p->name, sizeof(p->name), "%s", name);
    int rc = part_read_config(p, folder, e);
    if (rc == 0)
        rc = weights_open(folder, stem, &p->weights, e);
    p->loader.weights = p->weights;
    if (rc != 0)
        part_close(p);
    return rc;
}

void part_close(struct part *p)
{
    weight_loader_free(&p->loader);
    weights_close(p->weights);
    config_close(p->config);
    *p = (struct part){0};
}

static int open_from_file(const struct checkpoint *c, const char *name, struct part *p,
                          struct err *e)
{
    *p = (struct part){0};
    snprintf(p->name, sizeof(p->name), "%s", name);
    int rc = single_file_part(c->file, name, &p->config, &p->weights, e);
    if (rc == 0)
        rc = part_read_class(p, e);
    p->loader.weights = p->weights;
    if (rc != 0)
        part_close(p);
    return rc;
}

static int open_made(const struct checkpoint *c, const char *name, struct part *p, struct err *e)
{
    const struct synthetic_part *from = c->synthetic->parts;
    while (from < c->synthetic->parts + SYNTHETIC_PARTS && from->name && strcmp(from->name, name))
        from++;
    if (from == c->synthetic->parts + SYNTHETIC_PARTS || !from->name)
        return err_set(e, -ENOENT, "%s has no part %s", c->path, name);
    snprintf(p->name, sizeof(p->name), "%s", name);
    int rc = config_parse(c->path, from->config, strlen(from->config), &p->config, e);
    if (rc == 0)
        rc = part_read_class(p, e);
    if (rc == 0)
        rc = weights_synthetic(c->path, &p->weights, e);
    p->loader.weights = p->weights;
    if (rc != 0)
        part_close(p);
    return rc;
}

int checkpoint_peek(struct checkpoint *c, const char *name, const char *stem, struct part *out,
                    struct err *e)
{
    *out = (struct part){0};
    if (c->synthetic && !elsewhere(c, name, strlen(name)))
        return open_made(c, name, out, e);
    if (c->file && single_file_has(c->file, name) && !elsewhere(c, name, strlen(name)))
        return open_from_file(c, name, out, e);
    AUTO_FREE char *folder = NULL;
    int rc = checkpoint_folder(c, name, &folder, e);
    return rc ? rc : part_open(out, folder, name, stem, e);
}

int checkpoint_part(struct checkpoint *c, const char *name, const char *stem, struct part **out,
                    struct err *e)
{
    if (c->part_count == CHECKPOINT_MAX_PARTS)
        return err_set(e, -EINVAL, "%s has more than %d parts", c->path, CHECKPOINT_MAX_PARTS);
    struct part *p = &c->parts[c->part_count];
    int rc = checkpoint_peek(c, name, stem, p, e);
    if (rc != 0)
        return rc;
    c->part_count++;
    p->loader.backend = c->backend;
    p->loader.compute = c->compute;
    p->loader.fp8 = c->fp8;
    p->loader.shapes_only = c->shapes_only;
    p->loader.asleep = c->asleep;
    *out = p;
    return 0;
}
