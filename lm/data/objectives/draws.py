"""Random numbers as a function of (key, stream, index): no state, so any row can be made first, alone or in another process.

splitmix64 (Steele, Lea, Flood 2014), as in lm.data.store: numpy does not promise that its generators' laws stay the same between
versions, and data must not change with a library.
"""

import dataclasses

import numpy as np

from lm.data.objectives.ragged import Ragged
from lm.data.splitmix import advance, mix, uniform
from lm.data.store import seed_of


def row_keys(fingerprint: str, seed: int, epochs: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """uint64 [rows]: one key for each row of each epoch of a run."""
    base = np.full(len(rows), seed_of("noise", fingerprint, seed), np.uint64)
    return advance(advance(base, epochs), rows)


@dataclasses.dataclass(frozen=True, eq=False)
class Draws:
    """Uniform numbers in [0, 1) for sequences with one key each; streams are told apart by name, and indices count from 0."""

    keys: np.ndarray  # uint64 [n]

    def _stream(self, stream: str) -> np.ndarray:
        return mix(self.keys ^ np.uint64(int.from_bytes(stream.encode()[:8].ljust(8), "little")))

    def at(self, stream: str, owner: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Number `index` of the sequence `owner`."""
        return uniform(self._stream(stream)[owner], index)

    def each(self, stream: str) -> np.ndarray:
        """[n]: one for each sequence."""
        return uniform(self._stream(stream), np.zeros(1, np.uint64))

    def values(self, stream: str, ragged: Ragged) -> np.ndarray:
        """[total]: one for each value of the sequences."""
        return self.at(stream, ragged.owner, ragged.place)

    def table(self, stream: str, width: int) -> np.ndarray:
        """[n, width]"""
        return uniform(self._stream(stream)[:, None], np.arange(width)[None])

    def integers(self, stream: str, count: np.ndarray) -> np.ndarray:
        """[n]: uniform in 0..count-1 (0 where count is 0)."""
        return (self.each(stream) * count).astype(np.int64)
