"""Makes the attention that training put in: queries and keys of a trained net, and a check of both.

usage: join.py TRAINED.pt OUT.pt"""
import random
import sys

import torch

import fetch
import registers as R
import stickers
import transformer as T
from codes import Codes
from train_transformer import points


def text(registers, words):
    """A prompt's 112 tokens: words and pads before the registers."""
    b = len(registers)
    x = torch.zeros(b, R.ROOM, R.WIDTH)
    x[:, :words, :R.SKETCH] = torch.randn(b, words, R.SKETCH)
    x[:, :words, R.WORD] = 1
    x[:, words:R.FIRST] = registers[:, 64:]
    x[:, R.FIRST:] = registers[:, :64]
    return x


@torch.no_grad()
def check(net, codes, items, moving, grid):
    rng = random.Random(1)
    scenes = [stickers.random_scene(rng, rng.randrange(items), not moving) for _ in range(12)]
    reg = R.assemble(codes.decode(codes.code[[s.item for s in scenes]]), torch.stack([R.settings(s) for s in scenes]))
    at = torch.stack([points(s, grid) for s in scenes])
    x, t = torch.randn(12, grid[0] * grid[1], 64), torch.linspace(.1, 1, 12)
    frames = torch.tensor([s.frame for s in scenes])
    want, query = fetch.local(net, x, reg, t, fetch.looks(grid, frames), fetch.brings(at))
    ids = torch.stack([T.image_ids(grid, s.frame) for s in scenes])
    got = net(x, text(reg, 24), t, ids, T.text_ids(torch.arange(R.ROOM)))
    print('moving' if moving else 'still', grid, 'whole and local differ by %.3f; points are told to %.4f' % (
        ((got - want).norm() / want.norm()).item(), (query - fetch.told(at, grid)).pow(2).mean().sqrt().item()))


def main():
    torch.manual_seed(0)
    codes, net = Codes(), T.Flux2()
    net.load_state_dict(torch.load(sys.argv[1], weights_only=False)['net'])
    fetch.join(net)
    items = len(stickers.load()[0])
    for moving, grid in ((False, (8, 8)), (True, (8, 8)), (True, (8, 14))):
        check(net, codes, items, moving, grid)
    torch.save(dict(net=net.state_dict()), sys.argv[2])


if __name__ == '__main__':
    main()
