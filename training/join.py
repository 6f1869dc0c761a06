"""Fits the copying attention anew to a net that train_local.py has trained, by least squares.

usage: join.py LOCAL.pt OUT.pt"""
import math
import random
import sys

import torch
import torch.nn.functional as F

import registers as R
import stickers
import transformer as T
from codes import Codes


@torch.no_grad()
def join(net, codes, scenes):
    d, const = net.cfg['d'], net.cfg['d'] - 1
    n = len(scenes)
    t = torch.linspace(.02, 1, n)[torch.randperm(n)]
    f = torch.exp(-math.log(10000) * torch.arange(128) / 128)
    e = (t * 1000)[:, None] * f
    te = net.time_guidance_embed['timestep_embedder']
    temb = F.silu(te['linear_2'](F.silu(te['linear_1'](torch.cat([e.cos(), e.sin()], -1)))))
    # the query: the same for all t
    w = torch.linalg.lstsq(temb.double(), torch.full((n, 1), 8.).double(), driver='gelsd', rcond=1e-6).solution[:, 0].float()
    print('query %.2f … %.2f, weight %.2f' % ((temb @ w).min(), (temb @ w).max(), w.abs().max()))
    net.double_stream_modulation_img.linear.weight[const] = w
    net.double_stream_modulation_img.linear.weight[d + const] = 0
    net.x_embedder.weight[const] = 0
    # the keys: places of registers, and a direction of their own for the words
    m = net.double_stream_modulation_txt.linear(temb).chunk(6, -1)
    sketch = codes.decode(codes.code[[s.item for s in scenes]])
    reg = R.assemble(sketch, torch.stack([R.settings(s) for s in scenes]))
    words = torch.randn(n, 16, R.WIDTH) * torch.rand(n, 16, 1)
    words[:, :, R.SKETCH + R.COVER:] = 0
    words[:, 10:] = 0
    words[:, 5:10, :R.SKETCH + R.COVER] = 0
    words[:, 5:10, R.SKETCH + R.COVER:-R.PLACE] = reg[:, :1, R.SKETCH + R.COVER:-R.PLACE]   # pads before the registers
    reg = torch.cat([reg, words], 1)
    y = T.norm(net.context_embedder(reg)) * (1 + m[1][:, None]) + m[0][:, None]
    place = torch.cat([R.places() / R.PLACE_SCALE, torch.zeros(16, R.PLACE)]).expand(n, -1, -1)
    y, place = y.flatten(0, 1).double(), place.flatten(0, 1).double()
    target = torch.cat([place, torch.full((len(place), 1), 1.).double()], 1)
    weight = torch.linalg.solve(y.T @ y + 1e-3 * len(y) * 1e-3 * torch.eye(d).double(), y.T @ target)
    fit = y @ weight
    keep = place.pow(2).sum(1) > 0
    print('keys: error %.4f at registers, %.4f at words; own direction %.3f ± %.3f' % (
        (fit - target)[keep].pow(2).mean().sqrt(), (fit - target)[~keep].pow(2).mean().sqrt(), fit[:, -1].mean(), fit[:, -1].std()))
    a = net.transformer_blocks[0].attn
    weight = weight.T.float()
    for head in (0, 1):
        r = head * 64
        a['to_q'].weight[r:r + 64], a['add_k_proj'].weight[r:r + 64] = 0, 0
        a['to_k'].weight[r:r + 64] = 0
        a['add_k_proj'].weight[r + 63] = weight[-1]
        for axis in (0, 1):
            for k in range(3):
                dim = 16 * (axis + 1) + 2 * k
                a['to_q'].weight[r + dim, const] = 1
                a['add_k_proj'].weight[r + dim:r + dim + 2] = weight[axis * 8 + 2 * k:axis * 8 + 2 * k + 2]
    for w in (a['norm_q'].weight, a['norm_added_k'].weight):
        w.fill_(1)
        for axis in (0, 1):
            for k, s in enumerate((4., 2.4, 1.2)):
                w[16 * (axis + 1) + 2 * k:16 * (axis + 1) + 2 * k + 2] = s


def main():
    torch.manual_seed(0)
    rng, net = random.Random(0), T.Flux2()
    st = torch.load(sys.argv[1], weights_only=False)
    net.load_state_dict(st['net'])
    items = stickers.load()[0]
    join(net, Codes(), [stickers.random_scene(rng, rng.randrange(len(items)), rng.random() < .7) for _ in range(300)])
    torch.save(dict(net=net.state_dict(), ema=net.state_dict(), step=0), sys.argv[2])


if __name__ == '__main__':
    main()
