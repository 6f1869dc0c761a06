"""How the transformer finds what belongs at a token: the part of it that is not trained.

The double block's heads look at all registers: head 0 at the settings, heads 1 and 4 find the time
(as a row that turns with it), head 2 the token's own row and column, head 3 how many tokens the
frame has. From these the block's feed-forward layer finds out which point of the thing's picture is
seen at the token, and says it as turns of the query. Four heads of the first single block bring the
registers around that point; where there is none, a pad's nothing. `local` is the whole transformer with these
weights of attention put in, which costs little; `join` makes queries and keys that give them."""
import functools
import math

import torch
import torch.nn.functional as F

import registers as R
import stickers
import transformer as T

HEADS, HEAD, D = T.HEADS, T.D // T.HEADS, T.D
ZERO = R.WIDTH                                         # what norms make of 0
RESERVED = slice(R.SKETCH + R.SETTINGS, ZERO + 1)      # numbers of the residual that keys are made of
PLACE = R.SKETCH + R.SETTINGS
ROW, COLUMN = [PLACE + i for i in range(8)], [PLACE + 8 + i for i in range(8)]
NORM_PAD, NORM_WORD = 60., 20.       # of pads and words in the context; the first is most of its norm
ONE = 6.                                               # of the time embedding's number 0
TOKEN_PAD = -1.2                                       # gives about -20 at PAD to a picture's tokens
ANGLES = R.FREQUENCIES[:3]                             # by which points are told
OFFSET = .35                                           # of the four heads from the point
OWN = 14                                               # a number of a head's 64 that time hardly turns
FILL, ELSEWHERE, WORDS = 60, 62, 58                     # numbers for what no register answers
SHARP = (20., 10., 3.)                                 # of the four heads, by angle
NOTHING = 22.8
WEIGHT_OWN, WEIGHT_TURN = 3., 1.2


def pair(axis, i):
    return 16 * axis + 2 * i


def grid_positions(grid):
    n = torch.arange(grid[0] * grid[1])
    return n // grid[1], n % grid[1]


def around(axis_rows):
    """[…] positions and 8 rows -> how well they fit, […, 8], in one angle's cosines."""
    return (axis_rows[..., None] - torch.arange(8.)).cos()


@functools.cache
def table(grid):
    """looks of every half frame."""
    return looks(grid, torch.arange(2 * stickers.FRAMES) / 2)


def looks(grid, frames):
    """Weights of the double block's heads over the registers: [B, n, HEADS, 64]."""
    h, w = (p.float() for p in grid_positions(grid))
    n, b = len(h), len(frames)
    turn = 8 * WEIGHT_TURN ** 2
    row = torch.arange(64) // 8
    time = lambda i: (turn / 2 * around(frames * R.FREQUENCIES[i]))[:, row].softmax(-1)
    place = turn / 3 * (around(h * R.FREQUENCIES[1])[:, :, None] + around(w * R.FREQUENCIES[1])[:, None, :])
    a = torch.zeros(b, n, HEADS, 64)
    a[:, :, 0] = 1 / 64
    a[:, :, 1] = time(2)[:, None]
    a[:, :, 2] = place.flatten(1).softmax(-1)[None]
    a[:, :, 3] = math.exp(.5) / (64 * math.exp(.5) + 48 + n)
    a[:, :, 4] = time(1)[:, None]
    return a


def shifts():
    return [(-OFFSET, -OFFSET), (-OFFSET, OFFSET), (OFFSET, -OFFSET), (OFFSET, OFFSET)]


def fits(distance):
    """Logit of an axis at that many registers' distance from the point."""
    scale = 8 / math.sqrt(6 * 7)
    return scale * sum(s * (distance * a).cos() for s, a in zip(SHARP, ANGLES))


def brings(points):
    """Weights of the four heads: points [B, n, 2] (row, column) -> [B, n, 4, 65], the last the pad."""
    out = []
    for dy, dx in shifts():
        y = fits(points[..., 0:1] + dy - torch.arange(8.))
        x = fits(points[..., 1:2] + dx - torch.arange(8.))
        logit = (y[..., :, None] + x[..., None, :]).flatten(-2)
        nothing = torch.full_like(logit[..., :1], 8 / math.sqrt(7) * NOTHING + math.log(20))
        out.append(torch.cat([logit, nothing], -1).softmax(-1))
    return torch.stack(out, -2)


def told(points, grid):
    """What the query must say: [B, n, 13], for each axis and angle cosine and sine, and 1."""
    h, w = grid_positions(grid)
    d = points - torch.stack([h, w], -1)
    turns = [f(d[..., i] * a) for i in (0, 1) for a in ANGLES for f in (torch.cos, torch.sin)]
    return torch.stack(turns + [torch.ones_like(turns[0])], -1)


TOLD = [pair(1 + i, k) + j for i in (0, 1) for k in range(3) for j in (0, 1)] + [OWN]    # rows of head 0's query


