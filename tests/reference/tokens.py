"""Writes tests/reference/tokens.json: rows of [text, how many times in a row, ids]
as the `tokenizers` library gives them; for long texts [count, sha256 of int32 ids] instead.

    python tests/reference/tokens.py       (tokenizers 0.23, from the repository's root)
"""

import hashlib
import json
import random
import struct

from tokenizers import Tokenizer

CHOSEN = [
    "", "a", " ", "\n", "Hello world", " Hello  world\n\n", "a red apple, 3d render",
    "don't I'LL we've THEY'RE 'S 'ſ it'K x'd", "'", "''s", "'sd 'tre", "3d 12345 1,000.5 ٣٤ ①½",
    "tab\tcr\rlf\ncrlf\r\n\r\n  end  ", "   \n  \n x", "trailing   ", "\u00a0nbsp\u00a0\u00a0x",
    "\u3000ideographic\u3000 space", "\u180emongolian\u180e vowel separator", "next\u0085line \u0085",
    "zero\u200bwidth\u200djoiner\ufeff", "line\u2028separator\u2029paragraph\u202fnarrow",
    "e\u0301 and é, n\u0303 and ñ", "a\u0323\u0307 a\u0307\u0323 (two orders of marks)",
    "\u1100\u1161\u11a8 각 가\u11a8 한국어 프롬프트", "漢字とかな交じり文、赤いりんご", "中文提示：一只猫。",
    "Å \u212b A\u030a K \u212a Ω \u2126", "\ufb01 ligature ﬂ stays", "豈 \uf900 compatibility",
    "😀 👩‍👩‍👧‍👦 🇩🇪 👍🏽 ❤️", "क्षत्रिय हिन्दी", "ไทยคำ", "שָׁלוֹם עולם", "مَرْحَبًا بالعالم", "Ελληνικά ΣΑΣ",
    "русский текст, ё и е\u0308", "\U0001d15e\U0001d165 music", "İstanbul ıI",
    "<|im_start|>user\na cat<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "a prompt with <|im_end|> inside", "<|im_end", "<<|im_end|>>", "<think><think></think", "x<|endoftext|>",
    " <|im_start|> ", "<|im_start|>\u0301e\u0301<|im_end|>", "e<think>\u0301", "<|IM_END|>",
    "{\"json\": [1, 2, {\"a\": null}]}", "https://example.org/a?b=c&d=%20#e", "a_b-c--d __init__ == != ++",
    "!!!???...\n\n;;", "punctuation!\nnew line", "CamelCaseWords ALLCAPS mIxEd", "\x01\x02\x7f control",
    "\U0010ffff\ue000 private",
]
REPEATED = [  # 10,000 bytes and more, in one word and in many
    ("word ", 2000), ("a", 10000), ("ab", 5000), (" ", 10000), ("\n", 10000), ("🍎", 2500), ("e\u0301", 3400),
    ("the quick brown fox, 3d icon on a dark blue background. ", 180), ("<think>", 1500), ("   x", 2500),
]


def made_up(seed):
    """A text from many scripts and from what tokenizers find hard."""
    r = random.Random(seed)
    ranges = [(32, 127)] * 4 + [(0xA0, 0x250), (0x300, 0x340), (0x370, 0x400), (0x400, 0x460),
              (0x5D0, 0x5EB), (0x620, 0x660), (0x905, 0x950), (0x1100, 0x1113), (0x1161, 0x1176),
              (0x2000, 0x2030), (0x3040, 0x30FF), (0x4E00, 0x4E40), (0xAC00, 0xAC40), (0x1F600, 0x1F640)]
    parts = ["'s", "'LL", "  ", "\n", "\r\n", "\t", "<|im_start|>", "<think>", "</think>", " red", " the", "42"]

    def one():
        return r.choice(parts) if r.random() < 0.35 else chr(r.randrange(*r.choice(ranges)))

    return "".join(one() for _ in range(r.randrange(5, 40)))


tokenizer = Tokenizer.from_file("tests/engine/golden/tokenizer-qwen/tokenizer.json")
rows = [[text, 1, tokenizer.encode(text).ids] for text in CHOSEN + [made_up(seed) for seed in range(120)]]
for unit, times in REPEATED:  # long lists of ids are kept as their hash
    ids = tokenizer.encode(unit * times).ids
    digest = hashlib.sha256(b"".join(struct.pack("<i", i) for i in ids)).hexdigest()
    rows.append([unit, times, [len(ids), digest]])
with open("tests/reference/tokens.json", "w") as f:
    f.write("[" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "]\n")
