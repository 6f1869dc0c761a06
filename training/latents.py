"""Writes shards of scenes and their latents, for training the transformer.

usage: latents.py FIRST LAST    (shard numbers; a shard that is there is kept)"""
import os
import random
import sys

import torch
from diffusers import AutoencoderTiny

import stickers

VAE = os.environ.get('VAE', os.path.join(os.path.dirname(__file__), '../models/omni-mini/vae'))
COUNT = 512
# Kinds of shards, in turn: (height, width), still.
KINDS = [((128, 128), True), ((128, 128), False), ((128, 224), False), ((128, 128), False)]


def load_vae():
    return AutoencoderTiny.from_pretrained(VAE).float().eval()


def pack(z):
    """[B, 16, 2h, 2w] -> [B, h*w, 64]: 2x2 positions a token, channel-major as diffusers packs."""
    b, c, h, w = z.shape
    z = z.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return z.reshape(b, h * w // 4, c * 4)


def unpack(x, h, w):
    """[B, h*w, 4c] -> [B, c, 2h, 2w]"""
    b, _, c = x.shape
    return x.reshape(b, h, w, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c // 4, 2 * h, 2 * w)


@torch.no_grad()
def encode(vae, pictures):
    return torch.cat([vae.encode(p * 2 - 1).latents for p in pictures.split(16)])


def main():
    torch.set_num_threads(1)
    items, pictures = stickers.load()
    share = stickers.weights(items).tolist()
    vae = load_vae()
    for n in range(int(sys.argv[1]), int(sys.argv[2])):
        path = f'{stickers.WORK}/shards/{n:04d}.pt'
        if os.path.exists(path):
            continue
        os.makedirs(os.path.dirname(path), exist_ok=True)
        rng = random.Random(n)
        (height, width), still = KINDS[n % len(KINDS)]
        scenes = [stickers.random_scene(rng, rng.choices(range(len(items)), share)[0], still)
                  for _ in range(COUNT)]
        z = encode(vae, torch.stack([stickers.render(s, pictures, height, width) for s in scenes]))
        torch.save(dict(scenes=scenes, tokens=pack(z).half(), grid=(height // 16, width // 16)),
                   path + '.part')
        os.rename(path + '.part', path)
        print('shard', n, flush=True)


if __name__ == '__main__':
    main()
