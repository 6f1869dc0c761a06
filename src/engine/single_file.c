#include "engine/single_file.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/infer.h"
#include "engine/weights/naming.h"

enum { MAX_PARTS = 4, MAX_SIGNS = 3, MAX_VAE_LEVELS = 4 };

/* ---- what is known ---- */

struct contained {
    const char *name;                /* "unet"; NULL behind the last */
    const char *prefix;              /* of its tensors */
    const struct rename_rule *rules; /* NULL: it has the hub's names */
    infer_config *infer;
};

struct kind {
    const char *what; /* "the transformer of FLUX.2 [klein]" */
    const char *class_name;
    const char *signs[MAX_SIGNS]; /* tensors that are all there */
    struct contained parts[MAX_PARTS];
    const char *elsewhere[MAX_PARTS]; /* what else the pipeline needs */
    const char *scheduler;            /* scheduler_config.json without its last brace */
    /* What tensors' names do not tell; NULL: nothing else is asked. */
    bool (*also)(const char *file, const struct weights *w);
};

static const char flux2_scheduler[] =
    "{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\", \"num_train_timesteps\": 1000, "
    "\"shift\": 3.0, \"use_dynamic_shifting\": true, \"base_shift\": 0.5, \"max_shift\": 1.15, "
    "\"base_image_seq_len\": 256, \"max_image_seq_len\": 4096";

static const char zimage_scheduler[] =
    "{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\", \"num_train_timesteps\": 1000, "
    "\"shift\": 3.0, \"use_dynamic_shifting\": false";

#define NOISE                                                                                      \
    "\"num_train_timesteps\": 1000, \"beta_schedule\": \"scaled_linear\", "                        \
    "\"beta_start\": 0.00085, \"beta_end\": 0.012, \"steps_offset\": 1, "                          \
    "\"clip_sample\": false, \"set_alpha_to_one\": false, \"skip_prk_steps\": true"
static const char sd_scheduler[] = "{\"_class_name\": \"PNDMScheduler\", " NOISE;
static const char sdxl_scheduler[] =
    "{\"_class_name\": \"EulerDiscreteScheduler\", \"timestep_spacing\": \"leading\", " NOISE;
static const char sd2_scheduler[] =
    "{\"_class_name\": \"DDIMScheduler\", \"prediction_type\": \"v_prediction\", " NOISE;
#undef NOISE

/* Stable Diffusion 2 came as "base", which predicts noise at 512x512, and trained on from it to
 * predict velocities at 768x768. diffusers goes by the step that training ended at, which few files
 * hold, and takes the others for the latter; all that inpaint are of the former kind. */
static bool is_sd2_base(const char *file, const struct weights *w)
{
    static const char step[] = "global_step",
                      input[] = "model.diffusion_model.input_blocks.0.0.weight";
    enum { LAST_STEP_OF_BASE = 875000, INPAINTING = 9 };
    const struct weights_entry *t = weights_find(w, step), *x = weights_find(w, input);
    int64_t ended = 0;
    if (t && strcmp(t->stored, "I64") == 0 && t->bytes == sizeof ended)
        memcpy(&ended, t->data, sizeof ended);
    return ended == LAST_STEP_OF_BASE || (x && x->rank == 4 && x->dims[1] == INPAINTING) ||
           strcasestr(file, "base") || strstr(file, "512");
}

