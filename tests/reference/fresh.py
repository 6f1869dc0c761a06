#!/usr/bin/env python3
"""Holds the program to diffusers on checkpoints and requests that nobody chose (fresh_models.py): draws the same with
both, in fp32, and compares.

usage: fresh.py [-f FAMILY]… [-k FOLDER] [-c CASES] SEED…     from the repository's root; $OMNIFS names the program

-f  klein, zimage, sdxl, sd, file-sd, file-sd2, file-sdxl; all without it     -k  keep checkpoints and pictures there     -c  requests a checkpoint
What a seed makes depends on nothing else. Exits 1 when a picture is below 60 dB.
"""
import argparse
import copy
import os
import random
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import torch
import diffusers
from diffusers.utils import logging
from PIL import Image, ImageFilter
from safetensors.torch import save_file

import fresh_files
import fresh_loras
import fresh_models as fresh

LEAST_DB = 60
REGISTRY = """[image_default]
{model}
modality = image
precision = fp32
default_size = 64x64
max_resolution = 2048x2048
max_steps = 200
max_count = 16

[devices]
threads = 1

[safety]
allow_off = yes
allow_no_watermark = yes
"""
SWAPS = {"euler": "EulerDiscreteScheduler", "euler_a": "EulerAncestralDiscreteScheduler", "ddim": "DDIMScheduler",
         "dpmpp_2m": "DPMSolverMultistepScheduler", "dpmpp_2m_karras": "DPMSolverMultistepScheduler", "unipc": "UniPCMultistepScheduler", "pndm": "PNDMScheduler",
         "lcm": "LCMScheduler"}
FAULTS = (ValueError, IndexError, ZeroDivisionError, RuntimeError)  # requests that diffusers itself does not draw


# ---- requests ----

def picture(r, width, height):
    """Soft shapes with some grain."""
    small = np.random.default_rng(r.getrandbits(32)).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    grain = np.random.default_rng(r.getrandbits(32)).integers(-12, 13, (height, width, 3))
    soft = np.asarray(Image.fromarray(small).resize((width, height), Image.BICUBIC)).astype(int)
    return Image.fromarray(np.clip(soft + grain, 0, 255).astype(np.uint8))


def mask(r, width, height):
    """Black and white, or with shades between: a half or a blob."""
    y, x = np.mgrid[:height, :width]
    if r.random() < 0.4:
        white = x >= r.randint(1, width - 1)
    else:
        white = (x / width - r.random())**2 + (y / height - r.random())**2 < r.uniform(0.05, 0.5)
    white[:1, :1] = True
    hard = Image.fromarray(np.where(white, 255, 0).astype(np.uint8))
    return hard.filter(ImageFilter.GaussianBlur(r.uniform(1, 6))) if r.random() < 0.4 else hard


