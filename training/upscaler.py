"""Trains the upscalers: a small residual net on top of a bicubic enlargement.

usage: upscaler.py SCALE MINUTES OUT.pt    (goes on from OUT.pt where it is there)
Environment: LR; PHOTOS, a folder of photographs (every fourth is held out), of which half of the
patches are, whole, halved and quartered; the others are stickers on backgrounds (every eighth is
held out)."""
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

import loop
import stickers

PATCH, BATCH, LR = 24, 12, float(os.environ.get('LR', '1.5e-3'))
CUBIC = -.5                      # of enlarge(), whose antialias means that
FLOOR = 1e-6                     # 60 dB is good enough


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
        return F.pixel_shuffle(self.conv_out(y), self.scale) + enlarge(x, self.scale)


def enlarge(x, scale):
    """Bicubic with a = -0.5 (that is what antialias means here), which keeps ramps; edges repeated."""
    y = F.interpolate(F.pad(x, (2, 2, 2, 2), mode='replicate'), scale_factor=scale, mode='bicubic', align_corners=False, antialias=True)
    return y[:, :, 2 * scale:-2 * scale, 2 * scale:-2 * scale]


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
        for part in (1, 2, 4):
            small = im.resize((im.width // part, im.height // part), Image.BOX)
            if min(small.size) > 256:
                x, y = rng.randrange(small.width - 255), rng.randrange(small.height - 255)
                crops.append(small.crop((x, y, x + 256, y + 256)))
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


def reduction(side, scale, how):
    """[side / scale, side]: the rows of a reduction, as the image library does it."""
    eye = Image.fromarray(np.eye(side, dtype=np.float32))
    return torch.from_numpy(np.array(eye.resize((side, side // scale), how)))


def pools(rng):
    """256x256 crops of stickers and of photographs, u8 [n, 3, 256, 256]."""
    (learn_s, _), (learn_p, _) = pictures()
    u8 = lambda ims: torch.stack([torch.from_numpy(np.array(i)).permute(2, 0, 1) for i in ims])
    crops = []
    for f in rng.sample(learn_p, min(len(learn_p), 40)):
        whole = Image.open(f).convert('RGB')
        for part in (1, 2, 4):       # large photographs are smooth: their reductions have the detail
            im = whole.resize((whole.width // part, whole.height // part), Image.BOX)
            for _ in range(8 if min(im.size) > 256 else 0):
                x, y = rng.randrange(im.width - 255), rng.randrange(im.height - 255)
                crops.append(im.crop((x, y, x + 256, y + 256)))
    return u8(sticker(f, rng).crop((0, 0, 256, 256)) for f in rng.sample(learn_s, 1500)), u8(crops)


def sample(rng, pool, side, scale, tries=4):
    """A crop of `side`: of some tries the one with the most in it. Photographs are also smooth: one try."""
    best = None
    for _ in range(tries):
        p = pool[rng.randrange(len(pool))]
        x, y = (rng.randrange((256 - side) // scale + 1) * scale for _ in range(2))
        c = p[:, y:y + side, x:x + side].float() / 255
        busy = (c[:, 1:] - c[:, :-1]).abs().mean().item()
        if best is None or busy > best[0]:
            best = busy, c
    c = best[1]
    c = c.flip(2) if rng.random() < .5 else c
    return c.transpose(1, 2) if rng.random() < .5 else c


def main():
    scale, minutes, out = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    channels, blocks = (int(a) for a in (sys.argv[4:6] or (32, 4)))
    torch.set_num_threads(1)
    seed = int(time.time())
    torch.manual_seed(seed)
    rng = random.Random(seed)
    net, step0 = Upscaler(scale, channels, blocks), 0
    opt = torch.optim.Adam(net.parameters(), lr=2e-3, betas=(.9, .99))
    if os.path.exists(out):
        st = torch.load(out)
        net.load_state_dict(st['net']), opt.load_state_dict(st['opt'])
        step0 = st['step']
    pool_s, pool_p = pools(rng)
    print(len(pool_s), 'stickers', len(pool_p), 'photograph crops', flush=True)
    side = PATCH * scale
    ways = [reduction(side, scale, how) for how in (Image.BOX, Image.LANCZOS, Image.BICUBIC)]
    run = None
    for step, seconds, last in loop.steps(minutes, opt, LR, warm=100, end=.01):
        high = torch.stack([sample(rng, *((pool_p, side, scale, 1) if i % 2 else (pool_s, side, scale))) for i in range(BATCH)])
        r = rng.choice(ways)
        low = ((r @ high @ r.T).clamp(0, 1) * 255).round() / 255
        d = net(low) - high
        loss = (d.pow(2).mean((1, 2, 3)) + FLOOR).log().mean()      # what PSNR is made of
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), .5)
        opt.step()
        usual = enlarge(low, scale).clamp(0, 1) - high
        now = torch.tensor([d.detach().pow(2).mean().item(), usual.pow(2).mean().item()])
        run = now if run is None else .98 * run + .02 * now
        if step % 100 == 0:
            ours, bicubic = (-10 * run.log10()).tolist()
            print(step + step0, '%.0fs' % seconds, '%.2f dB, %+.2f over bicubic' % (ours, ours - bicubic), flush=True)
        if step % 500 == 0 or last:
            loop.keep(out, net=net.state_dict(), opt=opt.state_dict(), step=step0 + step, scale=scale, cubic=CUBIC)
    judge(net, scale)


if __name__ == '__main__':
    main()
