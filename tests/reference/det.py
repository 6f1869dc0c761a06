"""Weights that follow from names alone: the Python twin of tests/support/det.c."""
import numpy as np
import torch

MASK = (1 << 64) - 1


def fnv(text):
    h = 0xCBF29CE484222325
    for b in text.encode() if isinstance(text, str) else text:
        h = ((h ^ b) * 0x100000001B3) & MASK
    return h


def uniform(name, n):
    with np.errstate(over="ignore"):
        z = np.uint64(fnv(name)) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2**24


def weight(name, shape):
    u = uniform(name, int(np.prod(shape)))
    if name.endswith("num_batches_tracked"):
        v = u * 0
    elif name.endswith("running_var"):
        v = 0.5 + u
    elif name.endswith("running_mean"):
        v = u - 0.5
    elif name.endswith("gamma") or (len(shape) == 1 and name.endswith("weight")):
        v = 1 + 0.2 * (u - 0.5)
    elif len(shape) <= 1:
        v = 0.2 * (u - 0.5)
    else:
        v = (u - 0.5) * 2 * np.sqrt(3.0 / np.prod(shape[1:]))
    return torch.from_numpy(v.astype(np.float32)).reshape(shape)


def fill(module):
    """Gives every tensor of a module its value; returns the module."""
    state = module.state_dict()
    module.load_state_dict({k: weight(k, tuple(v.shape)).to(v.dtype) for k, v in state.items()})
    return module.eval()
