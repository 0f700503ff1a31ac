"""Positions against formulas written from the papers, with loops and plain numbers."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
from model.families import ALL, LENGTH, LLAMA, NEOX, ONE, T5_10, rows, run
from model.small import close

from lm.model.config import RopeScaling
from lm.model.parts.positions import rotated_size
from lm.model.positions import bucket, rope, rotate, scaled, sinusoidal


def t5_bucket(distance, buckets, furthest, both_ways):
    """Raffel et al. 2019, section 2.1: query minus key, one at a time. Edges that fall between integers are the same in any precision."""
    if both_ways and distance < 0:
        return buckets // 2 + t5_bucket(-distance, buckets // 2, furthest, both_ways=False)
    if both_ways:
        buckets //= 2
    near = buckets // 2
    if distance < near:
        return max(distance, 0)
    grown = math.log(distance / near) / math.log(furthest / near) * (buckets - near)
    return min(near + math.floor(grown + 1e-9), buckets - 1)


@pytest.mark.parametrize(("buckets", "furthest"), [(32, 128), (8, 10), (16, 50), (4, 6)])
@pytest.mark.parametrize("both_ways", [True, False])
def test_buckets_are_those_of_t5(buckets, furthest, both_ways):
    distances = np.arange(-200, 201)
    expected = [t5_bucket(int(distance), buckets, furthest, both_ways) for distance in distances]
    found = np.asarray(bucket(distances, buckets, furthest, both_ways=both_ways))
    np.testing.assert_array_equal(found, expected)
    assert set(found) == set(range(buckets)) - ({buckets // 2} if both_ways else set())  # distance 0 is the earlier half's


def test_sinusoids_are_those_of_the_paper():
    positions = np.array([[0, 3, 7]], np.int32)
    found = sinusoidal(positions, 6, jnp.float32)
    for t, i in np.ndindex(3, 6):
        angle = positions[0, t] / 10_000 ** (2 * (i // 2) / 6)
        assert found[0, t, i] == pytest.approx(math.sin(angle) if i % 2 == 0 else math.cos(angle), abs=1e-6)


def test_llama3s_frequencies_are_kept_divided_or_in_between():
    scaling = RopeScaling(factor=8.0, low_frequency_factor=1.0, high_frequency_factor=4.0, original_length=8192)
    frequencies = 500_000.0 ** (-np.arange(0, 128, 2) / 128)
    for plain, found in zip(frequencies, scaled(frequencies, scaling), strict=True):
        wavelength = 2 * math.pi / plain
        if wavelength > 8192 / 1.0:
            expected = plain / 8
        elif wavelength < 8192 / 4.0:
            expected = plain
        else:
            smooth = (8192 / wavelength - 1.0) / (4.0 - 1.0)
            expected = (1 - smooth) * plain / 8 + smooth * plain
        assert found == pytest.approx(expected, rel=1e-12)


def test_pairs_turn_by_their_angle_and_the_rest_of_a_head_stays():
    attention = dataclasses.replace(NEOX.attention, head_dim=8)
    config = dataclasses.replace(NEOX, attention=attention, rope_scaling=RopeScaling(factor=2.0, original_length=64))
    assert rotated_size(config) == 4
    x = np.random.default_rng(0).standard_normal((1, 3, 2, 8)).astype(np.float32)
    positions = np.array([[0, 2, 9]], np.int32)
    found = np.asarray(rotate(jnp.asarray(x), rope(positions, config)))
    np.testing.assert_array_equal(found[..., 4:], x[..., 4:])
    frequencies = scaled(10_000.0 ** (-np.arange(0, 4, 2) / 4), config.rope_scaling)
    for t, head, pair in np.ndindex(3, 2, 2):
        z = complex(x[0, t, head, pair], x[0, t, head, pair + 2]) * np.exp(1j * positions[0, t] * frequencies[pair])
        assert (found[0, t, head, pair], found[0, t, head, pair + 2]) == pytest.approx((z.real, z.imag), abs=1e-6)


@pytest.mark.parametrize("config", [T5_10, LLAMA], ids=["relative", "rotary"])
def test_distance_alone_counts(config):
    """A document that starts later in its row, or counts its positions from another number, says the same."""
    shift, base = 4, rows(config, ONE, ONE)
    segments = np.where(np.arange(LENGTH) < shift, 1, 2).astype(np.int32)[None].repeat(2, 0)
    ids = np.roll(base.tokens, shift, axis=1)
    encoder = {}
    if config is T5_10:
        encoder = {"encoder_tokens": base.encoder_tokens, "encoder_segments": 2 * base.encoder_segments}
    moved = dataclasses.replace(base, tokens=ids, segments=segments, positions=ALL, **encoder)
    plain, later = run(config, base, moved)
    close(later.logits[:, shift:], plain.logits[:, :-shift], 2e-5)
