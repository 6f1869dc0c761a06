"""Trains the upscalers: a small residual net on top of a bicubic enlargement.

usage: upscaler.py SCALE MINUTES OUT.pt    (goes on from OUT.pt where it is there)
Environment: PHOTOS, a folder of photographs (every fourth is held out); half of the patches are
stickers on backgrounds (every eighth sticker is held out)."""
import glob
import math
import os
import random
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import stickers

PATCH, BATCH = 32, 12


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(c, c, 3, padding=1), nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(F.silu(self.conv1(x)))


class Upscaler(nn.Module):
    """[B, 3, h, w] in 0…1 -> [B, 3, scale·h, scale·w]"""

    def __init__(self, scale, channels=32, blocks=4):
        super().__init__()
        self.scale, self.channels = scale, channels
        self.conv_in = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.ModuleList(Block(channels) for _ in range(blocks))
        self.conv_out = nn.Conv2d(channels, 3 * scale * scale, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight), nn.init.zeros_(self.conv_out.bias)
        for b in self.blocks:
            b.conv2.weight.data.mul_(.3)

    def forward(self, x):
        y = self.conv_in(x)
        for b in self.blocks:
            y = b(y)
        return F.pixel_shuffle(self.conv_out(y), self.scale) + F.interpolate(
            x, scale_factor=self.scale, mode='bicubic', align_corners=False)


def pictures():
    """Names of sticker files and of photographs, each as (to learn from, held out)."""
    files = sorted(glob.glob(f'{stickers.ROOT}/*/*.webp'))
    photos = sorted(f for e in ('jpg', 'jpeg', 'webp', 'png') for f in glob.glob(f"{os.environ.get('PHOTOS', 'photos')}/**/*.{e}", recursive=True))
    photos = [f for f in photos if os.path.getsize(f) > 150000]
    split = lambda f, n: ([x for i, x in enumerate(f) if i % n], f[::n])
    return split(files, 8), split(photos, 4)


def sticker(file, rng):
    im = Image.open(file).convert('RGBA')
    bg = rng.choice(list(stickers.BACKGROUNDS.values()))
    under = Image.new('RGBA', im.size, tuple(int(255 * c) for c in bg) + (255,))
    return Image.alpha_composite(under, im).convert('RGB')


def smaller(im, scale, how):
    return im.resize((im.width // scale, im.height // scale), how)


def tensor(im):
    return torch.from_numpy(np.array(im)).permute(2, 0, 1).float() / 255


def psnr(a, b):
    return -10 * math.log10((a - b).pow(2).mean().item() + 1e-12)


@torch.no_grad()
def judge(net, scale, log=print):
    """PSNR against Lanczos, from antialiased area reductions, on what is held out."""
    (_, held_s), (_, held_p) = pictures()
    rng = random.Random(0)
    sets = {'stickers': [sticker(f, rng) for f in held_s[::6][:60]]}
    crops = []
    for f in held_p[:12]:
        im = Image.open(f).convert('RGB')
        for k in range(2):
            x, y = rng.randrange(im.width - 256), rng.randrange(im.height - 256)
            crops.append(im.crop((x, y, x + 256, y + 256)))
    sets['photographs'] = crops
    for name, ims in sets.items():
        for how, label in ((Image.BOX, 'area'), (Image.LANCZOS, 'lanczos')):
            ours, usual = [], []
            for im in ims:
                low, want = smaller(im, scale, how), tensor(im)
                ours.append(psnr(net(tensor(low)[None])[0].clamp(0, 1), want))
                usual.append(psnr(tensor(low.resize(im.size, Image.LANCZOS)), want))
            if ours:
                log(f'{name} x{scale}, reduced by {label}: {np.mean(ours):.2f} dB, Lanczos {np.mean(usual):.2f} dB, gain {np.mean(ours) - np.mean(usual):.2f} dB ({len(ours)} pictures)', flush=True)


def main():
    scale, minutes, out = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    seed = int(time.time())
    torch.manual_seed(seed)
    rng = random.Random(seed)
    net, step0 = Upscaler(scale), 0
    if os.path.exists(out):
        st = torch.load(out)
        net.load_state_dict(st['net'])
        step0 = st['step']
    (learn_s, _), (learn_p, _) = pictures()
    pool_s = [sticker(f, rng) for f in rng.sample(learn_s, 400)]
    pool_p = []
    for f in rng.sample(learn_p, min(len(learn_p), 30)):
        im = Image.open(f).convert('RGB')
        im = im.resize((im.width // 2, im.height // 2), Image.BOX) if rng.random() < .5 and im.width > 2400 else im
        for _ in range(14):
            x, y = rng.randrange(im.width - 256), rng.randrange(im.height - 256)
            pool_p.append(im.crop((x, y, x + 256, y + 256)))
    print(len(pool_s), 'stickers', len(pool_p), 'photograph crops', flush=True)
    opt = torch.optim.Adam(net.parameters(), lr=2e-3)
    side = PATCH * scale
    begin, step, run, part = time.time(), 0, None, 0
    while part < 1:
        part = (time.time() - begin) / (minutes * 60)
        for g in opt.param_groups:
            g['lr'] = 2.5e-3 * min(1, (step + 1) / 30) * (.02 + .98 * (.5 + .5 * math.cos(math.pi * min(part, 1))))
        low, high = [], []
        for i in range(BATCH):
            im = rng.choice(pool_p if i % 2 and pool_p else pool_s)
            x, y = rng.randrange((256 - side) // scale + 1) * scale, rng.randrange((256 - side) // scale + 1) * scale
            im = im.crop((x, y, x + side, y + side))
            if rng.random() < .5:
                im = im.transpose(Image.FLIP_LEFT_RIGHT)
            low.append(tensor(smaller(im, scale, rng.choice((Image.BOX, Image.LANCZOS)))))
            high.append(tensor(im))
        d = net(torch.stack(low)) - torch.stack(high)
        loss = d.abs().mean() + 4 * d.pow(2).mean()
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), .5)
        opt.step()
        step += 1
        mse = d.detach().pow(2).mean().item()
        run = mse if run is None else .97 * run + .03 * mse
        if step % 50 == 0:
            print(step + step0, '%.0fs' % (time.time() - begin), '%.2f dB' % (-10 * math.log10(run)), flush=True)
        if step % 100 == 0 or part >= 1:
            torch.save(dict(net=net.state_dict(), step=step0 + step, scale=scale), out)
    judge(net, scale)


if __name__ == '__main__':
    main()
