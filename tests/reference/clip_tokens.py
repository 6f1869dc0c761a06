#!/usr/bin/env python3
"""CLIP's tokenizer by transformers' own class, with a small vocabulary trained here.

usage: clip_tokens.py [--write | --many COUNT OUT]      from the repository's root

Compares, or with --write makes, tests/engine/golden/clip/: the folders that checkpoints have, tokenizer/ (pads with its end
token), tokenizer_2/ (pads with "!"), and json/, the same as tokenizer.json; and the ids of texts
that tokenizers find hard, tests/reference/clip_tokens.json: [text, ids by each folder], padded to 77,
without the repetitions of the last id. --many: only so many other texts and their ids, into OUT.
"""
import collections
import filecmp
import json
import os
import random
import sys
import tempfile

from transformers import CLIPTokenizer

GOLDEN = "tests/engine/golden/clip"
ROWS = "tests/reference/clip_tokens.json"
FOLDERS = ("tokenizer", "tokenizer_2", "json")
START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = 240
CORPUS = [
    "a photo of an astronaut riding a horse on mars, oil painting, highly detailed",
    "an old stone house by the sea, stormy sky, don't look, we'll see what they're painting",
    "portrait of a red fox in the snow, studio lighting, 85mm, sharp focus, bokeh!!! (best quality)",
    "a watercolor of mountains and a river at sunrise, soft light, in the style of an old master",
    "cute robot cat, 3d render, octane, trending, 4k... blurry, low quality, ugly, text, watermark",
    "the café and the garden: über-straße, naïve, señor, русский лес, 漢字 かな, 한국어, ελληνικά",
]
TEXTS = [
    "", " ", "a cat!", "!!", "! !", "a!b", "!'s", "hello  world\n\t x ", "a photo of an Astronaut, 8K, don't we'll THEY'RE",
    "<|startoftext|>a<|endoftext|>b", "x<|ENDOFTEXT|>y <|STARTOFTEXT|>!", "<|endoftext", "'S 'ſ K İstanbul ΑΣ ΣΑΣ ẞ",
    "e\u0301 and é, a\u0323\u0307", "漢字とかな交じり文 中文", "한국어 \u1112\u1161\u11ab", "😀👩‍👩‍👧 ❤️ 🇩🇪", "12345 ٣٤ ①½ x²",
    "a\u00a0b\u3000c\u180ed\u200be\u2028f\u0085g", "(((masterpiece))), [x|y], {a} :: --ar 16:9 #tag ## ###", "__init__ a_b-c",
    "ﬁ ﬂ Å \u212b K Ω", "Don't'll'd've 's's", "...!!!???", "a photo of the sea " * 30, "!" * 90, "é" * 80,
]


