"""The data: RGBA stickers with names and keywords, and scenes made of them.

A scene is one picture to draw: a sticker, an optional paint, a background, an optional motion with
its phase. Environment: STICKERS, the folder with captions.jsonl; WORK, where caches go."""
import json
import math
import os
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

ROOT = os.environ.get('STICKERS', 'data/stickers')
WORK = os.environ.get('WORK', 'work')
STYLES = ('fluent3d', 'noto')
SIZE = 128

BACKGROUNDS = {
    'white': (1, 1, 1), 'black': (.06, .06, .06), 'red': (.85, .2, .2), 'blue': (.2, .4, .85),
    'green': (.25, .65, .3), 'yellow': (.95, .85, .3), 'orange': (.95, .55, .2),
    'purple': (.55, .3, .75), 'pink': (.95, .6, .75), 'gray': (.55, .55, .55),
    'brown': (.5, .33, .2), 'teal': (.2, .65, .65), 'beige': (.93, .88, .77),
    'light blue': (.7, .85, .97), 'dark blue': (.08, .12, .35), 'sky blue': (.53, .81, .92),
    'light green': (.72, .92, .72), 'dark green': (.08, .3, .15), 'light gray': (.85, .85, .85),
    'dark gray': (.25, .25, .25), 'light pink': (.98, .82, .87), 'dark red': (.5, .08, .1),
    'light yellow': (.99, .96, .7), 'turquoise': (.25, .85, .8), 'lavender': (.85, .8, .97),
    'navy': (.06, .1, .3), 'cyan': (.3, .9, .95), 'magenta': (.85, .2, .7), 'gold': (.9, .72, .2),
    'mint': (.7, .95, .82), 'cream': (.99, .96, .87), 'maroon': (.45, .1, .15),
    'violet': (.5, .25, .8), 'lime': (.65, .9, .25), 'peach': (.99, .8, .68),
    'silver': (.78, .78, .8), 'coral': (.98, .5, .42)}
PAINTS = {
    'red': (.86, .16, .16), 'orange': (.96, .52, .12), 'yellow': (.96, .84, .2),
    'green': (.22, .66, .28), 'blue': (.18, .4, .86), 'purple': (.55, .28, .76),
    'pink': (.96, .5, .72), 'brown': (.5, .32, .18), 'black': (.14, .14, .15),
    'white': (.97, .97, .97), 'gray': (.56, .57, .58)}
PAINT_NAMES = list(PAINTS)


@dataclass
class Item:
    index: int
    name: str
    style: str
    group: str
    keywords: list


def rows():
    return [json.loads(line) for line in open(f'{ROOT}/captions.jsonl', encoding='utf-8')]


def load():
    """The items, and their pictures as premultiplied RGBA, u8 [N, 128, 128, 4]."""
    items, files = [], []
    for r in rows():
        for style in STYLES:
            if style in r['files']:
                items.append(Item(len(items), r['name'], style, r['group'], r['keywords']))
                files.append(f"{ROOT}/{r['files'][style]}")
    cache = f'{WORK}/rgba{SIZE}.npy'
    if not os.path.exists(cache):
        os.makedirs(WORK, exist_ok=True)
        np.save(cache, np.stack([np.asarray(Image.open(f).convert('RGBa')
                                            .resize((SIZE, SIZE), Image.LANCZOS)) for f in files]))
    return items, np.load(cache, mmap_mode='r')


def weights(items):
    """How often an item is drawn in training: things before flags, signs and people."""
    rare = {'Flags': .3, 'Symbols': .5, 'People & Body': .6}
    return torch.tensor([rare.get(i.group, 1.) for i in items])


# ---- motions: phase 0 … 1 to a placement; the unit of length is the frame's shorter side ----

