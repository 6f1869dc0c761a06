"""Trains the transformer on the shards: rectified flow, given the registers of the scene.

usage: train_transformer.py MINUTES OUT.pt    (goes on from OUT.pt where it is there)
Environment: LR, DECAY=1 (the learning rate falls to nothing at the end), BATCH, MOTION (share of
batches with motion)."""
import copy
import glob
import math
import os
import random
import sys
import time

import torch

import registers as R
import stickers
import transformer as T
from codes import Codes

MINUTES, OUT = float(sys.argv[1]), sys.argv[2]
LR, DECAY = float(os.environ.get('LR', '1e-3')), int(os.environ.get('DECAY', '0'))
BATCH = int(os.environ.get('BATCH', '32'))
MOTION = float(os.environ.get('MOTION', '.3'))
WORDS = 3   # tokens that stand for the prompt's own 48


class Shards:
    """All shards there are; new ones are taken in as they appear."""

    def __init__(self):
        self.known, self.still, self.moving = set(), {}, {}
        self.refresh()

    def refresh(self):
        for path in sorted(glob.glob(f'{stickers.WORK}/shards/*.pt')):
            if path not in self.known:
                self.known.add(path)
                d = torch.load(path, weights_only=False)
                kind = self.moving if d['scenes'][0].motion else self.still
                kind.setdefault(d['grid'], []).append((d['scenes'], d['tokens']))

    def draw(self, moving):
        kind = self.moving if moving and self.moving else self.still
        grid = random.choices(list(kind), [len(v) for v in kind.values()])[0]
        scenes, tokens = [], []
        for _ in range(BATCH):
            s, t = random.choice(kind[grid])
            i = random.randrange(len(s))
            scenes.append(s[i]), tokens.append(t[i])
        return scenes, torch.stack(tokens).float(), grid


def timesteps(n):
    """Nearly noise for two fifths, where the picture is decided."""
    t = torch.sigmoid(torch.randn(n) + .2)
    return torch.where(torch.rand(n) < .4, 1 - .12 * torch.rand(n) ** 1.5, t)


def text(scenes, codes):
    """Registers and words as the encoder gives them, with its errors; [B, WORDS + 64, WIDTH]."""
    b = len(scenes)
    i = torch.tensor([s.item for s in scenes])
    c = codes.code[i] * (1 + .05 * torch.randn(b, 1))
    other = codes.code[torch.randint(len(codes.code), (b,))]
    c = c + (torch.rand(b, 1) < .3) * .15 * torch.randn(b, 1) * other
    sketch = codes.decode(c)
    setting = torch.stack([R.settings(s) for s in scenes])
    setting = setting + .04 * torch.randn_like(setting)
    reg = R.assemble(sketch, setting)
    empty = torch.rand(b) < .1
    reg[empty, :, :R.SKETCH + R.COVER + R.SETTINGS] = 0
    words = torch.zeros(b, WORDS, R.WIDTH)
    words[:, 0, R.SKETCH + R.COVER:-R.PLACE] = reg[:, 0, R.SKETCH + R.COVER:-R.PLACE]   # pads before the registers
    words[:, 1:, :R.SKETCH + R.COVER] = torch.randn(b, WORDS - 1, R.SKETCH + R.COVER) * torch.tensor([1.2, 5.])[:, None]
    return torch.cat([words, reg], 1)


def main():
    torch.set_num_threads(1)
    torch.manual_seed(int(time.time()))
    codes, shards = Codes(), Shards()
    net = T.Flux2()
    T.start(net)
    ema, step0 = copy.deepcopy(net), 0
    opt = torch.optim.AdamW(net.parameters(), lr=LR, betas=(.9, .98), weight_decay=.01)
    if os.path.exists(OUT):
        st = torch.load(OUT, weights_only=False)
        net.load_state_dict(st['net']), ema.load_state_dict(st['ema'])
        if 'opt' in st:
            opt.load_state_dict(st['opt'])
        step0 = st['step']
    print('parameters %.2f M' % (sum(p.numel() for p in net.parameters()) / 1e6), flush=True)
    begin, step, run, part = time.time(), 0, {}, 0
    bias_words = torch.tensor([30., 9., 9.]).log()

    def save():
        torch.save(dict(net=net.state_dict(), ema=ema.state_dict(), opt=opt.state_dict(), step=step0 + step), OUT + '.part')
        os.rename(OUT + '.part', OUT)

    while part < 1:
        part = (time.time() - begin) / (MINUTES * 60)
        lr = LR * min(1, (step + step0 + 1) / 20) * (max(.02, .5 + .5 * math.cos(math.pi * min(part, 1))) if DECAY else 1)
        for g in opt.param_groups:
            g['lr'] = lr
        moving = random.random() < MOTION
        scenes, tokens, grid = shards.draw(moving)
        x0 = (tokens - codes.mean) / codes.std
        txt = text(scenes, codes)
        t = timesteps(BATCH)
        e = torch.randn_like(x0)
        xt = (1 - t)[:, None, None] * x0 + t[:, None, None] * e
        ids = torch.stack([T.image_ids(grid, s.frame) for s in scenes]) if moving else T.image_ids(grid)
        tid = T.text_ids(torch.cat([torch.randint(R.FIRST, (WORDS,)), torch.arange(R.FIRST, R.ROOM)]))
        bias = torch.zeros(WORDS + 64 + grid[0] * grid[1])
        bias[:WORDS] = bias_words
        v = net(xt, txt, t, ids, tid, bias)
        loss = (v - (e - x0)).pow(2).mean((1, 2))
        opt.zero_grad()
        loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.)
        opt.step()
        step += 1
        d = min(.998, (step + step0) / (step + step0 + 20))
        with torch.no_grad():
            for a, p in zip(ema.parameters(), net.parameters()):
                a.lerp_(p, 1 - d)
        k = 'moving' if moving else 'still'
        run[k] = .95 * run.get(k, loss.mean().item()) + .05 * loss.mean().item()
        if step % 20 == 0:
            print(step + step0, '%.0fs' % (time.time() - begin), ' '.join(f'{k} {v:.4f}' for k, v in run.items()), flush=True)
        if step % 100 == 0:
            save()
            shards.refresh()
    save()


if __name__ == '__main__':
    main()
