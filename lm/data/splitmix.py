"""Random numbers and permutations as pure functions of (key, index): splitmix64 (Steele, Lea and Flood 2014; numpy only).

There is no state, so any number can be made first, alone or in another process. numpy does not promise that its own generators stay the
same between versions, and data must not change with a library.
"""

import dataclasses

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # the step of splitmix64's counter: 2^64 over the golden ratio, odd
_MASK = (1 << 64) - 1
_ROUNDS = 8


def mix(x: np.ndarray) -> np.ndarray:
    """Scatters 64-bit integers: uint64 -> uint64, a bijection (splitmix64's finaliser)."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def advance(keys: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Returns number `index` >= 0 of the stream of each key: uint64, which may serve as keys in turn."""
    with np.errstate(over="ignore"):
        return mix(keys + GOLDEN * (np.asarray(index).astype(np.uint64) + np.uint64(1)))


def uniform(keys: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Returns number `index` >= 0 of the stream of each key as float64 in [0, 1), 53 random bits each."""
    return (advance(keys, index) >> np.uint64(11)) * 2.0**-53


def streams(key: int, number: np.ndarray) -> np.ndarray:
    """Returns the key of each numbered stream that follows from one key: uint64."""
    with np.errstate(over="ignore"):
        return mix(mix(np.asarray(number, np.uint64) * GOLDEN) ^ np.uint64(key))


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
