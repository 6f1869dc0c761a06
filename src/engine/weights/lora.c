/* Sources of the names: huggingface/diffusers, loaders/lora_conversion_utils.py and
 * utils/state_dict_utils.py; kohya-ss/sd-scripts, networks/lora.py; huggingface/peft. */
#include "engine/weights/lora.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/weights/gguf.h"
#include "engine/weights/half.h"
#include "engine/weights/safetensors.h"

#define MAX_NAME 400 /* bytes */

enum role { DOWN, UP, ALPHA, DIFF, DIFF_BIAS, ROLES };

static const struct {
    const char *tail;
    enum role role;
} tails[] = {
    {".lora_A.weight", DOWN},
    {".lora_B.weight", UP},
    {".lora_A.default.weight", DOWN},
    {".lora_B.default.weight", UP},
    {".lora_down.weight", DOWN},
    {".lora_up.weight", UP},
    {".lora.down.weight", DOWN},
    {".lora.up.weight", UP},
    {"_lora.down.weight", DOWN},
    {"_lora.up.weight", UP},
    {".lora_linear_layer.down.weight", DOWN},
    {".lora_linear_layer.up.weight", UP},
    {".alpha", ALPHA},
    {".diff", DIFF},
    {".diff_b", DIFF_BIAS},
};

/* What a plain product of two matrices does not do. */
static const struct {
    const char *tail, *what;
} unknown_kinds[] = {
    {".dora_scale", "DoRA"},
    {".lora_magnitude_vector", "DoRA"},
    {".lora_mid.weight", "LoCon with three factors"},
    {".hada_w1_a", "LoHa"},
    {".lokr_w1", "LoKr"},
    {".lokr_w1_a", "LoKr"},
    {".oft_blocks", "OFT"},
    {".lora_B.bias", "LoRA with biases"},
};

/* Longest first where one begins like another. */
static const struct {
    const char *head, *part;
} heads[] = {
    {"base_model.model.transformer.", ""},
    {"base_model.model.unet.", ""},
    {"base_model.model.", ""},
    {"model.diffusion_model.", ""},
    {"diffusion_model.", ""},
    {"transformer.", ""},
    {"unet.", ""},
    {"lora_transformer_", ""},
    {"lora_unet_", ""},
    {"lora_te1_", "text_encoder"},
    {"lora_te2_", "text_encoder_2"},
    {"lora_te_", "text_encoder"},
    {"text_encoder.", "text_encoder"},
    {"text_encoder_2.", "text_encoder_2"},
    {"text_encoders.clip_l.transformer.", "text_encoder"},
    {"text_encoders.clip_g.transformer.", "text_encoder_2"},
};

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

/* ---- names ---- */

/* One tensor, understood. */
struct piece {
    char *key;   /* heap */
    size_t path; /* bytes of the tensor's name that are the module's */
    const char *part;
    enum role role;
    const struct weights_entry *t;
};

/* Early diffusers put the matrices of attention into a "processor" of their own. */
static void drop_processor(char *key)
{
    static const char word[] = "_processor_";
    char *found = strstr(key, word);
    if (found)
        memmove(found, found + sizeof(word) - 2, strlen(found + sizeof(word) - 2) + 1);
}

/* False where the name is not one of a LoRA's. */
static bool understand(const struct weights_entry *t, struct piece *out)
{
    size_t n = strlen(t->name), skip = 0;
    for (size_t i = 0; i < ARRAY_LEN(tails); i++) {
        if (n > MAX_NAME || !ends_with(t->name, tails[i].tail))
            continue;
        *out = (struct piece){
            .role = tails[i].role, .path = n - strlen(tails[i].tail), .part = "", .t = t};
        for (size_t k = 0; k < ARRAY_LEN(heads) && !skip; k++)
            if (!strncmp(t->name, heads[k].head, strlen(heads[k].head))) {
                skip = strlen(heads[k].head);
                out->part = heads[k].part;
            }
        return skip < out->path;
    }
    return false;
}

static char *key_of(const struct piece *p)
{
    size_t skip = 0;
    for (size_t k = 0; k < ARRAY_LEN(heads) && !skip; k++)
        if (!strncmp(p->t->name, heads[k].head, strlen(heads[k].head)))
            skip = strlen(heads[k].head);
    char *key = strndup(p->t->name + skip, p->path - skip);
    for (char *c = key; c && *c; c++)
        *c = *c == '.' ? '_' : *c;
    if (key)
        drop_processor(key);
    return key;
}

static int by_module(const void *a, const void *b)
{
    const struct piece *x = a, *y = b;
    int order = strcmp(x->part, y->part);
    order = order ? order : strcmp(x->key, y->key);
    return order ? order : (int)x->role - (int)y->role;
}

/* ---- values ---- */

void lora_values(const struct weights_entry *t, size_t first, size_t count, float *out)
{
    const char *from = (const char *)t->data + first * dtype_size(t->dtype);
    if (t->dtype == DTYPE_F32)
        memcpy(out, from, count * sizeof *out);
    for (size_t i = 0; t->dtype != DTYPE_F32 && i < count; i++) {
        uint16_t half;
        memcpy(&half, from + i * sizeof half, sizeof half);
        out[i] = t->dtype == DTYPE_BF16 ? bfloat_to_float(half) : half_to_float(half);
    }
}

