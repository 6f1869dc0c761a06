"""Small checkpoints of every family with configurations that nobody chose: widths, heads, layers, tokenizers,
schedulers and the way they lie on the disk follow from a random.Random. Each maker writes a folder as
save_pretrained does and returns the pipeline read from it again, in fp32."""
import contextlib
import io
import json
import os

import torch
import transformers
from diffusers import (AutoencoderKL, AutoencoderKLFlux2, AutoencoderTiny, DDIMScheduler, EulerDiscreteScheduler,
                       Flux2KleinPipeline, Flux2Transformer2DModel, FlowMatchEulerDiscreteScheduler, PNDMScheduler,
                       StableDiffusionInpaintPipeline, StableDiffusionPipeline,
                       StableDiffusionXLInpaintPipeline, StableDiffusionXLPipeline, UNet2DConditionModel,
                       ZImagePipeline, ZImageTransformer2DModel)
import diffusers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import clip_tokens

WORDS = ("a the of in on with red blue green small large cat dog boat lamp tree river stone glass light photo painting "
         "night morning winter cosy old quiet bright running sleeping über Straße café naïve señor русский лес 漢字 "
         "don't we'll 4k 1950s f/1.8").split()
QWEN_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
              r"\s+(?!\S)|\s+")
QWEN_TEMPLATE = ("{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}"
                 "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
                 "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}"
                 "{%- endif %}{%- endif %}")
PLAIN_TEMPLATE = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
                  "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
SYSTEM_TEMPLATE = ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
                   "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
                   + PLAIN_TEMPLATE.removeprefix("{% for message in messages %}"))


def text(r, words):
    return " ".join(r.choice(WORDS) for _ in range(words))


def odd_text(r):
    """Signs that tokenizers treat in their own ways."""
    return r.choice(["two  spaces\ttab", "E\u0301clair \u00bd \u2460", "\U0001F431\u200d\U0001F4BB cat", "x" * 300,
                     "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e9\u05dc\u05d5\u05dd", "<|endoftext|> a dog",
                     "(red:1.3), [blue] \\ {x|y}", "DON'T SHOUT'S 12345 1,000.5%", "\u0130stanbul \u1e9e \ufb01"])


def randomize(module, r):
    """Every saved number anew, of a size that keeps signals as large as they are."""
    g = torch.Generator().manual_seed(r.getrandbits(40))
    saved = module.state_dict()
    for name, p in [*module.named_parameters(), *module.named_buffers()]:
        if name not in saved or not p.is_floating_point():
            continue
        if name.endswith("running_var"):
            v = 0.5 + torch.rand(p.shape, generator=g)
        elif p.ndim < 2:
            v = 0.1 * torch.randn(p.shape, generator=g) + name.endswith("weight")
        elif "embed_tokens" in name or "token_embedding" in name:
            v = torch.randn(p.shape, generator=g)
        else:
            v = torch.randn(p.shape, generator=g) / p[0].numel()**0.5
        p.data.copy_(v)
    return module.eval()


# ---- text ----

