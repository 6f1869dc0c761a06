"""The same checkpoint once more as one file, in the names of its authors: safetensors, or GGUF with quantized weights.
What is written is what the pipeline then has: it draws with the numbers that the file holds."""
import glob
import json
import os

import gguf
import torch
from safetensors.torch import save_file

import single_names

STORED = ["Q8_0", "Q4_0", "Q5_1", "Q4_1", "Q5_0", "F16", "BF16", "F32"]


def lines_of(family, parts, layers=2, levels=4):
    """{name in the file: tensor}; `parts` is {part: {name: tensor}}; layers of the UNet, levels of the autoencoder."""
    s = single_names.Single({p: {n: t.shape for n, t in tensors.items()} for p, tensors in parts.items()})
    if family == "klein":
        single_names.add_flux2(s)
    elif family == "zimage":
        single_names.add_zimage(s)
    else:
        single_names.add_unet_and_vae(s, layers, levels)
        add_texts(s, family)
    s.parts = parts
    return s


def add_texts(s, family):
    if family == "sdxl":
        single_names.add_clip(s, "conditioner.embedders.0.transformer.")
        single_names.add_open_clip(s, "conditioner.embedders.1.model.")
    elif family == "sd2":
        single_names.add_open_clip(s, "cond_stage_model.model.", "text_encoder")
    else:
        single_names.add_clip(s, "cond_stage_model.transformer.")


def write_gguf(path, tensors, kind, arch):
    """Returns what the file holds, as numbers: only whole blocks are quantized."""
    writer, held = gguf.GGUFWriter(path, arch), {}
    for name, t in tensors.items():
        block = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][0]
        stored = kind if t.dim() == 2 and t.shape[1] % block == 0 else "F32"
        q = gguf.GGMLQuantizationType[stored]
        data = gguf.quants.quantize(t.numpy(), q)
        held[name] = torch.from_numpy(gguf.quants.dequantize(data, q).copy()).reshape(t.shape)
        writer.add_tensor(name, data, raw_dtype=q)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held


def take_back(s, held, module, part):
    """The module's tensors are those of the file."""
    state = module.state_dict()
    for name, (way, at, names) in s.lines.items():
        if at != part or way not in ("same", "join", "swap"):
            continue
        pieces = held[name].chunk(len(names)) if way == "join" else [held[name]]
        for n, t in zip(names, pieces, strict=True):
            state[n] = torch.cat(t.chunk(2)[::-1]) if way == "swap" else t.reshape(state[n].shape)
    module.load_state_dict(state)


def transformer_file(r, pipe, family, folder):
    s = lines_of(family, {"transformer": pipe.transformer.state_dict()})
    base = "" if getattr(pipe.config, "is_distilled", False) else "-base"
    tensors = {n: t.contiguous() for n, t in s.tensors().items()}
    kind = r.choice(STORED)
    os.makedirs(f"{folder}/file")
    path = f"{folder}/file/some{base}.{'safetensors' if kind == 'F32' else 'gguf'}"
    if kind == "F32":
        save_file(tensors, path)
    else:
        take_back(s, write_gguf(path, tensors, kind, "flux"), pipe.transformer, "transformer")
    with open(f"{folder}/file/config.json", "w", encoding="utf-8") as f:
        json.dump({"_class_name": type(pipe.transformer).__name__, **pipe.transformer.config}, f)
    return path, kind


def whole_file(pipe, family, folder):
    parts = ["unet", "vae", "text_encoder"] + ["text_encoder_2"] * (family == "sdxl")
    layers, levels = pipe.unet.config.layers_per_block, len(pipe.vae.config.block_out_channels)
    s = lines_of(family, {p: getattr(pipe, p).state_dict() for p in parts},
                 layers[0] if isinstance(layers, list) else layers, levels)
    tensors = {n: t.contiguous() for n, t in s.tensors().items()}
    tensors["alphas_cumprod"] = torch.linspace(1, 0, 1000)  # of training, as published files have them
    tensors["model_ema.decay"], tensors["global_step"] = torch.tensor(0.9999), torch.tensor(470000)
    if family == "sd2":
        add_last_layer(tensors)
    path = f"{folder}/some.safetensors"
    if hasattr(pipe, "odd"):
        path = f"{folder}/model/some.safetensors"
        for weights in glob.glob(f"{folder}/model/*/*.safetensors*"):
            os.remove(weights)
    save_file(tensors, path)
    return path


def add_last_layer(tensors):
    """Files of version 2 hold a layer that is not used, and a projection."""
    head = "cond_stage_model.model.transformer.resblocks."
    count = 1 + max(int(n[len(head):].split(".")[0]) for n in tensors if n.startswith(head))
    for n in [n for n in tensors if n.startswith(f"{head}0.")]:
        tensors[n.replace(f"{head}0.", f"{head}{count}.")] = torch.full_like(tensors[n], 7)
    width = tensors["cond_stage_model.model.token_embedding.weight"].shape[1]
    tensors["cond_stage_model.model.text_projection"] = torch.ones(width, width)


def registry(r, pipe, family, folder):
    """Lines of a profile, and what they are in words; the pipeline may change with them."""
    model = os.path.abspath(f"{folder}/model")
    if family.startswith("file-"):
        path = whole_file(pipe, family.removeprefix("file-"), folder)
        lines = [f"omni_model_id = {os.path.abspath(path)}", f"tokenizer = {model}/tokenizer"]
        if hasattr(pipe, "tokenizer_2"):
            lines.append(f"tokenizer_2 = {model}/tokenizer_2")
        return lines, "whole file with configs beside it" if hasattr(pipe, "odd") else "whole file"
    if hasattr(pipe, "transformer") and r.random() < 0.5:
        path, kind = transformer_file(r, pipe, family, folder)
        return [f"omni_model_id = {os.path.abspath(path)}", f"text_encoder = {model}", f"vae = {model}"], kind
    return [f"omni_model_id = {model}"], "folder"
