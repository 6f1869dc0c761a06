"""What the text encoder tells the transformer.

The prompt's pad positions 48 … 111 are 64 registers, one for each 16x16 pixels of a 128x128
picture. A register holds a sketch of its patch (the thing on white, from a principal-component code
of the whole picture), the thing's coverage, the scene's settings and the register's own place."""
import torch

import stickers

ROOM, FIRST = 112, 48            # tokens of a prompt; the first register
GRID = 8
SKETCH, COVER, SETTINGS, PLACE = 64, 4, 48, 16
WIDTH = SKETCH + COVER + SETTINGS + PLACE
CODE = 248
PLACE_SCALE = 8.
FREQUENCIES = [2000 ** (-i / 8) for i in range(4)]   # the first of the transformer's rope axes
MOTION_AT = 3 + len(stickers.PAINT_NAMES)


def places():
    """[64, PLACE]: cosine and sine of row and column."""
    n = torch.arange(GRID * GRID)
    w = torch.tensor(FREQUENCIES)
    a = [torch.stack([(p[:, None] * w).cos(), (p[:, None] * w).sin()], -1).flatten(1)
         for p in (n // GRID, n % GRID)]
    return torch.cat(a, 1) * PLACE_SCALE


def settings(scene):
    """[SETTINGS]: background, paint, motion, loop."""
    v = torch.zeros(SETTINGS)
    v[:3] = torch.tensor(scene.background) * 2 - 1
    if scene.paint:
        v[3 + stickers.PAINT_NAMES.index(scene.paint)] = 2
    if scene.motion:
        v[MOTION_AT + stickers.MOTION_NAMES.index(scene.motion)] = 2
    if scene.loop:
        v[MOTION_AT + len(stickers.MOTION_NAMES)] = 2
    return v


def assemble(sketch, setting, place=None):
    """sketch [B, 64, 68], setting [B, SETTINGS] -> registers [B, 64, WIDTH]"""
    b = len(sketch)
    place = places() if place is None else place
    return torch.cat([sketch, setting[:, None].expand(b, 64, -1), place.expand(b, -1, -1)], -1)
