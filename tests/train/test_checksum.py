"""Checksums of arrays: every bit counts, and parts add up to the whole."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from lm.train import checksum


@pytest.mark.parametrize("dtype", [np.float64, np.float32, jnp.bfloat16, np.int8, np.bool_])
def test_every_bit_and_its_place_count(dtype):
    array = np.arange(7).astype(dtype)
    found = {checksum.of(array)}
    for byte, bit in itertools.product(range(array.nbytes), range(8)):
        other = array.copy()
        other.view(np.uint8)[byte] ^= 1 << bit
        found.add(checksum.of(other))
    found.add(checksum.of(array[::-1]))
    assert len(found) == 2 + 8 * array.nbytes


def test_two_signs_that_flip_are_found():
    """The highest bits of two words would cancel in a sum of words, whatever odd numbers weigh them."""
    array = np.random.default_rng(0).standard_normal(64).astype(np.float32)
    found = {checksum.of(array)}
    for i, j in itertools.combinations(range(64), 2):
        other = array.copy()
        other[[i, j]] *= -1
        found.add(checksum.of(other))
    assert len(found) == 1 + 64 * 63 // 2


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16])
def test_parts_add_up_to_the_whole(dtype, monkeypatch):
    monkeypatch.setattr(checksum, "PIECE", 10)  # words, so that parts are read in several pieces
    array = np.random.default_rng(0).integers(-100, 100, (6, 4, 8)).astype(dtype)
    starts = itertools.product(range(0, 6, 3), range(0, 4, 2), range(0, 8, 4))
    parts = [checksum.of_part(array[a : a + 3, b : b + 2, c : c + 4], array.shape, (a, b, c)) for a, b, c in starts]
    assert checksum.text(checksum.added(parts)) == checksum.of(array)
