"""The text encoder: two layers of Qwen3 whose parts each have one task, so that little is learnt.

Layer 1: the words are gathered at the prompt's last tokens. At </think> the wide feed-forward layer
is a memory with one hidden unit a sticker, which brings its code; at <think> it brings the scene's
settings. The pads find out where they stand, from the rotary angle to the first word of the
template. Layer 2: each pad 48 … 111 reads code and settings, and its 61 hidden units, which only
its place opens, turn the code into the sketch of its patch (registers.py).

Only `Tail` is trained; `build` puts everything into the tensors of a Qwen3.

usage: encoder.py MINUTES OUT.pt    (goes on from OUT.pt where it is there)"""
import math
import os
import random
import sys
import time

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import nn

import captions
import loop
import registers as R
import stickers
from codes import Codes

D, HEADS, HEAD, UNITS, VOCABULARY = 656, 9, 64, 64 * (R.SKETCH + 1), 4000
NORM = D * float(torch.tensor(math.sqrt(512 / D)).bfloat16()) ** 2     # about 512: what norms count as the width; their weights make up for it
GATHERING = 5                    # heads that gather words
OUT, CODE = 0, 112               # a register's sketch stands where words have their embedding
SET = CODE + R.CODE
PLACE = SET + R.SETTINGS
MISC = PLACE + R.PLACE
CONST, CONCEPT, SETTING, PAD, USER, BEGIN, AT, FLAG, RADIUS = (MISC + i for i in (0, 1, 2, 3, 4, 5, 6, 10, 11))
BIAS = MISC + 12                 # a second flag, that carries the biases of what is open
GATHER = 180                      # numbers that take what is gathered: where nothing is yet, or little that counts
GATHERED = [*range(112), *range(PLACE, PLACE + R.PLACE), *range(SET - 53, SET - 1)]
THETA = math.exp(-32 * math.log(2 * math.pi / 8))          # pair 1 turns once in 8 tokens
PAIRS = (1, 12)                   # a turn in 8 tokens, and in 114
RESERVED = [d for p in (1, 12, 30, 31) for d in (p, p + 32)]
FREE = [d for d in range(HEAD) if d not in RESERVED]
CLOSED = 2. ** 12                 # keeps the units of other tokens shut
SHUT = 2. ** 15                      # the same for layer 2's, whose gates are steeper
SHARP = 2.                        # norm weight of the trained part of queries
KEEP_OFF = .8                     # share of a word's key that keeps pads off
QUERY = 64.                       # of the part that keeps pads off words
MEMORY = 3504                     # the memory's units come first
LOGIC = UNITS - MEMORY
NULLS = {'setting': 9, 'concept': 11}     # tokens without content that the two see
LATER = {'setting': 5, 'concept': 7}      # how far behind the last word they stand
PADS = R.PADS


def angles(p):
    w = THETA ** (-torch.arange(32).double() / 32)
    a = p.double()[..., None] * w
    return a.cos().float(), a.sin().float()


def turn(x, p):
    """Rotary embedding as Qwen3's, x [..., 64] at positions p [...]."""
    c, s = angles(p)
    a, b = x[..., :32], x[..., 32:]
    return torch.cat([a * c - b * s, b * c + a * s], -1)


def rms(x, n=None):
    return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) / (n or x.shape[-1]) + 1e-6)


class Tail(nn.Module):
    """Layer 1 at the tokens <think> and </think>, exactly as the whole encoder computes it."""

    def __init__(self, stickers_count):
        super().__init__()
        self.n = stickers_count
        p = lambda *s, std: nn.Parameter(torch.randn(*s) * std)
        self.words = p(VOCABULARY, 112, std=.1)
        self.query = p(2, GATHERING, len(FREE), std=1.)
        self.key = p(GATHERING, len(FREE), 112, std=.1)
        self.value = p(GATHERING, HEAD - 1, 112, std=.1)
        self.out = p(GATHER, GATHERING * (HEAD - 1), std=.06)
        self.gate, self.bias = p(stickers_count, GATHER, std=.05), nn.Parameter(torch.full((stickers_count,), -.5))
        self.gate2, self.up2 = p(LOGIC, GATHER + 1, std=.15), p(LOGIC, GATHER + 1, std=.15)
        self.down2 = p(R.SETTINGS + 1, LOGIC, std=.05)

    def gather(self, ids, length, which):
        """ids [B, L] of the words, 0 behind length [B] -> [B, GATHER]"""
        b, n = ids.shape
        kind, at = ids.unique(return_inverse=True)
        e = rms(torch.cat([self.words[kind], torch.ones(len(kind), 1)], -1), NORM)
        k = torch.zeros(len(kind), GATHERING, HEAD)
        k[..., FREE] = (e[:, :112] @ self.key.flatten(0, 1).T).unflatten(1, (GATHERING, -1))
        k[..., 31] = -KEEP_OFF * e[:, 112:]
        k = turn(rms(k)[at], (torch.arange(n) + 3)[:, None].expand(n, GATHERING)).transpose(1, 2)
        v = (e[:, :112] @ self.value.flatten(0, 1).T).unflatten(1, (GATHERING, -1))[at].transpose(1, 2)
        q = torch.zeros(GATHERING, HEAD)
        q[:, FREE] = self.query[0 if which == 'setting' else 1]
        q = rms(q) * SHARP
        q = turn(q.expand(b, GATHERING, HEAD), (length + 3 + LATER[which])[:, None].expand(b, GATHERING))
        logit = (k @ q[..., None])[..., 0] / 8
        logit = logit.masked_fill((torch.arange(n) >= length[:, None])[:, None], -1e9)
        logit = torch.cat([logit, torch.full((b, GATHERING, 1), math.log(NULLS[which]))], -1)
        a = logit.softmax(-1)[..., :-1]
        return (a[:, :, None] @ v)[:, :, 0].flatten(1) @ self.out.T

    def concept(self, ids, length):
        """Openings of the memory's units, [B, stickers]."""
        g = self.gather(ids, length, 'concept')
        s = torch.rsqrt((g.pow(2).sum(-1, keepdim=True) + 3) / NORM + 1e-6)
        return (g * s) @ self.gate.T + s * self.bias

    def setting(self, ids, length):
        """[B, SETTINGS], as the second layer's norm leaves it."""
        g = self.gather(ids, length, 'setting')
        s = torch.rsqrt((g.pow(2).sum(-1, keepdim=True) + 3) / NORM + 1e-6)
        x = torch.cat([g, torch.ones(len(g), 1)], 1) * s
        z = (F.silu(x @ self.gate2.T) * (x @ self.up2.T)) @ self.down2.T
        all_of_it = torch.cat([g, z, torch.full((len(g), 1), math.sqrt(3))], 1)
        return rms(all_of_it, NORM)[:, GATHER:GATHER + R.SETTINGS] / 4


