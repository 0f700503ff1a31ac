"""Rows of a plan -> one Batch, for every objective and architecture.

plan's rows -> chunks -> pairs (inputs, targets) -> fitted to the row -> Batch
"""

import dataclasses
import functools
from typing import Protocol

import numpy as np

from lm.data.config import DataConfig
from lm.data.objectives import bart, causal, fim, layout, masked, pairs, prefix, spans
from lm.data.objectives import config as C
from lm.data.objectives.draws import Draws
from lm.data.objectives.layout import Examples
from lm.data.objectives.ragged import Ragged, group_before, single
from lm.data.objectives.shape import Room, require, room, row_shape
from lm.data.objectives.special import SpecialIds
from lm.data.packing import Plan
from lm.data.splitmix import advance
from lm.data.tokenizer import Tokenizer
from lm.rows import RowShape
from lm.types import Batch


class RowMaker(Protocol):
    """(flat tokens, plan, rows of the plan, one key for each row) -> Batch."""

    def __call__(self, flat: np.ndarray, plan: Plan, rows_B: np.ndarray, keys_B: np.ndarray) -> Batch: ...


def row_maker(config: DataConfig, architecture: str, tokenizer: Tokenizer, vocab_size: int) -> RowMaker:
    """How a run's rows are made. Raises UserError as `row_shape` does."""
    require(config, architecture)
    if isinstance(config.objective, C.NextToken):
        pad = tokenizer.pad_id
        return lambda flat, plan, rows_B, keys_B: causal.next_token(flat, plan, rows_B, pad)
    return Rows(config, architecture, SpecialIds(tokenizer, config.objective, vocab_size))


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Rows of every objective but next-token prediction."""

    config: DataConfig
    architecture: str
    ids: SpecialIds

    @functools.cached_property
    def shape(self) -> RowShape:
        return row_shape(self.config, self.architecture)

    @functools.cached_property
    def room(self) -> Room:
        return room(self.config)

    def __call__(self, flat: np.ndarray, plan: Plan, rows_B: np.ndarray, keys_B: np.ndarray) -> Batch:
        if isinstance(self.config.objective, C.MaskedLM):
            return self._masked(flat, plan, rows_B, keys_B)
        examples = self.examples(flat, plan, rows_B, keys_B)
        if isinstance(self.config.objective, C.FillInTheMiddle):
            return layout.causal(examples, self.shape, self.ids.eos, self.ids.pad)
        examples = layout.fit(examples, self.room)
        lay_out = layout.encoder_decoder if self.architecture == "encoder_decoder" else layout.causal
        return lay_out(examples, self.shape, self.ids.eos, self.ids.pad)

    def examples(self, flat: np.ndarray, plan: Plan, rows_B: np.ndarray, keys_B: np.ndarray) -> Examples:
        """The pairs of some rows, before they are fitted to the row."""
        objective, ids = self.config.objective, self.ids
        if isinstance(objective, (C.FillInTheMiddle, C.Pairs)):
            pieces, rows, draws = cut(flat, plan, rows_B, keys_B, plan.length, isolated=True, shortest=1)
            if isinstance(objective, C.Pairs):
                assert isinstance(ids.tokenizer, pairs.PairTokenizer)
                inputs, targets = pairs.split(pieces, ids.tokenizer.separator_id, ids.eos)
            else:
                targets = fim.permute(objective, pieces, rows, draws, ids)
                inputs = single(0, np.zeros(len(targets), bool))
        else:
            assert not isinstance(objective, (C.NextToken, C.MaskedLM))
            size = plan.length // objective.examples_per_row
            chunks, rows, draws = cut(flat, plan, rows_B, keys_B, size, objective.documents == "isolated", shortest=2)
            inputs, targets = corrupted(objective, chunks, draws, ids)
        return Examples(inputs, targets, rows, len(rows_B))

    def _masked(self, flat: np.ndarray, plan: Plan, rows_B: np.ndarray, keys_B: np.ndarray) -> Batch:
        objective = self.config.objective
        assert isinstance(objective, C.MaskedLM)
        size = plan.length // objective.examples_per_row
        chunks, rows, draws = cut(flat, plan, rows_B, keys_B, size, False, 2)
        others = chunks
        if objective.next_sentence:
            distance = 1 + Draws(keys_B).integers("other", np.full(len(rows_B), len(plan) - 1))
            others = _at_the_same_places(chunks, rows, size, flat, plan, (rows_B + distance) % len(plan), distance < len(plan))
        return masked.batch(objective, chunks, others, rows, len(rows_B), draws, self.ids, self.shape)


def _at_the_same_places(
    chunks: Ragged, rows: np.ndarray, size: int, flat: np.ndarray, plan: Plan, other_B: np.ndarray, real_B: np.ndarray
) -> Ragged:
    """For each chunk, what lies at its places in another row; nothing where that has padding there, or where `real_B` is false."""
    index_BT, segments_BT, _ = plan.gather(other_B)
    first = group_before(np.ones(len(rows), np.int64), rows) * size
    at = rows[chunks.owner], first[chunks.owner] + chunks.place
    padded = np.bincount(chunks.owner, weights=segments_BT[at] == 0, minlength=len(chunks)) > 0
    taken = Ragged(flat.take(index_BT[at]).astype(np.int64), chunks.lengths)
    return taken.part(np.zeros_like(chunks.lengths), np.where(real_B[rows] & ~padded, chunks.lengths, 0))


def corrupted(objective: C.Objective, chunks: Ragged, draws: Draws, ids: SpecialIds) -> tuple[Ragged, Ragged]:
    """(inputs, targets) of chunks of 2 tokens or more."""
    if isinstance(objective, C.PrefixLM):
        return prefix.split(chunks, draws)
    if isinstance(objective, C.Denoising):
        return spans.denoising(objective, chunks, draws, ids)
    if isinstance(objective, C.SpanCorruption):
        return spans.span_corruption(objective, chunks, draws, ids)
    if isinstance(objective, C.MixtureOfDenoisers):
        return spans.mixture(objective, chunks, draws, ids)
    assert isinstance(objective, C.BartNoise)
    return bart.noise(objective, chunks, draws, ids)


def cut(
    flat: np.ndarray, plan: Plan, rows_B: np.ndarray, keys_B: np.ndarray, size: int, isolated: bool, shortest: int
) -> tuple[Ragged, np.ndarray, Draws]:
    """(chunks, the row of each, their draws): rows cut every `size` tokens and, if `isolated`, between documents.

    Padding and chunks of fewer than `shortest` tokens are left out. A chunk's key follows from its row's and its place in the row.
    """
    index_BT, segments_BT, positions_BT = plan.gather(rows_B)
    real_BT = segments_BT > 0
    opens_BT = np.broadcast_to(np.arange(plan.length) % size == 0, index_BT.shape)
    if isolated:
        opens_BT = opens_BT | (positions_BT == 0)
    at = np.flatnonzero((opens_BT & real_BT)[real_BT])
    tokens = flat.take(index_BT[real_BT]).astype(np.int64)
    place = np.flatnonzero(real_BT)[at]
    chunks, rows = Ragged(tokens, np.diff(np.append(at, len(tokens)))), place // plan.length
    long_enough = chunks.lengths >= shortest
    keys = advance(keys_B[rows], place % plan.length)
    return chunks.select(long_enough), rows[long_enough], Draws(keys[long_enough])
