#!/usr/bin/env python3
"""Times FLUX.2 [klein] 4B's shapes in PyTorch (diffusers, transformers) and in the engine, in one
run, on the same number of threads: 512 tokens of text once, the transformer's steps, the decoder.

usage: bench_klein_torch.py OMNIFS [--size 512x512] [--steps 4] [--threads 2] [--types bf16]

Weights are made up on both sides and repeat, so that neither needs a checkpoint or its memory; the
embedding of the text is left out on PyTorch's. PyTorch runs at its best: it stops after the encoder's
last layer whose state is taken, and of the types asked for the fastest counts. Both run once, cold.
Seconds by the clock on the wall, and seconds of all processors, which other programs on the machine
disturb less.
"""
import argparse
import json
import os
import subprocess
import time

# Threads that wait asleep: otherwise any other process on the machine makes both many times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

TEXT_TOKENS = 512
TEXT_LAYERS = (9, 18, 27)
STAGES = ("encode", "steps", "decode")


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("program")
    p.add_argument("--size", default="512x512")
    p.add_argument("--steps", type=int, default=4)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--types", default="bf16", help="of PyTorch: bf16, fp32 or bf16,fp32")
    return p.parse_args()


def made_up(torch, make, kind):
    """The module that `make` builds, without its initialisation: every parameter is the beginning of
    one block of small random numbers."""
    with torch.device("meta"):
        module = make()
    most = max(p.numel() for p in module.parameters())
    block = torch.empty(1 << 22).normal_(0, 0.02).to(kind)
    pool = block.repeat(-(-most // block.numel()))
    for name, p in list(module.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        view = torch.nn.Parameter(pool[:p.numel()].view(p.shape), requires_grad=False)
        setattr(module.get_submodule(owner), leaf, view)
    return module.eval()


class Torch:
    def __init__(self, kind, threads):
        import torch
        self.torch, self.kind = torch, {"bf16": torch.bfloat16, "fp32": torch.float32}[kind]
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)

    def encode(self, *_):
        from transformers import Qwen3Config, Qwen3Model
        from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding
        torch = self.torch
        config = Qwen3Config(vocab_size=64, hidden_size=2560, intermediate_size=9728,
                             num_hidden_layers=TEXT_LAYERS[-1], num_attention_heads=32,
                             num_key_value_heads=8, head_dim=128, rms_norm_eps=1e-6)
        model = made_up(torch, lambda: Qwen3Model(config), self.kind)
        model.rotary_emb = Qwen3RotaryEmbedding(config)  # its frequencies are no parameters
        text = torch.randn(1, TEXT_TOKENS, config.hidden_size).to(self.kind)

        def run():
            states = model(inputs_embeds=text, output_hidden_states=True, use_cache=False)
            return torch.cat([states.hidden_states[k] for k in TEXT_LAYERS], -1)
        return run

    def steps(self, width, height, steps):
        from diffusers import Flux2Transformer2DModel
        torch = self.torch
        model = made_up(torch, lambda: Flux2Transformer2DModel(
            in_channels=128, num_layers=5, num_single_layers=20, num_attention_heads=24,
            attention_head_dim=128, joint_attention_dim=7680, timestep_guidance_channels=256,
            mlp_ratio=3.0, axes_dims_rope=(32, 32, 32, 32), rope_theta=2000,
            guidance_embeds=False), self.kind)
        h, w = height // 16, width // 16
        x = torch.randn(1, h * w, 128).to(self.kind)
        text = torch.randn(1, TEXT_TOKENS, 7680).to(self.kind)
        positions = torch.cartesian_prod(*(torch.arange(n) for n in (1, h, w, 1)))
        text_positions = torch.zeros(TEXT_TOKENS, 4, dtype=torch.int64)
        text_positions[:, 3] = torch.arange(TEXT_TOKENS)

        def run():
            y = x
            for i in range(steps):
                t = torch.tensor([1 - i / steps]).to(self.kind)
                y = y - model(hidden_states=y, encoder_hidden_states=text, timestep=t, guidance=None,
                              img_ids=positions, txt_ids=text_positions, return_dict=False)[0] / steps
            return y
        return run

    def decode(self, width, height, _):
        from diffusers import AutoencoderKLFlux2
        torch = self.torch
        model = made_up(torch, lambda: AutoencoderKLFlux2(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=32), self.kind)
        z = torch.randn(1, 32, height // 8, width // 8).to(self.kind)
        return lambda: model.decode(z, return_dict=False)[0]

    def seconds(self, request):
        """Of each stage, then of all processors in all of them."""
        found, processors = {}, 0.0
        for stage in STAGES:  # one part in memory at a time
            run = getattr(self, stage)(*request)
            start, busy = time.monotonic(), time.process_time()
            run()
            found[stage] = time.monotonic() - start
            processors += time.process_time() - busy
        return {**found, "total": sum(found.values()), "processors": processors}


def engine_seconds(a, request):
    width, height, steps = request
    line = [a.program, "bench", "--json", "-s", "drawing", "--synthetic", "klein-4b",
            "--size", f"{width}x{height}", "--steps", str(steps)]
    out = subprocess.run(line, check=True, capture_output=True, text=True,
                         env={**os.environ, "OMNIFS_THREADS": str(a.threads)})
    row = json.loads(out.stdout)["drawing"][0]
    return {"encode": row["encode"], "steps": row["s/step"] * row["steps"], "decode": row["decode"],
            "total": row["total"], "processors": row["CPU s"]}, row["picture"].split(", ")[-1]


def main():
    a = arguments()
    request = (*map(int, a.size.split("x")), a.steps)
    titles = (*STAGES, "total", "processors")
    print(f"klein-4b, {a.size}, {a.steps} steps, {a.threads} threads, seconds")
    print(f"{'':12}" + "".join(f"{t:>12}" for t in titles), flush=True)

    def show(name, found):
        print(f"{name:12}" + "".join(f"{found[t]:12.2f}" for t in titles), flush=True)

    ours, precision = engine_seconds(a, request)
    show(f"engine {precision}", ours)
    best = None
    for kind in a.types.split(","):
        found = Torch(kind, a.threads).seconds(request)
        show(f"torch {kind}", found)
        best = found if best is None or found["total"] < best["total"] else best
    print(f"engine is {best['total'] / ours['total']:.2f}x as fast as PyTorch at its best by the clock, "
          f"{best['processors'] / ours['processors']:.2f}x by processors' time")


if __name__ == "__main__":
    main()
