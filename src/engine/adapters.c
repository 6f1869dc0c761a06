#include "engine/adapters.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "engine/adapters_internal.h"
#include "engine/backend.h"
#include "engine/model.h"
#include "engine/weights/lora_names.h"

/* LoRAs that were asked for together, matched with the model. */
struct set {
    char *key; /* of files and weights; "" for none */
    int count;
    struct lora files[OMNI_MAX_LORAS];
    struct omni_lora_report reports[OMNI_MAX_LORAS];
    struct term *terms; /* sorted by part and weight */
    size_t term_count, term_cap;
    bool encodes; /* changes what prompts become */
};

struct adapters {
    struct omni_model *m;
    bool named;
    struct lora_names names[CHECKPOINT_MAX_PARTS];
    struct set *wanted;
    char *in_force; /* key; NULL: in doubt */
};

static struct weight_loader *loader_of(const struct adapters *a, int part)
{
    return &a->m->checkpoint.parts[part].loader;
}

/* ---- a set ---- */

static void set_free(struct set *s)
{
    if (!s)
        return;
    for (int i = 0; i < s->count; i++)
        lora_close(&s->files[i]);
    free(s->terms);
    free(s->key);
    free(s);
}

static int open_files(struct set *s, const struct omni_lora *loras, int count, struct err *e)
{
    for (int i = 0; i < count; i++) {
        struct lora *l = &s->files[i];
        if (lora_open(loras[i].path, l, e))
            return e->code;
        s->count++;
        sha256_hex(l->file.map, l->file.map_size, s->reports[i].sha256);
        s->reports[i].modules = (int)l->count;
    }
    return 0;
}

/* Files and weights, such that another content is another key. */
static int key_of(const struct omni_lora *loras, int count, char **out, struct err *e)
{
    AUTO_STR struct str s = {0};
    str_add(&s, "");
    for (int i = 0; i < count; i++) {
        struct stat st;
        if (stat(loras[i].path, &st))
            return err_set(e, -errno, "%s: %s", loras[i].path, strerror(errno));
        str_addf(&s, "%" PRIu64 ":%" PRIu64 ":%lld:%lld.%09ld:%a:%s\n", (uint64_t)st.st_dev,
                 (uint64_t)st.st_ino, (long long)st.st_size, (long long)st.st_mtim.tv_sec,
                 st.st_mtim.tv_nsec, loras[i].weight, loras[i].path);
    }
    *out = strdup(str_cstr(&s));
    return *out && !s.failed ? 0 : err_nomem(e);
}

/* ---- names ---- */

/* "" for what denoises, NULL for what no LoRA changes. */
static const char *group_of(const struct part *p)
{
    if (!strcmp(p->name, "transformer") || !strcmp(p->name, "unet"))
        return "";
    return strncmp(p->name, "text_encoder", 12) == 0 ? p->name : NULL;
}

static int make_names(struct adapters *a, struct err *e)
{
    for (int p = 0; p < a->m->checkpoint.part_count && !a->named; p++) {
        const struct weight_loader *l = loader_of(a, p);
        for (size_t i = 0; group_of(&a->m->checkpoint.parts[p]) && i < l->count; i++)
            if (!l->list[i].tensor->table &&
                lora_names_add(&a->names[p], l->list[i].entry->name, i, e))
                return e->code;
        lora_names_sort(&a->names[p]);
    }
    a->named = true;
    return 0;
}

/* ---- matching ---- */

static int add_term(struct set *s, struct term t, struct err *e)
{
    if (s->term_count == s->term_cap) {
        size_t cap = s->term_cap ? 2 * s->term_cap : 256;
        struct term *more = realloc(s->terms, cap * sizeof *more);
        if (!more)
            return err_nomem(e);
        s->terms = more;
        s->term_cap = cap;
    }
    s->terms[s->term_count++] = t;
    return 0;
}

/* The bias beside a weight; false: there is none. */
static bool find_bias(const struct weight_loader *l, size_t weight, size_t *bias)
{
    const char *name = l->list[weight].entry->name;
    size_t n = strlen(name) - strlen("weight");
    for (size_t i = 0; i < l->count; i++) {
        const char *other = l->list[i].entry->name;
        if (strncmp(other, name, n) != 0 || strcmp(other + n, "bias") != 0)
            continue;
        *bias = i;
        return true;
    }
    return false;
}