@dataclass
class Place:
    dx: float = 0
    dy: float = 0
    sx: float = 1
    sy: float = 1
    turn: float = 0      # degrees
    pivot: float = 0     # below the middle, in sticker heights
    hue: float = 0       # degrees
    alpha: float = 1
    ripple: float = -1   # phase of a sideways wave, -1: none


def _sin(p):
    return math.sin(2 * math.pi * p)


def _ease(p):
    p = min(max(p, 0), 1)
    return p * p * (3 - 2 * p)


def _there_and_back(p, loop):
    return _ease(2 * p if p < .5 else 2 - 2 * p) if loop else _ease(p / .8)


MOTIONS = {
    'bounce': lambda p, loop, w: Place(dy=.17 - .34 * abs(_sin(p)), sy=1 - .15 * (abs(_sin(p)) < .2)),
    'spin': lambda p, loop, w: Place(turn=360 * p),
    'swing': lambda p, loop, w: Place(turn=28 * _sin(p), pivot=-.5),
    'slide in': lambda p, loop, w: Place(dx=-(w / 2 + .35) * (1 - _there_and_back(p, loop))),
    'slide out': lambda p, loop, w: Place(dx=(w / 2 + .35) * _there_and_back(p, loop)),
    'zoom in': lambda p, loop, w: Place(sx=(s := .55 + .85 * _there_and_back(p, loop)), sy=s),
    'zoom out': lambda p, loop, w: Place(sx=(s := 1.4 - .85 * _there_and_back(p, loop)), sy=s),
    'pulse': lambda p, loop, w: Place(sx=(s := 1 + .18 * _sin(2 * p)), sy=s),
    'shake': lambda p, loop, w: Place(dx=.08 * _sin(4 * p)),
    'wave': lambda p, loop, w: Place(ripple=p),
    'grow': lambda p, loop, w: Place(sx=(s := .08 + .92 * _there_and_back(p, loop)), sy=s),
    'shrink': lambda p, loop, w: Place(sx=(s := 1 - .92 * _there_and_back(p, loop)), sy=s),
    'fall': lambda p, loop, w: Place(dy=-.85 + 1.7 * p),
    'rise': lambda p, loop, w: Place(dy=.85 - 1.7 * p),
    'change colours': lambda p, loop, w: Place(hue=360 * p),
    'rock': lambda p, loop, w: Place(turn=15 * _sin(p), pivot=.45),
    'orbit': lambda p, loop, w: Place(dx=.18 * math.cos(2 * math.pi * p), dy=.18 * _sin(p)),
    'blink': lambda p, loop, w: Place(alpha=.5 + .5 * math.cos(4 * math.pi * p)),
    'float': lambda p, loop, w: Place(dy=.08 * _sin(p)),
    'hop': lambda p, loop, w: Place(dy=.15 - .4 * max(0, math.sin(math.pi * (p - .25) * 2))),
    'flip': lambda p, loop, w: Place(sx=math.cos(2 * math.pi * p)),
    'wobble': lambda p, loop, w: Place(sx=1 + .16 * _sin(2 * p), sy=1 - .16 * _sin(2 * p)),
    'move across': lambda p, loop, w: Place(dx=(w + .7) * (p - .5)),
}
REST = lambda p: Place(dy=.03 * _sin(p))     # of a clip whose prompt names no motion
MOTION_NAMES = list(MOTIONS)
MOTION_SCALE, STILL_SCALE = .62, 1.
FRAMES = 24


@dataclass
class Scene:
    item: int
    background: tuple
    colour: str = ''     # the background's name
    paint: str = ''
    motion: str = ''
    loop: bool = False
    frame: float = 0     # of FRAMES


