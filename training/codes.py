"""Principal components of the data's latents: 248 numbers a sticker, from which its sketch is made.

usage: codes.py    (writes WORK/codes.pt)"""
import os

import torch
import torch.nn.functional as F

import registers as R
import stickers

PATH = f'{stickers.WORK}/codes.pt'


class Codes:
    """code [N, CODE]; mean, std [64] of the latents; decode: codes to sketches [B, 64, 68]."""

    def __init__(self):
        d = torch.load(PATH)
        self.code, self.mean, self.std = d['code'], d['mean'], d['std']
        self.basis, self.centre = d['basis'], d['centre']

    def decode(self, code):
        return (code @ self.basis + self.centre).view(-1, 64, R.SKETCH + R.COVER)


def base():
    """Latents [N, 64, 64] and coverage [N, 64, 4] of all stickers on white."""
    import latents
    path = f'{stickers.WORK}/base.pt'
    if not os.path.exists(path):
        items, pictures = stickers.load()
        vae = latents.load_vae()
        z = torch.cat([latents.encode(vae, torch.stack([
            stickers.render(stickers.Scene(i.index, (1, 1, 1)), pictures) for i in part])).half()
            for part in (items[k:k + 64] for k in range(0, len(items), 64))])
        a = torch.from_numpy(pictures[..., 3]).float()[:, None] / 255
        torch.save((z, F.avg_pool2d(a, 8).half()), path)
    z, a = (x.float() for x in torch.load(path))
    return latents.pack(z), latents.pack(a)


def main():
    z, a = base()
    mean, std = z.mean((0, 1)), z.std((0, 1))
    x = torch.cat([(z - mean) / std, a * 2 - 1], 2).flatten(1)
    centre = x.mean(0)
    y = x - centre
    w, v = torch.linalg.eigh((y @ y.T).double())
    w, v = w.flip(0)[:R.CODE].float(), v.flip(1)[:, :R.CODE].float()
    basis = v.T @ y / w.sqrt()[:, None]           # orthonormal rows
    scale = (w / len(y)).sqrt()                   # spread of a component
    torch.save(dict(code=y @ basis.T / scale, basis=basis * scale[:, None], centre=centre, mean=mean,
                    std=std), PATH)
    print('explained %.3f' % (w.sum() / y.pow(2).sum()).item())


if __name__ == '__main__':
    main()
