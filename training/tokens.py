"""The tokenizer: byte-level BPE in Qwen's layout, learnt from captions.

usage: tokens.py OUT.json"""
import random
import sys

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers import AddedToken, normalizers

SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
         r"\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<think>', '</think>']
SIZE = 4000
TEMPLATE = '<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n'


def learn(texts):
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), 'isolated'),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=SIZE - len(SPECIAL), min_frequency=2, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL])
    return t


def main():
    import captions
    import stickers
    items, _ = stickers.load()
    rng, m = random.Random(0), captions.Meanings(items)
    texts = ['user\n', 'assistant\n', '\n\n'] * 2000
    # Every name and phrase at the beginning and inside, so that each of their words is one token.
    for p in list(m.phrase):
        texts += [p, ' ' + p, p[0].upper() + p[1:]] * 3
    for i in items:
        for _ in range(3):
            s = stickers.random_scene(rng, i.index, rng.random() < .6)
            s.colour = s.colour or 'white'
            texts.append(captions.caption(rng, m, s))
    learn(texts).save(sys.argv[1])


if __name__ == '__main__':
    main()
