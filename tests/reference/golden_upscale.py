#!/usr/bin/env python3
"""Known answers of super-resolution networks by PyTorch, for tests/engine/test_upscale.c: a checkpoint's
tensors and configs as golden.py writes them, and what the networks make of a picture.

usage: golden_upscale.py      from the repository's root; needs torch
"""
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import det
import golden

FOLDER = "tests/engine/golden/upscale"
PARTS = {"upscaler": {"scale": 4, "channels": 12, "blocks": 3}, "upscaler_x2": {"scale": 2, "channels": 8, "blocks": 2, "cubic": -0.5}}
PICTURE = (23, 37, 5)


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(F.silu(self.conv1(x)))


class OmniUpscaler(nn.Module):
    """Pictures [B, 3, H, W] in 0 … 1; not clamped."""

    def __init__(self, scale, channels, blocks, cubic=-0.75):
        super().__init__()
        self.scale, self.cubic = scale, cubic
        self.conv_in = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.ModuleList([Block(channels) for _ in range(blocks)])
        self.conv_out = nn.Conv2d(channels, 3 * scale**2, 3, padding=1)

    def forward(self, x):
        h = self.conv_in(x)
        for block in self.blocks:
            h = block(h)
        # antialias has no effect here but another cubic, and weights at the edges that are avoided
        enlarged = F.interpolate(F.pad(x, (2, 2, 2, 2), mode="replicate"), scale_factor=self.scale, mode="bicubic", align_corners=False, antialias=self.cubic == -0.5)
        edge = 2 * self.scale
        enlarged = enlarged[:, :, edge:-edge, edge:-edge]
        return F.pixel_shuffle(self.conv_out(h), self.scale) + enlarged


def main():
    torch.set_grad_enabled(False)
    x = torch.from_numpy(np.array(golden.picture(*PICTURE))).permute(2, 0, 1)[None].float() / 255
    with open(f"{FOLDER}/tensors.txt", "w", encoding="utf-8") as f:
        for part, sizes in PARTS.items():
            model = det.fill(OmniUpscaler(**sizes))
            for name, tensor in model.state_dict().items():
                print(part, name, *tensor.shape, file=f)
            golden.write_json(f"{FOLDER}/{part}/config.json", {"_class_name": "OmniUpscaler", **sizes})
            model(x)[0].permute(1, 2, 0).numpy().astype("<f4").tofile(f"{FOLDER}/{part}.f32")


if __name__ == "__main__":
    main()
