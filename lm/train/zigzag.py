"""The zigzag order of a sequence over the devices of context parallelism, in which a causal mask gives every device the same work.

The loader cuts a row into 2 W chunks for W devices, and device i holds chunks i and 2 W - 1 - i (Brandon et al. 2023; Llama 3's form:
Grattafiori et al. 2024, section 3.3.2). With W = 2, of a row of 8 tokens, the devices hold

    device 0   0 1 6 7        device 1   2 3 4 5

Nothing reads an array index: positions and segments travel with their tokens, `original_index` is each token's index before the
permutation, and `predict` and `sequence_positions` hold indices of the permuted row.
"""

import dataclasses
from typing import Any

import numpy as np

from lm.rows import RowShape
from lm.types import Batch

ENCODER = "encoder_"
POINTERS = ("predict", "sequence_positions")  # their values are indices in the row
PER_SEQUENCE = ("labels", "label_weights")  # one for each of `sequence_positions`
PER_PREDICTION = ("targets", "weights")  # one for each of `predict`, or for each token where there is none


def zigzag(length: int, ways: int) -> np.ndarray:
    """Returns int32 [length]: the index in the row of the token at each index of the permuted row. `length` is a multiple of 2 ways."""
    if length % (2 * ways):
        raise ValueError(f"a row of {length} positions is no multiple of {2 * ways}")
    chunks = np.arange(length, dtype=np.int32).reshape(2 * ways, -1)
    order = [chunk for i in range(ways) for chunk in (i, 2 * ways - 1 - i)]
    return chunks[order].ravel()


def fields(row: RowShape) -> tuple[str, ...]:
    """Names the optional fields of Batch that a permuted batch of such rows has."""
    return (*row.fields, "original_index", *(("encoder_original_index",) if row.encoder_length else ()))


def permute(batch: Batch, ways: int) -> Batch:
    """Returns the batch with its rows, and its encoder's rows, in zigzag order for `ways` devices; the same batch for one."""
    if ways == 1:
        return batch
    order = zigzag(batch.tokens.shape[1], ways)
    original = {"original_index": np.broadcast_to(order, batch.tokens.shape)}
    encoder_order = order
    if batch.encoder_tokens is not None:
        encoder_order = zigzag(batch.encoder_tokens.shape[1], ways)
        original["encoder_original_index"] = np.broadcast_to(encoder_order, batch.encoder_tokens.shape)
    new_index = np.argsort(order).astype(np.int32)  # of the token that was at each index
    whole = PER_SEQUENCE if batch.predict is None else (*PER_SEQUENCE, *PER_PREDICTION)

    def moved(name: str, values: Any) -> Any:
        if values is None or name in whole:
            return values
        if name in POINTERS:
            return new_index[values]
        return values[:, encoder_order if name.startswith(ENCODER) else order]

    return dataclasses.replace(batch, **{name: moved(name, values) for name, values in vars(batch).items()} | original)
