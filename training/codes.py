"""Principal components of the data's latents: some hundred numbers a sticker, from which its sketch
is made.

usage: codes.py    (writes WORK/codes.pt)"""
import os

import numpy as np
import torch
import torch.nn.functional as F

import latents
import registers as R
import stickers

PATH = f'{stickers.WORK}/codes.pt'
COVER = 4        # coverage is kept for 4x4 places of a patch


class Codes:
    """code [N, CODE]; mean, std [64] of the latents; patch [SKETCH, 80] and middle [80]: what the
    numbers of a sketch mean; decode: codes to sketches."""

    def __init__(self):
        d = torch.load(PATH)
        self.code, self.mean, self.std = d['code'], d['mean'], d['std']
        self.basis, self.patch, self.middle, self.spread = d['basis'], d['patch'], d['middle'], d['spread']

    def decode(self, code):
        """[B, CODE] -> [B, 64, SKETCH]"""
        return (code @ self.basis).view(-1, 64, R.SKETCH)

    def latents(self, sketch):
        """[…, SKETCH] -> normalised latents of the thing on white, […, 64]"""
        return (sketch @ self.patch + self.middle)[..., :64]


def base():
    """Latents of all stickers on white, packed [N, 64, 64], and coverage [N, 64, COVER²]."""
    path = f'{stickers.WORK}/base.pt'
    items, pictures = stickers.load()
    if not os.path.exists(path):
        vae = latents.load_vae()
        z = torch.cat([latents.encode(vae, torch.stack([
            stickers.render(stickers.Scene(i.index, (1, 1, 1)), pictures) for i in part])).half()
            for part in (items[k:k + 64] for k in range(0, len(items), 64))])
        torch.save(z, path)
    z = torch.load(path)
    z = (z[0] if isinstance(z, tuple) else z).float()
    a = torch.from_numpy(np.array(pictures[..., 3])).float()[:, None] / 255
    a = F.unfold(F.avg_pool2d(a, 16 // COVER), COVER, stride=COVER).transpose(1, 2)
    return latents.pack(z), a


def main():
    z, a = base()
    mean, std = z.mean((0, 1)), z.std((0, 1))
    x = torch.cat([(z - mean) / std, a * 2 - 1], 2)
    # what all patches have in common: SKETCH numbers of 80
    middle = x.mean((0, 1))
    e, v = torch.linalg.eigh(((x - middle).flatten(0, 1).T @ (x - middle).flatten(0, 1)).double())
    patch = v.flip(1)[:, :R.SKETCH].T.float()
    kept = (x - middle) @ patch.T
    print('a patch in %d numbers: %.4f' % (R.SKETCH, (kept.pow(2).sum() / (x - middle).pow(2).sum()).item()))
    # what whole pictures have in common: CODE - 1 numbers of 64·SKETCH
    y = kept.flatten(1)
    centre = y.mean(0)
    y = y - centre
    n = R.CODE - 1
    w, v = torch.linalg.eigh((y @ y.T).double())
    w, v = w.flip(0)[:n].float(), v.flip(1)[:, :n].float()
    basis = v.T @ y / w.sqrt()[:, None]           # orthonormal rows
    scale = (w / len(y)).sqrt()                   # spread of a component
    code = torch.cat([y @ basis.T / scale, torch.full((len(y), 1), R.CONSTANT)], 1)
    basis = torch.cat([basis * scale[:, None], centre[None] / R.CONSTANT])
    torch.save(dict(code=code, basis=basis, mean=mean, std=std, patch=patch, middle=middle,
                    spread=kept.std((0, 1))), PATH)
    print('a picture in %d numbers: %.4f' % (n, (w.sum() / y.pow(2).sum()).item()))


if __name__ == '__main__':
    main()
