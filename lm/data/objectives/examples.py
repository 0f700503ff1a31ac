"""Rows of a plan, the chunks of text that they are cut into, and the pairs that are made of these (imports no jax)."""

import dataclasses
from typing import Union

import numpy as np

from lm.data.objectives.draws import Draws
from lm.data.objectives.ragged import Ragged, group_before
from lm.data.packing import Plan
from lm.data.splitmix import advance
from lm.data.token_file import TokenFile
from lm.data.token_shards import TokenShards


@dataclasses.dataclass(frozen=True, eq=False)
class PackedRows:
    """Some rows of a plan, by their numbers, the tokens that the plan points into, and a key of random numbers for each row."""

    flat: Union[TokenFile, TokenShards]  # tokens [total]
    plan: Plan
    rows_B: np.ndarray
    keys_B: np.ndarray  # uint64

    def chunks(self, size: int, isolated: bool, shortest: int) -> tuple[Ragged, np.ndarray, Draws]:
        """Returns (chunks, the row of each, the draws of each): rows cut every `size` tokens and, if `isolated`, between documents.

        Padding and chunks of fewer than `shortest` tokens are left out. A chunk's key follows from its row's and its place in the row.
        """
        length = self.plan.length
        index_BT, segments_BT, positions_BT = self.plan.gather(self.rows_B)
        real_BT = segments_BT > 0
        opens_BT = np.broadcast_to(np.arange(length) % size == 0, index_BT.shape)
        if isolated:
            opens_BT = opens_BT | (positions_BT == 0)
        at = np.flatnonzero((opens_BT & real_BT)[real_BT])
        tokens = self.flat.take(index_BT[real_BT]).astype(np.int64)
        place = np.flatnonzero(real_BT)[at]
        chunks, rows = Ragged(tokens, np.diff(np.append(at, len(tokens)))), place // length
        long_enough = chunks.lengths >= shortest
        keys = advance(self.keys_B[rows], place % length)
        return chunks.select(long_enough), rows[long_enough], Draws(keys[long_enough])


@dataclasses.dataclass(frozen=True)
class Room:
    """The most tokens that a row's pairs may hold: of inputs, of targets, and of both."""

    inputs: int
    targets: int
    total: int
    mean_inputs: float  # tokens that a row's inputs hold on average


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Pairs, and the row that each lies in: `rows` int64 [n], sorted, below `count`."""

    inputs: Ragged
    targets: Ragged
    rows: np.ndarray
    count: int

    def fitted(self, room: Room) -> "Examples":
        """Cuts what exceeds a row's room off the row's end: of the inputs, of the targets, then of both together.

        Of a pair whose inputs have no room nothing is left: a decoder's segment without an encoder's would read other pairs' inputs.
        The same for every architecture, so that all of them see the same pairs.
        """
        inputs = _limited(self.inputs.lengths, self.rows, room.inputs)
        targets = _limited(self.targets.lengths, self.rows, room.targets)
        total = _limited(inputs + targets, self.rows, room.total)
        inputs = np.minimum(inputs, total)
        targets = np.where((inputs == 0) & (self.inputs.lengths > 0), 0, np.minimum(targets, total - inputs))
        return Examples(_cut(self.inputs, inputs), _cut(self.targets, targets), self.rows, self.count)


def _limited(lengths: np.ndarray, rows: np.ndarray, most: int) -> np.ndarray:
    return np.clip(most - group_before(lengths, rows), 0, lengths)


def _cut(sequences: Ragged, lengths: np.ndarray) -> Ragged:
    return sequences if (lengths == sequences.lengths).all() else sequences.part(np.zeros_like(lengths), lengths)
