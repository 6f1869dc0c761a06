#include "engine/infer.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"

enum { NAME_SIZE = 160, MAX_BLOCKS = 1024, MAX_LEVELS = 8, OPEN_CLIP_H_LAYERS = 24 };

/* Tensors asked for by name; the first that is missing is remembered. */
struct shapes {
    const struct weights *w;
    char missing[NAME_SIZE];
};

static const struct weights_entry *look(const struct weights *w, const char *fmt, va_list ap,
                                        char name[NAME_SIZE])
{
    vsnprintf(name, NAME_SIZE, fmt, ap);
    return weights_find(w, name);
}

static bool there(const struct shapes *s, const char *fmt, ...) ERR_PRINTF(2, 3);

static bool there(const struct shapes *s, const char *fmt, ...)
{
    char name[NAME_SIZE];
    va_list ap;
    va_start(ap, fmt);
    bool found = look(s->w, fmt, ap, name) != NULL;
    va_end(ap);
    return found;
}

static int64_t extent(struct shapes *s, int axis, const char *fmt, ...) ERR_PRINTF(3, 4);

/* A dimension of a tensor; 1 where it is missing, so that it can be divided by. */
static int64_t extent(struct shapes *s, int axis, const char *fmt, ...)
{
    char name[NAME_SIZE];
    va_list ap;
    va_start(ap, fmt);
    const struct weights_entry *t = look(s->w, fmt, ap, name);
    va_end(ap);
    if (t && axis < t->rank && t->dims[axis] > 0)
        return t->dims[axis];
    if (!s->missing[0])
        strcpy(s->missing, name);
    return 1;
}

/* How many blocks there are from 0 on; `fmt` has the number and then `a` and `b`. */
static int blocks(const struct shapes *s, const char *head, const char *tail)
{
    int n = 0;
    while (n < MAX_BLOCKS && there(s, "%s%d%s", head, n, tail))
        n++;
    return n;
}

static int finish(struct shapes *s, struct str *json, struct config **out, struct err *e)
{
    if (s->missing[0])
        return err_set(e, -EINVAL,
                       "%s: tensor '%s' is missing or has too few dimensions; the file is not a "
                       "whole checkpoint",
                       weights_path(s->w), s->missing);
    if (json->failed)
        return err_nomem(e);
    return config_parse(weights_path(s->w), json->data, json->len, out, e);
}

/* ---- transformers ---- */

int infer_flux2(const struct weights *w, struct config **out, struct err *e)
{
    struct shapes s = {.w = w};
    AUTO_STR struct str json = {0};
    static const char double_q[] = ".attn.to_q.weight", single_q[] = ".attn.norm_q.weight";
    int doubles = blocks(&s, "transformer_blocks.", double_q);
    int singles = blocks(&s, "single_transformer_blocks.", single_q);
    int64_t width = extent(&s, 0, "x_embedder.weight");
    int64_t head = extent(&s, 0, "single_transformer_blocks.0%s", single_q);
    int64_t mlp = extent(&s, 1, "single_transformer_blocks.0.attn.to_out.weight") - width;
    int64_t axis = head / 4; /* rows, columns, time and text share a head equally */
    str_addf(&json, "{\"_class_name\": \"Flux2Transformer2DModel\", \"patch_size\": 1, ");
    str_addf(&json, "\"in_channels\": %lld, \"out_channels\": %lld, ",
             (long long)extent(&s, 1, "x_embedder.weight"),
             (long long)extent(&s, 0, "proj_out.weight"));
    str_addf(&json, "\"num_layers\": %d, \"num_single_layers\": %d, ", doubles, singles);
    str_addf(&json, "\"attention_head_dim\": %lld, \"num_attention_heads\": %lld, ",
             (long long)head, (long long)(width / head));
    str_addf(&json, "\"joint_attention_dim\": %lld, \"timestep_guidance_channels\": %lld, ",
             (long long)extent(&s, 1, "context_embedder.weight"),
             (long long)extent(&s, 1, "time_guidance_embed.timestep_embedder.linear_1.weight"));
    str_addf(&json, "\"mlp_ratio\": %.17g, \"guidance_embeds\": %s, ", (double)mlp / (double)width,
             there(&s, "time_guidance_embed.guidance_embedder.linear_1.weight") ? "true" : "false");
    str_addf(&json, "\"axes_dims_rope\": [%lld, %lld, %lld, %lld], ", (long long)axis,
             (long long)axis, (long long)axis, (long long)axis);
    str_add(&json, "\"rope_theta\": 2000, \"eps\": 1e-6}");
    return finish(&s, &json, out, e);
}

