#!/usr/bin/env python3
"""Checksums of pictures that Pillow made other sizes, for tests/engine/test_resample.c.

usage: resample.py      from the repository's root; needs pillow (13: older ones take the two
directions in another order)
"""
from PIL import Image

import det
import golden

SIZES = [
    (64, 48, 20, 31), (33, 21, 100, 50), (30, 60, 32, 48), (40, 90, 39, 10), (90, 40, 10, 39),
    (50, 50, 50, 20), (50, 50, 20, 50), (1, 1, 7, 5), (300, 2, 3, 200), (16, 16, 16, 16),
    (1200, 1000, 1121, 934),
]

for w, h, to_w, to_h in SIZES:
    out = golden.picture(w, h, 1).resize((to_w, to_h), Image.LANCZOS).tobytes()
    print("{%d, %d, %d, %d, 0x%016x}," % (w, h, to_w, to_h, det.fnv(out)))
