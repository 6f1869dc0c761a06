"""The Flux2-shaped transformer, with diffusers' tensor names, and the start that its training has:
the first block copies each register to its place in the picture."""
import math

import torch
import torch.nn.functional as F
from torch import nn

import registers as R

AXES, THETA = (16, 16, 16, 16), 2000.


def linear(i, o):
    return nn.Linear(i, o, bias=False)


class RMSNorm(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x):
        return F.rms_norm(x, x.shape[-1:], self.weight, 1e-6)


def rope(ids):
    """ids [L, 4] -> cosines and sines [L, 32]"""
    a = torch.cat([ids[:, i:i + 1].double() * THETA ** (-torch.arange(0, d, 2).double() / d)
                   for i, d in enumerate(AXES)], 1)
    return a.cos().float(), a.sin().float()


def rotate(x, angles):
    c, s = angles
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * c - b * s, b * c + a * s], -1).flatten(-2)


def attend(q, k, v, bias):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias[None, None, None]).transpose(1, 2).flatten(2)


def norm(x):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


class FeedForward(nn.Module):
    def __init__(self, d, m):
        super().__init__()
        self.linear_in, self.linear_out = linear(d, 2 * m), linear(m, d)

    def forward(self, x):
        a, b = self.linear_in(x).chunk(2, -1)
        return self.linear_out(F.silu(a) * b)


