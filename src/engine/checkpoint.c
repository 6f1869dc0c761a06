#include "engine/checkpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/str.h"

static char *join(const char *folder, const char *name)
{
    struct str s = {0};
    str_addf(&s, "%s/%s", folder, name);
    return str_take(&s);
}

char *checkpoint_file(const struct checkpoint *c, const char *name)
{
    return join(c->path, name);
}

int checkpoint_open(struct checkpoint *c, const char *path, struct err *e)
{
    *c = (struct checkpoint){.path = strdup(path)};
    if (!c->path)
        return err_nomem(e);
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
        return err_set(e, -ENOENT,
                       "%s is not a folder: expected a checkpoint in the hub's layout, with "
                       "model_index.json inside",
                       path);
    AUTO_FREE char *index = checkpoint_file(c, "model_index.json");
    if (!index)
        return err_nomem(e);
    if (config_open(index, &c->index, e) != 0)
        return e->code;
    c->class_name = config_string(c->index, "_class_name", "");
    return config_error(c->index, e);
}

void checkpoint_close(struct checkpoint *c)
{
    for (int i = 0; i < c->part_count; i++)
        part_close(&c->parts[i]);
    config_close(c->index);
    free(c->path);
    *c = (struct checkpoint){0};
}

static int part_read_config(struct part *p, const char *folder, struct err *e)
{
    AUTO_FREE char *path = join(folder, "config.json");
    if (!path)
        return err_nomem(e);
    if (config_open(path, &p->config, e) != 0)
        return e->code;
    p->class_name = config_string(p->config, "_class_name", NULL);
    if (!p->class_name && config_length(p->config, "architectures") > 0)
        p->class_name = config_string_at(p->config, "architectures", 0);
    if (!p->class_name)
        p->class_name = "";
    return config_error(p->config, e);
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

int checkpoint_part(struct checkpoint *c, const char *name, const char *stem, struct part **out,
                    struct err *e)
{
    if (c->part_count == CHECKPOINT_MAX_PARTS)
        return err_set(e, -EINVAL, "%s has more than %d parts", c->path, CHECKPOINT_MAX_PARTS);
    AUTO_FREE char *folder = checkpoint_file(c, name);
    if (!folder)
        return err_nomem(e);
    struct stat st;
    if (stat(folder, &st) != 0 || !S_ISDIR(st.st_mode))
        return err_set(e, -ENOENT,
                       "%s is missing: %s needs the part %s; download the whole checkpoint", folder,
                       c->class_name, name);
    struct part *p = &c->parts[c->part_count];
    int rc = part_open(p, folder, name, stem, e);
    if (rc != 0)
        return rc;
    c->part_count++;
    p->loader.backend = c->backend;
    p->loader.compute = c->compute;
    p->loader.shapes_only = c->shapes_only;
    *out = p;
    return 0;
}
