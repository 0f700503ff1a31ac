"""Norms are their formulas, where epsilon counts too."""

import jax
import numpy as np
import pytest

from lm.model.norm import make_norm
from lm.sharding import RULES

EPSILON = 1e-3


@pytest.mark.parametrize("kind", ["rmsnorm", "layernorm"])
@pytest.mark.parametrize("size", [1e-3, 1.0])
def test_a_norm_is_its_formula(kind, size):
    """x / sqrt(mean(x^2) + epsilon), of x - mean(x) in a layer norm (Zhang & Sennrich 2019, eq. 4; Ba et al. 2016)."""
    x = size * np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32) + size
    wide = x.astype(np.float64)
    if kind == "layernorm":
        wide = wide - wide.mean(axis=-1, keepdims=True)
    expected = wide / np.sqrt((wide**2).mean(axis=-1, keepdims=True) + EPSILON)
    np.testing.assert_allclose(make_norm(kind, 8, EPSILON, key=jax.random.key(0), rules=RULES)(x), expected, rtol=1e-5, atol=1e-7)
