"""Weighted mixtures of corpora with exact counts, and the rows of an epoch (imports neither jax nor grain)."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from lm.data import packing
from lm.data.config import DataConfig
from lm.data.store import digest, shuffled
from lm.data.tokens import TokenCache
from lm.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """One corpus of the mixture: its training documents and its share of the tokens (shares sum to 1)."""

    cache: TokenCache
    fingerprint: str  # of the corpus, not of its tokens: the order of the documents is the same under every tokenizer
    share: float

    @functools.cached_property
    def order(self) -> np.ndarray:
        """The documents in a fixed shuffled order. A budget of unique tokens takes a prefix, so that smaller budgets are subsets."""
        return shuffled(len(self.cache), "order of documents", self.fingerprint)

    def documents(self, unique_tokens: float | None) -> np.ndarray:
        """Returns the first documents, in the fixed order, that together hold at least `unique_tokens` (None: all)."""
        if unique_tokens is None:
            return self.order
        held = np.cumsum(self.cache.lengths[self.order])
        if held[-1] < unique_tokens:
            raise UserError(
                f"data.unique_tokens asks a corpus for {unique_tokens:,.0f} tokens but it holds {held[-1]:,};"
                " lower --config.data.unique_tokens or add text"
            )
        return self.order[: 1 + int(np.searchsorted(held, unique_tokens))]


class Mixture:
    """Rows of `length` tokens from several sources.

    An epoch of the mixture is the most rows that can be had in the given shares before any source repeats a row. Exactly `counts`
    [sources] rows of it come from each source. Every source has epochs of its own: a row left out of one epoch of the mixture comes
    first in the next. With padded rows a source's rows are weighted by the tokens they hold.
    """

    def __init__(self, sources: Sequence[Source], config: DataConfig):
        self.sources, self.length, self.algorithm = tuple(sources), config.sequence_length, config.packing
        budgets = [None if config.unique_tokens is None else config.unique_tokens * source.share for source in sources]
        self.documents = [source.documents(budget) for source, budget in zip(sources, budgets, strict=True)]
        lengths = [source.cache.lengths[chosen] for source, chosen in zip(sources, self.documents, strict=True)]
        self.rows = np.asarray([packing.count_rows(each, self.length, self.algorithm) for each in lengths])
        if (self.rows == 0).any():
            raise UserError(f"a corpus holds fewer tokens than one row of {self.length}; add text or lower --config.data.sequence_length")
        tokens = np.asarray([each.sum() for each in lengths])
        self.tokens_per_row = np.full(len(sources), float(self.length)) if self.algorithm == "concatenate" else tokens / self.rows
        wanted = np.asarray([source.share for source in sources]) / self.tokens_per_row
        self.counts = _counts(self.rows, wanted / wanted.sum())
        self.first = np.concatenate([[0], np.cumsum(self.counts)])  # of each source's rows in an unshuffled epoch

    @property
    def rows_per_epoch(self) -> int:
        return int(self.first[-1])

    @property
    def tokens_per_epoch(self) -> int:
        """Document tokens that an epoch trains on; exact for concatenation, a mean for padded rows of a mixture."""
        return round(float(self.counts @ self.tokens_per_row))

    def locate(self, epochs: np.ndarray, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns (source, epoch of that source, row of that source's plan) of slots in the mixture's epochs, each int64 [rows]."""
        source = np.searchsorted(self.first, slots, side="right") - 1
        row = epochs * self.counts[source] + slots - self.first[source]
        return source, row // self.rows[source], row % self.rows[source]

    def plan_key(self, source: int, seed: int, epoch: int) -> str:
        """Returns the hash of everything that a plan depends on."""
        cache, documents = self.sources[source].cache, len(self.documents[source])
        return digest("plan", 1, cache.fingerprint, documents, self.length, self.algorithm, seed, epoch)

    def plan(self, source: int, seed: int, epoch: int) -> packing.Plan:
        """Returns the rows of one epoch of one source: its documents, in an order that depends on (seed, epoch), packed."""
        key, chosen, cache = self.plan_key(source, seed, epoch), self.documents[source], self.sources[source].cache
        chosen = chosen[shuffled(len(chosen), "documents", key)]
        plan = packing.ALGORITHMS[self.algorithm](cache.starts[chosen], cache.starts[chosen + 1] - cache.starts[chosen], self.length)
        return packing.reordered(plan, shuffled(len(plan), "rows", key)) if self.algorithm == "best_fit" else plan


def _counts(rows: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Returns the rows from each source in an epoch: the largest total, split by `apportion`, for which no source repeats a row."""
    total = int(np.floor((rows / shares).min() * (1 + 1e-12)))
    while (apportion(total, shares) > rows).any():
        total -= 1
    if total == 0 or (apportion(total, shares) == 0).any():
        raise UserError("a corpus of the mixture is too small for its weight: no row of it fits in an epoch; change the weights")
    return apportion(total, shares)


def apportion(total: int, shares: np.ndarray) -> np.ndarray:
    """Returns whole numbers that sum to `total` and lie within 1 of total x shares (largest remainders first; ties to the first)."""
    exact = total * shares
    whole = np.floor(exact + 1e-9).astype(np.int64)
    whole[np.argsort(whole - exact, kind="stable")[: total - int(whole.sum())]] += 1
    return whole


def shares(config: DataConfig) -> list[float]:
    """Returns the weights of the components, scaled to sum to 1. Raises UserError unless all are positive."""
    weights = [component.weight for component in config.components]
    if not weights or not all(weight > 0 and np.isfinite(weight) for weight in weights):
        raise UserError("data.components needs at least one component, each with a positive weight")
    return [weight / sum(weights) for weight in weights]


def require_unique(config: DataConfig, rows: int, rows_per_epoch: int) -> None:
    """Raises UserError if a run of `rows` rows would see a token twice and may not."""
    if rows > rows_per_epoch and not config.allow_epochs:
        raise UserError(
            f"the run needs {rows:,} rows of {config.sequence_length} tokens but the corpus has {rows_per_epoch:,};"
            f" set --config.train_tokens={rows_per_epoch * config.sequence_length} or less, add text, or set"
            " --config.data.allow_epochs=true"
        )
