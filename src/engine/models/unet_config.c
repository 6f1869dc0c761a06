#include "engine/models/unet_config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

#define MAX_DEPTH 64 /* blocks of an attention */

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
    static const char *const words[][2] = {{"time_embedding_type", "positional"},
                                           {"resnet_time_scale_shift", "default"},
                                           {"attention_type", "default"}};
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
    const char *act = config_string(c, "act_fn", "silu");
    if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0) /* two names of one function */
        return refuse(c, "act_fn", "silu", e);
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

/* Blocks in the attentions of one level: a number for all `count`, or one for each. */
static int read_depths(struct config *c, const char *list, int entry, int count, int *out,
                       struct err *e)
{
    char key[80];
    snprintf(key, sizeof key, "%s.%d", list, entry);
    bool whole = config_length(c, list) < 0;
    int each = whole ? -1 : config_length(c, key);
    if (each >= 0 && each != count)
        return err_set(e, -EINVAL, "%s: %s has %d entries, but there are %d attentions",
                       config_path(c), key, each, count);
    for (int i = 0; i < count; i++)
        out[i] = (int)(each >= 0 ? config_int_at(c, key, i, 0, MAX_DEPTH)
                       : whole   ? config_int(c, list, 1, 0, MAX_DEPTH)
                                 : config_int_at(c, list, entry, 0, MAX_DEPTH));
    return config_error(c, e);
}

/* Lists of the way up begin at the deepest level. Without one it is that of the way down. */
static int read_transformers(struct config *c, struct unet_config *u, struct err *e)
{
    static const char down[] = "transformer_layers_per_block",
                      up[] = "reverse_transformer_layers_per_block";
    int n = u->count, own = config_length(c, up), stated = config_length(c, down);
    if ((own >= 0 && own != n) || (stated >= 0 && stated != n))
        return err_set(e, -EINVAL, "%s: %s has %d entries, but there are %d blocks", config_path(c),
                       stated != n && stated >= 0 ? down : up, stated != n ? stated : own, n);
    for (int i = 0; i < n; i++) {
        struct unet_level_config *y = &u->level[i];
        if (read_depths(c, down, i, y->layers, y->transformers, e) != 0 ||
            read_depths(c, own < 0 ? down : up, own < 0 ? i : n - 1 - i, y->layers + 1,
                        y->up_transformers, e) != 0)
            return e->code;
    }
    u->middle_transformers = u->level[n - 1].transformers[0];
    return 0;
}

static int read_middle(struct config *c, struct unet_config *u, struct err *e)
{
    static const char key[] = "mid_block_type";
    static const char *const words[] = {"UNetMidBlock2DCrossAttn", "UNetMidBlock2D"};
    const char *word = config_string(c, key, words[0]);
    u->middle = config_null(c, key)           ? UNET_MIDDLE_NONE
                : strcmp(word, words[0]) == 0 ? UNET_MIDDLE_ATTENDS
                                              : UNET_MIDDLE_PLAIN;
    if (u->middle == UNET_MIDDLE_PLAIN && strcmp(word, words[1]) != 0)
        return refuse(c, key, "UNetMidBlock2DCrossAttn, UNetMidBlock2D or null", e);
    return config_error(c, e);
}

static int read_levels(struct config *c, struct unet_config *u, struct err *e)
{
    int n = config_length(c, "block_out_channels");
    int width[UNET_MAX_LEVELS], layers[UNET_MAX_LEVELS], heads[UNET_MAX_LEVELS];
    int text[UNET_MAX_LEVELS];
    bool down[UNET_MAX_LEVELS], up[UNET_MAX_LEVELS];
    if (n < 1 || n > UNET_MAX_LEVELS)
        return err_set(e, -EINVAL, "%s: block_out_channels must list 1 to %d widths",
                       config_path(c), UNET_MAX_LEVELS);
    if (read_each(c, "block_out_channels", n, 0, 1, 1 << 14, width, e) != 0 ||
        read_each(c, "layers_per_block", n, 2, 1, UNET_MAX_LAYERS, layers, e) != 0 ||
        /* The name is an old mistake that all files share: it is the number of heads. */
        read_each(c, "attention_head_dim", n, 8, 1, 1024, heads, e) != 0 ||
        read_each(c, "cross_attention_dim", n, 1280, 1, 1 << 16, text, e) != 0 ||
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
            .heads = heads[i],
            .text_width = text[i],
        };
    return read_transformers(c, u, e) != 0 ? e->code : read_middle(c, u, e);
}

static int check_heads(struct config *c, const struct unet_config *u, struct err *e)
{
    for (int i = 0; i < u->count; i++) {
        const struct unet_level_config *y = &u->level[i];
        bool middle = i == u->count - 1 && u->middle == UNET_MIDDLE_ATTENDS;
        bool attends = y->down || y->up || middle;
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
