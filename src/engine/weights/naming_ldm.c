/* Sources of the pairs: huggingface/diffusers, loaders/single_file_utils.py and
 * scripts/convert_original_stable_diffusion_to_diffusers.py. The published models have two layers
 * a block, so that a block of the way in is three steps of input_blocks, and of the way out three
 * of output_blocks. */
#include "engine/weights/naming.h"

/* Within a residual block. */
static const struct rename_rule resnet[] = {
    NAMED("in_layers.0.", "norm1."),
    NAMED("in_layers.2.", "conv1."),
    NAMED("emb_layers.1.", "time_emb_proj."),
    NAMED("out_layers.0.", "norm2."),
    NAMED("out_layers.3.", "conv2."),
    NAMED("skip_connection.", "conv_shortcut."),
    {0},
};

/* What stands at the second place of a step is a transformer, which has these parts, or, on the way
 * out of a block without one, the doubling of the size. */
static const struct rename_rule transformer[] = {
    NAMED("norm.", "norm."),
    NAMED("proj_in.", "proj_in."),
    NAMED("proj_out.", "proj_out."),
    NAMED("transformer_blocks.", "transformer_blocks."),
    {0},
};

static const struct rename_rule upsampler[] = {
    NAMED("conv.", "conv."),
    {0},
};

/* What is the same whatever the number of layers. */
#define ENDS                                                                                       \
    NAMED("time_embed.0.", "time_embedding.linear_1."),                                            \
        NAMED("time_embed.2.", "time_embedding.linear_2."),                                        \
        NAMED("time_embed.cond_proj.", "time_embedding.cond_proj."),                               \
        NAMED("label_emb.0.0.", "add_embedding.linear_1."),                                        \
        NAMED("label_emb.0.2.", "add_embedding.linear_2."),                                        \
        NAMED("input_blocks.0.0.", "conv_in."), NAMED("out.0.", "conv_norm_out."),                 \
        NAMED("out.2.", "conv_out."), WITHIN("middle_block.0.", "mid_block.resnets.0.", resnet),   \
        WITHIN("middle_block.1.", "mid_block.attentions.0.", transformer),                         \
        WITHIN("middle_block.2.", "mid_block.resnets.1.", resnet)

