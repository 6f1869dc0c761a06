"""The Flux2-shaped transformer, with diffusers' tensor names."""
import math

import torch
import torch.nn.functional as F
from torch import nn

import registers as R

AXES, THETA = (16, 16, 16, 16), 2000.
D, HEADS = 320, 5


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


def attend(q, k, v):
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


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

    def forward(self, x, c, mx, mc, angles):
        a, n = self.attn, c.shape[1]
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        y, z = norm(x) * (1 + mx[1]) + mx[0], norm(c) * (1 + mc[1]) + mc[0]
        q = torch.cat([a['norm_added_q'](split(a['add_q_proj'](z))), a['norm_q'](split(a['to_q'](y)))], 2)
        k = torch.cat([a['norm_added_k'](split(a['add_k_proj'](z))), a['norm_k'](split(a['to_k'](y)))], 2)
        v = torch.cat([split(a['add_v_proj'](z)), split(a['to_v'](y))], 2)
        o = attend(rotate(q, angles), rotate(k, angles), v)
        c, x = c + mc[2] * a['to_add_out'](o[:, :n]), x + mx[2] * a['to_out'][0](o[:, n:])
        x = x + mx[5] * self.ff(norm(x) * (1 + mx[4]) + mx[3])
        return x, c + mc[5] * self.ff_context(norm(c) * (1 + mc[4]) + mc[3])


class Single(nn.Module):
    def __init__(self, d, heads, m):
        super().__init__()
        self.heads, self.sizes = heads, [d, d, d, m, m]
        self.attn = nn.ModuleDict(dict(to_qkv_mlp_proj=linear(d, 3 * d + 2 * m), to_out=linear(d + m, d),
                                       norm_q=RMSNorm(d // heads), norm_k=RMSNorm(d // heads)))

    def forward(self, h, m, angles):
        a = self.attn
        q, k, v, g, u = a['to_qkv_mlp_proj'](norm(h) * (1 + m[1]) + m[0]).split(self.sizes, -1)
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        o = attend(rotate(a['norm_q'](split(q)), angles), rotate(a['norm_k'](split(k)), angles), split(v))
        return h + m[2] * a['to_out'](torch.cat([o, F.silu(g) * u], -1))


class Modulation(nn.Module):
    def __init__(self, d, n):
        super().__init__()
        self.linear, self.n = linear(d, n * d), n
        nn.init.zeros_(self.linear.weight)

    def forward(self, t):
        return [z[:, None] for z in self.linear(F.silu(t)).chunk(self.n, -1)]


class Flux2(nn.Module):
    def __init__(self, channels=64, d=D, heads=HEADS, double=1, single=3, text=R.WIDTH, ratio=2):
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

    def time(self, t):
        """t [B] in 0…1 -> its embedding [B, d]"""
        f = torch.exp(-math.log(10000) * torch.arange(128) / 128)
        e = (t * 1000)[:, None] * f
        te = self.time_guidance_embed['timestep_embedder']
        return te['linear_2'](F.silu(te['linear_1'](torch.cat([e.cos(), e.sin()], -1))))

    def forward(self, x, text, t, image_ids, text_ids):
        """x [B, n, 64], text [B, L, T], t [B] in 0…1."""
        temb = self.time(t)
        mi, mt = self.double_stream_modulation_img(temb), self.double_stream_modulation_txt(temb)
        ms = self.single_stream_modulation(temb)
        x, c = self.x_embedder(x), self.context_embedder(text)
        if image_ids.dim() == 3:   # each picture has its own time
            a, b = rope(torch.cat([text_ids.expand(len(x), -1, -1), image_ids], 1).flatten(0, 1))
            angles = tuple(z.view(len(x), 1, -1, 32) for z in (a, b))
        else:
            angles = rope(torch.cat([text_ids, image_ids]))
        for block in self.transformer_blocks:
            x, c = block(x, c, mi, mt, angles)
        h = torch.cat([c, x], 1)
        for block in self.single_transformer_blocks:
            h = block(h, ms, angles)
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