/* Adds what module m does to the weight under this name. */
static int add_terms(struct adapters *a, struct set *s, int part, const struct lora_name *n,
                     struct term t, struct err *e)
{
    const struct lora_module *m = t.module;
    t.part = part;
    t.weight = n->weight;
    t.original = n->original;
    t.change = n->change;
    t.third = n->third;
    float weight = t.scale;
    t.scale = weight * m->scale;
    if (m->down && (patch_check(loader_of(a, part), &t, e) || add_term(s, t, e)))
        return e->code;
    if (n->change != RENAME_AS_IS)
        return 0;
    t.scale = weight;
    t.diff = m->diff;
    if (t.diff && (patch_check(loader_of(a, part), &t, e) || add_term(s, t, e)))
        return e->code;
    t.diff = m->diff_bias;
    if (t.diff && find_bias(loader_of(a, part), n->weight, &t.weight) &&
        (patch_check(loader_of(a, part), &t, e) || add_term(s, t, e)))
        return e->code;
    return 0;
}

static int match_module(struct adapters *a, struct set *s, struct term t, bool *matched,
                        struct err *e)
{
    static const char optional[] = "text_model_";
    size_t before = s->term_count, count;
    for (int p = 0; p < a->m->checkpoint.part_count; p++) {
        const char *group = group_of(&a->m->checkpoint.parts[p]), *key = t.module->key;
        if (!group || strcmp(group, t.module->part) != 0)
            continue;
        const struct lora_name *n = lora_names_find(&a->names[p], key, &count);
        if (!n && !strncmp(key, optional, sizeof(optional) - 1))
            n = lora_names_find(&a->names[p], key + sizeof(optional) - 1, &count);
        for (size_t i = 0; n && i < count; i++)
            if (add_terms(a, s, p, &n[i], t, e))
                return e->code;
    }
    *matched = s->term_count > before;
    return 0;
}

static int fits_nothing(const struct adapters *a, const struct lora *l, struct err *e)
{
    return err_set(e, -EINVAL,
                   "%s: none of its %zu modules is in this model (%s), the first is '%.100s'; it "
                   "seems to be made for %s",
                   l->file.path, l->count, a->m->family->what, l->modules[0].name,
                   lora_made_for(l));
}

static int match_file(struct adapters *a, struct set *s, int file, double weight, struct err *e)
{
    const struct lora *l = &s->files[file];
    struct omni_lora_report *r = &s->reports[file];
    for (size_t i = 0; i < l->count; i++) {
        struct term t = {.file = file, .module = &l->modules[i], .scale = (float)weight};
        bool matched = false;
        if (match_module(a, s, t, &matched, e))
            return e->code;
        r->matched += matched;
        if (!matched && !r->unmatched[0])
            snprintf(r->unmatched, sizeof r->unmatched, "%.150s", l->modules[i].name);
    }
    if (!r->unmatched[0] && l->first_other)
        snprintf(r->unmatched, sizeof r->unmatched, "%.150s", l->first_other);
    return r->matched ? 0 : fits_nothing(a, l, e);
}

static int by_weight(const void *p, const void *q)
{
    const struct term *x = p, *y = q;
    if (x->part != y->part)
        return x->part - y->part;
    if (x->weight != y->weight)
        return x->weight < y->weight ? -1 : 1;
    if (x->file != y->file)
        return x->file - y->file;
    if (x->original != y->original)
        return x->original - y->original;
    return (x->diff != NULL) - (y->diff != NULL);
}

static bool same_weight(const struct term *x, const struct term *y)
{
    return x->part == y->part && x->weight == y->weight;
}

/* Of a file in both namings, the model's own names count. */
static void drop_doubles(struct set *s)
{
    size_t kept = 0;
    for (size_t i = 0; i < s->term_count; i++) {
        struct term *t = &s->terms[i], *before = kept ? &s->terms[kept - 1] : NULL;
        if (!before || !same_weight(before, t) || before->file != t->file ||
            before->module == t->module)
            s->terms[kept++] = *t;
    }
    s->term_count = kept;
}

