#!/usr/bin/env python3
"""Golden pictures of FLUX.2 [klein] by diffusers' own pipeline, for tests/engine/test_golden.c.

usage: golden_klein.py      from the repository's root; needs torch diffusers transformers
"""
import copy

import torch
import transformers
from diffusers import (AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Transformer2DModel,
                       FlowMatchEulerDiscreteScheduler)
from tokenizers import Tokenizer

import det
import golden

LAYERS, TOKENS = (1, 2, 4), 40
TEMPLATE = ("{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}"
            "{%- endfor %}{{- '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}")
CASES = [
    {"prompt": "an old stone house", "width": 48, "height": 32, "steps": 4, "guidance": 4.0, "seed": 0},
    {"prompt": "Café № 7:\n\ndéjà  vu!", "width": 32, "height": 64, "steps": 3, "guidance": 2.5,
     "seed": 5000000001},
    {"prompt": "", "width": 64, "height": 64, "steps": 6, "guidance": 1.0, "seed": 42},
]


def parts():
    transformer = Flux2Transformer2DModel(
        patch_size=1, in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=48 * len(LAYERS), timestep_guidance_channels=256,
        axes_dims_rope=[4, 4, 4, 4], guidance_embeds=False)
    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1, latent_channels=4,
        norm_num_groups=4, sample_size=32)
    encoder = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(
        vocab_size=4096, hidden_size=48, intermediate_size=80, num_hidden_layers=5,
        num_attention_heads=6, num_key_value_heads=2, head_dim=16, max_position_embeddings=512,
        rope_parameters={"rope_theta": 1e6, "rope_type": "default"}, tie_word_embeddings=False))
    return {"text_encoder": det.fill(encoder), "transformer": det.fill(transformer), "vae": det.fill(vae)}


def main():
    torch.set_grad_enabled(False)
    modules = parts()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file("models/omni-mini/tokenizer/tokenizer.json"),
        pad_token="<|endoftext|>", padding_side="right")
    tokenizer.chat_template = TEMPLATE
    for distilled in (False, True):
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
        pipe = Flux2KleinPipeline(scheduler=scheduler, tokenizer=tokenizer, is_distilled=distilled,
                                  **copy.copy(modules))
        pictures = []
        for case in CASES:
            x = pipe(prompt=case["prompt"], width=case["width"], height=case["height"],
                     num_inference_steps=case["steps"], guidance_scale=case["guidance"],
                     generator=torch.Generator().manual_seed(case["seed"]), output_type="np",
                     max_sequence_length=TOKENS, text_encoder_out_layers=LAYERS).images[0]
            pictures.append((case, x.transpose(2, 0, 1)))
        index = {"_class_name": "Flux2KleinPipeline", "is_distilled": distilled,
                 "text_encoder_out_layers": LAYERS, "max_sequence_length": TOKENS}
        name = "klein-distilled" if distilled else "klein-base"
        golden.write(f"tests/engine/golden/{name}", index, scheduler, modules, pictures)


if __name__ == "__main__":
    main()
