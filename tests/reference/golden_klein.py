#!/usr/bin/env python3
"""Golden pictures of FLUX.2 [klein] by diffusers' own pipeline, for tests/engine/test_golden.c.

usage: golden_klein.py      from the repository's root; needs torch diffusers transformers
"""
import copy

import numpy as np
import torch
import transformers
from diffusers import (AutoencoderKLFlux2, Flux2KleinInpaintPipeline, Flux2KleinPipeline,
                       Flux2Transformer2DModel, FlowMatchEulerDiscreteScheduler)
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from tokenizers import Tokenizer

import det
import golden

LAYERS, TOKENS = (1, 2, 4), 40
TEMPLATE = ("{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}"
            "{%- endfor %}{{- '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}")
CASES = [
    {"prompt": "an old stone house", "width": 48, "height": 32, "steps": 4, "guidance": 4.0, "seed": 0},
    {"prompt": "Café № 7:\n\ndéjà  vu!", "width": 32, "height": 64, "steps": 3, "guidance": 2.5,
     "seed": 5000000001},
    {"prompt": "", "width": 64, "height": 64, "steps": 6, "guidance": 1.0, "seed": 42},
    {"mode": "image_to_image", "prompt": "the same at night", "images": [[64, 72, 0], [75, 67, 1]],
     "width": 48, "height": 32, "steps": 4, "guidance": 4.0, "seed": 1},
    {"mode": "inpaint", "prompt": "a red door", "images": [[48, 32, 2]], "mask": [48, 32, -1], "strength": 0.8,
     "width": 48, "height": 32, "steps": 5, "guidance": 3.0, "seed": 2},
    {"mode": "inpaint", "prompt": "a window", "images": [[47, 35, 3], [70, 90, 4]], "mask": [60, 40, 5],
     "strength": 0.55, "width": 44, "height": 32, "steps": 4, "guidance": 4.0, "seed": 3},
    {"mode": "inpaint", "prompt": "a roof", "images": [[32, 48, 6]], "mask": [16, 24, 7], "strength": 1.0,
     "width": 32, "height": 48, "steps": 3, "guidance": 1.0, "seed": 4},
]
BY_STRENGTH = [
    {"mode": "image_to_image", "prompt": "an old stone house", "images": [[60, 30, 0]], "strength": 0.6,
     "width": 48, "height": 32, "steps": 5, "guidance": 4.0, "seed": 0},
    {"mode": "inpaint", "prompt": "a red door", "images": [[48, 32, 2]], "mask": [30, 30, 5], "strength": 0.7,
     "width": 48, "height": 32, "steps": 6, "guidance": 1.0, "seed": 2},
]
CLIP = {"frame_attention": "own", "motion_period": 6, "frame_noise": "same", "first_frame": "reference",
        "reference_time": 7}
CLIPS = [
    {"mode": "text_to_video", "prompt": "a bouncing ball", "frames": 3, "width": 48, "height": 32, "steps": 4,
     "guidance": 4.0, "seed": 3},
    {"mode": "text_to_video", "prompt": "a spinning wheel", "frames": 4, "loop": True, "width": 32, "height": 48,
     "steps": 3, "guidance": 1.0, "seed": 4},
    {"mode": "image_to_video", "prompt": "it moves", "frames": 4, "loop": True, "images": [[64, 64, 2]],
     "width": 64, "height": 64, "steps": 3, "guidance": 3.0, "seed": 5},
]


def parts():
    transformer = Flux2Transformer2DModel(
        patch_size=1, in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=48 * len(LAYERS), timestep_guidance_channels=256,
        axes_dims_rope=[4, 4, 4, 4], guidance_embeds=False)
    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1, latent_channels=4,
        norm_num_groups=4, sample_size=32)
    encoder = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(
        vocab_size=4096, hidden_size=48, intermediate_size=80, num_hidden_layers=5,
        num_attention_heads=6, num_key_value_heads=2, head_dim=16, max_position_embeddings=512,
        rope_parameters={"rope_theta": 1e6, "rope_type": "default"}, tie_word_embeddings=False))
    return {"text_encoder": det.fill(encoder), "transformer": det.fill(transformer), "vae": det.fill(vae)}


