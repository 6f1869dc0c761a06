/* Sources of the configs: config.json of the parts of black-forest-labs/FLUX.2-klein-4B,
 * stabilityai/stable-diffusion-xl-base-1.0, Tongyi-MAI/Z-Image-Turbo and
 * stable-diffusion-v1-5/stable-diffusion-v1-5 on the hub, as far as they say something. */
#include "engine/synthetic.h"

#include <stddef.h>
#include <string.h>

static const char qwen3_4b[] =
    "{\"architectures\": [\"Qwen3ForCausalLM\"], \"vocab_size\": 151936, \"hidden_size\": 2560, "
    "\"intermediate_size\": 9728, \"num_hidden_layers\": 36, \"num_attention_heads\": 32, "
    "\"num_key_value_heads\": 8, \"head_dim\": 128, \"rms_norm_eps\": 1e-6, "
    "\"rope_theta\": 1000000}";

static const char flow[] = "{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\", "
                           "\"num_train_timesteps\": 1000, \"shift\": 3.0, "
                           "\"use_dynamic_shifting\": false}";
static const char flow_dynamic[] =
    "{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\", \"num_train_timesteps\": 1000, "
    "\"shift\": 3.0, \"use_dynamic_shifting\": true, \"base_shift\": 0.5, \"max_shift\": 1.15, "
    "\"base_image_seq_len\": 256, \"max_image_seq_len\": 4096}";

#define NOISE                                                                                      \
    "\"num_train_timesteps\": 1000, \"beta_schedule\": \"scaled_linear\", "                        \
    "\"beta_start\": 0.00085, \"beta_end\": 0.012, \"steps_offset\": 1, "                          \
    "\"timestep_spacing\": \"leading\"}"
static const char euler[] = "{\"_class_name\": \"EulerDiscreteScheduler\", " NOISE;
static const char pndm[] = "{\"_class_name\": \"PNDMScheduler\", \"skip_prk_steps\": true, " NOISE;
#undef NOISE

#define VAE_LEVELS "\"block_out_channels\": [128, 256, 512, 512], \"layers_per_block\": 2, "

static const char clip_large[] =
    "{\"architectures\": [\"CLIPTextModel\"], \"hidden_act\": \"quick_gelu\", "
    "\"hidden_size\": 768, \"intermediate_size\": 3072, \"num_hidden_layers\": 12, "
    "\"num_attention_heads\": 12, \"vocab_size\": 49408, \"max_position_embeddings\": 77, "
    "\"projection_dim\": 768, \"layer_norm_eps\": 1e-5, \"eos_token_id\": 49407}";

