#!/usr/bin/env python3
"""Golden pictures of Stable Diffusion and Stable Diffusion XL by diffusers' own pipelines, for
tests/engine/test_stable_diffusion.c.

usage: golden_stable_diffusion.py      from the repository's root; needs torch diffusers transformers
"""
import copy
import json

import diffusers
import torch
from diffusers import (AutoencoderKL, StableDiffusionInpaintPipeline, StableDiffusionPipeline,
                       StableDiffusionXLInpaintPipeline, StableDiffusionXLPipeline, UNet2DConditionModel)
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import det
import golden

TOKENIZERS = "tests/engine/golden/clip"
GOLDEN = "tests/engine/golden"
# Of scheduler_config.json: what it leaves out falls to the default of whichever class is used.
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CLASSES = {"euler": "EulerDiscreteScheduler", "euler_a": "EulerAncestralDiscreteScheduler",
           "dpmpp_2m": "DPMSolverMultistepScheduler", "unipc": "UniPCMultistepScheduler", "ddim": "DDIMScheduler"}
LONG = "a photo of the sea, " * 20
ACROSS, ATTENDS, UP, ATTENDS_UP = "DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"


def encoder(kind, width, act, projection, end):
    with open(f"{TOKENIZERS}/tokenizer/vocab.json", encoding="utf-8") as f:
        count = len(json.load(f))
    return det.fill(kind(CLIPTextConfig(
        vocab_size=count, hidden_size=width, intermediate_size=2 * width + 5, num_hidden_layers=3,
        num_attention_heads=4, max_position_embeddings=77, hidden_act=act, projection_dim=projection,
        bos_token_id=count - 2, eos_token_id=end or count - 1)))


def vae(scaling, **options):
    return det.fill(AutoencoderKL(
        block_out_channels=(8, 8, 16), down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, layers_per_block=1, latent_channels=4, norm_num_groups=4,
        sample_size=32, scaling_factor=scaling, **options))


def unet(down, up, **options):
    return det.fill(UNet2DConditionModel(down_block_types=down, up_block_types=up, norm_num_groups=4,
                                         sample_size=10, **options))


def case(prompt, width, height, steps, guidance, seed, **others):
    return {"prompt": prompt, "width": width, "height": height, "steps": steps, "guidance": guidance,
            "seed": seed, **others}


def from_picture(prompt, width, height, steps, guidance, seed, strength, picture, **others):
    return case(prompt, width, height, steps, guidance, seed, strength=strength, images=[picture],
                mode="inpaint" if "mask" in others else "image_to_image", **others)


def pictures_of(c):
    """The pipeline's sibling for the case's mode and what that takes besides."""
    if "mask" in c:
        return "InpaintPipeline", {
            "image": golden.picture(*c["images"][0]), "mask_image": golden.mask(*c["mask"]),
            "strength": c["strength"], "width": c["width"], "height": c["height"]}
    if "images" in c:
        picture = golden.picture(*c["images"][0]).resize((c["width"], c["height"]), Image.LANCZOS)
        return "Img2ImgPipeline", {"image": picture, "strength": c["strength"]}
    return "Pipeline", {"width": c["width"], "height": c["height"]}


def sibling(pipe, kind):
    names = {"requires_safety_checker", "force_zeros_for_empty_prompt"} & set(pipe.config)
    if type(pipe).__name__.endswith(kind):
        return pipe
    family = type(pipe).__name__.removesuffix("Pipeline")
    own = {**pipe.components, "scheduler": copy.deepcopy(pipe.scheduler)}  # siblings correct its options, each its own
    return getattr(diffusers, family + kind)(**own, **{n: pipe.config[n] for n in names})


def draw(pipe, cases):
    pictures = []
    for c in cases:
        kind, more = pictures_of(c)
        drawing = pipe if kind == "Pipeline" else sibling(pipe, kind)
        own = drawing.scheduler
        drawing.scheduler = getattr(diffusers, CLASSES[c["scheduler"]]).from_config(own.config) \
            if "scheduler" in c else own
        x = drawing(prompt=c["prompt"], negative_prompt=c.get("negative_prompt"),
                    num_inference_steps=c["steps"], guidance_scale=c["guidance"],
                    generator=torch.Generator().manual_seed(c["seed"]), output_type="np", **more).images[0]
        drawing.scheduler = own
        pictures.append((c, x.transpose(2, 0, 1)))
    return pictures