def request(r, modes, multiple, guided, swaps):
    mode = r.choice(modes)
    steps = r.choice([1, *range(2, 10)])
    q = {"mode": mode, "prompt": r.choice([fresh.text(r, r.randint(1, 9)), fresh.text(r, r.randint(1, 9)), "",
                                           fresh.text(r, 700), fresh.text(r, 60), fresh.odd_text(r)]),
         "width": multiple * r.randint(max(1, 24 // multiple), max(2, 96 // multiple)),
         "height": multiple * r.randint(max(1, 24 // multiple), max(2, 96 // multiple)), "steps": steps,
         "guidance": r.choice(guided), "seed": r.choice([r.getrandbits(8), r.getrandbits(31), r.getrandbits(33)])}
    if r.random() < 0.5:
        q["negative_prompt"] = r.choice([fresh.text(r, r.randint(1, 12)), "", fresh.text(r, 90)])
    if swaps and r.random() < 0.4:
        q["scheduler"] = r.choice(list(SWAPS))
    if r.random() < 0.25:
        q["count"] = r.randint(2, 3)
    if mode != "text_to_image":
        q["strength"] = min(1.0, round(r.uniform(1.01 / steps, 1.0), 2)) if r.random() < 0.7 else r.choice([1.0, 0.99, 0.01])
        q["images"] = [picture(r, *scaled(r, q))]
    if mode == "inpaint":
        q["mask"] = mask(r, *scaled(r, q))
    return q


def scaled(r, q):
    """The size of what is given: mostly that of the drawing."""
    factor = r.choice([1, 1, 1, 2, 0.5, 1.5])
    return int(q["width"] * factor), int(q["height"] * factor)


# ---- by diffusers ----

def sibling(pipe, mode):
    name = type(pipe).__name__
    for kind in ("Img2Img", "Inpaint"):
        name = name.replace(kind, "")
    kind = {"text_to_image": "", "image_to_image": "Img2Img", "inpaint": "Inpaint"}[mode]
    if "Klein" in name and mode != "inpaint":
        kind = ""
    cls = getattr(diffusers, name.replace("Pipeline", kind + "Pipeline"))
    if isinstance(pipe, cls):
        return pipe
    more = {n: pipe.config[n] for n in ("requires_safety_checker", "force_zeros_for_empty_prompt", "is_distilled")
            if n in pipe.config}
    own = {**pipe.components, "scheduler": copy.deepcopy(pipe.scheduler)}  # siblings correct its options, each its own
    other = cls(**own, **more)
    other.set_progress_bar_config(disable=True)
    return other


def swapped(own, word):
    karras = {"use_karras_sigmas": word.endswith("karras")} if word.startswith("dpmpp") else {}
    return getattr(diffusers, SWAPS[word]).from_config(own.config, **karras)


def stretched(q):
    """For pipelines that draw at the size of what is given."""
    return q["images"][0].resize((q["width"], q["height"]), Image.LANCZOS)


def by_diffusers(pipe, q, index):
    drawing = sibling(pipe, q["mode"])
    own = drawing.scheduler
    more = {"width": q["width"], "height": q["height"]}
    if q["mode"] == "inpaint":
        more.update(image=q["images"][0] if hasattr(pipe, "unet") else stretched(q), mask_image=q["mask"],
                    strength=q["strength"])
        if len(q["images"]) > 1:
            more["image_reference"] = q["images"][1:] if len(q["images"]) > 2 else q["images"][1]
    elif q["mode"] == "image_to_image" and "Klein" in type(pipe).__name__:
        more["image"] = q["images"]
    elif q["mode"] == "image_to_image":
        more = {"image": stretched(q), "strength": q["strength"]}
        if "ZImage" in type(pipe).__name__:
            more.update(width=q["width"], height=q["height"])
    if "negative_prompt" in q and "Klein" not in type(pipe).__name__:
        more["negative_prompt"] = q["negative_prompt"]
    drawing.scheduler = swapped(own, q["scheduler"]) if "scheduler" in q else copy.deepcopy(own)
    try:
        return drawing(prompt=q["prompt"], num_inference_steps=q["steps"], guidance_scale=q["guidance"],
                       generator=torch.Generator().manual_seed(q["seed"] + index), output_type="np", **more).images[0]
    finally:
        drawing.scheduler = own


# ---- by the program ----

def by_program(profile, q, folder):
    os.makedirs(folder)
    lines = [f"prompt = {q['prompt']}", f"mode = {q['mode']}", "safety_level = off", "watermark = no"]
    lines += [f"{k} = {q[k]}" for k in ("negative_prompt", "width", "height", "steps", "guidance", "seed", "scheduler",
                                        "count") if k in q]
    if "images" in q:
        for i, p in enumerate(q["images"]):
            p.save(f"{folder}/picture{i}.png")
        lines.append("image = " + ", ".join(f"picture{i}.png" for i in range(len(q["images"]))))
        if "strength" in q:
            lines.append(f"strength = {q['strength']}")
    if "mask" in q:
        q["mask"].save(f"{folder}/mask.png")
        lines.append("mask = mask.png")
    for i, y in enumerate(q.get("loras", [])):
        save_file({k: v.contiguous() for k, v in y["tensors"].items()}, f"{folder}/lora{i}.safetensors", y["metadata"])
    if q.get("loras"):
        lines.append("lora = " + ", ".join(f"lora{i}.safetensors:{y['weight']}" for i, y in enumerate(q["loras"])))
    with open(f"{folder}/prompt.ini", "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")
    with open(f"{folder}/registry.ini", "w", encoding="utf-8") as f:
        f.write(REGISTRY.format(model="\n".join(profile)))
    run = subprocess.run([os.environ.get("OMNIFS", "build/omnifs"), "run", "-o", f"{folder}/out", f"{folder}/prompt.ini"],
                         env={**os.environ, "OMNIFS_REGISTRY": f"{folder}/registry.ini"}, capture_output=True, text=True)
    if run.returncode:
        return run.stderr.strip().splitlines()[-1]
    return [np.asarray(Image.open(p)) for p in run.stdout.split()]


def decibels(q, found, expected):
    """Where the mask is black, the program gives the picture back to the pixel: that is not compared."""
    if found.shape != expected.shape:
        return 0.0
    error = (found.astype(float) - np.rint(expected * 255))**2
    if "mask" in q:
        white = q["mask"].resize((q["width"], q["height"]), Image.BILINEAR)
        error = error[np.asarray(white) == 255]
    if not error.size:
        return 99.0
    return 99.0 if not error.any() else 10 * np.log10(255**2 / error.mean())


# ---- all together ----

def modes_of(pipe):
    channels = pipe.unet.config.in_channels if hasattr(pipe, "unet") else 4
    if channels == 9:
        return ["inpaint"]
    return ["text_to_image", "text_to_image", "image_to_image"] + ["inpaint"] * (channels == 4)


def more_pictures(r, q):
    """What FLUX.2 [klein] reads beside the drawing has sizes of its own."""
    q.pop("negative_prompt", None)
    if q["mode"] == "image_to_image":
        q.pop("strength")
        q["images"] = [picture(r, r.randint(64, 110), r.randint(64, 110)) for _ in range(r.randint(1, 3))]
    elif q["mode"] == "inpaint" and r.random() < 0.5:
        q["images"].append(picture(r, r.randint(64, 110), r.randint(64, 110)))


def requests_of(r, family, pipe, count):
    multiple = 2**(len(pipe.vae.config.block_out_channels) - 1) * (2 if family in ("klein", "zimage") else 1)
    multiple = multiple if family in ("klein", "zimage") else max(8, multiple)
    guided = {"klein": [1.0, 2.5, 4.0], "zimage": [0.0, 1.0, 2.5, 4.0]}.get(family, [1.0, 7.5, 4.0, 2.0])
    for _ in range(count):
        q = request(r, modes_of(pipe), multiple, guided, family not in ("klein", "zimage"))
        if family == "klein":
            more_pictures(r, q)
        if r.random() < 0.25:
            q["loras"] = [fresh_loras.lora(r, pipe) for _ in range(r.randint(1, 3))]
        yield q


def told(q):
    plain = {k: v for k, v in q.items() if k not in ("images", "mask", "loras", "prompt", "negative_prompt")}
    texts = {k: q[k][:20] + ("…" if len(q[k]) > 20 else "") for k in ("prompt", "negative_prompt") if k in q}
    return {**plain, **texts, "images": [p.size for p in q.get("images", [])],
            "mask": q["mask"].size if "mask" in q else None, "loras": [y["what"] for y in q.get("loras", [])]}


def check(family, seed, folder, count):
    """How many pictures differ."""
    r = random.Random(f"{family} {seed}")
    pipe = fresh.MAKERS[family](r, f"{folder}/model")
    profile, way = fresh_files.registry(r, pipe, family, folder)
    wrong = 0
    print(f"   {family} {seed}: {way}")
    for number, q in enumerate(requests_of(r, family, pipe, count)):
        fresh_loras.add(pipe, q.get("loras", []), 1)
        try:
            expected = [by_diffusers(pipe, q, i) for i in range(q.get("count", 1))]
        except FAULTS as fault:
            expected = None
            print(f"   {family} {seed} {number}: not by diffusers: {fault}"[:200])
        fresh_loras.add(pipe, q.get("loras", []), -1)
        if expected is None:
            continue
        if not np.isfinite(expected).all():
            print(f"   {family} {seed} {number}: no numbers by diffusers")
            continue
        found = by_program(profile, q, f"{folder}/{number}")
        least = 0.0 if isinstance(found, str) else min(decibels(q, f, e) for f, e in zip(found, expected, strict=True))
        wrong += least < LEAST_DB
        say = found if isinstance(found, str) else f"{least:.1f} dB"
        print(f"{'   ' if least >= LEAST_DB else '!! '}{family} {seed} {number}: {say}  {told(q)}", flush=True)
    return wrong


def main():
    words = argparse.ArgumentParser()
    words.add_argument("-f", "--family", action="append", choices=list(fresh.MAKERS))
    words.add_argument("-k", "--keep")
    words.add_argument("-c", "--cases", type=int, default=10)
    words.add_argument("seeds", type=int, nargs="+")
    a = words.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    wrong = 0
    with tempfile.TemporaryDirectory() as tmp:
        for seed in a.seeds:
            for family in a.family or fresh.MAKERS:
                folder = f"{a.keep or tmp}/{family}-{seed}"
                os.makedirs(folder)
                wrong += check(family, seed, folder, a.cases)
    print(f"{wrong} pictures differ")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
