"""Each strategy draws the tokens that it may, as often as it should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.errors import UserError
from lm.infer.sampling import Greedy, Temperature, TopK, TopP

LOGITS = jnp.log(jnp.array([0.4, 0.05, 0.3, 0.2, 0.05]))
DRAWS = 4000


def drawn(sampler):
    """Share of each token over many draws."""
    keys = jax.random.split(jax.random.key(0), DRAWS)
    tokens = jax.jit(sampler.sample)(jnp.tile(LOGITS, (DRAWS, 1)), keys)
    return np.bincount(tokens, minlength=5) / DRAWS


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (Greedy(), [1, 0, 0, 0, 0]),
        (Temperature(), [0.4, 0.05, 0.3, 0.2, 0.05]),
        (Temperature(0.5), np.array([16, 0.25, 9, 4, 0.25]) / 29.5),
        (TopK(1), [1, 0, 0, 0, 0]),
        (TopK(2), [4 / 7, 0, 3 / 7, 0, 0]),
        (TopP(0.1), [1, 0, 0, 0, 0]),
        (TopP(0.69), [4 / 7, 0, 3 / 7, 0, 0]),
        (TopP(1.0), [0.4, 0.05, 0.3, 0.2, 0.05]),
    ],
)
def test_tokens_come_as_often_as_they_should(sampler, expected):
    share, expected = drawn(sampler), np.asarray(expected)
    assert (share[expected == 0] == 0).all()
    assert np.abs(share - expected).max() < 5 * 0.5 / DRAWS**0.5  # five standard errors at most


@pytest.mark.parametrize("make", [lambda: Temperature(0.0), lambda: TopK(0), lambda: TopP(0.0), lambda: TopP(1.5), lambda: TopK(2, -1.0)])
def test_impossible_settings_are_refused(make):
    with pytest.raises(UserError):
        make()