int infer_zimage(const struct weights *w, struct config **out, struct err *e)
{
    enum { PATCH = 2 };
    struct shapes s = {.w = w};
    AUTO_STR struct str json = {0};
    static const char norm[] = ".attention.norm_q.weight";
    int layers = blocks(&s, "layers.", norm), refiners = blocks(&s, "noise_refiner.", norm);
    int64_t width = extent(&s, 0, "all_x_embedder.2-1.weight");
    int64_t token = extent(&s, 1, "all_x_embedder.2-1.weight");
    int64_t head = extent(&s, 0, "layers.0%s", norm);
    int64_t time = head / 4, place = (head - time) / 2; /* of a head of 128: 32, 48, 48 */
    str_add(&json, "{\"_class_name\": \"ZImageTransformer2DModel\", \"all_patch_size\": [2], "
                   "\"all_f_patch_size\": [1], ");
    str_addf(&json, "\"in_channels\": %lld, \"dim\": %lld, ", (long long)(token / (PATCH * PATCH)),
             (long long)width);
    str_addf(&json, "\"n_layers\": %d, \"n_refiner_layers\": %d, \"n_heads\": %lld, ", layers,
             refiners, (long long)(width / head));
    str_addf(&json, "\"cap_feat_dim\": %lld, \"axes_dims\": [%lld, %lld, %lld], ",
             (long long)extent(&s, 0, "cap_embedder.0.weight"), (long long)time, (long long)place,
             (long long)place);
    str_add(&json, "\"norm_eps\": 1e-5, \"qk_norm\": true, \"rope_theta\": 256, "
                   "\"t_scale\": 1000}");
    return finish(&s, &json, out, e);
}

/* ---- Stable Diffusion ---- */

/* What one resolution of a UNet holds. */
struct level {
    int64_t width;
    int transformers; /* 0: it does not attend */
    bool up_attends;
};

static int read_levels(struct shapes *s, struct level levels[MAX_LEVELS])
{
    int n = blocks(s, "down_blocks.", ".resnets.0.conv1.weight");
    n = n < MAX_LEVELS ? n : MAX_LEVELS;
    for (int i = 0; i < n; i++) {
        char at[NAME_SIZE];
        snprintf(at, sizeof at, "down_blocks.%d.attentions.0.transformer_blocks.", i);
        levels[i] = (struct level){
            .width = extent(s, 0, "down_blocks.%d.resnets.0.conv1.weight", i),
            .transformers = blocks(s, at, ".attn1.to_q.weight"),
            .up_attends = there(s, "up_blocks.%d.attentions.0.norm.weight", n - 1 - i)};
    }
    return n;
}

static void add_types(struct str *json, const struct level *levels, int n)
{
    str_add(json, "\"down_block_types\": [");
    for (int i = 0; i < n; i++)
        str_addf(json, "%s\"%sDownBlock2D\"", i ? ", " : "",
                 levels[i].transformers ? "CrossAttn" : "");
    str_add(json, "], \"up_block_types\": [");
    for (int i = n - 1; i >= 0; i--)
        str_addf(json, "%s\"%sUpBlock2D\"", i < n - 1 ? ", " : "",
                 levels[i].up_attends ? "CrossAttn" : "");
    str_add(json, "], ");
}

/* Heads are 64 wide in files whose projections are matrices (SD 2, SDXL); the older ones have 8 at
 * every width. */
static void add_levels(struct str *json, const struct level *levels, int n, bool matrices,
                       int middle)
{
    str_add(json, "\"block_out_channels\": [");
    for (int i = 0; i < n; i++)
        str_addf(json, "%s%lld", i ? ", " : "", (long long)levels[i].width);
    str_add(json, "], \"attention_head_dim\": [");
    for (int i = 0; i < n; i++)
        str_addf(json, "%s%lld", i ? ", " : "",
                 matrices ? (long long)(levels[i].width + 63) / 64 : 8);
    str_add(json, "], \"transformer_layers_per_block\": [");
    for (int i = 0; i < n; i++) {
        int depth = levels[i].transformers ? levels[i].transformers : 1;
        str_addf(json, "%s%d", i ? ", " : "", i == n - 1 && middle ? middle : depth);
    }
    str_add(json, "], ");
}

/* `side`: of the latents that it was trained on. */
static int infer_unet_of(const struct weights *w, int side, struct config **out, struct err *e)
{
    static const char middle[] = "mid_block.attentions.0";
    struct shapes s = {.w = w};
    struct level levels[MAX_LEVELS];
    AUTO_STR struct str json = {0};
    int n = read_levels(&s, levels);
    const struct weights_entry *projection =
        weights_find(w, "mid_block.attentions.0.proj_in.weight");
    bool matrices = projection && projection->rank == 2,
         added = there(&s, "add_embedding.linear_1.weight");
    str_add(&json, "{\"_class_name\": \"UNet2DConditionModel\", ");
    add_types(&json, levels, n);
    add_levels(&json, levels, n, matrices,
               blocks(&s, "mid_block.attentions.0.transformer_blocks.", ".attn1.to_q.weight"));
    str_addf(&json, "\"layers_per_block\": %d, \"sample_size\": %d, ",
             blocks(&s, "down_blocks.0.resnets.", ".conv1.weight"), side);
    str_addf(&json, "\"in_channels\": %lld, \"out_channels\": %lld, ",
             (long long)extent(&s, 1, "conv_in.weight"),
             (long long)extent(&s, 0, "conv_out.weight"));
    str_addf(&json, "\"cross_attention_dim\": %lld, ",
             (long long)extent(&s, 1, "%s.transformer_blocks.0.attn2.to_k.weight", middle));
    if (added)
        str_addf(&json,
                 "\"addition_embed_type\": \"text_time\", \"addition_time_embed_dim\": 256, "
                 "\"projection_class_embeddings_input_dim\": %lld, ",
                 (long long)extent(&s, 1, "add_embedding.linear_1.weight"));
    if (there(&s, "time_embedding.cond_proj.weight"))
        str_addf(&json, "\"time_cond_proj_dim\": %lld, ",
                 (long long)extent(&s, 1, "time_embedding.cond_proj.weight"));
    str_addf(&json, "\"use_linear_projection\": %s}", matrices ? "true" : "false");
    return finish(&s, &json, out, e);
}