class Double(nn.Module):
    def __init__(self, d, heads, m):
        super().__init__()
        self.heads = heads
        names = ('to_q', 'to_k', 'to_v', 'add_q_proj', 'add_k_proj', 'add_v_proj', 'to_add_out')
        self.attn = nn.ModuleDict({n: linear(d, d) for n in names})
        self.attn['to_out'] = nn.ModuleList([linear(d, d)])
        for n in ('norm_q', 'norm_k', 'norm_added_q', 'norm_added_k'):
            self.attn[n] = RMSNorm(d // heads)
        self.ff, self.ff_context = FeedForward(d, m), FeedForward(d, m)

    def forward(self, x, c, mx, mc, angles, bias):
        a, n = self.attn, c.shape[1]
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        y, z = norm(x) * (1 + mx[1]) + mx[0], norm(c) * (1 + mc[1]) + mc[0]
        q = torch.cat([a['norm_added_q'](split(a['add_q_proj'](z))), a['norm_q'](split(a['to_q'](y)))], 2)
        k = torch.cat([a['norm_added_k'](split(a['add_k_proj'](z))), a['norm_k'](split(a['to_k'](y)))], 2)
        v = torch.cat([split(a['add_v_proj'](z)), split(a['to_v'](y))], 2)
        o = attend(rotate(q, angles), rotate(k, angles), v, bias)
        c, x = c + mc[2] * a['to_add_out'](o[:, :n]), x + mx[2] * a['to_out'][0](o[:, n:])
        x = x + mx[5] * self.ff(norm(x) * (1 + mx[4]) + mx[3])
        return x, c + mc[5] * self.ff_context(norm(c) * (1 + mc[4]) + mc[3])


class Single(nn.Module):
    def __init__(self, d, heads, m):
        super().__init__()
        self.heads, self.sizes = heads, [d, d, d, m, m]
        self.attn = nn.ModuleDict(dict(to_qkv_mlp_proj=linear(d, 3 * d + 2 * m), to_out=linear(d + m, d),
                                       norm_q=RMSNorm(d // heads), norm_k=RMSNorm(d // heads)))

    def forward(self, h, m, angles, bias):
        a = self.attn
        q, k, v, g, u = a['to_qkv_mlp_proj'](norm(h) * (1 + m[1]) + m[0]).split(self.sizes, -1)
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        o = attend(rotate(a['norm_q'](split(q)), angles), rotate(a['norm_k'](split(k)), angles), split(v), bias)
        return h + m[2] * a['to_out'](torch.cat([o, F.silu(g) * u], -1))


class Modulation(nn.Module):
    def __init__(self, d, n):
        super().__init__()
        self.linear, self.n = linear(d, n * d), n
        nn.init.zeros_(self.linear.weight)

    def forward(self, t):
        return [z[:, None] for z in self.linear(F.silu(t)).chunk(self.n, -1)]


class Flux2(nn.Module):
    def __init__(self, channels=64, d=192, heads=3, double=1, single=3, text=R.WIDTH, ratio=3):
        super().__init__()
        m = d * ratio
        self.cfg = dict(channels=channels, d=d, heads=heads, double=double, single=single, text=text,
                        ratio=ratio)
        self.x_embedder, self.context_embedder = linear(channels, d), linear(text, d)
        self.time_guidance_embed = nn.ModuleDict(dict(timestep_embedder=nn.ModuleDict(
            dict(linear_1=linear(256, d), linear_2=linear(d, d)))))
        self.double_stream_modulation_img = Modulation(d, 6)
        self.double_stream_modulation_txt = Modulation(d, 6)
        self.single_stream_modulation = Modulation(d, 3)
        self.transformer_blocks = nn.ModuleList(Double(d, heads, m) for _ in range(double))
        self.single_transformer_blocks = nn.ModuleList(Single(d, heads, m) for _ in range(single))
        self.norm_out = nn.ModuleDict(dict(linear=linear(d, 2 * d)))
        self.proj_out = linear(d, channels)

    def forward(self, x, text, t, image_ids, text_ids, bias=None):
        """x [B, n, 64], text [B, L, T], t [B] in 0…1; bias [L + n] is added to attention's logits."""
        f = torch.exp(-math.log(10000) * torch.arange(128) / 128)
        e = (t * 1000)[:, None] * f
        te = self.time_guidance_embed['timestep_embedder']
        temb = te['linear_2'](F.silu(te['linear_1'](torch.cat([e.cos(), e.sin()], -1))))
        mi, mt = self.double_stream_modulation_img(temb), self.double_stream_modulation_txt(temb)
        ms = self.single_stream_modulation(temb)
        x, c = self.x_embedder(x), self.context_embedder(text)
        if image_ids.dim() == 3:   # each picture has its own time
            a, b = rope(torch.cat([text_ids.expand(len(x), -1, -1), image_ids], 1).flatten(0, 1))
            angles = tuple(z.view(len(x), 1, -1, 32) for z in (a, b))
        else:
            angles = rope(torch.cat([text_ids, image_ids]))
        for block in self.transformer_blocks:
            x, c = block(x, c, mi, mt, angles, bias)
        h = torch.cat([c, x], 1)
        for block in self.single_transformer_blocks:
            h = block(h, ms, angles, bias)
        scale, shift = self.norm_out['linear'](F.silu(temb)).chunk(2, -1)
        return self.proj_out(norm(h[:, c.shape[1]:]) * (1 + scale[:, None]) + shift[:, None])


def image_ids(grid, frame=0):
    g = torch.arange(grid[0] * grid[1])
    ids = torch.zeros(len(g), 4)
    ids[:, 0], ids[:, 1], ids[:, 2] = frame, g // grid[1], g % grid[1]
    return ids


def text_ids(positions):
    ids = torch.zeros(len(positions), 4)
    ids[:, 3] = positions
    return ids


@torch.no_grad()
def start(net):
    """Weights with which block 0 copies the register of (row, column) to the image token there.

    The image's query is the same everywhere, so that after the rotation it says where its token
    stands; the register's key is its place. Head 0 brings the sketch, head 1 all else."""
    d = net.cfg['d']
    const, one = d - 1, 6.
    te = net.time_guidance_embed['timestep_embedder']
    te['linear_1'].weight.mul_(.5)
    te['linear_2'].weight.mul_(.5)
    te['linear_1'].weight[0] = 0
    te['linear_1'].weight[0, 120:128] = 1.0           # cosines of the slowest: near 1
    te['linear_2'].weight[0] = 0
    te['linear_2'].weight[0, 0] = one / 8
    unit = F.silu(torch.tensor(one)).item()           # what silu(temb)[0] is, about
    for m, gates in ((net.double_stream_modulation_img, (2, 5)), (net.double_stream_modulation_txt, (2, 5)),
                     (net.single_stream_modulation, (2,))):
        for g in gates:
            m.linear.weight[g * d:(g + 1) * d, 0] = 1 / unit
    net.double_stream_modulation_img.linear.weight[const, 0] = 8 / unit   # shift of attention's input
    for block in net.transformer_blocks:
        for w in (block.ff.linear_out, block.ff_context.linear_out, block.attn['to_add_out'], block.attn['to_out'][0]):
            w.weight.mul_(.3)
    for block in net.single_transformer_blocks:
        block.attn['to_out'].weight.mul_(.3)
    net.x_embedder.weight.mul_(.1)
    net.x_embedder.weight[:64] += torch.eye(64)
    net.x_embedder.weight[const] = 0
    net.context_embedder.weight.zero_()
    net.context_embedder.weight[:R.WIDTH, :R.WIDTH] = torch.eye(R.WIDTH)
    a = net.transformer_blocks[0].attn
    at = R.SKETCH + R.COVER + R.SETTINGS
    for head in (0, 1):
        q, k, v = (w.weight[head * 64:head * 64 + 64] for w in (a['to_q'], a['add_k_proj'], a['add_v_proj']))
        q.zero_(), k.zero_(), v.zero_()
        a['to_k'].weight[head * 64:head * 64 + 64].zero_()
        for axis in (0, 1):
            for f in range(3):
                dim = 16 * (axis + 1) + 2 * f
                q[dim, const] = 1
                k[dim, at + axis * 8 + 2 * f] = 1
                k[dim + 1, at + axis * 8 + 2 * f + 1] = 1
        out = a['to_out'][0].weight[:, head * 64:head * 64 + 64]
        out.zero_()
        n = R.SKETCH if head == 0 else R.COVER + R.SETTINGS
        for i in range(n):
            v[i, head * 64 + i] = 1
            out[64 + head * 64 + i, i] = 1.7
    for w in (a['norm_q'].weight, a['norm_added_k'].weight):
        for axis in (0, 1):
            for f, s in enumerate((3.2, 1.9, 1.)):
                w[16 * (axis + 1) + 2 * f:16 * (axis + 1) + 2 * f + 2] = s
    nn.init.zeros_(net.norm_out['linear'].weight)
    net.proj_out.weight.mul_(.1)
    net.proj_out.weight[:, :64] += torch.eye(64)
    net.proj_out.weight[:, 64:128] -= torch.eye(64)
