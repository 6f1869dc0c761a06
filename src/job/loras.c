#include "job/loras.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/str.h"

static bool is_plain(const char *name)
{
    return *name && *name != '.' && !strchr(name, '/');
}

bool lora_allowed(const struct profile *p, const char *name)
{
    for (int i = 0; p && i < p->lora_count; i++)
        if (!strcmp(p->loras[i].name, name))
            return true;
    return is_plain(name);
}

static bool is_file(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISREG(st.st_mode);
}

struct search {
    const char *name;
    char *path;
    bool found;
    struct str places;
};

static void look_in(void *ctx, const char *folder)
{
    static const char *const tails[] = {".safetensors", ""};
    struct search *s = ctx;
    str_addf(&s->places, "%s%s", s->places.len ? ", " : "", folder);
    for (size_t i = 0; i < ARRAY_LEN(tails) && !s->found; i++) {
        int n = snprintf(s->path, REGISTRY_PATH_SIZE, "%s/%s%s", folder, s->name, tails[i]);
        s->found = n > 0 && n < REGISTRY_PATH_SIZE && is_file(s->path);
    }
}

int lora_find(const struct profile *p, const char *name, char path[REGISTRY_PATH_SIZE],
              struct err *e)
{
    if (!lora_allowed(p, name))
        return err_set(e, -EACCES,
                       "lora %s is a path; a prompt names LoRAs by name, and paths are for "
                       "registry.ini",
                       name);
    if (*name == '/') {
        int n = snprintf(path, REGISTRY_PATH_SIZE, "%s", name);
        if (n < REGISTRY_PATH_SIZE && is_file(path))
            return 0;
        return err_set(e, -ENOENT, "the LoRA %s of [%s] is not there", name, p->name);
    }
    if (!is_plain(name))
        return err_set(e, -EINVAL, "lora %s of [%s] is neither a name nor an absolute path", name,
                       p->name);
    struct search s = {name, path, false, {0}};
    model_search_path(look_in, &s);
    if (!s.found)
        err_set(e, -ENOENT,
                "the LoRA %s is neither in the job folder nor, with or without .safetensors, in %s",
                name, s.places.len ? str_cstr(&s.places) : "a folder of models");
    str_free(&s.places);
    return s.found ? 0 : -ENOENT;
}

/* The file in the job folder, by the folder's descriptor: nothing above it can be reached. */
static bool in_job_folder(const struct run *r, const char *name, char path[REGISTRY_PATH_SIZE])
{
    struct stat st;
    if (!is_plain(name) || r->in_fd < 0 || fstatat(r->in_fd, name, &st, 0) || !S_ISREG(st.st_mode))
        return false;
    int n = snprintf(path, REGISTRY_PATH_SIZE, "/proc/self/fd/%d/%s", r->in_fd, name);
    return n > 0 && n < REGISTRY_PATH_SIZE;
}

int run_find_loras(struct run *r, struct err *e)
{
    for (int i = 0; i < r->request.lora_count; i++) {
        const struct request_lora *l = &r->request.loras[i];
        char path[REGISTRY_PATH_SIZE];
        int code = lora_find(r->profile, l->name, path, e);
        if (code == -ENOENT && in_job_folder(r, l->name, path))
            code = 0;
        if (code)
            return err_prefix(e, "%s", r->where);
        char *copy = strdup(path);
        if (!copy)
            return err_nomem(e);
        r->loras[r->lora_count++] = (struct omni_lora){copy, l->weight};
    }
    *e = (struct err){0};
    return 0;
}

void run_free_loras(struct run *r)
{
    for (int i = 0; i < r->lora_count; i++)
        free((char *)(uintptr_t)r->loras[i].path);
    r->lora_count = 0;
}

bool run_same_loras(const struct run *a, const struct run *b)
{
    for (int i = 0; i < a->lora_count && i < b->lora_count; i++)
        if (strcmp(a->loras[i].path, b->loras[i].path) != 0 ||
            a->loras[i].weight != b->loras[i].weight)
            return false;
    return a->lora_count == b->lora_count;
}