static size_t elements(const struct weights_entry *t)
{
    return t->bytes / dtype_size(t->dtype); /* of usable tensors */
}

/* ---- modules ---- */

struct reader {
    struct lora *out;
    struct err *e;
    json_t *adapter; /* PEFT's own words on rank and alpha, or NULL */
};

#define FAULT "%s: tensor '%.100s': "

static int check_piece(const struct reader *r, const struct weights_entry *t)
{
    if (!t->usable || t->expand)
        return err_set(r->e, -ENOTSUP, FAULT "stored as %s, expected F32, BF16 or F16", t->file,
                       t->name, t->stored);
    return 0;
}

static int check_pair(const struct reader *r, const struct lora_module *m)
{
    const struct weights_entry *lone = m->down ? m->down : m->up;
    if (!m->down != !m->up)
        return err_set(r->e, -EINVAL, FAULT "the other matrix of the pair is missing", lone->file,
                       lone->name);
    if (!lone)
        return 0;
    if (m->down->rank < 2 || m->up->rank < 2 || m->down->dims[0] < 1 || m->up->dims[0] < 1 ||
        !m->down->bytes || m->up->dims[1] != m->down->dims[0] ||
        elements(m->up) != (size_t)m->up->dims[0] * (size_t)m->up->dims[1])
        return err_set(r->e, -EINVAL, FAULT "it and its partner are not [rank, in] and [out, rank]",
                       lone->file, lone->name);
    return 0;
}

/* PEFT's patterns name the ends of paths: "attn.to_q" is that module wherever it is. */
static double pattern(const json_t *patterns, const char *key, double otherwise)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)patterns, name, value)
    {
        char plain[MAX_NAME + 1];
        size_t n = strlen(name), m = strlen(key);
        if (n > MAX_NAME || n > m || !json_is_number(value))
            continue;
        for (size_t i = 0; i <= n; i++)
            plain[i] = name[i] == '.' ? '_' : name[i];
        if (!strcmp(key + m - n, plain) && (m == n || key[m - n - 1] == '_'))
            return json_number_value(value);
    }
    return otherwise;
}

static json_t *adapter_key(const struct reader *r, const char *part, const char *key)
{
    static const char *const denoisers[] = {"transformer", "unet"};
    json_t *found = NULL;
    for (size_t i = 0; i < ARRAY_LEN(denoisers) && !found; i++) {
        AUTO_STR struct str name = {0};
        str_addf(&name, "%s.%s", *part ? part : denoisers[i], key);
        found = json_object_get(r->adapter, str_cstr(&name));
    }
    return found;
}

/* alpha / rank where the file's metadata says it; without, alpha is the rank. */
static double adapter_scale(const struct reader *r, const struct lora_module *m, double rank)
{
    json_t *alpha = adapter_key(r, m->part, "lora_alpha");
    if (!json_is_number(alpha))
        return 1;
    double a = pattern(adapter_key(r, m->part, "alpha_pattern"), m->key, json_number_value(alpha));
    return a / (json_is_true(adapter_key(r, m->part, "use_rslora")) ? sqrt(rank) : rank);
}

static int set_scale(const struct reader *r, struct lora_module *m, const struct weights_entry *a)
{
    double rank = m->down ? (double)m->down->dims[0] : 1, scale = 1;
    if (a) {
        float alpha;
        if (elements(a) != 1)
            return err_set(r->e, -EINVAL, FAULT "%zu values, expected one number", a->file, a->name,
                           elements(a));
        lora_values(a, 0, 1, &alpha);
        scale = (double)alpha / rank;
    } else if (m->down)
        scale = adapter_scale(r, m, rank);
    m->scale = (float)scale;
    if (isfinite(m->scale))
        return 0;
    return err_set(r->e, -EINVAL, "%s: the alpha of '%.100s' is not a finite number",
                   r->out->file.path, m->name);
}

/* Pieces p[0 … n-1] of one module. */
static int add_module(struct reader *r, struct piece *p, size_t n)
{
    struct lora_module *m = &r->out->modules[r->out->count++];
    const struct weights_entry *by_role[ROLES] = {0};
    m->part = p[0].part;
    m->key = p[0].key;
    p[0].key = NULL;
    m->name = strndup(p[0].t->name, p[0].path);
    if (!m->name)
        return err_nomem(r->e);
    for (size_t i = 0; i < n; i++) {
        if (by_role[p[i].role])
            return err_set(r->e, -EINVAL, FAULT "'%.100s' says the same", p[i].t->file,
                           p[i].t->name, by_role[p[i].role]->name);
        by_role[p[i].role] = p[i].t;
        if (check_piece(r, p[i].t))
            return r->e->code;
    }
    m->down = by_role[DOWN];
    m->up = by_role[UP];
    m->diff = by_role[DIFF];
    m->diff_bias = by_role[DIFF_BIAS];
    return check_pair(r, m) ? r->e->code : set_scale(r, m, by_role[ALPHA]);
}