static const struct kind kinds[] = {
    {.what = "the transformer of FLUX.2 [klein]",
     .class_name = "Flux2KleinPipeline",
     .signs = {"double_stream_modulation_img.lin.weight", "single_blocks.0.linear1.weight"},
     .parts = {{"transformer", "", naming_flux2, infer_flux2}},
     .elsewhere = {"text_encoder", "vae", "tokenizer"},
     .scheduler = flux2_scheduler},
    {.what = "the transformer of FLUX.2 [klein]",
     .class_name = "Flux2KleinPipeline",
     .signs = {"double_stream_modulation_img.linear.weight",
               "single_transformer_blocks.0.attn.to_qkv_mlp_proj.weight"},
     .parts = {{"transformer", "", NULL, infer_flux2}},
     .elsewhere = {"text_encoder", "vae", "tokenizer"},
     .scheduler = flux2_scheduler},
    {.what = "the transformer of Z-Image",
     .class_name = "ZImagePipeline",
     .signs = {"noise_refiner.0.attention_norm1.weight", "x_embedder.weight",
               "cap_embedder.1.weight"},
     .parts = {{"transformer", "", naming_zimage, infer_zimage}},
     .elsewhere = {"text_encoder", "vae", "tokenizer"},
     .scheduler = zimage_scheduler},
    {.what = "the transformer of Z-Image",
     .class_name = "ZImagePipeline",
     .signs = {"noise_refiner.0.attention_norm1.weight", "all_x_embedder.2-1.weight",
               "cap_embedder.1.weight"},
     .parts = {{"transformer", "", NULL, infer_zimage}},
     .elsewhere = {"text_encoder", "vae", "tokenizer"},
     .scheduler = zimage_scheduler},
    {.what = "Stable Diffusion XL",
     .class_name = "StableDiffusionXLPipeline",
     .signs = {"model.diffusion_model.label_emb.0.0.weight",
               "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight",
               "conditioner.embedders.1.model.ln_final.weight"},
     .parts = {{"unet", "model.diffusion_model.", naming_ldm_unet, infer_unet_xl},
               {"vae", "first_stage_model.", naming_ldm_vae, infer_vae_sdxl},
               {"text_encoder", "conditioner.embedders.0.transformer.", naming_clip, infer_clip},
               {"text_encoder_2", "conditioner.embedders.1.model.", naming_open_clip,
                infer_clip_projected}},
     .elsewhere = {"tokenizer", "tokenizer_2"},
     .scheduler = sdxl_scheduler},
    {.what = "Stable Diffusion 1",
     .class_name = "StableDiffusionPipeline",
     .signs = {"model.diffusion_model.input_blocks.0.0.weight",
               "cond_stage_model.transformer.text_model.final_layer_norm.weight"},
     .parts = {{"unet", "model.diffusion_model.", naming_ldm_unet, infer_unet},
               {"vae", "first_stage_model.", naming_ldm_vae, infer_vae_sd},
               {"text_encoder", "cond_stage_model.transformer.", naming_clip, infer_clip}},
     .elsewhere = {"tokenizer"},
     .scheduler = sd_scheduler},
    {.what = "Stable Diffusion 2 base",
     .class_name = "StableDiffusionPipeline",
     .signs = {"model.diffusion_model.input_blocks.0.0.weight",
               "cond_stage_model.model.ln_final.weight"},
     .parts = {{"unet", "model.diffusion_model.", naming_ldm_unet, infer_unet},
               {"vae", "first_stage_model.", naming_ldm_vae, infer_vae_sd},
               {"text_encoder", "cond_stage_model.model.", naming_open_clip,
                infer_clip_penultimate}},
     .elsewhere = {"tokenizer"},
     .scheduler = sd_scheduler,
     .also = is_sd2_base},
    {.what = "Stable Diffusion 2",
     .class_name = "StableDiffusionPipeline",
     .signs = {"model.diffusion_model.input_blocks.0.0.weight",
               "cond_stage_model.model.ln_final.weight"},
     .parts = {{"unet", "model.diffusion_model.", naming_ldm_unet, infer_unet_768},
               {"vae", "first_stage_model.", naming_ldm_vae, infer_vae_sd},
               {"text_encoder", "cond_stage_model.model.", naming_open_clip,
                infer_clip_penultimate}},
     .elsewhere = {"tokenizer"},
     .scheduler = sd2_scheduler},
};

/* Files that people will try. */
static const struct {
    const char *sign, *what;
} others[] = {
    {"double_blocks.0.img_mod.lin.weight", "the transformer of FLUX.1"},
    {"conditioner.embedders.0.model.ln_final.weight", "the refiner of Stable Diffusion XL"},
    {"joint_blocks.0.x_block.attn.qkv.weight", "Stable Diffusion 3"},
    {"patch_embedding.weight", "a video transformer (Wan)"},
    {"model.embed_tokens.weight", "a language model"},
    {"token_embd.weight", "a language model"},
    {"decoder.conv_in.weight", "an autoencoder"},
};

/* ComfyUI puts one of these before the names of a transformer. */
static const char *const prefixes[] = {"", "model.diffusion_model.", "diffusion_model."};

/* ---- recognising ---- */

struct single_file {
    char *path;
    const struct kind *kind;
    const char *prefix;
    bool distilled;    /* as far as names of files tell */
    bool v_prediction; /* marked by a tensor called v_pred */
    bool zero_snr;     /* … ztsnr */
    int vae_levels;    /* of Stable Diffusion's autoencoder */
    bool one_layer;    /* its UNet has one layer a block */
};

