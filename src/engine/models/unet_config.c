#include "engine/models/unet_config.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

/* ---- options with one possible value ---- */

static int refuse(struct config *c, const char *key, const char *expected, struct err *e)
{
    return err_set(e, -ENOTSUP, "%s: this UNet's %s is not supported; expected %s", config_path(c),
                   key, expected);
}

static int check_fixed(struct config *c, struct err *e)
{
    static const char *const absent[] = {"class_embed_type",     "num_class_embeds",
                                         "encoder_hid_dim",      "encoder_hid_dim_type",
                                         "timestep_post_act",    "time_embedding_act_fn",
                                         "cross_attention_norm", "num_attention_heads"};
    static const char *const off[] = {"dual_cross_attention", "only_cross_attention",
                                      "center_input_sample", "resnet_skip_time_act",
                                      "class_embeddings_concat"};
    static const char *const words[][2] = {{"act_fn", "silu"},
                                           {"time_embedding_type", "positional"},
                                           {"resnet_time_scale_shift", "default"},
                                           {"attention_type", "default"},
                                           {"mid_block_type", "UNetMidBlock2DCrossAttn"}};
    static const struct {
        const char *key;
        int value;
    } numbers[] = {{"conv_in_kernel", 3},
                   {"conv_out_kernel", 3},
                   {"downsample_padding", 1},
                   {"mid_block_scale_factor", 1},
                   {"resnet_out_scale_factor", 1}};
    for (size_t i = 0; i < ARRAY_LEN(absent); i++)
        if (config_has(c, absent[i]))
            return refuse(c, absent[i], "none", e);
    for (size_t i = 0; i < ARRAY_LEN(off); i++)
        if (config_bool(c, off[i], false))
            return refuse(c, off[i], "false", e);
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (strcmp(config_string(c, words[i][0], words[i][1]), words[i][1]) != 0)
            return refuse(c, words[i][0], words[i][1], e);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        if (config_float(c, numbers[i].key, numbers[i].value, -1e6, 1e6) != numbers[i].value)
            return refuse(c, numbers[i].key, numbers[i].value == 1 ? "1" : "3", e);
    return config_error(c, e);
}

/* ---- levels ---- */

/* A number, or one for each level. */
static int read_each(struct config *c, const char *key, int count, int fallback, int low, int high,
                     int out[UNET_MAX_LEVELS], struct err *e)
{
    int length = config_length(c, key);
    if (length >= 0 && length != count)
        return err_set(e, -EINVAL, "%s: %s has %d entries, but there are %d blocks", config_path(c),
                       key, length, count);
    for (int i = 0; i < count; i++)
        out[i] = (int)(length < 0 ? config_int(c, key, fallback, low, high)
                                  : config_int_at(c, key, i, low, high));
    return config_error(c, e);
}

/* Which blocks attend: `plain` and `attending` are the names that a list may hold. */
static int read_types(struct config *c, const char *key, int count, const char *plain,
                      const char *attending, bool out[UNET_MAX_LEVELS], struct err *e)
{
    if (config_length(c, key) != count)
        return err_set(e, -EINVAL, "%s: %s must have %d entries, as block_out_channels has",
                       config_path(c), key, count);
    for (int i = 0; i < count; i++) {
        const char *word = config_string_at(c, key, i);
        if (config_error(c, e) != 0)
            return e->code;
        out[i] = strcmp(word, attending) == 0;
        if (!out[i] && strcmp(word, plain) != 0)
            return err_set(e, -ENOTSUP, "%s: %s holds '%.40s'; supported are %s and %s",
                           config_path(c), key, word, plain, attending);
    }
    return 0;
}