def qwen_tokenizer(r):
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder, t.post_processor = decoders.ByteLevel(), processors.ByteLevel(trim_offsets=False)
    t.train_from_iterator([text(r, 12) for _ in range(200)] + ["user\nassistant\n\n\n"], trainers.BpeTrainer(
        vocab_size=r.randint(300, 900), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    t.add_tokens(["<think>", "</think>"])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=t, pad_token="<|endoftext|>", eos_token="<|im_end|>", model_max_length=131072, padding_side="right")
    fast.chat_template = r.choice([QWEN_TEMPLATE, QWEN_TEMPLATE, PLAIN_TEMPLATE, SYSTEM_TEMPLATE])
    return fast


def qwen(r, kind, vocabulary, layers):
    groups, head = r.randint(1, 3), 2 * r.randint(3, 8)
    theta = r.choice([1e4, 1e6, 5e6])
    return randomize(kind(transformers.Qwen3Config(
        vocab_size=vocabulary + r.randint(0, 20), hidden_size=8 * r.randint(3, 7), intermediate_size=r.randint(30, 90),
        num_hidden_layers=layers, num_attention_heads=groups * r.randint(1, 3), num_key_value_heads=groups,
        head_dim=head, max_position_embeddings=2048, rms_norm_eps=r.choice([1e-6, 1e-5]),
        rope_parameters=r.choice([{"rope_theta": theta, "rope_type": "default"}] * 4 +
                                 [{"rope_theta": theta, "rope_type": "linear", "factor": r.choice([2.0, 4.0])}]),
        attention_bias=r.random() < 0.2, tie_word_embeddings=r.random() < 0.5)), r)


def clip_tokenizer(r, folder, pad):
    clip_tokens.CORPUS, clip_tokens.MERGES = [text(r, 12) for _ in range(20)], r.randint(30, 110)
    vocabulary, merges = clip_tokens.train()
    clip_tokens.write_folder(folder, vocabulary, merges, pad, r.random() < 0.5)
    return transformers.CLIPTokenizer.from_pretrained(folder)


def clip(r, kind, tokenizer, width, projection):
    end = tokenizer.eos_token_id
    heads = r.choice([h for h in (1, 2, 3, 4, 5) if width % h == 0])
    return randomize(kind(transformers.CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=r.randint(30, 90),
        num_hidden_layers=r.randint(1, 4), num_attention_heads=heads, max_position_embeddings=77,
        hidden_act=r.choice(["quick_gelu", "gelu"]), projection_dim=projection, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=r.choice([end, 2]), pad_token_id=1, layer_norm_eps=r.choice([1e-5, 1e-5, 1e-6]))), r)


# ---- autoencoders and networks ----

def vae(r, kind, **more):
    levels, groups = r.randint(1, 4), r.choice([1, 2, 4])
    widths = tuple(groups * r.randint(1, 4) for _ in range(levels))
    if kind is AutoencoderKLFlux2 and r.random() < 0.4:
        more["decoder_block_out_channels"] = tuple(groups * r.randint(1, 4) for _ in range(levels))
        more["batch_norm_eps"] = r.choice([1e-4, 1e-3])
    options = {"use_quant_conv": r.random() < 0.7, "use_post_quant_conv": r.random() < 0.7,
               "mid_block_add_attention": r.random() < 0.7}
    return randomize(kind(
        block_out_channels=widths, down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels, layers_per_block=r.randint(1, 3), norm_num_groups=groups,
        sample_size=64, **{**options, **more}), r)


def tiny_vae(r, latent):
    """Unlike the others it has one factor at all widths."""
    widths = (r.choice([4, 8, 16]),) * r.randint(2, 4)
    return randomize(AutoencoderTiny(
        encoder_block_out_channels=widths, decoder_block_out_channels=widths, latent_channels=latent,
        num_encoder_blocks=tuple(r.randint(1, 2) for _ in widths), num_decoder_blocks=tuple(r.randint(1, 2) for _ in widths),
        scaling_factor=1.0), r)


def sd_vae(r, latent, scaling, plain):
    """The pipelines of Stable Diffusion do not shift, whatever the file says."""
    if plain:
        return vae(r, AutoencoderKL, latent_channels=latent, scaling_factor=r.choice([scaling, 0.5]), use_quant_conv=True,
                   use_post_quant_conv=True, mid_block_add_attention=True)
    if r.random() < 0.12:
        return tiny_vae(r, latent)
    more = {"shift_factor": 0.2} if r.random() < 0.2 else {}
    return vae(r, AutoencoderKL, latent_channels=latent, scaling_factor=r.choice([scaling, 0.5, 1.0]), **more)


