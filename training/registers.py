"""What the text encoder tells the transformer.

The prompt's pad positions 48 … 111 are 64 registers, one for each 16x16 pixels of a square picture
of 128. A register holds a sketch of its patch (the thing on white and its coverage, from a
principal-component code of the whole picture), the scene's settings, its own place and a flag."""
import torch

import stickers

ROOM, FIRST = 112, 48            # tokens of a prompt; the first register
GRID = 8
SKETCH, SETTINGS, PLACE = 60, 48, 16
FLAG, PAD, WORD = (SKETCH + SETTINGS + PLACE + i for i in range(3))
WIDTH = WORD + 1
CODE = 460                       # 459 components and a constant
CONSTANT = 4.                    # the constant's value
PLACE_SCALE, FLAG_VALUE = 8., 8.
PADS = 128.                      # what a pad has at PAD and WORD; words have 0 and 1
FREQUENCIES = [2000 ** (-i / 8) for i in range(4)]   # the first of the transformer's rope axes
MOTION_AT = 3 + len(stickers.PAINT_NAMES)


def fp8(x):
    """Rounded to what the text encoder stores."""
    return x.to(torch.float8_e4m3fn).float()


def places():
    """[64, PLACE]: about cosine and sine of row and column, in four frequencies each."""
    n = torch.arange(GRID * GRID)
    w = torch.tensor(FREQUENCIES)
    a = [torch.stack([(p[:, None] * w).cos(), (p[:, None] * w).sin()], -1).flatten(1)
         for p in (n // GRID, n % GRID)]
    return fp8(torch.cat(a, 1) * PLACE_SCALE)


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


def assemble(sketch, setting):
    """sketch [B, 64, SKETCH], setting [B, SETTINGS] -> registers and a pad, [B, 65, WIDTH]"""
    b = len(sketch)
    x = torch.zeros(b, 65, WIDTH)
    x[:, :64, :SKETCH] = sketch
    x[:, :, SKETCH:SKETCH + SETTINGS] = setting[:, None]
    x[:, :64, SKETCH + SETTINGS:FLAG] = places()
    x[:, :64, FLAG] = FLAG_VALUE
    x[:, :, PAD] = x[:, :, WORD] = PADS
    return x
