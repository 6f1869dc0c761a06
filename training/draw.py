"""Draws with the parts in plain torch, as the engine and Flux2KleinPipeline do.

usage: draw.py JOINED.pt OUT.png      (from true registers: sketches, what is drawn of them, what it should be)"""
import random
import sys

import torch
from PIL import Image

import registers as R
import transformer as T


def sigmas(steps, shift):
    s = torch.linspace(1, 1 / steps, steps)
    return torch.cat([shift * s / (1 + (shift - 1) * s), torch.zeros(1)])


@torch.no_grad()
def sample(net, text, empty, noise, grid, steps=8, guidance=1., shift=2., frame=0.):
    """text [B, L, T] of L = ROOM tokens, noise [B, n, 64] -> normalised latents [B, n, 64]."""
    x, s, b = noise, sigmas(steps, shift), len(noise)
    tid = T.text_ids(torch.arange(text.shape[1]))
    ids = torch.stack([T.image_ids(grid, f) for f in frame]) if torch.is_tensor(frame) else T.image_ids(grid, frame)
    for i in range(steps):
        t = s[i].repeat(b)
        v = net(x, text, t, ids, tid)
        if guidance != 1:
            u = net(x, empty.expand(b, -1, -1), t, ids, tid)
            v = u + guidance * (v - u)
        x = x + (s[i + 1] - s[i]) * v
    return x


@torch.no_grad()
def decode(vae, x, mean, std, grid):
    """-> pictures [B, 3, H, W] in 0…1"""
    import latents
    z = latents.unpack(x * std + mean, *grid)
    return torch.cat([vae.decode(p).sample for p in z.split(8)]).div(2).add(.5).clamp(0, 1)


def save(path, pictures, columns):
    n, c, h, w = pictures.shape
    rows = -(-n // columns)
    pad = torch.ones(rows * columns - n, c, h, w)
    p = torch.cat([pictures, pad]).view(rows, columns, c, h, w).permute(0, 3, 1, 4, 2).reshape(rows * h, columns * w, c)
    Image.fromarray((p * 255).round().byte().numpy()).save(path)


def main():
    import join
    import latents
    import stickers
    from codes import Codes
    torch.set_num_threads(1)
    codes, vae, net = Codes(), latents.load_vae(), T.Flux2()
    net.load_state_dict(torch.load(sys.argv[1], weights_only=False)['net'])
    rng, b = random.Random(5), 10
    items, pictures = stickers.load()
    scenes = [stickers.random_scene(rng, i, True) for i in (rng.sample(range(len(items)), b))]
    for s, p in zip(scenes[-4:], ('red', 'blue', 'green', 'yellow')):
        s.paint = p
    sketch = codes.decode(codes.code[[s.item for s in scenes]])
    text = join.text(R.assemble(sketch, torch.stack([R.settings(s) for s in scenes])), 24)
    noise = torch.randn(b, 64, 64, generator=torch.Generator().manual_seed(1))
    seen = lambda x: decode(vae, x, codes.mean, codes.std, (8, 8))
    want = torch.stack([stickers.render(s, pictures) for s in scenes])
    save(sys.argv[2], torch.cat([seen(codes.latents(sketch)), seen(sample(net, text, None, noise, (8, 8))), want]), b)


if __name__ == '__main__':
    main()