def depths(r, levels, layers, lists):
    """transformer_layers_per_block: a number, one a level, or one a block; then the way up is stated too."""
    if not lists or r.random() < 0.2:
        return {"transformer_layers_per_block": r.randint(1, 2)}
    if r.random() < 0.7:
        return {"transformer_layers_per_block": [r.randint(1, 3) for _ in range(levels)]}
    down = [r.choice([r.randint(1, 2), [r.randint(1, 2) for _ in range(n)]]) for n in layers]
    down[-1] = r.randint(1, 2)
    up = [r.choice([r.randint(1, 2), [r.randint(1, 2) for _ in range(n + 1)]]) for n in reversed(layers)]
    return {"transformer_layers_per_block": down, "reverse_transformer_layers_per_block": up}


def unet(r, text_width, channels, side, added, plain):
    """`channels`: in, out. `plain`: what the names in a single file can say."""
    levels, groups, heads_wide = r.randint(1, 4), r.choice([2, 4]), 4
    widths = tuple(groups * heads_wide * r.randint(1, 3) for _ in range(levels))
    attends = [r.random() < 0.6 for _ in range(levels)]
    layers = [r.randint(1, 2)] * levels if plain or r.random() < 0.7 else [r.randint(1, 3) for _ in range(levels)]
    more = depths(r, levels, layers, added and not plain)
    if added:
        more.update({"addition_embed_type": "text_time", "addition_time_embed_dim": added[1],
                     "projection_class_embeddings_input_dim": added[0] + 6 * added[1]})
    heads = [r.choice([h for h in (1, 2, 3, 4, 6) if w % h == 0]) for w in widths]
    if r.random() < 0.25:
        more["time_cond_proj_dim"] = r.choice([8, 32, 255])
    if not plain and r.random() < 0.25:
        more["mid_block_type"] = r.choice([None, "UNetMidBlock2D"])
    return randomize(UNet2DConditionModel(
        block_out_channels=widths, layers_per_block=layers, norm_num_groups=groups, in_channels=channels[0],
        out_channels=channels[1],
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        attention_head_dim=r.choice([heads, heads, r.choice([1, 2, 4])]), cross_attention_dim=text_width, sample_size=side,
        use_linear_projection=r.random() < 0.5, upcast_attention=r.random() < 0.2, norm_eps=r.choice([1e-5, 1e-5, 1e-6]),
        flip_sin_to_cos=r.random() < 0.8, freq_shift=r.choice([0, 0, 0, 1]), act_fn=r.choice(["silu", "silu", "swish"]),
        **more), r)


# ---- schedulers ----

def noise_scheduler(r):
    config = {"beta_start": r.choice([0.00085, 0.001]), "beta_end": r.choice([0.012, 0.0145]),
              "beta_schedule": r.choice(["scaled_linear", "scaled_linear", "linear", "squaredcos_cap_v2"]),
              "num_train_timesteps": r.choice([1000, 1000, 1000, 600]), "steps_offset": r.choice([0, 1])}
    spacing = r.choice(["leading", "trailing", "linspace"])
    prediction = r.choice(["epsilon", "epsilon", "v_prediction", "v_prediction", "sample"])
    zero = prediction == "v_prediction" and r.random() < 0.4
    sigmas = r.choice([{}, {}, {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}])
    kind = r.choice(["EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler",
                     "DDIMScheduler", "PNDMScheduler", "UniPCMultistepScheduler", "LCMScheduler"])
    if kind == "PNDMScheduler" and prediction == "sample":
        prediction = "epsilon"
    more = {"EulerDiscreteScheduler": {**sigmas, "timestep_spacing": spacing, "rescale_betas_zero_snr": zero,
                                       "final_sigmas_type": r.choice(["zero", "zero", "sigma_min"]),
                                       "interpolation_type": r.choice(["linear"] * 4 + ["log_linear"])},
            "EulerAncestralDiscreteScheduler": {"timestep_spacing": spacing, "rescale_betas_zero_snr": zero},
            "DPMSolverMultistepScheduler": {**sigmas, "timestep_spacing": spacing, "rescale_betas_zero_snr": zero,
                                            "solver_order": r.choice([1, 2, 2, 3]), "solver_type": r.choice(["midpoint", "heun"]),
                                            "lower_order_final": r.random() < 0.7, "euler_at_final": r.random() < 0.3,
                                            "final_sigmas_type": r.choice(["zero", "zero", "sigma_min"])},
            "DDIMScheduler": {"clip_sample": r.random() < 0.2, "set_alpha_to_one": r.random() < 0.5, "timestep_spacing": spacing,
                              "rescale_betas_zero_snr": zero},
            "PNDMScheduler": {"skip_prk_steps": r.random() < 0.7, "set_alpha_to_one": r.random() < 0.5,
                              "timestep_spacing": r.choice(["leading", "trailing", "linspace"])},
            "UniPCMultistepScheduler": {**sigmas, "solver_order": r.choice([1, 2, 3]), "solver_type": r.choice(["bh1", "bh2"]),
                                        "timestep_spacing": spacing, "rescale_betas_zero_snr": zero,
                                        "final_sigmas_type": r.choice(["zero", "zero", "sigma_min"]),
                                        "lower_order_final": r.random() < 0.7},
            "LCMScheduler": {"set_alpha_to_one": r.random() < 0.5, "rescale_betas_zero_snr": zero,
                             "original_inference_steps": r.choice([50, 50, 30]), "timestep_scaling": r.choice([10.0, 10.0, 5.0])}}[kind]
    return getattr(diffusers, kind).from_config({**config, "prediction_type": prediction, **more})


