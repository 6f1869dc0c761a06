/* Where files of the installation lie: the registry, models, shared data. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"
#include "job/registry.h"

/* Folders of shared data, in order, after the one that belongs to this program. */
static const char *const prefixes[] = {"/usr/local/share/omnifs", "/usr/share/omnifs"};
#define SHARE_FOLDERS (1 + sizeof prefixes / sizeof *prefixes)

static bool join(char path[REGISTRY_PATH_SIZE], const char *folder, const char *name)
{
    int n = snprintf(path, REGISTRY_PATH_SIZE, "%s/%s", folder, name);
    return n > 0 && n < REGISTRY_PATH_SIZE;
}

static bool exists(const char *path)
{
    return !access(path, R_OK);
}

/* The source tree that this program was built in: the nearest folder above the executable that
 * holds both registry.ini and models/. */
static bool source_tree(char out[REGISTRY_PATH_SIZE])
{
    ssize_t n = readlink("/proc/self/exe", out, REGISTRY_PATH_SIZE - 1);
    if (n <= 0)
        return false;
    out[n] = '\0';
    for (int up = 0; up < 5; up++) {
        char *slash = strrchr(out, '/');
        if (!slash || slash == out)
            return false;
        *slash = '\0';
        char path[REGISTRY_PATH_SIZE], models[REGISTRY_PATH_SIZE];
        if (join(path, out, "registry.ini") && exists(path) && join(models, out, "models") &&
            exists(models))
            return true;
    }
    return false;
}

/* PREFIX/share/omnifs where the program lies in PREFIX/bin. */
static bool own_prefix(char out[REGISTRY_PATH_SIZE])
{
    char program[REGISTRY_PATH_SIZE];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    program[n > 0 ? n : 0] = '\0';
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(program, '/');
        if (!slash || (up == 0 && slash - program < 4) || (up == 1 && strcmp(slash, "/bin")))
            return false;
        *slash = '\0';
    }
    return join(out, program, "share/omnifs");
}

/* The i-th folder of shared data: ../share/omnifs as seen from the program (an installation under
 * any prefix), then the usual ones. */
static bool share_folder(size_t i, char out[REGISTRY_PATH_SIZE])
{
    if (i > 0)
        return snprintf(out, REGISTRY_PATH_SIZE, "%s", prefixes[i - 1]) > 0;
    char program[REGISTRY_PATH_SIZE];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n <= 0)
        return false;
    program[n] = '\0';
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(program, '/');
        if (!slash)
            return false;
        *slash = '\0';
    }
    return join(out, program, "share/omnifs");
}

/* $XDG_… or its default below the home folder. */
static bool user_folder(const char *variable, const char *fallback, char out[REGISTRY_PATH_SIZE])
{
    const char *folder = getenv(variable), *home = getenv("HOME");
    if (folder && *folder == '/')
        return join(out, folder, "omnifs");
    char base[REGISTRY_PATH_SIZE];
    return home && *home == '/' && join(base, home, fallback) && join(out, base, "omnifs");
}

int registry_find(char path[REGISTRY_PATH_SIZE], struct err *e)
{
    const char *named = getenv("OMNIFS_REGISTRY");
    if (named && *named) {
        snprintf(path, REGISTRY_PATH_SIZE, "%s", named);
        return 0; /* whether it is there or not: reading it will tell */
    }
    char folder[REGISTRY_PATH_SIZE];
    if (user_folder("XDG_CONFIG_HOME", ".config", folder) && join(path, folder, "registry.ini") &&
        exists(path))
        return 0;
    if (join(path, "/etc/omnifs", "registry.ini") && exists(path))
        return 0;
    if (own_prefix(folder) && join(path, folder, "registry.ini") && exists(path))
        return 0;
    for (size_t i = 0; i < SHARE_FOLDERS; i++)
        if (share_folder(i, folder) && join(path, folder, "registry.ini") && exists(path))
            return 0;
    if (source_tree(folder) && join(path, folder, "registry.ini"))
        return 0;
    return err_set(e, -ENOENT,
                   "no registry.ini was found in ~/.config/omnifs, /etc/omnifs, "
                   "/usr/local/share/omnifs or /usr/share/omnifs; set OMNIFS_REGISTRY");
}

int share_find(const char *name, char path[REGISTRY_PATH_SIZE], struct err *e)
{
    char folder[REGISTRY_PATH_SIZE], share[REGISTRY_PATH_SIZE];
    if (source_tree(folder) && join(share, folder, "share") && join(path, share, name) &&
        exists(path))
        return 0; /* a build in its tree uses what belongs to it */
    if (own_prefix(folder) && join(path, folder, name) && exists(path))
        return 0;
    for (size_t i = 0; i < SHARE_FOLDERS; i++)
        if (share_folder(i, folder) && join(path, folder, name) && exists(path))
            return 0;
    return err_set(e, -ENOENT, "%s was not found in %s or %s; install omnifs completely", name,
                   prefixes[0], prefixes[1]);
}

