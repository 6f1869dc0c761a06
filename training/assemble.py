"""Puts the trained `Tail`, the codes and the pads' places into the tensors of a two-layer Qwen3."""
import math

import torch
import torch.nn.functional as F

import encoder as E
import registers as R
import tokens


SHORTEST = 12     # the first position that may be a pad


def bf16(x):
    return x.to(torch.bfloat16).float()


def position_queries(sd):
    """Layer 1's attention of the pads: how much of it the word `user` at position 1 gets."""
    q, k = sd['layers.0.self_attn.q_proj.weight'], sd['layers.0.self_attn.k_proj.weight']
    v, o = sd['layers.0.self_attn.v_proj.weight'], sd['layers.0.self_attn.o_proj.weight']
    for h in range(E.GATHERING):
        r = h * E.HEAD
        pair, phase = E.PAIRS[h // 2 % 2], (h % 2) * math.pi / 2
        q[r + 31, E.PAD] = 1
        q[r + pair, E.PAD], q[r + pair + 32, E.PAD] = .126 * math.cos(phase), .126 * math.sin(phase)
        k[r + 31, E.CONST], k[r + 31, E.USER], k[r + 31, E.BEGIN] = -E.KEEP_OFF, E.KEEP_OFF, E.KEEP_OFF
        k[r + pair, E.USER], k[r + 30, E.BEGIN] = 1 / 16, 1 / 16
        v[r, E.USER], v[r, E.BEGIN] = 1 / 16, -1 / 16
        if h < 4:
            o[E.AT + h, r] = 60
    return q, k, v, o


def place_features():
    """What position_queries makes at 48 … 111, by the layer's own arithmetic: [ROOM - SHORTEST, 4]."""
    pos = torch.arange(SHORTEST, R.ROOM)
    feats = []
    for h in range(4):
        pair, phase = E.PAIRS[h // 2], (h % 2) * math.pi / 2
        q = torch.zeros(E.HEAD)
        q[31], q[pair], q[pair + 32] = 1, .126 * math.cos(phase), .126 * math.sin(phase)
        q = E.rms(q)
        q[31] *= E.QUERY
        k = torch.zeros(2, E.HEAD)
        k[0, pair], k[1, 30] = 8, 8
        a = E.turn(q.expand(len(pos), 64), pos) @ E.turn(k, torch.tensor([1, 0])).T / 8
        w = torch.cat([a, torch.zeros(len(pos), 1)], 1).softmax(1)     # user, <|im_start|> twice
        feats.append(60 * math.sqrt(E.NORM / 2) / 16 * (w[:, 0] - w[:, 1] - w[:, 2]))
    return torch.stack(feats, 1)


def separate(x):
    """Planes w [64, n] that put each of the last 64 rows of x alone on the positive side, widely."""
    scale = torch.cat([x[:, :-1].std(0), x[-1:, -1]])
    y = x / scale
    own = y[-64:]
    c = own[:, :-1].mean(0)
    d = own[:, :-1] - c
    w = torch.zeros(64, y.shape[1])
    w[:, :-1] = d / d.norm(dim=1, keepdim=True)
    w = torch.nn.Parameter(w)
    sign = torch.full((64, len(y)), -1.)
    sign[torch.arange(64), torch.arange(len(y) - 64, len(y))] = 1
    opt = torch.optim.Adam([w], lr=.03)
    for i in range(3000):
        opt.param_groups[0]['lr'] = .03 * (1 - i / 3000) + 1e-4
        m = (w @ y.T) * sign / w[:, :-1].norm(dim=1, keepdim=True)
        loss = torch.logsumexp(-m * 150, 1).sum()
        opt.zero_grad()
        loss.backward()
        opt.step()
    w = w.detach()
    m = ((w @ y.T) * sign).amin(1)
    return w / scale, m / w[:, :-1].norm(dim=1)


def build(tail, codes, token_id):
    """State dict of the encoder, without `model.`; token_id: str -> id."""
    sd = {'embed_tokens.weight': torch.zeros(E.VOCABULARY, E.D), 'norm.weight': torch.ones(E.D)}
    for i in (0, 1):
        p = f'layers.{i}.'
        for n in ('input_layernorm', 'post_attention_layernorm'):
            sd[p + f'{n}.weight'] = torch.full((E.D,), math.sqrt(E.NORM / E.D))
        for n in 'qkv':
            sd[p + f'self_attn.{n}_proj.weight'] = torch.zeros(E.HEADS * E.HEAD, E.D)
        sd[p + 'self_attn.o_proj.weight'] = torch.zeros(E.D, E.HEADS * E.HEAD)
        sd[p + 'self_attn.q_norm.weight'], sd[p + 'self_attn.k_norm.weight'] = torch.ones(E.HEAD), torch.ones(E.HEAD)
        for n in ('gate', 'up'):
            sd[p + f'mlp.{n}_proj.weight'] = torch.zeros(E.UNITS, E.D)
        sd[p + 'mlp.down_proj.weight'] = torch.zeros(E.D, E.UNITS)
    embed_words(sd['embed_tokens.weight'], tail, token_id)
    gather(sd, tail)
    memory(sd, tail, codes)
    read(sd, codes)
    sketch(sd, codes)
    return sd


def embed_words(e, tail, token_id):
    e[:, :112] = tail.words.detach()
    e[:, E.CONST] = 1
    for t in list(tokens.SPECIAL) + ['Ċ', 'ĊĊ', 'assistant', 'user']:
        e[token_id(t), :112] = 0
    e[token_id('user'), E.USER] = 1
    e[token_id('<|im_start|>'), E.BEGIN] = 1
    e[token_id('<think>'), [E.SETTING, E.BIAS]] = 1
    e[token_id('</think>'), [E.CONCEPT, E.BIAS]] = 1
    pad = e[token_id('<|endoftext|>')]
    pad.zero_()
    pad[[E.CONST, E.PAD, E.BIAS]] = E.PADS


def gather(sd, tail):
    q, k, v, o = position_queries(sd)
    n = sd['layers.0.self_attn.q_norm.weight']
    n[E.FREE] = E.SHARP
    n[31] = E.QUERY
    for h in range(E.GATHERING):
        r = h * E.HEAD
        rows = [r + f for f in E.FREE]
        q[rows, E.SETTING], q[rows, E.CONCEPT] = tail.query[0, h].detach(), tail.query[1, h].detach()
        k[rows, :112] = tail.key[h].detach()
        v[r + 1:r + E.HEAD, :112] = tail.value[h].detach()
        o[E.GATHERED, r + 1:r + E.HEAD] = tail.out.detach()[:, h * 63:h * 63 + 63]


def memory(sd, tail, codes):
    """One unit a sticker, open at </think>; the units of the settings, open at <think>."""
    gate, up, down = (sd[f'layers.0.mlp.{n}_proj.weight'] for n in ('gate', 'up', 'down'))
    n = tail.n
    gate[:n, E.GATHERED], gate[:n, E.BIAS], gate[:n, E.CONCEPT] = tail.gate.detach(), tail.bias.detach(), E.CLOSED
    gate[:n, E.CONST] = -E.CLOSED
    up[:n, E.CONCEPT] = 1
    brought = E.memories(codes)
    down[E.CODE:E.CODE + R.CODE, :n] = brought[:, :-1].T
    down[E.RADIUS, :n] = brought[:, -1]
    m = slice(E.MEMORY, E.UNITS)
    gate[m, E.GATHERED], gate[m, E.BIAS], gate[m, E.SETTING] = tail.gate2.detach()[:, :-1], tail.gate2.detach()[:, -1], E.CLOSED
    gate[m, E.CONST] = -E.CLOSED
    up[m, E.GATHERED], up[m, E.SETTING] = tail.up2.detach()[:, :-1], tail.up2.detach()[:, -1]
    down[E.SET:E.SET + R.SETTINGS, m] = tail.down2.detach()[:-1]
    down[E.RADIUS, m] = tail.down2.detach()[-1]


def radius(codes):
    return codes.code.norm(dim=1).max().item()


def read(sd, codes):
    """Layer 2's attention: pads take the code from </think> and the settings from <think>."""
    q, k, v, o = (sd[f'layers.1.self_attn.{n}_proj.weight'] for n in 'qkvo')
    sd['layers.1.self_attn.q_norm.weight'][31] = E.QUERY
    # The stored type is coarse: what is no power of two goes into the norm's own weights.
    w = sd['layers.1.input_layernorm.weight'][0]
    bring = radius(codes) / math.sqrt(E.NORM) / CODE_DOWN
    whole = 2. ** round(math.log2(bring))
    sd['layers.1.input_layernorm.weight'][E.CODE:E.CODE + R.CODE] = w * bring / whole
    for h in range(E.HEADS):
        r = h * E.HEAD
        last = h == E.HEADS - 1
        q[r + 31, E.PAD] = 1
        k[r + 31, E.SETTING if last else E.CONCEPT], k[r + 31, E.CONST] = 192, -96
        if last:
            for i in range(R.SETTINGS):
                v[r + i, E.SET + i] = 1
                o[E.SET + i, r + i] = 1 / 4
        else:
            for i in range(min(64, R.CODE - 64 * h)):
                v[r + i, E.CODE + 64 * h + i] = 1
                o[E.CODE + 64 * h + i, r + i] = whole


CODE_DOWN = 8     # codes are this much smaller at the pads, and the basis larger


def sketch(sd, codes):
    """Layer 2's units: the sketch and the place of each register, opened by the place alone."""
    gate, up, down = (sd[f'layers.1.mlp.{n}_proj.weight'] for n in ('gate', 'up', 'down'))
    f = place_features()
    # the norm's divisor of a usual pad of layer 2
    energy = 3 * E.PADS ** 2 + f.pow(2).sum(1) + codes.code.pow(2).sum(1).mean() / CODE_DOWN ** 2 + 12
    s = torch.rsqrt(energy / E.NORM)
    x = torch.cat([f, torch.full((len(f), 1), E.PADS)], 1) * s[:, None]
    w, margin = separate(x)
    own, s = x[-64:], s[-64:]
    w = bf16(w / (s * (w * own).sum(1))[:, None])        # openings that make up for the norm's divisor
    opening = F.silu((w * own).sum(1))
    wrong = w @ x.T
    wrong[torch.arange(64), torch.arange(len(x) - 64, len(x))] = -99
    print('places: margin %.3f, openings %.2f … %.2f, of wrong places at most %.2f; steepest %.0f' % (
        margin.min(), opening.min(), opening.max(), wrong.max(), w.abs().max()))
    basis = codes.basis.view(R.CODE, 64, R.SKETCH)
    each = R.SKETCH + 1
    for p in range(64):
        u = slice(p * each, (p + 1) * each)
        gate[u, E.AT:E.AT + 4] = w[p, :4]
        gate[u, E.CONST], gate[u, E.PAD] = -E.SHUT, E.SHUT
        gate[u, E.BIAS] = w[p, 4]
        scale = 1 / (opening[p] * s[p])
        rows = torch.arange(p * each, p * each + R.SKETCH)
        up[rows, E.CODE:E.CODE + R.CODE] = basis[:, p].T * (scale * CODE_DOWN)
        down[E.OUT + torch.arange(R.SKETCH), rows] = 1
        place = p * each + R.SKETCH
        one = 8 * scale / E.PADS
        up[place, E.CONST] = R.fp8(one)
        up[place, E.PAD] = one - R.fp8(one)        # the stored type alone is too coarse
        down[E.PLACE:E.PLACE + R.PLACE, place] = R.places()[p] / 8
        down[E.FLAG, place] = R.FLAG_VALUE / 8


FP8 = ('embed_tokens', 'up_proj', 'down_proj', 'layers.1.self_attn')


def stored(sd):
    """As the file holds it: the large and coarse in e4m3, all else in bf16."""
    return {k: v.to(torch.float8_e4m3fn if any(n in k for n in FP8) and v.dim() == 2 else torch.bfloat16).contiguous()
            for k, v in sd.items()}


def columns():
    """Where the transformer finds a register's numbers in the encoder's hidden state."""
    return torch.cat([torch.arange(E.OUT, E.OUT + R.SKETCH), torch.arange(E.SET, E.SET + R.SETTINGS),
                      torch.arange(E.PLACE, E.PLACE + R.PLACE), torch.tensor([E.FLAG, E.PAD, E.CONST])])
