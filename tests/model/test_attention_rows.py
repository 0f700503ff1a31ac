"""Attention row by row: equal to the plain products, in value and gradient, under every kind of mask that it serves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.model.kernels import rows
from lm.model.kernels.plain import xla_attention
from lm.model.mask import Mask

LENGTH = rows.LEAST


def described(kind, *, segments=False, prefix=False, **changes):
    position = jnp.arange(LENGTH)[None]
    segment = (position >= LENGTH // 3) + 1 if segments else None
    first = (position < LENGTH // 2).astype(jnp.int32) if prefix else None
    return Mask(position, position, segment, segment, first, position, position, kind=kind, **changes)


MASKS = {
    "a causal window in isolated documents": described("causal", segments=True, window=100),
    "a prefix": described("causal", prefix=True),
    "full": described("full"),
}


@pytest.mark.parametrize("name", MASKS)
def test_rows_equal_the_plain_products(name):
    rng = np.random.default_rng(0)
    q, k, v, given = (jnp.asarray(rng.standard_normal((2, LENGTH, heads, 8)), jnp.float32) for heads in (4, 2, 2, 4))

    def both(attention):
        attended, back = jax.vjp(lambda *x: attention(*x, MASKS[name], scale=0.7), q, k, v)
        return attended, *back(given)

    for found, expected in zip(jax.jit(lambda: both(rows.attention))(), jax.jit(lambda: both(xla_attention))(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)


def test_a_causal_block_reads_no_keys_after_it():
    """Those that are not read may be anything."""
    rng = np.random.default_rng(1)
    q, k = (jnp.asarray(rng.standard_normal((1, LENGTH, 2, 8)), jnp.float32) for _ in range(2))
    spoilt = k.at[:, LENGTH // 2 :].set(jnp.nan)
    attended = rows.attention(q, spoilt, spoilt, described("causal"))
    assert np.isfinite(attended[:, : LENGTH // 2]).all()