static bool has(const struct weights *w, const char *prefix, const char *name)
{
    AUTO_STR struct str s = {0};
    str_addf(&s, "%s%s", prefix, name);
    return weights_find(w, str_cstr(&s)) != NULL;
}

static bool is_kind(const struct weights *w, const struct kind *k, const char *prefix,
                    const char *file)
{
    for (int i = 0; i < MAX_SIGNS && k->signs[i]; i++)
        if (!has(w, prefix, k->signs[i]))
            return false;
    return !k->also || k->also(file, w);
}

static int unknown(const struct weights *w, const char *path, struct err *e)
{
    for (size_t p = 0; p < ARRAY_LEN(prefixes); p++)
        for (size_t i = 0; i < ARRAY_LEN(others); i++)
            if (has(w, prefixes[p], others[i].sign))
                return err_set(e, -EINVAL,
                               "%s holds %s, which cannot be used as a model; known are: FLUX.2 "
                               "[klein], Z-Image, Stable Diffusion 1, 2 and XL",
                               path, others[i].what);
    return err_set(e, -EINVAL,
                   "%s: its %zu tensors ('%.80s' …) are of no known model; known are: FLUX.2 "
                   "[klein], Z-Image, Stable Diffusion 1, 2 and XL",
                   path, weights_count(w), weights_count(w) ? weights_at(w, 0)->name : "none");
}

static bool has_level(const struct weights *w, int level)
{
    AUTO_STR struct str s = {0};
    str_addf(&s, "first_stage_model.decoder.up.%d.block.0.norm1.weight", level);
    return weights_find(w, str_cstr(&s)) != NULL;
}

static int recognise(struct single_file *f, const struct weights *w, struct err *e)
{
    const char *slash = strrchr(f->path, '/'), *name = slash ? slash + 1 : f->path;
    f->distilled = !strcasestr(name, "base");
    f->v_prediction = has(w, "", "v_pred");
    f->zero_snr = has(w, "", "ztsnr");
    f->one_layer = has(w, "", "model.diffusion_model.input_blocks.2.0.op.weight");
    while (f->vae_levels < MAX_VAE_LEVELS && has_level(w, f->vae_levels))
        f->vae_levels++;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        for (size_t p = 0; p < ARRAY_LEN(prefixes); p++)
            if (is_kind(w, &kinds[i], prefixes[p], name)) {
                f->kind = &kinds[i];
                f->prefix = prefixes[p];
                return 0;
            }
    return unknown(w, f->path, e);
}

int single_file_open(const char *path, struct single_file **out, struct err *e)
{
    struct weights *w = NULL;
    struct single_file *f = calloc(1, sizeof *f);
    if (!f || !(f->path = strdup(path))) {
        single_file_close(f);
        return err_nomem(e);
    }
    int code = weights_open_renamed(path, "", NULL, &w, e);
    if (!code)
        code = recognise(f, w, e);
    weights_close(w);
    if (code)
        single_file_close(f);
    else
        *out = f;
    return code;
}

void single_file_close(struct single_file *f)
{
    if (f)
        free(f->path);
    free(f);
}

const char *single_file_path(const struct single_file *f)
{
    return f->path;
}

const char *single_file_what(const struct single_file *f)
{
    return f->kind->what;
}

const char *single_file_class(const struct single_file *f)
{
    return f->kind->class_name;
}

/* ---- what folders would say ---- */

static int parse(const struct single_file *f, struct str *json, struct config **out, struct err *e)
{
    return json->failed ? err_nomem(e) : config_parse(f->path, json->data, json->len, out, e);
}

/* A part in model_index.json: its library and class, which nobody asks for here. */
static void add_part(struct str *json, const char *name)
{
    str_addf(json, ", \"%s\": [\"\", \"\"]", name);
}

int single_file_index(const struct single_file *f, struct config **out, struct err *e)
{
    const struct kind *k = f->kind;
    AUTO_STR struct str json = {0};
    str_addf(&json, "{\"_class_name\": \"%s\", \"is_distilled\": %s", k->class_name,
             f->distilled ? "true" : "false");
    for (int i = 0; i < MAX_PARTS && k->parts[i].name; i++)
        add_part(&json, k->parts[i].name);
    for (int i = 0; i < MAX_PARTS && k->elsewhere[i]; i++)
        add_part(&json, k->elsewhere[i]);
    str_add(&json, "}");
    return parse(f, &json, out, e);
}

