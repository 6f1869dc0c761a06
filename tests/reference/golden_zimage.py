#!/usr/bin/env python3
"""Golden pictures of Z-Image by diffusers' own pipeline, for tests/engine/test_golden.c.

usage: golden_zimage.py     from the repository's root; needs torch diffusers transformers
"""
import torch
import transformers
from diffusers import (AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImageImg2ImgPipeline,
                       ZImageInpaintPipeline, ZImagePipeline, ZImageTransformer2DModel)
from PIL import Image
from tokenizers import Tokenizer

import det
import golden

TOKENS = 48
TEMPLATE = ("{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}"
            "{%- endfor %}{{- '<|im_start|>assistant\n' }}")
CASES = [
    {"prompt": "an old stone house", "width": 48, "height": 32, "steps": 4, "guidance": 0.0, "seed": 0},
    {"prompt": "Café № 7:\n\ndéjà  vu!", "negative_prompt": "blurred, a long list of faults, more and more of them",
     "width": 32, "height": 64, "steps": 3, "guidance": 2.5, "seed": 5000000001},
    {"prompt": "a red boat", "width": 64, "height": 64, "steps": 5, "guidance": 1.0, "seed": 42},
    {"mode": "image_to_image", "prompt": "the same at night", "images": [[70, 50, 1]], "strength": 0.6,
     "width": 48, "height": 32, "steps": 5, "guidance": 2.0, "seed": 1},
    {"mode": "inpaint", "prompt": "a red door", "images": [[48, 32, 2]], "mask": [48, 32, -1], "strength": 0.8,
     "width": 48, "height": 32, "steps": 5, "guidance": 0.0, "seed": 2},
    {"mode": "inpaint", "prompt": "a window", "images": [[30, 60, 3]], "mask": [60, 40, 5], "strength": 1.0,
     "width": 32, "height": 48, "steps": 4, "guidance": 3.0, "seed": 3},
]

DYNAMIC = [
    {"prompt": "a red boat", "width": 48, "height": 64, "steps": 4, "guidance": 0.0, "seed": 5},
    {"mode": "image_to_image", "prompt": "at night", "images": [[70, 50, 1]], "strength": 0.7,
     "width": 32, "height": 32, "steps": 4, "guidance": 2.0, "seed": 6},
]


OPTIONS = [
    {"prompt": "a red boat", "negative_prompt": "blurred", "width": 48, "height": 64, "steps": 4, "guidance": 2.0,
     "seed": 7},
]


def with_options(modules):
    """Biases and positions closer together in the text encoder."""
    config = modules["text_encoder"].config.to_dict()
    config.update(attention_bias=True, rope_parameters={"rope_theta": 1e6, "rope_type": "linear", "factor": 4.0})
    return {**modules, "text_encoder": det.fill(transformers.Qwen3Model(transformers.Qwen3Config(**config)))}


def parts():
    transformer = ZImageTransformer2DModel(
        in_channels=16, dim=48, n_layers=2, n_refiner_layers=1, n_heads=3, n_kv_heads=3, norm_eps=1e-5,
        cap_feat_dim=40, rope_theta=256.0, t_scale=1000.0, axes_dims=[8, 4, 4], axes_lens=[256, 32, 32])
    vae = AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1, latent_channels=16,
        norm_num_groups=4, sample_size=32, use_quant_conv=False, use_post_quant_conv=False,
        scaling_factor=0.3611, shift_factor=0.1159)
    encoder = transformers.Qwen3Model(transformers.Qwen3Config(
        vocab_size=4096, hidden_size=40, intermediate_size=72, num_hidden_layers=3,
        num_attention_heads=5, num_key_value_heads=1, head_dim=12, max_position_embeddings=512,
        rope_parameters={"rope_theta": 1e6, "rope_type": "default"}, tie_word_embeddings=False))
    return {"text_encoder": det.fill(encoder), "transformer": det.fill(transformer), "vae": det.fill(vae)}


def main():
    torch.set_grad_enabled(False)
    modules = parts()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file("tests/engine/golden/tokenizer-qwen/tokenizer.json"),
        pad_token="<|endoftext|>", padding_side="right")
    tokenizer.chat_template = TEMPLATE
    draw("zimage", FlowMatchEulerDiscreteScheduler(shift=3.0), modules, tokenizer, CASES)
    draw("zimage-dynamic", FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, max_image_seq_len=1024),
         modules, tokenizer, DYNAMIC)
    draw("zimage-options", FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, max_image_seq_len=1024, time_shift_type="linear"), with_options(modules), tokenizer, OPTIONS)


def draw(name, scheduler, modules, tokenizer, cases):
    pipes = {mode: kind(scheduler=scheduler, tokenizer=tokenizer, **modules)
             for mode, kind in ((None, ZImagePipeline), ("image_to_image", ZImageImg2ImgPipeline),
                                ("inpaint", ZImageInpaintPipeline))}
    pictures = []
    for case in cases:
        more = {}
        if "images" in case:
            size = case["width"], case["height"]
            more.update(image=golden.picture(*case["images"][0]).resize(size, Image.LANCZOS),
                        strength=case["strength"])
        if "mask" in case:
            more["mask_image"] = golden.mask(*case["mask"])
        x = pipes[case.get("mode")](
            prompt=case["prompt"], negative_prompt=case.get("negative_prompt"), width=case["width"],
            height=case["height"], num_inference_steps=case["steps"], guidance_scale=case["guidance"],
            generator=torch.Generator().manual_seed(case["seed"]), output_type="np",
            max_sequence_length=TOKENS, **more).images[0]
        pictures.append((case, x.transpose(2, 0, 1)))
    index = {"_class_name": "ZImagePipeline", "max_sequence_length": TOKENS}
    golden.write(f"tests/engine/golden/{name}", index, scheduler, modules, pictures)


if __name__ == "__main__":
    main()
