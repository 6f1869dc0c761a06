#!/usr/bin/env python3
"""Golden checkpoints in the naming of single files, for tests/engine/test_single_file.c.

Writes single.txt into golden folders: one line a tensor of the single file, "NAME = WAY PART NAME …":

    same       the part's tensor
    join       the rows of several tensors, one after another
    swap       the halves of the rows, the second first
    transpose  rows and columns exchanged
    filter     a matrix as a 1x1 filter

Each list is proven: diffusers' own converters make the parts' tensors of it again. Also writes three
small checkpoints of Stable Diffusion, ldm-sd, ldm-sd2 and ldm-sdxl, that have the published models'
structure.

usage: single_names.py      from the repository's root; needs torch diffusers transformers
"""
import json
import os
import re

import torch
from diffusers import (AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler, UNet2DConditionModel)
from diffusers.loaders import single_file_utils as theirs
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

import golden

GOLDEN = "tests/engine/golden"


class Single:
    """A single file in the making: {name: (way, part, names)}."""

    def __init__(self, parts):
        self.parts, self.lines, self.counter = parts, {}, 0
        for tensors in parts.values():
            for name, shape in tensors.items():  # values that tell every element apart
                count = torch.Size(shape).numel()
                tensors[name] = torch.arange(self.counter, self.counter + count, dtype=torch.float64).reshape(shape)
                self.counter += count

    def add(self, name, part, names, way="same"):
        self.lines[name] = (way, part, names if isinstance(names, list) else [names])

    def tensor(self, name):
        way, part, names = self.lines[name]
        t = [self.parts[part][n] for n in names]
        if way == "join":
            return torch.cat(t)
        if way == "swap":
            return torch.cat(t[0].chunk(2)[::-1])
        if way == "transpose":
            return t[0].T.contiguous()
        return t[0][:, :, None, None] if way == "filter" else t[0]

    def tensors(self):
        return {name: self.tensor(name) for name in self.lines}

    def prove(self, part, back):
        ours = self.parts[part]
        assert set(back) == set(ours), set(back) ^ set(ours)
        for name, t in ours.items():
            assert torch.equal(back[name].reshape(t.shape), t), name

    def write(self, folder):
        with open(f"{folder}/single.txt", "w", encoding="utf-8") as f:
            for name, (way, part, names) in self.lines.items():
                print(name, "=", way, part, *names, file=f)


def read_parts(folder):
    parts = {}
    with open(f"{folder}/tensors.txt", encoding="utf-8") as f:
        for line in f:
            part, name, *shape = line.split()
            parts.setdefault(part, {})[name] = [int(n) for n in shape]
    return parts


def replaced(name, pairs):
    for old, new in pairs:
        name = re.sub(old, new, name)
    return name


# ---- transformers ----

def fused(single, part, names, queries, back):
    """Joins q, k, v of every block; `back` makes the single file's name of the query's."""
    for q in [n for n in names if queries[0] in n]:
        single.add(back(q), part, [q] + [q.replace(queries[0], other) for other in queries[1:]], "join")


FLUX2 = [(r"^x_embedder", "img_in"), (r"^context_embedder", "txt_in"), (r"^proj_out", "final_layer.linear"),
         (r"^time_guidance_embed.timestep_embedder.linear_1", "time_in.in_layer"),
         (r"^time_guidance_embed.timestep_embedder.linear_2", "time_in.out_layer"),
         (r"(_modulation\w*).linear", r"\1.lin"), (r"^single_transformer_blocks", "single_blocks"),
         (r"^transformer_blocks", "double_blocks"),
         (r"attn.to_qkv_mlp_proj", "linear1"), (r"(single_blocks.\d+).attn.to_out", r"\1.linear2"),
         (r"(single_blocks.\d+).attn.norm_q.weight", r"\1.norm.query_norm.scale"),
         (r"(single_blocks.\d+).attn.norm_k.weight", r"\1.norm.key_norm.scale"),
         (r"attn.norm_q.weight", "img_attn.norm.query_norm.scale"), (r"attn.norm_k.weight", "img_attn.norm.key_norm.scale"),
         (r"attn.norm_added_q.weight", "txt_attn.norm.query_norm.scale"),
         (r"attn.norm_added_k.weight", "txt_attn.norm.key_norm.scale"),
         (r"attn.to_out.0", "img_attn.proj"), (r"attn.to_add_out", "txt_attn.proj"),
         (r"\.ff.linear_in", ".img_mlp.0"), (r"\.ff.linear_out", ".img_mlp.2"),
         (r"ff_context.linear_in", "txt_mlp.0"), (r"ff_context.linear_out", "txt_mlp.2")]