def random_scene(rng, item, still):
    colour = rng.choice(list(BACKGROUNDS)) if rng.random() < .7 else 'white'
    bg = BACKGROUNDS[colour]
    if rng.random() < .3:
        colour, bg = '', tuple(rng.random() for _ in range(3))
    elif colour != 'white':
        bg = tuple(min(1, max(0, c + rng.gauss(0, .03))) for c in bg)
    s = Scene(item, bg, colour, rng.choice(PAINT_NAMES) if rng.random() < .2 else '')
    if not still:
        s.motion, s.loop = rng.choice(MOTION_NAMES + ['', '']), rng.random() < .3
        s.frame = rng.randrange(2 * FRAMES) / 2
    return s


def paint(rgba, colour):
    """Premultiplied [4, H, W] in 0…1, its things painted in `colour`, shading kept."""
    c = torch.tensor(PAINTS[colour])[:, None, None]
    a = rgba[3:].clamp(min=1e-4)
    rgb = (rgba[:3] / a).clamp(0, 1)
    luma = (rgb * torch.tensor([.3, .59, .11])[:, None, None]).sum(0, keepdim=True)
    tint = torch.where(luma < .6, c * (.3 + .7 * luma / .6), c + (1 - c) * ((luma - .6) / .4) ** 2 * .8)
    return torch.cat([(.85 * tint + .15 * rgb) * a, rgba[3:]])


def turn_hue(rgba, degrees):
    """Rotates colours about the grey axis."""
    k, c, s = math.sqrt(1 / 3), math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    third, m = (1 - c) / 3, s * k
    mat = torch.tensor([[c + third, third - m, third + m], [third + m, c + third, third - m],
                        [third - m, third + m, c + third]])
    rgb = torch.einsum('ij,jhw->ihw', mat, rgba[:3]).clamp(min=0)
    return torch.cat([torch.minimum(rgb, rgba[3:]), rgba[3:]])


def placement(scene, wide):
    """Where the scene's thing is, and its size; wide: the frame's width over its shorter side."""
    phase = scene.frame % FRAMES / FRAMES
    if scene.motion:
        return MOTIONS[scene.motion](phase, scene.loop, wide), MOTION_SCALE
    return REST(phase), STILL_SCALE


def source(p, scale, x, y):
    """Which point of the thing's picture (-1 … 1) is seen at the points x, y of the frame."""
    sx, sy = (max(abs(s), .03) * (1 if s >= 0 else -1) for s in (p.sx, p.sy))
    x, y = (x - p.dx) / (scale / 2), (y - p.dy) / (scale / 2) - 2 * p.pivot
    c, s = math.cos(math.radians(p.turn)), math.sin(math.radians(p.turn))
    x, y = (c * x + s * y) / sx, (c * y - s * x) / sy + 2 * p.pivot
    if p.ripple >= 0:
        x = x + .14 * torch.sin(2 * math.pi * (y * .6 - 2 * p.ripple))
    return x, y


def render(scene, pictures, height=SIZE, width=SIZE):
    """The scene's picture, [3, height, width] in 0…1."""
    rgba = torch.from_numpy(np.array(pictures[scene.item])).permute(2, 0, 1).float() / 255
    if scene.paint:
        rgba = paint(rgba, scene.paint)
    unit = min(height, width)
    p, scale = placement(scene, width / unit)
    if p.hue:
        rgba = turn_hue(rgba, p.hue)
    y, x = torch.meshgrid((torch.arange(height) + .5 - height / 2) / unit,
                          (torch.arange(width) + .5 - width / 2) / unit, indexing='ij')
    x, y = source(p, scale, x, y)
    sx, sy = (max(abs(s), .03) for s in (p.sx, p.sy))
    fine = scale * min(sx, sy) * unit
    src = rgba[None]
    if fine < SIZE / 1.4 and sx == sy:
        src = F.interpolate(src, size=max(8, round(fine)), mode='bilinear', antialias=True,
                            align_corners=False)
    out = F.grid_sample(src, torch.stack([x, y], -1)[None], align_corners=False)[0] * p.alpha
    bg = torch.tensor(scene.background)[:, None, None]
    return (out[:3] + bg * (1 - out[3:])).clamp(0, 1)
