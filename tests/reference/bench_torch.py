#!/usr/bin/env python3
"""Times a model folder in PyTorch (diffusers, transformers) and in the engine, in one run, on the
same number of threads: the two take turns, so that both see the same machine.

usage: bench_torch.py OMNI_DRAW MODEL [--threads 2] [--repeat 3] [--clip]
       (OMNI_DRAW: the program built from tests/reference/omni_draw.c)

PyTorch runs at its best: both predictions of a step as one batch, in fp32 and in bf16 autocast; the
faster counts. A call is all steps and decode, from warm weights; the engine's second call finds its prompts encoded,
which takes 3 ms otherwise.
"""
import argparse
import json
import os
import subprocess
import time

# Threads that wait asleep: otherwise any other process on the machine makes both many times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("program")
    p.add_argument("model")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeat", type=int, default=3)
    p.add_argument("--clip", action="store_true", help="24 frames of 128x80 instead of a picture")
    return p.parse_args()


class Torch:
    def __init__(self, folder, threads):
        import torch
        from diffusers import AutoencoderTiny, Flux2Transformer2DModel
        from safetensors.torch import load_file
        from tokenizers import Tokenizer
        from transformers import Qwen3Config, Qwen3Model

        self.torch = torch
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.index = json.load(open(f"{folder}/model_index.json"))
        self.tokenizer = Tokenizer.from_file(f"{folder}/tokenizer/tokenizer.json")
        self.transformer = Flux2Transformer2DModel.from_pretrained(f"{folder}/transformer").float().eval()
        self.vae = AutoencoderTiny.from_pretrained(f"{folder}/vae").float().eval()
        stored = load_file(f"{folder}/vae/diffusion_pytorch_model.safetensors")
        self.mean, self.std = stored["bn.running_mean"], (stored["bn.running_var"] + 1e-4).sqrt()
        self.encoder = Qwen3Model(Qwen3Config.from_pretrained(f"{folder}/text_encoder")).float().eval()
        weights = load_file(f"{folder}/text_encoder/model.safetensors")
        # Layers after the last hidden state that is taken need not be there.
        self.encoder.load_state_dict({k.removeprefix("model."): v.float() for k, v in weights.items()},
                                     strict=False)

    def ids(self, prompt):
        room = self.index["max_sequence_length"]
        text = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        found = self.tokenizer.encode(text).ids[:room]
        pad = self.tokenizer.token_to_id("<|endoftext|>")
        return found + [pad] * (room - len(found)), [1] * len(found) + [0] * (room - len(found))

    def encode(self, prompts):
        rows = [self.ids(p) for p in prompts]
        ids, mask = (self.torch.tensor([r[i] for r in rows]) for i in (0, 1))
        states = self.encoder(ids, attention_mask=mask, output_hidden_states=True).hidden_states
        return self.torch.cat([states[k] for k in self.index["text_encoder_out_layers"]], -1)

    def draw(self, prompt, width, height, frames, steps, guidance, shift=2.0):
        torch = self.torch
        h, w = height // 16, width // 16
        text = self.encode([prompt, ""])
        positions = torch.cartesian_prod(*(torch.arange(n) for n in (frames, h, w, 1)))
        text_positions = torch.zeros(text.shape[1], 4, dtype=torch.int64)
        text_positions[:, 3] = torch.arange(text.shape[1])
        x = torch.randn(1, frames * h * w, 64)
        s = torch.linspace(1, 1 / steps, steps)
        s = torch.cat([shift * s / (1 + (shift - 1) * s), torch.zeros(1)])
        for i in range(steps):
            v = self.transformer(hidden_states=torch.cat([x, x]), encoder_hidden_states=text,
                                 timestep=s[i].repeat(2), img_ids=positions, txt_ids=text_positions,
                                 guidance=None, return_dict=False)[0].float()
            x = x + (s[i + 1] - s[i]) * (v[1:] + guidance * (v[:1] - v[1:]))
        z = (x * self.std + self.mean).view(frames, h, w, 16, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return torch.cat([self.vae.decode(f[None]).sample
                          for f in z.reshape(frames, 16, 2 * h, 2 * w)])

    def seconds(self, half, *request):
        start = time.monotonic()
        with self.torch.autocast("cpu", self.torch.bfloat16, enabled=half):
            self.draw("a red apple, 3d render", *request)
        return time.monotonic() - start


def engine_seconds(a, precision, request):
    width, height, frames, steps, guidance = request
    line = [a.program, a.model, "-s", f"{width}x{height}x{frames}", "-n", steps, "-g", guidance,
            "-P", precision, "-t", a.threads, "-r", 2]
    out = subprocess.run([str(x) for x in line], check=True, capture_output=True, text=True)
    return [json.loads(x)["total"] for x in out.stdout.splitlines()][-1]


def main():
    a = arguments()
    request = (128, 80, 24, 24, 4.0) if a.clip else (128, 128, 1, 24, 4.0)
    torch = Torch(a.model, a.threads)
    runs = {"torch fp32": lambda: torch.seconds(False, *request),
            "torch bf16": lambda: torch.seconds(True, *request),
            "engine fp32": lambda: engine_seconds(a, "fp32", request),
            "engine bf16": lambda: engine_seconds(a, "bf16", request)}
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(a.repeat):
        for name, run in runs.items():
            best[name] = min(best[name], run())
    for name, seconds in best.items():
        print(f"{name:12} {seconds:7.3f} s")
    ratio = min(best["torch fp32"], best["torch bf16"]) / min(best["engine fp32"], best["engine bf16"])
    print(f"engine is {ratio:.2f}x as fast as PyTorch at its best")


if __name__ == "__main__":
    main()
