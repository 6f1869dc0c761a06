#!/usr/bin/env python3
"""Draws the cases of a checkpoint with the engine and compares with pictures that the original
pipeline drew.

usage: check_pictures.py OMNI_DRAW FOLDER…
       FOLDER/model/                 a checkpoint in the hub's layout
       FOLDER/expected/cases.jsonl   {"name", "ini": {prompt, width, height, steps, guidance, seed}} a line
       FOLDER/expected/NAME.npy      fp32 [3, height, width] in 0 … 1

Cases with reference pictures are left out. Exits 1 when one is below 55 dB.
"""
import json
import subprocess
import sys
import tempfile

import numpy as np

LEAST_DB = 55


def draw(program, model, ini, out):
    line = [program, model, "-P", "fp32", "-o", out, "-p", ini["prompt"], "-n", ini["steps"], "-g",
            ini["guidance"], "-S", ini["seed"], "-s", f"{ini['width']}x{ini['height']}"]
    subprocess.run([str(x) for x in line], check=True, stdout=subprocess.DEVNULL)
    return np.fromfile(out, np.uint8).reshape(ini["height"], ini["width"], 3)


def main():
    program, folders = sys.argv[1], sys.argv[2:]
    worst = 99.0
    for folder in folders:
        for line in open(f"{folder}/expected/cases.jsonl", encoding="utf-8"):
            case = json.loads(line)
            if "reference" in case["ini"]:
                continue
            expected = np.load(f"{folder}/expected/{case['name']}.npy").transpose(1, 2, 0)
            with tempfile.NamedTemporaryFile() as out:
                found = draw(program, f"{folder}/model", case["ini"], out.name)
            error = np.mean((found - np.rint(expected * 255)) ** 2)
            db = 99.0 if error == 0 else 10 * np.log10(255**2 / error)
            worst = min(worst, db)
            print(f"{folder} {case['name']}: {db:.1f} dB")
    return worst < LEAST_DB


if __name__ == "__main__":
    sys.exit(main())
