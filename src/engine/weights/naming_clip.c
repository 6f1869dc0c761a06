/* CLIP's text model. Sources of the pairs: huggingface/transformers,
 * models/clip/convert_clip_original_pytorch_to_hf.py; huggingface/diffusers,
 * loaders/single_file_utils.py. */
#include "engine/weights/naming.h"

const struct rename_rule naming_clip[] = {
    DROPPED("text_model.embeddings.position_ids"), /* 0, 1, 2 … */
    {0},
};

/* Within a layer. */
static const struct rename_rule layer[] = {
    NAMED("ln_1.", "layer_norm1."),
    NAMED("ln_2.", "layer_norm2."),
    THIRD("attn.in_proj_weight", "self_attn.q_proj.weight", 0),
    THIRD("attn.in_proj_weight", "self_attn.k_proj.weight", 1),
    THIRD("attn.in_proj_weight", "self_attn.v_proj.weight", 2),
    THIRD("attn.in_proj_bias", "self_attn.q_proj.bias", 0),
    THIRD("attn.in_proj_bias", "self_attn.k_proj.bias", 1),
    THIRD("attn.in_proj_bias", "self_attn.v_proj.bias", 2),
    NAMED("attn.out_proj.", "self_attn.out_proj."),
    NAMED("mlp.c_fc.", "mlp.fc1."),
    NAMED("mlp.c_proj.", "mlp.fc2."),
    {0},
};

const struct rename_rule naming_open_clip[] = {
    NAMED("token_embedding.", "text_model.embeddings.token_embedding."),
    NAMED("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    WITHIN("transformer.resblocks.*.", "text_model.encoder.layers.*.", layer),
    NAMED("ln_final.", "text_model.final_layer_norm."),
    CHANGED("text_projection", "text_projection.weight", TRANSPOSE),
    NAMED("text_projection.weight",
          "text_projection.weight"), /* written by trainers; not transposed */
    DROPPED("logit_scale"),          /* of training */
    {0},
};