def write(name, pipe, parts, scheduler, cases, **index):
    folder = f"{GOLDEN}/{name}"
    golden.write(folder, {"_class_name": type(pipe).__name__, **index}, pipe.scheduler, parts, draw(pipe, cases))
    golden.write_json(f"{folder}/scheduler/scheduler_config.json", scheduler)


def make_scheduler(config):
    return getattr(diffusers, config["_class_name"]).from_config(config)


def stable_diffusion(name, parts, scheduler, tokenizer, cases, kind=StableDiffusionPipeline):
    pipe = kind(
        scheduler=make_scheduler(scheduler), tokenizer=CLIPTokenizer.from_pretrained(f"{TOKENIZERS}/{tokenizer}"),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False, **parts)
    write(name, pipe, parts, scheduler, cases)


def stable_diffusion_xl(name, parts, scheduler, zeros, cases, kind=StableDiffusionXLPipeline):
    tokenizers = {t: CLIPTokenizer.from_pretrained(f"{TOKENIZERS}/{t}") for t in ("tokenizer", "tokenizer_2")}
    pipe = kind(scheduler=make_scheduler(scheduler), force_zeros_for_empty_prompt=zeros,
                                     add_watermarker=False, **tokenizers, **parts)
    write(name, pipe, parts, scheduler, cases, force_zeros_for_empty_prompt=zeros)


def sd15():
    """As version 1.5: PNDM, convolutions around attention, four levels of odd sizes."""
    parts = {
        "text_encoder": encoder(CLIPTextModel, 32, "quick_gelu", 32, None),
        "unet": unet((ATTENDS, ATTENDS, ATTENDS, ACROSS), (UP, ATTENDS_UP, ATTENDS_UP, ATTENDS_UP),
                     block_out_channels=(8, 16, 16, 16), layers_per_block=1, cross_attention_dim=32,
                     attention_head_dim=2),
        "vae": vae(0.18215)}
    scheduler = {"_class_name": "PNDMScheduler", **BETAS, "skip_prk_steps": True, "set_alpha_to_one": False,
                 "steps_offset": 1, "trained_betas": None, "num_train_timesteps": 1000, "clip_sample": False}
    stable_diffusion("sd15", parts, scheduler, "tokenizer", [
        case("an old stone house!", 40, 24, 6, 7.5, 0),
        case("a red fox", 48, 32, 4, 4.0, 7000000001, negative_prompt="blurry, low quality"),
        case(LONG, 32, 32, 3, 1.0, 3),
        case("Café № 7", 40, 40, 5, 5.0, 4, scheduler="dpmpp_2m"),
        case("mountains", 32, 32, 4, 6.0, 5, scheduler="euler"),
        from_picture("at night", 40, 24, 8, 7.5, 6, 0.75, [50, 50, 0]),
        from_picture("a tower", 32, 32, 5, 3.0, 7, 0.5, [32, 32, 1], scheduler="dpmpp_2m"),
        from_picture("a door", 40, 24, 6, 5.0, 8, 0.7, [30, 40, 2], mask=[20, 20, 5]),
        from_picture("a gate", 32, 32, 4, 2.0, 9, 1.0, [32, 32, 2], mask=[32, 32, -1], scheduler="ddim")])


def sd15_inpaint():
    """A UNet that reads mask and picture beside the latent."""
    parts = {
        "text_encoder": encoder(CLIPTextModel, 32, "quick_gelu", 32, None),
        "unet": unet((ATTENDS, ACROSS), (UP, ATTENDS_UP), block_out_channels=(8, 16), layers_per_block=1,
                     cross_attention_dim=32, attention_head_dim=2, in_channels=9),
        "vae": vae(0.18215)}
    scheduler = {"_class_name": "DDIMScheduler", **BETAS, "clip_sample": False, "set_alpha_to_one": False,
                 "steps_offset": 1}
    stable_diffusion("sd15-inpaint", parts, scheduler, "tokenizer", [
        from_picture("a door", 40, 24, 5, 5.0, 0, 1.0, [60, 36, 2], mask=[40, 24, 5]),
        from_picture("a gate", 32, 32, 6, 3.0, 1, 0.6, [32, 32, 3], mask=[32, 32, -1], scheduler="euler_a")],
        StableDiffusionInpaintPipeline)


