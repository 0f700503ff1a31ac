"""Gopher's rules of quality and of repetition (Rae et al. 2021, arXiv:2112.11446, section A.1 and table A1)."""

import dataclasses
import re
from typing import ClassVar, Union

import numpy as np

from lm.data.curation.document import Document, Drop
from lm.data.curation.steps import Notes, Step, register
from lm.data.curation.words import has_letter, is_sign_only, repeats, share, share_of, words

ELLIPSES = ("...", "…")


@register
@dataclasses.dataclass(frozen=True)
class GopherQuality(Step):
    """Documents go whose words and lines are not those of prose. The number and the length of words leave out what is punctuation alone."""

    name: ClassVar[str] = "gopher_quality"

    least_words: int = 50
    most_words: int = 100_000
    least_mean_length: float = 3.0  # characters of a word
    most_mean_length: float = 10.0
    most_symbols: float = 0.1  # hash signs over words, and ellipses over words
    most_bullets: float = 0.9  # share of the lines that begin with a bullet
    most_ellipsis_lines: float = 0.3  # share of the lines that end in an ellipsis
    least_alphabetic: float = 0.8  # share of the words with an alphabetic character
    least_stop_words: int = 2  # different ones of these
    stop_words: tuple[str, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")
    bullets: tuple[str, ...] = ("•", "-")

    def apply(self, document: Document, notes: Notes) -> Union[Document, Drop]:
        all_words = words(document.text)
        return self._of_words(document.text, all_words) or self._of_lines(document.text.splitlines(), all_words) or document

    def _of_words(self, text: str, all_words: list[str]) -> Union[Drop, None]:
        proper = [word for word in all_words if not is_sign_only(word)]
        if not self.least_words <= len(proper) <= self.most_words:
            few = len(proper) < self.least_words
            return Drop("too few words" if few else "too many words", f"{len(proper):,} words")
        mean = share(sum(map(len, proper)), len(proper))
        if not self.least_mean_length <= mean <= self.most_mean_length:
            return Drop("short words" if mean < self.least_mean_length else "long words", f"mean length {mean:.4g}")
        hashes = share(text.count("#"), len(all_words))
        if hashes > self.most_symbols:
            return Drop("hash signs", f"{hashes:.4g} a word")
        ellipses = share(sum(map(text.count, ELLIPSES)), len(all_words))
        return Drop("ellipses", f"{ellipses:.4g} a word") if ellipses > self.most_symbols else None

    def _of_lines(self, lines: list[str], all_words: list[str]) -> Union[Drop, None]:
        bullets = share_of(lines, lambda line: line.lstrip().startswith(self.bullets))
        if bullets > self.most_bullets:
            return Drop("bullet lines", f"{bullets:.4g} of the lines")
        ends = share_of(lines, lambda line: line.rstrip().endswith(ELLIPSES))
        if ends > self.most_ellipsis_lines:
            return Drop("lines that end in an ellipsis", f"{ends:.4g} of the lines")
        alphabetic = share_of(all_words, has_letter)
        if alphabetic < self.least_alphabetic:
            return Drop("words without letters", f"{alphabetic:.4g} of the words have letters")
        found = len(set(self.stop_words).intersection(all_words))
        return Drop("too few stop words", f"{found}") if found < self.least_stop_words else None


@register
@dataclasses.dataclass(frozen=True)
class GopherRepetition(Step):
    """Documents go that repeat themselves.

    A line, a paragraph or an n-gram of words is a repeat where an equal one stands before it. Of n-grams those are counted that do not
    overlap: after a repeat the search goes on behind it. The top n-gram is the most frequent, the first of several, which in
    a document of few words may occur once; its blanks count. All shares of characters are of the whole text.
    """

    name: ClassVar[str] = "gopher_repetition"

    most_lines: float = 0.30  # share of the lines that are repeats
    most_paragraphs: float = 0.30
    most_line_characters: float = 0.20
    most_paragraph_characters: float = 0.20
    top: tuple[float, ...] = (0.20, 0.18, 0.16)  # characters of the top 2-, 3- and 4-gram
    repeated: tuple[float, ...] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.10)  # characters of repeated 5- to 10-grams

    def apply(self, document: Document, notes: Notes) -> Union[Document, Drop]:
        text = document.text
        parts = (
            ("paragraph", re.split(r"\n{2,}", text.strip()), self.most_paragraphs, self.most_paragraph_characters),
            ("line", re.split(r"\n+", text), self.most_lines, self.most_line_characters),
        )
        for noun, pieces, most, most_characters in parts:
            count, characters = repeats(pieces)
            if count / len(pieces) > most:
                return Drop(f"repeated {noun}s", f"{count / len(pieces):.4g} of the {noun}s")
            if share(characters, len(text)) > most_characters:
                return Drop(f"characters of repeated {noun}s", f"{characters / len(text):.4g} of the characters")
        return self._of_ngrams(text) or document

    def _of_ngrams(self, text: str) -> Union[Drop, None]:
        ngrams = _NGrams(words(text))
        for n, most in enumerate(self.top, 2):
            characters = ngrams.top(n)
            if share(characters, len(text)) > most:
                return Drop(f"top {n}-gram", f"{characters / len(text):.4g} of the characters")
        for n, most in enumerate(self.repeated, 5):
            characters = ngrams.repeated(n, most * len(text))
            if share(characters, len(text)) > most:
                return Drop(f"repeated {n}-grams", f"{characters / len(text):.4g} of the characters")
        return None


class _NGrams:
    """The n-grams of a document's words as numbers, equal for equal n-grams. Those of n are made from those of n - 1, so n only grows."""

    def __init__(self, of: list[str]):
        number: dict[str, int] = {}
        self._word = np.asarray([number.setdefault(word, len(number)) for word in of], np.int64)
        self._end = np.concatenate([[0], np.cumsum([len(word) for word in of])]).astype(np.int64)
        self._n, self._number = 1, self._word

    def _grow(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the numbers of the n-grams in order, and for each its characters without blanks."""
        while self._n < n:
            pairs = self._number[:-1] * len(self._word) + self._word[self._n :]
            self._number = np.unique(pairs, return_inverse=True)[1]
            self._n += 1
        return self._number, self._end[n:] - self._end[: len(self._end) - n]

    def top(self, n: int) -> int:
        """Returns the characters of the most frequent n-gram, of the first of several, times its occurrences."""
        if len(self._word) < n:
            return 0
        number, size = self._grow(n)
        first, count = np.unique(number, return_index=True, return_counts=True)[1:]
        most = count.max()
        where = int(first[count == most].min())
        return int(most * (size[where] + n - 1))

    def repeated(self, n: int, enough: float) -> int:
        """Returns the characters of repeated n-grams that do not overlap; a bound on them where that is at most `enough`."""
        if len(self._word) < n:
            return 0
        number, size = self._grow(n)
        is_repeat = np.ones(len(number), bool)
        is_repeat[np.unique(number, return_index=True)[1]] = False
        bound = int(size[is_repeat].sum())
        if bound <= enough:
            return bound
        seen: set[int] = set()
        numbers, total, at = number.tolist(), 0, 0
        while at < len(numbers):
            if numbers[at] in seen:
                total += int(size[at])
                at += n
            else:
                seen.add(numbers[at])
                at += 1
        return total
