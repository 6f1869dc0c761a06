"""Gives the rarer forms of a word (first in the prompt, with a capital) the embedding of the common.

usage: tie.py ENCODER.pt OUT.pt"""
import sys

import torch
from tokenizers import Tokenizer

import captions
import stickers


def forms(tok, phrases):
    """(rare, common) token ids of words that are one token either way and no part of others."""
    parts = set()
    for p in phrases:
        for form in (p, p.capitalize()):
            parts.update(t for t in tok.encode(form).tokens[1:] if not t.startswith('Ġ'))
    vocabulary = tok.get_vocab()
    for t, i in vocabulary.items():
        word = t.lstrip('Ġ')
        common = 'Ġ' + word.lower()
        if t != common and len(word) > 2 and t not in parts and common in vocabulary:
            yield i, vocabulary[common]


def main():
    st = torch.load(sys.argv[1], weights_only=False)
    tok = Tokenizer.from_file(f'{stickers.WORK}/tokenizer.json')
    pairs = list(forms(tok, captions.Meanings(stickers.load()[0]).phrase))
    w = st['tail']['words']
    unseen = st['opt']['state'][0]['exp_avg_sq'].amax(1) == 0
    w[unseen] = 0
    print(int(unseen.sum()), 'tokens never met')
    for rare, common in pairs:
        w[rare] = w[common]
    print(len(pairs), 'forms tied')
    torch.save(st, sys.argv[2])


if __name__ == '__main__':
    main()
