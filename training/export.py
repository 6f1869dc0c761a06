"""Writes the model folder in the hub's layout, checks it against diffusers and transformers, and
draws the reference pictures from exactly its weights.

usage: export.py JOINED.pt CALIBRATED.pt FOLDER [UPSCALER.pt…]    (FOLDER has vae/ already)"""
import json
import os
import shutil
import sys

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

import assemble
import draw
import encoder as E
import qwen3
import registers as R
import stickers
import tokens
import transformer as T
from codes import Codes

STEPS, GUIDANCE, SHIFT = 6, 1.0, 2.0
REFERENCES = [('a red apple, 3d render', 1, 128, 128, 1.0), ('a cat face, flat icon on light blue', 2, 128, 128, 1.0),
              ('rocket, 3d icon on a dark blue background', 3, 128, 128, 1.5), ('a slice of pizza', 4, 128, 128, 1.0),
              ('sailboat, cartoon, teal background', 5, 128, 128, 1.0), ('a yellow star', 6, 128, 128, 4.0),
              ('tree; flat illustration', 7, 160, 96, 1.0), ('', 8, 96, 144, 1.0)]


def put(folder, path, value):
    with open(f'{folder}/{path}', 'w', encoding='utf-8') as f:
        json.dump(value, f, indent=2, ensure_ascii=False)
        f.write('\n')


def bf16(sd):
    """What is 0 throughout takes half the room."""
    return {k: v.detach().to(torch.bfloat16 if v.any() else torch.float8_e4m3fn).contiguous() for k, v in sd.items()}


def write_transformer(folder, net):
    c = net.cfg
    sd = dict(net.state_dict())
    wide = torch.zeros(c['d'], E.D)
    wide[:, assemble.columns()] = sd['context_embedder.weight']
    sd['context_embedder.weight'] = wide
    save_file(bf16(sd), f'{folder}/transformer/diffusion_pytorch_model.safetensors', metadata=dict(format='pt'))
    put(folder, 'transformer/config.json', dict(
        _class_name='Flux2Transformer2DModel', patch_size=1, in_channels=c['channels'], out_channels=None,
        num_layers=c['double'], num_single_layers=c['single'], attention_head_dim=c['d'] // c['heads'],
        num_attention_heads=c['heads'], joint_attention_dim=E.D, timestep_guidance_channels=256,
        mlp_ratio=float(c['ratio']), axes_dims_rope=list(T.AXES), rope_theta=int(T.THETA), eps=1e-6,
        guidance_embeds=False))


def write_encoder(folder, sd):
    save_file({'model.' + k: v for k, v in assemble.stored(sd).items()}, f'{folder}/text_encoder/model.safetensors',
              metadata=dict(format='pt'))
    put(folder, 'text_encoder/config.json', dict(
        architectures=['Qwen3ForCausalLM'], model_type='qwen3', vocab_size=E.VOCABULARY, hidden_size=E.D,
        intermediate_size=E.UNITS, num_hidden_layers=3, num_attention_heads=E.HEADS,
        num_key_value_heads=E.HEADS, head_dim=E.HEAD, rms_norm_eps=1e-6, rope_theta=E.THETA,
        hidden_act='silu', attention_bias=False, tie_word_embeddings=True, max_position_embeddings=512,
        torch_dtype='bfloat16'))


def write_rest(folder, codes, upscalers):
    path = f'{folder}/vae/diffusion_pytorch_model.safetensors'
    v = load_file(path)
    eps = json.load(open(f'{folder}/vae/config.json'))['batch_norm_eps']
    v['bn.running_mean'], v['bn.running_var'] = codes.mean.float(), (codes.std ** 2 - eps).float()
    save_file(v, path, metadata=dict(format='pt'))
    put(folder, 'scheduler/scheduler_config.json', dict(
        _class_name='FlowMatchEulerDiscreteScheduler', num_train_timesteps=1000, shift=SHIFT, use_dynamic_shifting=False))
    shutil.copy(f'{stickers.WORK}/tokenizer.json', f'{folder}/tokenizer/tokenizer.json')
    put(folder, 'tokenizer/tokenizer_config.json', dict(
        tokenizer_class='Qwen2Tokenizer', pad_token='<|endoftext|>', eos_token='<|im_end|>', padding_side='right',
        model_max_length=512, add_bos_token=False))
    index = dict(
        _class_name='Flux2KleinPipeline', is_distilled=False, text_encoder_out_layers=[2], max_sequence_length=R.ROOM,
        default_size=[128, 128], default_steps=STEPS, default_guidance=GUIDANCE, image_conditioning='strength',
        precision='fp32', frame_attention='own', motion_period=stickers.FRAMES, frame_noise='same', first_frame='keep',
        scheduler=['diffusers', 'FlowMatchEulerDiscreteScheduler'], text_encoder=['transformers', 'Qwen3ForCausalLM'],
        tokenizer=['transformers', 'Qwen2TokenizerFast'], transformer=['diffusers', 'Flux2Transformer2DModel'],
        vae=['diffusers', 'AutoencoderTiny'])
    for path in upscalers:
        st = torch.load(path)
        name = 'upscaler' if st['scale'] == 4 else f"upscaler_x{st['scale']}"
        os.makedirs(f'{folder}/{name}', exist_ok=True)
        save_file(bf16(st['net']), f'{folder}/{name}/diffusion_pytorch_model.safetensors', metadata=dict(format='pt'))
        n = st['net']
        put(folder, f'{name}/config.json', dict(
            _class_name='OmniUpscaler', scale=st['scale'], cubic=st.get('cubic', -.75), channels=len(n['conv_in.bias']),
            blocks=1 + max(int(k.split('.')[1]) for k in n if k.startswith('blocks.'))))
        index[name] = ['omnifs', 'OmniUpscaler']
    put(folder, 'model_index.json', index)


