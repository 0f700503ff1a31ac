"""Keyed pseudo-random permutations with random access: no state, no tables (numpy only)."""

import dataclasses

import numpy as np

from lm.data.splitmix import GOLDEN, mix

_MASK = (1 << 64) - 1
_ROUNDS = 8


@dataclasses.dataclass(frozen=True)
class Permutation:
    """A permutation of range(size) that depends on `key`: `permutation(x)` and `permutation.inverse(x)`, int64 arrays of any shape.

    A Feistel network (Luby and Rackoff 1988) of 8 rounds over two halves of equal width permutes 2^(2h) numbers, at most 4 times as many
    as `size`; a number that lands at `size` or beyond goes through again until it does not (cycle walking: Black and Rogaway 2002).
    """

    size: int
    key: int

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self._walk(x, range(_ROUNDS), swap=False)

    def inverse(self, x: np.ndarray) -> np.ndarray:
        return self._walk(x, range(_ROUNDS - 1, -1, -1), swap=True)

    def _walk(self, x: np.ndarray, rounds: range, swap: bool) -> np.ndarray:
        value = np.array(x, np.uint64)
        outside = np.ones(value.shape, bool)
        while outside.any():
            value[outside] = self._pass(value[outside], rounds, swap)
            outside = value >= np.uint64(self.size)
        return value.astype(np.int64)

    def _pass(self, value: np.ndarray, rounds: range, swap: bool) -> np.ndarray:
        half = np.uint64(max((self.size - 1).bit_length() + 1, 2) // 2)
        low = (np.uint64(1) << half) - np.uint64(1)
        left, right = value >> half, value & low
        if swap:
            left, right = right, left
        for number in rounds:
            key = mix(np.asarray([(self.key + number * int(GOLDEN)) & _MASK], np.uint64))
            left, right = right, left ^ (mix(right ^ key) & low)
        if swap:
            left, right = right, left
        return (left << half) | right