const struct synthetic_model synthetic_models[] = {
    {.name = "klein-4b",
     .tokenizer = "qwen",
     .index = "{\"_class_name\": \"Flux2KleinPipeline\", \"is_distilled\": true}",
     .scheduler = flow_dynamic,
     .parts = {{"transformer",
                "{\"_class_name\": \"Flux2Transformer2DModel\", \"in_channels\": 128, "
                "\"num_layers\": 5, \"num_single_layers\": 20, \"num_attention_heads\": 24, "
                "\"attention_head_dim\": 128, \"joint_attention_dim\": 7680, "
                "\"timestep_guidance_channels\": 256, \"mlp_ratio\": 3.0, "
                "\"axes_dims_rope\": [32, 32, 32, 32], \"rope_theta\": 2000, "
                "\"guidance_embeds\": false}"},
               {"text_encoder", qwen3_4b},
               {"vae", "{\"_class_name\": \"AutoencoderKLFlux2\", " VAE_LEVELS
                       "\"latent_channels\": 32}"}}},
    {.name = "zimage",
     .tokenizer = "qwen",
     .index = "{\"_class_name\": \"ZImagePipeline\", \"default_steps\": 8, "
              "\"default_guidance\": 0}",
     .scheduler = flow,
     .parts = {{"transformer",
                "{\"_class_name\": \"ZImageTransformer2DModel\", \"all_patch_size\": [2], "
                "\"all_f_patch_size\": [1], \"in_channels\": 16, \"dim\": 3840, "
                "\"n_layers\": 30, \"n_refiner_layers\": 2, \"n_heads\": 30, "
                "\"cap_feat_dim\": 2560, \"axes_dims\": [32, 48, 48], \"norm_eps\": 1e-5, "
                "\"qk_norm\": true, \"rope_theta\": 256, \"t_scale\": 1000}"},
               {"text_encoder", qwen3_4b},
               {"vae", "{\"_class_name\": \"AutoencoderKL\", " VAE_LEVELS
                       "\"latent_channels\": 16, \"scaling_factor\": 0.3611, "
                       "\"shift_factor\": 0.1159, \"use_quant_conv\": false, "
                       "\"use_post_quant_conv\": false}"}}},
    {.name = "sdxl",
     .tokenizer = "clip",
     .index = "{\"_class_name\": \"StableDiffusionXLPipeline\", "
              "\"force_zeros_for_empty_prompt\": true}",
     .scheduler = euler,
     .parts =
         {{"unet",
           "{\"_class_name\": \"UNet2DConditionModel\", \"sample_size\": 128, "
           "\"block_out_channels\": [320, 640, 1280], \"layers_per_block\": 2, "
           "\"down_block_types\": [\"DownBlock2D\", \"CrossAttnDownBlock2D\", "
           "\"CrossAttnDownBlock2D\"], \"up_block_types\": [\"CrossAttnUpBlock2D\", "
           "\"CrossAttnUpBlock2D\", \"UpBlock2D\"], \"attention_head_dim\": [5, 10, 20], "
           "\"transformer_layers_per_block\": [1, 2, 10], \"cross_attention_dim\": 2048, "
           "\"use_linear_projection\": true, \"addition_embed_type\": \"text_time\", "
           "\"addition_time_embed_dim\": 256, \"projection_class_embeddings_input_dim\": 2816}"},
          {"text_encoder", clip_large},
          {"text_encoder_2",
           "{\"architectures\": [\"CLIPTextModelWithProjection\"], \"hidden_act\": \"gelu\", "
           "\"hidden_size\": 1280, \"intermediate_size\": 5120, \"num_hidden_layers\": 32, "
           "\"num_attention_heads\": 20, \"vocab_size\": 49408, "
           "\"max_position_embeddings\": 77, \"projection_dim\": 1280, "
           "\"layer_norm_eps\": 1e-5, \"eos_token_id\": 49407}"},
          {"vae", "{\"_class_name\": \"AutoencoderKL\", " VAE_LEVELS
                  "\"latent_channels\": 4, \"scaling_factor\": 0.13025}"}}},
    {.name = "sd15",
     .tokenizer = "clip",
     .index = "{\"_class_name\": \"StableDiffusionPipeline\"}",
     .scheduler = pndm,
     .parts = {{"unet",
                "{\"_class_name\": \"UNet2DConditionModel\", \"sample_size\": 64, "
                "\"block_out_channels\": [320, 640, 1280, 1280], \"layers_per_block\": 2, "
                "\"down_block_types\": [\"CrossAttnDownBlock2D\", \"CrossAttnDownBlock2D\", "
                "\"CrossAttnDownBlock2D\", \"DownBlock2D\"], \"up_block_types\": "
                "[\"UpBlock2D\", \"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\", "
                "\"CrossAttnUpBlock2D\"], \"attention_head_dim\": 8, "
                "\"cross_attention_dim\": 768}"},
               {"text_encoder", clip_large},
               {"vae", "{\"_class_name\": \"AutoencoderKL\", " VAE_LEVELS
                       "\"latent_channels\": 4, \"scaling_factor\": 0.18215}"}}},
    {0},
};

const struct synthetic_model *synthetic_find(const char *name)
{
    for (const struct synthetic_model *m = synthetic_models; m->name; m++)
        if (strcmp(m->name, name) == 0)
            return m;
    return NULL;
}