def flow_scheduler(r):
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000, shift=r.choice([1.0, 3.0, 6.0, 2.5]), use_dynamic_shifting=r.random() < 0.5,
        base_shift=r.choice([0.5, 0.3]), max_shift=r.choice([1.15, 0.9]), base_image_seq_len=256, max_image_seq_len=4096,
        time_shift_type=r.choice(["exponential", "exponential", "linear"]))


# ---- on the disk ----

def stored(r, pipe, folder, kind):
    """Saves the pipeline as people have them: whole or in shards, fp32, bf16, fp16, as a variant."""
    dtype = r.choice([torch.float32, torch.float32, torch.bfloat16, torch.float16])
    more = {}
    if r.random() < 0.3:
        more["max_shard_size"] = "60KB"
    if dtype == torch.float16 and r.random() < 0.7:
        more["variant"] = "fp16"
    with contextlib.redirect_stderr(io.StringIO()):
        pipe.to(dtype).save_pretrained(folder, **more)
        again = kind.from_pretrained(folder, torch_dtype=torch.float32, variant=more.get("variant"))
    again.set_progress_bar_config(disable=True)
    print(f"   {folder}: {dtype} {more} {type(again.scheduler).__name__}", flush=True)
    return again


def klein(r, folder):
    tokenizer = qwen_tokenizer(r)
    encoder = qwen(r, transformers.Qwen3ForCausalLM, len(tokenizer), r.randint(27, 29))
    latent = r.choice([2, 4, 8])
    axes = [2 * r.randint(1, 3) for _ in range(4)]
    transformer = randomize(Flux2Transformer2DModel(
        patch_size=1, in_channels=4 * latent, num_layers=r.randint(1, 2), num_single_layers=r.randint(1, 3),
        attention_head_dim=sum(axes), num_attention_heads=r.choice([1, 2, 3, 5]), axes_dims_rope=axes,
        joint_attention_dim=3 * encoder.config.hidden_size, timestep_guidance_channels=r.choice([32, 256]),
        mlp_ratio=r.choice([2.0, 3.0, 2.5]), rope_theta=r.choice([2000, 500]), guidance_embeds=False), r)
    pipe = Flux2KleinPipeline(
        scheduler=flow_scheduler(r) if r.random() < 0.3 else FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=True, base_image_seq_len=256, max_image_seq_len=4096, max_shift=1.15),
        vae=vae(r, AutoencoderKLFlux2, latent_channels=latent), text_encoder=encoder, tokenizer=tokenizer,
        transformer=transformer, is_distilled=r.random() < 0.5)
    return stored(r, pipe, folder, Flux2KleinPipeline)