@torch.no_grad()
def start(net, codes):
    """Weights that training begins with."""
    small = lambda w, s: w.weight.mul_(s)
    te = net.time_guidance_embed['timestep_embedder']
    small(te['linear_1'], .5), small(te['linear_2'], .5)
    small(net.transformer_blocks[0].ff.linear_out, .3)
    for b in net.single_transformer_blocks:
        small(b.attn['to_out'], .3)
    small(net.x_embedder, .1)
    net.x_embedder.weight[:64] += torch.eye(64)
    unit = F.silu(torch.tensor(ONE)).item()
    for m, gates in ((net.double_stream_modulation_img, (2, 5)), (net.single_stream_modulation, (2,))):
        for g in gates:
            m.linear.weight[g * D:(g + 1) * D, 0] = 1 / unit
    # what the double block's heads find is put side by side, large enough to be heard
    b = net.transformer_blocks[0]
    v, o, at = b.attn['add_v_proj'].weight, b.attn['to_out'][0].weight, 192
    for head, source, gain in ((0, range(R.SKETCH, PLACE), 5.), (1, ROW, 1.5), (2, ROW + COLUMN, 1.5), (4, ROW, 1.5)):
        n = len(source)
        v[head * 64:head * 64 + n, source] += torch.eye(n)
        o[at:at + n, head * 64:head * 64 + n] += gain * torch.eye(n)
        at += n
    o[at, 192] = 4.
    # the four heads bring sketches, whose mean is about the picture's latents
    b = net.single_transformer_blocks[0]
    v, out = b.attn['to_qkv_mlp_proj'].weight[2 * D:3 * D], b.attn['to_out'].weight
    even = codes.spread.clamp(min=.05).rsqrt()
    norm = NORM_PAD / math.sqrt(D)
    for h in range(4):
        v[h * 64:h * 64 + R.SKETCH, :R.SKETCH] += torch.eye(R.SKETCH)
        out[128:192, h * 64:h * 64 + R.SKETCH] += codes.patch[:, :64].T / even * norm / 4
    small(net.proj_out, .1)
    net.proj_out.weight[:, :64] += torch.eye(64)
    net.proj_out.weight[:, 128:192] -= torch.eye(64)
    net.context_embedder.weight.zero_()
    net.context_embedder.weight[torch.arange(R.SKETCH), torch.arange(R.SKETCH)] = even
    pin(net)


@torch.no_grad()
def pin(net):
    """Sets what training must leave alone, after each of its steps."""
    r = RESERVED
    te = net.time_guidance_embed['timestep_embedder']
    te['linear_1'].weight[0] = 0
    te['linear_1'].weight[0, 120:128] = 1.                # cosines of the slowest: near 1
    te['linear_2'].weight[0] = 0
    te['linear_2'].weight[0, 0] = ONE / 8
    unit = F.silu(torch.tensor(ONE)).item()
    img, txt, one = (m.linear.weight for m in (net.double_stream_modulation_img, net.double_stream_modulation_txt, net.single_stream_modulation))
    txt[:] = 0
    for i, w in ((0, img), (1, img), (3, img), (4, img), (0, one), (1, one)):
        w[i * D:(i + 1) * D][r] = 0
    for i, w in ((2, img), (5, img), (2, one)):
        w[i * D:(i + 1) * D][r] = 0
        w[i * D:(i + 1) * D][r, 0] = 1 / unit
    img[R.PAD, 0] = 8 / unit                               # the query of the double block
    c = net.context_embedder.weight
    c[R.SKETCH:, :] = 0
    for i in range(R.SKETCH, R.FLAG):
        c[i, i] = 1
    c[R.FLAG, R.FLAG], c[R.PAD, R.PAD] = 1, NORM_PAD / R.PADS
    c[R.WORD, R.WORD], c[R.WORD, R.PAD] = NORM_WORD, -NORM_WORD
    net.x_embedder.weight[r] = 0
    b = net.transformer_blocks[0]
    b.ff.linear_out.weight[r] = 0
    b.ff_context.linear_in.weight[:], b.ff_context.linear_out.weight[:] = 0, 0
    for n in ('to_k', 'to_v', 'to_add_out'):
        b.attn[n].weight[:] = 0
    v, o = b.attn['add_v_proj'].weight, b.attn['to_out'][0].weight
    o[r] = 0
    v[63] = 0
    v[63, R.PAD] = 1                                       # number 63 of head 0 is a constant
    o[R.PAD, 63] = TOKEN_PAD
    v[192:256] = 0
    v[192, R.FLAG] = 4                                    # all that head 3 brings
    for b in net.single_transformer_blocks:
        b.attn['to_out'].weight[r] = 0
    net.single_transformer_blocks[0].attn['to_out'].weight[:, 256:D] = 0
    for b in net.single_transformer_blocks[1:]:
        b.attn['to_out'].weight[:, :D] = 0


