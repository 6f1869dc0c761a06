"""Finds how steep and how early the memory's units open, on captions, and writes it into the encoder.

usage: calibrate.py ENCODER.pt OUT.pt"""
import random
import sys

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

import captions
import encoder as E
import stickers
from codes import Codes


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    st = torch.load(sys.argv[1], weights_only=False)
    items = stickers.load()[0]
    brought = E.memories(Codes())
    tail = E.Tail(len(items))
    tail.load_state_dict(st['tail'])
    rng = random.Random(99)
    tok = Tokenizer.from_file(f'{stickers.WORK}/tokenizer.json')
    ids, length, right, _ = E.batch(rng, captions.Meanings(items), stickers.weights(items).tolist(), tok, 500)
    keep = right >= 0
    ids, length, right = ids[keep], length[keep], right[keep]
    g = tail.gather(ids, length, 'concept')
    s = torch.rsqrt((g.pow(2).sum(1, keepdim=True) + 3) / E.NORM + 1e-6)
    dot, bias = (g * s) @ tail.gate.T, tail.bias
    want, best = F.normalize(brought, dim=1)[right], (-1, 0, 0)
    o = dot + s * bias
    print('opening of the right one: tenth %.1f, median %.1f; divisor %.2f ± %.2f' % (
        *o.gather(1, right[:, None])[:, 0].quantile(torch.tensor([.1, .5])).tolist(), s.mean(), s.std()))
    for shift in (-.2, -.1, 0., .1, .2, .3, .4, .5, .7):
        for steep in (1., 1.5, 2., 3., 4.):
            like = (F.normalize(F.silu(steep * (o + s * shift)) @ brought, dim=1) * want).sum(1)
            m = like.mean().item()
            if steep in (1., 2., 4.):
                print(f'shift {shift} steep {steep}: like {m:.3f}, above .9 {(like > .9).float().mean():.3f}', flush=True)
            best = max(best, (m, shift, steep))
    print('best', best)
    tail.bias += best[1]
    # Wider still: what was gathered stays where codes come, and should be little beside them.
    tail.bias *= best[2] * 4
    tail.gate *= best[2] * 4
    torch.save(dict(st, tail=tail.state_dict()), sys.argv[2])


if __name__ == '__main__':
    main()