def zimage(r, folder):
    tokenizer = qwen_tokenizer(r)
    encoder = qwen(r, transformers.Qwen3Model, len(tokenizer), r.randint(2, 5))
    heads, axes, latent = r.choice([1, 2, 3, 5]), [2 * r.randint(1, 4) for _ in range(3)], r.choice([16, 16, 4, 8])
    transformer = randomize(ZImageTransformer2DModel(
        in_channels=latent, dim=heads * sum(axes), n_layers=r.randint(1, 3), n_refiner_layers=r.randint(1, 2), n_heads=heads,
        n_kv_heads=heads, norm_eps=r.choice([1e-5, 1e-5, 1e-6]), cap_feat_dim=encoder.config.hidden_size,
        rope_theta=r.choice([256.0, 256.0, 1000.0]), t_scale=r.choice([1000.0, 1000.0, 500.0]),
        axes_dims=axes, axes_lens=[1536, 512, 512]), r)
    pipe = ZImagePipeline(
        scheduler=flow_scheduler(r), text_encoder=encoder, tokenizer=tokenizer, transformer=transformer,
        vae=vae(r, AutoencoderKL, latent_channels=latent, use_quant_conv=False, use_post_quant_conv=False,
                scaling_factor=r.choice([0.3611, 0.7]), shift_factor=r.choice([0.1159, 0.1159, 0.0])))
    return stored(r, pipe, folder, ZImagePipeline)


def channels_of(r, kinds):
    """In and out, and the pipeline that takes them: inpainting is for four channels of latent."""
    if r.random() < 0.3:
        return (9, 4), kinds[1]
    latent = r.choice([4, 4, 3, 6])
    return (latent, latent), kinds[0]


SD = (StableDiffusionPipeline, StableDiffusionInpaintPipeline)
SDXL = (StableDiffusionXLPipeline, StableDiffusionXLInpaintPipeline)
UNSAFE = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def sd(r, folder, plain=False):
    width = 4 * r.randint(4, 9)
    tokenizer = clip_tokenizer(r, f"{folder}-tokenizer", r.choice(["<|endoftext|>", "!"]))
    channels, kind = channels_of(r, SD)
    parts = {"scheduler": noise_scheduler(r), "tokenizer": tokenizer,
             "text_encoder": clip(r, transformers.CLIPTextModel, tokenizer, width, width),
             "unet": unet(r, width, channels, 8, None, plain),
             "vae": sd_vae(r, channels[1], 0.18215, plain)}
    return stored(r, kind(**parts, **UNSAFE), folder, kind)


def sdxl(r, folder, plain=False):
    first, second, projection = 4 * r.randint(4, 9), 4 * r.randint(4, 9), r.choice([16, 20, 33])
    tokenizer = clip_tokenizer(r, f"{folder}-tokenizer", "<|endoftext|>")
    tokenizer_2 = clip_tokenizer(r, f"{folder}-tokenizer2", "!")
    channels, kind = channels_of(r, SDXL)
    parts = {"scheduler": noise_scheduler(r), "tokenizer": tokenizer, "tokenizer_2": tokenizer_2,
             "text_encoder": clip(r, transformers.CLIPTextModel, tokenizer, first, first),
             "text_encoder_2": clip(r, transformers.CLIPTextModelWithProjection, tokenizer_2, second, projection),
             "unet": unet(r, first + second, channels, 16, (projection, r.choice([8, 32])), plain),
             "vae": sd_vae(r, channels[1], 0.13025, plain)}
    pipe = kind(**parts, force_zeros_for_empty_prompt=r.random() < 0.5, add_watermarker=False)
    return stored(r, pipe, folder, kind)


# ---- what a single file can hold: configurations that follow from shapes ----