def memories(codes):
    """Codes with a number more that makes all equally long, [stickers, CODE + 1]."""
    size = codes.code.norm(dim=1, keepdim=True)
    return torch.cat([codes.code, (size.max() ** 2 - size ** 2).clamp(min=0).sqrt()], 1)


def batch(rng, meanings, share, tok, n):
    """Captions with what they should give: ids, lengths, items (-1: nothing), settings."""
    texts, items, sets = [], [], []
    for i in rng.choices(range(len(meanings.items)), share, k=n):
        if rng.random() < .03:
            texts.append(', '.join(rng.sample(captions.NEGATIVE, rng.randint(1, 3))))
            items.append(-1)
            sets.append(torch.zeros(R.SETTINGS))
            continue
        s = stickers.random_scene(rng, i, rng.random() < .65)
        if not s.colour:
            s.colour = rng.choice(list(stickers.BACKGROUNDS))
        s.background = stickers.BACKGROUNDS[s.colour]
        if s.paint and s.paint in meanings.items[i].name.split():
            s.paint = ''
        texts.append(captions.caption(rng, meanings, s))
        items.append(i)
        sets.append(R.settings(s))
    return *encode(tok, texts), torch.tensor(items), torch.stack(sets)


def encode(tok, texts):
    """Tokens of the texts as they stand in the template, without it."""
    before, after = '<|im_start|>user\n', '<|im_end|>'
    ids = [e.ids[3:-1][:33] for e in tok.encode_batch([before + t + after for t in texts])]
    length = torch.tensor([len(i) for i in ids])
    n = max(1, int(length.max()))
    return torch.tensor([i + [0] * (n - len(i)) for i in ids]), length


def losses(tail, ids, length, items, sets, brought):
    """brought [stickers, n]: what the memory's units bring, all of one length."""
    o, there = tail.concept(ids, length), items >= 0
    right = o.gather(1, items.clamp(min=0)[:, None])[:, 0]
    rest = o.scatter(1, items.clamp(min=0)[:, None], -1e9)
    rest = torch.where(there, rest.logsumexp(1), o.logsumexp(1))
    concept = (F.softplus(rest - right) + .5 * F.softplus(7 - right))[there].sum() + .3 * F.softplus(rest + 5).sum()
    code = F.normalize(F.silu(o) @ brought, dim=1)
    like = (code * F.normalize(brought, dim=1)[items.clamp(min=0)]).sum(1)
    concept = concept + 5 * (1 - like)[there].sum()
    d = (tail.setting(ids, length) - sets).pow(2)
    d = torch.cat([d[:, :3] * 6, d[:, 3:]], 1).sum(1)
    hit = (o.argmax(1) == items)[there].float().mean()
    return concept / len(ids), d.mean(), hit, like[there].mean()


def main():
    minutes, out = float(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    seed = int(time.time())
    torch.manual_seed(seed)
    rng = random.Random(seed)
    items, _ = stickers.load()
    meanings = captions.Meanings(items)
    share = [w * (3 if captions.clean(i.name) in meanings.asked else 1) for w, i in zip(stickers.weights(items).tolist(), items)]
    tok = Tokenizer.from_file(f'{stickers.WORK}/tokenizer.json')
    tail, step0, brought = Tail(len(items)), 0, memories(Codes())
    opt = torch.optim.Adam(tail.parameters(), lr=2e-3, betas=(.9, .98))
    if os.path.exists(out):
        st = torch.load(out, weights_only=False)
        tail.load_state_dict(st['tail']), opt.load_state_dict(st['opt'])
        step0 = st['step']
    run = None
    for step, seconds, last in loop.steps(minutes, opt, float(os.environ.get('LR', '3e-3')), done=step0):
        c, s, hit, like = losses(tail, *batch(rng, meanings, share, tok, 192), brought)
        opt.zero_grad()
        (c + s).backward()
        torch.nn.utils.clip_grad_norm_(tail.parameters(), 3.)
        opt.step()
        now = torch.tensor([c.item(), s.item(), hit.item(), like.item()])
        run = now if run is None else .97 * run + .03 * now
        if step % 25 == 0:
            print(step + step0, '%.0fs' % seconds, 'concept %.3f setting %.3f right %.3f like %.3f' % tuple(run.tolist()), flush=True)
        if step % 100 == 0 or last:
            loop.keep(out, tail=tail.state_dict(), opt=opt.state_dict(), step=step0 + step)


if __name__ == '__main__':
    main()
