/* Opening the libraries, and the public face over the two parts. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/symbols.h"
#include "kernels/vendor_tables.h"

bool vendor_library(const char *file, const char *prefix, const char *const *names, size_t count,
                    void *table, void **library)
{
    char path[128];
    snprintf(path, sizeof(path), "/usr/local/cuda/lib64/%s", file);
    *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (!*library)
        *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    return *library && !symbols_find(*library, prefix, names, count, table);
}

void vendor_version(const char *name, size_t version, char *text, size_t size)
{
    snprintf(text, size, "%s %zu.%zu.%zu", name, version / 10000, version / 100 % 100,
             version % 100);
}

/* File and device in a form that fits the stamp of a line: no blanks. */
static struct choices *open_choices(const struct vendor *v, const char *device)
{
    const char *path = getenv("OMNIFS_CUDA_CHOICES");
    char stamp[160];
    if (!path || !*path || !v->lt || !v->clock.start)
        return NULL;
    snprintf(stamp, sizeof(stamp), "%s/%s", v->text, device);
    for (char *c = stamp; *c; c++)
        *c = *c == ' ' ? '_' : *c;
    return choices_open(path, stamp);
}

/* Fewer multiply-adds a product than this are not worth a plan, which is compiled for a second or
 * more when its shape comes first. */
#define SMALL_ATTENTION ((double)(1ull << 32))

struct vendor *vendor_open(const char *device, const struct vendor_clock *clock)
{
    const char *which = getenv("OMNIFS_CUDA_LIBRARIES");
    char lt[40] = "", dnn[40] = "";
    struct vendor *v = which && !strcmp(which, "none") ? NULL : calloc(1, sizeof(*v));
    if (!v)
        return NULL;
    pthread_mutex_init(&v->lock, NULL);
    v->lt = lt_open(&v->lt_library, lt, sizeof(lt));
    v->nn = nn_open(&v->nn_library, dnn, sizeof(dnn));
    v->least_attention = SMALL_ATTENTION;
    if (clock)
        v->clock = *clock;
    snprintf(v->text, sizeof(v->text), "%s", lt);
    v->choices = open_choices(v, device);
    snprintf(v->text, sizeof(v->text), "%s%s%s", lt, *lt && *dnn ? ", " : "", dnn);
    if (v->lt || v->nn)
        return v;
    vendor_close(v);
    return NULL;
}

void vendor_close(struct vendor *v)
{
    if (!v)
        return;
    lt_free(v->lt);
    nn_free(v->nn);
    choices_free(v->choices);
    if (v->lt_library)
        dlclose(v->lt_library);
    if (v->nn_library)
        dlclose(v->nn_library);
    pthread_mutex_destroy(&v->lock);
    free(v);
}

const char *vendor_text(const struct vendor *v)
{
    return v && *v->text ? v->text : "none";
}

bool vendor_linear(struct vendor *v, const struct vendor_linear *l, void *workspace, void *stream,
                   struct vendor_left *left)
{
    if (!v || !v->lt)
        return false;
    pthread_mutex_lock(&v->lock);
    bool done = lt_linear(v, l, workspace, stream, left);
    pthread_mutex_unlock(&v->lock);
    return done;
}

bool vendor_conv(struct vendor *v, const struct vendor_conv *c, void *workspace, void *stream,
                 struct vendor_left *left)
{
    if (!v || !v->nn)
        return false;
    pthread_mutex_lock(&v->lock);
    bool done = nn_conv(v->nn, c, workspace, stream, left);
    pthread_mutex_unlock(&v->lock);
    return done;
}

bool vendor_attention(struct vendor *v, const struct vendor_attention *a, void *workspace,
                      void *stream)
{
    double work = (double)a->tq * (double)a->tk * (double)a->heads * (double)a->d;
    if (!v || !v->nn || work < v->least_attention)
        return false;
    pthread_mutex_lock(&v->lock);
    bool done = nn_attention(v->nn, a, workspace, stream);
    pthread_mutex_unlock(&v->lock);
    return done;
}
