"""Lays out pairs (inputs, targets) as the rows of a Batch, by architecture.

inputs a b .   targets x y .            (. ends a sequence; `start`, by default the same id, is every stream's first input)

encoder_decoder   encoder  a b .                   decoder      tokens  . a b . x y      tokens of one segment
                  tokens   . x y                   prefix_lm    targets       x y .      at predict 3 4 5
                  targets  x y .                                prefix  1 1 1 1 0 0      prefix_lm only
"""

import dataclasses
from typing import Optional

import numpy as np

from lm.data.objectives.examples import Examples
from lm.data.objectives.ragged import Ragged, group_before, join
from lm.rows import RowShape
from lm.types import Batch


@dataclasses.dataclass(frozen=True, eq=False)
class Placed:
    """The places of the values of sequences in `count` rows of `width`."""

    at: np.ndarray  # [total]: an index into the flattened rows
    segments: np.ndarray  # [total]: the number of their sequence in its row, from 1
    positions: np.ndarray  # [total]
    count: int
    width: int

    def fill(self, values: np.ndarray, background: float = 0, dtype: type = np.int32) -> np.ndarray:
        """Returns the values at their places: [count, width]."""
        rows: np.ndarray = np.full(self.count * self.width, background, dtype)
        rows[self.at] = values
        return rows.reshape(self.count, self.width)


def place(sequences: Ragged, rows: np.ndarray, count: int, width: int) -> Placed:
    """Places sequences back to back in their rows; `rows` [n], sorted, are below `count`."""
    start = rows * width + group_before(sequences.lengths, rows)
    number = 1 + group_before(np.ones(len(rows), np.int64), rows)
    owner = sequences.owner
    return Placed(start[owner] + sequences.position, number[owner], sequences.position, count, width)


def shifted(sequences: Ragged, first: int) -> np.ndarray:
    """Returns the value before each, `first` before those that open a sequence: [total]."""
    values = np.empty_like(sequences.values)
    values[1:] = sequences.values[:-1]
    values[sequences.position == 0] = first
    return values


def encoder_decoder(examples: Examples, shape: RowShape, start: int, pad: int) -> Batch:
    """Lays out the rows of an encoder-decoder: inputs in one stream, targets in the other."""
    targets, count = examples.targets, examples.count
    decoder = place(targets, examples.rows, count, shape.length)
    encoder = place(examples.inputs, examples.rows, count, shape.encoder_length)
    return Batch(
        tokens=decoder.fill(shifted(targets, start), pad),
        targets=decoder.fill(targets.values, pad),
        weights=decoder.fill(np.ones(len(targets.values)), 0, np.float32),
        segments=decoder.fill(decoder.segments),
        positions=decoder.fill(decoder.positions),
        encoder_tokens=encoder.fill(examples.inputs.values, pad),
        encoder_segments=encoder.fill(encoder.segments),
        encoder_positions=encoder.fill(encoder.positions),
    )


def causal(examples: Examples, shape: RowShape, start: int, pad: int) -> Batch:
    """Lays out the rows of a decoder or, with the field `prefix`, a prefix LM. Without the field `predict` inputs are predicted too."""
    sequences = join(examples.inputs, examples.targets)
    row = place(sequences, examples.rows, examples.count, shape.length)
    split = examples.inputs.lengths[sequences.owner]
    prefix = row.fill(sequences.position <= split) if "prefix" in shape.fields else None
    predict: Optional[np.ndarray] = None
    out, targets = row, sequences.values
    if shape.predicted is not None:
        out, targets = place(examples.targets, examples.rows, examples.count, shape.predicted), examples.targets.values
        predict = out.fill((row.at % shape.length)[sequences.position >= split])
    return Batch(
        tokens=row.fill(shifted(sequences, start), pad),
        targets=out.fill(targets, pad),
        weights=out.fill(np.ones(len(targets)), 0, np.float32),
        segments=row.fill(row.segments),
        positions=row.fill(row.positions),
        prefix=prefix,
        predict=predict,
    )
