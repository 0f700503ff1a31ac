"""From batches on the host to blocks of them on the devices."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import jax
import numpy as np

from lm.types import Batch


class Stream(Protocol):
    """What training needs of the data (lm.data.pipeline.TrainStream)."""

    def iterate(self, start: int, stop: int) -> Iterable[Batch]: ...
    def document_tokens(self, start: int, stop: int) -> int: ...


def to_device(batches: Sequence[Batch], most: int, shardings: Batch) -> Batch:
    """One array per field with the leading axis `most`, in its shards; rows past the batches are zero.

    The memory is new at each call: on a CPU the device keeps it as it is, without a copy.
    """

    def stack(*arrays: np.ndarray) -> np.ndarray:
        block = np.zeros((most, *arrays[0].shape), arrays[0].dtype)
        for row, array in zip(block, arrays, strict=False):
            row[...] = array
        return block

    return jax.device_put(jax.tree.map(stack, *batches), shardings)
