"""Steps that compare documents with all others of the corpus: exact duplicates, of documents and of paragraphs, and near-duplicates."""

import dataclasses
import functools
import hashlib
import re
from typing import ClassVar, Union

import numpy as np

from lm.data.corpora import near_duplicates
from lm.data.curation.document import Document, Drop
from lm.data.curation.steps import ComparingStep, Notes, register
from lm.data.curation.words import normal_words
from lm.errors import UserError

_PARAGRAPHS = re.compile(r"(\n(?:[ \t\r]*\n)+)")


def _key(text: str) -> int:
    """Returns 64 bits of a text. Of n different texts n^2 / 2^65 are expected to be taken for another: .0003 of 10^8."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


@register
@dataclasses.dataclass(frozen=True)
class ExactDocuments(ComparingStep):
    """Documents go whose text, without the blanks around it, is that of one before them."""

    name: ClassVar[str] = "exact_documents"

    def keys(self, documents: list[Document]) -> np.ndarray:
        return np.asarray([[_key(document.text.strip()) for document in documents]], np.uint64)

    def keep(self, document: Document, is_first: np.ndarray, notes: Notes) -> Union[Document, Drop]:
        return document if is_first[0] else Drop("equal to one before")


@register
@dataclasses.dataclass(frozen=True)
class ExactParagraphs(ComparingStep):
    """Paragraphs go that stand before, in the same document or another. Blank lines part them, and blanks around them do not count."""

    name: ClassVar[str] = "exact_paragraphs"

    shortest: int = 1  # characters of the shortest paragraph that is compared; shorter ones stay

    def keys(self, documents: list[Document]) -> np.ndarray:
        return np.asarray([[_key(paragraph) for document in documents for paragraph in self.items(document)]], np.uint64)

    def items(self, document: Document) -> list[str]:
        return self._compared(_PARAGRAPHS.split(document.text)[::2])

    def keep(self, document: Document, is_first: np.ndarray, notes: Notes) -> Union[Document, Drop]:
        pieces, item = _PARAGRAPHS.split(document.text), 0
        kept: list[str] = []
        for paragraph, after in zip(pieces[::2], [*pieces[1::2], ""], strict=True):
            is_compared = bool(self._compared([paragraph]))
            if is_compared and not is_first[item]:
                notes.changed("paragraph that stands before", paragraph.strip())
            else:
                kept += [paragraph, after]
            item += is_compared
        return document if len(kept) == len(pieces) + 1 else document.with_text("".join(kept).strip())

    def _compared(self, paragraphs: list[str]) -> list[str]:
        return [bare for bare in map(str.strip, paragraphs) if len(bare) >= max(self.shortest, 1)]


@register
@dataclasses.dataclass(frozen=True)
class MinHash(ComparingStep):
    """Documents go that resemble one before them, found by MinHash (Broder 1997) in buckets of several hashes.

    The resemblance s is the Jaccard index of the sets of n-grams of words, without regard to case, punctuation, accents and numbers. A pair
    is found if all hashes of one bucket agree, with probability P(s) = 1 - (1 - s^hashes)^buckets: .56 at .7, .92 at .8, .988 at .85. Of a
    cluster, the pairs found and what they link, the first document stays. The defaults are those of FineWeb.
    """

    name: ClassVar[str] = "minhash"

    buckets: int = 14
    hashes: int = 8  # of a bucket
    ngram: int = 5  # words

    def check(self) -> None:
        for key in ("buckets", "hashes", "ngram"):
            if getattr(self, key) < 1:
                raise UserError(f"minhash.{key} must be 1 or more, not {getattr(self, key)}")

    def probability(self, resemblance: float) -> float:
        """Returns P(s), the probability that a pair of this resemblance is found."""
        return 1 - (1 - resemblance**self.hashes) ** self.buckets

    def keys(self, documents: list[Document]) -> np.ndarray:
        number = functools.cache(near_duplicates.hashed)
        # A document without words resembles no other: its name stands for its words.
        numbers = [[number(word) for word in normal_words(document.text) or ["\0" + document.name]] for document in documents]
        if not documents:
            return np.zeros((self.buckets, 0), np.uint64)
        signature = near_duplicates.minima(numbers, self.ngram, self.buckets * self.hashes)
        return np.stack(list(near_duplicates.band_keys(signature, self.hashes)))

    def keep(self, document: Document, is_first: np.ndarray, notes: Notes) -> Union[Document, Drop]:
        return document if is_first[0] else Drop("resembles one before")
