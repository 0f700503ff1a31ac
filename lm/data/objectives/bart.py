"""BART's noise (Lewis et al. 2020, section 2.2)."""

import dataclasses
import functools
import math
from typing import ClassVar

import numpy as np

from lm.data.objectives.base import Documents, Objective, SpecialIds, Spread, exactly
from lm.data.objectives.denoising import require_mean_span
from lm.data.objectives.draws import Draws
from lm.data.objectives.ragged import Ragged, join, single
from lm.data.own_ids import OwnIds


@dataclasses.dataclass(frozen=True)
class BartNoise(Objective):
    """BART's noise (Lewis et al. 2020); the targets are the whole chunk.

    It is applied in this order: sentences permuted, the document rotated, tokens deleted, spans infilled. The defaults are BART's final
    choice, infilling and permutation. A sentence ends with a token whose text ends in one of `sentence_ends`, and with a document.
    Of a vocabulary V the mask is V-1 where the tokenizer has none.
    """

    name: ClassVar[str] = "bart"

    infilling: float = 0.3  # share of the tokens that lie in spans which one mask each replaces; 0: none
    mean_span: float = 3.0  # mean tokens of a span, by a Poisson law; spans of length 0 insert a mask
    deletion: float = 0.0  # probability that a token is deleted
    permute_sentences: bool = True  # whether sentences are put in a random order
    rotation: float = 0.0  # probability that a chunk is turned to begin at a token drawn uniformly
    sentence_ends: tuple[str, ...] = (".",)  # a token whose text ends in one of these ends a sentence
    examples_per_row: int = 1  # equal chunks that a row is cut into
    documents: Documents = "joined"  # whether a chunk joins documents, or is cut where one ends
    loss_on_inputs: bool = False  # whether a decoder predicts the inputs too
    opened: bool = False  # whether inputs and targets begin with the tokenizer's own sign of a beginning, as facebook/bart's with <s>

    def special_ids(self, own: OwnIds) -> int:
        return int(own.mask is None)

    def require_options(self, chunk: int) -> None:
        self.require_between_0_and_1("infilling", "deletion", "rotation", ends=True)
        require_mean_span(self.name, self.mean_span)  # as many spans are drawn as the mean asks for

    def lengths(self, chunk: int) -> tuple[Spread, Spread, Spread]:
        """Counts spans as a renewal process: Poisson(m) steps cross k after about k/m + 1 of them, with variance k/m^2."""
        n, masked = chunk, round(chunk * self.infilling)
        spans = masked / self.mean_span + 1 if masked else 0.0
        keep, removed = 1 - self.deletion, n * self.deletion * (1 - self.deletion)
        deviation = math.sqrt((math.sqrt(masked) / self.mean_span + 0.5 * (masked > 0)) ** 2 + removed)
        around = 1 + self.opened
        most = n - masked + most_spans(masked, self.mean_span) + around
        inputs = Spread((n - masked) * keep + spans + around, deviation, most)
        return inputs, exactly(n + around), Spread(inputs.mean + n + around, deviation, most + n + around)

    def pairs(self, chunks: Ragged, draws: Draws, ids: SpecialIds, rows: np.ndarray) -> tuple[Ragged, Ragged]:
        """Returns (the chunk with noise, the chunk), both with the end-of-document id at their end, and opened if so asked for."""
        noisy = chunks
        if self.permute_sentences:
            noisy = permute_sentences(noisy, draws, closing_tokens(ids, self.sentence_ends))
        if self.rotation:
            noisy = rotate(noisy, self.rotation, draws)
        if self.deletion:
            noisy = noisy.keep(draws.values("delete", noisy) >= self.deletion)
        if self.infilling:
            noisy = infill(noisy, self.infilling, self.mean_span, draws, ids.mask)
        every = np.ones(len(chunks), bool)
        begin, end = [single(i, every) for i in self.opening(ids.tokenizer)], single(ids.eos, every)
        return join(*begin, noisy, end), join(*begin, chunks, end)

    def blank(self, number: int, ids: SpecialIds) -> int:
        return ids.mask


