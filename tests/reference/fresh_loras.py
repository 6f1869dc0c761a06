"""LoRAs that nobody chose, in the names that trainers write; added to the weights by hand, whatever loaders of the day
understand."""
import json

import torch

COMFY = {"text_encoder": "text_encoders.clip_l.transformer", "text_encoder_2": "text_encoders.clip_g.transformer"}


def pairs_of(r, net, rank):
    """{module: (down, up)} for some of its matrices and filters."""
    chosen = {}
    for name, m in net.named_modules():
        if not isinstance(m, (torch.nn.Linear, torch.nn.Conv2d)) or r.random() > 0.3 or getattr(m, "groups", 1) > 1:
            continue
        shape = m.weight.shape
        g = torch.Generator().manual_seed(r.getrandbits(40))
        down = torch.randn(rank, *shape[1:], generator=g) / shape[1:].numel()**0.5
        chosen[name] = down, torch.randn(shape[0], rank, *(1 for _ in shape[2:]), generator=g) / rank**0.5
    return chosen


def head_of(style, part, two):
    """What stands before a module's name in the file."""
    text = part.startswith("text")
    if style == "kohya":
        return ("lora_te_" if not two else "lora_te2_" if part.endswith("2") else "lora_te1_") if text else "lora_unet_"
    if style == "comfy":
        return (COMFY[part] if text else "diffusion_model") + "."
    return part + "."


def named(style, part, name, two):
    if part.startswith("text") and not name.startswith(("text_model.", "text_projection")):
        name = "text_model." + name
    return head_of(style, part, two) + (name.replace(".", "_") if style == "kohya" else name)


def lora(r, pipe):
    net = "unet" if hasattr(pipe, "unet") else "transformer"
    two = hasattr(pipe, "text_encoder_2")
    texts = ["text_encoder"] + ["text_encoder_2"] * two if net == "unet" else []
    parts = [p for p in [net, *texts] if p == net or r.random() < 0.5]
    if len(parts) > 1 and r.random() < 0.2:
        parts.remove(net)
    rank, style = r.randint(1, 6), r.choice(["peft", "kohya", "kohya", "comfy"])
    if style == "comfy" and net == "unet" and not two:
        style = "peft"
    alpha, tensors, pairs = r.choice([None, 1.0, rank / 2, 2.0 * rank]), {}, {}
    down_name, up_name = ("lora_down", "lora_up") if style == "kohya" else ("lora_A", "lora_B")
    for part in parts:
        pairs[part] = pairs_of(r, getattr(pipe, part), rank)
        for name, (down, up) in pairs[part].items():
            key = named(style, part, name, two)
            tensors[f"{key}.{down_name}.weight"], tensors[f"{key}.{up_name}.weight"] = down, up
            if alpha and style != "peft":
                tensors[f"{key}.alpha"] = torch.tensor(alpha)
    told = {f"{p}.{k}": v for p in parts for k, v in (("r", rank), ("lora_alpha", alpha))}
    metadata = {"lora_adapter_metadata": json.dumps(told)} if alpha and style == "peft" else None
    return {"pairs": pairs, "scale": (alpha or rank) / rank, "tensors": tensors, "metadata": metadata,
            "weight": r.choice([1.0, 0.5, -0.75]), "what": f"{style} of {'+'.join(parts)} rank {rank} alpha {alpha}"}


def add(pipe, loras, sign):
    for y in loras:
        for part, pairs in y["pairs"].items():
            modules = dict(getattr(pipe, part).named_modules())
            for name, (down, up) in pairs.items():
                change = (up.flatten(1) @ down.flatten(1)).reshape(modules[name].weight.shape)
                modules[name].weight.data += sign * y["weight"] * y["scale"] * change
