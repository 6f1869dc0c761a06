/* Sources of the pairs: huggingface/diffusers, loaders/single_file_utils.py and
 * scripts/convert_original_stable_diffusion_to_diffusers.py. Both models have two layers a block,
 * so that a block of the way in is three steps of input_blocks, and of the way out three of
 * output_blocks. */
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

const struct rename_rule naming_ldm_unet[] = {
    NAMED("time_embed.0.", "time_embedding.linear_1."),
    NAMED("time_embed.2.", "time_embedding.linear_2."),
    NAMED("time_embed.cond_proj.", "time_embedding.cond_proj."),
    NAMED("label_emb.0.0.", "add_embedding.linear_1."),
    NAMED("label_emb.0.2.", "add_embedding.linear_2."),
    NAMED("input_blocks.0.0.", "conv_in."),
    NAMED("out.0.", "conv_norm_out."),
    NAMED("out.2.", "conv_out."),
    WITHIN("input_blocks.1.0.", "down_blocks.0.resnets.0.", resnet),
    WITHIN("input_blocks.1.1.", "down_blocks.0.attentions.0.", transformer),
    WITHIN("input_blocks.2.0.", "down_blocks.0.resnets.1.", resnet),
    WITHIN("input_blocks.2.1.", "down_blocks.0.attentions.1.", transformer),
    NAMED("input_blocks.3.0.op.", "down_blocks.0.downsamplers.0.conv."),
    WITHIN("input_blocks.4.0.", "down_blocks.1.resnets.0.", resnet),
    WITHIN("input_blocks.4.1.", "down_blocks.1.attentions.0.", transformer),
    WITHIN("input_blocks.5.0.", "down_blocks.1.resnets.1.", resnet),
    WITHIN("input_blocks.5.1.", "down_blocks.1.attentions.1.", transformer),
    NAMED("input_blocks.6.0.op.", "down_blocks.1.downsamplers.0.conv."),
    WITHIN("input_blocks.7.0.", "down_blocks.2.resnets.0.", resnet),
    WITHIN("input_blocks.7.1.", "down_blocks.2.attentions.0.", transformer),
    WITHIN("input_blocks.8.0.", "down_blocks.2.resnets.1.", resnet),
    WITHIN("input_blocks.8.1.", "down_blocks.2.attentions.1.", transformer),
    NAMED("input_blocks.9.0.op.", "down_blocks.2.downsamplers.0.conv."),
    WITHIN("input_blocks.10.0.", "down_blocks.3.resnets.0.", resnet),
    WITHIN("input_blocks.10.1.", "down_blocks.3.attentions.0.", transformer),
    WITHIN("input_blocks.11.0.", "down_blocks.3.resnets.1.", resnet),
    WITHIN("input_blocks.11.1.", "down_blocks.3.attentions.1.", transformer),
    WITHIN("middle_block.0.", "mid_block.resnets.0.", resnet),
    WITHIN("middle_block.1.", "mid_block.attentions.0.", transformer),
    WITHIN("middle_block.2.", "mid_block.resnets.1.", resnet),
    WITHIN("output_blocks.0.0.", "up_blocks.0.resnets.0.", resnet),
    WITHIN("output_blocks.0.1.", "up_blocks.0.attentions.0.", transformer),
    WITHIN("output_blocks.1.0.", "up_blocks.0.resnets.1.", resnet),
    WITHIN("output_blocks.1.1.", "up_blocks.0.attentions.1.", transformer),
    WITHIN("output_blocks.2.0.", "up_blocks.0.resnets.2.", resnet),
    WITHIN("output_blocks.2.1.", "up_blocks.0.attentions.2.", transformer),
    WITHIN("output_blocks.2.1.", "up_blocks.0.upsamplers.0.", upsampler),
    WITHIN("output_blocks.2.2.", "up_blocks.0.upsamplers.0.", upsampler),
    WITHIN("output_blocks.3.0.", "up_blocks.1.resnets.0.", resnet),
    WITHIN("output_blocks.3.1.", "up_blocks.1.attentions.0.", transformer),
    WITHIN("output_blocks.4.0.", "up_blocks.1.resnets.1.", resnet),
    WITHIN("output_blocks.4.1.", "up_blocks.1.attentions.1.", transformer),
    WITHIN("output_blocks.5.0.", "up_blocks.1.resnets.2.", resnet),
    WITHIN("output_blocks.5.1.", "up_blocks.1.attentions.2.", transformer),
    WITHIN("output_blocks.5.1.", "up_blocks.1.upsamplers.0.", upsampler),
    WITHIN("output_blocks.5.2.", "up_blocks.1.upsamplers.0.", upsampler),
    WITHIN("output_blocks.6.0.", "up_blocks.2.resnets.0.", resnet),
    WITHIN("output_blocks.6.1.", "up_blocks.2.attentions.0.", transformer),
    WITHIN("output_blocks.7.0.", "up_blocks.2.resnets.1.", resnet),
    WITHIN("output_blocks.7.1.", "up_blocks.2.attentions.1.", transformer),
    WITHIN("output_blocks.8.0.", "up_blocks.2.resnets.2.", resnet),
    WITHIN("output_blocks.8.1.", "up_blocks.2.attentions.2.", transformer),
    WITHIN("output_blocks.8.1.", "up_blocks.2.upsamplers.0.", upsampler),
    WITHIN("output_blocks.8.2.", "up_blocks.2.upsamplers.0.", upsampler),
    WITHIN("output_blocks.9.0.", "up_blocks.3.resnets.0.", resnet),
    WITHIN("output_blocks.9.1.", "up_blocks.3.attentions.0.", transformer),
    WITHIN("output_blocks.10.0.", "up_blocks.3.resnets.1.", resnet),
    WITHIN("output_blocks.10.1.", "up_blocks.3.attentions.1.", transformer),
    WITHIN("output_blocks.11.0.", "up_blocks.3.resnets.2.", resnet),
    WITHIN("output_blocks.11.1.", "up_blocks.3.attentions.2.", transformer),
    WITHIN("output_blocks.11.1.", "up_blocks.3.upsamplers.0.", upsampler),
    WITHIN("output_blocks.11.2.", "up_blocks.3.upsamplers.0.", upsampler),
    {0},
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

static const struct rename_rule vae_half[] = {
    NAMED("conv_in.", "conv_in."),
    NAMED("conv_out.", "conv_out."),
    NAMED("norm_out.", "conv_norm_out."),
    WITHIN("mid.", "mid_block.", vae_middle),
    WITHIN("down.*.block.*.", "down_blocks.*.resnets.*.", vae_resnet),
    NAMED("down.*.downsample.conv.", "down_blocks.*.downsamplers.0.conv."),
    WITHIN("up.3.block.*.", "up_blocks.0.resnets.*.", vae_resnet),
    NAMED("up.3.upsample.conv.", "up_blocks.0.upsamplers.0.conv."),
    WITHIN("up.2.block.*.", "up_blocks.1.resnets.*.", vae_resnet),
    NAMED("up.2.upsample.conv.", "up_blocks.1.upsamplers.0.conv."),
    WITHIN("up.1.block.*.", "up_blocks.2.resnets.*.", vae_resnet),
    NAMED("up.1.upsample.conv.", "up_blocks.2.upsamplers.0.conv."),
    WITHIN("up.0.block.*.", "up_blocks.3.resnets.*.", vae_resnet),
    NAMED("up.0.upsample.conv.", "up_blocks.3.upsamplers.0.conv."),
    {0},
};

const struct rename_rule naming_ldm_vae[] = {
    WITHIN("encoder.", "encoder.", vae_half),
    WITHIN("decoder.", "decoder.", vae_half),
    NAMED("quant_conv.", "quant_conv."),
    NAMED("post_quant_conv.", "post_quant_conv."),
    {0},
};