class Exported:
    """The folder's weights as they are stored, computed in fp32."""

    def __init__(self, folder):
        f32 = lambda p: {k: v.float() for k, v in load_file(f'{folder}/{p}').items()}
        self.sd = {k[6:]: v for k, v in f32('text_encoder/model.safetensors').items()}
        t = f32('transformer/diffusion_pytorch_model.safetensors')
        self.net = T.Flux2(double=len({k.split('.')[1] for k in t if k.startswith('transformer_blocks')}),
                           single=len({k.split('.')[1] for k in t if k.startswith('single_transformer_blocks')}), text=E.D)
        self.net.load_state_dict(t)
        v = load_file(f'{folder}/vae/diffusion_pytorch_model.safetensors')
        self.mean, self.std = v['bn.running_mean'].float(), (v['bn.running_var'].float() + 1e-4).sqrt()
        from diffusers import AutoencoderTiny
        self.vae = AutoencoderTiny.from_pretrained(f'{folder}/vae').float().eval()
        self.tok = Tokenizer.from_file(f'{folder}/tokenizer/tokenizer.json')

    def ids(self, prompts):
        pad = self.tok.token_to_id('<|endoftext|>')
        rows = [e.ids[:R.ROOM] for e in self.tok.encode_batch([tokens.TEMPLATE % p for p in prompts])]
        return (torch.tensor([r + [pad] * (R.ROOM - len(r)) for r in rows]),
                torch.tensor([[1] * len(r) + [0] * (R.ROOM - len(r)) for r in rows]))

    @torch.no_grad()
    def text(self, prompts):
        return qwen3.run(self.sd, *self.ids(prompts))

    def draw(self, prompts, seeds, height=128, width=128, steps=STEPS, guidance=GUIDANCE, frame=0.):
        grid = (height // 16, width // 16)
        noise = torch.cat([torch.randn(1, 64, *grid, generator=torch.Generator().manual_seed(s)).flatten(2).transpose(1, 2) for s in seeds])
        x = draw.sample(self.net, self.text(prompts), self.text(['']) if guidance != 1 else None, noise, grid, steps, guidance, SHIFT, frame)
        return draw.decode(self.vae, x, self.mean, self.std, grid)


def references(folder, model):
    rows = []
    for f in os.listdir(f'{folder}/reference'):
        os.remove(f'{folder}/reference/{f}')
    for i, (p, seed, w, h, g) in enumerate(REFERENCES):
        x = model.draw([p], [seed], h, w, STEPS, g)[0]
        Image.fromarray(np.rint(x.permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(f'{folder}/reference/{i}.png')
        ids, mask = model.ids([p])
        rows.append(dict(file=f'{i}.png', prompt=p, seed=seed, width=w, height=h, steps=STEPS, guidance=g,
                         tokens=ids[0].tolist(), mask=mask[0].tolist(), mean=[round(v, 6) for v in x.mean((1, 2)).tolist()]))
    put(folder, 'reference/reference.json', rows)


@torch.no_grad()
def check(folder, model):
    from diffusers import Flux2Transformer2DModel
    from transformers import Qwen3Config, Qwen3ForCausalLM
    error = lambda a, b: ((a - b).norm() / a.norm()).item()
    m = Flux2Transformer2DModel.from_pretrained(folder + '/transformer').float().eval()
    text = model.text(['a red cat on blue'])
    x, ids, tid = torch.randn(1, 64, 64), T.image_ids((8, 8)), T.text_ids(torch.arange(R.ROOM))
    a = m(hidden_states=x, encoder_hidden_states=text, timestep=torch.tensor([.37]), img_ids=ids, txt_ids=tid, guidance=None, return_dict=False)[0]
    print('transformer against diffusers: relative error %.1e' % error(a, model.net(x, text, torch.tensor([.37]), ids, tid)))
    q = Qwen3ForCausalLM(Qwen3Config.from_pretrained(folder + '/text_encoder')).float().eval()
    q.load_state_dict({'model.' + k: v for k, v in model.sd.items()}, strict=False)
    ids, mask = model.ids(['a red cat on blue'])
    h = q.model(ids, attention_mask=mask, output_hidden_states=True).hidden_states[2]
    print('text encoder against transformers: relative error %.1e' % error(h, text))


def main():
    net_path, tail_path, folder = sys.argv[1:4]
    torch.set_num_threads(1)
    codes, net = Codes(), T.Flux2()
    net.load_state_dict(torch.load(net_path, weights_only=False)['net'])
    tok = Tokenizer.from_file(f'{stickers.WORK}/tokenizer.json')
    tail = E.Tail(len(codes.code))
    tail.load_state_dict(torch.load(tail_path, weights_only=False)['tail'])
    for d in ('text_encoder', 'transformer', 'tokenizer', 'scheduler', 'reference'):
        os.makedirs(f'{folder}/{d}', exist_ok=True)
    write_transformer(folder, net)
    write_encoder(folder, assemble.build(tail, codes, tok.token_to_id))
    write_rest(folder, codes, sys.argv[4:])
    model = Exported(folder)
    references(folder, model)
    check(folder, model)
    print('%.1f MB' % (sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(folder) for f in fs) / 1e6))


if __name__ == '__main__':
    main()