def sd15_prk():
    """Runge-Kutta steps, which the pipeline that inpaints leaves out; a UNet without a middle; an autoencoder with
    neither attention nor outer filters, whose shift counts for nothing."""
    odd = vae(0.5, shift_factor=0.3, mid_block_add_attention=False, use_quant_conv=False, use_post_quant_conv=False)
    parts = {
        "text_encoder": encoder(CLIPTextModel, 32, "quick_gelu", 32, None),
        "unet": unet((ATTENDS, ACROSS), (UP, ATTENDS_UP), block_out_channels=(8, 16), layers_per_block=1,
                     cross_attention_dim=32, attention_head_dim=2, mid_block_type=None, act_fn="swish"),
        "vae": odd}
    scheduler = {"_class_name": "PNDMScheduler", **BETAS, "skip_prk_steps": False, "set_alpha_to_one": False,
                 "steps_offset": 1}
    stable_diffusion("sd15-prk", parts, scheduler, "tokenizer", [
        case("a red fox", 40, 24, 5, 4.0, 0),
        from_picture("a door", 32, 32, 6, 5.0, 1, 0.7, [32, 32, 2], mask=[32, 32, -1]),
        from_picture("a gate", 40, 24, 5, 3.0, 2, 0.6, [40, 24, 1], mask=[40, 24, 5], scheduler="euler"),
        from_picture("a tower", 32, 32, 7, 3.0, 3, 0.5, [32, 32, 1])])


def sd21():
    """As version 2.1: velocity prediction, matrices around attention, heads by level."""
    parts = {
        "text_encoder": encoder(CLIPTextModel, 24, "gelu", 32, 2),
        "unet": unet((ATTENDS, ACROSS), (UP, ATTENDS_UP), block_out_channels=(8, 16), layers_per_block=2,
                     cross_attention_dim=24, attention_head_dim=[2, 4], use_linear_projection=True),
        "vae": vae(0.18215)}
    scheduler = {"_class_name": "DDIMScheduler", **BETAS, "clip_sample": False, "set_alpha_to_one": False,
                 "steps_offset": 1, "prediction_type": "v_prediction"}
    stable_diffusion("sd21", parts, scheduler, "tokenizer_2", [
        case("a river at sunrise!!", 32, 40, 5, 7.5, 1, negative_prompt="!"),
        case("portrait", 40, 24, 4, 3.0, 2, scheduler="unipc")])


def sdxl():
    """As XL base: two encoders, added sizes, attention of several blocks."""
    parts = {
        "text_encoder": encoder(CLIPTextModel, 24, "quick_gelu", 24, 2),
        "text_encoder_2": encoder(CLIPTextModelWithProjection, 40, "gelu", 20, 2),
        "unet": unet((ACROSS, ATTENDS, ATTENDS), (ATTENDS_UP, ATTENDS_UP, UP), block_out_channels=(8, 16, 24),
                     layers_per_block=1, cross_attention_dim=64, attention_head_dim=[1, 2, 3],
                     transformer_layers_per_block=[1, 2, 3], use_linear_projection=True,
                     addition_embed_type="text_time", addition_time_embed_dim=8,
                     projection_class_embeddings_input_dim=20 + 6 * 8),
        "vae": vae(0.13025)}
    scheduler = {"_class_name": "EulerDiscreteScheduler", **BETAS, "steps_offset": 1,
                 "timestep_spacing": "leading", "interpolation_type": "linear", "use_karras_sigmas": False,
                 "prediction_type": "epsilon", "sample_max_value": 1.0, "set_alpha_to_one": False,
                 "skip_prk_steps": True, "clip_sample": False, "num_train_timesteps": 1000}
    stable_diffusion_xl("sdxl", parts, scheduler, True, [
        case("an old stone house by the sea", 40, 24, 4, 5.0, 0),
        case("a cat!", 24, 48, 3, 7.0, 9, negative_prompt="text, watermark"),
        case("a dog", 32, 32, 3, 5.0, 10, negative_prompt=""),
        case(LONG + "!", 32, 32, 3, 1.0, 11),
        case("漢字 かな", 32, 32, 4, 3.0, 12, scheduler="euler_a"),
        from_picture("at night", 40, 24, 8, 5.0, 13, 0.5, [48, 32, 0]),
        from_picture("in snow", 24, 48, 4, 2.0, 14, 1.0, [24, 48, 1], scheduler="euler_a"),
        from_picture("a door", 32, 32, 8, 5.0, 15, 0.75, [32, 32, 2], mask=[32, 32, -1]),
        from_picture("a gate", 40, 24, 4, 1.0, 16, 1.0, [40, 24, 3], mask=[30, 30, 7], scheduler="euler_a")])


