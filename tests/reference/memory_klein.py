#!/usr/bin/env python3
"""How much memory and time a picture with FLUX.2 [klein] 4B's shapes takes from files.

usage: memory_klein.py FOLDER [--memory 12G] [--sizes 512,1024] [--steps 1,4] [--omnifs build/omnifs] [--keep]

From the repository's root; needs torch diffusers transformers to write. Writes a checkpoint of 16 GB in the
hub's layout into FOLDER, where it is not there already: configs and names are those of the published
model, values repeat in a pattern that keeps activations finite. Then draws through `omnifs run`, each
time in a new process, and prints seconds and the largest resident set (VmHWM). Without --keep the
checkpoint is deleted in the end.
"""
import argparse
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import time

TRANSFORMER = dict(patch_size=1, in_channels=128, num_layers=5, num_single_layers=20, attention_head_dim=128,
                   num_attention_heads=24, joint_attention_dim=7680, timestep_guidance_channels=256, mlp_ratio=3.0,
                   axes_dims_rope=[32, 32, 32, 32], rope_theta=2000, guidance_embeds=False)
ENCODER = dict(vocab_size=151936, hidden_size=2560, intermediate_size=9728, num_hidden_layers=36,
               num_attention_heads=32, num_key_value_heads=8, head_dim=128, rms_norm_eps=1e-6, rope_theta=1000000,
               tie_word_embeddings=True)
VAE = dict(block_out_channels=[128, 256, 512, 512], layers_per_block=2, latent_channels=32,
           down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4)
SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0,
             "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256,
             "max_image_seq_len": 4096}
SHARD, BLOCK = 5 << 30, 1 << 24  # bytes; values


class Values:
    """bf16 values as bytes: one block of random numbers a scale, again and again."""

    def __init__(self):
        import numpy as np
        self.np = np
        self.random = np.random.default_rng(0).uniform(-1, 1, BLOCK).astype(np.float32)
        self.blocks = {}

    def block(self, base, scale):
        if (base, scale) not in self.blocks:
            bits = (base + scale * self.random).astype(self.np.float32).view(self.np.uint32)
            self.blocks[base, scale] = ((bits + 0x8000) >> 16).astype(self.np.uint16).tobytes()
        return self.blocks[base, scale]

    def of(self, name, shape):
        if "running_var" in name:
            return self.block(1.0, 0.0)
        if len(shape) < 2:
            return self.block(1.0, 0.1) if name.endswith("weight") else self.block(0.0, 0.02)
        fan_in = math.prod(shape[1:])
        return self.block(0.0, 2.0 ** round(math.log2(math.sqrt(3 / fan_in))))


def write_file(path, tensors, values):
    header, offset = {}, 0
    for name, shape in tensors:
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors:
            block, left = values.of(name, shape), 2 * math.prod(shape)
            while left > 0:
                left -= f.write(block[:left])


def shapes(make):
    import torch
    with torch.device("meta"):
        module = make()
    kept = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    return [(n, s) for n, s in kept.items() if s and n != "lm_head.weight"]


def write_part(folder, stem, config, tensors, values):
    os.makedirs(folder)
    with open(f"{folder}/config.json", "w") as f:
        json.dump(config, f)
    shards, size = [[]], 0
    for name, shape in tensors:
        bytes_ = 2 * math.prod(shape)
        if shards[-1] and size + bytes_ > SHARD and stem == "model":
            shards.append([])
            size = 0
        shards[-1].append((name, shape))
        size += bytes_
    if len(shards) == 1:
        write_file(f"{folder}/{stem}.safetensors", shards[0], values)
        return
    where = {}
    for i, shard in enumerate(shards):
        file = f"{stem}-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        write_file(f"{folder}/{file}", shard, values)
        where.update({name: file for name, _ in shard})
    with open(f"{folder}/{stem}.safetensors.index.json", "w") as f:
        json.dump({"metadata": {}, "weight_map": where}, f)