int infer_unet(const struct weights *w, struct config **out, struct err *e)
{
    return infer_unet_of(w, 64, out, e);
}

int infer_unet_768(const struct weights *w, struct config **out, struct err *e)
{
    return infer_unet_of(w, 96, out, e);
}

int infer_unet_xl(const struct weights *w, struct config **out, struct err *e)
{
    return infer_unet_of(w, 128, out, e);
}

static int infer_vae(const struct weights *w, double scaling, struct config **out, struct err *e)
{
    struct shapes s = {.w = w};
    AUTO_STR struct str json = {0};
    int n = blocks(&s, "encoder.down_blocks.", ".resnets.0.conv1.weight");
    str_add(&json, "{\"_class_name\": \"AutoencoderKL\", \"block_out_channels\": [");
    for (int i = 0; i < n; i++)
        str_addf(&json, "%s%lld", i ? ", " : "",
                 (long long)extent(&s, 0, "encoder.down_blocks.%d.resnets.0.conv1.weight", i));
    str_addf(&json, "], \"layers_per_block\": %d, \"latent_channels\": %lld, ",
             blocks(&s, "encoder.down_blocks.0.resnets.", ".conv1.weight"),
             (long long)extent(&s, 1, "decoder.conv_in.weight"));
    str_addf(&json, "\"norm_num_groups\": 32, \"scaling_factor\": %.17g}", scaling);
    return finish(&s, &json, out, e);
}

int infer_vae_sd(const struct weights *w, struct config **out, struct err *e)
{
    return infer_vae(w, 0.18215, out, e);
}

int infer_vae_sdxl(const struct weights *w, struct config **out, struct err *e)
{
    return infer_vae(w, 0.13025, out, e);
}

/* `all`: else the last layer of a whole encoder is left out. */
static int infer_text(const struct weights *w, const char *class_name, const char *act, bool all,
                      struct config **out, struct err *e)
{
    struct shapes s = {.w = w};
    AUTO_STR struct str json = {0};
    const char *at = there(&s, "text_model.final_layer_norm.weight") ? "text_model." : "";
    char layers[NAME_SIZE];
    snprintf(layers, sizeof layers, "%sencoder.layers.", at);
    int64_t width = extent(&s, 1, "%sembeddings.token_embedding.weight", at);
    int count = blocks(&s, layers, ".mlp.fc1.weight");
    if (!all && count != OPEN_CLIP_H_LAYERS - 1 && count > 1)
        count--;
    str_addf(&json, "{\"architectures\": [\"%s\"], \"hidden_act\": \"%s\", ", class_name, act);
    str_addf(&json, "\"hidden_size\": %lld, \"num_attention_heads\": %lld, ", (long long)width,
             (long long)(width + 63) / 64);
    str_addf(&json, "\"intermediate_size\": %lld, \"num_hidden_layers\": %d, ",
             (long long)extent(&s, 0, "%s0.mlp.fc1.weight", layers), count);
    int64_t vocabulary = extent(&s, 0, "%sembeddings.token_embedding.weight", at);
    str_addf(&json, "\"vocab_size\": %lld, \"eos_token_id\": %lld, ", (long long)vocabulary,
             (long long)vocabulary - 1);
    str_addf(&json, "\"max_position_embeddings\": %lld, ",
             (long long)extent(&s, 0, "%sembeddings.position_embedding.weight", at));
    str_addf(&json, "\"projection_dim\": %lld, \"layer_norm_eps\": 1e-5}",
             (long long)(there(&s, "text_projection.weight")
                             ? extent(&s, 0, "text_projection.weight")
                             : width));
    return finish(&s, &json, out, e);
}

int infer_clip(const struct weights *w, struct config **out, struct err *e)
{
    return infer_text(w, "CLIPTextModel", "quick_gelu", true, out, e);
}

int infer_clip_penultimate(const struct weights *w, struct config **out, struct err *e)
{
    return infer_text(w, "CLIPTextModel", "gelu", false, out, e);
}

int infer_clip_projected(const struct weights *w, struct config **out, struct err *e)
{
    return infer_text(w, "CLIPTextModelWithProjection", "gelu", true, out, e);
}