def add_flux2(s):
    names = s.parts["transformer"]
    for n in names:
        if n.startswith("norm_out"):
            s.add("final_layer.adaLN_modulation.1.weight", "transformer", n, "swap")
        elif not re.search(r"\.(to|add)_[qkv](_proj)?\.", n):
            s.add(replaced(n, FLUX2), "transformer", n)
    for queries, stream in ((["to_q.", "to_k.", "to_v."], "img"), (["add_q_proj.", "add_k_proj.", "add_v_proj."], "txt")):
        fused(s, "transformer", names, queries,
              lambda q: re.sub(r"^transformer_blocks(.\d+).attn.*", rf"double_blocks\1.{stream}_attn.qkv.weight", q))


def flux2(folder):
    s = Single(read_parts(folder))
    add_flux2(s)
    s.prove("transformer", theirs.convert_flux2_transformer_checkpoint_to_diffusers(s.tensors()))
    s.write(folder)


ZIMAGE = [(r"^all_x_embedder.2-1", "x_embedder"), (r"^all_final_layer.2-1", "final_layer"),
          (r"attention.to_out.0", "attention.out"), (r"attention.norm_q", "attention.q_norm"),
          (r"attention.norm_k", "attention.k_norm")]


def add_zimage(s):
    names = s.parts["transformer"]
    for n in names:
        if not re.search(r"\.to_[qkv]\.", n):
            s.add("model.diffusion_model." + replaced(n, ZIMAGE), "transformer", n)
    fused(s, "transformer", names, ["to_q.", "to_k.", "to_v."],
          lambda q: "model.diffusion_model." + q.replace("to_q.", "qkv."))


def zimage(folder):
    s = Single(read_parts(folder))
    add_zimage(s)
    s.prove("transformer", theirs.convert_z_image_transformer_checkpoint_to_diffusers(s.tensors()))
    s.write(folder)


# ---- Stable Diffusion ----

RESNET = [(r"norm1", "in_layers.0"), (r"conv1", "in_layers.2"), (r"time_emb_proj", "emb_layers.1"),
          (r"norm2", "out_layers.0"), (r"conv2", "out_layers.3"), (r"conv_shortcut", "skip_connection")]
STEM = [(r"^conv_in", "input_blocks.0.0"), (r"^conv_norm_out", "out.0"), (r"^conv_out", "out.2"),
        (r"^time_embedding.linear_1", "time_embed.0"), (r"^time_embedding.linear_2", "time_embed.2"),
        (r"^add_embedding.linear_1", "label_emb.0.0"), (r"^add_embedding.linear_2", "label_emb.0.2")]


def unet_name(name, names, layers=2):
    m = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name)
    if m:
        way, block, layer, rest = m[1], int(m[2]), int(m[4]), m[5]
        if m[3] == "downsamplers":
            return f"input_blocks.{(layers + 1) * (block + 1)}.0." + rest.replace("conv", "op")
        if m[3] == "upsamplers":
            attends = f"up_blocks.{block}.attentions.0.norm.weight" in names
            return f"output_blocks.{(layers + 1) * block + layers}.{2 if attends else 1}.{rest}"
        at = (layers + 1) * block + layer
        step = f"input_blocks.{1 + at}" if way == "down" else f"output_blocks.{at}"
        return step + (f".0.{replaced(rest, RESNET)}" if m[3] == "resnets" else f".1.{rest}")
    m = re.match(r"mid_block\.resnets\.(\d)\.(.*)", name)
    if m:
        return f"middle_block.{2 * int(m[1])}." + replaced(m[2], RESNET)
    return replaced(name.replace("mid_block.attentions.0", "middle_block.1"), STEM)


def vae_rules(levels=4):
    return VAE + [(r"up_blocks.(\d).upsamplers.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample"),
                  (r"up_blocks.(\d).resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block")]


VAE = [(r"mid_block.resnets.0", "mid.block_1"), (r"mid_block.resnets.1", "mid.block_2"),
       (r"mid_block.attentions.0", "mid.attn_1"), (r"down_blocks.(\d).resnets", r"down.\1.block"),
       (r"down_blocks.(\d).downsamplers.0", r"down.\1.downsample"), (r"conv_shortcut", "nin_shortcut"),
       (r"conv_norm_out", "norm_out"), (r"group_norm", "norm"), (r"to_out.0", "proj_out"), (r"to_([qkv])\.", r"\1.")]