/* Places a model may be in, each once, whatever it is called. */
struct places {
    bool (*each)(void *ctx, const char *folder); /* true: that was the one */
    void *ctx;
    char *seen[32];
    size_t count;
};

static bool place(struct places *p, const char *folder)
{
    char *real = realpath(folder, NULL);
    for (size_t i = 0; real && i < p->count; i++)
        if (!strcmp(real, p->seen[i])) {
            free(real);
            return false;
        }
    if (real && p->count < sizeof p->seen / sizeof *p->seen)
        p->seen[p->count++] = real;
    else
        free(real);
    return p->each(p->ctx, folder);
}

static bool place_named(struct places *p)
{
    const char *list = getenv("OMNIFS_MODELS");
    char *copy = list ? strdup(list) : NULL, *rest = copy;
    bool found = false;
    for (char *item; !found && rest && (item = strsep(&rest, ":"));)
        found = *item && place(p, item);
    free(copy);
    return found;
}

static bool place_usual(struct places *p)
{
    char folder[REGISTRY_PATH_SIZE], models[REGISTRY_PATH_SIZE];
    if (user_folder("XDG_DATA_HOME", ".local/share", folder) && join(models, folder, "models") &&
        place(p, models))
        return true;
    if (own_prefix(folder) && join(models, folder, "models") && place(p, models))
        return true;
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if ((!own_prefix(folder) || strcmp(folder, prefixes[i])) &&
            join(models, prefixes[i], "models") && place(p, models))
            return true;
    return source_tree(folder) && join(models, folder, "models") && place(p, models);
}

/* Calls each() for every place a model may be in, until it returns true. */
static bool model_places(bool (*each)(void *ctx, const char *folder), void *ctx)
{
    struct places p = {.each = each, .ctx = ctx};
    bool found = place_named(&p) || place_usual(&p);
    while (p.count)
        free(p.seen[--p.count]);
    return found;
}

struct model_search {
    const char *name;
    char *path;
    struct str places;
};

static bool model_in(void *ctx, const char *folder)
{
    struct model_search *s = ctx;
    str_addf(&s->places, "%s%s", s->places.len ? ", " : "", folder);
    return join(s->path, folder, s->name) && exists(s->path);
}

int model_find(const char *name, char path[REGISTRY_PATH_SIZE], struct err *e)
{
    if (strchr(name, '/') && exists(name)) {
        char *real = realpath(name, NULL);
        int n = real ? snprintf(path, REGISTRY_PATH_SIZE, "%s", real) : -1;
        free(real);
        if (n > 0 && n < REGISTRY_PATH_SIZE)
            return 0;
    }
    if (*name == '/')
        return err_set(e, -ENOENT, "the model %s is not there", name);
    if (!strcmp(name, ".") || strstr(name, ".."))
        return err_set(e, -EINVAL, "\"%s\" is not the name of a model", name);
    struct model_search s = {name, path, {0}};
    int code = 0;
    if (!model_places(model_in, &s))
        code = err_set(e, -ENOENT,
                       "the model %s is in none of %s; put it there or set "
                       "OMNIFS_MODELS",
                       name, str_cstr(&s.places));
    str_free(&s.places);
    return code;
}

const char *const profile_part_names[PROFILE_PARTS] = {
    [PART_TEXT_ENCODER] = "text_encoder",
    [PART_TEXT_ENCODER_2] = "text_encoder_2",
    [PART_VAE] = "vae",
    [PART_TOKENIZER] = "tokenizer",
    [PART_TOKENIZER_2] = "tokenizer_2",
};

int profile_places_find(const struct profile *p, struct profile_places *out, struct err *e)
{
    out->count = 0;
    for (int i = 0; i < PROFILE_PARTS; i++) {
        if (!p->parts[i][0])
            continue;
        char *path = out->paths[out->count];
        if (model_find(p->parts[i], path, e))
            return err_prefix(e, "%s of [%s]", profile_part_names[i], p->name);
        out->list[out->count++] = (struct omni_part){profile_part_names[i], path};
    }
    return 0;
}

struct folder_visit {
    void (*each)(void *ctx, const char *folder);
    void *ctx;
};

static bool visit_folder(void *ctx, const char *folder)
{
    struct folder_visit *v = ctx;
    struct stat st;
    if (!stat(folder, &st) && S_ISDIR(st.st_mode))
        v->each(v->ctx, folder);
    return false;
}

void model_search_path(void (*each)(void *ctx, const char *folder), void *ctx)
{
    struct folder_visit v = {each, ctx};
    model_places(visit_folder, &v);
}