int single_file_scheduler(const struct single_file *f, struct config **out, struct err *e)
{
    AUTO_STR struct str json = {0};
    str_add(&json, f->kind->scheduler);
    if (f->v_prediction)
        str_add(&json, ", \"prediction_type\": \"v_prediction\"");
    if (f->zero_snr)
        str_add(&json, ", \"rescale_betas_zero_snr\": true");
    str_add(&json, "}");
    return parse(f, &json, out, e);
}

static const struct contained *find_part(const struct single_file *f, const char *name)
{
    for (int i = 0; i < MAX_PARTS && f->kind->parts[i].name; i++)
        if (!strcmp(f->kind->parts[i].name, name))
            return &f->kind->parts[i];
    return NULL;
}

bool single_file_has(const struct single_file *f, const char *name)
{
    return find_part(f, name) != NULL;
}

static const char *class_of(struct config *c)
{
    const char *name = config_string(c, "_class_name", "");
    return *name || config_length(c, "architectures") < 1 ? name
                                                          : config_string_at(c, "architectures", 0);
}

static bool same_number(struct config *a, struct config *b, const char *key)
{
    return !config_has(a, key) || !config_has(b, key) ||
           config_int(a, key, 0, INT32_MIN, INT32_MAX) ==
               config_int(b, key, 0, INT32_MIN, INT32_MAX);
}

/* Does a config say the same as the shapes of the tensors? A file may lie in the folder of another
 * checkpoint. */
static bool fits_shapes(struct config *stated, struct config *found)
{
    static const char *const keys[] = {
        "in_channels", "out_channels", "latent_channels",   "joint_attention_dim", "num_layers",
        "dim",         "n_layers",     "num_single_layers", "hidden_size",         "vocab_size"};
    static const char widths[] = "block_out_channels";
    int count = config_length(found, widths);
    bool same = config_length(stated, widths) == count;
    for (int i = 0; i < count && same; i++)
        same = config_int_at(stated, widths, i, 0, INT32_MAX) ==
               config_int_at(found, widths, i, 0, INT32_MAX);
    for (size_t i = 0; i < ARRAY_LEN(keys) && same; i++)
        same = same_number(stated, found, keys[i]);
    return same;
}

/* config.json beside the file, where it is of the class that was found, or in the part's folder
 * there, where it also fits the shapes; else NULL. */
static struct config *stated_config(const struct single_file *f, const char *part,
                                    struct config *found)
{
    const char *slash = strrchr(f->path, '/');
    const char *const folders[][2] = {{"", ""}, {part, "/"}};
    for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
        AUTO_STR struct str path = {0};
        struct config *stated = NULL;
        if (slash)
            str_addn(&path, f->path, (size_t)(slash - f->path) + 1);
        str_addf(&path, "%s%sconfig.json", folders[i][0], folders[i][1]);
        if (path.failed || access(path.data, F_OK) || config_open(path.data, &stated, NULL))
            continue;
        if (*class_of(stated) && !strcmp(class_of(stated), class_of(found)) &&
            (!*folders[i][0] || fits_shapes(stated, found)))
            return stated;
        config_close(stated);
    }
    return NULL;
}

/* The rules of a part that this file is of the size for. */
static const struct rename_rule *rules_of(const struct single_file *f, const struct contained *p)
{
    static const struct rename_rule *const vaes[MAX_VAE_LEVELS] = {
        naming_ldm_vae_1, naming_ldm_vae_2, naming_ldm_vae_3, naming_ldm_vae};
    if (p->rules == naming_ldm_vae && f->vae_levels)
        return vaes[f->vae_levels - 1];
    return p->rules == naming_ldm_unet && f->one_layer ? naming_ldm_unet_1 : p->rules;
}

int single_file_part(const struct single_file *f, const char *name, struct config **config,
                     struct weights **weights, struct err *e)
{
    const struct contained *p = find_part(f, name);
    AUTO_STR struct str prefix = {0};
    if (!p)
        return err_set(e, -ENOENT, "%s has no %s", f->path, name);
    str_addf(&prefix, "%s%s", f->prefix, p->prefix);
    if (prefix.failed)
        return err_nomem(e);
    int code = weights_open_renamed(f->path, prefix.data, rules_of(f, p), weights, e);
    if (!code)
        code = p->infer(*weights, config, e);
    if (code)
        return code;
    struct config *stated = stated_config(f, name, *config);
    if (stated) {
        config_close(*config);
        *config = stated;
    }
    return 0;
}
