"""Writes golden checkpoints for tests/support/golden.c: configs, the names and shapes of all tensors
(the values follow from the names), and pictures that the original pipeline draws from them."""
import json
import os

import numpy as np
from PIL import Image


def write_json(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1, ensure_ascii=False)
        f.write("\n")


def picture(w, h, k):
    """As picture_by_formula() of tests/support/pictures.c."""
    y, x, c = np.mgrid[:h, :w, :3]
    return Image.fromarray(((5 * x + 3 * y + 37 * c + 11 * k) % 256).astype(np.uint8))


def mask(w, h, k):
    """The same for masks: the right half, or shades."""
    y, x = np.mgrid[:h, :w]
    shades = np.where(x >= w // 2, 255, 0) if k < 0 else (5 * x + 3 * y + 11 * k) % 256
    return Image.fromarray(shades.astype(np.uint8))


def config_of(module):
    config = module.config.to_dict() if hasattr(module.config, "to_dict") else dict(module.config)
    plain = {k: v for k, v in config.items() if not k.startswith("_")}
    return {"_class_name": type(module).__name__, **plain}


def write(folder, index, scheduler, parts, cases):
    """parts: {name: module}; cases: [(request, picture fp32 [3, h, w] in 0 … 1)]."""
    write_json(f"{folder}/model_index.json", index)
    write_json(f"{folder}/scheduler/scheduler_config.json", config_of(scheduler))
    with open(f"{folder}/tensors.txt", "w", encoding="utf-8") as f:
        for part, module in parts.items():
            for name, tensor in module.state_dict().items():
                print(part, name, *tensor.shape, file=f)
    for part, module in parts.items():
        write_json(f"{folder}/{part}/config.json", config_of(module))
    rows = []
    for i, (request, picture) in enumerate(cases):
        pixels = np.rint(picture.transpose(1, 2, 0) * 255).astype(np.uint8)
        pixels.tofile(f"{folder}/{i}.rgb")
        rows.append({"file": f"{i}.rgb", **request})
    write_json(f"{folder}/cases.json", rows)
