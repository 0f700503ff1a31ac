"""The random numbers of a sequence, as a function of (its key, the name of a stream, an index)."""

import dataclasses

import numpy as np

from lm.data.objectives.ragged import Ragged
from lm.data.splitmix import advance, mix, uniform
from lm.data.store import seed_of


def row_keys(fingerprint: str, seed: int, epochs: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns one key for each row of each epoch of a run: uint64 [rows]."""
    base = np.full(len(rows), seed_of("noise", fingerprint, seed), np.uint64)
    return advance(advance(base, epochs), rows)


@dataclasses.dataclass(frozen=True, eq=False)
class Draws:
    """Uniform numbers in [0, 1) for sequences with one key each. Streams are told apart by name, and indices count from 0."""

    keys: np.ndarray  # uint64 [n]

    def _stream(self, stream: str) -> np.ndarray:
        return mix(self.keys ^ np.uint64(int.from_bytes(stream.encode()[:8].ljust(8), "little")))

    def at(self, stream: str, owner: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Returns number `index` of the sequence `owner`."""
        return uniform(self._stream(stream)[owner], index)

    def each(self, stream: str) -> np.ndarray:
        """Returns one number for each sequence: [n]."""
        return uniform(self._stream(stream), np.zeros(1, np.uint64))

    def values(self, stream: str, ragged: Ragged) -> np.ndarray:
        """Returns one number for each value of the sequences: [total]."""
        return self.at(stream, ragged.owner, ragged.position)

    def table(self, stream: str, width: int) -> np.ndarray:
        """Returns `width` numbers for each sequence: [n, width]."""
        return uniform(self._stream(stream)[:, None], np.arange(width)[None])

    def integers(self, stream: str, count: np.ndarray) -> np.ndarray:
        """Returns one integer for each sequence, uniform in 0..count-1 (0 where count is 0): int64 [n]."""
        return (self.each(stream) * count).astype(np.int64)