def published_clip(r, kind, tokenizer, act):
    return randomize(kind(transformers.CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=r.randint(30, 90), num_hidden_layers=r.randint(1, 3),
        num_attention_heads=1, max_position_embeddings=77, hidden_act=act, projection_dim=64,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=1)), r)


def published_vae(r, scaling):
    widths = tuple(32 * r.randint(1, 2) for _ in range(4))
    return randomize(AutoencoderKL(
        block_out_channels=widths, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2, latent_channels=4, norm_num_groups=32, scaling_factor=scaling, sample_size=64), r)


def published_unet(r, text_width, channels, xl, matrices):
    widths = tuple(32 * r.randint(1, 3) for _ in range(3 if xl else 4))
    attends = [False, True, True] if xl else [True, True, True, False]
    more = {"transformer_layers_per_block": [1, r.randint(1, 2), r.randint(1, 3)], "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 64 + 6 * 256} if xl else {}
    return randomize(UNet2DConditionModel(
        block_out_channels=widths, layers_per_block=2, in_channels=channels[0], out_channels=channels[1],
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        attention_head_dim=[(w + 63) // 64 for w in widths] if matrices else 8, cross_attention_dim=text_width,
        sample_size=128 if xl else 64, use_linear_projection=matrices, **more), r)


def published_scheduler(version):
    noise = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
             "clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True}
    if version == "xl":
        return EulerDiscreteScheduler.from_config({**noise, "timestep_spacing": "leading"})
    if version == "2":
        return DDIMScheduler.from_config({**noise, "prediction_type": "v_prediction"})
    return PNDMScheduler.from_config(noise)


def as_published(pipe, version):
    """Options that the published file leaves out take the defaults of a scheduler that is swapped in."""
    pipe.scheduler = published_scheduler(version)
    return pipe


def odd(pipe):
    """Of a file that says too little: configs lie beside it."""
    pipe.odd = True
    return pipe


def file_of_sd(version):
    def make(r, folder):
        if r.random() < 0.5:
            return odd(sd(r, folder, plain=True))
        tokenizer = clip_tokenizer(r, f"{folder}-tokenizer", "<|endoftext|>" if version == "1" else "!")
        channels, kind = ((9, 4), SD[1]) if version == "1" and r.random() < 0.3 else ((4, 4), SD[0])
        act = "quick_gelu" if version == "1" else "gelu"
        parts = {"scheduler": published_scheduler(version), "tokenizer": tokenizer,
                 "text_encoder": published_clip(r, transformers.CLIPTextModel, tokenizer, act),
                 "unet": published_unet(r, 64, channels, False, version == "2"), "vae": published_vae(r, 0.18215)}
        return as_published(stored(r, kind(**parts, **UNSAFE), folder, kind), version)
    return make


def file_of_sdxl(r, folder):
    if r.random() < 0.5:
        return odd(sdxl(r, folder, plain=True))
    tokenizer = clip_tokenizer(r, f"{folder}-tokenizer", "<|endoftext|>")
    tokenizer_2 = clip_tokenizer(r, f"{folder}-tokenizer2", "!")
    parts = {"scheduler": published_scheduler("xl"), "tokenizer": tokenizer, "tokenizer_2": tokenizer_2,
             "text_encoder": published_clip(r, transformers.CLIPTextModel, tokenizer, "quick_gelu"),
             "text_encoder_2": published_clip(r, transformers.CLIPTextModelWithProjection, tokenizer_2, "gelu"),
             "unet": published_unet(r, 128, (4, 4), True, True), "vae": published_vae(r, 0.13025)}
    pipe = SDXL[0](**parts, force_zeros_for_empty_prompt=True, add_watermarker=False)
    return as_published(stored(r, pipe, folder, SDXL[0]), "xl")


MAKERS = {"klein": klein, "zimage": zimage, "sdxl": sdxl, "sd": sd, "file-sd": file_of_sd("1"), "file-sd2": file_of_sd("2"),
          "file-sdxl": file_of_sdxl}
