#!/usr/bin/env python3
"""Golden pictures with LoRAs by diffusers' own pipelines, for tests/engine/test_lora.c.

usage: golden_lora.py      from the repository's root; needs torch diffusers transformers peft

NAME.txt lists the tensors of a LoRA: "name dim dim …" (the values follow from the name), or
"name = number"; a line "metadata …" is what PEFT writes into the file's metadata.
"""
import json
import os
import tempfile

import numpy as np
import torch
import transformers
from diffusers import Flux2KleinPipeline, FlowMatchEulerDiscreteScheduler, StableDiffusionXLPipeline
from safetensors.torch import save_file
from tokenizers import Tokenizer

import det
import golden
import golden_klein as klein
import golden_stable_diffusion as sd

FOLDER = "tests/engine/golden/lora"
D, MLP = 32, 96  # of the klein that golden_klein.py draws with


def pair(lines, a, b, rank, fan_in, fan_out, conv=()):
    lines.append((a, (rank, fan_in, *conv)))
    lines.append((b, (fan_out, rank, *(1 for _ in conv))))


def klein_peft():
    lines, patterns = [], {"single_transformer_blocks.1.attn.to_out": 1.5}
    shapes = {"transformer_blocks.0.attn.to_q": (D, D), "transformer_blocks.0.attn.add_v_proj": (D, D),
              "transformer_blocks.1.attn.to_out.0": (D, D), "transformer_blocks.1.ff.linear_in": (D, 2 * MLP),
              "transformer_blocks.1.ff_context.linear_out": (MLP, D),
              "single_transformer_blocks.0.attn.to_qkv_mlp_proj": (D, 3 * D + 2 * MLP),
              "single_transformer_blocks.1.attn.to_out": (D + MLP, D), "context_embedder": (144, D)}
    for name, (fan_in, fan_out) in shapes.items():
        pair(lines, f"transformer.{name}.lora_A.weight", f"transformer.{name}.lora_B.weight", 4, fan_in, fan_out)
    return lines, {"transformer.r": 4, "transformer.lora_alpha": 8, "transformer.alpha_pattern": patterns,
                   "transformer.target_modules": sorted(shapes)}


def klein_original(prefix, down, up, alpha):
    lines = []
    shapes = {"double_blocks.0.img_attn.qkv": (D, 3 * D), "double_blocks.1.txt_attn.qkv": (D, 3 * D),
              "double_blocks.0.img_attn.proj": (D, D), "double_blocks.1.txt_mlp.0": (D, 2 * MLP),
              "double_blocks.1.img_mlp.2": (MLP, D), "single_blocks.0.linear1": (D, 3 * D + 2 * MLP),
              "single_blocks.1.linear2": (D + MLP, D)}
    for name, (fan_in, fan_out) in shapes.items():
        path = prefix + (name.replace(".", "_") if prefix.endswith("_") else name)
        pair(lines, f"{path}.{down}", f"{path}.{up}", 3, fan_in, fan_out)
        if alpha:
            lines.append((f"{path}.alpha", alpha))
    return lines, None


def xl_kohya():
    """Original names of the UNet's blocks, filters of 3x3 and 1x1, both text encoders."""
    lines = []
    linear = {"lora_unet_input_blocks_4_1_proj_in": (16, 16),
              "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q": (16, 16),
              "lora_unet_input_blocks_5_1_transformer_blocks_0_attn2_to_k": (64, 16),
              "lora_unet_middle_block_1_transformer_blocks_0_attn2_to_out_0": (16, 16),
              "lora_unet_output_blocks_2_1_transformer_blocks_0_ff_net_0_proj": (16, 128),
              "lora_unet_output_blocks_4_0_emb_layers_1": (32, 8),
              "lora_te1_text_model_encoder_layers_0_self_attn_q_proj": (24, 24),
              "lora_te1_text_model_encoder_layers_1_mlp_fc1": (24, 53),
              "lora_te2_text_model_encoder_layers_1_self_attn_out_proj": (40, 40)}
    for path, (fan_in, fan_out) in linear.items():
        pair(lines, f"{path}.lora_down.weight", f"{path}.lora_up.weight", 2, fan_in, fan_out)
        lines.append((f"{path}.alpha", 1.0))
    for path, fan_in, fan_out, side in (("lora_unet_input_blocks_1_0_in_layers_2", 8, 8, 3),
                                        ("lora_unet_input_blocks_3_0_op", 8, 8, 3),
                                        ("lora_unet_output_blocks_3_0_skip_connection", 24, 8, 1)):
        pair(lines, f"{path}.lora_down.weight", f"{path}.lora_up.weight", 2, fan_in, fan_out, (side, side))
        lines.append((f"{path}.alpha", 1.5))
    return lines, None


