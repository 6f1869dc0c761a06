#!/usr/bin/env python3
"""8-bit floats as torch reads them, and files with scales beside their weights in the ways that
published ones have, for tests/engine/test_fp8.c.

usage: fp8.py      from the repository's root; needs torch safetensors numpy
"""
import os

import numpy as np
import torch
from safetensors.torch import save_file

FOLDER = "tests/engine/golden/fp8"
TYPES = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


def main():
    os.makedirs(FOLDER, exist_ok=True)
    every = torch.arange(256, dtype=torch.uint8)
    plain = {name: every.clone().view(kind) for name, kind in TYPES.items()}
    save_file(plain, f"{FOLDER}/every.safetensors")
    np.concatenate([t.float().numpy() for t in plain.values()]).tofile(f"{FOLDER}/every.f32")

    g = torch.Generator().manual_seed(1)
    weight = (8 * torch.randn(6, 10, generator=g)).to(torch.float8_e4m3fn)
    wide = (8 * torch.randn(6, 10, generator=g)).to(torch.float8_e5m2)
    bias = torch.randn(6, generator=g)
    a, b = torch.tensor(0.0371), torch.tensor([0.25], dtype=torch.bfloat16)
    save_file({"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn), "x.weight": weight, "x.scale_weight": a,
               "x.scale_input": torch.tensor(1.0), "x.bias": bias}, f"{FOLDER}/scale_weight.safetensors")
    save_file({"x.weight": wide, "x.weight_scale": b, "x.input_scale": torch.tensor(1.0),
               "x.comfy_quant": torch.tensor(list(b'{"format": "float8_e5m2"}'), dtype=torch.uint8),
               "x.bias": bias}, f"{FOLDER}/weight_scale.safetensors")
    np.concatenate([(weight.float() * a).numpy(), (wide.float() * b.float()).numpy()]).tofile(f"{FOLDER}/scaled.f32")


if __name__ == "__main__":
    main()