def byte_symbols():
    """GPT-2's characters for bytes, in CLIP's order: printable bytes first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def words():
    """The corpus as lists of symbols."""
    t = CLIPTokenizer()._tokenizer
    for line in CORPUS:
        for word, _ in t.pre_tokenizer.pre_tokenize_str(t.normalizer.normalize_str(line)):
            yield [*word[:-1], word[-1] + "</w>"]


def train():
    """The commonest pair becomes a token, again and again; ties go to the smaller text."""
    corpus, merges = list(words()), []
    while len(merges) < MERGES:
        counts = collections.Counter(pair for word in corpus for pair in zip(word, word[1:]))
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(" ".join(best))
        for word in corpus:
            for i in range(len(word) - 2, -1, -1):
                if tuple(word[i:i + 2]) == best:
                    word[i:i + 2] = ["".join(best)]
    symbols = byte_symbols()
    tokens = symbols + [s + "</w>" for s in symbols] + [m.replace(" ", "") for m in merges] + [START, END]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}, merges


def added(text, normalized=True):
    return {"content": text, "lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False}


def write_folder(folder, vocab, merges, pad, listed):
    """As the hub has them: `listed` in the newer spelling, with added_tokens_decoder."""
    os.makedirs(folder, exist_ok=True)
    special = {"bos_token": added(START), "eos_token": added(END), "pad_token": pad, "unk_token": added(END)}
    config = {"do_lower_case": True, "errors": "replace", "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    if listed:
        tokens = {pad: added(pad, False), START: added(START), END: added(END)}
        config["added_tokens_decoder"] = {str(vocab[t]): {**o, "special": True} for t, o in tokens.items()}
        config |= {"bos_token": START, "eos_token": END, "pad_token": pad, "unk_token": END}
    else:
        config |= {k: {"__type": "AddedToken", **v} if isinstance(v, dict) else v for k, v in special.items()}
    for name, value in (("vocab", vocab), ("special_tokens_map", special), ("tokenizer_config", config)):
        with open(f"{folder}/{name}.json", "w", encoding="utf-8") as f:
            json.dump(value, f, ensure_ascii=False, separators=(",", ":"))
    with open(f"{folder}/merges.txt", "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join(m + "\n" for m in merges))


def made_up(seed):
    r = random.Random(seed)
    ranges = [(32, 127)] * 6 + [(0xA0, 0x250), (0x300, 0x340), (0x370, 0x400), (0x400, 0x460), (0x5D0, 0x5EB),
              (0x620, 0x660), (0x905, 0x950), (0x1100, 0x1113), (0x1161, 0x1176), (0x1E00, 0x1F00), (0x2000, 0x2060),
              (0x2100, 0x2190), (0x3040, 0x30FF), (0x4E00, 0x4E40), (0xAC00, 0xAC40), (0xFB00, 0xFB07),
              (0x10400, 0x10450), (0x1F600, 0x1F640)]
    parts = ["'s", "'LL", "  ", "\n", "\t", START, END, END.upper(), "!", "!!", " the", "Red ", "42", "painting", "İ", "Σ"]

    def one():
        return r.choice(parts) if r.random() < 0.35 else chr(r.randrange(*r.choice(ranges)))

    return "".join(one() for _ in range(r.randrange(1, 30)))


def write_folders(root):
    vocab, merges = train()
    write_folder(f"{root}/tokenizer", vocab, merges, END, listed=False)
    write_folder(f"{root}/tokenizer_2", vocab, merges, "!", listed=True)
    os.makedirs(f"{root}/json", exist_ok=True)
    with tempfile.TemporaryDirectory() as tmp:
        CLIPTokenizer.from_pretrained(f"{root}/tokenizer_2").save_pretrained(tmp)
        with open(f"{tmp}/tokenizer.json", encoding="utf-8") as f:
            value = json.load(f)
    with open(f"{root}/json/tokenizer.json", "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, separators=(",", ":"))
    with open(f"{root}/json/tokenizer_config.json", "w", encoding="utf-8") as f:
        json.dump({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "!"}, f)


def shortened(ids):
    """Without the repetitions of the last one."""
    end = len(ids)
    while end > 1 and ids[end - 2] == ids[-1]:
        end -= 1
    return ids[:end]


def write_rows(path, root, texts):
    tokenizers = [CLIPTokenizer.from_pretrained(f"{root}/{name}") for name in FOLDERS]
    rows = []
    for text in texts:
        ids = [t(text, padding="max_length", max_length=77, truncation=True).input_ids for t in tokenizers]
        rows.append([text, *map(shortened, ids)])
    with open(path, "w", encoding="utf-8") as f:
        f.write("[" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "]\n")


def write_all(root, rows):
    write_folders(root)
    write_rows(rows, root, TEXTS + [made_up(seed) for seed in range(60)])


def compare():
    """How many files are not what they would be now."""
    with tempfile.TemporaryDirectory() as tmp:
        write_all(f"{tmp}/clip", f"{tmp}/rows")
        pairs = [(ROWS, f"{tmp}/rows")]
        pairs += [(os.path.join(folder, f), os.path.join(folder, f).replace(GOLDEN, f"{tmp}/clip"))
                  for folder, _, files in os.walk(GOLDEN) for f in files]
        different = [ours for ours, theirs in pairs if not filecmp.cmp(ours, theirs, shallow=False)]
    print(*(f"{path} differs" for path in different), f"{len(pairs)} files compared", sep="\n")
    return len(different)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--many"]:
        write_rows(sys.argv[3], GOLDEN, [made_up(seed) for seed in range(1000, 1000 + int(sys.argv[2]))])
    elif sys.argv[1:] == ["--write"]:
        write_all(GOLDEN, ROWS)
    else:
        sys.exit(compare() > 0)