static int check_kind(const struct reader *r, const struct weights_entry *t)
{
    for (size_t i = 0; i < ARRAY_LEN(unknown_kinds); i++)
        if (ends_with(t->name, unknown_kinds[i].tail))
            return err_set(r->e, -ENOTSUP, FAULT "this is %s, and only plain LoRA can be applied",
                           t->file, t->name, unknown_kinds[i].what);
    return 0;
}

static int collect(struct reader *r, struct piece *pieces, size_t *count)
{
    const struct weights_file *f = &r->out->file;
    for (size_t i = 0; i < f->count; i++) {
        const struct weights_entry *t = &f->entries[i];
        if (check_kind(r, t))
            return r->e->code;
        if (!understand(t, &pieces[*count])) {
            if (!r->out->other++)
                r->out->first_other = t->name;
            continue;
        }
        pieces[*count].key = key_of(&pieces[*count]);
        if (!pieces[(*count)++].key)
            return err_nomem(r->e);
    }
    if (*count)
        return 0;
    return err_set(r->e, -EINVAL,
                   "%s holds no LoRA: none of its %zu tensors is called like lora_A.weight, "
                   "lora_down.weight or lora.down.weight",
                   f->path, f->count);
}

static int build(struct reader *r)
{
    size_t count = 0;
    struct piece *pieces = calloc(r->out->file.count + 1, sizeof *pieces);
    r->out->modules = calloc(r->out->file.count + 1, sizeof *r->out->modules);
    int code = pieces && r->out->modules ? collect(r, pieces, &count) : err_nomem(r->e);
    if (!code)
        qsort(pieces, count, sizeof *pieces, by_module);
    for (size_t i = 0, n; i < count && !code; i += n) {
        for (n = 1; i + n < count && !strcmp(pieces[i].part, pieces[i + n].part) &&
                    !strcmp(pieces[i].key, pieces[i + n].key);)
            n++;
        code = add_module(r, pieces + i, n);
    }
    for (size_t i = 0; pieces && i < count; i++)
        free(pieces[i].key);
    free(pieces);
    return code;
}

/* What PEFT writes into the file's metadata, if it is there and can be read. The header was
 * checked when the tensors were listed. */
static json_t *read_adapter(const uint8_t *bytes, size_t size)
{
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | bytes[i];
    if (n > size - 8)
        return NULL;
    json_t *root = json_loadb((const char *)bytes + 8, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
    const char *text = json_string_value(
        json_object_get(json_object_get(root, "__metadata__"), "lora_adapter_metadata"));
    json_t *adapter = text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    json_decref(root);
    return adapter;
}

static int read_modules(struct lora *l, const void *bytes, size_t size, struct err *e)
{
    struct reader r = {l, e, read_adapter(bytes, size)};
    int code = build(&r);
    json_decref(r.adapter);
    if (code)
        lora_close(l);
    return code;
}

int lora_parse(const char *path, const void *bytes, size_t size, struct lora *out, struct err *e)
{
    *out = (struct lora){0};
    int code = safetensors_parse(path, bytes, size, &out->file, e);
    return code ? code : read_modules(out, bytes, size, e);
}

int lora_open(const char *path, struct lora *out, struct err *e)
{
    *out = (struct lora){0};
    int code = weights_file_open(path, &out->file, e);
    if (code)
        return code;
    if (!gguf_is(out->file.map, out->file.map_size))
        return read_modules(out, out->file.map, out->file.map_size, e);
    lora_close(out);
    return err_set(e, -ENOTSUP, "%s is a GGUF file; a LoRA must be a .safetensors file", path);
}

void lora_close(struct lora *l)
{
    for (size_t i = 0; i < l->count; i++) {
        free((char *)(uintptr_t)l->modules[i].key);
        free((char *)(uintptr_t)l->modules[i].name);
    }
    free(l->modules);
    weights_file_close(&l->file);
    *l = (struct lora){0};
}

const char *lora_made_for(const struct lora *l)
{
    static const struct {
        const char *word, *model;
    } signs[] = {
        {"stream_modulation", "FLUX.2"},
        {"to_qkv_mlp_proj", "FLUX.2"},
        {"joint_blocks", "Stable Diffusion 3"},
        {"img_mlp_net", "Qwen-Image"},
        {"single_blocks", "FLUX"},
        {"single_transformer_blocks", "FLUX"},
        {"double_blocks", "FLUX"},
        {"noise_refiner", "Z-Image"},
        {"attention_to_q", "Z-Image"},
        {"attention_qkv", "Z-Image"},
        {"input_blocks", "Stable Diffusion"},
        {"output_blocks", "Stable Diffusion"},
        {"down_blocks", "Stable Diffusion"},
        {"up_blocks", "Stable Diffusion"},
        {"cross_attn", "Wan"},
        {"transformer_blocks", "FLUX or a transformer like it"},
        {"text_model", "a text encoder like CLIP"},
    };
    for (size_t i = 0; i < ARRAY_LEN(signs); i++)
        for (size_t k = 0; k < l->count; k++)
            if (strstr(l->modules[k].key, signs[i].word))
                return signs[i].model;
    return "a model of another kind";
}