def draw(pipe, inpaint, case):
    images = [golden.picture(*n) for n in case.get("images", [])]
    more = {"width": case["width"], "height": case["height"]}
    if case.get("mode") == "inpaint":
        pipe = inpaint
        more.update(image=images[0], image_reference=images[1] if images[1:] else None,
                    mask_image=golden.mask(*case["mask"]), strength=case["strength"])
    elif images:
        more["image"] = images
    return run(pipe, case, **more)


def run(pipe, case, **more):
    more.setdefault("generator", torch.Generator().manual_seed(case["seed"]))
    x = pipe(prompt=case["prompt"], num_inference_steps=case["steps"], guidance_scale=case["guidance"],
             output_type="np", max_sequence_length=TOKENS, text_encoder_out_layers=LAYERS, **more).images[0]
    return case, x.transpose(2, 0, 1)


def draw_by_strength(pipe, inpaint, case):
    """What the text_to_image pipeline draws from where the picture under noise stands."""
    w, h, steps = case["width"], case["height"], case["steps"]
    generator = torch.Generator().manual_seed(case["seed"])
    pixels = inpaint.image_processor.preprocess(golden.picture(*case["images"][0]), h, w)
    clean = inpaint._encode_vae_image(pixels, generator)
    noise = torch.randn(clean.shape, generator=generator)
    first = int(max(steps - min(steps * case["strength"], steps), 0))
    sigmas = np.linspace(1.0, 1 / steps, steps)[first:]
    scheduler = copy.deepcopy(pipe.scheduler)
    scheduler.set_timesteps(sigmas=sigmas, mu=compute_empirical_mu(clean.shape[2] * clean.shape[3], steps))
    at = [(1 - s) * clean + s * noise for s in scheduler.sigmas]
    more = {}
    if "mask" in case:
        mask = inpaint.prepare_mask_latents(
            inpaint.mask_processor.preprocess(golden.mask(*case["mask"]), h, w), 1, 1, h, w, torch.float32, "cpu")

        def blend(pipe, step, timestep, tensors):
            return {"latents": (1 - mask) * pipe._pack_latents(at[step + 1]) + mask * tensors["latents"]}
        more["callback_on_step_end"] = blend
    return run(pipe, case, latents=at[0], sigmas=sigmas, width=w, height=h, **more)


def draw_clip(pipe, inpaint, case):
    """Every frame by itself, at its own time, from the same noise."""
    frames, more = [], {"width": case["width"], "height": case["height"]}
    if "images" in case:
        more["image"] = [golden.picture(*n) for n in case["images"]]
    pipe._prepare_image_ids = lambda latents: Flux2KleinPipeline._prepare_image_ids(latents, CLIP["reference_time"])
    for f in range(case["frames"]):
        period, turns = CLIP["motion_period"], max(1, int(case["frames"] / CLIP["motion_period"] + 0.5))
        time = (f * turns * period / case["frames"] if case.get("loop") else f) % period

        def latent_ids(latents, time=time):
            ids = Flux2KleinPipeline._prepare_latent_ids(latents).float()
            ids[..., 0] = time
            return ids
        pipe._prepare_latent_ids = latent_ids
        frames.append(run(pipe, case, **more)[1])
    return case, np.concatenate(frames, axis=1)


def main():
    torch.set_grad_enabled(False)
    modules = parts()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file("tests/engine/golden/tokenizer-qwen/tokenizer.json"),
        pad_token="<|endoftext|>", padding_side="right")
    tokenizer.chat_template = TEMPLATE
    for name, distilled, draws, cases in (
            ("klein-base", False, draw, CASES), ("klein-distilled", True, draw, CASES),
            ("klein-strength", False, draw_by_strength, BY_STRENGTH), ("klein-clips", False, draw_clip, CLIPS)):
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
        pipe, inpaint = (kind(scheduler=scheduler, tokenizer=tokenizer, is_distilled=distilled, **copy.copy(modules))
                         for kind in (Flux2KleinPipeline, Flux2KleinInpaintPipeline))
        index = {"_class_name": "Flux2KleinPipeline", "is_distilled": distilled,
                 "text_encoder_out_layers": LAYERS, "max_sequence_length": TOKENS}
        if draws is draw_by_strength:
            index["image_conditioning"] = "strength"
        if draws is draw_clip:
            index.update(CLIP)
        golden.write(f"tests/engine/golden/{name}", index, scheduler, modules,
                     [draws(pipe, inpaint, case) for case in cases])


if __name__ == "__main__":
    main()