@functools.lru_cache(maxsize=4)  # reading a vocabulary token by token takes longer than making a batch
def closing_tokens(ids: SpecialIds, sentence_ends: tuple[str, ...]) -> np.ndarray:
    """Returns which tokens close a sentence: bool [vocab_size]."""
    texts = [ids.tokenizer.decode([i]) for i in range(ids.tokenizer.vocab_size)]
    closes = np.zeros(ids.vocab_size, bool)
    closes[: len(texts)] = [bool(sentence_ends) and text.endswith(sentence_ends) for text in texts]
    closes[ids.eos] = True
    return closes


def permute_sentences(chunks: Ragged, draws: Draws, closing: np.ndarray) -> Ragged:
    """Puts sentences in a random order. `closing` [vocab_size]: tokens that close one; what follows the last is a sentence too."""
    closes = closing[chunks.values]
    closed = np.cumsum(closes) - closes
    sentence = closed - closed[np.minimum(chunks.starts, max(len(closed) - 1, 0))][chunks.owner]
    turn = draws.at("sentence", chunks.owner, sentence)
    return chunks.with_values(chunks.values[np.lexsort((chunks.position, turn, chunks.owner))])


def rotate(chunks: Ragged, probability: float, draws: Draws) -> Ragged:
    """Turns some chunks: each begins at a token drawn uniformly, and its beginning follows its end."""
    by = np.where(draws.each("rotate") < probability, draws.integers("begin", chunks.lengths), 0)
    place = (chunks.position + by[chunks.owner]) % np.maximum(chunks.lengths, 1)[chunks.owner]
    return chunks.with_values(chunks.values[chunks.starts[chunks.owner] + place])


def infill(chunks: Ragged, share: float, mean_span: float, draws: Draws, mask_id: int) -> Ragged:
    """Replaces spans that hold `share` of the tokens by one mask each.

    Lengths are drawn from a Poisson law until their sum reaches the share, the last one cut to it; a span of length 0 inserts a mask.
    Each span lies in a gap between (or beside) tokens that stay, drawn uniformly with repetition.
    """
    lengths, real = poisson_spans(np.round(chunks.lengths * share).astype(np.int64), mean_span, draws)
    stay = chunks.lengths - lengths.sum(axis=1)
    gaps = np.floor(draws.table("gap", real.shape[1]) * (stay + 1)[:, None])
    gaps = np.sort(np.where(real, gaps, np.inf), axis=1)  # the drawn spans come first in both tables
    owner, ordinal = np.nonzero(real)
    gap = gaps[real].astype(np.int64)
    begin = chunks.starts[owner] + gap + (np.cumsum(lengths, axis=1) - lengths)[real]
    steps = np.bincount(begin, minlength=len(chunks.values) + 1) - np.bincount(begin + lengths[real], minlength=len(chunks.values) + 1)
    kept = chunks.keep(np.cumsum(steps)[:-1] == 0)
    sizes = stay + real.sum(axis=1)
    values = np.full(int(sizes.sum()), mask_id, np.int64)
    is_mask = np.zeros(len(values), bool)
    is_mask[(np.cumsum(sizes) - sizes)[owner] + gap + ordinal] = True
    values[~is_mask] = kept.values
    return Ragged(values, sizes)


def poisson_spans(masked: np.ndarray, mean_span: float, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """Returns (lengths, whether there is such a span), each [n, spans at most]: Poisson lengths that sum to `masked` [n]."""
    sizes, which = np.unique(masked, return_inverse=True)
    most = np.asarray([most_spans(int(each), mean_span) for each in sizes], np.int64)
    width = int(most.max(initial=0))
    lengths = np.searchsorted(poisson_cdf(mean_span), draws.table("length", width), side="right")
    sums = np.cumsum(lengths, axis=1) - lengths
    real = (sums < masked[:, None]) & (np.arange(width) < most[which][:, None])
    return np.where(real, np.minimum(lengths, masked[:, None] - sums), 0), real


def most_spans(masked: int, mean_span: float) -> int:
    """Returns how many spans are drawn at most: 6 standard deviations of the number that a Poisson law needs."""
    return math.ceil(masked / mean_span + 1 + 6 * (math.sqrt(masked) / mean_span + 1)) if masked else 0


def poisson_cdf(mean: float) -> np.ndarray:
    """Returns P(X <= k) for k = 0, 1, ...; numbers beyond the last have probability below 1e-15."""
    most = math.ceil(mean + 10 * math.sqrt(mean) + 20)
    return np.cumsum([math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(most)])