/* Step `s` is layer `r` of block `b`. */
#define DOWN(s, b, r)                                                                              \
    WITHIN("input_blocks." #s ".0.", "down_blocks." #b ".resnets." #r ".", resnet),                \
        WITHIN("input_blocks." #s ".1.", "down_blocks." #b ".attentions." #r ".", transformer)
#define HALVE(s, b) NAMED("input_blocks." #s ".0.op.", "down_blocks." #b ".downsamplers.0.conv.")
#define UP(s, b, r)                                                                                \
    WITHIN("output_blocks." #s ".0.", "up_blocks." #b ".resnets." #r ".", resnet),                 \
        WITHIN("output_blocks." #s ".1.", "up_blocks." #b ".attentions." #r ".", transformer)
#define DOUBLE(s, b)                                                                               \
    WITHIN("output_blocks." #s ".1.", "up_blocks." #b ".upsamplers.0.", upsampler),                \
        WITHIN("output_blocks." #s ".2.", "up_blocks." #b ".upsamplers.0.", upsampler)

const struct rename_rule naming_ldm_unet[] = {
    ENDS,        DOWN(1, 0, 0), DOWN(2, 0, 1), HALVE(3, 0),  DOWN(4, 1, 0),  DOWN(5, 1, 1),
    HALVE(6, 1), DOWN(7, 2, 0), DOWN(8, 2, 1), HALVE(9, 2),  DOWN(10, 3, 0), DOWN(11, 3, 1),
    UP(0, 0, 0), UP(1, 0, 1),   UP(2, 0, 2),   DOUBLE(2, 0), UP(3, 1, 0),    UP(4, 1, 1),
    UP(5, 1, 2), DOUBLE(5, 1),  UP(6, 2, 0),   UP(7, 2, 1),  UP(8, 2, 2),    DOUBLE(8, 2),
    UP(9, 3, 0), UP(10, 3, 1),  UP(11, 3, 2),  {0},
};

const struct rename_rule naming_ldm_unet_1[] = {
    ENDS,          DOWN(1, 0, 0), HALVE(2, 0),   DOWN(3, 1, 0), HALVE(4, 1),
    DOWN(5, 2, 0), HALVE(6, 2),   DOWN(7, 3, 0), UP(0, 0, 0),   UP(1, 0, 1),
    DOUBLE(1, 0),  UP(2, 1, 0),   UP(3, 1, 1),   DOUBLE(3, 1),  UP(4, 2, 0),
    UP(5, 2, 1),   DOUBLE(5, 2),  UP(6, 3, 0),   UP(7, 3, 1),   {0},
};

/* ---- the autoencoder ---- */

/* Within a residual block of the autoencoder, and within the attention in its middle, whose
 * products are 1x1 filters. */
static const struct rename_rule vae_resnet[] = {
    NAMED("norm1.", "norm1."),
    NAMED("conv1.", "conv1."),
    NAMED("norm2.", "norm2."),
    NAMED("conv2.", "conv2."),
    NAMED("nin_shortcut.", "conv_shortcut."),
    {0},
};

static const struct rename_rule vae_attention[] = {
    NAMED("norm.", "group_norm."),
    CHANGED("q.", "to_q.", FLAT),
    CHANGED("k.", "to_k.", FLAT),
    CHANGED("v.", "to_v.", FLAT),
    CHANGED("proj_out.", "to_out.0.", FLAT),
    {0},
};

/* Of either half. Levels of the decoder count from the other end. */
static const struct rename_rule vae_middle[] = {
    WITHIN("block_1.", "resnets.0.", vae_resnet),
    WITHIN("block_2.", "resnets.1.", vae_resnet),
    WITHIN("attn_1.", "attentions.0.", vae_attention),
    {0},
};

#define HALF                                                                                       \
    NAMED("conv_in.", "conv_in."), NAMED("conv_out.", "conv_out."),                                \
        NAMED("norm_out.", "conv_norm_out."), WITHIN("mid.", "mid_block.", vae_middle),            \
        WITHIN("down.*.block.*.", "down_blocks.*.resnets.*.", vae_resnet),                         \
        NAMED("down.*.downsample.conv.", "down_blocks.*.downsamplers.0.conv.")
#define RISE(level, b)                                                                             \
    WITHIN("up." #level ".block.*.", "up_blocks." #b ".resnets.*.", vae_resnet),                   \
        NAMED("up." #level ".upsample.conv.", "up_blocks." #b ".upsamplers.0.conv.")

static const struct rename_rule half_1[] = {HALF, RISE(0, 0), {0}};
static const struct rename_rule half_2[] = {HALF, RISE(1, 0), RISE(0, 1), {0}};
static const struct rename_rule half_3[] = {HALF, RISE(2, 0), RISE(1, 1), RISE(0, 2), {0}};
static const struct rename_rule half_4[] = {HALF,       RISE(3, 0), RISE(2, 1),
                                            RISE(1, 2), RISE(0, 3), {0}};

#define VAE(half)                                                                                  \
    {                                                                                              \
        WITHIN("encoder.", "encoder.", half), WITHIN("decoder.", "decoder.", half),                \
            NAMED("quant_conv.", "quant_conv."), NAMED("post_quant_conv.", "post_quant_conv."),    \
            {0},                                                                                   \
    }

const struct rename_rule naming_ldm_vae[] = VAE(half_4);
const struct rename_rule naming_ldm_vae_3[] = VAE(half_3);
const struct rename_rule naming_ldm_vae_2[] = VAE(half_2);
const struct rename_rule naming_ldm_vae_1[] = VAE(half_1);
