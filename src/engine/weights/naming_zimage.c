/* Source of the pairs: huggingface/diffusers, loaders/single_file_utils.py. */
#include "engine/weights/naming.h"

/* Within a block; the feed-forward and the norms have the same names in both. */
static const struct rename_rule block[] = {
    THIRD("attention.qkv.", "attention.to_q.", 0),
    THIRD("attention.qkv.", "attention.to_k.", 1),
    THIRD("attention.qkv.", "attention.to_v.", 2),
    NAMED("attention.out.", "attention.to_out.0."),
    NAMED("attention.q_norm.", "attention.norm_q."),
    NAMED("attention.k_norm.", "attention.norm_k."),
    {0},
};

const struct rename_rule naming_zimage[] = {
    NAMED("x_embedder.", "all_x_embedder.2-1."),
    NAMED("final_layer.", "all_final_layer.2-1."),
    CHANGED("x_pad_token", "x_pad_token", SINGLE_ROW),
    CHANGED("cap_pad_token", "cap_pad_token", SINGLE_ROW),
    DROPPED("norm_final.weight"),
    WITHIN("layers.*.", "layers.*.", block),
    WITHIN("noise_refiner.*.", "noise_refiner.*.", block),
    WITHIN("context_refiner.*.", "context_refiner.*.", block),
    {0},
};
