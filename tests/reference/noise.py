"""Prints the table of tests/engine/test_random.c: what torch's CPU generator draws.

    python tests/reference/noise.py        (torch 2.15, x86-64 with AVX2)
"""

import hashlib

import torch

CASES = [  # seed, draws from one generator, as (count, dtype)
    (0, [(16, "f32")]),
    (42, [(1 << 20, "f32")]),
    (2**40 + 7, [(100003, "f32")]),
    (1, [(17, "f32"), (31, "f32"), (16, "f32")]),
    (9, [(5, "f32"), (64, "f32"), (4, "f32"), (1, "f32")]),
    (3, [(4096, "bf16")]),
    (4, [(4099, "bf16"), (7, "bf16"), (33, "f32")]),
]
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}

for seed, draws in CASES:
    generator = torch.Generator().manual_seed(seed)
    data = b"".join(
        torch.randn(count, generator=generator, dtype=DTYPES[dtype]).float().numpy().tobytes()
        for count, dtype in draws
    )
    text = ", ".join("{%d, %s}" % (count, str(dtype == "bf16").lower()) for count, dtype in draws)
    print('{%d, {%s}, "%s"},' % (seed, text, hashlib.sha256(data).hexdigest()))
