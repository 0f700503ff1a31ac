"""The least loss on the text of a word chain: its entropy in closed form, and the loss of a reader who knows the chain.

With q = (1 - l) p, and a = q[succ(w)] the fresh part of the successor's probability, a word costs after w

    H_w = -sum_x q log q + a log a - (a + l) log(a + l)                  nats

and the rate per byte is h = sum_w pi_w H_w / sum_w pi_w (letters_w + 1), pi the fixed point of pi <- (1 - l) p + l pi[succ^-1]. Chains
side by side have the same rate. Documents cost more: the first word of every chain has no predecessor and costs H(pi), and where they end
has to be told. `Entropy.documents` counts both in; the oracle says what each document and each of its bytes costs. The rate is that of one
permutation: it decides how long the words are that follow frequent ones, and h differs by about 1% between seeds.
"""

import dataclasses
import functools
import math

import numpy as np

from lm.data.config import WordChain
from lm.data.corpora.word_chain import Language

_BASE = 27  # letters 1..26 and the space, 0


@dataclasses.dataclass(frozen=True)
class Entropy:
    """Nats and bytes of a chain, in expectation."""

    chain: WordChain
    per_word: float  # given the word `lag` places before
    first_word: float  # H(pi): given nothing
    word_bytes: float  # with the space

    @property
    def rate(self) -> float:
        """The entropy rate h, in nats per byte of endless text."""
        return self.per_word / self.word_bytes

    @property
    def documents(self) -> float:
        """Nats per byte of whole documents, their first words and their ends included: expected nats over expected bytes."""
        mean = self.chain.words_per_document
        end = 1 / mean
        first = mean * -math.expm1(self.chain.lag * math.log1p(-end)) if end < 1 else 1.0  # words without a predecessor
        place = -(math.log(end) + (mean - 1) * math.log1p(-end)) if end < 1 else 0.0  # entropy of the number of words
        return (first * self.first_word + (mean - first) * self.per_word + place) / (mean * self.word_bytes)


def stationary(language: Language) -> np.ndarray:
    """Returns pi, float64 [W], iterated until it moves by at most 1e-15 in all."""
    share, fresh = language.chain.successor, (1 - language.chain.successor) * language.probability
    before = language.succ.inverse(np.arange(language.chain.words))
    pi = language.probability
    while True:
        new = fresh + share * pi[before]
        moved = float(np.abs(new - pi).sum())
        pi = new
        if moved <= 1e-15:
            return pi / pi.sum()


class Oracle:
    """A reader who knows the chain: the exact negative log-probability of its documents, in nats."""

    def __init__(self, chain: WordChain):
        self.chain, self.language = chain, Language(chain)

    @functools.cached_property
    def pi(self) -> np.ndarray:
        return stationary(self.language)

    @functools.cached_property
    def entropy(self) -> Entropy:
        """The closed form; all W words are summed over (5 s and 400 MB at 2^22)."""
        p, pi, share, words = self.language.probability, self.pi, self.chain.successor, np.arange(self.chain.words)
        q = (1 - share) * p
        a = q[self.language.succ(words)]
        per_word = -(q * np.log(q)).sum() + a * np.log(a) - (a + share) * np.log(a + share)
        lengths = self.language.letters(words) + 1
        return Entropy(self.chain, float(pi @ per_word), float(-(pi * np.log(pi)).sum()), float(pi @ lengths))

    def words(self, words: np.ndarray) -> np.ndarray:
        """Returns the nats of each word of a document, float64 [n]; the first `lag` are predicted by pi."""
        return -np.log(self._prior(words, self._expected(words), self.language.probability[words], self.pi[words]))

    def document(self, words: np.ndarray) -> float:
        """Returns the nats of a whole document, with its end."""
        return float(self.words(words).sum() + self._ends(len(words)).sum())

    def bytes(self, words: np.ndarray) -> np.ndarray:
        """Returns the nats of each byte of a document's text and of its end, given all bytes before: float64 [bytes + 1].

        A byte's probability is the mass of the words that begin with what is read and that byte, over the mass of those that begin with
        what is read; the masses are differences of sums over the words in the order of their spellings.
        """
        expected, fresh = self._expected(words), np.arange(len(words)) >= self.chain.lag
        codes, lengths = self._codes(words), self.language.letters(words)
        follower = self._codes(np.maximum(expected, 0))
        before, nats = np.ones(len(words)), np.zeros((len(words), self.language.longest + 1))
        for read in range(1, self.language.longest + 2):
            unit = _BASE ** max(self.language.longest + 1 - read, 0)
            low = codes // unit * unit
            ranges = np.searchsorted(self._sorted[0], [low, low + unit])
            p, pi = (table[ranges[1]] - table[ranges[0]] for table in self._sorted[1:])
            whole = read > lengths  # the space has been read: one word is left, and its mass need not be a difference
            p, pi = np.where(whole, self.language.probability[words], p), np.where(whole, self.pi[words], pi)
            share, match = self.chain.successor, (expected >= 0) & (follower // unit == codes // unit)
            mass = np.where(fresh, (1 - share) * p + share * match, pi)
            nats[:, read - 1], before = -np.log(mass / before), mass
        ends = self._ends(len(words))
        nats[1:, 0] += ends[:-1]  # that the text goes on
        return np.append(nats[np.arange(nats.shape[1]) <= lengths[:, None]], ends[-1])

    def _prior(self, words: np.ndarray, expected: np.ndarray, p: np.ndarray, pi: np.ndarray) -> np.ndarray:
        share = self.chain.successor
        return np.where(np.arange(len(words)) < self.chain.lag, pi, (1 - share) * p + share * (expected == words))

    def _expected(self, words: np.ndarray) -> np.ndarray:
        """Returns the successor of the word `lag` places before; -1 where there is none."""
        expected = np.full(len(words), -1, np.int64)
        expected[self.chain.lag :] = self.language.succ(words[: -self.chain.lag])
        return expected

    def _ends(self, count: int) -> np.ndarray:
        """Returns the nats, after each word, of whether the document ends there."""
        end = 1 / self.chain.words_per_document
        on = -math.log1p(-end) if end < 1 else math.inf
        return np.append(np.full(count - 1, on), -math.log(end))

    def _codes(self, words: np.ndarray) -> np.ndarray:
        """Returns spellings as numbers in base 27, first letter first: words that begin alike are neighbours."""
        digits = self.language.spellings(words).astype(np.int64)
        digits = np.where(digits > 0, digits - (ord("a") - 1), 0)
        return digits @ _BASE ** np.arange(self.language.longest, 0, -1, dtype=np.int64)

    @functools.cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The codes of all words in order, and the sums of p and pi over the words before each place, [W + 1]."""
        codes = self._codes(np.arange(self.chain.words))
        order = np.argsort(codes)
        p, pi = (np.concatenate([[0.0], np.cumsum(mass[order])]) for mass in (self.language.probability, self.pi))
        return codes[order], p, pi
