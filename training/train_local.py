"""Trains what the transformer does within a token, which needs no attention and so costs little:
the colours of background and paint, and the noise. The first stage, before train_transformer.py.

usage: train_local.py MINUTES OUT.pt    (goes on from OUT.pt where it is there)"""
import math
import os
import sys
import time

import torch
import torch.nn.functional as F

import registers as R
import transformer as T
from codes import Codes
from train_transformer import Shards

TOKENS = 1024


def local(net, x, reg, t):
    """The transformer's prediction where attention only copies: x [N, 64], reg [N, WIDTH], t [N]."""
    f = torch.exp(-math.log(10000) * torch.arange(128) / 128)
    e = (t * 1000)[:, None] * f
    te = net.time_guidance_embed['timestep_embedder']
    temb = F.silu(te['linear_2'](F.silu(te['linear_1'](torch.cat([e.cos(), e.sin()], -1)))))
    mi = net.double_stream_modulation_img.linear(temb).chunk(6, -1)
    mt = net.double_stream_modulation_txt.linear(temb).chunk(6, -1)
    ms = net.single_stream_modulation.linear(temb).chunk(3, -1)
    x = net.x_embedder(x)
    for i, b in enumerate(net.transformer_blocks):
        if i == 0:
            c = T.norm(net.context_embedder(reg)) * (1 + mt[1]) + mt[0]
            x = x + mi[2] * b.attn['to_out'][0](copied(b.attn['add_v_proj'](c)))
        x = x + mi[5] * b.ff(T.norm(x) * (1 + mi[4]) + mi[3])
    for b in net.single_transformer_blocks:
        d, m = b.sizes[0], b.sizes[3]
        w, o = b.attn['to_qkv_mlp_proj'].weight[3 * d:], b.attn['to_out'].weight[:, d:]
        g, u = F.linear(T.norm(x) * (1 + ms[1]) + ms[0], w).split([m, m], -1)
        x = x + ms[2] * F.linear(F.silu(g) * u, o)
    scale, shift = net.norm_out['linear'](temb).chunk(2, -1)
    return net.proj_out(T.norm(x) * (1 + scale) + shift)


def copied(v):
    """Heads 0 and 1 of block 0 copy; the others bring nothing yet."""
    return torch.cat([v[:, :128], torch.zeros_like(v[:, 128:])], 1)


def mute(net):
    """No attention but the copy, so that the whole net starts as what this stage trains."""
    with torch.no_grad():
        for i, b in enumerate(net.transformer_blocks):
            b.attn['to_out'][0].weight[:, 128 if i == 0 else 0:].zero_()
        for b in net.single_transformer_blocks:
            b.attn['to_out'].weight[:, :b.sizes[0]].zero_()


def main():
    minutes, out = float(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    torch.manual_seed(int(time.time()))
    codes, shards = Codes(), Shards()
    net, step0 = T.Flux2(), 0
    T.start(net)
    mute(net)
    opt = torch.optim.AdamW(net.parameters(), lr=1e-3, betas=(.9, .98), weight_decay=.01)
    if os.path.exists(out):
        st = torch.load(out, weights_only=False)
        net.load_state_dict(st['net']), opt.load_state_dict(st['opt'])
        step0 = st['step']
    pairs = []

    def take():
        """All stills of the registers' own size, each token with its register."""
        pairs.clear()
        for scenes, tokens in shards.still.get((8, 8), []):
            s = codes.decode(codes.code[[x.item for x in scenes]])
            pairs.append((s, torch.stack([R.settings(x) for x in scenes]), tokens))
        print('shards', len(pairs), flush=True)

    take()
    frozen = [p for n, p in net.named_parameters() if 'norm_q' in n or 'norm_added' in n]
    for p in frozen:
        p.requires_grad_(False)
    begin, step, run, part, place = time.time(), 0, None, 0, R.places()
    while part < 1:
        part = (time.time() - begin) / (minutes * 60)
        lr = 2e-3 * min(1, (step + step0 + 1) / 50) * (.05 + .95 * (.5 + .5 * math.cos(math.pi * min(part, 1))))
        for g in opt.param_groups:
            g['lr'] = lr
        s, setting, tokens = pairs[int(torch.randint(len(pairs), ()))]
        i, k = torch.randint(len(s), (TOKENS,)), torch.randint(64, (TOKENS,))
        x0 = (tokens[i, k].float() - codes.mean) / codes.std
        reg = torch.cat([s[i, k] * (1 + .05 * torch.randn(TOKENS, 1)), setting[i], place[k]], 1)
        reg[:, :R.SKETCH + R.COVER + R.SETTINGS] += .03 * torch.randn(TOKENS, R.WIDTH - R.PLACE)
        reg[torch.rand(TOKENS) < .05, :R.SKETCH + R.COVER + R.SETTINGS] = 0
        t = torch.sigmoid(torch.randn(TOKENS) + .3)
        t = torch.where(torch.rand(TOKENS) < .4, 1 - .12 * torch.rand(TOKENS) ** 1.5, t).clamp(min=.05)
        e = torch.randn_like(x0)
        v = local(net, (1 - t)[:, None] * x0 + t[:, None] * e, reg, t)
        loss = ((v - (e - x0)).pow(2).mean(1)).mean()
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.)
        opt.step()
        step += 1
        run = loss.item() if run is None else .97 * run + .03 * loss.item()
        if step % 25 == 0:
            print(step + step0, '%.0fs' % (time.time() - begin), 'loss %.4f' % run, flush=True)
        if step % 100 == 0 or part >= 1:
            torch.save(dict(net=net.state_dict(), ema=net.state_dict(), opt=opt.state_dict(), step=step0 + step), out + '.part')
            os.rename(out + '.part', out)
            n = len(shards.known)
            shards.refresh()
            if len(shards.known) > n:
                take()


if __name__ == '__main__':
    main()
