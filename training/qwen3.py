"""Qwen3's layers in plain torch, for drawing without transformers."""
import torch
import torch.nn.functional as F

import encoder as E


def norm(x, w):
    return F.rms_norm(x, x.shape[-1:], w, 1e-6)


def run(sd, ids, mask, layers=2):
    """ids, mask [B, L] -> hidden state after `layers`, [B, L, D]."""
    x = sd['embed_tokens.weight'][ids]
    b, n = ids.shape
    place = torch.arange(n)
    allowed = (place[:, None] >= place)[None] & (mask[:, None, :] > 0)
    bias = torch.zeros(b, 1, n, n).masked_fill(~allowed[:, None], -1e9)
    for i in range(layers):
        w = lambda name: sd[f'layers.{i}.{name}.weight']
        y = norm(x, w('input_layernorm'))
        split = lambda t: t.view(b, n, E.HEADS, E.HEAD).transpose(1, 2)
        q = norm(split(y @ w('self_attn.q_proj').T), w('self_attn.q_norm'))
        k = norm(split(y @ w('self_attn.k_proj').T), w('self_attn.k_norm'))
        v = split(y @ w('self_attn.v_proj').T)
        a = (E.turn(q, place) @ E.turn(k, place).transpose(-1, -2) / 8 + bias).softmax(-1)
        x = x + (a @ v).transpose(1, 2).flatten(2) @ w('self_attn.o_proj').T
        y = norm(x, w('post_attention_layernorm'))
        x = x + (F.silu(y @ w('mlp.gate_proj').T) * (y @ w('mlp.up_proj').T)) @ w('mlp.down_proj').T
    return x
