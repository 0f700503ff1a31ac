"""Sequences of several lengths as flat arrays: a transform of a batch is a few numpy calls, whatever the number of sequences."""

import dataclasses
import functools

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Ragged:
    """Sequences back to back: `values` [total] and their `lengths` [n], which may be 0. `ragged[i]` is sequence i."""

    values: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> np.ndarray:
        return self.values[self.starts[i] : self.starts[i] + self.lengths[i]]

    @functools.cached_property
    def starts(self) -> np.ndarray:
        return before(self.lengths)

    @functools.cached_property
    def owner(self) -> np.ndarray:
        """The sequence of each value."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @functools.cached_property
    def position(self) -> np.ndarray:
        """The position of each value in its sequence."""
        return np.arange(len(self.values)) - np.repeat(self.starts, self.lengths)

    def with_values(self, values: np.ndarray) -> "Ragged":
        """Returns sequences of the same lengths with other values."""
        return Ragged(values, self.lengths)

    def keep(self, chosen: np.ndarray) -> "Ragged":
        """Returns the values where `chosen` [total] is true."""
        return Ragged(self.values[chosen], np.bincount(self.owner[chosen], minlength=len(self)))

    def part(self, begin: np.ndarray, end: np.ndarray) -> "Ragged":
        """Returns the values begin[i] : end[i] of each sequence."""
        return self.keep((self.position >= begin[self.owner]) & (self.position < end[self.owner]))

    def select(self, chosen: np.ndarray) -> "Ragged":
        """Returns the sequences where `chosen` [n] is true."""
        return Ragged(self.values[chosen[self.owner]], self.lengths[chosen])


def before(counts: np.ndarray) -> np.ndarray:
    """Returns the sum of all counts before each."""
    return np.cumsum(counts) - counts


def group_before(counts: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Returns the sum of the counts before each in its group; `group` [n] is sorted."""
    total = before(counts)
    return total - total[np.searchsorted(group, group)]


def single(value: int | np.ndarray, where: np.ndarray) -> Ragged:
    """Returns sequences of one value (or one value each) where `where` [n] is true, and empty ones elsewhere."""
    return Ragged(np.broadcast_to(value, where.shape)[where], where.astype(np.int64))


def join(*parts: Ragged) -> Ragged:
    """Joins sequences: sequence i is the sequences i of all parts, one after the other."""
    lengths = np.sum([part.lengths for part in parts], axis=0)
    values = np.empty(int(lengths.sum()), np.int64)
    at = before(lengths)
    for part in parts:
        values[np.repeat(at - part.starts, part.lengths) + np.arange(len(part.values))] = part.values
        at = at + part.lengths
    return Ragged(values, lengths)


def ranks(draws: np.ndarray, ragged: Ragged) -> np.ndarray:
    """Returns the rank of each value's draw in [0, 1) in its sequence: [total]. Ranks below k are k values drawn without replacement."""
    order = np.argsort(ragged.owner + draws, kind="stable")
    ranks = np.empty(len(order), np.int64)
    ranks[order] = ragged.position
    return ranks
