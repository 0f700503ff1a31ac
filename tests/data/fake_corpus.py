"""A corpus in memory, with the interface that lm.data.corpora gives."""

import random

WORDS = ["def", "return", "    ", "self", "x", "=", "\n", "(", ")", ":", "naïve", "漢字", "</s>", "<pad>", "0x41"]


class Split(list):
    """Documents; counts how often one is read."""

    reads = 0

    def __getitem__(self, i):
        self.reads += 1
        return super().__getitem__(i)


class Corpus:
    def __init__(self, train, validation=("held out\n",), fingerprint="fake"):
        self.fingerprint, self.info = fingerprint, {"documents": {"train": len(train), "validation": len(validation)}}
        self._splits = {"train": Split(train), "validation": Split(validation)}

    def split(self, name):
        return self._splits[name]


def text(words, seed):
    chosen = random.Random(seed)
    return " ".join(chosen.choice(WORDS) for _ in range(words))


def corpus(documents=40, seed=0, longest=60, fingerprint="fake"):
    """Documents of 1 to `longest` words, all different."""
    lengths = random.Random(seed)
    train = [f"{i}" + text(lengths.randint(1, longest), (seed + 1) * 1000 + i) for i in range(documents)]
    return Corpus(train, [text(30, -i) for i in range(1, 4)], fingerprint)


def quiet(line):
    del line
