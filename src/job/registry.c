/* registry.ini through inih. The packaged inih tells no line numbers and cuts long lines; both are
 * mended by reading through our own line function, which counts, and refuses what would be cut. */
#include "job/registry.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "job/registry_keys.h"

#define MAX_BYTES 1048576
#define MAX_NAME  48 /* inih cuts names of sections and keys at 50 */

struct counted_registry {
    struct registry public; /* first: a registry * is a counted_registry * */
    atomic_int references;
};

struct loader {
    const char *where, *at, *end;
    int line;
    struct registry *r;
    struct registry_lists lists;
    enum registry_section section;
    void *target; /* struct of the open section; NULL: none */
    uint32_t given, given_sections;
    struct err *e;
    int code; /* first error */
};

static int fail_here(struct loader *l)
{
    return l->code = err_prefix(l->e, "%s:%d", l->where, l->line);
}

static int end_section(struct loader *l)
{
    if (l->target && l->section == SECTION_PROFILE && profile_check(l->target, l->given, l->e))
        return fail_here(l);
    l->target = NULL;
    return 0;
}

static int begin_profile(struct loader *l, const char *name)
{
    if (registry_profile(l->r, name))
        return err_set(l->e, -EINVAL, "the section [%s] is there a second time", name);
    struct profile *more =
        realloc(l->r->profiles, (size_t)(l->r->profile_count + 1) * sizeof *more);
    if (!more)
        return err_nomem(l->e);
    l->r->profiles = more;
    profile_init(&more[l->r->profile_count], name);
    l->target = &more[l->r->profile_count++];
    l->section = SECTION_PROFILE;
    return 0;
}

static int begin_section(struct loader *l, const char *name)
{
    struct {
        const char *name;
        void *target;
    } fixed[] = {
        [SECTION_LIMITS] = {"limits", &l->r->limits},
        [SECTION_DEVICES] = {"devices", &l->r->devices},
        [SECTION_SAFETY] = {"safety", &l->r->safety},
    };
    if (end_section(l))
        return l->code;
    l->given = 0;
    if (!*name || strlen(name) > MAX_NAME) {
        err_set(l->e, -EINVAL, "a section's name has 1 … %d bytes", MAX_NAME);
        return fail_here(l);
    }
    for (size_t i = SECTION_LIMITS; i < ARRAY_LEN(fixed); i++)
        if (!strcmp(name, fixed[i].name)) {
            if (l->given_sections & (1u << i)) {
                err_set(l->e, -EINVAL, "the section [%s] is there a second time", name);
                return fail_here(l);
            }
            l->given_sections |= 1u << i;
            l->section = (enum registry_section)i;
            l->target = fixed[i].target;
            return 0;
        }
    return begin_profile(l, name) ? fail_here(l) : 0;
}

/* inih's fgets: one line without its indentation (an indented line is no continuation here). */
static char *next_line(char *out, int size, void *stream)
{
    struct loader *l = stream;
    if (l->code || l->at >= l->end)
        return NULL;
    l->line++;
    const char *newline = memchr(l->at, '\n', (size_t)(l->end - l->at));
    const char *stop = newline ? newline : l->end;
    while (l->at < stop && (*l->at == ' ' || *l->at == '\t'))
        l->at++;
    size_t n = (size_t)(stop - l->at);
    if (n > (size_t)size - 3) {
        err_set(l->e, -EINVAL, "the line has more than %d bytes", size - 3);
        fail_here(l);
        return NULL;
    }
    memcpy(out, l->at, n);
    out[n] = '\0';
    l->at = newline ? newline + 1 : l->end;
    if (*out == '[') { /* inih tells of sections only with their first key */
        char name[256];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(out + 1, "]"), out + 1);
        if (begin_section(l, name))
            return NULL;
    }
    return out;
}

static int each_key(void *user, const char *section, const char *name, const char *value)
{
    struct loader *l = user;
    uint32_t bit = 0;
    if (l->code)
        return 1;
    if (!*section || !l->target)
        err_set(l->e, -EINVAL, "%s stands above the first [section]", name);
    else if (!registry_set(l->section, l->target, &l->lists, name, value, &bit, l->e)) {
        if (!(l->given & bit)) {
            l->given |= bit;
            return 1;
        }
        err_set(l->e, -EINVAL, "%s is set twice in [%s]", name, section);
    }
    fail_here(l);
    return 1;
}

/* ---- safety lists ---- */

static const char *const shipped_lists[SAFETY_LEVELS] = {
    [SAFETY_OFF] = "safety/always.txt", /* what holds even there */
    [SAFETY_STANDARD] = "safety/standard.txt",
    [SAFETY_STRICT] = "safety/strict.txt",
};