def write_checkpoint(folder):
    import transformers
    from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
    values = Values()
    os.makedirs(f"{folder}/scheduler")
    shutil.copytree("models/omni-mini/tokenizer", f"{folder}/tokenizer")
    with open(f"{folder}/model_index.json", "w") as f:
        json.dump({"_class_name": "Flux2KleinPipeline", "is_distilled": True,
                   "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
                   "text_encoder": ["transformers", "Qwen3ForCausalLM"],
                   "tokenizer": ["transformers", "Qwen2TokenizerFast"],
                   "transformer": ["diffusers", "Flux2Transformer2DModel"],
                   "vae": ["diffusers", "AutoencoderKLFlux2"]}, f)
    with open(f"{folder}/scheduler/scheduler_config.json", "w") as f:
        json.dump(SCHEDULER, f)
    encoder = {k: v for k, v in ENCODER.items() if k != "rope_theta"}
    encoder["rope_parameters"] = {"rope_theta": ENCODER["rope_theta"], "rope_type": "default"}
    write_part(f"{folder}/text_encoder", "model", {"architectures": ["Qwen3ForCausalLM"], **ENCODER},
               shapes(lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**encoder))), values)
    write_part(f"{folder}/transformer", "diffusion_pytorch_model",
               {"_class_name": "Flux2Transformer2DModel", **TRANSFORMER},
               shapes(lambda: Flux2Transformer2DModel(**TRANSFORMER)), values)
    write_part(f"{folder}/vae", "diffusion_pytorch_model", {"_class_name": "AutoencoderKLFlux2", **VAE},
               shapes(lambda: AutoencoderKLFlux2(**VAE)), values)


def high_water(pid):
    try:
        with open(f"/proc/{pid}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0


def draw(options, work, size, steps):
    """Runs omnifs; exit status, seconds, VmHWM in kB, metadata or the message."""
    registry, ini = f"{work}/registry.ini", f"{work}/prompt.ini"
    with open(registry, "w") as f:
        f.write(f"[image_default]\nomni_model_id = {os.path.abspath(options.folder)}\nmodality = image\n"
                f"timeout = 3600\nprecision = bf16\n[devices]\nmemory = {options.memory}\n")
    with open(ini, "w") as f:
        f.write(f"prompt = an old stone house\nsize = {size}x{size}\nsteps = {steps}\nseed = 1\n")
    start, most = time.time(), 0
    p = subprocess.Popen([options.omnifs, "run", ini, "--json", "-o", f"{work}/out"], text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         env={**os.environ, "OMNIFS_REGISTRY": registry})
    while p.poll() is None:
        most = max(most, high_water(p.pid))
        time.sleep(0.1)
    seconds = time.time() - start
    out, said = p.communicate()
    return p.returncode, seconds, most, json.loads(out) if p.returncode == 0 else said.strip()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--memory", default="12G")
    parser.add_argument("--sizes", default="512")
    parser.add_argument("--steps", default="1,4")
    parser.add_argument("--omnifs", default="build/omnifs")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    if not os.path.exists(f"{options.folder}/model_index.json"):
        print("writing 16 GB …", file=sys.stderr)
        write_checkpoint(options.folder)
    work = options.folder + ".run"
    os.makedirs(work, exist_ok=True)
    print("| size | steps | seconds | largest resident set |\n|---|---|---|---|")
    for size in options.sizes.split(","):
        for steps in options.steps.split(","):
            code, seconds, most, said = draw(options, work, size, steps)
            print(f"| {size} | {steps} | {seconds:.1f} | {most * 1024 / 1e9:.2f} GB |", flush=True)
            if code:
                print(said)
            elif os.environ.get("VERBOSE"):
                print(json.dumps(said, indent=1))
    shutil.rmtree(work)
    if not options.keep:
        shutil.rmtree(options.folder)


if __name__ == "__main__":
    main()