def sdxl_inpaint():
    parts = {
        "text_encoder": encoder(CLIPTextModel, 24, "quick_gelu", 24, 2),
        "text_encoder_2": encoder(CLIPTextModelWithProjection, 40, "gelu", 20, 2),
        "unet": unet((ACROSS, ATTENDS), (ATTENDS_UP, UP), block_out_channels=(8, 16), layers_per_block=1,
                     cross_attention_dim=64, attention_head_dim=[1, 2], use_linear_projection=True,
                     addition_embed_type="text_time", addition_time_embed_dim=8, in_channels=9,
                     projection_class_embeddings_input_dim=20 + 6 * 8),
        "vae": vae(0.13025)}
    scheduler = {"_class_name": "EulerDiscreteScheduler", **BETAS, "steps_offset": 1, "timestep_spacing": "leading"}
    stable_diffusion_xl("sdxl-inpaint", parts, scheduler, True, [
        from_picture("a door", 40, 24, 8, 5.0, 0, 1.0, [40, 24, 2], mask=[40, 24, -1]),
        from_picture("a gate", 32, 32, 5, 1.0, 1, 0.7, [50, 40, 3], mask=[33, 31, 7], scheduler="euler_a")],
        StableDiffusionXLInpaintPipeline)


def sdxl_uneven():
    """Attentions of other depths at every place, one residual block in the middle, an odd width of the guidance."""
    parts = {
        "text_encoder": encoder(CLIPTextModel, 24, "quick_gelu", 24, 2),
        "text_encoder_2": encoder(CLIPTextModelWithProjection, 40, "gelu", 20, 2),
        "unet": unet((ATTENDS, ATTENDS), (ATTENDS_UP, ATTENDS_UP), block_out_channels=(8, 16), layers_per_block=2,
                     cross_attention_dim=64, attention_head_dim=[1, 2], use_linear_projection=True,
                     transformer_layers_per_block=[[2, 1], 1], reverse_transformer_layers_per_block=[[1, 2, 1], 2],
                     mid_block_type="UNetMidBlock2D", addition_embed_type="text_time", addition_time_embed_dim=8,
                     time_cond_proj_dim=9, projection_class_embeddings_input_dim=20 + 6 * 8),
        "vae": vae(0.13025)}
    scheduler = {"_class_name": "EulerDiscreteScheduler", **BETAS, "steps_offset": 1, "timestep_spacing": "leading",
                 "use_exponential_sigmas": True}
    stable_diffusion_xl("sdxl-uneven", parts, scheduler, True, [
        case("a cat!", 24, 48, 3, 3.0, 0),
        case("a dog", 32, 32, 4, 5.0, 1, scheduler="unipc")])


def sdxl_lcm_parts():
    return {
        "text_encoder": encoder(CLIPTextModel, 24, "quick_gelu", 24, 2),
        "text_encoder_2": encoder(CLIPTextModelWithProjection, 40, "gelu", 20, None),
        "unet": unet((ACROSS, ATTENDS), (ATTENDS_UP, UP), block_out_channels=(8, 16), layers_per_block=2,
                     cross_attention_dim=64, attention_head_dim=[1, 2], use_linear_projection=True,
                     addition_embed_type="text_time", addition_time_embed_dim=8, time_cond_proj_dim=32,
                     projection_class_embeddings_input_dim=20 + 6 * 8),
        "vae": vae(0.13025)}


def sdxl_lcm():
    """A UNet that was distilled for few steps and is told the guidance."""
    stable_diffusion_xl("sdxl-lcm", sdxl_lcm_parts(), {"_class_name": "LCMScheduler", **BETAS}, False, [
        case("a garden", 32, 32, 3, 8.5, 0),
        case("a garden", 40, 24, 2, 1.5, 0),
        from_picture("a garden", 40, 24, 4, 8.5, 1, 0.8, [40, 24, 0]),
        from_picture("a garden", 32, 32, 4, 4.0, 2, 0.8, [40, 24, 0], mask=[32, 32, 3])])


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    for make in (sd15, sd15_inpaint, sd21, sdxl, sdxl_inpaint, sdxl_lcm, sd15_prk, sdxl_uneven):
        make()
