"""Contamination: documents of the corpus that hold text of evaluation sets (Brown et al. 2020, arXiv:2005.14165, appendix C)."""

import dataclasses
import functools
import os
from typing import ClassVar, NamedTuple, Optional, Union

import numpy as np

from lm.data.corpora import near_duplicates, readers
from lm.data.curation.document import Document, Drop
from lm.data.curation.steps import Notes, Step, register
from lm.data.curation.words import normal_words
from lm.errors import UserError


@register
@dataclasses.dataclass(frozen=True)
class Contamination(Step):
    """Documents go that share a run of 13 words with an evaluation set, without regard to case, punctuation, accents and numbers.

    An item of fewer words is looked for as a whole; one of fewer than `shortest` is not looked for.
    """

    name: ClassVar[str] = "contamination"

    paths: tuple[str, ...] = ()  # files, folders or patterns; one document of them is one item
    field: Optional[str] = None  # of an item's text; none: 'text'
    ngram: int = 13  # words
    shortest: int = 8

    def check(self) -> None:
        if not self.paths:
            raise UserError("contamination needs the evaluation sets: set --set=contamination.paths=FILE,... or leave the step out")
        if not 1 <= self.shortest <= self.ngram:
            raise UserError(f"contamination.shortest must be 1 to {self.ngram}, the ngram, not {self.shortest}")
        if not _index(self).ngrams:
            raise UserError(f"no item of {', '.join(self.paths)} has {self.shortest} words or more; nothing can be looked for")

    def files(self) -> list[str]:
        return readers.expand(self.paths, lambda line: None)

    def apply(self, document: Document, notes: Notes) -> Union[Document, Drop]:
        index, found = _index(self), normal_words(document.text)
        numbers = [index.number(word) for word in found]
        for n, (known, owner) in index.ngrams.items():
            if len(numbers) < n:
                continue
            hashes, _ = near_duplicates.shingle_hashes([numbers], n)
            at = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
            shared = np.flatnonzero(known[at] == hashes)
            if len(shared):
                first = int(shared[0])
                return Drop(f"text of {index.files[owner[at[first]]]}", " ".join(found[first : first + n]))
        return document


class _Index(NamedTuple):
    """The n-grams of evaluation sets: their hashes, sorted, and the file of each, by n."""

    files: list[str]
    ngrams: dict[int, tuple[np.ndarray, np.ndarray]]

    @staticmethod
    @functools.lru_cache(maxsize=1 << 20)
    def number(word: str) -> int:
        return near_duplicates.hashed(word)


@functools.lru_cache(maxsize=4)
def _index(step: Contamination) -> _Index:
    files = readers.expand(step.paths, lambda line: None)
    found: dict[int, list[tuple[np.ndarray, int]]] = {}
    for owner, path in enumerate(files):
        for text in readers.read(path, step.field):
            numbers = [_Index.number(word) for word in normal_words(text)]
            n = min(step.ngram, len(numbers))
            if n >= step.shortest:
                found.setdefault(n, []).append((near_duplicates.shingle_hashes([numbers], n)[0], owner))
    ngrams = {}
    for n, parts in sorted(found.items(), reverse=True):
        hashes = np.concatenate([part for part, _ in parts])
        owners = np.concatenate([np.full(len(part), owner) for part, owner in parts])
        known, first = np.unique(hashes, return_index=True)
        ngrams[n] = known, owners[first]
    return _Index([os.path.basename(path) for path in files], ngrams)