static int match(struct adapters *a, struct set *s, const struct omni_lora *loras, struct err *e)
{
    for (int i = 0; i < s->count; i++)
        if (match_file(a, s, i, loras[i].weight, e))
            return e->code;
    if (s->term_count)
        qsort(s->terms, s->term_count, sizeof *s->terms, by_weight);
    drop_doubles(s);
    for (size_t i = 0; i < s->term_count; i++)
        s->encodes |= *group_of(&a->m->checkpoint.parts[s->terms[i].part]) != '\0';
    return 0;
}

int adapters_want(struct adapters *a, const struct omni_lora *loras, int count, struct err *e)
{
    char *key = NULL;
    if (key_of(loras, count, &key, e))
        return e->code;
    if (a->wanted && !strcmp(a->wanted->key, key)) {
        free(key);
        return 0;
    }
    struct set *s = calloc(1, sizeof *s);
    if (!s) {
        free(key);
        return err_nomem(e);
    }
    s->key = key;
    if ((count && make_names(a, e)) || open_files(s, loras, count, e) || match(a, s, loras, e)) {
        set_free(s);
        return e->code;
    }
    set_free(a->wanted);
    a->wanted = s;
    return 0;
}

/* ---- in force ---- */

/* The set's first term of a weight, NULL where it leaves it alone. */
static const struct term *terms_of(const struct set *s, int part, size_t weight)
{
    const struct term t = {.part = part, .weight = weight};
    size_t low = 0, high = s->term_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct term *x = &s->terms[middle];
        if (x->part < part || (x->part == part && x->weight < weight))
            low = middle + 1;
        else
            high = middle;
    }
    return low < s->term_count && same_weight(&s->terms[low], &t) ? &s->terms[low] : NULL;
}

/* weight_change.make */
static int make_values(void *ctx, const struct weight_loader *l, size_t i, enum dtype type,
                       void *out, struct err *e)
{
    const struct adapters *a = ctx;
    int part = 0;
    while (loader_of(a, part) != l)
        part++;
    const struct term *t = terms_of(a->wanted, part, i), *end = t;
    while (end < a->wanted->terms + a->wanted->term_count && same_weight(t, end))
        end++;
    struct patch_job job = {l, t, (size_t)(end - t), l->cancelled, l->cancel_ctx};
    return patch_values(&job, type, out, e);
}

static int apply_to_part(struct adapters *a, int part, struct err *e)
{
    struct weight_loader *l = loader_of(a, part);
    l->change = (struct weight_change){make_values, a};
    for (size_t i = 0; i < l->count; i++) {
        bool touched = terms_of(a->wanted, part, i) != NULL;
        if ((touched || l->list[i].changed) && weight_loader_change(l, i, touched, e))
            return e->code;
    }
    return 0;
}

int adapters_apply(struct adapters *a, struct err *e)
{
    struct set *s = a->wanted;
    if (!s || (a->in_force && !strcmp(a->in_force, s->key)))
        return 0;
    free(a->in_force);
    a->in_force = NULL;
    for (int p = 0; p < a->m->checkpoint.part_count; p++)
        if (apply_to_part(a, p, e))
            return e->code;
    prompt_cache_scope(a->m->prompts, s->encodes ? s->key : "");
    a->in_force = strdup(s->key); /* NULL: the next call does it again */
    return 0;
}

int adapters_report(const struct adapters *a, struct omni_lora_report *out)
{
    int count = a->wanted ? a->wanted->count : 0;
    if (count)
        memcpy(out, a->wanted->reports, (size_t)count * sizeof *out);
    return count;
}

/* ---- life ---- */

struct adapters *adapters_new(struct omni_model *m)
{
    struct adapters *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->m = m;
    a->in_force = strdup("");
    return a;
}

void adapters_free(struct adapters *a)
{
    if (!a)
        return;
    for (int i = 0; i < CHECKPOINT_MAX_PARTS; i++)
        lora_names_free(&a->names[i]);
    set_free(a->wanted);
    free(a->in_force);
    free(a);
}