OPEN_CLIP = [(r"^(text_model.)?embeddings.token_embedding", "token_embedding"),
             (r"^(text_model.)?embeddings.position_embedding.weight", "positional_embedding"),
             (r"^(text_model.)?encoder.layers", "transformer.resblocks"), (r"^(text_model.)?final_layer_norm", "ln_final"),
             (r"layer_norm", "ln_"), (r"mlp.fc1", "mlp.c_fc"), (r"mlp.fc2", "mlp.c_proj"), (r"self_attn.out_proj", "attn.out_proj")]


def add_unet_and_vae(s, layers=2, levels=4):
    names = s.parts["unet"]
    for n in names:
        s.add("model.diffusion_model." + unet_name(n, names, layers), "unet", n)
    for n, t in s.parts["vae"].items():
        matrix = "attentions" in n and t.dim() == 2
        s.add("first_stage_model." + replaced(n, vae_rules(levels)), "vae", n, "filter" if matrix else "same")


def add_clip(s, prefix):
    for n in s.parts["text_encoder"]:
        s.add(prefix + ("" if n.startswith("text_model.") else "text_model.") + n, "text_encoder", n)


def add_open_clip(s, prefix, part="text_encoder_2"):
    for n in s.parts[part]:
        if n == "text_projection.weight":
            s.add(prefix + "text_projection", part, n, "transpose")
        elif not re.search(r"[qkv]_proj", n):
            s.add(prefix + replaced(n, OPEN_CLIP), part, n)
        elif "q_proj" in n:
            joined = replaced(n, OPEN_CLIP).replace("self_attn.q_proj.", "attn.in_proj_")
            s.add(prefix + joined, part, [n.replace("q_proj", x) for x in ("q_proj", "k_proj", "v_proj")], "join")


def prove_clip(s, back):
    strip = lambda d: {n.removeprefix("text_model."): t for n, t in d.items()}
    s.parts["text_encoder"] = strip(s.parts["text_encoder"])
    s.prove("text_encoder", strip(back))


def encoder(kind, act):
    with open(f"{GOLDEN}/clip/tokenizer/vocab.json", encoding="utf-8") as f:
        count = len(json.load(f))
    return kind(CLIPTextConfig(
        vocab_size=count, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=1,
        max_position_embeddings=77, hidden_act=act, projection_dim=64, bos_token_id=count - 2, eos_token_id=count - 1))


def vae(scaling):
    return AutoencoderKL(
        block_out_channels=(32, 32, 64, 64), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, latent_channels=4, norm_num_groups=32,
        scaling_factor=scaling)


NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
         "clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True}


def stable_diffusion(folder):
    unet = UNet2DConditionModel(
        block_out_channels=(32, 32, 64, 64), down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, layers_per_block=2, norm_num_groups=32,
        attention_head_dim=8, cross_attention_dim=64, sample_size=64)
    parts = {"unet": unet, "vae": vae(0.18215), "text_encoder": encoder(CLIPTextModel, "quick_gelu")}
    golden.write(folder, {"_class_name": "StableDiffusionPipeline"}, PNDMScheduler(), parts, [])
    scheduler = {"_class_name": "PNDMScheduler", "num_train_timesteps": 1000, **NOISE}
    golden.write_json(f"{folder}/scheduler/scheduler_config.json", scheduler)
    os.remove(f"{folder}/cases.json")  # no pictures: the folder's are the file's
    s = Single(read_parts(folder))
    add_unet_and_vae(s)
    add_clip(s, "cond_stage_model.transformer.")
    s.prove("unet", theirs.convert_ldm_unet_checkpoint(s.tensors(), dict(unet.config)))
    s.prove("vae", theirs.convert_ldm_vae_checkpoint(s.tensors(), dict(parts["vae"].config)))
    s.write(folder)
    prove_clip(s, theirs.convert_ldm_clip_checkpoint(s.tensors()))


def stable_diffusion_small(folder):
    """One layer a block and an autoencoder of two levels: what shapes do not tell is in configs beside the file."""
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16), down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), layers_per_block=1, norm_num_groups=4,
        attention_head_dim=(1, 2), cross_attention_dim=64, sample_size=16)
    coder = AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1, latent_channels=4, norm_num_groups=4, scaling_factor=0.4)
    parts = {"unet": unet, "vae": coder, "text_encoder": encoder(CLIPTextModel, "gelu")}
    golden.write(folder, {"_class_name": "StableDiffusionPipeline"}, PNDMScheduler(), parts, [])
    golden.write_json(f"{folder}/scheduler/scheduler_config.json",
                      {"_class_name": "PNDMScheduler", "num_train_timesteps": 1000, **NOISE})
    os.remove(f"{folder}/cases.json")  # no pictures: the folder's are the file's
    s = Single(read_parts(folder))
    add_unet_and_vae(s, 1, 2)
    add_clip(s, "cond_stage_model.transformer.")
    s.prove("unet", theirs.convert_ldm_unet_checkpoint(s.tensors(), dict(unet.config)))
    s.prove("vae", theirs.convert_ldm_vae_checkpoint(s.tensors(), dict(coder.config)))
    s.write(folder)
    prove_clip(s, theirs.convert_ldm_clip_checkpoint(s.tensors()))


