"""Random numbers as a pure function of (key, index): splitmix64 (Steele, Lea and Flood 2014; numpy only).

There is no state, so any number can be made first, alone or in another process. numpy does not promise that its own generators stay the
same between versions, and data must not change with a library.
"""

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # the step of splitmix64's counter: 2^64 over the golden ratio, odd


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
