"""Checksums of arrays that are the same however the array is split over devices and processes (imports no jax).

Each 32-bit word of an array (a narrower element is widened, a wider one is two words) is mixed with its index by the finaliser of
MurmurHash3 (Appleby 2011), which is a bijection. Two sums modulo 2^32 of what comes out, the second weighted by odd numbers, make 64 bits.
Being sums, those of parts add up to that of the whole. Any change within one word changes the first sum, and changes of several words are
found but for a chance of about 2^-64. The device computes the same in lm.train.copies.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

PIECE = 1 << 15  # words that are mixed together, so that they stay in the processor's cache
Sums = tuple[int, int]


def mixed(words: Any, index: Any) -> tuple[Any, Any]:
    """Returns the terms of both sums, given words and their indices as uint32 of NumPy or JAX."""
    u32 = np.uint32
    x = words ^ (index * u32(0x9E3779B1) + u32(0x7F4A7C15))
    x = (x ^ (x >> u32(16))) * u32(0x85EBCA6B)
    x = (x ^ (x >> u32(13))) * u32(0xC2B2AE35)
    x = x ^ (x >> u32(16))
    return x, x * (index + index + u32(1))


def of_part(part: np.ndarray, shape: Sequence[int], start: Sequence[int]) -> Sums:
    """Returns the sums of the part that begins at `start` of an array of this shape."""
    per = max(part.dtype.itemsize // 4, 1)  # words of an element
    words = np.ascontiguousarray(part).reshape(-1).view(f"u{min(part.dtype.itemsize, 4)}")
    strides = [per * math.prod(shape[dim + 1 :]) for dim in range(len(shape))]
    first = sum(begin * stride for begin, stride in zip(start, strides, strict=True))
    sums = [0, 0]
    for at in range(0, words.size, PIECE):
        flat = np.arange(at, min(at + PIECE, words.size), dtype=np.uint64)
        index = first + (flat if part.size == math.prod(shape) else _index(flat, per, part.shape, strides))
        for which, terms in enumerate(mixed(words[at : at + PIECE].astype(np.uint32), index.astype(np.uint32))):
            sums[which] += int(terms.sum(dtype=np.uint64))
    return sums[0] % 2**32, sums[1] % 2**32


def _index(flat: np.ndarray, per: int, shape: Sequence[int], strides: Sequence[int]) -> np.ndarray:
    """Returns the indices in the whole array of words that have the indices `flat` in a part of it, apart from where the part begins."""
    left, index = flat // per, flat % per
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        index = index + left % size * stride
        left = left // size
    return index


def added(parts: Sequence[Sums]) -> Sums:
    """Returns the sums of an array, given those of its parts."""
    return sum(a for a, _ in parts) % 2**32, sum(b for _, b in parts) % 2**32


def text(sums: Sums) -> str:
    """Returns 16 hexadecimal digits."""
    return f"{sums[0]:08x}{sums[1]:08x}"


def of(array: Any) -> str:
    """Returns the checksum of a whole array."""
    values = np.asarray(array)
    return text(of_part(values, values.shape, (0,) * values.ndim))