/* A path in registry.ini is meant from the folder of registry.ini. */
static int add_list(struct loader *l, const char *name, enum safety_level level)
{
    char path[REGISTRY_PATH_SIZE];
    const char *slash = strrchr(l->where, '/');
    int dir = *name == '/' || !slash ? 0 : (int)(slash + 1 - l->where);
    if (snprintf(path, sizeof path, "%.*s%s", dir, l->where, name) >= (int)sizeof path)
        return err_set(l->e, -ENAMETOOLONG, "%s: the path is too long", name);
    return prompt_filter_add_file(l->r->filter, path, level, l->e);
}

static int load_filter(struct loader *l)
{
    int code = prompt_filter_new(&l->r->filter, l->e);
    for (int level = SAFETY_OFF; level < SAFETY_LEVELS && !code; level++) {
        char path[REGISTRY_PATH_SIZE];
        code = share_find(shipped_lists[level], path, l->e);
        if (!code)
            code = prompt_filter_add_file(l->r->filter, path, (enum safety_level)level, l->e);
        char *rest = l->lists.paths[level];
        for (char *item; !code && rest && (item = strsep(&rest, ","));)
            if (*(item = str_trim(item)))
                code = add_list(l, item, (enum safety_level)level);
    }
    return code;
}

/* ---- loading ---- */

static int parse(struct loader *l)
{
    int line = ini_parse_stream(next_line, l, each_key, l);
    if (l->code || end_section(l))
        return l->code;
    if (line > 0)
        return err_set(l->e, -EINVAL, "%s:%d: the line is neither [section] nor key = value",
                       l->where, line);
    if (line < 0)
        return err_nomem(l->e);
    if (!l->r->profile_count)
        return err_set(l->e, -EINVAL, "%s: there is no profile; add a section like [image_default]",
                       l->where);
    return load_filter(l);
}

int registry_parse(const char *text, size_t size, const char *where, struct registry **out,
                   struct err *e)
{
    if (size > MAX_BYTES)
        return err_set(e, -EFBIG, "%s has %zu bytes; at most %d are read", where, size, MAX_BYTES);
    if (!utf8_valid(text, size))
        return err_set(e, -EINVAL, "%s is not UTF-8 text", where);
    struct counted_registry *c = calloc(1, sizeof *c);
    if (!c)
        return err_nomem(e);
    c->references = 1;
    struct registry *r = &c->public;
    r->limits = (struct registry_limits){
        .queue = 1000, .jobs_per_user = 100, .request_bytes = (uint64_t)256 << 20};
    r->devices.batch = 4;
    snprintf(r->path, sizeof r->path, "%s", where);
    struct loader l = {.where = where, .at = text, .end = text + size, .r = r, .e = e};
    int code = parse(&l);
    for (int i = 0; i < SAFETY_LEVELS; i++)
        free(l.lists.paths[i]);
    if (code)
        registry_unref(r);
    else
        *out = r;
    return code;
}

struct registry *registry_ref(const struct registry *r)
{
    struct counted_registry *c = (struct counted_registry *)(uintptr_t)r;
    atomic_fetch_add(&c->references, 1);
    return &c->public;
}

void registry_unref(struct registry *r)
{
    struct counted_registry *c = (struct counted_registry *)r;
    if (!c || atomic_fetch_sub(&c->references, 1) > 1)
        return;
    prompt_filter_free(r->filter);
    free(r->profiles);
    free(c);
}

const struct profile *registry_profile(const struct registry *r, const char *name)
{
    for (int i = 0; i < r->profile_count; i++)
        if (!strcmp(r->profiles[i].name, name))
            return &r->profiles[i];
    return NULL;
}

struct native_size profile_native(const struct profile *p, int width, int height)
{
    struct native_size best = p->native[0];
    double least = INFINITY;
    for (int i = 0; i < PROFILE_NATIVE_SIZES && p->native[i].width > 0; i++) {
        struct native_size n = p->native[i];
        double off = fabs(log((double)n.width / n.height * height / width));
        if (off < least) {
            least = off;
            best = n;
        }
    }
    return best;
}

int registry_load(const char *path, struct registry **out, struct err *e)
{
    char found[REGISTRY_PATH_SIZE];
    int code = path ? 0 : registry_find(found, e);
    if (code)
        return code;
    if (!path)
        path = found;
    AUTO_FREE char *text = NULL;
    size_t size;
    code = file_read(AT_FDCWD, path, MAX_BYTES, &text, &size, e);
    return code ? code : registry_parse(text, size, path, out, e);
}