def stable_diffusion_2(folder):
    """The file has one layer of the text encoder more than is used, and its projection."""
    unet = UNet2DConditionModel(
        block_out_channels=(32, 32, 64, 64), down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, layers_per_block=2, norm_num_groups=32,
        attention_head_dim=(1, 1, 1, 1), cross_attention_dim=64, sample_size=96, use_linear_projection=True)
    parts = {"unet": unet, "vae": vae(0.18215), "text_encoder": encoder(CLIPTextModel, "gelu")}
    golden.write(folder, {"_class_name": "StableDiffusionPipeline"}, DDIMScheduler(), parts, [])
    scheduler = {"_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "prediction_type": "v_prediction", **NOISE}
    golden.write_json(f"{folder}/scheduler/scheduler_config.json", scheduler)
    os.remove(f"{folder}/cases.json")  # no pictures: the folder's are the file's
    s = Single(read_parts(folder))
    prefix, last = "cond_stage_model.model.", "transformer.resblocks.1."
    add_unet_and_vae(s)
    add_open_clip(s, prefix, "text_encoder")
    for name, line in list(s.lines.items()):
        if name.startswith(prefix + last):
            s.lines[name.replace(last, "transformer.resblocks.2.")] = line
    query = next(n for n in s.parts["text_encoder"] if n.endswith("layers.0.self_attn.q_proj.weight"))
    s.add(prefix + "text_projection", "text_encoder", query)
    theirs.SD_2_TEXT_ENCODER_KEYS_TO_IGNORE[:] = [
        n.replace("resblocks.23", "resblocks.2") for n in theirs.SD_2_TEXT_ENCODER_KEYS_TO_IGNORE]
    s.prove("unet", theirs.convert_ldm_unet_checkpoint(s.tensors(), dict(unet.config)))
    s.prove("vae", theirs.convert_ldm_vae_checkpoint(s.tensors(), dict(parts["vae"].config)))
    s.write(folder)
    back = theirs.convert_open_clip_checkpoint(parts["text_encoder"], s.tensors())
    prove_clip(s, {n: t for n, t in back.items() if "text_projection" not in n})


def stable_diffusion_xl(folder):
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64, 64), down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",), layers_per_block=2, norm_num_groups=32,
        attention_head_dim=(1, 1, 1), transformer_layers_per_block=(1, 1, 2), cross_attention_dim=128, sample_size=128,
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=64 + 6 * 256)
    parts = {"unet": unet, "vae": vae(0.13025), "text_encoder": encoder(CLIPTextModel, "quick_gelu"),
             "text_encoder_2": encoder(CLIPTextModelWithProjection, "gelu")}
    golden.write(folder, {"_class_name": "StableDiffusionXLPipeline"}, EulerDiscreteScheduler(), parts, [])
    scheduler = {"_class_name": "EulerDiscreteScheduler", "num_train_timesteps": 1000, "timestep_spacing": "leading", **NOISE}
    golden.write_json(f"{folder}/scheduler/scheduler_config.json", scheduler)
    os.remove(f"{folder}/cases.json")  # no pictures: the folder's are the file's
    s = Single(read_parts(folder))
    add_unet_and_vae(s)
    add_clip(s, "conditioner.embedders.0.transformer.")
    add_open_clip(s, "conditioner.embedders.1.model.")
    s.prove("unet", theirs.convert_ldm_unet_checkpoint(s.tensors(), dict(unet.config)))
    s.prove("vae", theirs.convert_ldm_vae_checkpoint(s.tensors(), dict(parts["vae"].config)))
    s.prove("text_encoder_2", theirs.convert_open_clip_checkpoint(parts["text_encoder_2"], s.tensors(),
                                                                  "conditioner.embedders.1.model."))
    s.write(folder)
    prove_clip(s, theirs.convert_ldm_clip_checkpoint(s.tensors()))


if __name__ == "__main__":
    flux2(f"{GOLDEN}/klein-base")
    zimage(f"{GOLDEN}/zimage")
    stable_diffusion(f"{GOLDEN}/ldm-sd")
    stable_diffusion_small(f"{GOLDEN}/ldm-small")
    stable_diffusion_2(f"{GOLDEN}/ldm-sd2")
    stable_diffusion_xl(f"{GOLDEN}/ldm-sdxl")
