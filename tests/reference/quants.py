#!/usr/bin/env python3
"""GGUF's block formats: random blocks and the values that the gguf package reads from them, and a
whole small file, for tests/engine/test_gguf.c.

usage: quants.py      from the repository's root; needs gguf numpy
"""
import numpy as np
from gguf import GGMLQuantizationType as T, GGUFWriter
from gguf.quants import dequantize, quantize, GGML_QUANT_SIZES

FOLDER = "tests/engine/golden/gguf"
TYPES = [T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K]


def blocks(kind, count, rng):
    """Random bytes with scales that are ordinary numbers."""
    size = GGML_QUANT_SIZES[kind][1]
    raw = rng.integers(0, 256, (count, size), dtype=np.uint8)
    halves = {T.Q8_0: [0], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q2_K: [80, 82],
              T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}[kind]
    for at in halves:
        scales = rng.uniform(-0.1, 0.1, count).astype(np.float16)
        raw[:, at:at + 2] = scales.view(np.uint8).reshape(count, 2)
    return raw


def main():
    rng = np.random.default_rng(7)
    writer = GGUFWriter(f"{FOLDER}/small.gguf", "test")
    writer.add_array("test.words", ["one", "two"])
    writer.add_uint32("general.alignment", 64)
    writer.data_alignment = 64
    expected = []
    for kind in TYPES:
        width = GGML_QUANT_SIZES[kind][0] * 2
        raw = blocks(kind, 6, rng).reshape(3, -1)
        values = dequantize(raw, kind).reshape(3, width)
        writer.add_tensor(f"q.{kind.name}", raw, raw_dtype=kind)
        expected.append(values.astype(np.float32))
    plain = rng.standard_normal((4, 6)).astype(np.float32)
    writer.add_tensor("f.F32", plain)
    writer.add_tensor("f.F16", plain.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    expected += [plain, plain.astype(np.float16).astype(np.float32)]
    np.concatenate([x.reshape(-1) for x in expected]).tofile(f"{FOLDER}/small.f32")


if __name__ == "__main__":
    main()