static int read_levels(struct config *c, struct unet_config *u, struct err *e)
{
    int n = config_length(c, "block_out_channels");
    int width[UNET_MAX_LEVELS], layers[UNET_MAX_LEVELS], heads[UNET_MAX_LEVELS];
    int text[UNET_MAX_LEVELS], transformers[UNET_MAX_LEVELS], up_transformers[UNET_MAX_LEVELS];
    bool down[UNET_MAX_LEVELS], up[UNET_MAX_LEVELS];
    bool own = config_has(c, "reverse_transformer_layers_per_block");
    if (n < 1 || n > UNET_MAX_LEVELS)
        return err_set(e, -EINVAL, "%s: block_out_channels must list 1 to %d widths",
                       config_path(c), UNET_MAX_LEVELS);
    if (read_each(c, "block_out_channels", n, 0, 1, 1 << 14, width, e) != 0 ||
        read_each(c, "layers_per_block", n, 2, 1, UNET_MAX_LAYERS, layers, e) != 0 ||
        /* The name is an old mistake that all files share: it is the number of heads. */
        read_each(c, "attention_head_dim", n, 8, 1, 1024, heads, e) != 0 ||
        read_each(c, "cross_attention_dim", n, 1280, 1, 1 << 16, text, e) != 0 ||
        read_each(c, "transformer_layers_per_block", n, 1, 1, 64, transformers, e) != 0 ||
        (own && read_each(c, "reverse_transformer_layers_per_block", n, 1, 1, 64, up_transformers,
                          e) != 0) ||
        read_types(c, "down_block_types", n, "DownBlock2D", "CrossAttnDownBlock2D", down, e) != 0 ||
        read_types(c, "up_block_types", n, "UpBlock2D", "CrossAttnUpBlock2D", up, e) != 0)
        return e->code;
    u->count = n;
    for (int i = 0; i < n; i++) /* lists of the way up begin at the deepest level */
        u->level[i] = (struct unet_level_config){
            .width = width[i],
            .layers = layers[i],
            .down = down[i],
            .up = up[n - 1 - i],
            .transformers = transformers[i],
            .up_transformers = own ? up_transformers[n - 1 - i] : transformers[i],
            .heads = heads[i],
            .text_width = text[i],
        };
    return 0;
}

static int check_heads(struct config *c, const struct unet_config *u, struct err *e)
{
    for (int i = 0; i < u->count; i++) {
        const struct unet_level_config *y = &u->level[i];
        bool attends = y->down || y->up || i == u->count - 1; /* the middle */
        if (attends && y->width % y->heads != 0)
            return err_set(e, -EINVAL,
                           "%s: attention_head_dim (the number of heads) %d does not divide the "
                           "width %d of block %d",
                           config_path(c), y->heads, y->width, i);
        if (y->text_width != u->level[0].text_width)
            return refuse(c, "cross_attention_dim", "the same width in all blocks", e);
    }
    return 0;
}

/* ---- what the time embedding is made of ---- */

static int read_added(struct config *c, struct unet_config *u, struct err *e)
{
    const char *kind = config_string(c, "addition_embed_type", NULL);
    if (!kind)
        return config_error(c, e);
    if (strcmp(kind, "text_time") != 0)
        return refuse(c, "addition_embed_type", "text_time or none", e);
    u->added_number = (int)config_int(c, "addition_time_embed_dim", CONFIG_REQUIRED, 2, 1 << 14);
    u->added_width =
        (int)config_int(c, "projection_class_embeddings_input_dim", CONFIG_REQUIRED, 1, 1 << 16);
    return config_error(c, e);
}

int unet_config_read(struct config *c, struct unet_config *out, struct err *e)
{
    struct unet_config u = {0};
    if (check_fixed(c, e) != 0 || read_levels(c, &u, e) != 0 || check_heads(c, &u, e) != 0 ||
        read_added(c, &u, e) != 0)
        return e->code;
    u.in_channels = (int)config_int(c, "in_channels", 4, 1, 4096);
    u.out_channels = (int)config_int(c, "out_channels", 4, 1, 4096);
    u.linear_projection = config_bool(c, "use_linear_projection", false);
    u.groups = (int)config_int(c, "norm_num_groups", 32, 1, 4096);
    u.norm_eps = (float)config_float(c, "norm_eps", 1e-5, 0, 1);
    u.time_width = (int)config_int(c, "time_embedding_dim", 4 * u.level[0].width, 1, 1 << 16);
    u.guidance_width = (int)config_int(c, "time_cond_proj_dim", 0, 0, 1 << 14);
    u.cos_first = config_bool(c, "flip_sin_to_cos", true);
    u.frequency_shift = (int)config_int(c, "freq_shift", 0, 0, 1);
    *out = u;
    return config_error(c, e);
}