def local(net, x, registers, t, look, bring):
    """x [B, n, 64], registers [B, 65, WIDTH], t [B], look [B, n, HEADS, 64], bring [B, n, 4, 65]
    -> velocity [B, n, 64], what the query says [B, n, 13]; without bring the latter only"""
    temb = net.time(t)
    mi, ms = net.double_stream_modulation_img(temb), net.single_stream_modulation(temb)
    x, c = net.x_embedder(x), net.context_embedder(registers)
    y = T.norm(c)
    b = net.transformer_blocks[0]
    v = b.attn['add_v_proj'](y[:, :64]).unflatten(2, (HEADS, HEAD))
    x = x + mi[2] * b.attn['to_out'][0](torch.einsum('bnhr,brhd->bnhd', look, v).flatten(2))
    x = x + mi[5] * b.ff(T.norm(x) * (1 + mi[4]) + mi[3])
    query = None
    for i, b in enumerate(net.single_transformer_blocks):
        w, o, m = b.attn['to_qkv_mlp_proj'].weight, b.attn['to_out'].weight, b.sizes[3]
        z = T.norm(x) * (1 + ms[1]) + ms[0]
        g, u = F.linear(z, w[3 * D:]).split([m, m], -1)
        out = F.linear(F.silu(g) * u, o[:, D:])
        if i == 0:
            query = F.linear(z, w[TOLD])
            if bring is None:
                return None, query
            v = F.linear(y * (1 + ms[1]) + ms[0], w[2 * D:2 * D + 256]).unflatten(2, (4, HEAD))
            out = out + F.linear(torch.einsum('bnhr,brhd->bnhd', bring, v).flatten(2), o[:, :256])
        x = x + ms[2] * out
    scale, shift = net.norm_out['linear'](F.silu(temb)).chunk(2, -1)
    return net.proj_out(T.norm(x) * (1 + scale[:, None]) + shift[:, None]), query


@torch.no_grad()
def join(net):
    """Queries and keys that give the weights which training was given."""
    pin(net)
    turns = torch.linalg.lstsq(R.places()[::8, :8].double(), torch.stack(
        [f(torch.arange(8.) * a) for a in ANGLES for f in (torch.cos, torch.sin)], 1).double()).solution.float()   # [8, 6]
    b = net.transformer_blocks[0]
    q, k = b.attn['to_q'].weight, b.attn['add_k_proj'].weight
    q.zero_(), k.zero_()
    b.attn['norm_q'].weight.fill_(WEIGHT_TURN), b.attn['norm_added_k'].weight.fill_(WEIGHT_TURN)
    b.attn['norm_q'].weight[OWN], b.attn['norm_added_k'].weight[OWN] = WEIGHT_OWN, WEIGHT_OWN
    unit = 1 / R.FLAG_VALUE

    def head(h, axes, own, fill=0.):
        """Pairs (axis, number of the pair, rows or columns) turn with the token; `own` of the flag."""
        s = slice(h * 64, h * 64 + 64)
        for axis, i, source in axes:
            q[s][pair(axis, i), R.PAD] = 1
            k[s][pair(axis, i)][source] = turns[:, 0]
            k[s][pair(axis, i) + 1][source] = turns[:, 1]
        q[s][OWN, R.PAD], k[s][OWN, R.FLAG] = own, unit
        q[s][FILL, R.PAD] = fill
        others(k[s])

    def others(k):
        """A pad and a word look elsewhere: at numbers that no query has."""
        k[ELSEWHERE, R.PAD], k[ELSEWHERE, R.FLAG] = .05, -.05 * NORM_PAD / R.FLAG_VALUE
        k[WORDS, R.WORD] = 1

    head(0, [], 1.)
    head(1, [(0, 2, ROW)], 1.)
    head(2, [(1, 1, ROW), (2, 1, COLUMN)], 1.)
    head(3, [], .5 / (8 * WEIGHT_OWN ** 2), 1.)
    head(4, [(0, 1, ROW)], 1.)
    a = net.single_transformer_blocks[0].attn
    w = a['to_qkv_mlp_proj'].weight
    say = w[TOLD].clone()
    w[:2 * D] = 0
    for h, offset in enumerate(shifts()):
        q, k = w[h * 64:h * 64 + 64], w[D + h * 64:D + h * 64 + 64]
        for axis, source in ((0, ROW), (1, COLUMN)):
            for i, angle in enumerate(ANGLES):
                at, c, s = pair(1 + axis, i), math.cos(offset[axis] * angle), math.sin(offset[axis] * angle)
                x, y = say[axis * 6 + 2 * i], say[axis * 6 + 2 * i + 1]
                q[at], q[at + 1] = x * c - y * s, x * s + y * c
                k[at][source], k[at + 1][source] = turns[:, 2 * i], turns[:, 2 * i + 1]
        q[OWN] = say[12]
        k[OWN, R.PAD], k[OWN, R.FLAG] = .05, -.05 * NORM_PAD / R.FLAG_VALUE
        k[WORDS, R.WORD] = 1
    # The norm before takes a mean away: it must not matter.
    for k in (b.attn['add_k_proj'].weight, w[D:2 * D]):
        k[:, ZERO] = -k.sum(1)
    for n in ('norm_q', 'norm_k'):
        a[n].weight.fill_(1.)
        for axis in (1, 2):
            for i, s in enumerate(SHARP):
                a[n].weight[pair(axis, i):pair(axis, i) + 2] = math.sqrt(s)
        a[n].weight[OWN] = math.sqrt(NOTHING)