LORAS = {
    "peft": klein_peft(),
    "bfl": klein_original("diffusion_model.", "lora_A.weight", "lora_B.weight", None),
    "kohya": klein_original("lora_unet_", "lora_down.weight", "lora_up.weight", 2.0),
    "xl": xl_kohya(),
}
KLEIN = [
    ("klein-base", [("peft", 1.0)], klein.CASES[0]),
    ("klein-base", [("bfl", 0.75)], klein.CASES[0]),
    ("klein-base", [("kohya", 1.0)], klein.CASES[1]),
    ("klein-base", [("peft", 0.5), ("kohya", -0.5)], klein.CASES[0]),
]
XL = [("sdxl-lcm", [("xl", 1.0)], sd.case("a garden", 32, 32, 3, 8.5, 0)),
      ("sdxl-lcm", [("xl", -0.5)], sd.case("a garden", 40, 24, 2, 1.5, 0))]


def write_list(name, lines, metadata):
    with open(f"{FOLDER}/{name}.txt", "w", encoding="utf-8") as f:
        for tensor, value in lines:
            print(tensor, *(value if isinstance(value, tuple) else ("=", value)), file=f)
        if metadata:
            print("metadata", json.dumps(metadata), file=f)


def values_of(lines):
    return {n: det.weight(n, v) if isinstance(v, tuple) else torch.tensor(v) for n, v in lines}


def write_file(path, lines, metadata):
    values = {n: v for n, v in values_of(lines).items() if not n.startswith("lora_te")}
    save_file(values, path, {"lora_adapter_metadata": json.dumps(metadata)} if metadata else None)


def add_to_encoders(pipe, name, weight):
    """By hand: diffusers' own way for text encoders knows only older releases of transformers."""
    values = values_of(LORAS[name][0])
    for head, encoder in (("lora_te1_", "text_encoder"), ("lora_te2_", "text_encoder_2")):
        for key in [k for k in values if k.startswith(head) and k.endswith(".lora_down.weight")]:
            path = key.removesuffix(".lora_down.weight")
            down, up, alpha = values[key], values[path + ".lora_up.weight"], values[path + ".alpha"]
            plain = path.removeprefix(head).removeprefix("text_model_")
            [module] = [m for n, m in getattr(pipe, encoder).named_modules()
                        if n.replace(".", "_").removeprefix("text_model_") == plain]
            module.weight += weight * alpha / len(down) * up @ down


def draw(pipe, loras, call, files):
    names = []
    for name, weight in loras:
        add_to_encoders(pipe, name, weight)
        pipe.load_lora_weights(files, weight_name=f"{name}.safetensors", adapter_name=name)
        names.append(name)
    pipe.set_adapters(names, [w for _, w in loras])
    return call(pipe).images[0].transpose(2, 0, 1)


def klein_pipe():
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file("tests/engine/golden/tokenizer-qwen/tokenizer.json"),
        pad_token="<|endoftext|>", padding_side="right")
    tokenizer.chat_template = klein.TEMPLATE
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return Flux2KleinPipeline(scheduler=scheduler, tokenizer=tokenizer, is_distilled=False, **klein.parts())


def xl_pipe():
    tokenizers = {t: transformers.CLIPTokenizer.from_pretrained(f"{sd.TOKENIZERS}/{t}")
                  for t in ("tokenizer", "tokenizer_2")}
    return StableDiffusionXLPipeline(
        scheduler=sd.make_scheduler({"_class_name": "LCMScheduler", **sd.BETAS}), add_watermarker=False,
        force_zeros_for_empty_prompt=False, **tokenizers, **sd.sdxl_lcm_parts())


def main():
    torch.set_grad_enabled(False)
    os.makedirs(FOLDER, exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory() as files:
        for name, (lines, metadata) in LORAS.items():
            write_list(name, lines, metadata)
            write_file(f"{files}/{name}.safetensors", lines, metadata)
        jobs = [(klein_pipe, KLEIN, {"max_sequence_length": klein.TOKENS, "text_encoder_out_layers": klein.LAYERS}),
                (xl_pipe, XL, {})]
        for make, cases, options in jobs:
            for model, loras, case in cases:
                picture = draw(make(), loras, lambda pipe: pipe(
                    prompt=case["prompt"], width=case["width"], height=case["height"],
                    num_inference_steps=case["steps"], guidance_scale=case["guidance"],
                    generator=torch.Generator().manual_seed(case["seed"]), output_type="np", **options), files)
                np.rint(picture.transpose(1, 2, 0) * 255).astype(np.uint8).tofile(f"{FOLDER}/{len(rows)}.rgb")
                rows.append({"file": f"{len(rows)}.rgb", "model": model,
                             "loras": [{"name": n, "weight": w} for n, w in loras], **case})
    golden.write_json(f"{FOLDER}/cases.json", rows)


if __name__ == "__main__":
    main()
