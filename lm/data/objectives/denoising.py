"""T5's two ways of dropping tokens.

chunk     Thank you for inviting me to your party last week
inputs    Thank you <X> me to your party <Y> week .             (. the end of document)
targets   <X> for inviting <Y> last <Z> .                       the final <Z> under i.i.d. denoising only
"""

import dataclasses
import math
from typing import Any, ClassVar, Union

import numpy as np

from lm.data.objectives.base import Documents, Objective, SpecialIds, Spread, exactly
from lm.data.objectives.draws import Draws
from lm.data.objectives.ragged import Ragged, before, join, ranks, single
from lm.data.own_ids import OwnIds
from lm.errors import UserError

Number = Union[float, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Denoising(Objective):
    """T5's i.i.d. denoising, the baseline of its table of architectures (Raffel et al. 2020, section 3.1.4).

    Each token is dropped with probability `noise_density`; a run of dropped tokens leaves one sentinel in the inputs. The targets are each
    sentinel and its run, and one final sentinel. Both end in the end-of-document id. Sentinels are the
    tokenizer's own, or V-1, V-2, ... of a vocabulary V.
    """

    name: ClassVar[str] = "denoising"

    noise_density: float = 0.15  # share of the tokens that is dropped
    sentinels: int = 100  # ids kept for sentinels; runs beyond the last one stay undropped
    examples_per_row: int = 1  # equal chunks that a row is cut into
    documents: Documents = "joined"  # whether a chunk joins documents, or is cut where one ends
    loss_on_inputs: bool = False  # whether a decoder predicts the inputs too

    def special_ids(self, own: OwnIds) -> int:
        return 0 if own.sentinels else self.sentinels

    def require_options(self, chunk: int) -> None:
        self.require_between_0_and_1("noise_density", ends=False)
        require_sentinels(self, chunk)

    def needed_sentinels(self, chunk: int) -> int:
        """Returns a number that 4 standard deviations of the runs and the final sentinel fit in."""
        both = self.lengths(chunk)[2]  # chunk + 3 and two for each run
        return math.ceil((both.mean - chunk - 3 + 4 * both.deviation) / 2) + 1

    def lengths(self, chunk: int) -> tuple[Spread, Spread, Spread]:
        """Returns the lengths of inputs, n - C + 1, and of targets, 2 D - C + 2, and their sum.

        D of the n tokens of a chunk are dropped, and C of these follow a dropped one.
        """
        n, p = chunk, self.noise_density
        dropped, follow = n * p * (1 - p), (n - 1) * (p**2 * (1 - p**2) + 2 * p**3 * (1 - p))  # variances
        covariance = 2 * (n - 1) * p**2 * (1 - p)
        mean_follow = (n - 1) * p**2
        return (
            Spread(n - mean_follow + 1, math.sqrt(follow), n + 1),
            Spread(2 * n * p - mean_follow + 2, math.sqrt(4 * dropped + follow - 4 * covariance), n + 3),
            Spread(n + 3 + 2 * (n * p - mean_follow), 2 * math.sqrt(dropped + follow - 2 * covariance), n + 3 + 2 * -(-n // 2)),
        )

    def pairs(self, chunks: Ragged, draws: Draws, ids: SpecialIds, rows: np.ndarray) -> tuple[Ragged, Ragged]:
        noise = draws.values("drop", chunks) < self.noise_density
        noise &= runs(noise, chunks)[1] < ids.count_of_sentinels(self.sentinels) - 1
        first, ordinal = runs(noise, chunks)
        inputs, targets = around(noise, first, ordinal, chunks, ids)
        every = np.ones(len(chunks), bool)
        count = np.bincount(chunks.owner[first], minlength=len(chunks))
        end = single(ids.eos, every)
        return join(inputs, end), join(targets, single(ids.sentinel(count), every), end)

    def blank(self, number: int, ids: SpecialIds) -> int:
        return int(ids.sentinel(number)) if number < ids.count_of_sentinels(self.sentinels) else super().blank(number, ids)


@dataclasses.dataclass(frozen=True)
class SpanCorruption(Objective):
    """T5's span corruption (Raffel et al. 2020, section 3.3.4): noise_density x n tokens in that / mean_span spans, exactly.

    Each span leaves a sentinel in the inputs, and the targets are each sentinel and its span. Both end in the end-of-document id.
    Sentinels are the
    tokenizer's own, or V-1, V-2, ... of a vocabulary V.
    """

    name: ClassVar[str] = "span_corruption"

    noise_density: float = 0.15  # share of the tokens that is dropped
    mean_span: float = 3.0  # mean tokens of a span
    sentinels: int = 100  # ids kept for sentinels, one for each span of a chunk
    examples_per_row: int = 1  # equal chunks that a row is cut into
    documents: Documents = "joined"  # whether a chunk joins documents, or is cut where one ends
    loss_on_inputs: bool = False  # whether a decoder predicts the inputs too

    def special_ids(self, own: OwnIds) -> int:
        return 0 if own.sentinels else self.sentinels

    def require_options(self, chunk: int) -> None:
        self.require_between_0_and_1("noise_density", ends=False)
        require_mean_span(self.name, self.mean_span)
        require_sentinels(self, chunk)

    def needed_sentinels(self, chunk: int) -> int:
        return int(span_counts(chunk, self.noise_density, self.mean_span)[1])

    def lengths(self, chunk: int) -> tuple[Spread, Spread, Spread]:
        inputs, targets = span_lengths(chunk, self.noise_density, self.mean_span)
        return exactly(inputs), exactly(targets), exactly(inputs + targets)

    def pairs(self, chunks: Ragged, draws: Draws, ids: SpecialIds, rows: np.ndarray) -> tuple[Ragged, Ragged]:
        noise = span_noise(chunks, *span_counts(chunks.lengths, self.noise_density, self.mean_span), draws)
        inputs, targets = around(noise, *runs(noise, chunks), chunks, ids)
        end = single(ids.eos, np.ones(len(chunks), bool))
        return join(inputs, end), join(targets, end)

    def blank(self, number: int, ids: SpecialIds) -> int:
        return int(ids.sentinel(number)) if number < ids.count_of_sentinels(self.sentinels) else super().blank(number, ids)


def require_sentinels(objective: Any, chunk: int) -> None:
    """Raises UserError if a chunk may need more sentinels than the objective keeps."""
    needed = objective.needed_sentinels(chunk)
    if needed > objective.sentinels:
        raise UserError(
            f"chunks of {chunk} tokens need {needed} sentinels;"
            f" set --config.data.objective.sentinels={needed} for objective {objective.name}, or shorten the chunks"
        )


def require_mean_span(name: str, mean_span: float) -> None:
    """Raises UserError for spans so short that there would be more of them than tokens."""
    if mean_span < 0.5:
        raise UserError(f"mean_span of objective {name} must be 0.5 or more")


def span_counts(length: Number, density: Number, mean_span: Number) -> tuple[np.ndarray, np.ndarray]:
    """Returns (noise tokens, noise spans) of T5's span corruption of `length` >= 2 tokens, int64.

    In float32 with ties to even, as T5's TensorFlow code rounds: 70 tokens have 10 of noise, 190 have 29 (0.15 x 190 is above 28.5 there).
    """
    exact = np.asarray(length, np.float32) * np.asarray(density, np.float32)
    noise = np.clip(np.round(exact).astype(np.int64), 1, np.asarray(length) - 1)
    spans = np.round(noise.astype(np.float32) / np.asarray(mean_span, np.float32)).astype(np.int64)
    return noise, np.clip(spans, 1, np.minimum(noise, length - noise))


def span_lengths(length: int, density: float, mean_span: float) -> tuple[int, int]:
    """Returns the exact lengths of (inputs, targets) of a chunk under span corruption, their ends included."""
    noise, spans = (int(each) for each in span_counts(length, density, mean_span))
    return length - noise + spans + 1, noise + spans + 1


def span_noise(chunks: Ragged, noise: np.ndarray, spans: np.ndarray, draws: Draws) -> np.ndarray:
    """Draws which tokens are noise, bool [total]: `noise` [n] of each chunk in `spans` [n] spans.

    Spans alternate with as many others, one without noise first. The lengths of either kind are a uniformly drawn partition into
    non-empty parts.
    """
    text = _partition(chunks.lengths - noise, spans, draws, "text")
    dropped = _partition(noise, spans, draws, "noise")
    lengths = np.stack([text, dropped], axis=1).ravel()
    return np.repeat(np.tile([False, True], len(text)), lengths)


def _partition(items: np.ndarray, parts: np.ndarray, draws: Draws, stream: str) -> np.ndarray:
    """Draws the lengths of the parts of each sequence, int64 [sum of parts]. Cuts lie at parts-1 of the items-1 inner places."""
    places = Ragged(np.empty(int((items - 1).sum()), bool), items - 1)
    cut = ranks(draws.values(stream, places), places) < (parts - 1)[places.owner]
    starts = before(items)
    begins = np.sort(np.concatenate([starts, (starts[places.owner] + places.position + 1)[cut]]))
    return np.diff(np.append(begins, items.sum()))


def runs(noise: np.ndarray, chunks: Ragged) -> tuple[np.ndarray, np.ndarray]:
    """Returns (whether a token opens a run of noise, the number of the run that it opens or that was open last in its chunk, from 0)."""
    first = noise.copy()
    first[1:] &= ~noise[:-1] | (chunks.position[1:] == 0)
    opened = np.cumsum(first)
    base = (opened - first)[np.minimum(chunks.starts, max(len(opened) - 1, 0))] if len(opened) else chunks.starts
    return first, opened - base[chunks.owner] - 1


def around(noise: np.ndarray, marked: np.ndarray, ordinal: np.ndarray, chunks: Ragged, ids: SpecialIds) -> tuple[Ragged, Ragged]:
    """Returns (inputs, targets): the rest with a sentinel for each run that begins at a `marked` token, and each sentinel with its run."""
    sentinels = ids.sentinel(ordinal)
    inputs = chunks.with_values(np.where(marked, sentinels, chunks.values)).keep(~noise | marked)
    copies = noise.astype(np.int64) + marked  # a marked token follows its sentinel
    values = np.repeat(chunks.values, copies)
    at = before(copies)[marked]
    values[at] = np.asarray(sentinels)[marked]
    lengths = np.bincount(chunks.owner, weights=copies, minlength=len(chunks)).astype(np.int64)
    return inputs, Ragged(values, lengths)
