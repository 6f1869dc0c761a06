"""Trains the transformer on the shards: rectified flow, given the registers of the scene. Attention
is not computed but put in (fetch.py), so that a step costs what its tokens' products cost.

usage: train_transformer.py MINUTES OUT.pt [points]    (goes on from OUT.pt where it is there)
With `points` only what queries say is trained, which needs no pictures: first, for some minutes.
Environment: LR, and END, the share of it that is left at the end."""
import glob
import os
import random
import sys
import time

import torch

import fetch
import loop
import registers as R
import stickers
import transformer as T
from codes import Codes

TOKENS = 1024


class Shards:
    """All shards there are; new ones are taken in as they appear."""

    def __init__(self):
        self.known, self.all = set(), []
        self.refresh()

    def refresh(self):
        for path in sorted(glob.glob(f'{stickers.WORK}/shards/*.pt')):
            if path not in self.known:
                self.known.add(path)
                d = torch.load(path, weights_only=False)
                self.all.append((d['scenes'], d['tokens'], d['grid'], torch.stack([points(s, d['grid']) for s in d['scenes']])))
        print('shards', len(self.all), flush=True)

    def draw(self):
        scenes, tokens, grid, at = random.choice(self.all)
        n = TOKENS // (grid[0] * grid[1])
        i = torch.randint(len(scenes), (n,))
        return [scenes[k] for k in i], tokens[i].float(), grid, at[i]

    def loss(self, net, codes, run):
        """Loss of a step."""
        scenes, tokens, grid, at = self.draw()
        x0 = (tokens - codes.mean) / codes.std
        t = timesteps(len(x0))
        e = torch.randn_like(x0)
        v, query = fetch.local(net, (1 - t)[:, None, None] * x0 + t[:, None, None] * e, registers(scenes, codes), t,
                               fetch.table(grid)[[int(2 * s.frame) for s in scenes]], fetch.brings(at + .04 * torch.randn_like(at)))
        loss = (v - (e - x0)).pow(2).mean()
        miss = (query - fetch.told(at, grid)).pow(2).mean()
        kind = 'moving' if any(s.frame for s in scenes) else 'still'
        note(run, kind, loss), note(run, kind + ' point', miss)
        return loss + miss


def points(scene, grid):
    """Which register (row, column) is seen at the middle of each token, [n, 2]; a little outside where none is."""
    unit = min(grid)
    h, w = fetch.grid_positions(grid)
    y, x = ((p + .5 - n / 2) / unit for p, n in ((h, grid[0]), (w, grid[1])))
    x, y = stickers.source(*stickers.placement(scene, grid[1] / unit), x, y)
    return torch.stack([y, x], -1).add(1).mul(R.GRID / 2).sub(.5).clamp(-2, R.GRID + 1)


def timesteps(n):
    """Nearly noise for two fifths, where the picture is decided."""
    t = torch.sigmoid(torch.randn(n) + .3)
    return torch.where(torch.rand(n) < .4, 1 - .12 * torch.rand(n) ** 1.5, t).clamp(min=.03)


def registers(scenes, codes):
    """As the encoder gives them, with its errors: [B, 65, WIDTH]."""
    b = len(scenes)
    c = codes.code[[s.item for s in scenes]] * (1 + .05 * torch.randn(b, 1))
    c = c + (torch.rand(b, 1) < .25) * .1 * torch.randn(b, 1) * codes.code[torch.randint(len(codes.code), (b,))]
    setting = torch.stack([R.settings(s) for s in scenes])
    x = R.assemble(codes.decode(c), setting + .03 * torch.randn_like(setting))
    x[torch.rand(b) < .05, :, :R.SKETCH + R.SETTINGS] = 0
    return x


class Placements:
    """Every motion at every half frame, on two grids: what queries are to say, without pictures."""
    GRIDS = [(8, 8), (8, 14)]

    def __init__(self):
        scenes = [stickers.Scene(0, (0, 0, 0), motion=m, loop=loop, frame=f / 2)
                  for m in stickers.MOTION_NAMES + [''] for loop in (False, True) for f in range(2 * stickers.FRAMES)]
        self.frame = torch.tensor([s.frame for s in scenes])
        self.setting = torch.stack([R.settings(s) for s in scenes])
        self.told = [fetch.told(torch.stack([points(s, g) for s in scenes]), g) for g in self.GRIDS]
        self.weight = torch.tensor([1. if s.motion else 3. for s in scenes])

    def loss(self, net, codes, run, scenes=40, tokens=20):
        grid = random.choice((0, 0, 1))
        i, n = self.weight.multinomial(scenes), self.told[grid].shape[1]
        k = torch.randint(n, (scenes, tokens))
        setting = self.setting[i].clone()
        setting[:, :R.MOTION_AT] = torch.randn(scenes, R.MOTION_AT).clamp(-1, 2)
        setting += .03 * torch.randn_like(setting)
        told = self.told[grid][i[:, None], k]
        look = fetch.table(self.GRIDS[grid])[(2 * self.frame[i]).long()[:, None], k]
        reg = R.assemble(codes.decode(codes.code[torch.randint(len(codes.code), (scenes,))]), setting)
        query = fetch.local(net, torch.randn(scenes, tokens, 64), reg, timesteps(scenes), look, None)[1]
        miss = (query - told).pow(2).mean()
        note(run, 'point', miss)
        return miss


def note(run, name, value):
    run[name] = .97 * run.get(name, value.item()) + .03 * value.item()


def main():
    minutes, out, only = float(sys.argv[1]), sys.argv[2], sys.argv[3:] == ['points']
    top, end = float(os.environ.get('LR', '1.5e-3')), float(os.environ.get('END', '.03'))
    torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', '1')))
    torch.manual_seed(int(time.time()))
    codes, net, step0 = Codes(), T.Flux2(), 0
    placements, shards = Placements(), None if only else Shards()
    fetch.start(net, codes)
    opt = torch.optim.AdamW(net.parameters(), lr=1e-3, betas=(.9, .98), weight_decay=.01)
    if os.path.exists(out):
        st = torch.load(out, weights_only=False)
        net.load_state_dict(st['net'])
        if st['only'] == only:
            opt.load_state_dict(st['opt'])
        step0 = st['step']
    print('parameters %.2f M' % (sum(p.numel() for p in net.parameters()) / 1e6), flush=True)
    run = {}
    for step, seconds, last in loop.steps(minutes, opt, top, end=end):
        loss = 4 * placements.loss(net, codes, run)
        if shards:
            loss = loss + shards.loss(net, codes, run)
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.)
        opt.step()
        fetch.pin(net)
        if step % 50 == 0:
            print(step + step0, '%.0fs' % seconds, ', '.join(f'{k} {v:.4f}' for k, v in run.items()), flush=True)
        if step % 200 == 0 or last:
            loop.keep(out, net=net.state_dict(), opt=opt.state_dict(), step=step0 + step, only=only)
            if shards:
                shards.refresh()


if __name__ == '__main__':
    main()
