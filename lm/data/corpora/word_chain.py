"""Text whose entropy rate is known: a chain of made-up words, `source[i] = f(seed, i)`, without end and with random access.

    source = WordChainSource(WordChain(words=1 << 22, seed=7))
    source[10**12]                      # a document; nothing before it is made

Word r = 1..W has probability p(r) ~ r^-s. In each of `lag` interleaved chains a word is followed by its successor with probability l
and else by a fresh draw:

    P(w' | w) = (1 - l) p(w') + l [w' = succ(w)]            w is the word `lag` places before w'

succ is a keyed permutation of the words, computed and not stored. A document starts in the chain's stationary distribution,
pi = (1 - l) p + l pi[succ^-1], and ends after each word with the same probability, so that nothing is learned by counting.
lm.data.corpora.word_entropy has the entropy, and the loss of a reader who knows all of this.

Word r is spelled with 2 + floor(log_12 r) letters of 26 and ends in a space. Words of one length have distinct numbers, and their
spellings are the image of these under a keyed permutation of all 26^n strings of n letters: no two are spelled alike. There are strings
enough, for 11 x 12^m ranks have floor(log_12 r) = m and there are 26^(m + 2) strings of their length; so frequent words are short and most
strings mean nothing. No letter is a space, so words, and from them the chain, can be read off the text.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import numpy as np

from lm.data.config import WordChain
from lm.data.splitmix import Permutation, streams, uniform
from lm.data.store import digest, seed_of
from lm.errors import UserError

VERSION = 1  # of the recipe: another one is another text
LARGEST = 1 << 26  # words: a table of p, half a gigabyte
LETTERS = 26
BLOCK = 64  # documents that a split makes at once
_POWERS = 12 ** np.arange(12, dtype=np.int64)


def require(chain: WordChain) -> None:
    """Raises UserError for parameters out of range."""
    place = "data.components.0.chain."
    rules = (
        (2 <= chain.words <= LARGEST, f"{place}words={chain.words} must be between 2 and {LARGEST:,}"),
        (0 <= chain.exponent <= 10, f"{place}exponent={chain.exponent:g} must be between 0 (all words alike) and 10; text has about 1"),
        (
            0 <= chain.successor < 1,
            f"{place}successor={chain.successor:g} must be at least 0 and below 1: at 1 a chain draws no fresh word",
        ),
        (chain.lag >= 1, f"{place}lag={chain.lag} must be at least 1: the next word depends on the word that many places before"),
        (chain.words_per_document >= 1, f"{place}words_per_document={chain.words_per_document:g} must be at least 1"),
        (
            min(chain.train_documents, chain.validation_documents) >= 1,
            f"{place}train_documents and validation_documents must be at least 1",
        ),
    )
    for holds, message in rules:
        if not holds:
            raise UserError(message)


@dataclasses.dataclass(frozen=True)
class Language:
    """The words of a chain, numbered from 0 (rank - 1): their probabilities, spellings and successors. Arrays in, arrays out."""

    chain: WordChain

    def __post_init__(self) -> None:
        require(self.chain)

    @functools.cached_property
    def probability(self) -> np.ndarray:
        """The probability p of each word, float64 [W]."""
        weight = np.arange(1, self.chain.words + 1, dtype=np.float64) ** -self.chain.exponent
        return weight / weight.sum()

    @functools.cached_property
    def _cumulative(self) -> np.ndarray:
        total = np.cumsum(self.probability)
        return total / total[-1]

    def fresh(self, uniforms: np.ndarray) -> np.ndarray:
        """Returns words drawn from p by inversion of numbers in [0, 1)."""
        return np.searchsorted(self._cumulative, uniforms, side="right")

    @functools.cached_property
    def succ(self) -> Permutation:
        return Permutation(self.chain.words, self._key("successor"))

    def letters(self, words: np.ndarray) -> np.ndarray:
        """Returns the letters of each word, without the space."""
        return 1 + np.searchsorted(_POWERS, np.asarray(words) + 1, side="right")

    @property
    def longest(self) -> int:
        """The number of letters of the longest word."""
        return int(self.letters(np.asarray(self.chain.words - 1)))

    def spellings(self, words: np.ndarray) -> np.ndarray:
        """Returns ASCII letters, uint8 [n, longest], 0 behind the end of a word."""
        words = np.asarray(words, np.int64)
        lengths = self.letters(words)
        spelled = np.zeros((len(words), self.longest), np.uint8)
        for length in np.unique(lengths).tolist():
            chosen = lengths == length
            strings = Permutation(LETTERS**length, self._key("spelling", length))
            number = strings(words[chosen] + 1 - _POWERS[length - 2])
            digits = number[:, None] // LETTERS ** np.arange(length - 1, -1, -1, dtype=np.int64) % LETTERS
            spelled[chosen, :length] = ord("a") + digits
        return spelled

    def text(self, words: np.ndarray) -> str:
        """Returns the text of words, each with a space behind it."""
        spelled = np.pad(self.spellings(words), ((0, 0), (0, 1)))
        lengths = self.letters(words)
        spelled[np.arange(len(lengths)), lengths] = ord(" ")
        return spelled[np.arange(spelled.shape[1]) <= lengths[:, None]].tobytes().decode("ascii")

    def _key(self, *names: object) -> int:
        return seed_of("word_chain", VERSION, self.chain.seed, *names)


class WordChainSource:
    """Documents of a chain without end: `source[i]` is the text of document i >= 0, `source.words(i)` the numbers of its words.

    `texts` and `chains` make several documents in one pass, which costs less than one after the other.
    """

    def __init__(self, chain: WordChain):
        self.language = Language(chain)
        self._chain = chain
        self._key = seed_of("word_chain", VERSION, chain.seed, "documents")

    def __getitem__(self, i: int) -> str:
        return self.texts([i])[0]

    def words(self, i: int) -> np.ndarray:
        """Returns the words of a document, int64 [n]; n is geometric with the mean `words_per_document`."""
        return self.chains([i])[0]

    def texts(self, documents: Sequence[int]) -> list[str]:
        words, counts = self._chains(documents)
        text, ends = self.language.text(words), np.cumsum(self.language.letters(words) + 1)
        edges = [0, *ends[np.cumsum(counts) - 1].tolist()]
        return [text[start:end] for start, end in itertools.pairwise(edges)]

    def chains(self, documents: Sequence[int]) -> list[np.ndarray]:
        words, counts = self._chains(documents)
        return np.split(words, np.cumsum(counts)[:-1])

    def _chains(self, documents: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the words of all documents back to back, and how many each has.

        A word is succ^a of the fresh draw that its chain made a steps before. The first word of each chain has an age a as well,
        geometric as in a chain that has always run: so it comes from pi.
        """
        if min(documents) < 0:
            raise IndexError(f"document {min(documents)}: they are numbered from 0")
        keys, lag = streams(self._key, np.asarray(documents, np.uint64)), self._chain.lag
        counts = self._counts(uniform(keys, np.zeros(len(keys), np.uint64)))
        rounds = -(-counts // lag)  # of the interleaved chains; the last may be cut short
        sizes = rounds * lag
        document = np.repeat(np.arange(len(keys)), sizes)
        slot = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # chain by chain
        phase, step = np.divmod(slot, rounds[document])
        place = step * lag + phase
        kept, drawn, first = (uniform(keys[document], 1 + 3 * place + column) for column in range(3))
        is_fresh = (kept >= self._chain.successor) | (step == 0)
        origin = np.maximum.accumulate(np.where(is_fresh, np.arange(len(slot)), 0))
        ages = step - step[origin] + np.where(step[origin] == 0, self._first_ages(first[origin - step[origin]]), 0)
        words = self._followed(self.language.fresh(drawn)[origin], ages)
        order = np.lexsort((place, document))
        return words[order][place[order] < counts[document[order]]], counts

    def _counts(self, uniforms: np.ndarray) -> np.ndarray:
        end = 1 / self._chain.words_per_document
        return np.ones(len(uniforms), np.int64) if end == 1 else 1 + (np.log1p(-uniforms) / np.log1p(-end)).astype(np.int64)

    def _first_ages(self, uniforms: np.ndarray) -> np.ndarray:
        """Draws the ages of first words: P(age >= a) = l^a."""
        if self._chain.successor == 0:
            return np.zeros(len(uniforms), np.int64)
        return (np.log1p(-uniforms) / np.log(self._chain.successor)).astype(np.int64)

    def _followed(self, words: np.ndarray, ages: np.ndarray) -> np.ndarray:
        """Applies succ `ages` times to each word."""
        words, rest = words.copy(), np.flatnonzero(ages > 0)
        done = 0
        while len(rest):
            words[rest] = self.language.succ(words[rest])
            done += 1
            rest = rest[ages[rest] > done]
        return words


class Documents:
    """A split: `count` documents of the source from `first` on. Neighbours are made together and the latest are kept."""

    def __init__(self, source: WordChainSource, first: int, count: int):
        self._source, self._first, self._count = source, first, count
        self._block = functools.lru_cache(maxsize=1)(self._make_block)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> str:
        self._require(i)
        return self._block(i // BLOCK)[i % BLOCK]

    def words(self, documents: Sequence[int]) -> list[np.ndarray]:
        """Returns the numbers of the words of some documents of the split."""
        for i in documents:
            self._require(i)
        return self._source.chains([self._first + int(i) for i in documents])

    def _require(self, i: int) -> None:
        if not 0 <= i < self._count:
            raise IndexError(f"document {i} of {self._count}")

    def _make_block(self, block: int) -> list[str]:
        start = block * BLOCK
        return self._source.texts(range(self._first + start, self._first + min(start + BLOCK, self._count)))


@dataclasses.dataclass(frozen=True)
class WordChainCorpus:
    """The source as a corpus with two splits: validation is its first documents, train those that follow.

    So more training documents are the same and further ones, and nothing is stored but what becomes tokens. `fingerprint` is a hash of
    the parameters, which decide every letter.
    """

    chain: WordChain

    @property
    def fingerprint(self) -> str:
        return digest("word_chain", VERSION, dataclasses.asdict(self.chain))

    @property
    def info(self) -> dict:
        documents = {"train": self.chain.train_documents, "validation": self.chain.validation_documents}
        return {"corpus": "word_chain", "version": str(VERSION), "documents": documents, "chain": dataclasses.asdict(self.chain)}

    def split(self, name: str) -> Documents:
        if name not in self.info["documents"]:
            raise UserError(f"a corpus has the splits train and validation, not {name!r}")
        first = 0 if name == "validation" else self.chain.validation_documents
        return Documents(self._source, first, self.info["documents"][name])

    @functools.cached_property
    def _source(self) -> WordChainSource:
        return WordChainSource(self.chain)


def prepare(chain: WordChain) -> WordChainCorpus:
    """Returns the corpus of a chain at once, for it is generated as it is read. Raises UserError for parameters out of range."""
    require(chain)
    return WordChainCorpus(chain)
